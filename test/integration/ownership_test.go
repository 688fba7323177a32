package integration

import (
	"fmt"
	"net/http"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A value that nobody owns", func() {
	// taken asserts that the object took the value over, at the cost of one GET and one PUT after the POST.
	taken := func(w *world, sv *v1alpha1.GrafanaSecureValue, name string) {
		GinkgoHelper()
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create " + name, "get " + name, "update " + name}))
		stored := w.stored(name)
		Expect(string(stored.Value)).To(Equal("canary-2"))
		Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
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

	It("is taken with Adopt where nobody labelled it, and keeps what others put on it", func(ctx SpecContext) {
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

	It("is taken where another writer dropped its annotations: the labels decide", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		retained(w, "former", "api-key")
		stored := w.stored("api-key")
		stored.Annotations = nil
		w.grafana.Put(grafanaNS, stored)
		taken(w, claim(w, "api-key", v1alpha1.AdoptionPolicyRefuse), "api-key")
	})

	It("is taken with Refuse by an object of the same name, and is its own", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		former := retained(w, "api-key", "api-key")
		w.reset()
		again := anew(former)
		w.create(again)
		w.eventuallySynced(again)
		Expect(w.calls()).To(Equal([]string{"create api-key", "get api-key", "update api-key"}))
	})

	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		It("is left alone with "+string(policy)+" where an object of another namespace retained it", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			n := w.neighbour()
			retained(n, "former", "api-key")
			before := w.stored("api-key")
			sv := claim(w, "api-key", policy)
			w.eventually(sv, v1alpha1.ReasonNameConflict)
			Expect(message(sv.Status.Conditions)).NotTo(ContainSubstring(n.namespace))
			w.settled()
			Expect(slices.Compact(w.calls())).To(Equal([]string{"create api-key", "get api-key"})) // the event of the Secret may come late
			Expect(w.stored("api-key")).To(Equal(before))
		})
	}
})

var _ = Describe("A value that an object of another namespace owns", func() {
	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		It("is left alone with "+string(policy)+", and that namespace is not named", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			n := w.neighbour()
			owner := n.synced("api-key", "canary-1")
			before := w.stored("api-key")
			w.reset()
			sv := w.valueFrom("waiting", "waiting-source", "canary-2")
			sv.Spec.Name, sv.Spec.AdoptionPolicy = "api-key", policy
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonNameConflict)
			Expect(message(sv.Status.Conditions)).NotTo(ContainSubstring(n.namespace))
			w.settled()
			Expect(slices.Compact(w.calls())).To(Equal([]string{"create api-key", "get api-key"})) // the event of the Secret may come late
			Expect(w.stored("api-key")).To(Equal(before))

			By("deleting the owner, which releases the name for the waiting object at once")
			n.delete(owner)
			n.eventuallyGone(owner)
			w.eventuallySynced(sv)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-2"}))
		})

		It("is left alone with "+string(policy)+" when the waiting object is deleted", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			n := w.neighbour()
			owner := n.synced("api-key", "canary-1")
			n.noGap("api-key")
			sv := w.valueFrom("waiting", "waiting-source", "canary-2")
			sv.Spec.Name, sv.Spec.AdoptionPolicy = "api-key", policy
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonNameConflict)
			w.delete(sv)
			w.eventuallyGone(sv)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
			n.secret("source", map[string]string{"key": "canary-3"})
			n.eventuallyStored("api-key", "canary-3")
			n.eventuallySynced(owner)
		})
	}

	It("is released at once when that object is renamed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		n := w.neighbour()
		owner := n.synced("api-key", "canary-1")
		waiting := w.valueFrom("waiting", "waiting-source", "canary-2")
		waiting.Spec.Name = "api-key"
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonNameConflict)
		n.rename(owner, "elsewhere")
		w.eventuallySynced(waiting)
		n.eventuallySynced(owner)
		Expect(w.contents()).To(ConsistOf("api-key=canary-2", "elsewhere=canary-1"))
	})

	It("stays, whatever adoptionPolicy says, when that object is removed by force", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		n := w.neighbour()
		owner := n.synced("api-key", "canary-1")
		w.noGap("api-key")
		waiting := w.valueFrom("waiting", "waiting-source", "canary-2")
		waiting.Spec.Name, waiting.Spec.AdoptionPolicy = "api-key", v1alpha1.AdoptionPolicyAdopt
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonNameConflict)
		n.removeByForce(owner)
		w.settled()
		w.syncNow(waiting, "token")
		w.settled()
		w.eventually(waiting, v1alpha1.ReasonNameConflict)
		Expect(waiting.Status.LastSyncNow).To(BeEmpty())
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})
})

