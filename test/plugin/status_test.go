package plugin

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "status")
	w.secret("source", map[string]string{"api-key": "canary-1"})
	synced, waits, lost := w.value("api-key"), w.value("k6"), w.value("lost")
	waits.Spec.ValueFrom.SecretKeyRef.Name = "k6"
	w.create(synced)
	w.connected()
	w.eventually(synced, v1alpha1.ReasonSynced)

	run(t, "status", "-n", w.namespace).expect(t, 0, "GrafanaConnection status/prod ("+w.url+"): Connected\n", "└─ api-key  Synced  api-key, version 1\n",
		"1 of 1 secure value Ready, 1 of 1 connection Ready.")
	run(t, "status", "-n", w.namespace, "-o", "wide").expect(t, 0, `written `, `Key "api-key" of Secret "source" is in Grafana`)

	lost.Spec.ConnectionRef.Name = "missing"
	w.create(waits)
	w.create(lost)
	w.eventually(waits, v1alpha1.ReasonSecretNotFound)
	w.eventually(lost, v1alpha1.ReasonConnectionNotFound)
	all := run(t, "status", "-n", w.namespace)
	all.expect(t, 1, "├─ api-key  Synced          api-key, version 1\n", "└─ k6       SecretNotFound  k6\n",
		`     Secret "k6" does not exist in namespace "status".`, "Next: kubectl describe gsv k6 -n status\n",
		"GrafanaConnection status/missing: not observed?\n", "└─ lost  ConnectionNotFound  lost\n", "1 of 3 secure values Ready, 1 of 2 connections Ready.")
	if strings.Contains(all.out, "\x1b") {
		t.Errorf("colours without a terminal:\n%s", all.out)
	}
	if out := run(t, "status", "-n", w.namespace, "--not-ready").out; strings.Contains(out, "─ api-key") || !strings.Contains(out, "─ k6") {
		t.Errorf("--not-ready:\n%s", out)
	}

	type state struct{ Name, Ready, Reason, Next string }
	found := decode[struct {
		Connections []struct {
			Name, Ready  string
			SecureValues []state
		}
	}](t, run(t, "status", "-n", w.namespace, "-o", "json"))
	if c := found.Connections; len(c) != 2 || c[1].Name != connectionName || c[1].Ready != "True" || len(c[1].SecureValues) != 2 ||
		c[1].SecureValues[1] != (state{"k6", "False", v1alpha1.ReasonSecretNotFound, "kubectl describe gsv k6 -n status"}) {
		t.Errorf("%+v", found)
	}
	run(t, "status", "-A", "-o", "yaml").expect(t, 1, "reason: SecretNotFound")
	run(t, "status", "-o", "toml").expect(t, 1, `error: --output is "toml": use json, yaml, wide`)
}

// What a user may not read is said, with the right that is missing. Without it nothing is shown as if it were not there.
func TestStatusWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "status-rights")
	w.connected()
	run(t, "status", "-n", w.namespace, "--as", "nobody").expect(t, 1,
		`error: you lack the right to list grafanaconnections.grafana.securevalues.io in namespace "status-rights"`)
}

func TestVersion(t *testing.T) {
	t.Parallel()
	run(t, "version").expect(t, 0, "Plugin:       v1.2.3\n",
		"Operator:     1.2.3 (Deployment "+operatorNamespace+"/grafana-secure-value-operator-controller-manager, 2 of 2 ready)\n",
		"CRDs:         v1alpha1 (ClusterGrafanaConnection, GrafanaConnection, GrafanaSecureValue", "Kubernetes:   v1.")
	run(t, "version", "--as", "nobody").expect(t, 1, "Plugin:       v1.2.3\n", "CRDs:         v1alpha1",
		`operator: you lack the right to list deployments.apps in namespace "`+operatorNamespace+`"`)
	runWith(t, "", []string{"KUBECONFIG=/none"}, "version").expect(t, 1, "Plugin:", "cluster: ")
	if v := decode[map[string]any](t, run(t, "version", "-o", "json")); v["plugin"] != "v1.2.3" {
		t.Errorf("%v", v)
	}
}

// A shell completes the names of connections.
func TestCompletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "completion")
	w.connected()
	run(t, "__complete", "doctor", "-n", w.namespace, "--connection", "").expect(t, 0, "prod\n", ":4\n")
	run(t, "__complete", "status", "-n", "complet").expect(t, 0, "completion\n")
	run(t, "completion", "bash").expect(t, 0, "kubectl-gsv")
}

// objectsEnv is how many objects TestStatusOfManyObjects makes, for a measurement.
const objectsEnv = "STATUS_OBJECTS"

// Objects are read in pages of 500, and each page once.
func TestStatusOfManyObjects(t *testing.T) {
	t.Parallel()
	n := 501
	if text := os.Getenv(objectsEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, "many")
	w.connected()
	var group errgroup.Group
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error {
			sv := w.value(fmt.Sprintf("value-%05d", i))
			sv.Spec.Suspend = true
			return k8s.Create(t.Context(), sv)
		})
	}
	w.Expect(group.Wait()).To(Succeed())
	mark, begun := plane.Mark(), time.Now()
	r := run(t, "status", "-n", w.namespace)
	t.Logf("status of %d objects took %s", n, time.Since(begun).Round(time.Millisecond))
	r.expect(t, 1, fmt.Sprintf("0 of %d secure values Ready, 1 of 1 connection Ready.", n))
	events, err := plane.Audit(mark)
	w.Expect(err).NotTo(HaveOccurred())
	pages := 0
	for _, e := range events {
		if e.Verb == "list" && e.Resource == "grafanasecurevalues" && e.Namespace == w.namespace && strings.HasPrefix(e.UserAgent, "kubectl-gsv/") {
			pages++
		}
	}
	if want := (n + 499) / 500; pages != want {
		t.Errorf("%d pages were read, want %d", pages, want)
	}
}
