package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// Each of these specs has a control plane of its own: two installations must not watch the same namespace.
var _ = Describe("A manager with --watch-namespaces", func() {
	const user = "limited-manager"

	It("does its work with Roles alone, and asks for nothing more", func(ctx SpecContext) {
		newPlane(ctx)
		w, other := newWorld(ctx), newWorld(ctx)
		config := limitedUser(w, user, w.namespace, markerNamespace)
		installGrafanas(ctx)
		for _, namespace := range []string{w.namespace, markerNamespace} {
			w.grantAs("grafanas", user, namespace, grafanaRules)
			eventuallyMayReadGrafanas(ctx, user, namespace)
		}
		mark := plane.Mark()
		stopManager = runManager(config, func(o *operator.Options) { o.WatchNamespaces = []string{w.namespace, markerNamespace} })

		By("a value, its rotation and its deletion")
		conn := w.connection(connectionRef)
		w.create(conn)
		w.eventuallySays(conn, v1alpha1.ReasonConnected)
		sv := w.synced("api-key", "canary-1")
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "new-name" })
		w.eventuallySynced(sv)
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(1))

		By("a Grafana of grafana-operator")
		w.externalGrafana(external{"url": w.url, "apiKey": key("grafana", "token")})
		referencing := w.referencing("grafana")
		referencing.Name = "referencing"
		w.create(referencing)
		w.eventuallySays(referencing, v1alpha1.ReasonConnected)
		w.delete(referencing)
		w.eventuallyNone(referencing)

		By("a shared connection")
		shared := w.shared()
		shared.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		w.create(shared)
		lost := through(w.valueWithSecret("lost", "canary-1"), shared)
		w.create(lost)
		w.eventually(lost, v1alpha1.ReasonConnectionNotFound)
		Expect(message(lost.Status.Conditions)).To(ContainSubstring("--watch-namespaces"))
		mistaken := w.valueWithSecret("mistaken", "canary-1")
		mistaken.Spec.ConnectionRef.Name = shared.Name
		w.create(mistaken)
		w.eventually(mistaken, v1alpha1.ReasonConnectionNotFound)
		Expect(message(mistaken.Status.Conditions)).NotTo(ContainSubstring("of that name"))

		By("another namespace")
		theirs := other.connection(connectionRef)
		other.create(theirs)
		unwatched := other.valueWithSecret("unwatched", "canary-1")
		other.create(unwatched)
		w.settled()
		for _, conn := range []v1alpha1.Connection{shared, theirs} {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
			Expect(conn.GetFinalizers()).To(BeEmpty())
			Expect(conn.GetStatus().Conditions).To(BeEmpty())
		}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(unwatched), unwatched)).To(Succeed())
		Expect(unwatched.Finalizers).To(BeEmpty())
		Expect(unwatched.Status.Conditions).To(BeEmpty())
		Expect(other.grafana.Calls()).To(BeEmpty())

		By("the end")
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
		w.delete(lost)
		w.eventuallyGone(lost)
		w.delete(mistaken)
		w.eventuallyGone(mistaken)
		w.delete(conn)
		w.eventuallyNone(conn)
		Expect(deniedTo(user, mark)).To(BeEmpty())
	})

	It("leaves a value of a namespace that it does not watch alone, whatever adoptionPolicy says", func(ctx SpecContext) {
		newPlane(ctx)
		w, other := newWorld(ctx), newWorld(ctx)
		config := limitedUser(w, user, w.namespace, markerNamespace)
		stopManager = runManager(config, func(o *operator.Options) { o.WatchNamespaces = []string{w.namespace, markerNamespace} })
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		theirs := labelled("theirs", clusterID, other.namespace, "gone")
		w.grafana.Put(grafanaNS, theirs)
		sv := w.valueWithSecret("theirs", "canary-1")
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonNameConflict)
		Expect(w.stored("theirs").Value).To(Equal(theirs.Value))
	})

	It("does not start without --cluster-id", func(ctx SpecContext) {
		_, err := operator.New(ctx, rest.CopyConfig(managerConfig), operator.Options{
			MetricsBindAddress: "0", HealthProbeBindAddress: "0", OperatorNamespace: operatorNamespace,
			WatchNamespaces: []string{markerNamespace}, NamespacedConnections: true, SkipNameValidation: true,
		})
		Expect(err).To(MatchError(And(ContainSubstring("--cluster-id"), ContainSubstring("--watch-namespaces"))))
	})
})

