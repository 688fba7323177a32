package integration

import (
	"fmt"
	"net/http"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// There is an event for each write to Grafana, and for each change of Ready's reason for the worse. There is no other.
var _ = Describe("Events", func() {
	DescribeTable("report exactly what was done",
		func(ctx SpecContext, act func(*world) *v1alpha1.GrafanaSecureValue, want ...string) {
			w := newConnectedWorld(ctx)
			sv := act(w)
			w.expectEvents(sv, want...)
		},
		Entry("of a first write", func(w *world) *v1alpha1.GrafanaSecureValue { return w.synced("api-key", "canary-1") }, "Normal Created"),
		Entry("of a rotation", then(rotate), "Normal Created", "Normal Rotated"),
		Entry("of an edit", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
			w.eventuallySynced(sv)
		}), "Normal Created", "Normal Updated"),
		Entry("of another deletionPolicy, which is a label", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.eventuallySynced(sv)
		}), "Normal Created", "Normal Updated"),
		Entry("of an edit of what is not in Grafana, nothing", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport })
			w.eventuallySynced(sv)
		}), "Normal Created"),
		Entry("of another key of the Secret, nothing", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.secret("source", map[string]string{"key": "canary-1", "other": "canary-2"})
			w.eventuallySourceIs(sv, "source")
		}), "Normal Created"),
		Entry("of sync-now", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.syncNow(sv, "token")
			w.eventuallyAnswered(sv, "token")
		}), "Normal Created", "Normal Updated"),
		Entry("of a move", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.rename(sv, "new-name")
			w.eventuallySynced(sv)
			w.eventuallyNotStored("api-key")
		}), "Normal Created", "Normal Moved", "Normal Deleted"),
		Entry("of an adoption", func(w *world) *v1alpha1.GrafanaSecureValue {
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
			sv := w.valueWithSecret("theirs", "canary-2")
			sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
			w.create(sv)
			w.eventuallySynced(sv)
			return sv
		}, "Normal Adopted"),
		Entry("of drift that was corrected", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.list(sv)
			w.grafana.Remove(grafanaNS, "api-key")
			w.list(sv)
			w.eventuallyStored("api-key", "canary-1")
		}), "Normal Created", "Warning DriftCorrected"),
		Entry("of drift that was left alone", func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.valueWithSecret("api-key", "canary-1")
			sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport
			w.create(sv)
			w.eventuallySynced(sv)
			w.grafana.Remove(grafanaNS, "api-key")
			w.list(sv)
			w.eventually(sv, v1alpha1.ReasonDrifted)
			w.list(sv)
			return sv
		}, "Normal Created", "Warning Drifted"),
		Entry("of a deletion", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.delete(sv)
			w.eventuallyGone(sv)
		}), "Normal Created", "Normal Deleted"),
		Entry("of a deletion that leaves the value", func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.valueWithSecret("api-key", "canary-1")
			sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
			w.create(sv)
			w.eventuallySynced(sv)
			w.delete(sv)
			w.eventuallyGone(sv)
			return sv
		}, "Normal Created", "Normal Retained"),
		Entry("of a deletion that was blocked", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			grant := w.dropPermission(grafanatest.ActionDelete)
			w.delete(sv)
			w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
			grant()
			w.eventuallyGone(sv)
		}), "Normal Created", "Warning DeletionBlocked", "Normal Deleted"),
		Entry("of a value whose labels Grafana did not keep", func(w *world) *v1alpha1.GrafanaSecureValue {
			w.dropLabels(grafanatest.VerbCreate)
			sv := w.valueWithSecret("api-key", "canary-1")
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
			return sv
		}, "Warning LabelsNotKept", "Normal Created", "Normal Deleted"),
		Entry("of a pause", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionTrue)
			resume(w, sv)
			w.eventuallySynced(sv)
		}), "Normal Created", "Normal Suspended", "Normal Resumed"),
		Entry("of a deletion in a pause that was blocked", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionTrue)
			grant := w.dropPermission(grafanatest.ActionDelete)
			w.delete(sv)
			w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
			grant()
			w.eventuallyGone(sv)
		}), "Normal Created", "Normal Suspended", "Warning DeletionBlocked", "Normal Deleted"),
		Entry("of a Secret that was missing", func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.value("api-key")
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonSecretNotFound)
			w.secret("source", map[string]string{"other": "canary-1"})
			w.eventually(sv, v1alpha1.ReasonSecretKeyNotFound)
			w.secret("source", map[string]string{"key": "canary-1"})
			w.eventuallySynced(sv)
			return sv
		}, "Warning SecretNotFound", "Warning SecretKeyNotFound", "Normal Created"),
		Entry("of a Secret that was away, and came back as it was", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.deleteSecret("source")
			w.eventually(sv, v1alpha1.ReasonSecretNotFound)
			w.secret("source", map[string]string{"key": "canary-1"})
			w.eventuallySynced(sv)
		}), "Normal Created", "Warning SecretNotFound"),
		Entry("of a Grafana that was away", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable})
			w.secret("source", map[string]string{"key": "canary-2"})
			w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
			w.grafana.ClearFaults()
			w.eventuallySynced(sv)
		}), "Normal Created", "Warning GrafanaUnavailable", "Normal Rotated"),
		Entry("of a name that is taken", func(w *world) *v1alpha1.GrafanaSecureValue {
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
			sv := w.valueWithSecret("theirs", "canary-2")
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonAlreadyExists)
			return sv
		}, "Warning AlreadyExists"),
		Entry("of a first write that may not work, one", func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.valueWithSecret("api-key", "canary-1")
			sv.Spec.Decrypters = nil
			w.create(sv)
			w.eventuallySynced(sv)
			return sv
		}, "Normal Created"),
	)

	It("have notes that begin with the verb, and end with what may not work", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.valueWithSecret("api-key", "canary-1\n")
		sv.Spec.Decrypters = []string{"synthetic-monitorin"}
		w.create(sv)
		w.eventuallySynced(sv)
		remarks := `The value ends with a newline. Unknown decrypter "synthetic-monitorin" (known: k6-cloud, provisioning.grafana.app, ` +
			`synthetic-monitoring). If it is a typo, no service can read the value.`
		Expect(message(sv.Status.Conditions)).To(HaveSuffix(remarks))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = nil })
		w.eventuallySynced(sv)
		w.secret("api-key", map[string]string{"key": "canary-2"})
		w.eventuallySourceIs(sv, "api-key")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = []string{"k6-cloud"} })
		w.eventuallySynced(sv)
		w.rename(sv, "new-name")
		w.eventuallySynced(sv)
		w.eventuallyNotStored("api-key")
		Eventually(w.notes).WithArguments(sv).Should(ConsistOf(
			"Created secure value api-key at version 1 in default. "+remarks,
			"Updated secure value api-key to version 2 in default. The value ends with a newline. No decrypters: no service can read the value.",
			"Rotated secure value api-key to version 3 in default. No decrypters: no service can read the value.",
			"Updated secure value api-key to version 4 in default",
			"Moved secure value api-key in default to new-name in default",
			"Deleted secure value api-key in default",
		))
	})

	It("report a connection that becomes ready, and one that does not", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.expectEvents(conn, "Normal Connected")
		w.grafana.RevokeToken(goodToken)
		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		w.expectEvents(conn, "Normal Connected", "Warning Unauthorized")
	})

	It("report neither an idle resync nor a restart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		objects := []client.Object{conn}
		sv := w.synced("api-key", "canary-1")
		unreadable := w.valueWithSecret("unreadable", "canary-2")
		unreadable.Spec.Decrypters = nil
		w.create(unreadable)
		w.eventuallySynced(unreadable)
		waiting := w.value("waiting")
		waiting.Spec.ValueFrom.SecretKeyRef.Name = "missing"
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonSecretNotFound)
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
		stalled := w.valueWithSecret("theirs", "canary-3")
		w.create(stalled)
		w.eventually(stalled, v1alpha1.ReasonAlreadyExists)
		paused := w.syncedFrom("paused", "canary-4")
		suspend(w, paused)
		w.eventuallySuspended(paused, metav1.ConditionTrue)
		objects = append(objects, sv, unreadable, waiting, stalled, paused)

		events := func() (all []string) {
			for _, o := range objects {
				for _, event := range w.eventsAbout(o) {
					all = append(all, o.GetName()+": "+event)
				}
			}
			return all
		}
		Eventually(events).Should(HaveLen(7))
		before := events()
		w.list(sv)
		w.list(sv)
		w.eventsSettled()
		Expect(events()).To(Equal(before))

		stopManager()
		startManager()
		w.list(sv)
		w.eventsSettled()
		Expect(events()).To(Equal(before))
	})
})

