package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	operatorNamespace = "operator-system"
	foreignNamespace  = "foreign"
	managerUser       = "bench-manager"
	defaultConnection = "default"
	valueKey          = "key"

	namespaces   = 10               // over which the objects are spread
	hands        = 16               // requests of the load at a time
	stallTimeout = 10 * time.Minute // without progress
)

// world is what one run has for itself: an API server, a Grafana, a manager, and a connection that everybody uses.
type world struct {
	plane      *controlplane.ControlPlane
	k8s        client.Client // reads live
	grafana    *fakeGrafana
	manager    *manager
	binary     string
	kubeconfig string
	log        string
	profiles   string
	scenario   string
	made       int // objects
	alone      restUsage
	floor      floor // zero: not measured
}

func newWorld(ctx context.Context, opts options, n int, binary, dir string) (_ *world, err error) {
	w := &world{binary: binary, profiles: opts.profiles, kubeconfig: filepath.Join(dir, "kubeconfig"), log: filepath.Join(dir, "manager.log")}
	if err := os.RemoveAll(w.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.plane, err = controlplane.Start(controlplane.Options{CRDDirectories: []string{"config/crd/bases"}}); err != nil {
		return nil, err
	}
	config := w.plane.Config()
	config.QPS = -1
	if w.k8s, err = client.New(config, client.Options{Scheme: operator.Scheme()}); err != nil {
		return nil, err
	}
	user, err := w.plane.AddUser(managerUser, "system:masters")
	if err != nil {
		return nil, err
	}
	if err := clientcmd.WriteToFile(kubeconfigOf(user), w.kubeconfig); err != nil {
		return nil, err
	}
	if w.grafana, err = startFakeGrafana(opts.latency, opts.plainHTTP); err != nil {
		return nil, err
	}
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(opts.scenarios, func(s scenario) bool { return s.floor }) && n <= floorObjects {
		say("== floor: what the same requests take, sent by a client that does nothing else")
		if w.floor, err = measureFloor(ctx, w, n); err != nil {
			return nil, err
		}
	}
	if err := w.start(); err != nil {
		return nil, err
	}
	return w, w.connected(ctx, defaultConnection)
}

// kubeconfigOf returns what a client in another process needs to be the same user.
func kubeconfigOf(config *rest.Config) clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters["bench"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	c.AuthInfos["bench"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	c.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	c.CurrentContext = "bench"
	return *c
}

// prepare makes the namespaces, and the connection, which has no rate limit.
func (w *world) prepare(ctx context.Context) error {
	names := []string{operatorNamespace, foreignNamespace}
	for i := range namespaces {
		names = append(names, namespaceOf(i))
	}
	for _, name := range names {
		if err := w.k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	key := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: fingerprint.SecretName}, Type: fingerprint.SecretType,
	}
	if err := w.k8s.Create(ctx, key); err != nil {
		return err
	}
	return w.connect(ctx, defaultConnection, w.grafana)
}

// connect makes a connection of everybody to a Grafana, without a rate limit.
func (w *world) connect(ctx context.Context, name string, to *fakeGrafana) error {
	credentials := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "grafana-" + name},
		Data:       map[string][]byte{"token": []byte(grafanaToken), "ca": to.CA},
	}
	conn := &v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Name: name}}
	conn.Spec.URL = to.URL
	conn.Spec.Credentials.TokenSecretRef = v1alpha1.SecretKeyReference{Name: credentials.Name, Key: "token"}
	if len(to.CA) > 0 {
		conn.Spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: credentials.Name, Key: "ca"}}
	}
	conn.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0))}
	conn.Spec.AllowedNamespaces.From = v1alpha1.NamespacesFromAll
	return errors.Join(w.k8s.Create(ctx, credentials), w.k8s.Create(ctx, conn))
}

func (w *world) start() (err error) {
	w.manager, err = startManager(w.binary, w.kubeconfig, w.log, w.profiles != "")
	return err
}

// restart ends the manager, and starts another one.
func (w *world) restart() error {
	if err := w.manager.stop(); err != nil {
		return err
	}
	return w.start()
}

func (w *world) close() error {
	var errs []error
	if w.manager != nil {
		errs = append(errs, w.manager.stop())
	}
	if w.grafana != nil {
		errs = append(errs, w.grafana.close())
	}
	if w.plane != nil {
		errs = append(errs, w.plane.Stop())
	}
	return errors.Join(errs...)
}

