package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// world is what one spec has for itself: a namespace, a Grafana, and a connection between them.
type world struct {
	ctx       context.Context
	namespace string
	grafana   *grafanatest.Server
	url       string
}

const (
	goodToken     = "glsa_canary-token"
	connectionRef = "prod"
	grafanaNS     = "default"
)

// newWorld makes a namespace and a Grafana, and a Secret with its token. The spec's connection is not made yet.
func newWorld(ctx context.Context, options ...grafanatest.Option) *world {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}
	Expect(k8s.Create(ctx, ns)).To(Succeed())

	server, url := anotherGrafana(options...) // closed after the cleanup below
	w := &world{ctx: ctx, namespace: ns.Name, grafana: server, url: url}
	DeferCleanup(func(ctx context.Context) {
		w.checkInvariants(ctx)
		w.cleanUp(ctx)
	})
	w.secret("grafana", map[string]string{"token": goodToken + "\n"})
	return w
}

// anotherGrafana starts one that takes the specs' token, and returns its address.
func anotherGrafana(options ...grafanatest.Option) (*grafanatest.Server, string) {
	GinkgoHelper()
	server := grafanatest.New(append(options, grafanatest.WithWords("canary-words"))...)
	server.AddToken(goodToken)
	running, err := server.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(running.Close)
	return server, running.URL
}

// newConnectedWorld is newWorld with a connection that is Ready, and no call on record.
func newConnectedWorld(ctx context.Context, options ...grafanatest.Option) *world {
	GinkgoHelper()
	w := newWorld(ctx, options...)
	w.create(w.connection(connectionRef))
	w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	w.grafana.ResetCalls()
	return w
}

func (w *world) connection(name string) *v1alpha1.GrafanaConnection {
	return &v1alpha1.GrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.GrafanaConnectionSpec{ConnectionSpec: w.connectionSpec("grafana")},
	}
}

func (w *world) connectionSpec(secret string) v1alpha1.ConnectionSpec {
	return v1alpha1.ConnectionSpec{
		URL:         w.url,
		Namespace:   grafanaNS,
		Credentials: v1alpha1.Credentials{TokenSecretRef: v1alpha1.SecretKeyReference{Name: secret, Key: "token"}},
		// For so long after the start of a manager, and after a write of unknown outcome, a 404 proves nothing.
		RequestTimeout: "10s",
	}
}

// value returns an object of the given name that reads key "key" of Secret "source".
func (w *world) value(name string) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef:       v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: connectionRef},
			SecureValueSettings: v1alpha1.SecureValueSettings{Decrypters: []string{"synthetic-monitoring"}},
			ValueFrom:           v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "source", Key: "key"}},
		},
	}
}

// synced makes a Secret with the value and an object that reads it, and waits until that is Ready.
func (w *world) synced(name, value string) *v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	w.secret("source", map[string]string{"key": value})
	sv := w.value(name)
	w.create(sv)
	w.eventuallySynced(sv)
	return sv
}

func (w *world) create(o client.Object) {
	GinkgoHelper()
	Expect(k8s.Create(w.ctx, o)).To(Succeed())
}

// secret makes the Secret, or gives it other data.
func (w *world) secret(name string, data map[string]string) {
	GinkgoHelper()
	w.secretIn(w.namespace, name, data)
}

func (w *world) secretIn(namespace, name string, data map[string]string) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	bytes := map[string][]byte{}
	for k, v := range data {
		bytes[k] = []byte(v)
	}
	err := k8s.Get(w.ctx, client.ObjectKeyFromObject(secret), secret)
	secret.Data = bytes
	if err == nil {
		Expect(k8s.Update(w.ctx, secret)).To(Succeed())
		return
	}
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	Expect(k8s.Create(w.ctx, secret)).To(Succeed())
}

// edit changes an object, whatever the operator writes meanwhile.
func edit[T client.Object](w *world, o T, change func(T)) {
	GinkgoHelper()
	Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
	base, _ := o.DeepCopyObject().(T)
	change(o)
	Expect(k8s.Patch(w.ctx, o, client.MergeFrom(base))).To(Succeed())
}

func (w *world) deleteSecret(name string) {
	GinkgoHelper()
	w.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
}

func (w *world) delete(o client.Object) {
	GinkgoHelper()
	Expect(client.IgnoreNotFound(k8s.Delete(w.ctx, o))).To(Succeed())
}

// eventuallySynced waits until the object says that its latest generation is in Grafana, and has released all other targets.
func (w *world) eventuallySynced(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	w.eventually(sv, v1alpha1.ReasonSynced)
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(targetsOf(sv)).To(HaveLen(1))
	}).Should(Succeed())
}

