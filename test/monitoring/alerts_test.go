// Package monitoring tests the alerts in Prometheus's own engine, and compares them with their runbooks.
package monitoring

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/promtool"
)

const (
	prod   = `connection_kind="GrafanaConnection",connection_namespace="team-a",connection="prod"`
	shared = `connection_kind="ClusterGrafanaConnection",connection_namespace="",connection="default"`
)

// inProd are the labels of an alert about that connection, without those of the rule.
func inProd(more ...string) map[string]string {
	labels := map[string]string{"connection_kind": "GrafanaConnection", "connection_namespace": "team-a", "connection": "prod"}
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return labels
}

// cases: what is scraped, once a minute, and what of the alert is true once it has been so for its time and a minute.
var cases = []struct {
	alert  string
	is     string
	series map[string]string
	fires  []firing // none: quiet, for two hours
}{
	{
		alert: "GrafanaSecureValueOperatorAbsent", is: "where nothing is scraped",
		series: map[string]string{`up{job="another"}`: "1x180"},
		fires:  []firing{{map[string]string{}, ""}},
	},
	{
		alert: "GrafanaSecureValueOperatorAbsent", is: "where managers run and none leads",
		series: map[string]string{`gsv_propagation_seconds_count{pod="a"}`: "5x180"},
		fires:  []firing{{map[string]string{}, ""}},
	},
	{
		alert: "GrafanaSecureValueOperatorAbsent", is: "of a cluster whose manager is gone",
		series: map[string]string{
			`gsv_propagation_seconds_count{cluster="east"}`: "5 stale", `gsv_oldest_pending_seconds{cluster="east"}`: "0 stale",
			`gsv_propagation_seconds_count{cluster="west"}`: "5x180", `gsv_oldest_pending_seconds{cluster="west"}`: "0x180",
		},
		fires: []firing{{map[string]string{"cluster": "east"}, ""}},
	},
	{
		alert: "GrafanaSecureValueOperatorAbsent", is: "not where one leads",
		series: map[string]string{`gsv_oldest_pending_seconds{pod="a"}`: "0x180"},
	},
	{
		alert: "GrafanaSecureValueOperatorAbsent", is: "not while another takes over within minutes",
		series: map[string]string{`gsv_oldest_pending_seconds{pod="a"}`: "0x60 stale", `gsv_oldest_pending_seconds{pod="b"}`: "_x65 0x120"},
	},
	{
		alert: "GrafanaSecureValuePendingTooLong", is: "where the oldest change grows old",
		series: map[string]string{`gsv_oldest_pending_seconds{pod="a"}`: "720x180"},
		fires:  []firing{{map[string]string{}, "12m 0s"}},
	},
	{
		alert: "GrafanaSecureValuePendingTooLong", is: "not where changes are reflected",
		series: map[string]string{`gsv_oldest_pending_seconds{pod="a"}`: "0 30 300 0 0 599 0x180"},
	},
	{
		alert: "GrafanaSecureValueReconcileStuck", is: "by controller, where one runs for longer than it may",
		series: map[string]string{
			`workqueue_longest_running_processor_seconds{controller="grafanasecurevalue",name="grafanasecurevalue",pod="a"}`: "900x180",
			`workqueue_longest_running_processor_seconds{controller="grafanaconnection",name="grafanaconnection",pod="a"}`:   "0x180",
		},
		fires: []firing{{map[string]string{"controller": "grafanasecurevalue"}, "15m 0s"}},
	},
	{
		alert: "GrafanaSecureValueReconcileStuck", is: "not where it ends, nor of another operator",
		series: map[string]string{
			`workqueue_longest_running_processor_seconds{controller="grafanasecurevalue",name="grafanasecurevalue"}`: "600x60 0x120",
			`workqueue_longest_running_processor_seconds{controller="certificates",name="certificates"}`:             "7200x180",
		},
	},
	{
		alert: "GrafanaSecureValueRotationsLate", is: "where two of ten take two minutes",
		series: map[string]string{
			`gsv_propagation_seconds_bucket{le="1.28"}`: "0+8x180", `gsv_propagation_seconds_bucket{le="81.92"}`: "0+8x180",
			`gsv_propagation_seconds_bucket{le="163.84"}`: "0+10x180", `gsv_propagation_seconds_bucket{le="+Inf"}`: "0+10x180",
		},
		fires: []firing{{map[string]string{}, "2m 2s"}},
	},
	{
		alert: "GrafanaSecureValueRotationsLate", is: "not where one of a hundred does",
		series: map[string]string{
			`gsv_propagation_seconds_bucket{le="1.28"}`:   "0+99x180",
			`gsv_propagation_seconds_bucket{le="163.84"}`: "0+100x180", `gsv_propagation_seconds_bucket{le="+Inf"}`: "0+100x180",
		},
	},
	{
		alert: "GrafanaSecureValueRotationsLate", is: "not where nothing rotates",
		series: map[string]string{`gsv_propagation_seconds_bucket{le="1.28"}`: "3x180", `gsv_propagation_seconds_bucket{le="+Inf"}`: "7x180"},
	},
	{
		alert: "GrafanaConnectionNotReady", is: "where a person must fix it, of that connection alone",
		series: map[string]string{
			"gsv_connection_ready{" + prod + "}": "0x180", "gsv_connection_breaker_open{" + prod + "}": "0x180",
			"gsv_connection_ready{" + shared + "}": "1x180", "gsv_connection_breaker_open{" + shared + "}": "0x180",
		},
		fires: []firing{{inProd(), ""}},
	},
	{
		alert: "GrafanaConnectionNotReady", is: "of a connection without a namespace",
		series: map[string]string{"gsv_connection_ready{" + shared + "}": "0x180", "gsv_connection_breaker_open{" + shared + "}": "0x180"},
		fires:  []firing{{map[string]string{"connection_kind": "ClusterGrafanaConnection", "connection": "default"}, ""}},
	},
	{
		alert: "GrafanaConnectionNotReady", is: "not where Grafana is unreachable",
		series: map[string]string{"gsv_connection_ready{" + prod + "}": "0x180", "gsv_connection_breaker_open{" + prod + "}": "1x180"},
	},
	{
		alert: "GrafanaConnectionBreakerOpen", is: "where Grafana is unreachable",
		series: map[string]string{"gsv_connection_breaker_open{" + prod + "}": "1x180", "gsv_connection_breaker_open{" + shared + "}": "0x180"},
		fires:  []firing{{inProd(), ""}},
	},
	{
		alert: "GrafanaConnectionBreakerOpen", is: "not where it comes back within minutes",
		series: map[string]string{"gsv_connection_breaker_open{" + prod + "}": "0x10 1x12 0x10 1x12 0x120"},
	},
	{
		alert: "GrafanaSecureValueStalled", is: "by reason, and not of those in sync",
		series: map[string]string{
			"gsv_secure_values{" + prod + `,reason="Synced"}`:       "7x180",
			"gsv_secure_values{" + prod + `,reason="NameConflict"}`: "2x180",
			"gsv_secure_values{" + prod + `,reason="Drifted"}`:      "1x180",
		},
		fires: []firing{
			{inProd("reason", "Drifted"), "1"},
			{inProd("reason", "NameConflict"), "2"},
		},
	},
	{
		alert: "GrafanaSecureValueStalled", is: "not where nobody has to decide",
		series: map[string]string{
			"gsv_secure_values{" + prod + `,reason="Synced"}`:             "7x180",
			"gsv_secure_values{" + prod + `,reason="Suspended"}`:          "2x180",
			"gsv_secure_values{" + prod + `,reason="GrafanaUnavailable"}`: "2x180",
			"gsv_secure_values{" + prod + `,reason="SecretNotFound"}`:     "2x180",
		},
	},
	{
		alert: "GrafanaSecureValueWaiting", is: "by reason",
		series: map[string]string{"gsv_secure_values{" + prod + `,reason="SecretNotFound"}`: "2x180", "gsv_connection_ready{" + prod + "}": "1x180"},
		fires:  []firing{{inProd("reason", "SecretNotFound"), "2"}},
	},
	{
		alert: "GrafanaSecureValueWaiting", is: "where there is no such connection",
		series: map[string]string{"gsv_secure_values{" + prod + `,reason="ConnectionNotFound"}`: "1x180"},
		fires:  []firing{{inProd("reason", "ConnectionNotFound"), "1"}},
	},
	{
		alert: "GrafanaSecureValueWaiting", is: "not where the connection says it",
		series: map[string]string{"gsv_secure_values{" + prod + `,reason="ConnectionNotReady"}`: "9x180", "gsv_connection_ready{" + prod + "}": "0x180"},
	},
	{
		alert: "GrafanaSecureValueOverdue", is: "by reason",
		series: map[string]string{
			"gsv_overdue_values{" + prod + `,reason="Overdue"}`: "2x180", "gsv_overdue_values{" + prod + `,reason="Expired"}`: "1x180",
		},
		fires: []firing{{inProd("reason", "Overdue"), "2"}, {inProd("reason", "Expired"), "1"}},
	},
	{
		alert: "GrafanaSecureValueOverdue", is: "not where they are rotated within minutes",
		series: map[string]string{"gsv_overdue_values{" + prod + `,reason="Overdue"}`: "2x10 stale"},
	},
	{
		alert: "GrafanaSecureValueDeletionBlocked", is: "where objects cannot go",
		series: map[string]string{"gsv_secure_values{" + prod + `,reason="DeletionBlocked"}`: "3x180"},
		fires:  []firing{{inProd(), "3"}},
	},
	{
		alert: "GrafanaSecureValueDeletionBlocked", is: "not where they go",
		series: map[string]string{"gsv_secure_values{" + prod + `,reason="DeletionBlocked"}`: "3x10 stale", "gsv_secure_values{" + prod + `,reason="Synced"}`: "3x180"},
	},
	{
		alert: "GrafanaOrphanedValues", is: "where values are orphaned",
		series: map[string]string{"gsv_orphaned_values{" + prod + "}": "2x180", "gsv_orphaned_values{" + shared + "}": "0x180"},
		fires:  []firing{{inProd(), "2"}},
	},
	{
		alert: "GrafanaOrphanedValues", is: "not where they go within the hour",
		series: map[string]string{"gsv_orphaned_values{" + prod + "}": "2x50 0x130"},
	},
}