// then makes an object that is in sync, and does something to it.
func then(act func(*world, *v1alpha1.GrafanaSecureValue)) func(*world) *v1alpha1.GrafanaSecureValue {
	return func(w *world) *v1alpha1.GrafanaSecureValue {
		sv := w.synced("api-key", "canary-1")
		act(w, sv)
		return sv
	}
}

// expectEvents checks that these events about the object are emitted, in the form of eventsAbout, and no others.
func (w *world) expectEvents(o client.Object, want ...string) {
	GinkgoHelper()
	Eventually(w.eventsAbout).WithArguments(o).Should(ConsistOf(want))
	w.eventsSettled()
	Expect(w.eventsAbout(o)).To(ConsistOf(want))
}

// eventsSettled waits until the events of what was done so far have arrived, and a later one too. Events are sent independently, so one may
// still be late.
func (w *world) eventsSettled() {
	GinkgoHelper()
	w.settled()
	marker := w.value("events-marker")
	marker.Namespace, marker.Spec.ConnectionRef.Name = markerNamespace, "none"
	w.create(marker)
	w.eventuallyEvent(marker, v1alpha1.ReasonConnectionNotFound)
	w.delete(marker)
	w.eventuallyGone(marker)
}

// eventsAbout returns the events about the object, as "type reason", with the count of a repeated one.
func (w *world) eventsAbout(o client.Object) []string {
	GinkgoHelper()
	found := []string{}
	for _, e := range w.eventsOf(o) {
		Expect(e.Note).NotTo(ContainSubstring("canary"), "a secret in an event")
		Expect(e.ReportingController).NotTo(BeEmpty())
		said := e.Type + " " + e.Reason
		if e.Series != nil {
			said = fmt.Sprintf("%s, %d times", said, e.Series.Count)
		}
		found = append(found, said)
	}
	slices.Sort(found)
	return found
}

// notes returns the texts of the events about the object.
func (w *world) notes(o client.Object) []string {
	GinkgoHelper()
	var notes []string
	for _, e := range w.eventsOf(o) {
		notes = append(notes, e.Note)
	}
	return notes
}

func (w *world) eventsOf(o client.Object) []eventsv1.Event {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
	return slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.UID != o.GetUID() })
}
