package integration

import (
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// A hand-over may come at any moment in the life of the two, and a crash in the middle of it.
var _ = Describe("A value that an object has claimed and another one has released", func() {
	// claimed returns an object that has claimed api-key, whose owner is gone, cannot write it, and still owns old.
	claimed := func(w *world) *v1alpha1.GrafanaSecureValue {
		GinkgoHelper()
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := w.syncedAs("successor", "old", "canary-1")
		w.deleteSecret("successor-source")
		w.rename(successor, "api-key")
		w.eventually(successor, v1alpha1.ReasonSecretNotFound)
		w.delete(owner)
		w.eventuallyGone(owner)
		w.eventuallyPending(successor, "api-key")
		return successor
	}

	It("and that cannot be deleted after all keeps the object neither from a rotation nor from an edit", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		successor := claimed(w)

		By("going back while the token may not delete")
		grant := w.dropPermission(grafanatest.ActionDelete)
		edit(w, successor, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Description = "old", "Edited" })
		w.secret("successor-source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("old", "canary-2")
		w.eventually(successor, v1alpha1.ReasonDeletionBlocked)
		Expect(w.stored("old").Description).To(Equal("Edited"))
		edit(w, successor, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited again" })
		w.secret("successor-source", map[string]string{"key": "canary-3"})
		w.eventuallyStored("old", "canary-3")
		w.eventually(successor, v1alpha1.ReasonDeletionBlocked)

		grant()
		w.eventuallySynced(successor)
		Expect(w.stored("old").Description).To(Equal("Edited again"))
		Expect(w.contents()).To(Equal([]string{"old=canary-3"}))
		Expect(successor.Status.Targets).To(HaveLen(1))
	})

	It("and that cannot be deleted after all is not forgotten for a third target, and the edit is not taken for done", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		successor := claimed(w)

		grant := w.dropPermission(grafanatest.ActionDelete)
		w.secret("successor-source", map[string]string{"key": "canary-2"})
		edit(w, successor, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Description = "third", "Edited" })
		w.eventually(successor, v1alpha1.ReasonDeletionBlocked)
		grant()
		w.eventuallySynced(successor)
		Expect(w.contents()).To(Equal([]string{"third=canary-2"}))
		Expect(w.stored("third").Description).To(Equal("Edited"))
	})

	It("is left to its owner where that has not released it after all", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := w.valueFrom("successor", "successor-source", "canary-successor")
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		stopManager()
		edit(w, owner, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Suspend = "elsewhere", true })
		w.delete(successor)
		startManager()
		w.eventuallyGone(successor)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-owner"}))

		resume(w, owner)
		w.eventuallySynced(owner)
		Expect(w.contents()).To(Equal([]string{"elsewhere=canary-owner"}))
	})

	It("is released where the object names another target by now, and a crash came between", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		first := w.syncedAs("first", "one", "canary-first")
		second := w.syncedAs("second", "two", "canary-second")
		w.noGap("two")
		stopManager()
		w.rename(first, "two")
		w.rename(second, "three")
		w.addPending(second, "one")
		startManager()
		w.eventuallySynced(first)
		w.eventuallySynced(second)
		Expect(w.contents()).To(ConsistOf("two=canary-first", "three=canary-second"))
	})
})

var _ = Describe("An object that takes the name of one that vanished during its first write", func() {
	// vanished makes an object whose first write hangs, removes it by force, and makes another one of its name.
	vanished := func(w *world, change func(*v1alpha1.GrafanaSecureValue)) (again *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		release := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Hang: true})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventuallyPending(sv, "api-key")
		w.removeByForce(sv)
		again = anew(sv)
		change(again)
		w.create(again)
		release()
		w.eventuallySynced(again)
		w.settled()
		w.refresh(again)
		return again
	}

	It("is not taken for that one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		again := vanished(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another one" })
		Expect(w.stored("api-key").Description).To(Equal("Another one"))
		Expect(again.Status.Targets).To(HaveLen(1))
		Expect(again.Status.Targets[0].Version).To(Equal(w.stored("api-key").Version))
	})

	It("has nothing of that one left in Grafana", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		vanished(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" })
		w.eventuallyNotStored("api-key")
		Expect(w.contents()).To(Equal([]string{"elsewhere=canary-1"}))
	})
})