// firing is the labels of an alert that fires, without those of the rule, and its value as the description shows it.
type firing struct {
	labels map[string]string
	value  string
}

func TestAlerts(t *testing.T) {
	rules, _ := alerts(t)
	fired, quiet := map[string]bool{}, map[string]bool{}
	var groups []promtool.Group
	for _, c := range cases {
		rule, known := rules[c.alert]
		if !known {
			t.Fatalf("there is no alert %s", c.alert)
		}
		group := promtool.Group{Name: c.alert + " " + c.is, Interval: "1m", Series: seriesOf(c.series, "")}
		if len(c.fires) == 0 {
			quiet[c.alert] = true
			for at := 0; at <= 120; at += 5 {
				group.AlertTests = append(group.AlertTests, promtool.AlertTest{EvalTime: fmt.Sprintf("%dm", at), Name: c.alert})
			}
		} else {
			fired[c.alert] = true
			group.AlertTests = firesIn(t, rule, c.fires, "")
		}
		groups = append(groups, group)
	}
	for alert := range rules {
		if !fired[alert] || !quiet[alert] {
			t.Errorf("no case has %s fire, or none has it quiet", alert)
		}
	}
	if err := promtool.Run(t.Context(), t.TempDir(), groups); err != nil {
		t.Error(err)
	}
}