// In a hand-over the value changes its owner and never goes: there is no DELETE, and no moment without a value.
var _ = Describe("A hand-over between objects of one namespace", func() {
	// conflict makes an object that owns the name, and another one that names it too.
	conflict := func(w *world, name string) (owner, successor *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		owner = w.syncedAs("owner", name, "canary-owner")
		successor = w.valueFrom("successor", "successor-source", "canary-successor")
		successor.Spec.Name = name
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		w.reset()
		return owner, successor
	}

	handedOver := func(w *world, successor *v1alpha1.GrafanaSecureValue, name string) {
		GinkgoHelper()
		w.eventuallySynced(successor)
		stored := w.stored(name)
		Expect(string(stored.Value)).To(Equal("canary-" + successor.Name))
		Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(successor)))
		Expect(successor.Status.Targets).To(HaveLen(1))
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		w.eventuallyEvent(successor, "Adopted")
	}

	It("comes with the deletion of the owner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, successor := conflict(w, "api-key")
		end := w.noGap("api-key")
		w.delete(owner)
		w.eventuallyGone(owner)
		handedOver(w, successor, "api-key")
		end()
		w.delete(successor)
		w.eventuallyGone(successor)
		Expect(w.contents()).To(BeEmpty())
	})

	It("comes with the rename of the owner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, successor := conflict(w, "api-key")
		w.noGap("api-key")
		w.rename(owner, "elsewhere")
		w.eventuallySynced(owner)
		handedOver(w, successor, "api-key")
		Expect(owner.Status.Targets).To(HaveLen(1))
		Expect(w.contents()).To(ConsistOf("api-key=canary-successor", "elsewhere=canary-owner"))
	})

	It("comes with another connection of the owner", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		elsewhere := w.anotherGrafana()
		elsewhere.connected("other")
		owner, successor := conflict(w, "api-key")
		w.noGap("api-key")
		w.reconnect(owner, "other")
		w.eventuallySynced(owner)
		handedOver(w, successor, "api-key")
		Expect(elsewhere.contents()).To(Equal([]string{"api-key=canary-owner"}))
	})

	It("goes from one successor to the next", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, successor := conflict(w, "api-key")
		third := w.valueFrom("third", "third-source", "canary-third")
		third.Spec.Name = "api-key"
		w.create(third)
		w.eventually(third, v1alpha1.ReasonNameConflict)
		w.noGap("api-key")
		w.delete(owner)
		w.eventuallyGone(owner)
		// One of the two takes the value over.
		Eventually(func(g Gomega) {
			w.refresh(successor)
			w.refresh(third)
			g.Expect([]string{statusReason(successor), statusReason(third)}).
				To(ConsistOf(v1alpha1.ReasonSynced, v1alpha1.ReasonNameConflict))
		}).Should(Succeed())
		next, last := successor, third
		if statusReason(third) == v1alpha1.ReasonSynced {
			next, last = third, successor
		}
		handedOver(w, next, "api-key")
		w.delete(next)
		w.eventuallyGone(next)
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

		It("is without a gap where the old one is deleted first, and both are there when the operator reconciles", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			w.shortTimeout()
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

	Context("to a successor that cannot write yet", func() {
		// handedTo hands the value over to an object whose Secret is missing, which claims it all the same.
		handedTo := func(w *world) *v1alpha1.GrafanaSecureValue {
			GinkgoHelper()
			owner := w.syncedAs("owner", "api-key", "canary-owner")
			successor := w.value("successor")
			successor.Spec.Name, successor.Spec.ValueFrom.SecretKeyRef.Name = "api-key", "successor-source"
			w.create(successor)
			w.eventually(successor, v1alpha1.ReasonSecretNotFound)
			w.reset()
			w.delete(owner)
			w.eventuallyGone(owner)
			Expect(string(w.stored("api-key").Value)).To(Equal("canary-owner"))
			w.refresh(successor)
			Expect(successor.Finalizers).To(ContainElement(v1alpha1.Finalizer))
			Expect(successor.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationPendingTargets, pending("api-key")))
			return successor
		}

		It("leaves the value until that can", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			successor := handedTo(w)
			w.noGap("api-key")
			w.secret("successor-source", map[string]string{"key": "canary-successor"})
			handedOver(w, successor, "api-key")
		})

		It("leaves nothing when that is deleted", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			successor := handedTo(w)
			w.delete(successor)
			w.eventuallyGone(successor)
			Expect(w.contents()).To(BeEmpty())
		})

		It("leaves the value when that is deleted with Retain", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			successor := handedTo(w)
			edit(w, successor, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.delete(successor)
			w.eventuallyGone(successor)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-owner"}))
		})

		It("leaves nothing when that is renamed", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			successor := handedTo(w)
			w.rename(successor, "elsewhere")
			w.secret("successor-source", map[string]string{"key": "canary-successor"})
			w.eventuallySynced(successor)
			w.eventuallyNotStored("api-key")
			w.eventuallySynced(successor)
			Expect(successor.Status.Targets).To(HaveLen(1))
			Expect(w.contents()).To(Equal([]string{"elsewhere=canary-successor"}))
		})

		It("leaves nothing when that is deleted after a restart", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			w.shortTimeout()
			successor := handedTo(w)
			stopManager()
			w.delete(successor)
			startManager()
			w.eventuallyGone(successor)
			Expect(w.contents()).To(BeEmpty())
		})

		It("goes to another object that can", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			successor := handedTo(w)
			w.noGap("api-key")
			another := w.valueFrom("another", "another-source", "canary-another")
			another.Spec.Name = "api-key"
			w.create(another)
			handedOver(w, another, "api-key")
			w.secret("successor-source", map[string]string{"key": "canary-successor"})
			w.eventually(successor, v1alpha1.ReasonNameConflict)
			w.delete(successor)
			w.eventuallyGone(successor)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-another"}))
		})
	})

	// Only edits that the operator sees at once leave no moment without a value: it may be done with the first before the last is made.
	DescribeTable("goes round when objects exchange names",
		func(ctx SpecContext, n int, away bool) {
			w := newConnectedWorld(ctx)
			w.shortTimeout()
			var values []*v1alpha1.GrafanaSecureValue
			var groups [][]spot
			for i := range n {
				name := fmt.Sprintf("name-%d", i)
				values = append(values, w.syncedAs(fmt.Sprintf("object-%d", i), name, fmt.Sprintf("canary-object-%d", i)))
				groups = append(groups, []spot{w.spot(name)})
			}
			w.reset()
			if away {
				noGapAt(groups...)
				stopManager()
			}
			for i, sv := range values {
				w.rename(sv, fmt.Sprintf("name-%d", (i+1)%n))
			}
			if away {
				startManager()
			}
			var want []any
			for i, sv := range values {
				w.eventuallySynced(sv)
				want = append(want, fmt.Sprintf("name-%d=canary-object-%d", (i+1)%n, i))
				if away {
					handedOver(w, sv, sv.Spec.Name)
				}
			}
			Expect(w.contents()).To(ConsistOf(want...))
		},
		Entry("two", 2, false),
		Entry("two, while the operator is away", 2, true),
		Entry("three", 3, false),
		Entry("three, while the operator is away", 3, true),
	)

	DescribeTable("leaves nothing where owner and successor move elsewhere at once",
		func(ctx SpecContext, away bool) {
			w := newConnectedWorld(ctx)
			w.shortTimeout()
			owner := w.syncedAs("owner", "left", "canary-owner")
			successor := w.value("successor")
			successor.Spec.Name, successor.Spec.ValueFrom.SecretKeyRef.Name = "left", "successor-source"
			w.create(successor)
			w.eventually(successor, v1alpha1.ReasonSecretNotFound)
			w.eventuallyPending(successor, "left")
			if away {
				stopManager()
			}
			w.secret("successor-source", map[string]string{"key": "canary-successor"})
			w.rename(owner, "one")
			w.rename(successor, "two")
			if away {
				startManager()
			}
			w.eventuallySynced(owner)
			w.eventuallySynced(successor)
			Expect(w.contents()).To(ConsistOf("one=canary-owner", "two=canary-successor"))
		},
		Entry("while the operator works", false),
		Entry("while the operator is away", true),
	)

	It("goes from one connection to another one of the same Grafana", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.connected("other")
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := w.valueFrom("successor", "successor-source", "canary-successor")
		successor.Spec.Name, successor.Spec.ConnectionRef.Name = "api-key", "other"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		w.reset()
		w.noGap("api-key")
		w.delete(owner)
		w.eventuallyGone(owner)
		handedOver(w, successor, "api-key")
	})

	Context("with a reference to a connection that does not exist", func() {
		It("waits while the owner has it, and comes when that is deleted", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			owner, successor := conflict(w, "api-key")
			w.noGap("api-key")
			for range 2 {
				w.reconnect(owner, "typo")
				w.eventually(owner, v1alpha1.ReasonConnectionNotFound)
				w.settled()
				w.eventually(successor, v1alpha1.ReasonNameConflict)
				w.reconnect(owner, connectionRef)
				w.eventuallySynced(owner)
				Expect(w.contents()).To(Equal([]string{"api-key=canary-owner"}))
			}
			w.reconnect(owner, "typo")
			w.eventually(owner, v1alpha1.ReasonConnectionNotFound)
			w.delete(owner)
			w.eventuallyGone(owner)
			handedOver(w, successor, "api-key")
		})

		It("comes not to that object, which writes the value anew once it is corrected", func(ctx SpecContext) {
			w := newConnectedWorld(ctx)
			owner, successor := conflict(w, "api-key")
			w.reconnect(successor, "typo")
			w.eventually(successor, v1alpha1.ReasonConnectionNotFound)
			w.delete(owner)
			w.eventuallyGone(owner)
			Expect(w.contents()).To(BeEmpty())
			w.reconnect(successor, connectionRef)
			w.eventuallySynced(successor)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-successor"}))
		})
	})

	It("is waited for no more once the connection of the successor loses the right to the namespace", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		shared := w.shared()
		shared.Spec.Credentials.TokenSecretRef.Name = "missing"
		w.createShared(shared)
		w.eventuallySays(shared, v1alpha1.ReasonCredentialsNotFound)
		w.label(true)
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := through(w.valueFrom("successor", "successor-source", "canary-successor"), shared)
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonConnectionNotReady)
		w.delete(owner)
		w.settled()
		w.refresh(owner) // it waits, quietly
		Expect(statusReason(owner)).To(Equal(v1alpha1.ReasonSynced))
		Expect(w.contents()).To(Equal([]string{"api-key=canary-owner"}))
		w.label(false)
		w.eventuallyGone(owner)
		Expect(w.contents()).To(BeEmpty())
	})

	It("comes not to an object whose connection has lost the right to the namespace", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		shared := w.shared()
		w.createShared(shared)
		w.label(true)
		owner := w.syncedAs("owner", "api-key", "canary-owner")
		successor := through(w.valueFrom("successor", "successor-source", "canary-successor"), shared)
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		w.label(false)
		w.eventually(successor, v1alpha1.ReasonConnectionNotAllowed)
		w.delete(owner)
		w.eventuallyGone(owner)
		Expect(w.contents()).To(BeEmpty())
		w.label(true)
		w.eventuallySynced(successor)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-successor"}))
	})

	It("comes when the owner is removed by force", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, successor := conflict(w, "api-key")
		w.noGap("api-key")
		w.removeByForce(owner)
		handedOver(w, successor, "api-key")
	})

	It("comes when the owner's finalizer is removed by force while it cannot be deleted", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, successor := conflict(w, "api-key")
		w.noGap("api-key")
		remove := w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable, Name: "api-key"})
		w.delete(owner)
		w.dropFinalizers(owner)
		w.eventuallyGone(owner)
		remove()
		handedOver(w, successor, "api-key")
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
