package connection

import (
	"fmt"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// What a person reads at another machine does not speak of the operator's environment.
func TestExplainSpeaksOfTheCallersMachine(t *testing.T) {
	conn := &v1alpha1.GrafanaConnection{Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{URL: "https://acme.grafana.net"}}}
	for _, row := range checkErrors {
		reason, message := Explain(conn, fmt.Errorf("list: %w", row.err))
		if reason != row.reason || strings.Contains(message, "operator") || strings.ContainsAny(message, "{}") {
			t.Errorf("%v: %s: %s", row.err, reason, message)
		}
	}
}
