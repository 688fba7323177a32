package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// report is what a run found, as a page of Markdown.
type report struct {
	grafana, apiVersion, namespace string
	date                           time.Time
	results                        []result
}

func (r *run) report(ctx context.Context, results []result, at time.Time) report {
	return report{grafana: r.version(ctx), apiVersion: r.apiVersion, namespace: r.namespace, date: at, results: results}
}

// withoutNumber returns the form of a namespace: default, org-N or stacks-N.
func withoutNumber(namespace string) string {
	kind, _, found := strings.Cut(namespace, "-")
	if found {
		kind += "-N"
	}
	return kind
}

// failed returns how many rules differ on which the operator relies.
func (p report) failed() int {
	failed := 0
	for _, r := range p.results {
		if r.relied && r.outcome == differs {
			failed++
		}
	}
	return failed
}

func (p report) String() string {
	var b strings.Builder
	count := map[outcome]int{}
	for _, r := range p.results {
		count[r.outcome]++
	}
	fmt.Fprintf(&b, "Contract report\n\n- Grafana: %s\n- API: secret.grafana.app/%s\n- Namespace: %s\n- Date: %s\n",
		p.grafana, p.apiVersion, withoutNumber(p.namespace), p.date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "- Rules: %d %s, %d %s, %d %s\n- Rules on which the operator relies, and which differ: %d\n\n",
		count[expected], expected, count[differs], differs, count[notTestable], notTestable, p.failed())
	b.WriteString("| rule | the operator relies on it | result |\n|---|---|---|\n")
	for _, r := range p.results {
		relied := "no"
		if r.relied {
			relied = "yes"
		}
		found := string(r.outcome)
		if r.detail != "" {
			found += ": " + strings.ReplaceAll(r.detail, "\n", "; ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.text, relied, found)
	}
	return b.String()
}

// version returns the version and edition that Grafana states, as far as it does.
func (s settings) version(ctx context.Context) string {
	version := "unknown version"
	var health struct{ Version string }
	if a, err := s.send(ctx, request{method: http.MethodGet, at: "/api/health", token: noToken}); err == nil &&
		json.Unmarshal([]byte(a.body), &health) == nil && health.Version != "" {
		version = plain(health.Version)
	}
	var frontend struct {
		BuildInfo struct{ Version, Edition string } `json:"buildInfo"`
	}
	if a, err := s.send(ctx, request{method: http.MethodGet, at: "/api/frontend/settings"}); err == nil &&
		json.Unmarshal([]byte(a.body), &frontend) == nil && frontend.BuildInfo.Edition != "" {
		version = plain(frontend.BuildInfo.Version) + ", " + plain(frontend.BuildInfo.Edition)
	}
	return version
}
