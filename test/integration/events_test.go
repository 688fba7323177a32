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

// Events tell of each write to Grafana, and of each change of Ready's reason that is not for the better. Of nothing else.
var _ = Describe("Events", func() {
	DescribeTable("tell exactly what was done",
		func(ctx SpecContext, act func(*world) *v1alpha1.GrafanaSecureValue, want ...string) {
			w := newConnectedWorld(ctx)
			sv := act(w)
			w.tells(sv, want...)
		},
		Entry("of a first write", func(w *world) *v1alpha1.GrafanaSecureValue { return w.synced("api-key", "canary-1") }, "Normal Created"),
		Entry("of a rotation", then(rotate), "Normal Created", "Normal Rotated"),
		Entry("of an edit", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
			w.eventuallySynced(sv)
		}), "Normal Created", "Normal Updated"),
		Entry("of an edit that Grafana does not hold, nothing", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
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
			w.eventually(sv, v1alpha1.ReasonConnectionNotReady)
			return sv
		}, "Warning ConnectionNotReady", "Normal Created", "Normal Deleted"),
		Entry("of a pause", then(func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionTrue)
			resume(w, sv)
			w.eventuallySynced(sv)
		}), "Normal Created", "Normal Suspended", "Normal Resumed"),
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
		Entry("of what syncs and will not work", func(w *world) *v1alpha1.GrafanaSecureValue {
			sv := w.valueWithSecret("api-key", "canary-1")
			sv.Spec.Decrypters = nil
			w.create(sv)
			w.eventuallySynced(sv)
			return sv
		}, "Normal Created", "Warning Synced"),
	)

	It("tell of a connection when it is ready, and when it is not", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.tells(conn, "Normal Connected")
		w.grafana.RevokeToken(goodToken)
		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		w.tells(conn, "Normal Connected", "Warning Unauthorized")
	})

	It("tell nothing of an idle resync, and nothing of a restart", func(ctx SpecContext) {
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

		told := func() (all []string) {
			for _, o := range objects {
				for _, event := range w.told(o) {
					all = append(all, o.GetName()+": "+event)
				}
			}
			return all
		}
		Eventually(told).Should(HaveLen(8))
		before := told()
		w.list(sv)
		w.list(sv)
		w.allTold()
		Expect(told()).To(Equal(before))

		stopManager()
		startManager()
		w.list(sv)
		w.allTold()
		Expect(told()).To(Equal(before))
	})
})

// then makes an object that is in step, and does something to it.
func then(act func(*world, *v1alpha1.GrafanaSecureValue)) func(*world) *v1alpha1.GrafanaSecureValue {
	return func(w *world) *v1alpha1.GrafanaSecureValue {
		sv := w.synced("api-key", "canary-1")
		act(w, sv)
		return sv
	}
}

// tells holds that the events about the object come to be these, as told has them, and no more.
func (w *world) tells(o client.Object, want ...string) {
	GinkgoHelper()
	Eventually(w.told).WithArguments(o).Should(ConsistOf(want))
	w.allTold()
	Expect(w.told(o)).To(ConsistOf(want))
}

// allTold waits until what was done so far has been told, and what is told after that. Each event is on its way by itself, so that one may
// still be overtaken.
func (w *world) allTold() {
	GinkgoHelper()
	w.settled()
	marker := w.value("told-marker")
	marker.Namespace, marker.Spec.ConnectionRef.Name = markerNamespace, "none"
	w.create(marker)
	w.eventuallyEvent(marker, v1alpha1.ReasonConnectionNotFound)
	w.delete(marker)
	w.eventuallyGone(marker)
}

// told returns the events about the object, as "type reason". What was told more than once says so.
func (w *world) told(o client.Object) []string {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
	told := []string{}
	for _, e := range list.Items {
		if e.Regarding.UID != o.GetUID() {
			continue
		}
		Expect(e.Note).NotTo(ContainSubstring("canary"), "a secret in an event")
		Expect(e.ReportingController).NotTo(BeEmpty())
		said := e.Type + " " + e.Reason
		if e.Series != nil {
			said = fmt.Sprintf("%s, %d times", said, e.Series.Count)
		}
		told = append(told, said)
	}
	slices.Sort(told)
	return told
}
