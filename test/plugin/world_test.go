// Package plugin runs the real kubectl-gsv against a real kube-apiserver, the manager and the fake Grafana.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/leader"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	operatorNamespace = "grafana-secure-value-operator-system"
	clusterID         = "suite-cluster"
	token             = "glsa_canary-token" // every value and every token has the word canary
	connectionName    = "prod"
	patience          = time.Minute
)

var (
	plane  *controlplane.ControlPlane
	k8s    client.Client
	binary string // kubectl-gsv
)

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (code int, err error) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "kubectl-gsv-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary = filepath.Join(dir, "kubectl-gsv")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.version=v1.2.3", "-o", binary, "../../cmd/kubectl-gsv") //nolint:noctx // it ends before the tests
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	built := make(chan error, 1)
	go func() {
		out, err := build.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build the plugin: %w\n%s", err, out)
		}
		built <- err
	}()
	plane, err = controlplane.Start(controlplane.Options{CRDDirectories: []string{filepath.Join("..", "..", "config", "crd", "bases")}})
	if err = errors.Join(err, <-built); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	stop, err := install()
	if err != nil {
		return 1, err
	}
	defer stop()
	return m.Run(), nil
}

// install makes what an installation has, and runs its manager in this process.
func install() (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it ends with the suite
	config := plane.Config()
	config.QPS = -1
	if k8s, err = client.New(config, client.Options{Scheme: operator.Scheme()}); err != nil {
		cancel()
		return nil, err
	}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: fingerprint.SecretName}, Type: fingerprint.SecretType},
		deployment(),
		// The manager of this process could lose a lease of its own on a busy machine.
		&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: leader.LeaseName},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: new("grafana-secure-value-operator-controller-manager-7c9d8f-x2x7p"), LeaseDurationSeconds: new(int32(3600)), RenewTime: new(metav1.NowMicro()),
			},
		},
	} {
		if err := k8s.Create(ctx, o); err != nil {
			cancel()
			return nil, err
		}
	}
	installed := deployment()
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(installed), installed); err != nil {
		cancel()
		return nil, err
	}
	installed.Status = appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}
	if err := k8s.Status().Update(ctx, installed); err != nil {
		cancel()
		return nil, err
	}
	mgr, err := operator.New(ctx, config, operator.Options{
		MetricsBindAddress: "0", HealthProbeBindAddress: "0", MaxConcurrentReconciles: 64, OperatorNamespace: operatorNamespace,
		ClusterID: clusterID, NamespacedConnections: true, Version: "test", SkipNameValidation: true,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}, nil
}

// deployment is that of an installation. Nothing runs its pods here.
func deployment() *appsv1.Deployment {
	labels := map[string]string{"app.kubernetes.io/name": "grafana-secure-value-operator"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "grafana-secure-value-operator-controller-manager", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "manager", Image: "ghcr.io/securevalues-io/grafana-secure-value-operator:1.2.3@sha256:" + strings.Repeat("0", 64),
				}}},
			},
		},
	}
}

// result is what a command came to.
type result struct {
	out, err string
	code     int
}

// run executes the plugin as the administrator of the cluster.
func run(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, "", nil, args...)
}

func runWith(t *testing.T, stdin string, env []string, args ...string) result {
	t.Helper()
	command := exec.CommandContext(t.Context(), binary, args...)
	command.Env = append(append(os.Environ(), "KUBECONFIG="+plane.KubeconfigPath(), "HOME="+t.TempDir()), env...)
	command.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(out.String()+problems.String(), "canary") {
		t.Errorf("kubectl gsv %s has printed a value, a token or a word of Grafana:\n%s%s", strings.Join(args, " "), out.String(), problems.String())
	}
	return result{out: out.String(), err: problems.String(), code: command.ProcessState.ExitCode()}
}

// expect fails the test unless the command ended so and printed each of these texts.
func (r result) expect(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit status %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("not printed: %s\nin:\n%s%s", text, r.out, r.err)
		}
	}
}

// decode reads the output as JSON.
func decode[T any](t *testing.T, r result) T {
	t.Helper()
	var content T
	if err := json.Unmarshal([]byte(r.out), &content); err != nil {
		t.Fatalf("%v in\n%s%s", err, r.out, r.err)
	}
	return content
}

// world is a namespace, with a Grafana of its own.
type world struct {
	*WithT

	t         *testing.T
	namespace string
	grafana   *grafanatest.Server
	url       string
}

func newWorld(t *testing.T, namespace string, options ...grafanatest.Option) *world {
	t.Helper()
	w := &world{WithT: NewWithT(t), t: t, namespace: namespace}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	w.grafana = grafanatest.New(append(options, grafanatest.WithWords("canary-words"))...)
	w.grafana.AddToken(token)
	running, err := w.grafana.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	w.url = running.URL
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	w.secret("grafana", map[string]string{"token": token})
	w.create(w.connection(connectionName, w.url))
	return w
}

func (w *world) connection(name, url string) *v1alpha1.GrafanaConnection {
	return &v1alpha1.GrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{
			URL: url, Credentials: v1alpha1.Credentials{TokenSecretRef: v1alpha1.SecretKeyReference{Name: "grafana", Key: "token"}},
			RequestTimeout: "5s", RateLimit: &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0)), MaxInFlight: new(int32(256))},
		}},
	}
}

// value returns an object that reads the key of its name in Secret "source".
func (w *world) value(name string) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef:       v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: connectionName},
			SecureValueSettings: v1alpha1.SecureValueSettings{Decrypters: []string{"synthetic-monitoring"}},
			ValueFrom:           v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "source", Key: name}},
		},
	}
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	w.Expect(k8s.Create(w.t.Context(), o)).To(Succeed())
}

// secret makes a Secret, or gives it other data.
func (w *world) secret(name string, data map[string]string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	err := k8s.Get(w.t.Context(), client.ObjectKeyFromObject(secret), secret)
	secret.Data = map[string][]byte{}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	if err == nil {
		w.Expect(k8s.Update(w.t.Context(), secret)).To(Succeed())
		return
	}
	w.create(secret)
}

// eventually waits until the operator has reported the reason for the last generation.
func (w *world) eventually(o client.Object, reason string) {
	w.t.Helper()
	w.Eventually(func() string {
		if err := k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err.Error()
		}
		observed, conditions := int64(0), []metav1.Condition(nil)
		switch o := o.(type) {
		case *v1alpha1.GrafanaSecureValue:
			observed, conditions = o.Status.ObservedGeneration, o.Status.Conditions
		case v1alpha1.Connection:
			observed, conditions = o.GetStatus().ObservedGeneration, o.GetStatus().Conditions
		}
		if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil && observed == o.GetGeneration() {
			return ready.Reason
		}
		return "not observed"
	}).Should(Equal(reason))
}

// connected waits until the connection of the world is Ready, and returns it.
func (w *world) connected() *v1alpha1.GrafanaConnection {
	w.t.Helper()
	conn := w.connection(connectionName, "")
	w.eventually(conn, v1alpha1.ReasonConnected)
	return conn
}

// calls returns the calls of the plugin to Grafana since the last ResetCalls, each with its verb and code.
func (w *world) calls() []string {
	var calls []string
	for _, call := range w.grafana.Calls() {
		if strings.HasPrefix(call.UserAgent, "kubectl-gsv/") {
			calls = append(calls, fmt.Sprintf("%s %d", call.Verb, call.Code))
		}
	}
	return calls
}