// TestAlertsAreOfOneCluster: where clusters report to one Prometheus, each alert that fires in one of them fires for that one, whatever is
// true in others.
func TestAlertsAreOfOneCluster(t *testing.T) {
	rules, _ := alerts(t)
	tested := map[string]bool{}
	var groups []promtool.Group
	for _, c := range cases {
		named := strings.Contains(fmt.Sprint(c.series), "cluster=") || strings.Contains(c.is, "nothing is scraped")
		if len(c.fires) == 0 || named {
			continue
		}
		tested[c.alert] = true
		group := promtool.Group{Name: c.alert + " " + c.is + ", in one of several clusters", Interval: "1m", Series: seriesOf(c.series, "east")}
		for i, other := range cases {
			if other.alert == c.alert && len(other.fires) == 0 {
				group.Series = append(group.Series, seriesOf(other.series, fmt.Sprintf("west-%d", i))...)
			}
		}
		group.AlertTests = firesIn(t, rules[c.alert], c.fires, "east")
		groups = append(groups, group)
	}
	if len(tested) != len(rules) {
		t.Errorf("%d of %d alerts were tested", len(tested), len(rules))
	}
	if err := promtool.Run(t.Context(), t.TempDir(), groups); err != nil {
		t.Error(err)
	}
}

// seriesOf returns the series in order, with the label cluster unless that is empty.
func seriesOf(values map[string]string, cluster string) []promtool.Series {
	var all []promtool.Series
	for _, series := range slices.Sorted(maps.Keys(values)) {
		name := series
		if cluster != "" {
			name = strings.Replace(series, "{", fmt.Sprintf("{cluster=%q,", cluster), 1)
		}
		all = append(all, promtool.Series{Series: name, Values: values[series]})
	}
	return all
}

