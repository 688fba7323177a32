package integration

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// The metrics, compared with what has happened: with the calls that the fake Grafana has recorded, and with the objects.
var _ = Describe("The metrics", long, Ordered, ContinueOnFailure, func() {
	BeforeAll(func() { metricsURL = serveMetrics() })

	// versions is what a step adds to gsv_versions_written_total, by cause.
	type versions = map[string]float64

	DescribeTable("count each version written once, by its cause",
		func(ctx SpecContext, act func(*world, *v1alpha1.GrafanaSecureValue), want versions) {
			w := newConnectedWorld(ctx)
			sv := w.synced("api-key", "canary-1")
			w.settled()
			before := scrape(ctx)
			w.grafana.ResetCalls()
			act(w, sv)
			w.settled()
			after := scrape(ctx)
			Expect(after.since(before).by("gsv_versions_written_total", "cause")).To(Equal(want))
			var counted, written float64
			for _, n := range want {
				counted += n
			}
			for _, c := range w.grafana.Calls() {
				if (c.Verb == grafanatest.VerbCreate || c.Verb == grafanatest.VerbUpdate) && c.Code < http.StatusBadRequest {
					written++
				}
			}
			Expect(written).To(Equal(counted), "what Grafana has accepted")
		},
		Entry("created", func(w *world, _ *v1alpha1.GrafanaSecureValue) { w.syncedFrom("another", "canary-2") }, versions{"created": 1}),
		Entry("rotated", rotate, versions{"rotated": 1}),
		Entry("another deletionPolicy, which is a label", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.eventuallySynced(sv)
		}, versions{"edited": 1}),
		Entry("edited", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = []string{"k6-cloud"} })
			w.eventuallySynced(sv)
		}, versions{"edited": 1}),
		Entry("moved", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.rename(sv, "new-name")
			w.eventuallySynced(sv)
		}, versions{"moved": 1}),
		Entry("adopted", func(w *world, _ *v1alpha1.GrafanaSecureValue) {
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
			adopter := w.valueWithSecret("theirs", "canary-2")
			adopter.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
			w.create(adopter)
			w.eventuallySynced(adopter)
		}, versions{"adopted": 1}),
		Entry("drift", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.grafana.Remove(grafanaNS, "api-key")
			w.list(sv)
			w.eventuallyStored("api-key", "canary-1")
			w.eventuallySynced(sv)
		}, versions{"drift": 1}),
		Entry("sync_now", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.syncNow(sv, "token")
			w.eventuallyAnswered(sv, "token")
		}, versions{"sync_now": 1}),
		Entry("a rotation that waited while the object was suspended", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			suspend(w, sv)
			w.eventuallySuspended(sv, metav1.ConditionTrue)
			w.secret("source", map[string]string{"key": "canary-2"})
			resume(w, sv)
			w.eventuallySynced(sv)
		}, versions{"rotated": 1}),
		Entry("nothing by an edit of another key", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.secret("source", map[string]string{"key": "canary-1", "other": "canary-2"})
			w.eventuallySourceIs(sv, "source")
		}, versions{}),
		Entry("nothing by a resync", func(w *world, sv *v1alpha1.GrafanaSecureValue) { w.list(sv) }, versions{}),
		Entry("nothing by a deletion", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.delete(sv)
			w.eventuallyGone(sv)
		}, versions{}),
		Entry("nothing by a refusal", func(w *world, _ *v1alpha1.GrafanaSecureValue) {
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
			refused := w.valueWithSecret("theirs", "canary-2")
			w.create(refused)
			w.eventually(refused, v1alpha1.ReasonAlreadyExists)
		}, versions{}),
	)

	It("count each request to Grafana, by connection, operation and code, and how long it took by operation", func(ctx SpecContext) {
		before := scrape(ctx)
		w := newWorld(ctx) // its record begins before its connection is made
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		sv := w.synced("api-key", "canary-1")
		rotate(w, sv)
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Cut: true, Times: 1}) // net/http repeats a GET by itself
		w.secret("source", map[string]string{"key": "canary-3"})
		w.eventuallyStored("api-key", "canary-3")
		w.eventuallySynced(sv)
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Code: http.StatusServiceUnavailable, Times: 1})
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
		refused := w.valueWithSecret("theirs", "canary-2")
		w.create(refused)
		w.eventually(refused, v1alpha1.ReasonAlreadyExists)
		w.rename(sv, "new-name")
		w.eventuallySynced(sv)
		w.delete(sv)
		w.eventuallyGone(sv)
		w.settled()

		want, took := map[string]float64{}, map[string]float64{}
		for _, c := range w.grafana.Calls() {
			want[fmt.Sprintf("%s %d", c.Verb, c.Code)]++
			took[string(c.Verb)]++
		}
		Expect(want).To(And(HaveKey("update 0"), HaveKey("update 503"), HaveKey("create 409"), HaveKey("get 404"), HaveKey("list 200")))
		after := scrape(ctx)
		Expect(after.of(w, connectionRef).by("gsv_grafana_requests_total", "operation", "code")).To(Equal(want))
		Expect(after.since(before).by("gsv_grafana_request_duration_seconds_count", "operation")).To(Equal(took))

		By("deleting the connection, whose series end")
		w.delete(refused)
		w.eventuallyGone(refused)
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.eventuallyNone(conn)
		Eventually(func() series { return scrape(ctx).of(w, connectionRef) }).Should(BeEmpty())
	})

	It("count no object that is released, though a finalizer of somebody else keeps it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		counted := func() map[string]float64 { return scrape(ctx).of(w, connectionRef).by("gsv_secure_values", "reason") }
		sv := w.synced("a", "canary-1")
		Eventually(counted).Should(Equal(map[string]float64{"Synced": 1}))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Finalizers = append(sv.Finalizers, "example.com/theirs") })
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonReleased)
		Eventually(counted).Should(BeEmpty())
		letGo(w, sv, "example.com/theirs")
	})

	It("count the objects by connection and reason", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.synced("a", "canary-1")
		w.syncedFrom("b", "canary-1")
		paused := w.syncedFrom("c", "canary-1")
		suspend(w, paused)
		w.eventuallySuspended(paused, metav1.ConditionTrue)
		missing := w.value("d")
		missing.Spec.ValueFrom.SecretKeyRef.Name = "missing"
		w.create(missing)
		w.eventually(missing, v1alpha1.ReasonSecretNotFound)
		lost := w.value("e")
		lost.Spec.ConnectionRef.Name = "none"
		w.create(lost)
		w.eventually(lost, v1alpha1.ReasonConnectionNotFound)

		want := map[string]float64{"Synced": 2, "Suspended": 1, "SecretNotFound": 1}
		Eventually(func() map[string]float64 { return scrape(ctx).of(w, connectionRef).by("gsv_secure_values", "reason") }).Should(Equal(want))
		Eventually(func() map[string]float64 { return scrape(ctx).of(w, "none").by("gsv_secure_values", "reason") }).
			Should(Equal(map[string]float64{"ConnectionNotFound": 1}))

		By("creating and deleting")
		w.secret("missing", map[string]string{"key": "canary-2"})
		w.eventuallySynced(missing)
		w.delete(paused)
		w.eventuallyGone(paused)
		Eventually(func() map[string]float64 { return scrape(ctx).of(w, connectionRef).by("gsv_secure_values", "reason") }).
			Should(Equal(map[string]float64{"Synced": 3}))
	})

	It("say of a connection whether it is ready, what is held back, and who waits", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		says := func(ready, open, queued float64) {
			GinkgoHelper()
			Eventually(func() []float64 {
				now := scrape(ctx).of(w, connectionRef)
				return []float64{now.only("gsv_connection_ready"), now.only("gsv_connection_breaker_open"), now.only("gsv_queued")}
			}).Should(Equal([]float64{ready, open, queued}), "ready, breaker open, queued")
		}
		says(1, 0, 0)

		By("failing all calls")
		w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable})
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		says(0, 1, 1)
		w.grafana.ClearFaults()
		w.eventuallySynced(sv)
		says(1, 0, 0)

		By("revoking the token")
		w.grafana.RevokeToken(goodToken)
		w.secret("source", map[string]string{"key": "canary-3"})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		w.eventually(sv, v1alpha1.ReasonConnectionNotReady)
		says(0, 0, 1)
		w.grafana.AddToken(goodToken + "-2")
		w.secret("grafana", map[string]string{"token": goodToken + "-2"})
		w.eventuallySynced(sv)
		says(1, 0, 0)

		By("taking the token away")
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		says(0, 0, 0)
		w.secret("grafana", map[string]string{"token": goodToken + "-2"})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		says(1, 0, 0)

		By("deleting it while it is in use, and making it anew")
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		says(0, 0, 0)
		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		says(1, 0, 0)
	})

	It("count the values of this cluster that no object owns", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.grafana.Put(grafanaNS, labelled("left", clusterID, w.namespace, "gone"))
		w.grafana.Put(grafanaNS, labelled("theirs", "another-cluster", w.namespace, "x"))
		w.list(sv)
		Expect(scrape(ctx).of(w, connectionRef).only("gsv_orphaned_values")).To(Equal(1.0))
		w.grafana.Remove(grafanaNS, "left")
		w.list(sv)
		Expect(scrape(ctx).of(w, connectionRef).only("gsv_orphaned_values")).To(Equal(0.0))
	})

	It("count drift that is left alone, once", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport
		w.create(sv)
		w.eventuallySynced(sv)
		w.list(sv)
		before := scrape(ctx)
		w.grafana.Remove(grafanaNS, "api-key")
		w.list(sv)
		w.eventually(sv, v1alpha1.ReasonDrifted)
		w.list(sv)
		Expect(scrape(ctx).since(before).by("gsv_drift_total", "kind")).To(Equal(map[string]float64{"deleted": 1}))
	})

	DescribeTable("count drift once, by its kind",
		func(ctx SpecContext, drift func(*world), kind string, options ...grafanatest.Option) {
			w := newConnectedWorld(ctx, options...)
			sv := w.synced("api-key", "canary-1")
			w.list(sv)
			before := scrape(ctx)
			drift(w)
			w.list(sv)
			w.list(sv)
			Expect(scrape(ctx).since(before).by("gsv_drift_total", "kind")).To(Equal(map[string]float64{kind: 1}))
		},
		Entry("deleted", func(w *world) { w.grafana.Remove(grafanaNS, "api-key") }, "deleted"),
		Entry("recreated", func(w *world) {
			stored := w.stored("api-key")
			w.grafana.Remove(grafanaNS, "api-key")
			Eventually(time.Now).Should(BeTemporally(">=", stored.CreatedAt.Add(time.Second)))
			w.grafana.Put(grafanaNS, stored)
		}, "recreated"),
		Entry("overwritten", func(w *world) {
			stored := w.stored("api-key")
			stored.Value = []byte("their value")
			w.grafana.Put(grafanaNS, stored)
		}, "overwritten"),
		Entry("edited", func(w *world) {
			stored := w.stored("api-key")
			stored.Description = "theirs"
			w.grafana.Put(grafanaNS, stored)
		}, "edited", grafanatest.WithoutStatus()), // without a version that would show it
	)

	It("observe how long each change of a Secret takes to Grafana, and nothing else", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.settled()
		before := scrape(ctx)
		observed := func() float64 { return scrape(ctx).since(before).only("gsv_propagation_seconds_count") }
		rotate(w, sv)
		w.settled()
		Expect(observed()).To(Equal(1.0))

		By("doing what is no change of the value")
		w.secret("source", map[string]string{"key": "canary-2", "other": "canary-3"})
		w.eventuallySourceIs(sv, "source")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
		w.eventuallySynced(sv)
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.list(sv)
		Expect(observed()).To(Equal(1.0))

		By("creating the Secret after the object")
		late := w.value("late")
		late.Spec.ValueFrom.SecretKeyRef.Name = "late"
		w.create(late)
		w.eventually(late, v1alpha1.ReasonSecretNotFound)
		w.secret("late", map[string]string{"key": "canary-4"})
		w.eventuallySynced(late)
		w.settled()
		Expect(observed()).To(Equal(2.0))
		taken := scrape(ctx).since(before).only("gsv_propagation_seconds_sum")
		Expect(taken).To(And(BeNumerically(">", 0), BeNumerically("<", 120)))
	})

	It("have the age of the oldest change not yet reflected, and 0 once all are", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		oldest := func() float64 { return scrape(ctx).only("gsv_oldest_pending_seconds") }
		Eventually(oldest).Should(BeZero())
		answer := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Hang: true})
		w.secret("source", map[string]string{"key": "canary-2"})
		Eventually(oldest).Should(BeNumerically(">", 1))
		answer()
		w.eventuallySynced(sv)
		Eventually(oldest).Should(BeZero())
	})

	It("have no pending change after a restart, and count nothing for it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		dead := w.connection("dead")
		dead.Spec.URL = "http://127.0.0.1:1"
		w.create(dead)
		waiting := w.valueFrom("waiting", "waiting-source", "canary-2")
		waiting.Spec.ConnectionRef.Name = "dead"
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonGrafanaUnavailable)
		w.settled()
		before := scrape(ctx)
		stopManager()
		metricsURL = serveMetrics()
		w.list(sv)
		Eventually(func() float64 { return scrape(ctx).only("gsv_oldest_pending_seconds") }).Should(BeZero())
		since := scrape(ctx).since(before)
		for _, name := range []string{"gsv_versions_written_total", "gsv_drift_total", "gsv_propagation_seconds_count"} {
			Expect(since.by(name)).To(BeEmpty(), name)
		}
	})
})

