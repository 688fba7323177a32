package plugin

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// doctor returns the result of each check.
func doctor(t *testing.T, r result) (results, details map[string]string) {
	t.Helper()
	found := decode[struct {
		Connection struct {
			FromThisMachine []struct{ Name, Result, Detail string }
		}
	}](t, r)
	results, details = map[string]string{}, map[string]string{}
	for _, c := range found.Connection.FromThisMachine {
		results[c.Name], details[c.Name] = c.Result, c.Detail
	}
	return results, details
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor")
	w.connected()
	w.grafana.ResetCalls()
	run(t, "doctor", "--connection", connectionName, "-n", w.namespace).expect(t, 0,
		"GrafanaConnection prod, as the operator sees it: Connected\n  Grafana answers", "From this machine:\n",
		`credentials  ok       Secret "grafana" has a token.`, "secret.grafana.app/v1beta1 is served.", "delete       ok")
	if left := w.grafana.Values("default"); len(left) > 0 {
		t.Errorf("the probe value was left behind: %v", left)
	}
	if calls := w.calls(); !slices.Contains(calls, "create 201") || !slices.Contains(calls, "update 200") || !slices.Contains(calls, "delete 200") {
		t.Errorf("the actions were not tried: %v", calls)
	}
	run(t, "doctor", "--connection", "gconn/prod", "-n", w.namespace).expect(t, 0)
	run(t, "doctor", "--connection", "none", "-n", w.namespace).expect(t, 1, `error: there is no GrafanaConnection "none" in namespace "doctor"`)
	run(t, "doctor").expect(t, 1, "name a connection with --connection, or use --operator")
}

// Each action is one row, and what could not be deleted is not created.
func TestDoctorActions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor-actions")
	w.connected()
	for missing, want := range map[grafanatest.Action]map[string]string{
		grafanatest.ActionCreate: {"read": "ok", "create": "failed", "write": "ok", "delete": "ok"},
		grafanatest.ActionWrite:  {"read": "ok", "create": "ok", "write": "failed", "delete": "ok"},
		grafanatest.ActionDelete: {"read": "ok", "create": "-", "write": "-", "delete": "failed"},
	} {
		w.grafana.AddToken(token, slices.DeleteFunc(grafanatest.AllPermissions(), func(p grafanatest.Permission) bool { return p.Action == missing })...)
		w.grafana.ResetCalls()
		r := run(t, "doctor", "--connection", connectionName, "-n", w.namespace, "-o", "json")
		r.expect(t, 1)
		results, details := doctor(t, r)
		for action, result := range want {
			if results[action] != result {
				t.Errorf("without %s: %s is %s, want %s", missing, action, results[action], result)
			}
		}
		if detail := details[string(missing)]; !strings.Contains(detail, "lacks the action secret.securevalues:"+string(missing)) {
			t.Errorf("without %s: %s", missing, detail)
		}
		if left := w.grafana.Values("default"); len(left) > 0 {
			t.Errorf("without %s: the probe value was left behind", missing)
		}
		if missing == grafanatest.ActionDelete && slices.Contains(w.calls(), "create 201") {
			t.Errorf("what cannot be deleted was created: %v", w.calls())
		}
	}
}

