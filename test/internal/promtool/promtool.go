// Package promtool holds alerts and dashboards to Prometheus's own engine, by the unit tests of rules that promtool runs.
package promtool

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

// Rule is an alert.
type Rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// Alerts returns the alerts of the chart, and the file that they are in.
func Alerts() (rules []Rule, file string, err error) {
	root, err := helm.Root()
	if err != nil {
		return nil, "", err
	}
	file = filepath.Join(root, helm.Chart, "files", "alerts.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	var groups struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []Rule `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict(content, &groups); err != nil {
		return nil, "", err
	}
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules, file, nil
}

// Query is a query of a panel, as it is in the dashboard.
type Query struct{ Row, Panel, Expr, Legend string }

// In returns the query that Grafana makes of it, with what is chosen for each variable: a regular expression, ".*" for All.
func (q Query) In(cluster, namespace, connection string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$cluster", cluster, "$namespace", namespace, "$connection", connection).Replace(q.Expr)
}

// Queries returns the queries of the dashboards of the chart.
func Queries() ([]Query, error) {
	root, err := helm.Root()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, helm.Chart, "files", "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no dashboards: %w", err)
	}
	var queries []Query
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var dashboard struct {
			Panels []struct {
				Title   string `json:"title"`
				Type    string `json:"type"`
				Targets []struct {
					Expr   string `json:"expr"`
					Legend string `json:"legendFormat"`
				} `json:"targets"`
			} `json:"panels"`
		}
		if err := json.Unmarshal(content, &dashboard); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		row := ""
		for _, panel := range dashboard.Panels {
			if panel.Type == "row" {
				row = panel.Title
			} else if len(panel.Targets) == 0 {
				return nil, fmt.Errorf("%s: panel %q asks nothing", file, panel.Title)
			}
			for _, target := range panel.Targets {
				queries = append(queries, Query{row, panel.Title, target.Expr, target.Legend})
			}
		}
	}
	return queries, nil
}

// Group is a group of unit tests.
type Group struct {
	Name       string       `json:"name"`
	Interval   string       `json:"interval"`
	Series     []Series     `json:"input_series"`
	AlertTests []AlertTest  `json:"alert_rule_test,omitempty"`
	ExprTests  []SampleTest `json:"promql_expr_test,omitempty"`
}

// Series is what is scraped, with an interval of the group between the values.
type Series struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

// AlertTest says which alerts of a name fire at a time.
type AlertTest struct {
	EvalTime string   `json:"eval_time"`
	Name     string   `json:"alertname"`
	Expected []Firing `json:"exp_alerts"`
}

// Firing is an alert that fires.
type Firing struct {
	Labels      map[string]string `json:"exp_labels"`
	Annotations map[string]string `json:"exp_annotations"`
}

// SampleTest says what a query returns at a time.
type SampleTest struct {
	Expr     string   `json:"expr"`
	EvalTime string   `json:"eval_time"`
	Expected []Sample `json:"exp_samples"`
}

// Sample is a part of what a query returns.
type Sample struct {
	Labels string  `json:"labels"`
	Value  float64 `json:"value"`
}

// NotEmpty holds a query to return anything at all.
func NotEmpty(expr, at string) SampleTest {
	return SampleTest{Expr: "count(" + expr + ") > bool 0", EvalTime: at, Expected: []Sample{{Labels: "{}", Value: 1}}}
}

// Nothing holds a query to return nothing but zeros.
func Nothing(expr, at string) SampleTest {
	return SampleTest{Expr: "count((" + expr + ") != 0) or vector(0)", EvalTime: at, Expected: []Sample{{Labels: "{}", Value: 0}}}
}

// Run runs the groups on the alerts of the chart, and writes what it needs into the directory. The error says what went wrong in them.
func Run(ctx context.Context, dir string, groups []Group) error {
	promtool, err := helm.Promtool()
	if err != nil {
		return err
	}
	_, rules, err := Alerts()
	if err != nil {
		return err
	}
	tests, err := yaml.Marshal(map[string]any{"rule_files": []string{rules}, "evaluation_interval": "1m", "tests": groups})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "tests.yaml")
	if err := os.WriteFile(file, tests, 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, promtool, "test", "rules", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("promtool: %w\n%s", err, out)
	}
	if !strings.Contains(string(out), "SUCCESS") {
		return fmt.Errorf("promtool ran no tests:\n%s", out)
	}
	return nil
}

var sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)$`)

// used are the beginnings of the metrics that alerts and dashboard use.
var used = []string{"gsv_", "workqueue_longest_running_processor_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}

// Scraped returns the series on a metrics page that alerts and dashboard use, half an hour of them: gauges stay, and counters go on in
// the same way.
func Scraped(page string) []Series {
	var all []Series
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		found := sampleLine.FindStringSubmatch(line)
		if found == nil || !slices.ContainsFunc(used, func(prefix string) bool { return strings.HasPrefix(line, prefix) }) {
			continue
		}
		name, labels := found[1], found[2]
		number, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			continue
		}
		value, step := strconv.FormatFloat(number, 'f', -1, 64), "0"
		if strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_sum") {
			step = value
		}
		all = append(all, Series{Series: name + labels, Values: value + "+" + step + "x30"})
	}
	return all
}