func (w *world) managerLog() string {
	content, err := os.ReadFile(w.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4096):])
}

// connected waits until the connection may be used.
func (w *world) connected(ctx context.Context, name string) error {
	return w.until(ctx, "the connection to be Ready", 1, func() (int, error) {
		conn := &v1alpha1.ClusterGrafanaConnection{}
		err := w.k8s.Get(ctx, client.ObjectKey{Name: name}, conn)
		if meta.IsStatusConditionTrue(conn.Status.Conditions, v1alpha1.ConditionReady) {
			return 1, err
		}
		return 0, err
	})
}

// Names by number. Names in Grafana, where there are no namespaces of Kubernetes, are unique.
func namespaceOf(i int) string { return fmt.Sprintf("team-%d", i%namespaces) }
func nameOf(i int) string      { return fmt.Sprintf("value-%06d", i) }

// makeSecrets makes Secrets from number i on.
func (w *world) makeSecrets(ctx context.Context, i, n int) error {
	return w.each(ctx, "Secrets made", i, n, func(ctx context.Context, i int) error {
		return w.k8s.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: nameOf(i)},
			Data:       map[string][]byte{valueKey: []byte("first value of " + nameOf(i) + ", as long as a token is")},
		})
	})
}

// makeObjects makes objects that read these Secrets.
func (w *world) makeObjects(ctx context.Context, i, n int) error {
	w.made = i + n
	return w.each(ctx, "objects made", i, n, func(ctx context.Context, i int) error {
		return w.k8s.Create(ctx, objectOf(nameOf(i), i, defaultConnection))
	})
}

// objectOf returns an object that reads Secret i.
func objectOf(name string, i int, connection string) *v1alpha1.GrafanaSecureValue {
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: name}}
	sv.Spec.Decrypters = []string{"synthetic-monitoring"}
	sv.Spec.ValueFrom.SecretKeyRef = v1alpha1.SecretKeyReference{Name: nameOf(i), Key: valueKey}
	sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: connection}
	return sv
}

// rotate gives the Secret another value.
func (w *world) rotate(ctx context.Context, i int) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: nameOf(i)}}
	patch := fmt.Appendf(nil, `{"stringData":{%q:"value of %d"}}`, valueKey, time.Now().UnixNano())
	return w.k8s.Patch(ctx, secret, client.RawPatch("application/merge-patch+json", patch))
}

// ensure makes objects until there are n, and waits until they are in sync.
func (w *world) ensure(ctx context.Context, n int) error {
	if from := w.made; from < n {
		if err := errors.Join(w.makeSecrets(ctx, from, n-from), w.makeObjects(ctx, from, n-from)); err != nil {
			return err
		}
	}
	if err := w.synced(ctx); err != nil {
		return err
	}
	return w.settled(ctx)
}

// synced waits until the manager says that all objects are in sync.
func (w *world) synced(ctx context.Context) error {
	return w.until(ctx, "in sync", w.made, func() (int, error) {
		return w.manager.metric(ctx, "gsv_secure_values", `reason="Synced"`), nil
	})
}

// reallySynced asks the API server itself.
func (w *world) reallySynced(ctx context.Context) error {
	values := &v1alpha1.GrafanaSecureValueList{}
	n := 0
	for {
		if err := w.k8s.List(ctx, values, client.Limit(500), client.Continue(values.Continue)); err != nil {
			return err
		}
		for _, sv := range values.Items {
			if meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReady) && sv.Status.ObservedGeneration == sv.Generation {
				n++
			}
		}
		if values.Continue == "" {
			break
		}
	}
	if n != w.made {
		return fmt.Errorf("the manager says that all objects are in sync, and the API server shows %d of %d so", n, w.made)
	}
	return nil
}

// settled waits until the manager has reconciled nothing for a second.
func (w *world) settled(ctx context.Context) error {
	last, since := -1, time.Now()
	return w.until(ctx, "at rest", 1, func() (int, error) {
		if reconciles := w.reconciles(ctx); reconciles != last {
			last, since = reconciles, time.Now()
		}
		return int(time.Since(since) / time.Second), nil
	})
}