var _ = Describe("An object with deletionPolicy Retain that never wrote", func() {
	It("goes without a word of a value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		remove := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Code: 422, Body: `{"kind":"Status","reason":"Invalid"}`})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		w.create(sv)
		w.eventuallyPending(sv, "api-key")
		w.delete(sv)
		w.eventuallyGone(sv)
		remove()
		w.settled()
		Expect(w.events(sv)).NotTo(ContainElement("Retained"))
	})
})

var _ = Describe("A DELETE that Grafana answers and does not carry out", func() {
	It("releases nothing: only a 404 proves that the value is gone", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		remove := w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbDelete, Code: 200, ContentType: "application/json",
			Body: `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":200}`,
		})
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
		remove()
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})
})

// Whoever may edit an object may write the annotation.
var _ = Describe("A forged pending target", func() {
	// forged makes an object that lists as pending a value of another namespace, through a connection that may allow its own or not.
	forged := func(ctx SpecContext, allowed bool) (w, n *world, sv *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		w = newConnectedWorld(ctx)
		shared := w.shared()
		w.createShared(shared)
		n = w.neighbour()
		n.label(true)
		victim := through(n.valueWithSecret("victim", "canary-victim"), shared)
		n.create(victim)
		n.eventuallySynced(victim)
		w.label(allowed)
		sv = w.synced("api-key", "canary-1")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Annotations[v1alpha1.AnnotationPendingTargets] = "ClusterGrafanaConnection/" + shared.Name + "/" + grafanaNS + "/victim"
			sv.Spec.Description = "Edited"
		})
		return w, n, sv
	}
	// unharmed asserts that the value of the other namespace is as it was, and that nothing waits for it.
	unharmed := func(w, n *world, sv *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		w.eventuallySynced(sv)
		w.settled()
		w.refresh(sv)
		Expect(sv.Status.Targets).To(HaveLen(1))
		Expect(sv.Annotations).NotTo(HaveKeyWithValue(v1alpha1.AnnotationPendingTargets, ContainSubstring("victim")))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(Equal([]string{"victim=canary-victim"}))
		n.secret("victim", map[string]string{"key": "canary-victim-2"})
		n.eventuallyStored("victim", "canary-victim-2")
	}

	It("makes no call through a connection that does not allow the namespace", func(ctx SpecContext) {
		w, n, sv := forged(ctx, false)
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		unharmed(w, n, sv)
	})

	It("deletes nothing through a connection that allows the namespace", func(ctx SpecContext) {
		w, n, sv := forged(ctx, true)
		w.eventuallySynced(sv)
		w.settled()
		// A manager that has just begun to lead asks once more before it believes that nothing of the object's is there.
		Expect(slices.Compact(w.calls())).To(ConsistOf("get api-key", "update api-key", "get victim"))
		unharmed(w, n, sv)
	})

	It("keeps no object of its namespace from a name, and no owner from releasing it, through a connection that does not allow it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		shared := w.shared()
		w.createShared(shared)
		forger := w.valueWithSecret("forger", "canary-forger")
		forger.Annotations = map[string]string{
			v1alpha1.AnnotationPendingTargets: "ClusterGrafanaConnection/" + shared.Name + "/" + grafanaNS + "/api-key",
		}
		through(forger, shared).Spec.Name = "api-key"
		w.create(forger)
		w.eventually(forger, v1alpha1.ReasonConnectionNotAllowed)
		w.reset()
		sv := w.synced("api-key", "canary-1")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key"}))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})
})

var _ = Describe("The annotation sync-now", func() {
	It("with a token too long is refused, and the token is not repeated in status", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		long := make([]byte, 100_000)
		for i := range long {
			long[i] = 'x'
		}
		w.syncNow(sv, string(long))
		w.eventually(sv, v1alpha1.ReasonInvalidSpec)
		Expect(sv.Status.LastSyncNow).To(BeEmpty())
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(v1alpha1.AnnotationSyncNow))
		w.syncNow(sv, "short")
		w.eventuallyAnswered(sv, "short")
		w.eventuallySynced(sv)
	})
})
