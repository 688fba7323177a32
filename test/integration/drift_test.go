package integration

import (
	"bytes"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// Drift is what another writer does to a value in Grafana. It is found by the LIST of each resync.
var _ = Describe("Drift", func() {
	// watched makes a world with an object in sync.
	watched := func(ctx SpecContext, change func(*v1alpha1.GrafanaSecureValue)) (*world, *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		change(sv)
		w.create(sv)
		w.eventuallySynced(sv)
		w.list(sv)
		w.grafana.ResetCalls()
		return w, sv
	}
	report := func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport }
	correct := func(*v1alpha1.GrafanaSecureValue) {}

	overwrite := func(w *world) {
		stored := w.stored("api-key")
		stored.Value, stored.Version = []byte("their value"), stored.Version+1
		w.grafana.Put(grafanaNS, stored)
	}
	overwriteWithoutLabels := func(w *world) {
		stored := w.stored("api-key")
		stored.Value, stored.Version, stored.Labels, stored.Annotations = []byte("their value"), stored.Version+1, nil, nil
		w.grafana.Put(grafanaNS, stored)
	}
	edited := func(w *world) {
		stored := w.stored("api-key")
		stored.Decrypters, stored.Version = append(stored.Decrypters, "theirs"), stored.Version+1
		w.grafana.Put(grafanaNS, stored)
	}
	deleted := func(w *world) { w.grafana.Remove(grafanaNS, "api-key") }

	DescribeTable("is corrected with exactly one write",
		func(ctx SpecContext, drift func(*world), writes []string) {
			w, sv := watched(ctx, correct)
			drift(w)
			w.list(sv)
			w.eventuallyStored("api-key", "canary-1")
			w.eventuallyEvent(sv, "DriftCorrected")
			w.eventuallySynced(sv)
			w.list(sv)
			w.list(sv)
			Expect(w.calls()).To(Equal(writes))
			stored := w.stored("api-key")
			Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
			Expect(stored.Decrypters).To(Equal(sv.Spec.Decrypters))
			w.refresh(sv)
			Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
			Expect(meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue())
		},
		Entry("overwritten", overwrite, []string{"get api-key", "update api-key"}),
		Entry("overwritten by another writer who drops labels", overwriteWithoutLabels, []string{"get api-key", "update api-key"}),
		Entry("edited", edited, []string{"get api-key", "update api-key"}),
		Entry("deleted", deleted, []string{"get api-key", "create api-key"}),
	)

	DescribeTable("is reported and left alone with Report, and asked for no more than once",
		func(ctx SpecContext, drift func(*world)) {
			w, sv := watched(ctx, report)
			drift(w)
			before := w.contents()
			w.list(sv)
			w.eventually(sv, v1alpha1.ReasonDrifted)
			Expect(meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
			Expect(message(sv.Status.Conditions)).To(ContainSubstring(v1alpha1.AnnotationSyncNow))
			w.eventuallyEvent(sv, v1alpha1.ReasonDrifted)
			w.list(sv)
			w.list(sv)
			Expect(w.calls()).To(Equal([]string{"get api-key"}))
			Expect(w.contents()).To(Equal(before))

			By("rotating, which is written")
			w.secret("source", map[string]string{"key": "canary-2"})
			w.eventuallyStored("api-key", "canary-2")
			w.eventuallySynced(sv)
		},
		Entry("overwritten", overwrite),
		Entry("edited", edited),
		Entry("deleted", deleted),
	)

	DescribeTable("that was reported ends",
		func(ctx SpecContext, end func(*world, *v1alpha1.GrafanaSecureValue), value string) {
			w, sv := watched(ctx, report)
			overwrite(w)
			w.list(sv)
			w.eventually(sv, v1alpha1.ReasonDrifted)
			end(w, sv)
			w.eventuallyStored("api-key", value)
			w.eventuallySynced(sv)
		},
		Entry("with driftPolicy Correct", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyCorrect })
		}, "canary-1"),
		Entry("with an edit", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
		}, "canary-1"),
		Entry("with sync-now", func(w *world, sv *v1alpha1.GrafanaSecureValue) { w.syncNow(sv, "1") }, "canary-1"),
	)

	It("that was reported ends when it is put back, which costs no write", func(ctx SpecContext) {
		w, sv := watched(ctx, report)
		ahead := func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(`"version":1`), []byte(`"version":2`)) }
		putBack := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbList, Rewrite: ahead})
		alsoThere := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Rewrite: ahead})
		w.list(sv)
		w.eventually(sv, v1alpha1.ReasonDrifted)
		putBack()
		alsoThere()
		w.list(sv)
		w.eventuallySynced(sv)
		Expect(w.calls()).To(Equal([]string{"get api-key", "get api-key"}))
	})

	It("that returns is corrected three times, and then reported", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		for range 3 {
			overwrite(w)
			w.list(sv)
			w.eventuallyStored("api-key", "canary-1")
			w.eventuallySynced(sv)
		}
		overwrite(w)
		w.list(sv)
		w.eventually(sv, v1alpha1.ReasonDrifted)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("another writer is active"))
		w.list(sv)
		Expect(w.contents()).To(Equal([]string{"api-key=their value"}))
		Expect(w.countOf(grafanatest.VerbUpdate)).To(Equal(3))

		By("rotating, which is written, and ends it")
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)
	})

	It("is none where the answer to our own write was lost and the Secret was put back", func(ctx SpecContext) {
		w, sv := watched(ctx, report)
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, AfterEffect: true, Code: http.StatusBadGateway, Times: 1})
		hold := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Delay: time.Second})
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
		w.secret("source", map[string]string{"key": "canary-1"})
		hold()
		w.eventuallyStored("api-key", "canary-1")
		w.eventuallySynced(sv)
		w.list(sv)
		w.refresh(sv)
		Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))
	})

	It("of a status that is older than the spec is found by the LIST", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		old := sv.Status.DeepCopy()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
		w.eventuallySynced(sv)
		base := sv.DeepCopy()
		sv.Status = *old // as a leader that was paused does when it goes on
		Expect(k8s.Status().Patch(ctx, sv, client.MergeFrom(base))).To(Succeed())
		w.list(sv)
		w.eventuallySynced(sv)
		Expect(sv.Status.Targets[0].Generation).To(Equal(sv.Generation))
	})

	It("that a LIST alone shows is none", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbList, Code: http.StatusOK, ContentType: "application/json",
			Body: `{"kind":"SecureValueList","apiVersion":"secret.grafana.app/v1beta1","metadata":{},"items":[]}`,
		})
		w.list(sv)
		Eventually(w.calls).Should(Equal([]string{"get api-key"}))
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key"}))
		w.refresh(sv)
		Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))
	})

	It("is not left open by a leader that had stopped for a while, and wrote over a newer status that its write had no answer", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		base := sv.DeepCopy()
		sv.Status.Targets[0].Generation = 0
		ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady)
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonGrafanaUnavailable, "No answer."
		Expect(k8s.Status().Patch(ctx, sv, client.MergeFrom(base))).To(Succeed())
		w.list(sv)
		w.eventuallySynced(sv)
		Expect(sv.Status.Targets[0].Generation).To(Equal(sv.Generation))
	})

	It("is not corrected in an object that is suspended", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		overwrite(w)
		w.list(sv)
		Expect(w.calls()).To(BeEmpty())
		resume(w, sv)
		w.eventuallyStored("api-key", "canary-1")
		w.eventuallySynced(sv)
	})

	It("is found by the resync", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = v1alpha1.MinResyncPeriod.String()
		w.create(conn)
		sv := w.synced("api-key", "canary-1")
		overwrite(w)
		w.eventuallyStored("api-key", "canary-1")
		w.eventuallySynced(sv)
		Expect(w.countOf(grafanatest.VerbUpdate)).To(Equal(1))
	})

	It("counts the values of this cluster that nobody owns, and deletes none", func(ctx SpecContext) {
		w, sv := watched(ctx, correct)
		w.grafana.Put(grafanaNS, labelled("left", clusterID, w.namespace, "gone"))
		w.grafana.Put(grafanaNS, labelled("theirs", "another-cluster", w.namespace, "x"))
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "nobodys", Description: "x", Value: []byte("x")})
		w.list(sv)
		conn := &v1alpha1.GrafanaConnection{}
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: connectionRef}, conn)).To(Succeed())
			g.Expect(conn.Status.OrphanedValues).To(HaveValue(BeEquivalentTo(1)))
		}).Should(Succeed())
		Expect(w.contents()).To(HaveLen(4))
		w.eventuallySynced(sv)
	})
})

// list has the connection checked at once, and waits until what the LIST gives reason to has been done. The LIST proves something of
// the object: it is begun more than a second after its last write.
func (w *world) list(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	w.settled()
	w.refresh(sv)
	Eventually(time.Now).Should(BeTemporally(">", sv.Status.Targets[0].LastWriteTime.Add(time.Second)))
	w.settled()
	before := w.lists()
	w.secret("grafana", map[string]string{"token": goodToken, "touched": time.Now().String()})
	Eventually(w.lists).Should(BeNumerically(">", before))
	w.settled()
}
