// Package metrics is what the operator tells Prometheus, in controller-runtime's registry. Counters and histograms are of this process;
// gauges are made when they are asked for, and only while a source is set: a standby, which works on nothing, has none.
package metrics

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Connection is the labels that name a connection. Namespace is empty for a ClusterGrafanaConnection.
type Connection struct{ Kind, Namespace, Name string }

func (c Connection) labels() prometheus.Labels {
	return prometheus.Labels{labelKind: c.Kind, labelNamespace: c.Namespace, labelConnection: c.Name}
}

const (
	labelKind       = "connection_kind"
	labelNamespace  = "connection_namespace"
	labelConnection = "connection"
)

func connectionLabels(more ...string) []string {
	return append([]string{labelKind, labelNamespace, labelConnection}, more...)
}

var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_grafana_requests_total",
		Help: "Requests to Grafana, by connection, operation (create, get, list, update, delete) and HTTP code: 0 is one without an answer, 3xx and the like stand for uncommon ones.",
	}, connectionLabels("operation", "code"))

	duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "gsv_grafana_request_duration_seconds",
		Help:    "Time from the begin of a request to Grafana to the end of its answer, by operation.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 14), // to 41 s: a request may take up to two minutes
	}, []string{"operation"})

	propagation = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "gsv_propagation_seconds",
		Help:    "Time from the moment a change of a Secret was seen to Grafana's answer to the write.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 18), // to 11 min
	})

	written = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_versions_written_total",
		Help: "Versions of secure values written to Grafana, by cause: created, rotated, edited, moved, adopted, drift, sync_now.",
	}, []string{"cause"})

	drift = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gsv_drift_total",
		Help: "Changes by somebody else found in Grafana, corrected or left alone, by kind: deleted, recreated, overwritten, edited.",
	}, []string{"kind"})

	fleet = &collector{
		values:  describe("gsv_secure_values", "GrafanaSecureValues, by connection and reason of Ready; reason is empty before the first look.", connectionLabels("reason")...),
		ready:   describe("gsv_connection_ready", "1 where the connection is Ready, else 0, as where it is being deleted and in use.", connectionLabels()...),
		breaker: describe("gsv_connection_breaker_open", "1 while calls to Grafana are held back because it fails or cannot be reached, else 0.", connectionLabels()...),
		parked:  describe("gsv_parked", "Objects that wait for their turn on the connection, or for its recovery.", connectionLabels()...),
		unowned: describe("gsv_unowned_values", "Secure values in Grafana with the mark of this cluster that no living object holds, as the last resync found.", connectionLabels()...),
		unseen:  describe("gsv_oldest_unseen_seconds", "Age of the oldest change of an object or its Secret of which nothing has come yet; 0 where there is none."),
	}
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func init() { //nolint:gochecknoinits // as the metrics of controller-runtime itself
	metrics.Registry.MustRegister(requests, duration, propagation, written, drift, fleet)
}

// Request counts one request to Grafana. Code is 0 where there was no answer.
func Request(c Connection, operation string, code int, took time.Duration) {
	labels := c.labels()
	labels["operation"], labels["code"] = operation, codeLabel(code)
	requests.With(labels).Inc()
	duration.WithLabelValues(operation).Observe(took.Seconds())
}

// codeLabel returns the code, or its class where the client tells it from no other: a server may answer with any.
func codeLabel(code int) string {
	switch code {
	case 0, 200, 201, 202, 204, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504:
		return strconv.Itoa(code)
	}
	return strconv.Itoa(code/100) + "xx"
}

// Forget drops what was counted for a connection that is gone.
func Forget(c Connection) { requests.DeletePartialMatch(c.labels()) }

// Propagated observes how long a change of a Secret took to reach Grafana.
func Propagated(took time.Duration) { propagation.Observe(took.Seconds()) }

// Written counts one version written to Grafana.
func Written(cause string) { written.WithLabelValues(cause).Inc() }

// Drift counts one change by somebody else.
func Drift(kind string) { drift.WithLabelValues(kind).Inc() }

// ValueState is by what the objects are counted.
type ValueState struct {
	Connection Connection
	Reason     string
}

// ConnectionState is what is told of one connection.
type ConnectionState struct {
	Connection  Connection
	Ready       bool
	BreakerOpen bool
	Parked      int
	Unowned     int
}

// Source tells the present state of the fleet. Its functions must be safe for use by several goroutines.
type Source struct {
	Values       func() map[ValueState]int
	Connections  func() []ConnectionState
	OldestUnseen func() time.Duration
}

// SetSource makes the gauges tell what the source tells, until Unset, or until another one is set, and again when that is unset.
func SetSource(s *Source) {
	fleet.mu.Lock()
	defer fleet.mu.Unlock()
	fleet.sources = append(fleet.sources, s)
}

// Unset ends what SetSource has begun for that source.
func Unset(s *Source) {
	fleet.mu.Lock()
	defer fleet.mu.Unlock()
	fleet.sources = slices.DeleteFunc(fleet.sources, func(other *Source) bool { return other == s })
}

// collector makes the gauges when they are asked for, so that none is left of what is gone.
type collector struct {
	mu      sync.Mutex
	sources []*Source // the last one is told

	values, ready, breaker, parked, unowned, unseen *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.values, c.ready, c.breaker, c.parked, c.unowned, c.unseen} {
		ch <- d
	}
}

// source returns what is told, nil if there is nothing.
func (c *collector) source() *Source {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sources) == 0 {
		return nil
	}
	return c.sources[len(c.sources)-1]
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	source := c.source()
	if source == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for state, n := range source.Values() {
		gauge(c.values, float64(n), state.Connection.Kind, state.Connection.Namespace, state.Connection.Name, state.Reason)
	}
	for _, s := range source.Connections() {
		id := []string{s.Connection.Kind, s.Connection.Namespace, s.Connection.Name}
		gauge(c.ready, asNumber(s.Ready), id...)
		gauge(c.breaker, asNumber(s.BreakerOpen), id...)
		gauge(c.parked, float64(s.Parked), id...)
		gauge(c.unowned, float64(s.Unowned), id...)
	}
	gauge(c.unseen, source.OldestUnseen().Seconds())
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