// firesIn expects the alert to be quiet until its time has come, and then to fire in the cluster, unless that is empty.
func firesIn(t *testing.T, rule promtool.Rule, fires []firing, cluster string) []promtool.AlertTest {
	t.Helper()
	wait, err := model.ParseDuration(rule.For)
	if err != nil {
		t.Fatal(err)
	}
	before := promtool.AlertTest{EvalTime: (time.Duration(wait) - time.Minute).String(), Name: rule.Alert}
	then := promtool.AlertTest{EvalTime: (time.Duration(wait) + 2*time.Minute).String(), Name: rule.Alert}
	for _, f := range fires {
		labels := maps.Clone(rule.Labels)
		maps.Copy(labels, f.labels)
		if cluster != "" {
			labels["cluster"] = cluster
		}
		annotations := maps.Clone(rule.Annotations)
		annotations["description"] = described(rule, f)
		then.Expected = append(then.Expected, promtool.Firing{Labels: labels, Annotations: annotations})
	}
	return []promtool.AlertTest{before, then}
}

var value = regexp.MustCompile(`\{\{ \$value[^}]*\}\}`)

// described returns the description of the alert as people are to read it.
func described(rule promtool.Rule, f firing) string {
	namespace := f.labels["connection_namespace"]
	if namespace != "" {
		namespace += "/"
	}
	text := strings.ReplaceAll(rule.Annotations["description"], "{{ with $labels.connection_namespace }}{{ . }}/{{ end }}", namespace)
	for label, content := range f.labels {
		text = strings.ReplaceAll(text, "{{ $labels."+label+" }}", content)
	}
	return value.ReplaceAllLiteralString(text, f.value)
}

// TestEveryReasonHasAnAlert: an object that is not in sync has an alert, its own or that of its connection.
func TestEveryReasonHasAnAlert(t *testing.T) {
	rules, _ := alerts(t)
	alerted := map[string]string{
		v1alpha1.ReasonSynced: "none", v1alpha1.ReasonSuspended: "none", // as wanted
		v1alpha1.ReasonReleased: "none", // it does not count
	}
	for name, rule := range rules {
		for _, reasons := range regexp.MustCompile(`gsv_secure_values\{reason=~?"([^"]+)"`).FindAllStringSubmatch(rule.Expr, -1) {
			for reason := range strings.SplitSeq(reasons[1], "|") {
				if other, twice := alerted[reason]; twice {
					t.Errorf("%s and %s both fire for %s", name, other, reason)
				}
				alerted[reason] = name
			}
		}
	}
	reasons := reasonsOfObjects(t)
	for _, reason := range reasons {
		if alerted[reason] == "" {
			t.Errorf("no alert fires for objects with the reason %s", reason)
		}
	}
	if len(alerted) != len(reasons) {
		t.Errorf("alerts fire for %v, reasons are %v", slices.Sorted(maps.Keys(alerted)), reasons)
	}
}

