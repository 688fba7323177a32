package integration

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

var _ = Describe("Freshness", func() {
	const patchStatus = "patch grafanasecurevalues/status api-key"

	It("ends by maxAge with 1 GET of the Secret, 1 write and 1 event, and a restart costs nothing", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: "source", Annotations: map[string]string{"cert-manager.io/certificate-name": "web"},
		}, Data: map[string][]byte{"key": []byte("canary-1")}, Immutable: new(true)})
		sv := w.value("api-key")
		sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h"}
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(freshOf(sv)).To(Equal("True Current"))
		Expect(sv.Status.LastRotationTime).To(Equal(sv.Status.Targets[0].LastWriteTime))
		w.settled()

		stopManager()
		DeferCleanup(startManager)
		base := sv.DeepCopy()
		sv.Status.LastRotationTime = &metav1.Time{Time: time.Now().Add(-2 * time.Hour)}
		Expect(k8s.Status().Patch(ctx, sv, client.MergeFrom(base))).To(Succeed())
		for _, wants := range [][]string{{"get secrets grafana", "get secrets source", patchStatus}, {"get secrets grafana"}} {
			w.grafana.ResetCalls()
			mark := plane.Mark()
			stop := runManager(managerConfig, func(*operator.Options) {})
			DeferCleanup(stop)
			w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
			w.eventuallyFresh(sv, "False Overdue")
			w.settled()
			Eventually(w.lists).Should(Equal(1))
			w.settled()
			Expect(w.calls()).To(BeEmpty())
			Expect(w.requests(mark)).To(ConsistOf(wants))
			w.expectEvents(sv, "Normal Created", "Warning Overdue")
			stop()
		}
		said := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionFresh).Message
		Expect(said).To(And(ContainSubstring(`Certificate "web" of cert-manager`), ContainSubstring("immutable")))
		Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))
	})

	It("ends by expirationTime when that comes, and is reported no more without freshness", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h", ExpirationTime: &metav1.Time{Time: time.Now().Add(3 * time.Second)}}
		})
		w.eventuallySynced(sv)
		w.eventuallyFresh(sv, "False Expired")
		w.expectEvents(sv, "Normal Created", "Warning Expired")
		mark := w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Freshness = nil })
		w.eventuallySynced(sv)
		w.settled()
		Expect(freshOf(sv)).To(BeEmpty())
		Expect(w.requests(mark)).To(Equal([]string{"get secrets source", patchStatus}))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
	})
})

var _ = Describe("A Secret that changes all the time", func() {
	It("costs 10 versions, 1 report, and nothing more until the next version is due, or sync-now asks for it", func(ctx SpecContext) {
		withOptions(func(o *operator.Options) { o.RotationPeriod = time.Hour }) // however slow the machine is
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-0")
		for i := range 10 {
			value := fmt.Sprintf("canary-%d", i+1)
			w.secret("source", map[string]string{"key": value})
			w.eventuallyStored("api-key", value)
		}
		w.eventuallySynced(sv)
		mark := w.reset()
		w.secret("source", map[string]string{"key": "canary-11"})
		w.eventually(sv, v1alpha1.ReasonSourceFlapping)
		for i := range 20 {
			w.secret("source", map[string]string{"key": fmt.Sprintf("canary-%d", 10+i%2)}) // one of them is in Grafana
		}
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(Equal([]string{"get secrets source", "patch grafanasecurevalues/status api-key"}))

		w.secret("source", map[string]string{"key": "canary-12"})
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.eventuallySynced(sv)
		stored := w.stored("api-key")
		Expect(string(stored.Value)).To(Equal("canary-12"))
		Expect(stored.Version).To(Equal(int64(12)))
	})
})

// freshOf returns what the object says of Fresh, or "".
func freshOf(sv *v1alpha1.GrafanaSecureValue) string {
	fresh := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionFresh)
	if fresh == nil {
		return ""
	}
	return string(fresh.Status) + " " + fresh.Reason
}

func (w *world) eventuallyFresh(sv *v1alpha1.GrafanaSecureValue, want string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(freshOf(sv)).To(Equal(want))
	}).Should(Succeed())
}
