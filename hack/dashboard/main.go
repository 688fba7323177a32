// Dashboard writes the dashboard of the operator, as JSON that Grafana imports.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(dashboard()); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
}

type object = map[string]any

// panel is a panel of the dashboard, or with nothing but a title the begin of a row.
type panel struct {
	title, description string
	kind               string // stat or timeseries
	unit               string
	width              int
	queries            []query
	bad                bool // anything over 0 is
}

type query struct{ expr, legend string }

// each narrows a metric to the connections that are chosen, and by is how a connection is called in a legend.
const (
	each = `{connection_namespace=~"$namespace",connection=~"$connection"}`
	by   = "connection_kind, connection_namespace, connection"
	name = "{{connection_namespace}} {{connection}}"
)

var panels = []panel{
	{title: "The fleet"},
	{
		title: "In step", kind: "stat", width: 4, description: "Objects whose value is in Grafana.",
		queries: []query{{`sum(gsv_secure_values{reason="Synced",connection_namespace=~"$namespace",connection=~"$connection"}) or vector(0)`, ""}},
	},
	{
		title: "Not in step", kind: "stat", width: 4, bad: true, description: "Objects that are neither Synced nor Suspended. The graph below has their reasons.",
		queries: []query{{`sum(gsv_secure_values{reason!~"Synced|Suspended",connection_namespace=~"$namespace",connection=~"$connection"}) or vector(0)`, ""}},
	},
	{
		title: "Connections in trouble", kind: "stat", width: 4, bad: true, description: "Connections that are not Ready.",
		queries: []query{{`count(max by (` + by + `) (gsv_connection_ready` + each + `) == 0) or vector(0)`, ""}},
	},
	{
		title: "Waiting their turn", kind: "stat", width: 4, description: "Objects that wait for the rate limit of a connection, or for its recovery.",
		queries: []query{{`sum(gsv_parked` + each + `) or vector(0)`, ""}},
	},
	{
		title: "Values that nobody holds", kind: "stat", width: 4, bad: true, description: "Values in Grafana with the mark of this cluster and without an object.",
		queries: []query{{`sum(gsv_unowned_values` + each + `) or vector(0)`, ""}},
	},
	{
		title: "Oldest change without an outcome", kind: "stat", unit: "s", width: 4,
		description: "Age of the oldest change of an object or its Secret of which nothing has come, not even a status. Minutes mean that the operator itself is stuck.",
		queries:     []query{{`max(gsv_oldest_unseen_seconds)`, ""}},
	},
	{
		title: "Objects not in step, by reason", kind: "timeseries", width: 12, description: "What each reason means, and what to do: the reference in docs/.",
		queries: []query{{`sum by (reason) (gsv_secure_values{reason!~"Synced|Suspended",connection_namespace=~"$namespace",connection=~"$connection"})`, "{{reason}}"}},
	},
	{
		title: "Versions written, by cause", kind: "timeseries", width: 12, description: "Writes to Grafana per minute. There are none where nothing changes.",
		queries: []query{{`sum by (cause) (rate(gsv_versions_written_total[$__rate_interval])) * 60`, "{{cause}}"}},
	},

	{title: "Rotations"},
	{
		title: "From the change of a Secret to Grafana", kind: "timeseries", unit: "s", width: 12,
		description: "Time from the moment a change was seen to Grafana's answer to the write.",
		queries: []query{
			{`histogram_quantile(0.5, sum by (le) (rate(gsv_propagation_seconds_bucket[$__rate_interval])))`, "half"},
			{`histogram_quantile(0.9, sum by (le) (rate(gsv_propagation_seconds_bucket[$__rate_interval])))`, "9 of 10"},
			{`histogram_quantile(0.99, sum by (le) (rate(gsv_propagation_seconds_bucket[$__rate_interval])))`, "99 of 100"},
		},
	},
	{
		title: "Rotations", kind: "timeseries", width: 12, description: "Changes of Secrets that reached Grafana, per minute.",
		queries: []query{{`sum(rate(gsv_propagation_seconds_count[$__rate_interval])) * 60`, "rotations"}},
	},

	{title: "Requests and limits"},
	{
		title: "Requests to Grafana, by operation", kind: "timeseries", unit: "reqps", width: 8, description: "At rest, one list for each connection and resync period.",
		queries: []query{{`sum by (operation) (rate(gsv_grafana_requests_total` + each + `[$__rate_interval]))`, "{{operation}}"}},
	},
	{
		title: "Answers of Grafana, by code", kind: "timeseries", unit: "reqps", width: 8,
		description: "0 is no answer. 404 and 409 are part of the work: a deletion is proved by 404.",
		queries:     []query{{`sum by (code) (rate(gsv_grafana_requests_total` + each + `[$__rate_interval]))`, "{{code}}"}},
	},
	{
		title: "Time of a request", kind: "timeseries", unit: "s", width: 8, description: "99 of 100 requests are answered within this time.",
		queries: []query{{`histogram_quantile(0.99, sum by (operation, le) (rate(gsv_grafana_request_duration_seconds_bucket[$__rate_interval])))`, "{{operation}}"}},
	},
	{
		title: "Waiting their turn, by connection", kind: "timeseries", width: 12,
		description: "Objects that wait for the rate limit of the connection (spec.rateLimit), or for its recovery.",
		queries:     []query{{`max by (` + by + `) (gsv_parked` + each + `)`, name}},
	},
	{
		title: "Calls held back", kind: "timeseries", width: 12, description: "1 while Grafana fails or cannot be reached.",
		queries: []query{{`max by (` + by + `) (gsv_connection_breaker_open` + each + `)`, name}},
	},

	{title: "Drift"},
	{
		title: "Changes by somebody else, by kind", kind: "timeseries", width: 12, description: "What others have done to values in Grafana, per hour.",
		queries: []query{{`sum by (kind) (rate(gsv_drift_total[$__rate_interval])) * 3600`, "{{kind}}"}},
	},
	{
		title: "Values that nobody holds, by connection", kind: "timeseries", width: 12, description: "As the last resync of each connection found.",
		queries: []query{{`max by (` + by + `) (gsv_unowned_values` + each + `)`, name}},
	},

	{title: "By connection"},
	{
		title: "Ready", kind: "timeseries", width: 8, description: "1 where the last check of the connection found nothing wrong.",
		queries: []query{{`max by (` + by + `) (gsv_connection_ready` + each + `)`, name}},
	},
	{
		title: "Objects", kind: "timeseries", width: 8, description: "Objects that name the connection.",
		queries: []query{{`sum by (` + by + `) (gsv_secure_values` + each + `)`, name}},
	},
	{
		title: "Requests", kind: "timeseries", unit: "reqps", width: 8, description: "Requests to Grafana through the connection.",
		queries: []query{{`sum by (` + by + `) (rate(gsv_grafana_requests_total` + each + `[$__rate_interval]))`, name}},
	},
}

