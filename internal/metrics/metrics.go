// Package metrics has what the operator exports to Prometheus, in controller-runtime's registry. Counters and histograms are of this process;
// gauges are made when they are asked for, and only while a source is set: a standby, which works on nothing, has none.
package metrics

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// connectionLabels are the labels that name a connection, and more. The namespace of a ClusterGrafanaConnection is empty.
func connectionLabels(more ...string) []string {
	return append([]string{"connection_kind", "connection_namespace", "connection"}, more...)
}

// connectionValues are the values of connectionLabels.
func connectionValues(c ownership.Connection, more ...string) []string {
	return append([]string{string(c.Kind), c.Namespace, c.Name}, more...)
}

var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_grafana_requests_total",
		Help: "Requests to Grafana, by connection, operation (create, get, list, update, delete) and HTTP code. Code 0 is a request without an answer; 3xx and the like stand for uncommon codes.",
	}, connectionLabels("operation", "code"))

	duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "gsv_grafana_request_duration_seconds",
		Help:    "Time from the start of a request to Grafana to the end of its answer, by operation.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 14), // to 41 s: a request may take up to two minutes
	}, []string{"operation"})

	propagation = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "gsv_propagation_seconds",
		Help:    "Time from the event of a changed Secret to Grafana's answer to the write.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 18), // to 11 min
	})

	written = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_versions_written_total",
		Help: "Versions of secure values written to Grafana, by cause: created, rotated, edited, moved, adopted, drift, sync_now.",
	}, []string{"cause"})

	drift = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_drift_total",
		Help: "Changes by other writers found in Grafana, corrected or left alone, by kind: deleted, recreated, overwritten, edited.",
	}, []string{"kind"})

	fleet = &collector{
		values:   describe("gsv_secure_values", "GrafanaSecureValues, by connection and reason of Ready; reason is empty before the first reconcile.", connectionLabels("reason")...),
		overdue:  describe("gsv_overdue_values", "GrafanaSecureValues whose value is not fresh any more, by connection and reason of Fresh: Overdue, Expired.", connectionLabels("reason")...),
		ready:    describe("gsv_connection_ready", "1 while the connection is Ready, else 0. A connection that is being deleted is not.", connectionLabels()...),
		breaker:  describe("gsv_connection_breaker_open", "1 while calls to Grafana are held back because they fail, or because Grafana asked to wait; else 0.", connectionLabels()...),
		queued:   describe("gsv_queued", "Objects that wait for their turn on the connection, or for its recovery.", connectionLabels()...),
		orphaned: describe("gsv_orphaned_values", "Secure values in Grafana with an owner label of this cluster that no object owns, as the last resync found.", connectionLabels()...),
		pending:  describe("gsv_oldest_pending_seconds", "Age of the oldest change not yet reflected in Grafana or in status; 0 where there is none."),
	}
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func init() { // as the metrics of controller-runtime itself
	metrics.Registry.MustRegister(requests, duration, propagation, written, drift, fleet)
}

// Request counts one request to Grafana. Code is 0 where there was no answer.
func Request(c ownership.Connection, operation string, code int, took time.Duration) {
	requests.WithLabelValues(connectionValues(c, operation, codeLabel(code))...).Inc()
	duration.WithLabelValues(operation).Observe(took.Seconds())
}

// codeLabel returns the code, or its class where the client does not distinguish it: a server may answer with any.
func codeLabel(code int) string {
	switch code {
	case 0, 200, 201, 202, 204, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504:
		return strconv.Itoa(code)
	}
	return strconv.Itoa(code/100) + "xx"
}

// Forget drops what was counted for a connection that is gone.
func Forget(c ownership.Connection) {
	requests.DeletePartialMatch(prometheus.Labels{"connection_kind": string(c.Kind), "connection_namespace": c.Namespace, "connection": c.Name})
}

// Propagated observes how long a change of a Secret took to reach Grafana.
func Propagated(took time.Duration) { propagation.Observe(took.Seconds()) }

// Written counts one version written to Grafana.
func Written(cause string) { written.WithLabelValues(cause).Inc() }

// Drift counts one change by another writer.
func Drift(kind string) { drift.WithLabelValues(kind).Inc() }

// ValueState is by what the objects are counted.
type ValueState struct {
	Connection ownership.Connection
	Reason     string
}

// ConnectionState is what the metrics show of one connection.
type ConnectionState struct {
	Connection  ownership.Connection
	Ready       bool
	BreakerOpen bool
	Queued      int
	Orphaned    int
}

// Source reports the present state of all objects and connections. Its functions must be safe for use by several goroutines.
type Source struct {
	Values        func() (values, overdue map[ValueState]int) // by the reason of Ready, and of Fresh
	Connections   func() []ConnectionState
	OldestPending func() time.Duration

	before *Source // a process has more than one in tests alone
	unset  atomic.Bool
}

// SetSource makes the gauges describe what the source says, until Unset.
func SetSource(s *Source) { s.before = fleet.source.Swap(s) }

// Unset makes the gauges describe what they did before the source, if that is not unset.
func Unset(s *Source) { s.unset.Store(true) }

// collector makes the gauges when they are asked for, so that none is left of what is gone.
type collector struct {
	source atomic.Pointer[Source]

	values, overdue, ready, breaker, queued, orphaned, pending *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.values, c.overdue, c.ready, c.breaker, c.queued, c.orphaned, c.pending} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	source := c.source.Load()
	for source != nil && source.unset.Load() {
		source = source.before
	}
	if source == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	asNumber := map[bool]float64{true: 1}
	values, overdue := source.Values()
	for state, n := range values {
		gauge(c.values, float64(n), connectionValues(state.Connection, state.Reason)...)
	}
	for state, n := range overdue {
		gauge(c.overdue, float64(n), connectionValues(state.Connection, state.Reason)...)
	}
	for _, s := range source.Connections() {
		id := connectionValues(s.Connection)
		gauge(c.ready, asNumber[s.Ready], id...)
		gauge(c.breaker, asNumber[s.BreakerOpen], id...)
		gauge(c.queued, float64(s.Queued), id...)
		gauge(c.orphaned, float64(s.Orphaned), id...)
	}
	gauge(c.pending, source.OldestPending().Seconds())
}
