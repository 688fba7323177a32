package integration

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// grafanaRules are the rights on Grafanas that the chart grants with rbac.grafanaRef.
var grafanaRules = []rbacv1.PolicyRule{{
	APIGroups: []string{grafanaoperator.GroupVersion.Group}, Resources: []string{"grafanas"}, Verbs: []string{"get", "list", "watch"},
}}

// The first spec needs a cluster without grafana-operator, and the others one with it.
var _ = Describe("A connection with grafanaRef", Ordered, func() {
	BeforeAll(func(ctx SpecContext) { grantGrafanas(ctx) })

	It("waits for grafana-operator, and then follows its Grafana", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.create(w.referencing("grafana"))
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonGrafanaNotFound)
		Expect(message(conn.Status.Conditions)).To(ContainSubstring("is not installed"))
		installGrafanas(ctx)
		// The operator asks again after 1 s, 2 s, 4 s and so on.
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
			g.Expect(message(conn.Status.Conditions)).To(ContainSubstring(`Grafana "grafana", which spec.grafanaRef names, does not exist`))
		}).Should(Succeed())
		found := w.externalGrafana(external{"url": w.url, "apiKey": key("grafana", "token")})
		conn = w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(conn.Status.URL).To(Equal(w.url))
		w.synced("api-key", "canary-1")

		By("another token")
		w.grafana.AddToken("glsa_canary-next")
		w.secret("next", map[string]string{"token": "glsa_canary-next"})
		w.editExternal(found, external{"url": w.url, "apiKey": key("next", "token")})
		w.secret("next", map[string]string{"token": "glsa_canary-last"})
		w.grafana.AddToken("glsa_canary-last")
		w.grafana.RevokeToken("glsa_canary-next")
		w.grafana.RevokeToken(goodToken)
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")

		By("another address")
		var calls atomic.Int32
		url := w.anotherAddress(func(*http.Request) { calls.Add(1) })
		w.editExternal(found, external{"url": url, "apiKey": key("next", "token")})
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
			g.Expect(conn.Status.URL).To(Equal(url))
		}).Should(Succeed())
		before := calls.Load()
		w.secret("source", map[string]string{"key": "canary-3"})
		w.eventuallyStored("api-key", "canary-3")
		Expect(calls.Load()).To(BeNumerically(">=", before+2))

		By("another Grafana")
		other, otherURL := anotherGrafana()
		other.AddToken("glsa_canary-last")
		w.editExternal(found, external{"url": otherURL, "apiKey": key("next", "token")})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonValuesMissing)
		w.editExternal(found, external{"url": url, "apiKey": key("next", "token")})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(other.Values(grafanaNS)).To(BeEmpty())

		By("a Grafana that is gone, with its Secret")
		sv := w.value("api-key")
		w.eventuallySynced(sv)
		w.delete(found)
		w.deleteSecret("next")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonGrafanaNotFound)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("signs in as the admin user", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.grafana.AddUser("admin", "canary: password")
		w.secret("admin", map[string]string{"user": "admin", "password": "canary-old"})
		w.externalGrafana(external{"url": w.url, "adminUser": key("admin", "user"), "adminPassword": key("admin", "password")})
		w.create(w.referencing("grafana"))
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		Expect(message(conn.Status.Conditions)).To(ContainSubstring(`takes url, credentials and tls from Grafana "grafana"`))
		w.secret("admin", map[string]string{"user": "admin", "password": "canary: password"})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.synced("api-key", "canary-1")

		By("the other form, with the same address")
		edit(w, conn, func(conn *v1alpha1.GrafanaConnection) { conn.Spec = w.connection(connectionRef).Spec })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.secret("source", map[string]string{"key": "canary-2"})
		Expect(w.eventuallyStored("api-key", "canary-2").Version).To(BeEquivalentTo(2))
	})

	It("refuses what it cannot use, and sends nothing", func(ctx SpecContext) {
		w := newWorld(ctx)
		found := w.externalGrafana(nil)
		w.create(w.referencing("grafana"))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonGrafanaNotSupported)
		token := key("grafana", "token")
		for _, row := range []struct {
			external external
			reason   string
		}{
			{external{"url": "https://admin:canary-1@grafana.example.com", "apiKey": token}, v1alpha1.ReasonInvalidSpec},
			{external{"url": w.url}, v1alpha1.ReasonGrafanaNotSupported},
			{external{"url": "http://169.254.169.254", "apiKey": token}, v1alpha1.ReasonConnectionNotAllowed},
			{external{"url": w.url, "apiKey": key("none", "token")}, v1alpha1.ReasonCredentialsNotFound},
			{external{"url": w.url, "apiKey": token, "tls": external{"insecureSkipVerify": true}}, v1alpha1.ReasonTLSError},
		} {
			w.editExternal(found, row.external)
			w.eventuallyConnection(connectionRef, row.reason)
		}
		w.delete(found)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonGrafanaNotFound)
		w.externalGrafana(external{"url": w.url, "apiKey": token, "tenantNamespace": "stacks-1"})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonInvalidSpec)
		Expect(w.grafana.Calls()).To(BeEmpty())
	})
})

