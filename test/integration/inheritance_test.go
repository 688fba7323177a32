package integration

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// A hand-over may come at any moment in the life of the two, and a crash in the middle of it.
var _ = Describe("A value that is left to another object", func() {
	// left does by hand what the operator does when one object leaves the value of that name to another.
	left := func(w *world, name string, from, to *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		edit(w, to, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Finalizers = []string{v1alpha1.Finalizer}
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationIntent, intent(name)+"/"+from.Name)
		})
	}

	// inherited returns an object that was left api-key, which it cannot write, and still holds old.
	inherited := func(w *world) *v1alpha1.GrafanaSecureValue {
		GinkgoHelper()
		winner := w.syncedAs("winner", "api-key", "canary-winner")
		heir := w.syncedAs("heir", "old", "canary-1")
		w.deleteSecret("heir-source")
		w.rename(heir, "api-key")
		w.eventually(heir, v1alpha1.ReasonSecretNotFound)
		w.delete(winner)
		w.eventuallyGone(winner)
		return heir
	}

	It("that cannot be deleted after all keeps its heir neither from a rotation nor from an edit", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		heir := inherited(w)
		w.refresh(heir)
		Expect(heir.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationIntent, intent("api-key")+"/winner"))

		By("going back while the token may not delete")
		grant := w.dropPermission(grafanatest.ActionDelete)
		edit(w, heir, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Description = "old", "Edited" })
		w.secret("heir-source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("old", "canary-2")
		w.eventually(heir, v1alpha1.ReasonDeletionBlocked)
		Expect(w.stored("old").Description).To(Equal("Edited"))
		edit(w, heir, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited again" })
		w.secret("heir-source", map[string]string{"key": "canary-3"})
		w.eventuallyStored("old", "canary-3")
		w.eventually(heir, v1alpha1.ReasonDeletionBlocked)

		grant()
		w.eventuallySynced(heir)
		Expect(w.stored("old").Description).To(Equal("Edited again"))
		Expect(w.contents()).To(Equal([]string{"old=canary-3"}))
		Expect(heir.Status.Targets).To(HaveLen(1))
	})

	It("that cannot be deleted after all is not forgotten for a third place, and the edit is not taken for done", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		heir := inherited(w)

		grant := w.dropPermission(grafanatest.ActionDelete)
		w.secret("heir-source", map[string]string{"key": "canary-2"})
		edit(w, heir, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Description = "third", "Edited" })
		w.eventually(heir, v1alpha1.ReasonDeletionBlocked)
		grant()
		w.eventuallySynced(heir)
		Expect(w.contents()).To(Equal([]string{"third=canary-2"}))
		Expect(w.stored("third").Description).To(Equal("Edited"))
	})

	It("is not left where it does not say any more whose it is, and the next one writes it anew", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner := w.syncedAs("winner", "api-key", "canary-winner")
		loser := w.valueFrom("loser", "loser-source", "canary-loser")
		loser.Spec.Name = "api-key"
		w.create(loser)
		w.eventually(loser, v1alpha1.ReasonNameConflict)
		stored := w.stored("api-key")
		stored.Annotations = nil
		w.grafana.Put(grafanaNS, stored)
		w.delete(winner)
		w.eventuallyGone(winner)
		w.eventuallySynced(loser)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-loser"}))
		w.delete(loser)
		w.eventuallyGone(loser)
		Expect(w.contents()).To(BeEmpty())
	})

	It("waits for an heir that has not finished with an earlier place, and says so", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner := w.syncedAs("winner", "api-key", "canary-winner")
		heir := w.valueFrom("heir", "heir-source", "canary-heir")
		heir.Spec.Name, heir.Spec.Suspend = "api-key", true
		heir.Annotations = map[string]string{v1alpha1.AnnotationIntent: intent("earlier")}
		w.create(heir)
		w.eventuallySuspended(heir, metav1.ConditionFalse)
		w.noGap("api-key")
		w.delete(winner)
		w.eventually(winner, v1alpha1.ReasonDeletionBlocked)
		Expect(message(winner.Status.Conditions)).To(ContainSubstring(`"heir"`))
		w.reset()
		w.settled()
		Expect(w.calls()).To(BeEmpty(), "nothing is tried while nothing changes")

		resume(w, heir)
		w.eventuallyGone(winner)
		w.eventuallySynced(heir)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-heir"}))
		Expect(heir.Status.Targets).To(HaveLen(1))
	})

	It("passes over an heir that has not finished with an earlier place where there is another one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner := w.syncedAs("winner", "api-key", "canary-winner")
		first := w.valueFrom("first", "first-source", "canary-first")
		first.Spec.Name, first.Spec.Suspend = "api-key", true
		first.Annotations = map[string]string{v1alpha1.AnnotationIntent: intent("earlier")}
		w.create(first)
		w.eventuallySuspended(first, metav1.ConditionFalse)
		second := w.value("second")
		second.Spec.Name, second.Spec.ValueFrom.SecretKeyRef.Name = "api-key", "second-source"
		w.create(second)
		w.eventually(second, v1alpha1.ReasonSecretNotFound)
		w.noGap("api-key")
		w.delete(winner)
		w.eventuallyGone(winner)
		w.secret("second-source", map[string]string{"key": "canary-second"})
		w.eventuallySynced(second)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-second"}))
	})

	It("is not given up before the other one has let go of it, and nobody asks again and again", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		former := w.syncedAs("former", "api-key", "canary-former")
		heir := w.valueFrom("heir", "heir-source", "canary-heir")
		heir.Spec.Name = "api-key"
		w.create(heir)
		w.eventually(heir, v1alpha1.ReasonNameConflict)
		stopManager()
		edit(w, former, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name, sv.Spec.Suspend = "elsewhere", true })
		left(w, "api-key", former, heir)
		w.delete(heir)
		startManager()
		w.eventually(heir, v1alpha1.ReasonDeletionBlocked)
		Expect(message(heir.Status.Conditions)).To(ContainSubstring(`"former"`))
		w.reset()
		w.settled()
		Expect(w.calls()).To(BeEmpty(), "nothing is tried while nothing changes")
		Expect(w.contents()).To(Equal([]string{"api-key=canary-former"}))

		resume(w, former)
		w.eventuallyGone(heir)
		w.eventuallySynced(former)
		Expect(w.contents()).To(Equal([]string{"elsewhere=canary-former"}))
	})

	It("is let go of where the heir wants another place by now, and a crash came between", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		first := w.syncedAs("first", "one", "canary-first")
		second := w.syncedAs("second", "two", "canary-second")
		w.noGap("two")
		stopManager()
		w.rename(first, "two")
		w.rename(second, "three")
		left(w, "one", first, second)
		startManager()
		w.eventuallySynced(first)
		w.eventuallySynced(second)
		Expect(w.contents()).To(ConsistOf("two=canary-first", "three=canary-second"))
	})

	It("is not asked for again by those who lost it when one of them goes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.syncedAs("winner", "api-key", "canary-winner")
		var losers []*v1alpha1.GrafanaSecureValue
		for _, name := range []string{"a", "b", "c", "d"} {
			loser := w.valueFrom(name, name+"-source", "canary-"+name)
			loser.Spec.Name = "api-key"
			w.create(loser)
			w.eventually(loser, v1alpha1.ReasonNameConflict)
			losers = append(losers, loser)
		}
		w.reset()
		w.delete(losers[0])
		w.eventuallyGone(losers[0])
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key"}))
	})
})

