package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/apiserver"
)

const (
	testToken   = "glsa_canary-contract"
	readerToken = "glsa_canary-reader"
)

// small starts the small fake Grafana.
func small(t *testing.T, options ...grafanatest.Option) settings {
	t.Helper()
	server := grafanatest.New(options...)
	server.AddToken(testToken, permissions("default", grafanatest.ActionCreate, grafanatest.ActionRead, grafanatest.ActionWrite, grafanatest.ActionDelete)...)
	server.AddToken(readerToken, permissions("default", grafanatest.ActionRead)...)
	running, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	return settings{url: running.URL, token: testToken, readerToken: readerToken, namespace: "default", apiVersion: "v1beta1"}
}

func permissions(namespace string, actions ...grafanatest.Action) (all []grafanatest.Permission) {
	for _, action := range actions {
		all = append(all, grafanatest.Permission{Action: action, Namespace: namespace})
	}
	return all
}

// framework starts the fake Grafana on the generic API server of Kubernetes.
func framework(t *testing.T, namespace string, flags ...string) settings {
	t.Helper()
	url, stop, err := apiserver.Start(t.Context(),
		append(flags, "-token", testToken+","+namespace, "-token", readerToken+","+namespace+",read")...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return settings{url: url, token: testToken, readerToken: readerToken, namespace: namespace, apiVersion: "v1beta1"}
}

// TestContract: both fakes follow every rule, also those on which the operator does not rely.
func TestContract(t *testing.T) {
	for name, row := range map[string]struct {
		grafana settings
		differs []string // how the rules begin that differ
	}{
		"small fake":                           {grafana: small(t)},
		"small fake, invalid as 400":           {grafana: small(t, grafanatest.WithInvalidAs400())},
		"small fake, resourceVersion enforced": {small(t, grafanatest.WithResourceVersionEnforced()), []string{"A PUT with an old resourceVersion"}},
		"small fake under a sub-path":          {grafana: small(t, grafanatest.WithBasePath("/grafana"))},
		"small fake, labels dropped":           {small(t, grafanatest.WithLabelsDropped()), []string{"Labels and annotations are kept", "A PUT replaces", "A label selector"}},
		"framework":                            {grafana: framework(t, "default")},
		"framework, a stack under a sub-path":  {grafana: framework(t, "stacks-12", "-base-path", "/grafana")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newRun(row.grafana)
			if err != nil {
				t.Fatal(err)
			}
			results, err := r.runRules(t.Context(), allRules())
			if err != nil {
				t.Fatal(err)
			}
			for _, result := range results {
				want := expected
				if slices.ContainsFunc(row.differs, func(begin string) bool { return strings.HasPrefix(result.text, begin) }) {
					want = differs
				}
				if result.outcome != want {
					t.Errorf("%s: %s %s, want %s", result.text, result.outcome, result.detail, want)
				}
			}
			left, err := list(t.Context(), r.client, "")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %d values, %v", len(left), err)
			}
		})
	}
}

// TestRulesCanFail: a server that fails, and repeats what it was sent, breaks every rule. One without status.version breaks some.
func TestRulesCanFail(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(broken.Close)
	r, err := newRun(settings{url: broken.URL, token: testToken, readerToken: readerToken, namespace: "default", apiVersion: "v1beta1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range allRules() {
		if found := r.checkRule(t.Context(), rule); found.outcome == expected || rule.relied && found.outcome != differs {
			t.Errorf("%s: %s %s", rule.text, found.outcome, found.detail)
		}
	}

	r, err = newRun(small(t, grafanatest.WithoutStatus()))
	if err != nil {
		t.Fatal(err)
	}
	results, err := r.runRules(t.Context(), allRules())
	if failed := (report{results: results}).failed(); err != nil || failed < 3 {
		t.Errorf("without status.version %d rules differ, %v", failed, err)
	}
}

// TestWhatACrashLeaves: the next run removes it, and nothing else.
func TestWhatACrashLeaves(t *testing.T) {
	r, err := newRun(framework(t, "default"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{prefix + "life", prefix + "older-version", "of-somebody-else"} {
		sv := value("")
		sv.Name = name
		if _, err := r.client.Create(t.Context(), sv); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.runRules(t.Context(), allRules()); err != nil {
		t.Fatal(err)
	}
	left, err := list(t.Context(), r.client, "")
	if err != nil || len(left) != 1 || left[0].Name != "of-somebody-else" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestPlain: what a server says of itself cannot change the report around it.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"12.3.1": "12.3.1", "a|b\n`c`\x1b[0m<d": "abc[0md", strings.Repeat("x", 100): strings.Repeat("x", 60), "é": "",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestExampleReport: the page about reports shows that of the fake on the framework.
func TestExampleReport(t *testing.T) {
	s := framework(t, "default")
	s.readerToken = ""
	r, err := newRun(s)
	if err != nil {
		t.Fatal(err)
	}
	results, err := r.runRules(t.Context(), allRules())
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../docs/grafana-reports.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(page), "```text\n")
	_, after, found := strings.Cut(rest, "```\n")
	want := before + "```text\n" + r.report(t.Context(), results, time.Date(2026, time.November, 30, 0, 0, 0, 0, time.UTC)).String() + "```\n" + after
	if !found {
		t.Fatalf("%s has no block of text", file)
	}
	if string(page) == want {
		return
	}
	t.Errorf("%s has another report. Run the test with UPDATE=1", file)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Error(err)
		}
	}
}
