package integration

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("kubectl wait", func() {
	wait := func(w *world, timeout string) error {
		return exec.CommandContext(w.ctx, plane.KubectlPath(), "--kubeconfig", plane.KubeconfigPath(), "--namespace", w.namespace,
			"wait", "--for=condition=Ready", "--timeout", timeout, "gsv/api-key").Run()
	}

	It("passes once the value is in Grafana, and never before the object's latest generation was observed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		stopManager()
		sv := w.value("api-key")
		w.create(sv)
		Expect(sv.Status.ObservedGeneration).To(Equal(int64(-1)))
		Expect(wait(w, "1s")).NotTo(Succeed(), "an object that was never reconciled")

		startManager()
		Expect(wait(w, "60s")).To(Succeed())
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

		stopManager()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		Expect(wait(w, "1s")).NotTo(Succeed(), "a generation that was not observed")
		startManager()
		Expect(wait(w, "60s")).To(Succeed())
		Expect(w.stored("api-key").Description).To(Equal("Another text"))
	})
})

var _ = Describe("The fingerprint key", func() {
	keySecret := func(ctx SpecContext) *corev1.Secret {
		secret := &corev1.Secret{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: fingerprint.SecretName}, secret)).To(Succeed())
		return secret
	}

	It("is made once, cannot be changed, and nothing is written when it is lost", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		before := sv.Status.Targets[0].Fingerprint
		key := keySecret(ctx)
		Expect(key.Immutable).To(HaveValue(BeTrue()))
		Expect(key.Type).To(Equal(fingerprint.SecretType))
		Expect(key.Data["key"]).To(HaveLen(fingerprint.KeySize))

		stopManager()
		startManager()
		w.settled()
		Expect(keySecret(ctx).UID).To(Equal(key.UID), "a restart made another key")

		stopManager()
		Expect(k8s.Delete(ctx, key)).To(Succeed())
		Expect(k8s.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Type: key.Type})).To(Succeed())
		w.grafana.ResetCalls()
		startManager()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport })
		w.eventuallySynced(sv)
		Expect(keySecret(ctx).UID).NotTo(Equal(key.UID))
		Expect(w.calls()).To(Equal([]string{"get api-key"}))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
		Expect(sv.Status.Targets[0].Fingerprint).NotTo(Equal(before), "the record is still under the lost key")
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
	})

	It("distinguishes two objects of the same value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		one := w.synced("one", "canary-1")
		two := w.synced("two", "canary-1")
		Expect(one.Status.Targets[0].Fingerprint).NotTo(Equal(two.Status.Targets[0].Fingerprint))
	})

	It("tells targets of one object, and objects that had one name, of the same value apart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("one", "canary-1")
		first := sv.Status.Targets[0].Fingerprint
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.eventuallySynced(sv)
		Expect(sv.Status.Targets[0].Name).To(Equal("moved"))
		Expect(sv.Status.Targets[0].Fingerprint).NotTo(Equal(first), "the target is not in it")

		w.delete(sv)
		w.eventuallyGone(sv)
		again := w.synced("one", "canary-1")
		Expect(again.Status.Targets[0].Name).To(Equal("one"))
		Expect(again.Status.Targets[0].Fingerprint).NotTo(Equal(first), "the UID is not in it")
	})
})

var _ = Describe("The limiter", func() {
	It("admits no more than 8 objects to one Grafana at a time, and each of them in the end", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.SetLatency(20 * time.Millisecond)
		w.secret("source", map[string]string{"key": "canary-1"})
		const objects = 60
		for i := range objects {
			w.create(w.value(fmt.Sprintf("value-%d", i)))
		}
		Eventually(func() int { return len(w.grafana.Values(grafanaNS)) }).Should(Equal(objects))
		for i := range objects {
			w.eventuallySynced(w.value(fmt.Sprintf("value-%d", i)))
		}
		Expect(w.calls()).To(HaveLen(objects))
		Expect(mostAtATime(w.grafana.Calls())).To(BeNumerically("<=", 8))
	})

	It("does not let a Grafana that hangs delay another one", func(ctx SpecContext) {
		hanging := newConnectedWorld(ctx)
		hanging.secret("source", map[string]string{"key": "canary-1"})
		remove := hanging.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Hang: true})
		for i := range 40 {
			hanging.create(hanging.value(fmt.Sprintf("value-%d", i)))
		}
		healthy := newConnectedWorld(ctx)
		healthy.synced("api-key", "canary-1")
		Expect(hanging.grafana.Values(grafanaNS)).To(BeEmpty())
		remove()
		Eventually(func() int { return len(hanging.grafana.Values(grafanaNS)) }).Should(Equal(40))
	})

	It("does not let one that hangs take more than a quarter of the workers, whatever its connection allows", func(ctx SpecContext) {
		const objects, most = 40, 16 // of 64 workers: while it holds fewer than a third of those that are free
		hanging := newWorld(ctx)
		conn := hanging.limited(func(spec *v1alpha1.ClusterGrafanaConnectionSpec) {
			spec.RequestTimeout = "2m"
			spec.RateLimit = &v1alpha1.RateLimit{MaxInFlight: new(int32(64)), RequestsPerSecond: new(int32(0))}
		})
		hanging.secret("source", map[string]string{"key": "canary-1"})
		answer := hanging.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Hang: true})
		for i := range objects {
			sv := through(hanging.value(fmt.Sprintf("value-%d", i)), conn)
			sv.Spec.Name = hanging.namespace + "." + sv.Name
			hanging.create(sv)
		}
		eventuallyQueued(conn, BeNumerically(">=", objects-most))

		healthy := newConnectedWorld(ctx)
		healthy.synced("api-key", "canary-1")
		Expect(hanging.grafana.Values(grafanaNS)).To(BeEmpty())
		answer()
		hanging.eventuallyAllSynced(objects)
		Expect(mostAtATime(hanging.grafana.Calls())).To(BeNumerically("<=", most))
	})
})

// mostAtATime returns how many of the calls were under way at one time.
func mostAtATime(calls []grafanatest.Call) int {
	type edge struct {
		at   time.Time
		step int
	}
	var edges []edge
	for _, c := range calls {
		edges = append(edges, edge{c.Start, 1}, edge{c.End, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	now, most := 0, 0
	for _, e := range edges {
		now += e.step
		most = max(most, now)
	}
	return most
}

var _ = Describe("A value that Grafana refuses", func() {
	It("names the fields, and is written after an edit", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		remove := w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbCreate, Code: http.StatusUnprocessableEntity, ContentType: "application/json",
			Body: `{"kind":"Status","reason":"Invalid","message":"canary","details":{"causes":[{"field":"spec.description"},{"field":"canary"}]}}`,
		})
		w.secret("source", map[string]string{"key": "canary-1"})
		w.settled() // the manager knows of the Secret: its coming would be a reason to try again
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonRejectedByGrafana)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("spec.description"))
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key"}), "it is written again without an edit")
		remove()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventuallySynced(sv)
	})
})

var _ = Describe("A namespace", func() {
	It("shares nothing with another one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		other := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "other-"}}
		w.create(other)
		sv := w.value("api-key")
		sv.Namespace = other.Name
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.calls()).To(BeEmpty())
	})
})
