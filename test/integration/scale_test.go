package integration

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// Many objects at once cost as much as each of them alone, and nothing for their number. Calls are counted, as for one object.
var _ = Describe("The cost of many objects", long, func() {
	const many = 100

	It("is that of each of them, and of a restart 1 LIST in all", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		unlimited(w)

		By("their first sync")
		for i := range many {
			w.secret(sourceOf(i), map[string]string{"key": "canary-1"})
		}
		mark := w.reset()
		w.many(many)
		w.eventuallyManySynced(many, "canary-1")
		w.settled()
		Expect(w.counted()).To(Equal(map[string]int{"create": many}))
		Expect(w.countedRequests(mark)).To(Equal(map[string]int{
			"get secrets": many, "patch grafanasecurevalues": many, "patch grafanasecurevalues/status": many,
		}))

		By("a rotation of all of them at once")
		mark = w.reset()
		for i := range many {
			w.secret(sourceOf(i), map[string]string{"key": "canary-2"})
		}
		w.eventuallyManySynced(many, "canary-2")
		w.settled()
		Expect(w.counted()).To(Equal(map[string]int{"get": many, "update": many}))
		Expect(w.countedRequests(mark)).To(Equal(map[string]int{"get secrets": many, "patch grafanasecurevalues/status": many}))

		By("an edit of another key of each Secret")
		mark = w.reset()
		for i := range many {
			w.secret(sourceOf(i), map[string]string{"key": "canary-2", "other": "x"})
		}
		w.eventuallySourcesAreSeen(many)
		w.settled()
		Expect(w.counted()).To(BeEmpty())
		Expect(w.countedRequests(mark)).To(Equal(map[string]int{"get secrets": many, "patch grafanasecurevalues/status": many}))

		By("Secrets that nobody reads")
		mark = w.reset()
		for i := range many {
			w.secret(fmt.Sprintf("foreign-%d", i), map[string]string{"key": "x"})
		}
		w.settled()
		Expect(w.counted()).To(BeEmpty())
		Expect(w.countedRequests(mark)).To(BeEmpty())

		By("a restart")
		stopManager()
		w.grafana.ResetCalls()
		mark = plane.Mark()
		startManager()
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.settled()
		Eventually(w.lists).Should(Equal(1))
		w.settled()
		Expect(w.counted()).To(Equal(map[string]int{"list": 1}))
		Expect(w.countedRequests(mark)).To(Equal(map[string]int{"get secrets": 1}), "the token's alone")

		By("their deletion")
		mark = w.reset()
		Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValue{}, client.InNamespace(w.namespace))).To(Succeed())
		Eventually(func(g Gomega) {
			values := &v1alpha1.GrafanaSecureValueList{}
			g.Expect(k8s.List(ctx, values, client.InNamespace(w.namespace))).To(Succeed())
			g.Expect(values.Items).To(BeEmpty())
		}).WithTimeout(scaleTimeout).Should(Succeed())
		w.settled()
		Expect(w.counted()).To(Equal(map[string]int{"get": 2 * many, "delete": many}))
		requests := w.countedRequests(mark)
		Expect(requests["get grafanasecurevalues"]).To(And(BeNumerically(">=", many), BeNumerically("<=", 2*many)),
			"each is read before its DELETE, and once more where the manager is too young to believe the 404")
		delete(requests, "get grafanasecurevalues")
		Expect(requests).To(Equal(map[string]int{"patch grafanasecurevalues": many}))
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})
})

// scaleTimeout is for what takes longer with many objects.
const scaleTimeout = 3 * time.Minute

func sourceOf(i int) string { return fmt.Sprintf("source-%d", i) }

// unlimited takes the limit of requests per second off the connection. After a restart a deletion waits for its requestTimeout.
func unlimited(w *world) {
	GinkgoHelper()
	conn := &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: connectionRef}}
	edit(w, conn, func(conn *v1alpha1.GrafanaConnection) {
		conn.Spec.RateLimit, conn.Spec.RequestTimeout = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0))}, "10s"
	})
	w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
}

// many makes objects, each of which reads a Secret of its own.
func (w *world) many(n int) {
	GinkgoHelper()
	for i := range n {
		sv := w.value(fmt.Sprintf("value-%d", i))
		sv.Spec.ValueFrom.SecretKeyRef.Name = sourceOf(i)
		w.create(sv)
	}
}

// eventuallyManySynced waits until Grafana holds the value for all objects, and each says so.
func (w *world) eventuallyManySynced(n int, value string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		stored := w.grafana.Values(grafanaNS)
		g.Expect(stored).To(HaveLen(n))
		for _, v := range stored {
			g.Expect(string(v.Value)).To(Equal(value))
		}
	}).WithTimeout(scaleTimeout).Should(Succeed())
	w.eventuallySourcesAreSeen(n)
}

// eventuallySourcesAreSeen waits until each object says to be in sync with the present version of its Secret.
func (w *world) eventuallySourcesAreSeen(n int) {
	GinkgoHelper()
	secrets := &corev1.SecretList{}
	Expect(k8s.List(w.ctx, secrets, client.InNamespace(w.namespace))).To(Succeed())
	versions := map[string]string{}
	for _, secret := range secrets.Items {
		versions[secret.Name] = secret.ResourceVersion
	}
	Eventually(func(g Gomega) {
		values := &v1alpha1.GrafanaSecureValueList{}
		g.Expect(k8s.List(w.ctx, values, client.InNamespace(w.namespace))).To(Succeed())
		g.Expect(values.Items).To(HaveLen(n))
		for _, sv := range values.Items {
			g.Expect(describe(sv.Status.ObservedGeneration, sv.Status.Conditions)).To(Equal(describeWanted(sv.Generation, v1alpha1.ReasonSynced)))
			g.Expect(sv.Status.Targets[0].Source.ResourceVersion).To(Equal(versions[sv.Spec.ValueFrom.SecretKeyRef.Name]))
		}
	}).WithTimeout(scaleTimeout).Should(Succeed())
}

// counted counts the calls to Grafana by verb.
func (w *world) counted() map[string]int {
	counts := map[string]int{}
	for _, c := range w.grafana.Calls() {
		counts[string(c.Verb)]++
	}
	return counts
}

// countedRequests counts the requests of the manager in this world since mark, as "verb resource".
func (w *world) countedRequests(mark controlplane.Mark) map[string]int {
	GinkgoHelper()
	counts := map[string]int{}
	for _, request := range w.requests(mark) {
		counts[request[:strings.LastIndex(request, " ")]]++
	}
	return counts
}