// reconciles returns how often the manager has reconciled an object.
func (w *world) reconciles(ctx context.Context) int {
	return w.manager.metric(ctx, "controller_runtime_reconcile_total", `controller="grafanasecurevalue"`)
}

const (
	tick     = 500 * time.Millisecond // at least between two checks of what is waited for: each is work for the manager, too
	fine     = 50 * time.Millisecond  // the same, where the check itself is what is measured
	progress = 5 * time.Second        // between two lines about it
)

// until waits until have returns want, and says how far it is.
func (w *world) until(ctx context.Context, what string, want int, have func() (int, error)) error {
	return w.untilEvery(ctx, tick, what, want, have)
}

// untilEvery is until with so much time between two checks, or ten times what one takes.
func (w *world) untilEvery(ctx context.Context, tick time.Duration, what string, want int, have func() (int, error)) error {
	deadline, said, best := time.Now().Add(stallTimeout), time.Now(), 0
	for {
		checked := time.Now()
		n, err := have()
		if err != nil || n >= want {
			return err
		}
		cost := time.Since(checked)
		if n > best {
			deadline, best = time.Now().Add(stallTimeout), n
		}
		if time.Since(said) > progress {
			said = time.Now()
			say("   %s: %d of %d", what, n, want)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d of %d, and no more for %s", what, best, want, stallTimeout)
		}
		if err := pause(ctx, min(max(tick, 10*cost), time.Second)); err != nil {
			return err
		}
	}
}

// pause waits, unless the run ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// each does something for n numbers from first on, several at a time, and says how far it is.
func (w *world) each(ctx context.Context, what string, first, n int, do func(context.Context, int) error) error {
	return eachBy(ctx, hands, what, first, n, do)
}

// eachBy is each, with so many at a time.
func eachBy(ctx context.Context, hands int, what string, first, n int, do func(context.Context, int) error) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(hands)
	var done atomic.Int64
	said := time.Now()
	for i := first; i < first+n && groupCtx.Err() == nil; i++ {
		if time.Since(said) > progress {
			said = time.Now()
			say("   %s: %d of %d", what, done.Load(), n)
		}
		group.Go(func() error {
			defer done.Add(1)
			return do(groupCtx, i)
		})
	}
	return group.Wait()
}

// requests counts what the manager asked of the API server since the mark, by verb and resource, for example "patch grafanasecurevalues/status".
// Watches, events, leases, tokens and what is asked once at the start are left out.
func (w *world) requests(since controlplane.Mark) (map[string]int, error) {
	events, err := w.plane.Audit(since)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, e := range events {
		switch {
		case e.User != managerUser, e.Verb == "watch", e.Resource == "", e.Resource == "events", e.Resource == "leases",
			e.Namespace == operatorNamespace, e.Resource == "namespaces", e.Verb == "list":
			continue
		}
		counts[kindOf(e)]++
	}
	return counts, nil
}

// kindOf returns the verb and the resource of a request, for example "patch grafanasecurevalues/status".
func kindOf(e controlplane.AuditEvent) string {
	if e.Subresource != "" {
		return e.Verb + " " + e.Resource + "/" + e.Subresource
	}
	return e.Verb + " " + e.Resource
}

// events counts the Events that the manager made since the mark.
func (w *world) events(since controlplane.Mark) (int, error) {
	events, err := w.plane.Audit(since)
	n := 0
	for _, e := range events {
		if e.User == managerUser && e.Resource == "events" && e.Verb == "create" {
			n++
		}
	}
	return n, err
}

// profiled takes profiles of the manager while do runs, where that is asked for.
func (w *world) profiled(ctx context.Context, do func() error) error {
	if w.profiles == "" {
		return do()
	}
	if err := os.MkdirAll(w.profiles, 0o750); err != nil {
		return err
	}
	keep := func(kind, query string) error {
		content, err := w.manager.get(ctx, w.manager.profiles+query)
		for tries := 0; err != nil && tries < 100; tries++ { // it may have just been started
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			content, err = w.manager.get(ctx, w.manager.profiles+query)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(w.profiles, w.scenario+"-"+strconv.Itoa(w.made)+"."+kind), content, 0o600)
	}
	taken := make(chan error, 1)
	go func() { taken <- keep("cpu", "profile?seconds=5") }()
	err := do()
	return errors.Join(err, <-taken, keep("heap", "heap?gc=1"), keep("allocs", "allocs"))
}
