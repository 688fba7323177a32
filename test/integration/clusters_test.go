package integration

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// cluster is one more control plane with a manager, beside the suite's, which is blue where there are two.
type cluster struct {
	plane  *controlplane.ControlPlane
	client client.Client
	config *rest.Config
	stop   func() // ends the manager
}

// newCluster starts a control plane, and a manager there that is given the id.
func newCluster(ctx context.Context, id string) *cluster {
	GinkgoHelper()
	c := &cluster{stop: func() {}}
	c.plane, c.client = startPlane(ctx)
	DeferCleanup(func() { stopPlane(c.plane) })
	c.config = managerOf(ctx, c.plane)
	c.startManager(id)
	DeferCleanup(func() { c.stop() })
	return c
}

func (c *cluster) startManager(id string) {
	GinkgoHelper()
	c.stop = runManager(c.config, func(o *operator.Options) { o.ClusterID = id })
}

// do has the verbs in f speak of this cluster.
func (c *cluster) do(f func()) {
	GinkgoHelper()
	suitePlane, suiteClient := plane, k8s
	defer func() { plane, k8s = suitePlane, suiteClient }()
	plane, k8s = c.plane, c.client
	f()
}

// copyWorld makes the world's namespace in this cluster too, with a connection to the same Grafana.
func (c *cluster) copyWorld(w *world, resyncPeriod string) {
	GinkgoHelper()
	c.do(func() {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})
		w.secret("grafana", map[string]string{"token": goodToken})
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = resyncPeriod
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	})
	DeferCleanup(func(ctx context.Context) {
		c.do(func() {
			w.checkInvariants(ctx)
			w.cleanUp(ctx)
		})
	})
}

// settledIn is settled in both clusters.
func (w *world) settledIn(c *cluster) {
	GinkgoHelper()
	w.settled()
	c.do(w.settled)
}

// adopting is value with adoptionPolicy Adopt.
func (w *world) adopting(name string) *v1alpha1.GrafanaSecureValue {
	sv := w.value(name)
	sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
	return sv
}

// eventuallyAllSynced waits until there are n objects in the namespace, and all say that their latest generation is in Grafana.
func (w *world) eventuallyAllSynced(n int) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		list := &v1alpha1.GrafanaSecureValueList{}
		g.Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
		synced := 0
		for _, sv := range list.Items {
			if describe(sv.Status.ObservedGeneration, sv.Status.Conditions) == describeWanted(sv.Generation, v1alpha1.ReasonSynced) {
				synced++
			}
		}
		g.Expect(synced).To(Equal(n))
		g.Expect(list.Items).To(HaveLen(n))
	}).WithTimeout(scaleTimeout).Should(Succeed())
}

// eventuallyWithoutValues waits until the namespace has no object any more.
func (w *world) eventuallyWithoutValues() {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		list := &v1alpha1.GrafanaSecureValueList{}
		g.Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
		g.Expect(list.Items).To(BeEmpty())
	}).Should(Succeed())
}

// writesTo returns how many writes of the name Grafana accepted, deletions included.
func (w *world) writesTo(name string) int {
	n := 0
	for _, c := range w.grafana.Calls() {
		if c.Name == name && c.Verb != grafanatest.VerbGet && c.Code < 300 {
			n++
		}
	}
	return n
}