// targetsOf returns the targets that an object owns or has pending, each once, as the annotation lists them.
func targetsOf(sv *v1alpha1.GrafanaSecureValue) []string {
	var targets []string
	for _, t := range sv.Status.Targets {
		targets = append(targets, fmt.Sprintf("%s/%s/%s/%s", t.Connection.Kind, t.Connection.Name, t.Namespace, t.Name))
	}
	if pending := sv.Annotations[v1alpha1.AnnotationPendingTargets]; pending != "" {
		targets = append(targets, strings.Split(pending, ",")...)
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}

// eventually waits until the object says the reason for its latest generation.
func (w *world) eventually(sv *v1alpha1.GrafanaSecureValue, reason string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(describe(sv.Status.ObservedGeneration, sv.Status.Conditions)).
			To(Equal(describeWanted(sv.Generation, reason)), "%+v", sv.Status)
	}).Should(Succeed())
}

func (w *world) eventuallyConnection(name, reason string) *v1alpha1.GrafanaConnection {
	GinkgoHelper()
	conn := &v1alpha1.GrafanaConnection{}
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, conn)).To(Succeed())
		g.Expect(describe(conn.Status.ObservedGeneration, conn.Status.Conditions)).
			To(Equal(describeWanted(conn.Generation, reason)), "%+v", conn.Status)
	}).Should(Succeed())
	return conn
}

func (w *world) eventuallyGone(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	Eventually(func() error {
		return k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), &v1alpha1.GrafanaSecureValue{})
	}).Should(MatchError(ContainSubstring("not found")))
}

// describe says in a word what status claims of the generation.
func describe(observed int64, conditions []metav1.Condition) string {
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return "not reconciled"
	}
	return fmt.Sprintf("%d/%d %s %s", observed, ready.ObservedGeneration, ready.Status, ready.Reason)
}

func describeWanted(generation int64, reason string) string {
	state := metav1.ConditionFalse
	if reason == v1alpha1.ReasonSynced || reason == v1alpha1.ReasonConnected {
		state = metav1.ConditionTrue
	}
	return fmt.Sprintf("%d/%d %s %s", generation, generation, state, reason)
}

// message returns what the object says about Ready.
func message(conditions []metav1.Condition) string {
	return meta.FindStatusCondition(conditions, v1alpha1.ConditionReady).Message
}

// stored returns what Grafana holds under a name; it must be there.
func (w *world) stored(name string) grafanatest.Stored {
	GinkgoHelper()
	stored, found := w.grafana.Value(grafanaNS, name)
	Expect(found).To(BeTrue(), "secure value %s is not in Grafana", name)
	return stored
}

// eventuallyStored waits until Grafana holds the value under a name.
func (w *world) eventuallyStored(name, value string) grafanatest.Stored {
	GinkgoHelper()
	var stored grafanatest.Stored
	Eventually(func(g Gomega) {
		var found bool
		stored, found = w.grafana.Value(grafanaNS, name)
		g.Expect(found).To(BeTrue())
		g.Expect(string(stored.Value)).To(Equal(value))
	}).Should(Succeed())
	return stored
}

// calls returns the calls to Grafana as "verb name", without the LISTs of the connection.
func (w *world) calls() []string {
	calls := []string{}
	for _, c := range w.grafana.Calls() {
		if c.Verb != grafanatest.VerbList {
			calls = append(calls, fmt.Sprintf("%s %s", c.Verb, c.Name))
		}
	}
	return calls
}

// audited returns the requests of the manager in this world's namespace since mark. Events and watches are left out.
func (w *world) audited(mark controlplane.Mark) []controlplane.AuditEvent {
	GinkgoHelper()
	events, err := plane.Audit(mark)
	Expect(err).NotTo(HaveOccurred())
	return slices.DeleteFunc(events, func(e controlplane.AuditEvent) bool {
		return e.User != managerUser || e.Namespace != w.namespace || e.Resource == "events" || e.Verb == "watch"
	})
}

// requests returns what the manager asked of the API server in this world's namespace since mark, as "verb resource name".
// Events and watches are left out.
func (w *world) requests(mark controlplane.Mark) []string {
	GinkgoHelper()
	requests := []string{}
	for _, e := range w.audited(mark) {
		resource := e.Resource
		if e.Subresource != "" {
			resource += "/" + e.Subresource
		}
		requests = append(requests, fmt.Sprintf("%s %s %s", e.Verb, resource, e.Name))
	}
	return requests
}

// checkInvariants asserts what is true of every object after every spec.
func (w *world) checkInvariants(ctx context.Context) {
	GinkgoHelper()
	values := &v1alpha1.GrafanaSecureValueList{}
	Expect(k8s.List(ctx, values, client.InNamespace(w.namespace))).To(Succeed())
	for _, sv := range values.Items {
		checkStatus(&sv, sv.Status.ObservedGeneration, sv.Status.Conditions)
	}
	sets := &v1alpha1.GrafanaSecureValueSetList{}
	Expect(k8s.List(ctx, sets, client.InNamespace(w.namespace))).To(Succeed())
	for _, set := range sets.Items {
		checkStatus(&set, set.Status.ObservedGeneration, set.Status.Conditions)
	}
	connections := &v1alpha1.GrafanaConnectionList{}
	Expect(k8s.List(ctx, connections, client.InNamespace(w.namespace))).To(Succeed())
	for _, conn := range connections.Items {
		checkStatus(&conn, conn.Status.ObservedGeneration, conn.Status.Conditions)
	}
}

