package integration

import (
	"net/http"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A value that nobody holds", func() {
	// taken asserts that the object took the value over, at the cost of one GET and one PUT after the POST.
	taken := func(w *world, sv *v1alpha1.GrafanaSecureValue, name string) {
		GinkgoHelper()
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create " + name, "get " + name, "update " + name}))
		stored := w.stored(name)
		Expect(string(stored.Value)).To(Equal("canary-2"))
		Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerMark(sv)))
		Expect(stored.Labels).To(HaveKeyWithValue(labelCluster, clusterID))
		Expect(stored.Annotations).To(HaveKeyWithValue(annotationResource, sv.Namespace+"/"+sv.Name))
		Expect(sv.Status.Targets).To(HaveLen(1))
		Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
		w.eventuallyEvent(sv, "Adopted")

		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNotStored(name)
	}

	// retained leaves a value of an object that is gone, and returns that.
	retained := func(w *world, object, name string) *v1alpha1.GrafanaSecureValue {
		GinkgoHelper()
		sv := w.valueFrom(object, object+"-source", "canary-1")
		sv.Spec.Name, sv.Spec.DeletionPolicy = name, v1alpha1.DeletionPolicyRetain
		w.create(sv)
		w.eventuallySynced(sv)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(string(w.stored(name).Value)).To(Equal("canary-1"))
		return sv
	}

	claim := func(w *world, name string, policy v1alpha1.AdoptionPolicy) *v1alpha1.GrafanaSecureValue {
		GinkgoHelper()
		sv := w.valueFrom("claimant", "claimant-source", "canary-2")
		sv.Spec.Name, sv.Spec.AdoptionPolicy = name, policy
		w.reset()
		w.create(sv)
		return sv
	}

	It("is taken with Adopt where nobody marked it, and keeps what others put on it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.Put(grafanaNS, grafanatest.Stored{
			Name: "api-key", Description: "theirs", Value: []byte("their value"),
			Labels: map[string]string{"their": "label"}, Annotations: map[string]string{"their": "annotation"},
		})
		end := w.noGap("api-key")
		sv := claim(w, "api-key", v1alpha1.AdoptionPolicyAdopt)
		w.eventuallySynced(sv)
		end()
		Expect(w.stored("api-key").Labels).To(HaveKeyWithValue("their", "label"))
		Expect(w.stored("api-key").Annotations).To(HaveKeyWithValue("their", "annotation"))
		taken(w, sv, "api-key")
	})

	It("is taken once adoptionPolicy is set to Adopt", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "api-key", Description: "theirs", Value: []byte("their value")})
		sv := claim(w, "api-key", v1alpha1.AdoptionPolicyRefuse)
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("adoptionPolicy"))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt })
		w.eventuallySynced(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
	})

	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		It("is taken with "+string(policy)+" where an object of the namespace retained it", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			retained(w, "former", "api-key")
			end := w.noGap("api-key")
			sv := claim(w, "api-key", policy)
			w.eventuallySynced(sv)
			end()
			taken(w, sv, "api-key")
		})

		It("is taken with "+string(policy)+" where an object of the namespace retained it and moved away", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			former := w.synced("former", "canary-1")
			edit(w, former, func(sv *v1alpha1.GrafanaSecureValue) {
				sv.Spec.Name, sv.Spec.DeletionPolicy = "elsewhere", v1alpha1.DeletionPolicyRetain
			})
			w.eventuallySynced(former)
			taken(w, claim(w, "former", policy), "former")
			Expect(string(w.stored("elsewhere").Value)).To(Equal("canary-1"))
		})
	}

	It("is taken with Refuse by an object of the same name, and is its own", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		former := retained(w, "api-key", "api-key")
		w.reset()
		again := anew(former)
		w.create(again)
		w.eventuallySynced(again)
		Expect(w.calls()).To(Equal([]string{"create api-key", "get api-key", "update api-key"}))
	})

	It("is left alone with Refuse where an object of another namespace retained it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		n := w.neighbour()
		retained(n, "former", "api-key")
		before := w.stored("api-key")
		sv := claim(w, "api-key", v1alpha1.AdoptionPolicyRefuse)
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		Expect(message(sv.Status.Conditions)).NotTo(ContainSubstring(n.namespace))
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key", "get api-key"}))
		Expect(w.stored("api-key")).To(Equal(before))
	})

	It("is taken with Adopt where an object of another namespace retained it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		retained(w.neighbour(), "former", "api-key")
		end := w.noGap("api-key")
		sv := claim(w, "api-key", v1alpha1.AdoptionPolicyAdopt)
		w.eventuallySynced(sv)
		end()
		taken(w, sv, "api-key")
	})
})

