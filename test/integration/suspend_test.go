package integration

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

func suspend(w *world, sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })
}

func resume(w *world, sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
}

var _ = Describe("A suspended object", func() {
	// rests asserts that nothing was read or written for the object since mark.
	rests := func(w *world, mark controlplane.Mark) {
		GinkgoHelper()
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(BeEmpty())
	}

	It("keeps Ready, and nothing is read or written until it is resumed, which catches up", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key")
		w.reset()
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.eventuallyEvent(sv, "Suspended")
		target := sv.Status.Targets[0]

		mark := w.reset()
		w.secret("source", map[string]string{"key": "canary-2"})
		rests(w, mark)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		w.refresh(sv)
		Expect(sv.Status.Targets).To(Equal([]v1alpha1.TargetStatus{target}))

		resume(w, sv)
		w.eventuallySynced(sv)
		w.settled()
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		w.eventuallyEvent(sv, "Resumed")
	})

	It("is not written when it is resumed and nothing changed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		resume(w, sv)
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
	})

	It("is not reconciled when its connection changes or is checked", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.reset()
		w.secret("source", map[string]string{"key": "canary-2"})
		conn := w.connection(connectionRef)
		edit(w, conn, func(conn *v1alpha1.GrafanaConnection) { conn.Spec.RequestTimeout = "20s" })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
	})

	It("is not reconciled after a restart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.reset()
		stopManager()
		w.secret("source", map[string]string{"key": "canary-2"})
		mark := plane.Mark()
		startManager()
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).NotTo(ContainElement(ContainSubstring("source")))
		Expect(w.requests(mark)).NotTo(ContainElement(ContainSubstring("grafanasecurevalues")))
	})

	DescribeTable("keeps Ready=False, and neither works nor waits",
		func(ctx SpecContext, breakIt func(*world), reason string) {
			w := newConnectedWorld(ctx)
			breakIt(w)
			sv := w.value("api-key")
			w.create(sv)
			w.eventually(sv, reason)
			w.reset()
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionFalse)
			mark := w.reset()
			w.grafana.Remove(grafanaNS, "api-key")
			w.secret("source", map[string]string{"key": "canary-2"})
			rests(w, mark)
			resume(w, sv)
			w.eventuallySynced(sv)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-2"}))
		},
		Entry("while its Secret is missing", func(*world) {}, v1alpha1.ReasonSecretNotFound),
		Entry("while its name is taken", func(w *world) {
			w.secret("source", map[string]string{"key": "canary-1"})
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "api-key", Description: "theirs", Value: []byte("their value")})
		}, v1alpha1.ReasonAlreadyExists),
	)

	It("is not retried when Grafana fails", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Code: http.StatusServiceUnavailable})
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionFalse)
		w.grafana.ClearFaults()
		w.reset()
		// The connection's next check ends what may have waited for it.
		edit(w, w.connection(connectionRef), func(conn *v1alpha1.GrafanaConnection) { conn.Spec.RequestTimeout = "20s" })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		resume(w, sv)
		w.eventuallySynced(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
	})

	It("does not move until it is resumed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "new-name")
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.reset()
		w.rename(sv, "new-name")
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		resume(w, sv)
		w.eventuallySynced(sv)
		Expect(w.contents()).To(Equal([]string{"new-name=canary-1"}))
	})

	It("is deleted as any other", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})

	It("owns its value, and is no successor to that of another one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		suspend(w, owner)
		w.eventuallySuspended(owner, metav1.ConditionTrue)
		other := w.valueFrom("other", "other-source", "canary-other")
		other.Spec.Name = "api-key"
		w.create(other)
		w.eventually(other, v1alpha1.ReasonNameConflict)
		suspend(w, other)
		w.eventuallySuspended(other, metav1.ConditionFalse)
		w.delete(owner)
		w.eventuallyGone(owner)
		Expect(w.contents()).To(BeEmpty())
		resume(w, other)
		w.eventuallySynced(other)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-other"}))
	})

	It("is passed over by an owner that goes, where another object names the value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		suspended := w.valueFrom("first", "first-source", "canary-first")
		suspended.Spec.Name, suspended.Spec.Suspend = "api-key", true
		w.create(suspended)
		w.eventuallySuspended(suspended, metav1.ConditionFalse)
		successor := w.value("second")
		successor.Spec.Name, successor.Spec.ValueFrom.SecretKeyRef.Name = "api-key", "second-source"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonSecretNotFound)
		w.noGap("api-key")
		w.delete(owner)
		w.eventuallyGone(owner)
		w.secret("second-source", map[string]string{"key": "canary-second"})
		w.eventuallySynced(successor)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-second"}))
	})

	It("that is made suspended says so, owns nothing, and starts when it is resumed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.Suspend = true
		mark := w.reset()
		w.create(sv)
		w.eventuallySuspended(sv, metav1.ConditionFalse)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(Equal([]string{"patch grafanasecurevalues/status api-key"}))
		Expect(sv.Finalizers).To(BeEmpty())
		resume(w, sv)
		w.eventuallySynced(sv)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})

	It("that is made suspended goes at once when it is deleted", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.value("api-key")
		sv.Spec.Suspend = true
		w.create(sv)
		w.eventuallySuspended(sv, metav1.ConditionFalse)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.calls()).To(BeEmpty())
	})
})