var source = object{"type": "prometheus", "uid": "${datasource}"}

func dashboard() object {
	return object{
		"title":         "Grafana secure values",
		"uid":           "grafana-secure-value-operator",
		"description":   "The secure values that grafana-secure-value-operator keeps in step with Secrets.",
		"tags":          []string{"grafana-secure-value-operator"},
		"schemaVersion": 39,
		"editable":      true,
		"time":          object{"from": "now-6h", "to": "now"},
		"refresh":       "1m",
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
			choice("namespace", "Namespace of the connection", "label_values(gsv_connection_ready, connection_namespace)"),
			choice("connection", "Connection", `label_values(gsv_connection_ready{connection_namespace=~"$namespace"}, connection)`),
		}},
		"panels": layOut(),
	}
}

// choice is a variable of which all, some or one may be chosen.
func choice(name, label, values string) object {
	return object{
		"name": name, "label": label, "type": "query", "datasource": source, "query": values, "definition": values,
		"includeAll": true, "multi": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1,
	}
}

// layOut places the panels from left to right, and rows below each other.
func layOut() []object {
	var placed []object
	x, y, height := 0, 0, 0
	for i, p := range panels {
		h := map[string]int{"": 1, "stat": 4, "timeseries": 8}[p.kind]
		w := p.width
		if p.kind == "" {
			w = 24
		}
		if x+w > 24 {
			x, y = 0, y+height
		}
		o := object{"id": i + 1, "title": p.title, "gridPos": object{"x": x, "y": y, "w": w, "h": h}}
		x, height = x+w, h
		if p.kind == "" {
			o["type"], o["collapsed"], o["panels"] = "row", false, []object{}
			placed = append(placed, o)
			continue
		}
		o["type"], o["description"], o["datasource"] = p.kind, p.description, source
		var targets []object
		for n, q := range p.queries {
			targets = append(targets, object{"refId": string(rune('A' + n)), "datasource": source, "expr": q.expr, "legendFormat": q.legend})
		}
		o["targets"] = targets
		steps := []object{{"color": "green", "value": nil}}
		if p.bad {
			steps = append(steps, object{"color": "red", "value": 1})
		}
		o["fieldConfig"] = object{
			"defaults":  object{"unit": p.unit, "min": 0, "thresholds": object{"mode": "absolute", "steps": steps}},
			"overrides": []object{},
		}
		placed = append(placed, o)
	}
	return placed
}