// external is spec.external of a Grafana, or a part of it.
type external = map[string]any

func key(secret, name string) external { return external{"name": secret, "key": name} }

// referencing returns a connection that takes all from a Grafana.
func (w *world) referencing(name string) *v1alpha1.GrafanaConnection {
	conn := w.connection(connectionRef)
	conn.Spec.URL, conn.Spec.Credentials, conn.Spec.GrafanaRef = "", v1alpha1.Credentials{}, &v1alpha1.GrafanaReference{Name: name}
	return conn
}

// externalGrafana makes the Grafana called grafana; nil is one that grafana-operator runs itself.
func (w *world) externalGrafana(spec external) *unstructured.Unstructured {
	GinkgoHelper()
	o := &unstructured.Unstructured{Object: external{"spec": external{}}}
	if spec != nil {
		o.Object["spec"] = external{"external": spec}
	}
	o.SetGroupVersionKind(grafanaoperator.GroupVersion.WithKind("Grafana"))
	o.SetNamespace(w.namespace)
	o.SetName("grafana")
	w.create(o)
	return o
}

func (w *world) editExternal(o *unstructured.Unstructured, spec external) {
	GinkgoHelper()
	edit(w, o, func(o *unstructured.Unstructured) { o.Object["spec"] = external{"external": spec} })
}

// installGrafanas installs the kind of grafana-operator, and waits until it is served.
func installGrafanas(ctx context.Context) {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join("testdata", "grafanas.yaml"))
	Expect(err).NotTo(HaveOccurred())
	crd := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal(content, &crd.Object)).To(Succeed())
	Expect(k8s.Create(ctx, crd)).To(Succeed())
	Eventually(func() error { return k8s.List(ctx, &grafanaoperator.GrafanaList{}) }).Should(Succeed())
}

// grantGrafanas allows the manager to read Grafanas.
func grantGrafanas(ctx context.Context) {
	GinkgoHelper()
	meta := metav1.ObjectMeta{Name: "grafanas"}
	Expect(k8s.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: grafanaRules})).To(Succeed())
	Expect(k8s.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: operatorNamespace, Name: managerAccount}},
	})).To(Succeed())
	eventuallyMayReadGrafanas(ctx, managerUser, "")
}

// eventuallyMayReadGrafanas waits until the API server knows that the user may, in a namespace or everywhere.
func eventuallyMayReadGrafanas(ctx context.Context, user, namespace string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: "list", Group: grafanaoperator.GroupVersion.Group, Resource: "grafanas",
			},
		}}
		g.Expect(k8s.Create(ctx, review)).To(Succeed())
		g.Expect(review.Status.Allowed).To(BeTrue())
	}).Should(Succeed())
}