var _ = Describe("The annotation sync-now", func() {
	It("has the value written once for each token", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		for i, token := range []string{"first", "second"} {
			w.syncNow(sv, token)
			w.eventuallyAnswered(sv, token)
			w.settled()
			Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
			Expect(w.stored("api-key").Version).To(Equal(int64(2 + i)))
			Expect(sv.Status.Targets[0].Version).To(Equal(int64(2 + i)))
			Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))

			mark := w.reset()
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { metav1.SetMetaDataAnnotation(&sv.ObjectMeta, "another", token) })
			w.settled()
			Expect(w.calls()).To(BeEmpty())
			Expect(w.requests(mark)).To(BeEmpty())
		}
	})

	It("is not served again after a restart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.reset()
		stopManager()
		startManager()
		w.settled()
		Expect(w.calls()).To(BeEmpty())
	})

	It("is served when it was given while the operator was away", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.settled()
		stopManager()
		w.syncNow(sv, "token")
		startManager()
		w.eventuallyAnswered(sv, "token")
		Expect(w.stored("api-key").Version).To(Equal(int64(2)))
	})

	It("puts back what another writer changed in Grafana", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		theirs := w.stored("api-key")
		theirs.Value, theirs.Description = []byte("their value"), "theirs"
		w.grafana.Put(grafanaNS, theirs)
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		Expect(w.stored("api-key").Description).To(Equal("Synced from Kubernetes"))

		w.grafana.Remove(grafanaNS, "api-key")
		w.syncNow(sv, "another")
		w.eventuallyAnswered(sv, "another")
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})

	It("is answered by the first write where the object is made with it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Annotations = map[string]string{v1alpha1.AnnotationSyncNow: "token"}
		w.create(sv)
		w.eventuallyAnswered(sv, "token")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key"}))
	})

	It("is answered by the write of a rotation or an edit", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.Description = "Another text"
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, "token")
		})
		w.eventuallyAnswered(sv, "token")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
	})

	DescribeTable("stays unanswered while it cannot be served, and is served later",
		func(ctx SpecContext, prevent func(*world, *v1alpha1.GrafanaSecureValue) (allow func()), reason string) {
			w := newConnectedWorld(ctx)
			sv := w.synced("api-key", "canary-1")
			w.settled()
			allow := prevent(w, sv)
			w.syncNow(sv, "token")
			if reason == v1alpha1.ReasonSuspended {
				w.eventuallySuspended(sv, metav1.ConditionTrue)
			} else {
				w.eventually(sv, reason)
			}
			w.settled()
			w.refresh(sv)
			Expect(sv.Status.LastSyncNow).To(BeEmpty())
			Expect(w.stored("api-key").Version).To(Equal(int64(1)))
			allow()
			w.eventuallyAnswered(sv, "token")
			w.eventuallySynced(sv)
			w.settled()
			Expect(w.stored("api-key").Version).To(Equal(int64(2)))
		},
		Entry("while Grafana fails", func(w *world, _ *v1alpha1.GrafanaSecureValue) func() {
			return w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Code: http.StatusServiceUnavailable})
		}, v1alpha1.ReasonGrafanaUnavailable),
		Entry("while the token lacks the right to write", func(w *world, _ *v1alpha1.GrafanaSecureValue) func() {
			return w.dropPermission(grafanatest.ActionWrite)
		}, v1alpha1.ReasonForbidden),
		Entry("while the Secret is missing", func(w *world, sv *v1alpha1.GrafanaSecureValue) func() {
			w.deleteSecret("source")
			w.eventually(sv, v1alpha1.ReasonSecretNotFound)
			return func() { w.secret("source", map[string]string{"key": "canary-1"}) }
		}, v1alpha1.ReasonSecretNotFound),
		Entry("while the object is suspended", func(w *world, sv *v1alpha1.GrafanaSecureValue) func() {
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionTrue)
			return func() { resume(w, sv) }
		}, v1alpha1.ReasonSuspended),
	)

	It("stays unanswered while the name belongs to another object, and is answered with the hand-over", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := w.valueFrom("successor", "successor-source", "canary-successor")
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		w.syncNow(successor, "token")
		w.settled()
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		Expect(successor.Status.LastSyncNow).To(BeEmpty())
		w.delete(owner)
		w.eventuallyAnswered(successor, "token")
		Expect(w.contents()).To(Equal([]string{"api-key=canary-successor"}))
	})

	It("takes away nothing when it is removed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { delete(sv.Annotations, v1alpha1.AnnotationSyncNow) })
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		w.refresh(sv)
		Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))
	})
})

var _ = Describe("deletionPolicy Retain", func() {
	It("ends a deletion that is blocked, and leaves the value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.dropPermission(grafanatest.ActionDelete)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.eventuallyGone(sv)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})

	It("counts as it is set when the object goes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.value("api-key")
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		w.secret("source", map[string]string{"key": "canary-1"})
		w.create(sv)
		w.eventuallySynced(sv)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})

	It("leaves a value that can be taken over again and again", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		for i := range 3 {
			sv := w.value("api-key")
			sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
			w.create(sv)
			w.eventuallySynced(sv)
			Expect(w.stored("api-key").Version).To(Equal(int64(i + 1)))
			w.delete(sv)
			w.eventuallyGone(sv)
		}
	})
})
