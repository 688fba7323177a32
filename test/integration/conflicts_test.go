package integration

import (
	"net/http"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A value that is not ours", func() {
	foreign := func(name string) grafanatest.Stored {
		return grafanatest.Stored{Name: name, Description: "theirs", Value: []byte("their value")}
	}

	// leftAlone asserts that the value stays as it is, whatever happens to an object that names it.
	leftAlone := func(ctx SpecContext, policy v1alpha1.AdoptionPolicy, change func(*world, *grafanatest.Stored), reason string) {
		w := newConnectedWorld(ctx)
		theirs := foreign("api-key")
		change(w, &theirs)
		theirs = w.grafana.Put(grafanaNS, theirs)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.AdoptionPolicy = policy
		w.create(sv)
		w.eventually(sv, reason)
		w.settled()
		Expect(w.stored("api-key")).To(Equal(theirs))
		// The event of the Secret may come after the first reconcile, and causes one more GET.
		Expect(slices.Compact(w.calls())).To(Equal([]string{"create api-key", "get api-key"}))

		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.stored("api-key")).To(Equal(theirs))
	}

	It("is neither written nor deleted where nobody labelled it", func(ctx SpecContext) {
		leftAlone(ctx, v1alpha1.AdoptionPolicyRefuse, func(*world, *grafanatest.Stored) {}, v1alpha1.ReasonAlreadyExists)
	})

	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		DescribeTable("is neither written nor deleted with "+string(policy),
			func(ctx SpecContext, change func(*world, *grafanatest.Stored), reason string) {
				leftAlone(ctx, policy, change, reason)
			},
			Entry("where a resource of Grafana owns it", func(_ *world, s *grafanatest.Stored) {
				s.OwnerReferences = []grafanatest.OwnerReference{{APIVersion: "x.grafana.app/v1", Kind: "X", Name: "x", UID: "u"}}
			}, v1alpha1.ReasonAlreadyExists),
			Entry("where another tool manages it", func(_ *world, s *grafanatest.Stored) {
				s.Annotations = map[string]string{"grafana.app/managedBy": "terraform"}
			}, v1alpha1.ReasonAlreadyExists),
			Entry("where another tool manages it, and it carries our labels all the same", func(w *world, s *grafanatest.Stored) {
				*s = labelled("api-key", clusterID, w.namespace, "api-key")
				s.Annotations["grafana.app/managedBy"] = "terraform"
			}, v1alpha1.ReasonAlreadyExists),
			Entry("where a resource of Grafana owns it, and the object of its name in another cluster labelled it", func(w *world, s *grafanatest.Stored) {
				*s = labelled("api-key", "other", w.namespace, "api-key")
				s.OwnerReferences = []grafanatest.OwnerReference{{APIVersion: "x.grafana.app/v1", Kind: "X", Name: "x", UID: "u"}}
			}, v1alpha1.ReasonAlreadyExists),
			Entry("where an unknown object of another cluster labelled it", func(_ *world, s *grafanatest.Stored) {
				s.Labels = map[string]string{labelCluster: "other", labelOwner: "0123456789"}
			}, v1alpha1.ReasonNameConflict),
			Entry("where an object of another name labelled it in another cluster", func(w *world, s *grafanatest.Stored) {
				*s = labelled("api-key", "other", w.namespace, "another")
			}, v1alpha1.ReasonNameConflict),
			Entry("where an object of another namespace labelled it in another cluster", func(_ *world, s *grafanatest.Stored) {
				*s = labelled("api-key", "other", "another", "api-key")
			}, v1alpha1.ReasonNameConflict),
			Entry("where an object of another namespace labelled it, whatever its annotation says", func(w *world, s *grafanatest.Stored) {
				*s = labelled("api-key", clusterID, "another", "api-key")
				s.Annotations[annotationResource] = w.namespace + "/nobody"
			}, v1alpha1.ReasonNameConflict),
		)
	}

	It("is left alone with Refuse where the object of its name in another cluster labelled it", func(ctx SpecContext) {
		leftAlone(ctx, v1alpha1.AdoptionPolicyRefuse, func(w *world, s *grafanatest.Stored) {
			*s = labelled("api-key", "other", w.namespace, "api-key")
		}, v1alpha1.ReasonAlreadyExists)
	})

	It("is named even if Grafana hides it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.Put(grafanaNS, foreign("api-key"))
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbGet, Code: http.StatusNotFound, ContentType: "application/json",
			Body: `{"kind":"Status","reason":"NotFound","details":{"kind":"securevalue"},"code":404}`,
		})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("does not show it"))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
	})

	It("is left alone even if it was ours before", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		theirs := w.stored("api-key")
		theirs.Labels = map[string]string{labelOwner: "somebody-else"}
		theirs.Value = []byte("their value")
		theirs = w.grafana.Put(grafanaNS, theirs)

		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonNameConflict)
		Expect(w.stored("api-key")).To(Equal(theirs))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.stored("api-key")).To(Equal(theirs))
	})

	It("is no conflict any more once it is deleted in Grafana", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = "5s"
		w.create(conn)
		w.grafana.Put(grafanaNS, foreign("api-key"))
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		w.grafana.Remove(grafanaNS, "api-key")
		w.eventuallySynced(sv)
	})

	It("of another object of the cluster is named a conflict, and the object is named", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.synced("first", "canary-1")
		second := w.value("second")
		second.Spec.Name = "first"
		w.create(second)
		w.eventually(second, v1alpha1.ReasonNameConflict)
		Expect(message(second.Status.Conditions)).To(ContainSubstring(`belongs to GrafanaSecureValue "first" of this namespace`))
		Expect(w.stored("first").Version).To(Equal(int64(1)))

		w.delete(second)
		w.eventuallyGone(second)
		Expect(string(w.stored("first").Value)).To(Equal("canary-1"))
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(second), &v1alpha1.GrafanaSecureValue{})).NotTo(Succeed())
	})
})
