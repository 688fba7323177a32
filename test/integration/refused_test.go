package integration

import (
	"context"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// requireLabel has a ValidatingAdmissionPolicy refuse each update of our objects in the world's namespace that has no label "team", until
// the spec ends or the returned function is called.
func (w *world) requireLabel() (end func()) {
	GinkgoHelper()
	meta := metav1.ObjectMeta{Name: "label-" + w.namespace}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.namespace}},
			ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Update},
				Rule: admissionv1.Rule{
					APIGroups: []string{v1alpha1.GroupName}, APIVersions: []string{"*"}, Resources: []string{"grafanasecurevalues", "grafanaconnections"},
				},
			}}},
		},
		Validations: []admissionv1.Validation{{Expression: "has(object.metadata.labels) && 'team' in object.metadata.labels", Message: "canary-policy"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	w.create(policy)
	w.create(binding)
	end = func() {
		for _, o := range []client.Object{binding, policy} {
			Expect(client.IgnoreNotFound(k8s.Delete(context.Background(), o))).To(Succeed()) //nolint:forbidigo // the spec may be over
		}
	}
	DeferCleanup(end)
	Eventually(func() bool {
		conn := w.connection(connectionRef)
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"a":"b"}}}`))
		return apierrors.IsInvalid(k8s.Patch(w.ctx, conn, patch, client.DryRunAll))
	}).Should(BeTrue())
	return end
}

var _ = Describe("What Kubernetes refuses", func() {
	It("is in status where a policy denies the patches of the operator, and done once it does not", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		old := w.synced("old", "canary-1")
		w.settled()
		end := w.requireLabel()
		denies := `ValidatingAdmissionPolicy "label-` + w.namespace + `" denies it`

		w.delete(old)
		w.eventually(old, v1alpha1.ReasonKubernetesRefused)
		Expect(message(old.Status.Conditions)).To(And(
			ContainSubstring(`refused to patch GrafanaSecureValue "old" in namespace "`+w.namespace+`"`), ContainSubstring(denies)))
		Expect(old.Status.Targets).To(BeEmpty())
		_, there := w.grafana.Value(grafanaNS, "old")
		Expect(there).To(BeFalse())

		w.grafana.ResetCalls()
		added := w.value("added")
		w.create(added)
		w.eventually(added, v1alpha1.ReasonKubernetesRefused)
		Expect(message(added.Status.Conditions)).To(ContainSubstring(denies))
		Expect(w.calls()).NotTo(ContainElement("create added"))

		w.create(w.connection("another"))
		Expect(message(w.eventuallyConnection("another", v1alpha1.ReasonKubernetesRefused).Status.Conditions)).To(And(
			ContainSubstring(`refused to patch GrafanaConnection "another"`), ContainSubstring(denies)))
		through := w.value("through-another")
		through.Spec.ConnectionRef.Name = "another"
		w.create(through)
		w.eventually(through, v1alpha1.ReasonConnectionNotReady)

		end()
		w.eventuallyGone(old)
		w.eventuallySynced(added)
		w.eventuallyConnection("another", v1alpha1.ReasonConnected)
		w.eventuallySynced(through)
	})

	It("is in status where a connection that is deleted cannot be released", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		end := w.requireLabel()
		w.delete(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonKubernetesRefused)
		end()
		w.eventuallyNone(w.connection(connectionRef))
	})

	It("is in status where the operator may not get Secrets any more, and done once it may", func(ctx SpecContext) {
		const user = "limited-manager"
		newPlane(ctx)
		w := newWorld(ctx)
		config := limitedUser(w, user, w.namespace, markerNamespace)
		stopManager = runManager(config, func(o *operator.Options) { o.WatchNamespaces = []string{w.namespace, markerNamespace} })
		w.create(w.connection(connectionRef))
		sv := w.synced("api-key", "canary-1")

		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: user}}
		verbs := func(verbs ...string) {
			GinkgoHelper()
			edit(w, role, func(role *rbacv1.Role) {
				i := slices.IndexFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") })
				role.Rules[i].Verbs = verbs
			})
			Eventually(func(g Gomega) {
				review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
					User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: w.namespace, Verb: "get", Resource: "secrets"},
				}}
				g.Expect(k8s.Create(ctx, review)).To(Succeed())
				g.Expect(review.Status.Allowed).To(Equal(slices.Contains(verbs, "get")))
			}).Should(Succeed())
		}
		verbs("list", "watch")
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonKubernetesRefused)
		Expect(message(sv.Status.Conditions)).To(And(
			ContainSubstring(`refused to get Secret "source"`), ContainSubstring("the operator lacks the right to get it")))
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		w.create(w.connection("another"))
		Expect(message(w.eventuallyConnection("another", v1alpha1.ReasonKubernetesRefused).Status.Conditions)).
			To(ContainSubstring(`refused to get Secret "grafana"`))

		verbs("get", "list", "watch")
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)
		w.eventuallyConnection("another", v1alpha1.ReasonConnected)
	})
})