// reasonsOfObjects returns the reasons of a GrafanaSecureValue, as its part of conditions.go declares them.
func reasonsOfObjects(t *testing.T) []string {
	t.Helper()
	root, err := helm.Root()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(root, "api", "v1alpha1", "conditions.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(source), "// Reasons of Ready on a GrafanaSecureValue.")
	part, _, found := strings.Cut(part, "\n)\n")
	var reasons []string
	for _, reason := range regexp.MustCompile(`(?m)^\tReason\w+ += "(\w+)"$`).FindAllStringSubmatch(part, -1) {
		reasons = append(reasons, reason[1])
	}
	if !found || len(reasons) == 0 {
		t.Fatal("conditions.go has no reasons of objects where they are looked for")
	}
	return reasons
}

// TestEveryAlertHasAPage: it begins with what the reader sees, says what it means and what to do, and no other page exists.
func TestEveryAlertHasAPage(t *testing.T) {
	rules, root := alerts(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs", "runbooks", "Grafana*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); rules[name].Alert == "" {
			t.Errorf("%s is the page of no alert", page)
		}
	}
	for name, rule := range rules {
		if got, want := rule.Annotations["runbook_url"], pagesAt+name+".md"; got != want {
			t.Errorf("%s leads to %s, want %s", name, got, want)
		}
		page, err := os.ReadFile(filepath.Join(root, "docs", "runbooks", path.Base(rule.Annotations["runbook_url"])))
		if err != nil {
			t.Error(err)
			continue
		}
		if want := "# " + name + "\n\nYou see "; !strings.HasPrefix(string(page), want) {
			t.Errorf("the page of %s does not begin with %q", name, want)
		}
		for _, part := range []string{"\n## What it means\n", "\n## What to do\n", "kubectl "} {
			if !strings.Contains(string(page), part) {
				t.Errorf("the page of %s lacks %q", name, part)
			}
		}
		if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.For == "" {
			t.Errorf("%s lacks a severity, a summary or a time to wait", name)
		}
	}
}

const pagesAt = "https://github.com/securevalues-io/grafana-secure-value-operator/blob/main/docs/runbooks/"

// alerts returns the alerts of the chart by name, and the root of the project.
func alerts(t *testing.T) (rules map[string]promtool.Rule, root string) {
	t.Helper()
	list, _, err := promtool.Alerts()
	if err != nil {
		t.Fatal(err)
	}
	if root, err = helm.Root(); err != nil {
		t.Fatal(err)
	}
	rules = map[string]promtool.Rule{}
	for _, rule := range list {
		rules[rule.Alert] = rule
	}
	if len(rules) == 0 || len(rules) != len(list) {
		t.Fatalf("%d alerts of %d names", len(list), len(rules))
	}
	return rules, root
}

// TestKustomizeHasTheAlerts: config/prometheus has what the chart has.
func TestKustomizeHasTheAlerts(t *testing.T) {
	_, root := alerts(t)
	var chart, rule struct {
		Groups []any `json:"groups"`
	}
	read(t, filepath.Join(root, helm.Chart, "files", "alerts.yaml"), &chart)
	var object struct {
		Kind string `json:"kind"`
		Spec any    `json:"spec"`
	}
	read(t, filepath.Join(root, "config", "prometheus", "prometheusrule.yaml"), &object)
	spec, err := yaml.Marshal(object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(spec, &rule); err != nil {
		t.Fatal(err)
	}
	if object.Kind != "PrometheusRule" || len(rule.Groups) == 0 || !reflect.DeepEqual(chart, rule) {
		t.Error("config/prometheus has other alerts than the chart: run `make manifests`")
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