var _ = Describe("A value that an object of another namespace holds", func() {
	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		It("is left alone with "+string(policy)+", and that namespace is not named", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			n := w.neighbour()
			holder := n.synced("api-key", "canary-1")
			held := w.stored("api-key")
			w.reset()
			sv := w.valueFrom("loser", "loser-source", "canary-2")
			sv.Spec.Name, sv.Spec.AdoptionPolicy = "api-key", policy
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonNameConflict)
			Expect(message(sv.Status.Conditions)).NotTo(ContainSubstring(n.namespace))
			w.settled()
			Expect(w.calls()).To(Equal([]string{"create api-key", "get api-key"}))
			Expect(w.stored("api-key")).To(Equal(held))

			By("going, and making way for the loser at once")
			n.delete(holder)
			n.eventuallyGone(holder)
			w.eventuallySynced(sv)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-2"}))
		})

		It("is left alone with "+string(policy)+" when the loser goes", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			n := w.neighbour()
			holder := n.synced("api-key", "canary-1")
			n.noGap("api-key")
			sv := w.valueFrom("loser", "loser-source", "canary-2")
			sv.Spec.Name, sv.Spec.AdoptionPolicy = "api-key", policy
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonNameConflict)
			w.delete(sv)
			w.eventuallyGone(sv)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
			n.secret("source", map[string]string{"key": "canary-3"})
			n.eventuallyStored("api-key", "canary-3")
			n.eventuallySynced(holder)
		})
	}

	It("makes way at once when that object is renamed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		n := w.neighbour()
		holder := n.synced("api-key", "canary-1")
		loser := w.valueFrom("loser", "loser-source", "canary-2")
		loser.Spec.Name = "api-key"
		w.create(loser)
		w.eventually(loser, v1alpha1.ReasonNameConflict)
		n.rename(holder, "elsewhere")
		w.eventuallySynced(loser)
		n.eventuallySynced(holder)
		Expect(w.contents()).To(ConsistOf("api-key=canary-2", "elsewhere=canary-1"))
	})

	It("makes way with Adopt alone when that object is removed by force", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		n := w.neighbour()
		holder := n.synced("api-key", "canary-1")
		w.noGap("api-key")
		refuses := w.valueFrom("refuses", "refuses-source", "canary-2")
		refuses.Spec.Name = "api-key"
		w.create(refuses)
		w.eventually(refuses, v1alpha1.ReasonNameConflict)
		n.removeByForce(holder)
		w.eventually(refuses, v1alpha1.ReasonAlreadyExists)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
		edit(w, refuses, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt })
		w.eventuallySynced(refuses)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-2"}))
	})
})

