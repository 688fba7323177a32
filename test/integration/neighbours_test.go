package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// How many requests Grafana serves while a rotation waits, with a crowd of the neighbour's before it and with one object alone. The connection
// lets one object call at a time, so that the order in which they are served is the order of their turns.
var _ = Describe("A rotation on a shared connection", long, func() {
	const crowd = 200

	// What the objects of the neighbour wait with.
	type burden string
	const (
		firstWrites burden = "first writes"
		changes     burden = "changes"
		deletions   burden = "deletions"
	)

	// served returns how many requests Grafana serves until the rotation is done, its own included, where so many objects of a neighbour
	// wait already.
	served := func(ctx SpecContext, objects int, with burden) int {
		GinkgoHelper()
		platform, noisy, quiet := newWorld(ctx), newWorld(ctx), newWorld(ctx)
		var arrived atomic.Int32
		platform.url = platform.anotherAddress(func(*http.Request) { arrived.Add(1) })
		conn := platform.limited(func(spec *v1alpha1.ClusterGrafanaConnectionSpec) {
			spec.RateLimit = &v1alpha1.RateLimit{MaxInFlight: new(int32(1)), RequestsPerSecond: new(int32(0))}
			spec.RequestTimeout = "2m"
		})
		create := func(w *world, name string) {
			GinkgoHelper()
			sv := through(w.value(name), conn)
			sv.Spec.Name = w.namespace + "." + name
			w.create(sv)
		}
		crowdComes := func() {
			GinkgoHelper()
			for i := range objects {
				create(noisy, fmt.Sprintf("value-%d", i))
			}
		}
		for _, w := range []*world{noisy, quiet} {
			w.secret("source", map[string]string{"key": "canary-1"})
		}
		create(quiet, "api-key")
		quiet.eventuallyAllSynced(1)
		if with != firstWrites {
			crowdComes()
			noisy.eventuallyAllSynced(objects)
		}

		answer := platform.grafana.Inject(grafanatest.Fault{Hang: true})
		before := arrived.Load()
		switch with {
		case firstWrites:
			crowdComes()
		case changes:
			noisy.secret("source", map[string]string{"key": "canary-2"})
		case deletions:
			Expect(k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValue{}, client.InNamespace(noisy.namespace))).To(Succeed())
		}
		Eventually(arrived.Load).Should(BeNumerically(">", before)) // the first one calls
		eventuallyQueued(conn, BeEquivalentTo(objects-1))
		quiet.secret("source", map[string]string{"key": "canary-2"})
		eventuallyQueued(conn, BeEquivalentTo(objects))
		platform.grafana.ResetCalls()
		answer()
		last := "update " + quiet.namespace + ".api-key"
		Eventually(platform.calls).Should(ContainElement(last))
		return slices.Index(platform.calls(), last) + 1
	}

	DescribeTable("is not delayed by more than a factor of 2", func(ctx SpecContext, with burden) {
		alone, among := served(ctx, 1, with), served(ctx, crowd, with)
		AddReportEntry("requests", fmt.Sprintf("%d with one object before it, %d with %d", alone, among, crowd))
		Expect(among).To(BeNumerically("<=", 2*alone))
	},
		Entry("by a neighbour's many changes", changes),
		Entry("by a neighbour's many new objects", firstWrites),
		Entry("by a neighbour's many deletions", deletions),
	)
})

// However many they are: more than there are workers, of more than one tenant, and each for as long as it may.
var _ = Describe("Connections whose Grafana never answers", func() {
	It("do not keep another one from being checked", func(ctx SpecContext) {
		quick := newConnectedWorld(ctx)
		var asked atomic.Int32
		tarpit := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			<-r.Context().Done()
		}))
		DeferCleanup(func() {
			tarpit.CloseClientConnections()
			tarpit.Close()
		})
		for range 2 {
			tenant := newWorld(ctx)
			tenant.url = tarpit.URL
			for i := range 20 {
				conn := tenant.connection(fmt.Sprintf("hangs-%d", i))
				conn.Spec.RequestTimeout = "2m"
				tenant.create(conn)
			}
		}
		Eventually(asked.Load).Should(BeNumerically(">=", 9))

		By("one that was checked before")
		const token = "glsa_canary-another-token"
		quick.grafana.AddToken(token)
		Eventually(func() []grafanatest.Call { // again, in case that its own last answer was slow: it waits with them then, for a while
			quick.secret("grafana", map[string]string{"token": token, "touched": time.Now().String()})
			return quick.grafana.Calls()
		}).ShouldNot(BeEmpty())

		By("one that is new")
		newConnectedWorld(ctx).synced("api-key", "canary-1")
	})
})

// eventuallyQueued waits until as many objects are queued at the connection as the matcher accepts.
func eventuallyQueued(conn v1alpha1.Connection, objects types.GomegaMatcher) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		families, err := metrics.Registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		queued := map[string]float64{}
		for _, family := range families {
			if family.GetName() != "gsv_queued" {
				continue
			}
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					if label.GetName() == "connection" {
						queued[label.GetValue()] = metric.GetGauge().GetValue()
					}
				}
			}
		}
		g.Expect(queued).To(HaveKeyWithValue(conn.GetName(), objects))
	}).Should(Succeed())
}
