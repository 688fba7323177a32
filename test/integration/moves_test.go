package integration

import (
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A move", func() {
	const other = "other"

	// moved asserts that the object owns the one target that its spec names, and no other.
	moved := func(w *world, sv *v1alpha1.GrafanaSecureValue, connection, name string) {
		GinkgoHelper()
		w.eventuallySynced(sv)
		Expect(sv.Status.Targets).To(HaveLen(1))
		Expect(sv.Status.Targets[0].Connection.Name).To(Equal(connection))
		Expect(sv.Status.Targets[0].Name).To(Equal(name))
	}

	It("of many objects at once costs what each alone does", func(ctx SpecContext) {
		const objects = 40 // more than one connection serves at a time
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		for i := range objects {
			w.create(w.value(fmt.Sprintf("value-%d", i)))
		}
		for i := range objects {
			w.eventuallySynced(w.value(fmt.Sprintf("value-%d", i)))
		}
		w.reset()
		w.grafana.SetLatency(50 * time.Millisecond)
		for i := range objects {
			edit(w, w.value(fmt.Sprintf("value-%d", i)), func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved-" + sv.Name })
		}
		for i := range objects {
			moved(w, w.value(fmt.Sprintf("value-%d", i)), connectionRef, fmt.Sprintf("moved-value-%d", i))
		}
		verbs := map[grafanatest.Verb]int{}
		for _, c := range w.grafana.Calls() {
			verbs[c.Verb]++
		}
		delete(verbs, grafanatest.VerbList)
		Expect(verbs).To(Equal(map[grafanatest.Verb]int{
			grafanatest.VerbCreate: objects, grafanatest.VerbGet: 2 * objects, grafanatest.VerbDelete: objects,
		}))
	})

	DescribeTable("leaves nothing behind, and no moment without a value",
		func(ctx SpecContext, connection, name string) {
			w := newConnectedWorld(ctx)
			elsewhere := w.anotherGrafana()
			elsewhere.connected(other)
			to := map[string]*world{connectionRef: w, other: elsewhere}[connection]
			sv := w.synced("api-key", "canary-1")
			end := noGapAt([]spot{w.spot("api-key"), to.spot(name)})
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
				sv.Spec.ConnectionRef.Name, sv.Spec.Name = connection, name
			})
			moved(w, sv, connection, name)
			end()
			Expect(to.contents()).To(Equal([]string{name + "=canary-1"}))
			if to != w {
				Expect(w.contents()).To(BeEmpty())
			}
			w.eventuallyEvent(sv, "Moved")
			w.eventuallyEvent(sv, "Deleted")

			w.secret("source", map[string]string{"key": "canary-2"})
			to.eventuallyStored(name, "canary-2")
		},
		Entry("to another name", connectionRef, "new-name"),
		Entry("to another connection", other, "api-key"),
		Entry("to another connection and name", other, "new-name"),
	)

	It("back again before the first is done ends where it began, while Grafana does not answer for the new target", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "new-name")
		w.reset()
		answer := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Name: "new-name", Hang: true})
		w.rename(sv, "new-name")
		w.eventuallyPending(sv, "new-name")
		w.rename(sv, "api-key")
		answer()
		moved(w, sv, connectionRef, "api-key")
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})

	It("back again before the first is done ends where it began, after the new target failed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key")
		// The answer is lost, the value is there.
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbCreate, Name: "new-name", AfterEffect: true, Code: http.StatusServiceUnavailable,
		})
		unread := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Name: "new-name", Code: http.StatusServiceUnavailable})
		w.rename(sv, "new-name")
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		w.stored("new-name")
		w.rename(sv, "api-key")
		unread()
		moved(w, sv, connectionRef, "api-key")
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)), "the old target was written although it never changed")
	})

	It("on to a third target before the first is done ends there, and leaves neither of the others", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "second", "third")
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Name: "second", AfterEffect: true, Times: 1})
		remove := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Name: "second", Code: http.StatusServiceUnavailable})
		w.rename(sv, "second")
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		w.rename(sv, "third")
		w.eventuallyStored("third", "canary-1")
		remove()
		moved(w, sv, connectionRef, "third")
		Expect(w.contents()).To(Equal([]string{"third=canary-1"}))
	})

	It("to a name that is taken leaves the old target alone, and is done once another name is given", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "taken")
		theirs := w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "taken", Description: "theirs", Value: []byte("their value")})
		w.rename(sv, "taken")
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		Expect(w.stored("taken")).To(Equal(theirs))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))

		w.rename(sv, "free")
		moved(w, sv, connectionRef, "free")
		Expect(w.contents()).To(ConsistOf("taken=their value", "free=canary-1"))
	})

	It("to a connection that is down leaves the old target until that recovers", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		elsewhere := w.anotherGrafana()
		elsewhere.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable})
		w.create(elsewhere.connection(other))
		w.eventuallyConnection(other, v1alpha1.ReasonUnreachable)
		sv := w.synced("api-key", "canary-1")
		noGapAt([]spot{w.spot("api-key"), elsewhere.spot("api-key")})
		w.reset()
		w.reconnect(sv, other)
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

		elsewhere.grafana.ClearFaults()
		moved(w, sv, other, "api-key")
		Expect(elsewhere.contents()).To(Equal([]string{"api-key=canary-1"}))
		Expect(w.contents()).To(BeEmpty())
	})

	It("to a connection that does not exist leaves the old target until it is created", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		elsewhere := w.anotherGrafana()
		sv := w.synced("api-key", "canary-1")
		noGapAt([]spot{w.spot("api-key"), elsewhere.spot("api-key")})
		w.reconnect(sv, other)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		elsewhere.connected(other)
		moved(w, sv, other, "api-key")
		Expect(w.contents()).To(BeEmpty())
	})

	It("to a connection to the same Grafana is one PUT, and never a DELETE", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.connected(other)
		sv := w.synced("api-key", "canary-1")
		end := w.noGap("api-key")
		w.reset()
		w.reconnect(sv, other)
		moved(w, sv, other, "api-key")
		end()
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		Expect(w.countOf(grafanatest.VerbUpdate)).To(Equal(1))
		stored := w.stored("api-key")
		Expect(stored.Version).To(Equal(int64(2)))
		Expect(stored.Labels).To(HaveKeyWithValue(labelConnection, hash(40, string(v1alpha1.KindGrafanaConnection), w.namespace, other)))

		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})

	It("to a connection to the same Grafana and another name deletes the old one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.connected(other)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "new-name")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name, sv.Spec.Name = other, "new-name" })
		moved(w, sv, other, "new-name")
		Expect(w.contents()).To(Equal([]string{"new-name=canary-1"}))
	})

	It("leaves the old value in Grafana with deletionPolicy Retain", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.DeletionPolicy, sv.Spec.Name = v1alpha1.DeletionPolicyRetain, "new-name"
		})
		moved(w, sv, connectionRef, "new-name")
		Expect(w.contents()).To(ConsistOf("api-key=canary-1", "new-name=canary-1"))
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		w.eventuallyEvent(sv, "Retained")
	})

	DescribeTable("heals after a crash, with at most one extra version",
		func(ctx SpecContext, interrupt func(w *world, sv *v1alpha1.GrafanaSecureValue)) {
			w := newConnectedWorld(ctx)
			w.shortTimeout()
			sv := w.synced("api-key", "canary-1")
			w.noGap("api-key", "new-name")
			w.settled()
			stopManager()
			w.rename(sv, "new-name")
			interrupt(w, sv)
			startManager()
			moved(w, sv, connectionRef, "new-name")
			Expect(w.contents()).To(Equal([]string{"new-name=canary-1"}))
			Expect(w.stored("new-name").Version).To(BeNumerically("<=", 2))
			Expect(sv.Status.Targets[0].Version).To(Equal(w.stored("new-name").Version))
		},
		Entry("after the claim", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.addPending(sv, "new-name")
		}),
		Entry("after the POST", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.addPending(sv, "new-name")
			w.putAs(sv, "new-name", "canary-1")
		}),
		Entry("after the DELETE of the old one", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.addPending(sv, "new-name")
			w.putAs(sv, "new-name", "canary-1")
			w.grafana.Remove(grafanaNS, "api-key")
		}),
	)

	It("heals when the answer to the POST is lost and the manager dies", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key", "new-name")
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Name: "new-name", AfterEffect: true})
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Name: "new-name", Cut: true})
		w.rename(sv, "new-name")
		w.eventuallyStored("new-name", "canary-1")
		stopManager()
		w.grafana.ClearFaults()
		startManager()
		moved(w, sv, connectionRef, "new-name")
		Expect(w.contents()).To(Equal([]string{"new-name=canary-1"}))
		Expect(w.stored("new-name").Version).To(BeNumerically("<=", 2))
	})

	It("from a target that cannot be deleted says DeletionBlocked, stays in sync at the new one, and heals", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		grant := w.dropPermission(grafanatest.ActionDelete)
		w.rename(sv, "new-name")
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReconciling)).To(BeTrue())
		Expect(message(sv.Status.Conditions)).To(And(ContainSubstring(`"api-key"`), ContainSubstring("secret.securevalues:delete"),
			ContainSubstring("deletionPolicy")))
		Expect(sv.Status.Targets).To(HaveLen(2))
		Expect(sv.Status.Targets[0].Name).To(Equal("new-name"))
		Expect(w.contents()).To(ConsistOf("api-key=canary-1", "new-name=canary-1"))

		w.secret("source", map[string]string{"key": "canary-2"})
		stored := w.eventuallyStored("new-name", "canary-2")
		Eventually(func(g Gomega) {
			w.refresh(sv)
			g.Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
		}).Should(Succeed())
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

		grant()
		moved(w, sv, connectionRef, "new-name")
		Expect(w.contents()).To(Equal([]string{"new-name=canary-2"}))
	})

	It("from a target that cannot be deleted releases it with deletionPolicy Retain", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.dropPermission(grafanatest.ActionDelete)
		w.rename(sv, "new-name")
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		moved(w, sv, connectionRef, "new-name")
		Expect(w.contents()).To(ConsistOf("api-key=canary-1", "new-name=canary-1"))
		w.eventuallyEvent(sv, "Retained")
	})

	It("never forgets a target, however many cannot be deleted", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("name-0", "canary-1")
		names := []string{"name-0"}
		const moves = v1alpha1.MaxTargets + 4
		for i := range moves {
			names = append(names, fmt.Sprintf("name-%d", i+1))
		}
		end := w.noGap(names...)
		grant := w.dropPermission(grafanatest.ActionDelete)
		for _, name := range names[1:] {
			w.rename(sv, name)
			w.eventuallyObserved(sv)
			Expect(sv.Status.Targets).NotTo(BeEmpty())
			Expect(len(sv.Status.Targets)).To(BeNumerically("<=", v1alpha1.MaxTargets))
			Expect(sv.Status.Conditions).To(ContainElement(And(
				HaveField("Type", v1alpha1.ConditionReady), HaveField("Status", metav1.ConditionFalse),
				HaveField("Reason", v1alpha1.ReasonDeletionBlocked))))
		}
		Expect(len(w.contents())).To(BeNumerically("<=", v1alpha1.MaxTargets), "a value that no record lists")
		grant()
		moved(w, sv, connectionRef, names[moves])
		end()
		Expect(w.contents()).To(Equal([]string{names[moves] + "=canary-1"}))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})

	It("of an object that is deleted before it is done leaves nothing", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		answer := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Name: "new-name", Hang: true})
		w.rename(sv, "new-name")
		w.eventuallyPending(sv, "new-name")
		w.delete(sv)
		answer()
		w.eventuallyGone(sv)
		Expect(w.contents()).To(BeEmpty())
	})
})