var _ = Describe("Two clusters with one Grafana", long, Ordered, func() {
	const greenID = "green-cluster"
	var green *cluster

	BeforeAll(func(ctx SpecContext) { green = newCluster(ctx, greenID) })

	// taken has green take the value of an object from blue.
	taken := func(w *world, blue *v1alpha1.GrafanaSecureValue, value string) *v1alpha1.GrafanaSecureValue {
		GinkgoHelper()
		sv := anew(blue)
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		green.do(func() {
			w.secret("source", map[string]string{"key": value})
			w.create(sv)
			w.eventuallySynced(sv)
		})
		Expect(w.contents()).To(Equal([]string{sv.SecureValueName() + "=" + value}))
		return sv
	}

	It("move 100 values from blue to green with one PUT each, and the end of blue takes nothing", func(ctx SpecContext) {
		const objects = 100
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-blue"})
		var groups [][]spot
		var names []string
		for i := range objects {
			name := fmt.Sprintf("value-%d", i)
			names, groups = append(names, name), append(groups, []spot{w.spot(name)})
			w.create(w.value(name))
		}
		w.eventuallyAllSynced(objects)
		green.copyWorld(w, "")
		w.reset()
		end := noGapAt(groups...)

		green.do(func() {
			w.secret("source", map[string]string{"key": "canary-green"})
			for _, name := range names {
				w.create(w.adopting(name))
			}
			w.eventuallyAllSynced(objects)
		})
		w.settledIn(green)
		Expect(w.countOf(grafanatest.VerbUpdate)).To(Equal(objects))
		Expect(w.countOf(grafanatest.VerbGet)).To(Equal(objects))
		for _, name := range names {
			stored := w.stored(name)
			Expect(w.writesTo(name)).To(Equal(1), name)
			Expect(string(stored.Value)).To(Equal("canary-green"))
			Expect(stored.Version).To(Equal(int64(2)))
			Expect(stored.Labels).To(HaveKeyWithValue(labelCluster, greenID))
		}

		w.grafana.ResetCalls()
		Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValue{}, client.InNamespace(w.namespace))).To(Succeed())
		w.eventuallyWithoutValues()
		Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaConnection{}, client.InNamespace(w.namespace))).To(Succeed())
		w.settledIn(green)
		end()
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		Expect(w.countOf(grafanatest.VerbUpdate)).To(BeZero())
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(objects))

		green.do(func() {
			w.secret("source", map[string]string{"key": "canary-green-2"})
			for _, name := range names {
				w.eventuallyStored(name, "canary-green-2")
			}
		})
	})

	It("leave blue's object a NameConflict, which writes nothing until sync-now takes the value back", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		green.copyWorld(w, "")
		w.secret("source", map[string]string{"key": "canary-blue"})
		inBlue := w.adopting("api-key")
		w.create(inBlue)
		w.eventuallySynced(inBlue)
		w.noGap("api-key")
		inGreen := taken(w, inBlue, "canary-green")

		w.reset()
		w.secret("source", map[string]string{"key": "canary-blue-2"})
		w.eventually(inBlue, v1alpha1.ReasonNameConflict)
		w.secret("source", map[string]string{"key": "canary-blue-3"})
		w.settled()
		Expect(w.writesTo("api-key")).To(BeZero())
		Expect(w.contents()).To(Equal([]string{"api-key=canary-green"}))

		edit(w, inBlue, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventually(inBlue, v1alpha1.ReasonNameConflict)
		Expect(w.writesTo("api-key")).To(BeZero())
		w.syncNow(inBlue, "mine")
		w.eventuallyAnswered(inBlue, "mine")
		w.eventuallySynced(inBlue)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-blue-3"}))
		w.settledIn(green)
		Expect(w.writesTo("api-key")).To(Equal(1))

		green.do(func() {
			w.secret("source", map[string]string{"key": "canary-green-2"})
			w.eventually(inGreen, v1alpha1.ReasonNameConflict)
			Expect(w.contents()).To(Equal([]string{"api-key=canary-blue-3"}))
			w.syncNow(inGreen, "mine")
			w.eventuallyAnswered(inGreen, "mine")
			w.eventuallySynced(inGreen)
		})
		w.settledIn(green)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-green-2"}))
		Expect(w.writesTo("api-key")).To(Equal(2))

		w.delete(inBlue)
		w.eventuallyGone(inBlue)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-green-2"}))
	})

	It("leave blue's object without the value with Refuse, whatever is asked of it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		green.copyWorld(w, "")
		inBlue := w.synced("api-key", "canary-blue")
		w.noGap("api-key")
		taken(w, inBlue, "canary-green")
		w.reset()
		edit(w, inBlue, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventually(inBlue, v1alpha1.ReasonNameConflict)
		w.syncNow(inBlue, "mine")
		w.eventually(inBlue, v1alpha1.ReasonAlreadyExists)
		Expect(inBlue.Status.LastSyncNow).To(BeEmpty())
		Expect(w.writesTo("api-key")).To(BeZero())
	})

	It("let blue's object move away, and leave green the value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		green.copyWorld(w, "")
		inBlue := w.synced("api-key", "canary-blue")
		w.noGap("api-key")
		taken(w, inBlue, "canary-green")
		w.rename(inBlue, "elsewhere")
		w.eventuallySynced(inBlue)
		Expect(inBlue.Status.Targets).To(HaveLen(1))
		Expect(w.contents()).To(ConsistOf("api-key=canary-green", "elsewhere=canary-blue"))
	})

	It("do not take the value from each other for ever with the same YAML", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = "5s"
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		green.copyWorld(w, "5s")
		w.secret("source", map[string]string{"key": "canary-0"})
		green.do(func() { w.secret("source", map[string]string{"key": "canary-0"}) })
		w.reset()

		inBlue, inGreen := w.adopting("api-key"), w.adopting("api-key")
		w.create(inBlue)
		green.do(func() { w.create(inGreen) })
		w.eventuallyObserved(inBlue) // in sync, or the other has it by now
		green.do(func() { w.eventuallyObserved(inGreen) })
		const rotations = 5
		for i := range rotations {
			value := map[string]string{"key": fmt.Sprintf("canary-%d", i+1)}
			w.secret("source", value)
			green.do(func() { w.secret("source", value) })
			w.eventuallyStored("api-key", value["key"])
			w.settledIn(green)
		}
		Expect(w.writesTo("api-key")).To(BeNumerically("<=", 2+rotations))

		w.refresh(inBlue)
		green.do(func() { w.refresh(inGreen) })
		Expect([]string{statusReason(inBlue), statusReason(inGreen)}).To(ConsistOf(v1alpha1.ReasonSynced, v1alpha1.ReasonNameConflict))

		By("comparing, with the LISTs of both")
		w.grafana.ResetCalls()
		Eventually(w.lists).Should(BeNumerically(">=", 4))
		w.settledIn(green)
		Expect(w.writesTo("api-key")).To(BeZero())
	})

	It("go on where one is lost, and the other one is given its id", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		green.copyWorld(w, "")
		lost := w.syncedAs("api-key", "api-key", "canary-1")
		end := w.noGap("api-key")
		green.stop()
		DeferCleanup(func() {
			green.stop()
			green.startManager(greenID)
		})
		green.startManager(clusterID)
		w.removeByForce(lost)
		w.reset()
		again := anew(lost)
		green.do(func() {
			w.secret("api-key-source", map[string]string{"key": "canary-1"})
			w.create(again)
			w.eventuallySynced(again)
		})
		Expect(w.stored("api-key").Version).To(BeNumerically("<=", 2))
		Expect(w.countOf(grafanatest.VerbDelete)).To(BeZero())
		end()
		green.do(func() {
			w.delete(again)
			w.eventuallyGone(again)
		})
	})
})