// In a hand-over the value changes hands and never goes: there is no DELETE, and no moment without a value.
var _ = Describe("A hand-over between objects of one namespace", func() {
	// contest makes an object that holds the name, and another one that wants it too.
	contest := func(w *world, name string) (winner, loser *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		winner = w.syncedAs("winner", name, "canary-winner")
		loser = w.valueFrom("loser", "loser-source", "canary-loser")
		loser.Spec.Name = name
		w.create(loser)
		w.eventually(loser, v1alpha1.ReasonNameConflict)
		w.reset()
		return winner, loser
	}

	handedOver := func(w *world, heir *v1alpha1.GrafanaSecureValue, name string) {
		GinkgoHelper()
		w.eventuallySynced(heir)
		stored := w.stored(name)
		Expect(string(stored.Value)).To(Equal("canary-" + heir.Name))
		Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerMark(heir)))
		Expect(heir.Status.Targets).To(HaveLen(1))
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		w.eventuallyEvent(heir, "Adopted")
	}

	It("comes with the deletion of the winner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner, loser := contest(w, "api-key")
		end := w.noGap("api-key")
		w.delete(winner)
		w.eventuallyGone(winner)
		handedOver(w, loser, "api-key")
		end()
		w.delete(loser)
		w.eventuallyGone(loser)
		Expect(w.contents()).To(BeEmpty())
	})

	It("comes with the rename of the winner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner, loser := contest(w, "api-key")
		w.noGap("api-key")
		w.rename(winner, "elsewhere")
		w.eventuallySynced(winner)
		handedOver(w, loser, "api-key")
		Expect(winner.Status.Targets).To(HaveLen(1))
		Expect(w.contents()).To(ConsistOf("api-key=canary-loser", "elsewhere=canary-winner"))
	})

	It("comes with another connection of the winner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		elsewhere := w.anotherGrafana()
		elsewhere.connected("other")
		winner, loser := contest(w, "api-key")
		w.noGap("api-key")
		w.reconnect(winner, "other")
		w.eventuallySynced(winner)
		handedOver(w, loser, "api-key")
		Expect(elsewhere.contents()).To(Equal([]string{"api-key=canary-winner"}))
	})

	It("leads from loser to loser", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner, loser := contest(w, "api-key")
		third := w.valueFrom("third", "third-source", "canary-third")
		third.Spec.Name = "api-key"
		w.create(third)
		w.eventually(third, v1alpha1.ReasonNameConflict)
		w.noGap("api-key")
		w.delete(winner)
		w.eventuallyGone(winner)
		// One of the two is the heir.
		Eventually(func(g Gomega) {
			w.refresh(loser)
			w.refresh(third)
			g.Expect([]string{statusReason(loser), statusReason(third)}).
				To(ConsistOf(v1alpha1.ReasonSynced, v1alpha1.ReasonNameConflict))
		}).Should(Succeed())
		heir, last := loser, third
		if statusReason(third) == v1alpha1.ReasonSynced {
			heir, last = third, loser
		}
		handedOver(w, heir, "api-key")
		w.delete(heir)
		w.eventuallyGone(heir)
		handedOver(w, last, "api-key")
	})

	Context("in a rename by GitOps, which makes the new object and deletes the old one", func() {
		replacement := func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.valueFrom("new", "new-source", "canary-new")
			sv.Spec.Name = "api-key"
			return sv
		}

		It("is without a gap where the new one is made first", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			old := w.syncedAs("old", "api-key", "canary-old")
			w.reset()
			w.noGap("api-key")
			replaced := replacement(w)
			w.create(replaced)
			w.delete(old)
			w.eventuallyGone(old)
			handedOver(w, replaced, "api-key")
		})

		It("is without a gap where the old one is deleted first, and both are there when the operator looks", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			old := w.syncedAs("old", "api-key", "canary-old")
			w.reset()
			w.noGap("api-key")
			stopManager()
			w.delete(old)
			replaced := replacement(w)
			w.create(replaced)
			startManager()
			w.eventuallyGone(old)
			handedOver(w, replaced, "api-key")
		})

		It("ends well where the old one is deleted first", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			old := w.syncedAs("old", "api-key", "canary-old")
			replaced := replacement(w)
			w.delete(old)
			w.create(replaced)
			w.eventuallyGone(old)
			w.eventuallySynced(replaced)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-new"}))
		})
	})

	Context("to an heir that cannot write yet", func() {
		// inherits hands the value over to an object whose Secret is missing.
		inherits := func(w *world) *v1alpha1.GrafanaSecureValue {
			GinkgoHelper()
			winner := w.syncedAs("winner", "api-key", "canary-winner")
			heir := w.value("heir")
			heir.Spec.Name, heir.Spec.ValueFrom.SecretKeyRef.Name = "api-key", "heir-source"
			w.create(heir)
			w.eventually(heir, v1alpha1.ReasonSecretNotFound)
			w.reset()
			w.delete(winner)
			w.eventuallyGone(winner)
			Expect(string(w.stored("api-key").Value)).To(Equal("canary-winner"))
			w.refresh(heir)
			Expect(heir.Finalizers).To(ContainElement(v1alpha1.Finalizer))
			Expect(heir.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationIntent, intent("api-key")+"/winner"))
			return heir
		}

		It("leaves the value until that can", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			w.noGap("api-key")
			w.secret("heir-source", map[string]string{"key": "canary-heir"})
			handedOver(w, heir, "api-key")
		})

		It("leaves nothing when that is deleted", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			w.delete(heir)
			w.eventuallyGone(heir)
			Expect(w.contents()).To(BeEmpty())
		})

		It("leaves the value when that is deleted with Retain", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			edit(w, heir, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.delete(heir)
			w.eventuallyGone(heir)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-winner"}))
		})

		It("leaves nothing when that is renamed", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			w.rename(heir, "elsewhere")
			w.secret("heir-source", map[string]string{"key": "canary-heir"})
			w.eventuallySynced(heir)
			w.eventuallyNotStored("api-key")
			w.eventuallySynced(heir)
			Expect(heir.Status.Targets).To(HaveLen(1))
			Expect(w.contents()).To(Equal([]string{"elsewhere=canary-heir"}))
		})

		It("leaves nothing when that is deleted after a restart", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			stopManager()
			w.delete(heir)
			startManager()
			w.eventuallyGone(heir)
			Expect(w.contents()).To(BeEmpty())
		})

		It("goes on to the next heir", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			heir := inherits(w)
			w.noGap("api-key")
			next := w.valueFrom("next", "next-source", "canary-next")
			next.Spec.Name = "api-key"
			w.create(next)
			w.eventuallyObserved(next)
			w.delete(heir)
			w.eventuallyGone(heir)
			w.eventuallySynced(next)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-next"}))
		})
	})

	It("goes both ways when two objects swap names", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		one := w.syncedAs("one", "name-one", "canary-one")
		two := w.syncedAs("two", "name-two", "canary-two")
		w.reset()
		noGapAt([]spot{w.spot("name-one")}, []spot{w.spot("name-two")})
		w.rename(one, "name-two")
		w.rename(two, "name-one")
		handedOver(w, one, "name-two")
		handedOver(w, two, "name-one")
		Expect(w.contents()).To(ConsistOf("name-one=canary-two", "name-two=canary-one"))
	})

	It("goes both ways when two objects swap names while the operator is away", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		one := w.syncedAs("one", "name-one", "canary-one")
		two := w.syncedAs("two", "name-two", "canary-two")
		w.reset()
		noGapAt([]spot{w.spot("name-one")}, []spot{w.spot("name-two")})
		stopManager()
		w.rename(one, "name-two")
		w.rename(two, "name-one")
		startManager()
		handedOver(w, one, "name-two")
		handedOver(w, two, "name-one")
	})

	It("goes round when three objects change places", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		names := []string{"name-one", "name-two", "name-three"}
		objects := []string{"one", "two", "three"}
		var values []*v1alpha1.GrafanaSecureValue
		var groups [][]spot
		for i, name := range names {
			values = append(values, w.syncedAs(objects[i], name, "canary-"+objects[i]))
			groups = append(groups, []spot{w.spot(name)})
		}
		w.reset()
		noGapAt(groups...)
		for i, sv := range values {
			w.rename(sv, names[(i+1)%len(names)])
		}
		for i, sv := range values {
			handedOver(w, sv, names[(i+1)%len(names)])
		}
		Expect(w.contents()).To(ConsistOf("name-two=canary-one", "name-three=canary-two", "name-one=canary-three"))
	})

	It("comes when the winner is removed by force", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner, loser := contest(w, "api-key")
		w.noGap("api-key")
		w.removeByForce(winner)
		handedOver(w, loser, "api-key")
	})

	It("comes when the winner's finalizer is removed by force while it cannot be deleted", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		winner, loser := contest(w, "api-key")
		w.noGap("api-key")
		remove := w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable, Name: "api-key"})
		w.delete(winner)
		w.dropFinalizers(winner)
		w.eventuallyGone(winner)
		remove()
		handedOver(w, loser, "api-key")
	})
})

var _ = Describe("A restore of objects without status", func() {
	It("goes on with the values that are there, with at most one extra version", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key")
		w.removeByForce(sv)
		w.reset()
		again := anew(sv)
		w.create(again)
		w.eventuallySynced(again)
		Expect(w.stored("api-key").Version).To(BeNumerically("<=", 2))
		Expect(again.Status.Targets[0].Version).To(Equal(w.stored("api-key").Version))
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		w.settled()
		Expect(w.stored("api-key").Version).To(BeNumerically("<=", 2))
	})

	It("goes on while the operator is away", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		var values []*v1alpha1.GrafanaSecureValue
		for _, name := range []string{"one", "two", "three"} {
			values = append(values, w.syncedAs(name, name, "canary-"+name))
		}
		stopManager()
		slices.Reverse(values)
		for _, sv := range values {
			w.removeByForce(sv)
			w.create(anew(sv))
		}
		startManager()
		for _, sv := range values {
			w.eventuallySynced(sv)
			Expect(w.stored(sv.Name).Version).To(BeNumerically("<=", 2))
		}
	})
})