func checkStatus(o client.Object, observed int64, conditions []metav1.Condition) {
	GinkgoHelper()
	Expect(observed).To(BeNumerically("<=", o.GetGeneration()))
	reconciling := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReconciling)
	stalled := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled)
	Expect(reconciling && stalled).To(BeFalse(), "both Reconciling and Stalled: %v", conditions)
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		if ready.Reason == v1alpha1.ReasonSuspended || ready.Reason == v1alpha1.ReasonReleased {
			Expect(reconciling || stalled).To(BeFalse(), "%v", conditions)
		} else {
			Expect(meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady)).To(Equal(!reconciling && !stalled), "%v", conditions)
		}
		Expect(knownReasons).To(ContainElement(ready.Reason))
		Expect(strings.TrimSpace(ready.Message)).NotTo(BeEmpty())
	}
	out, err := json.Marshal(o)
	Expect(err).NotTo(HaveOccurred())
	Expect(string(out)).NotTo(ContainSubstring("canary"), "a secret in an object")
}

// cleanUp deletes the objects of the spec without Grafana, which may be broken.
func (w *world) cleanUp(ctx context.Context) {
	GinkgoHelper()
	Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValueSet{}, client.InNamespace(w.namespace))).To(Succeed()) // or they make them again
	values := &v1alpha1.GrafanaSecureValueList{}
	Expect(k8s.List(ctx, values, client.InNamespace(w.namespace))).To(Succeed())
	for i := range values.Items {
		sv := &values.Items[i]
		base := sv.DeepCopy()
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		Expect(client.IgnoreNotFound(k8s.Patch(ctx, sv, client.MergeFrom(base)))).To(Succeed())
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, sv))).To(Succeed())
	}
	Eventually(func(g Gomega) {
		g.Expect(k8s.List(ctx, values, client.InNamespace(w.namespace))).To(Succeed())
		g.Expect(values.Items).To(BeEmpty())
	}).WithContext(ctx).Should(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaConnection{}, client.InNamespace(w.namespace))).To(Succeed())
}

// knownReasons are the reasons that a user may meet.
var knownReasons = []string{
	v1alpha1.ReasonSynced, v1alpha1.ReasonSuspended, v1alpha1.ReasonGrafanaUnavailable, v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretKeyNotFound,
	v1alpha1.ReasonValueEmpty, v1alpha1.ReasonConnectionNotFound, v1alpha1.ReasonConnectionNotReady, v1alpha1.ReasonValueTooLarge,
	v1alpha1.ReasonValueNotUTF8, v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonRejectedByGrafana, v1alpha1.ReasonNameConflict,
	v1alpha1.ReasonNameNotAllowed, v1alpha1.ReasonDecrypterNotAllowed, v1alpha1.ReasonDrifted,
	v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonForbidden, v1alpha1.ReasonConnectionNotAllowed, v1alpha1.ReasonDeletionBlocked,
	v1alpha1.ReasonConnected, v1alpha1.ReasonCredentialsInvalid, v1alpha1.ReasonUnauthorized, v1alpha1.ReasonNamespaceRejected,
	v1alpha1.ReasonAPINotServed, v1alpha1.ReasonTLSError, v1alpha1.ReasonRedirectRefused, v1alpha1.ReasonCredentialsNotFound,
	v1alpha1.ReasonUnreachable, v1alpha1.ReasonInvalidResponse, v1alpha1.ReasonRateLimited, v1alpha1.ReasonLabelsNotKept,
	v1alpha1.ReasonValuesMissing, v1alpha1.ReasonInUse, v1alpha1.ReasonKubernetesRefused, v1alpha1.ReasonReleased,
	v1alpha1.ReasonAdoptionNotAllowed, v1alpha1.ReasonSourceNotAllowed, v1alpha1.ReasonSourceFlapping,
	v1alpha1.ReasonTemplateInvalid, v1alpha1.ReasonTransformFailed, v1alpha1.ReasonGrafanaNotFound, v1alpha1.ReasonGrafanaNotSupported,
	v1alpha1.ReasonProgressing, v1alpha1.ReasonNothingSelected,
	v1alpha1.ReasonSecureValuesNotReady, v1alpha1.ReasonNameCollision, v1alpha1.ReasonChildConflict, v1alpha1.ReasonTooManySecureValues,
}