// The stage that fails is named, with what to do, and no later one is said to work.
func TestDoctorStages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor-stages")
	notServed := grafanatest.New(grafanatest.WithAPINotServed(), grafanatest.WithWords("canary-words"))
	notServed.AddToken(token)
	strange := grafanatest.New(grafanatest.WithNamespaces("org-2"))
	strange.AddToken(token)
	urls := map[string]string{}
	for name, server := range map[string]*grafanatest.Server{"api": notServed, "token": grafanatest.New(), "namespace": strange} {
		running, err := server.Start()
		w.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(running.Close)
		urls[name] = running.URL
	}
	secure, err := grafanatest.New().StartTLS()
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(secure.Close)
	closed, err := controlplane.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	for stage, row := range map[string]struct{ url, detail string }{
		"DNS":       {"http://gsv-doctor.invalid", "its name could not be resolved. Check the host in spec.url, and DNS on this machine."},
		"TCP":       {"http://" + closed, "the connection was refused"},
		"TLS":       {secure.URL, "no authority that this machine trusts signed the certificate"},
		"API":       {urls["api"], "does not serve the Secrets Management API"},
		"token":     {urls["token"], "Grafana refused the token (HTTP 401)"},
		"namespace": {urls["namespace"], "Grafana refused spec.namespace (HTTP 403)"},
	} {
		name := "at-" + strings.ToLower(stage)
		w.create(w.connection(name, row.url))
		r := run(t, "doctor", "--connection", name, "-n", w.namespace, "-o", "json")
		results, details := doctor(t, r)
		if r.code != 1 || results[stage] != "failed" || !strings.Contains(details[stage], row.detail) {
			t.Errorf("%s: %s: %s", stage, results[stage], details[stage])
		}
		after := false
		for _, s := range []string{"DNS", "proxy", "TCP", "TLS", "API", "token", "namespace"} {
			if after && results[s] != "-" || !after && s != stage && results[s] == "failed" {
				t.Errorf("%s fails, and %s is %s", stage, s, results[s])
			}
			after = after || s == stage
		}
		if _, tried := results["create"]; tried {
			t.Errorf("%s fails, and create was tried", stage)
		}
	}
}

// A proxy that refuses is told from Grafana, and its password is not printed.
func TestDoctorProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor-proxy")
	w.create(w.connection("far", "https://grafana.example.com"))
	address, err := controlplane.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	proxy := &http.Server{Addr: address, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })} //nolint:gosec // of one test
	go func() { _ = proxy.ListenAndServe() }()
	t.Cleanup(func() { _ = proxy.Close() })
	w.Eventually(func() error {
		answer, err := http.Get("http://" + address) //nolint:noctx,gosec // of this test
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}).Should(Succeed())
	r := runWith(t, "", []string{"HTTPS_PROXY=http://user:canary-password@" + address, "NO_PROXY=127.0.0.1"},
		"doctor", "--connection", "far", "-n", w.namespace, "-o", "json")
	results, details := doctor(t, r)
	if results["proxy"] != "failed" || !strings.Contains(details["proxy"], "the proxy http://"+address+" answered with HTTP 403") || results["TCP"] != "-" {
		t.Errorf("%v\n%v", results, details)
	}
}

// Whoever may not read the token still learns whether Grafana answers.
func TestDoctorWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor-rights")
	w.connected()
	grant(w, "reader", "doctor-rights", "grafana.securevalues.io", "grafanaconnections", "get", "list")
	r := run(t, "doctor", "--connection", "gconn/prod", "-n", w.namespace, "--as", "reader", "-o", "json")
	r.expect(t, 1)
	results, details := doctor(t, r)
	if results["credentials"] != "unknown" || results["TCP"] != "ok" || results["API"] != "ok" || results["token"] != "-" {
		t.Errorf("%v", results)
	}
	if want := `You lack the right to get secrets "grafana" in namespace "doctor-rights"`; !strings.Contains(details["credentials"], want) {
		t.Errorf("%s", details["credentials"])
	}
}

func TestDoctorOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "doctor-operator")
	w.secret("source", map[string]string{"api-key": "canary-1"})
	sv := w.value("api-key")
	w.create(sv)
	w.eventually(sv, v1alpha1.ReasonSynced)
	run(t, "doctor", "--operator").expect(t, 0, "CRDs        ok", "leader      ok", "lag         ok",
		"Deployment  ok       grafana-secure-value-operator-controller-manager: version 1.2.3, 2 of 2 ready.")

	run(t, "doctor", "--operator", "--operator-namespace", "default").expect(t, 1, "Name its namespace with --operator-namespace", `No manager leads in namespace "default"`)
	run(t, "doctor", "--operator", "--as", "nobody").expect(t, 1, "unknown  You lack the right to list deployments.apps")
}