// rotate gives the Secret of the world another value, and waits until that is in Grafana.
func rotate(w *world, sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	w.secret("source", map[string]string{"key": "canary-2"})
	w.eventuallyStored(sv.SecureValueName(), "canary-2")
	w.eventuallySourceIs(sv, sv.Spec.ValueFrom.SecretKeyRef.Name)
	w.eventuallySynced(sv)
}

// metricsURL is where the manager of serveMetrics exports its metrics.
var metricsURL string

// serveMetrics runs the suite's manager with metrics until the spec ends, or all specs of its container. It returns their address once
// something is there.
func serveMetrics() string {
	GinkgoHelper()
	address := freeAddress()
	withOptions(func(o *operator.Options) { o.MetricsBindAddress, o.MetricsSecure = address, false })
	url := "http://" + address + "/metrics"
	Eventually(func() (string, error) { return get(context.Background(), url) }).Should(ContainSubstring("gsv_oldest_pending_seconds")) //nolint:forbidigo // there may be no spec
	return url
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// series is the samples of a scrape.
type series []sample

type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// scrape reads our metrics.
func scrape(ctx context.Context) series {
	GinkgoHelper()
	text, err := get(ctx, metricsURL)
	Expect(err).NotTo(HaveOccurred())
	Expect(text).NotTo(ContainSubstring("canary"), "a secret in the metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	Expect(err).NotTo(HaveOccurred())
	var all series
	for name, family := range families {
		if !strings.HasPrefix(name, "gsv_") {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, pair := range m.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				all = append(all, sample{name, labels, m.GetCounter().GetValue()})
			case dto.MetricType_GAUGE:
				all = append(all, sample{name, labels, m.GetGauge().GetValue()})
			case dto.MetricType_HISTOGRAM:
				all = append(all, sample{name + "_count", labels, float64(m.GetHistogram().GetSampleCount())},
					sample{name + "_sum", labels, m.GetHistogram().GetSampleSum()})
			default:
				Fail("the kind of " + name + " is not expected: " + family.GetType().String())
			}
		}
	}
	return all
}

// of returns the samples of a connection of the world's namespace.
func (s series) of(w *world, connection string) series {
	return slices.DeleteFunc(slices.Clone(s), func(s sample) bool {
		return s.labels["connection_kind"] != string(v1alpha1.KindGrafanaConnection) ||
			s.labels["connection_namespace"] != w.namespace || s.labels["connection"] != connection
	})
}

// since returns by how much each sample differs from an earlier one, without those that do not.
func (s series) since(before series) series {
	var changed series
	for _, now := range s {
		for _, then := range before {
			if now.name == then.name && maps.Equal(now.labels, then.labels) {
				now.value -= then.value
			}
		}
		if now.value != 0 {
			changed = append(changed, now)
		}
	}
	return changed
}

// by returns the values of one metric, by the content of the labels.
func (s series) by(name string, labels ...string) map[string]float64 {
	values := map[string]float64{}
	for _, sample := range s {
		if sample.name != name {
			continue
		}
		var key []string
		for _, label := range labels {
			key = append(key, sample.labels[label])
		}
		values[strings.Join(key, " ")] += sample.value
	}
	return values
}

// only returns the value of the one sample of a metric.
func (s series) only(name string) float64 {
	GinkgoHelper()
	var values []float64
	for _, sample := range s {
		if sample.name == name {
			values = append(values, sample.value)
		}
	}
	Expect(values).To(HaveLen(1), name)
	return values[0]
}