var _ = Describe("An object that takes the name of one that vanished during its first write", func() {
	// vanished makes an object whose first write hangs, takes it away by force, and makes another one of its name.
	vanished := func(w *world, change func(*v1alpha1.GrafanaSecureValue)) (again *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		release := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Hang: true})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventuallyIntends(sv, "api-key")
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

	It("has nothing of that one left in Grafana, once that may be deleted, and keeps its own", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		grant := w.dropPermission(grafanatest.ActionDelete)
		again := vanished(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" })
		Expect(w.contents()).To(ConsistOf("api-key=canary-1", "elsewhere=canary-1"))
		grant()
		w.eventuallyNotStored("api-key")
		w.eventuallySynced(again)
		Expect(w.contents()).To(Equal([]string{"elsewhere=canary-1"}))
	})
})

var _ = Describe("An object with deletionPolicy Retain that never wrote", func() {
	It("goes without a word of a value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		remove := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Code: 422})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		w.create(sv)
		w.eventuallyIntends(sv, "api-key")
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

var _ = Describe("A forged intent", func() {
	It("makes no call through a connection that does not allow the namespace", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		shared := w.shared()
		shared.Spec.URL = w.url
		w.createShared(shared)
		w.eventuallySays(shared, v1alpha1.ReasonConnected)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Annotations[v1alpha1.AnnotationIntent] = "ClusterGrafanaConnection/" + shared.Name + "/" + grafanaNS + "/victim"
			sv.Spec.Description = "Edited"
		})
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).NotTo(ContainElement("get victim"))
		w.refresh(sv)
		Expect(sv.Status.Targets).To(HaveLen(1))
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