var _ = Describe("A manager with --namespaced-connections=false", func() {
	It("serves ClusterGrafanaConnections alone", func(ctx SpecContext) {
		newPlane(ctx)
		config := managerOf(ctx, plane)
		stopManager = runManager(config, func(o *operator.Options) { o.NamespacedConnections = false })
		w := newWorld(ctx)

		conn := w.connection(connectionRef)
		w.create(conn)
		w.eventuallySays(conn, v1alpha1.ReasonConnectionNotAllowed)
		Expect(message(conn.Status.Conditions)).To(ContainSubstring("--namespaced-connections"))
		sv := w.valueWithSecret("api-key", "canary-1")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("--namespaced-connections"))
		w.secret("grafana", map[string]string{"token": goodToken})
		w.settled()
		Expect(w.grafana.Calls()).To(BeEmpty())

		shared := w.shared()
		w.createShared(shared)
		w.label(true)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { through(sv, shared) })
		w.eventuallySynced(sv)
		w.secret("api-key", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())

		w.delete(conn)
		w.eventuallyNone(conn)
	})

	It("releases connections that an earlier installation served", func(ctx SpecContext) {
		newPlane(ctx)
		config := managerOf(ctx, plane)
		stopManager = runManager(config, func(*operator.Options) {})
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.settled()

		stopManager()
		stopManager = runManager(config, func(o *operator.Options) { o.NamespacedConnections = false })
		w.eventuallySays(conn, v1alpha1.ReasonConnectionNotAllowed)
		w.grafana.ResetCalls()
		w.delete(conn)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		w.runPrinted(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		Expect(w.grafana.Calls()).To(BeEmpty())
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
	})
})

var _ = Describe("A manager with --max-connections-per-namespace", func() {
	It("serves the oldest GrafanaConnections of each namespace, and the next one when one of them goes", func(ctx SpecContext) {
		newPlane(ctx)
		stopManager = runManager(managerOf(ctx, plane), func(o *operator.Options) { o.MaxConnections = 2 })
		w, other := newConnectedWorld(ctx), newConnectedWorld(ctx)
		second := w.connection("second")
		w.create(second)
		w.eventuallySays(second, v1alpha1.ReasonConnected)
		shared := w.shared()
		w.createShared(shared)
		w.eventuallySays(shared, v1alpha1.ReasonConnected)

		server, url := anotherGrafana()
		third := w.connection("third")
		third.Spec.URL = url
		w.create(third)
		w.eventuallySays(third, v1alpha1.ReasonConnectionNotAllowed)
		Expect(message(third.Status.Conditions)).To(ContainSubstring("--max-connections-per-namespace"))
		Expect(third.Finalizers).To(BeEmpty())
		sv := w.valueWithSecret("api-key", "canary-1")
		sv.Spec.ConnectionRef.Name = third.Name
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotReady)
		w.settled()
		Expect(server.Calls()).To(BeEmpty())
		other.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)

		w.delete(second)
		w.eventuallySays(third, v1alpha1.ReasonConnected)
		w.eventuallySynced(sv)
	})
})

// limitedUser returns a user who may do in the given namespaces, by Roles, what the manager's ClusterRole grants on what is in a
// namespace, and in the operator's namespace what the manager's own Role grants. It has no ClusterRole.
func limitedUser(w *world, name string, namespaces ...string) *rest.Config {
	GinkgoHelper()
	config, err := plane.AddUser(name)
	Expect(err).NotTo(HaveOccurred())
	clusterRules, ownRules := managerRules()
	for _, namespace := range namespaces {
		w.grant(name, namespace, namespaced(clusterRules))
	}
	w.grant(name, operatorNamespace, ownRules)
	eventuallyMay(w.ctx, plane, name, append(namespaces, operatorNamespace)...)
	return config
}

func (w *world) grant(user, namespace string, rules []rbacv1.PolicyRule) {
	GinkgoHelper()
	w.grantAs(user, user, namespace, rules)
}

// grantAs gives a user the rights of a role of that name.
func (w *world) grantAs(role, user, namespace string, rules []rbacv1.PolicyRule) {
	GinkgoHelper()
	w.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role}, Rules: rules})
	w.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
}

// managerRules returns the rules of the manager's ClusterRole, and of its Role in the operator's namespace, as they are shipped.
func managerRules() (clusterRules, ownRules []rbacv1.PolicyRule) {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "role.yaml"))
	Expect(err).NotTo(HaveOccurred())
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(string(content), -1) {
		role := rbacv1.Role{} // both kinds have rules in the same place
		Expect(yaml.Unmarshal([]byte(document), &role)).To(Succeed())
		switch role.Kind {
		case "ClusterRole":
			clusterRules = append(clusterRules, role.Rules...)
		case "Role":
			ownRules = append(ownRules, role.Rules...)
		}
	}
	Expect(clusterRules).NotTo(BeEmpty())
	Expect(ownRules).NotTo(BeEmpty())
	return clusterRules, ownRules
}

// namespaced leaves out what is not in a namespace.
func namespaced(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var kept []rbacv1.PolicyRule
	for _, rule := range rules {
		rule.Resources = slices.DeleteFunc(slices.Clone(rule.Resources), func(resource string) bool {
			resource, _, _ = strings.Cut(resource, "/")
			return resource == "namespaces" || resource == "clustergrafanaconnections"
		})
		if len(rule.Resources) > 0 {
			kept = append(kept, rule)
		}
	}
	return kept
}

// deniedTo returns what the API server has denied to the user since mark.
func deniedTo(user string, since controlplane.Mark) []string {
	GinkgoHelper()
	events, err := plane.Audit(since)
	Expect(err).NotTo(HaveOccurred())
	var denied []string
	for _, e := range events {
		if e.User == user && e.Code == http.StatusForbidden {
			denied = append(denied, strings.Join([]string{e.Verb, e.Resource, e.Subresource, e.Namespace, e.Name}, " "))
		}
	}
	return denied
}
