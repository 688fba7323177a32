package docs

import (
	"regexp"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

// TestKubernetesVersion: the oldest Kubernetes that the README names is the one below which helm refuses the chart.
func TestKubernetesVersion(t *testing.T) {
	refused := regexp.MustCompile(`(?m)^kubeVersion: ">=([0-9]+[.][0-9]+)[.]0-0"$`).FindStringSubmatch(text(t, helm.Chart+"/Chart.yaml"))
	named := regexp.MustCompile(`You need Kubernetes ([0-9]+[.][0-9]+) to [0-9]+[.][0-9]+ `).FindStringSubmatch(text(t, "README.md"))
	if refused == nil || named == nil {
		t.Fatalf("no version in kubeVersion of Chart.yaml (%q) or in README.md (%q)", refused, named)
	}
	if named[1] != refused[1] {
		t.Errorf("README.md needs Kubernetes %s, Chart.yaml %s", named[1], refused[1])
	}
}
