package integration

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// valueWithSecret returns an object of the given name, and makes a Secret of that name with its value.
func (w *world) valueWithSecret(name, value string) *v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	w.secret(name, map[string]string{"key": value})
	sv := w.value(name)
	sv.Spec.ValueFrom.SecretKeyRef.Name = name
	return sv
}

// syncedFrom is synced with a Secret of the object's own, of the same name.
func (w *world) syncedFrom(name, value string) *v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	sv := w.valueWithSecret(name, value)
	w.create(sv)
	w.eventuallySynced(sv)
	return sv
}

// shared returns a ClusterGrafanaConnection to the world's Grafana which the namespaces may use that carry the label
// "grafana: yes", and makes its Secret.
func (w *world) shared() *v1alpha1.ClusterGrafanaConnection {
	GinkgoHelper()
	name := "shared-" + w.namespace
	w.secretIn(operatorNamespace, name, map[string]string{"token": goodToken})
	return &v1alpha1.ClusterGrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ClusterGrafanaConnectionSpec{
			ConnectionSpec: w.connectionSpec(name),
			AllowedNamespaces: v1alpha1.AllowedNamespaces{
				From:     v1alpha1.NamespacesFromSelector,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"grafana": "yes"}},
			},
		},
	}
}

// createShared makes the connection, and deletes it with the spec.
func (w *world) createShared(conn *v1alpha1.ClusterGrafanaConnection) {
	GinkgoHelper()
	w.create(conn)
	DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, conn))).To(Succeed()) })
}

// dropLabels has Grafana answer the next call of that kind without labels.
func (w *world) dropLabels(verb grafanatest.Verb) {
	w.grafana.Inject(grafanatest.Fault{
		Verb: verb, Times: 1,
		Rewrite: func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(`"labels"`), []byte(`"other"`)) },
	})
}

// label gives the namespace the label by which it may use the shared connection, or takes it away.
func (w *world) label(allowed bool) {
	GinkgoHelper()
	edit(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, func(ns *corev1.Namespace) {
		delete(ns.Labels, "grafana")
		if allowed {
			ns.Labels["grafana"] = "yes"
		}
	})
}

// through makes the object name another connection.
func through(sv *v1alpha1.GrafanaSecureValue, conn v1alpha1.Connection) *v1alpha1.GrafanaSecureValue {
	sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{Kind: conn.ConnectionKind(), Name: conn.GetName()}
	return sv
}

// eventuallySays waits until the connection, of either kind, says the reason for its latest generation.
func (w *world) eventuallySays(conn v1alpha1.Connection, reason string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
		st := conn.GetStatus()
		g.Expect(describe(st.ObservedGeneration, st.Conditions)).To(Equal(describeWanted(conn.GetGeneration(), reason)), "%+v", st)
	}).Should(Succeed())
}

// eventuallyNone waits until the object does not exist any more.
func (w *world) eventuallyNone(o client.Object) {
	GinkgoHelper()
	Eventually(func() error { return k8s.Get(w.ctx, client.ObjectKeyFromObject(o), o) }).
		Should(MatchError(ContainSubstring("not found")))
}

// setURL edits the address of the world's connection.
func (w *world) setURL(url string) {
	GinkgoHelper()
	conn := &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: connectionRef}}
	edit(w, conn, func(c *v1alpha1.GrafanaConnection) { c.Spec.URL = url })
}

// anotherAddress serves the world's Grafana at one more address, each request of which onRequest sees first.
func (w *world) anotherAddress(onRequest func(*http.Request)) string {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		onRequest(r)
		w.grafana.ServeHTTP(rw, r)
	}))
	DeferCleanup(server.Close)
	return server.URL
}

// runPrinted runs the command that the object's message prints, as a person would who copies it.
func (w *world) runPrinted(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	parts := strings.Split(message(sv.Status.Conditions), "`") // every second one is a command
	Expect(len(parts)).To(BeNumerically(">=", 3), "no command in %q", message(sv.Status.Conditions))
	command := parts[len(parts)-2] // before it may be one that shows more
	cmd := exec.CommandContext(w.ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+plane.KubeconfigPath(),
		"PATH="+filepath.Dir(plane.KubectlPath())+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", command, out)
}

// newPlane starts a control plane without a manager. All verbs use it, instead of the suite's, until the spec ends.
func newPlane(ctx context.Context) {
	GinkgoHelper()
	started, c := startPlane(ctx)
	suitePlane, suiteClient, suiteStop := plane, k8s, stopManager
	DeferCleanup(func() {
		stopManager()
		plane, k8s, stopManager = suitePlane, suiteClient, suiteStop
		stopPlane(started)
	})
	plane, k8s, stopManager = started, c, func() {}
}
