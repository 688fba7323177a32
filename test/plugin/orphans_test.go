package plugin

import (
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// grant lets a user do this in a namespace, and waits until the API server knows it.
func grant(w *world, user, namespace, group, resource string, verbs ...string) {
	w.t.Helper()
	name := user + "-" + resource
	w.create(&rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}},
	})
	w.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
	w.Eventually(func() bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verbs[0], Group: group, Resource: resource},
		}}
		return k8s.Create(w.t.Context(), review) == nil && review.Status.Allowed
	}).Should(BeTrue())
}

// orphanOf stores a value as an object of the namespace would have written it.
func (w *world) orphanOf(object, name string, retain bool) {
	labels := ownership.Labels{
		Cluster: clusterID, Object: types.NamespacedName{Namespace: w.namespace, Name: object}, Retain: retain,
		Connection: ownership.Connection{Kind: v1alpha1.KindGrafanaConnection, Namespace: w.namespace, Name: connectionName},
	}
	stored := grafanatest.Stored{
		Name: name, Description: "x", Value: []byte("canary-orphan"),
		Labels: map[string]string{
			ownership.LabelCluster: clusterID, ownership.LabelOwner: ownership.OwnerLabel(clusterID, labels.Object),
			ownership.LabelConnection: labels.Connection.Label(),
		},
		Annotations: map[string]string{ownership.AnnotationResource: labels.Object.String()},
	}
	if retain {
		stored.Labels[ownership.LabelRetain] = "true"
	}
	w.grafana.Put("default", stored)
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "orphans")
	w.secret("source", map[string]string{"api-key": "canary-1"})
	owner := w.value("api-key")
	w.create(owner)
	w.eventually(owner, v1alpha1.ReasonSynced)
	w.connected()
	run(t, "orphans", "-n", w.namespace).expect(t, 0, "No orphans found.")

	w.orphanOf("gone", "old", false)
	w.orphanOf("gone", "kept", true)
	w.orphanOf("api-key", "left-behind", false) // its owner lives, and does not use it
	w.grafana.Put("default", grafanatest.Stored{Name: "by-hand", Description: "x", Value: []byte("canary-2")})
	w.grafana.Put("default", grafanatest.Stored{Name: "elsewhere", Description: "x", Value: []byte("canary-3"), Labels: map[string]string{ownership.LabelCluster: "another"}})
	run(t, "orphans", "-n", w.namespace).expect(t, 0, "SECURE VALUE   GRAFANA NAMESPACE   VERSION   LAST OWNER        RETAINED   CONNECTION\n",
		"kept           default             1         orphans/gone      yes        GrafanaConnection orphans/prod\n",
		"left-behind    default             1         orphans/api-key   no ", "old            default ")

	run(t, "orphans", "-n", w.namespace, "--delete").expect(t, 1, "nothing was deleted: there is no terminal to ask at, so use --yes")
	w.Expect(w.grafana.Values("default")).To(HaveLen(6))
	run(t, "orphans", "-n", w.namespace, "--delete", "--yes").expect(t, 0, "1 secure value left there on purpose", `Deleted secure value "old" from default.`)
	run(t, "orphans", "-n", w.namespace, "kept", "--delete", "--yes").expect(t, 0, `Deleted secure value "kept" from default.`)
	left := w.grafana.Values("default")
	w.Expect(left).To(HaveLen(3))
	for _, name := range []string{"api-key", "by-hand", "elsewhere"} {
		w.Expect(left).To(HaveKey(name))
	}
	grant(w, "viewer", w.namespace, "grafana.securevalues.io", "grafanaconnections", "list")
	run(t, "orphans", "-n", w.namespace, "--as", "viewer").expect(t, 1, `you lack the right to get secrets "grafana" in namespace "orphans"`)
}

// What another object is about to take over is not deleted under its hands.
func TestOrphansThatAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "orphans-named")
	w.connected()
	w.orphanOf("gone", "wanted", false)
	waits := w.value("wanted") // its Secret is missing, so that it has not taken the value over
	w.create(waits)
	w.eventually(waits, v1alpha1.ReasonSecretNotFound)
	run(t, "orphans", "-n", w.namespace, "--delete", "--yes").expect(t, 1,
		"GrafanaSecureValue orphans-named/wanted uses a secure value of that name, and may take it over")
	w.Expect(w.grafana.Values("default")).To(HaveKey("wanted"))
}
