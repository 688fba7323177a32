package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// What is imported can be applied as it is. With the source and without suspend one write takes each value over, and what Grafana says of it
// stays.
func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "import", grafanatest.WithLongDescriptions())
	w.connected()
	long := "A description of more than 25 characters"
	put := func(name, description string, change func(*grafanatest.Stored)) {
		stored := grafanatest.Stored{Name: name, Description: description, Value: []byte("canary-old"), Decrypters: []string{"k6-cloud", "synthetic-monitoring"}}
		change(&stored)
		w.grafana.Put("default", stored)
	}
	nothing := func(*grafanatest.Stored) {}
	put("short", "A text", nothing)
	put("long", long, func(s *grafanatest.Stored) { s.Labels = map[string]string{"team": "sre"} })
	put("terraform", "x", func(s *grafanatest.Stored) {
		s.Annotations = map[string]string{"grafana.app/managedBy": "terraform"}
	})
	put("owned", "x", func(s *grafanatest.Stored) { s.Labels = map[string]string{ownership.LabelCluster: "another"} })
	put("-odd-", "x", nothing)

	all := run(t, "import", "--connection", connectionName, "-n", w.namespace)
	all.expect(t, 0, "# 2 secure values. Fill in each source", "name: short\n", "description: A text\n", "# The description has 40 characters", "name: long\n",
		"name: fill-in-the-secret", "suspend: true", "adoptionPolicy: Adopt", "deletionPolicy: Retain", "Left out: -odd-: no object of Kubernetes can have this name.")
	for _, text := range []string{"terraform", "owned", long} {
		if strings.Contains(all.out, text) {
			t.Errorf("imported: %s\n%s", text, all.out)
		}
	}
	if out := run(t, "import", "--connection", connectionName, "-n", w.namespace, "-l", "team=sre").out; strings.Contains(out, "short") || !strings.Contains(out, "name: long") {
		t.Errorf("by label:\n%s", out)
	}
	dir := t.TempDir()
	write := func(text string) {
		w.Expect(os.WriteFile(filepath.Join(dir, "import.yaml"), []byte(text), 0o600)).To(Succeed())
	}
	write(all.out)
	w.apply(dir)
	run(t, "import", "--connection", connectionName, "-n", w.namespace).expect(t, 0, "Nothing to import.")

	for _, name := range []string{"short", "long"} {
		w.secret("grafana-"+name, map[string]string{"value": "canary-new"})
	}
	filled := run(t, "import", "--connection", connectionName, "-n", w.namespace, "--source-prefix", "grafana-", "short", "long")
	filled.expect(t, 0, "Nothing to import.") // they are there by now
	text := all.out
	for _, name := range []string{"long", "short"} { // in the order of the manifests
		text = strings.Replace(text, "name: fill-in-the-secret", "name: grafana-"+name, 1)
		text = strings.Replace(text, "key: fill-in-the-key", "key: value", 1)
	}
	write(strings.ReplaceAll(text, "  suspend: true\n", ""))
	w.grafana.ResetCalls()
	planned := run(t, "plan", "-f", dir, "-n", w.namespace, "-o", "json")
	planned.expect(t, 2)
	for _, e := range decode[struct{ Plan []effect }](t, planned).Plan {
		if e.Action != "adopt" {
			t.Errorf("planned %v", e)
		}
	}
	w.apply(dir)
	for _, name := range []string{"short", "long"} {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Namespace, sv.Name = w.namespace, name
		w.eventually(sv, v1alpha1.ReasonSynced)
		stored, _ := w.grafana.Value("default", name)
		w.Expect(stored.Version).To(BeEquivalentTo(2), client.ObjectKeyFromObject(sv).String())
		w.Expect(string(stored.Value)).To(Equal("canary-new"))
		w.Expect(stored.Description).To(Equal(map[string]string{"short": "A text", "long": long}[name]))
		w.Expect(stored.Decrypters).To(ConsistOf("k6-cloud", "synthetic-monitoring"))
	}
}

func TestImportWithSources(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "import-sources")
	w.connected()
	w.grafana.Put("default", grafanatest.Stored{Name: "short", Description: "A text", Value: []byte("canary-old")})
	run(t, "import", "--connection", connectionName, "-n", w.namespace, "--source-prefix", "grafana-").expect(t, 0,
		"name: grafana-short\n", "key: value\n", "# It has no decrypters")
	run(t, "import", "--connection", connectionName, "-n", w.namespace, "--source-prefix", "Bad_").expect(t, 0, `no Secret can have the name "Bad_short"`)
	run(t, "import", "--connection", connectionName, "-n", w.namespace, "-o", "json").expect(t, 0, `"kind": "List"`)
	run(t, "import", "-n", w.namespace).expect(t, 1, "name a connection with --connection")
}
