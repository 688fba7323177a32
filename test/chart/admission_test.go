package chart

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	connectionYAML = `
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaConnection
metadata: {name: NAME, namespace: team-a}
spec: {url: "URL", credentials: {tokenSecretRef: {name: grafana, key: token}}}
`
	valueYAML = `
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaSecureValue
metadata: {name: NAME, namespace: team-a, annotations: {note: "NOTE"}}
spec: {adoptionPolicy: POLICY, connectionRef: {name: prod}, valueFrom: {secretKeyRef: {name: sm, key: api-key}}}
`
	setYAML = `
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaSecureValueSet
metadata: {name: NAME, namespace: team-a}
spec: {secrets: {names: [sm]}, template: {metadata: {annotations: NOTES}, spec: {adoptionPolicy: POLICY}}}
`
)

func connection(name, url string) string {
	return strings.NewReplacer("NAME", name, "URL", url).Replace(connectionYAML)
}

// referencing is a connection to the Grafana of that name.
func referencing(name, grafana string) string {
	return strings.NewReplacer("NAME", name, `{url: "URL", credentials: {tokenSecretRef: {name: grafana, key: token}}}`, "{grafanaRef: {name: "+grafana+"}}").Replace(connectionYAML)
}

func value(name, policy, note string) string {
	return strings.NewReplacer("NAME", name, "POLICY", policy, "NOTE", note).Replace(valueYAML)
}

// set has as many annotations as given, of 512 bytes each.
func set(name, policy string, annotations int) string {
	var notes []string
	for i := range annotations {
		notes = append(notes, fmt.Sprintf("note-%d: %s", i, strings.Repeat("x", 512)))
	}
	return strings.NewReplacer("NAME", name, "POLICY", policy, "NOTES", "{"+strings.Join(notes, ", ")+"}").Replace(setYAML)
}

// TestAdmissionPolicies: the policies refuse what they are for, and leave alone what is there already, other edits, and the manager.
func TestAdmissionPolicies(t *testing.T) {
	const (
		allowed = "https://grafana.example.com"
		other   = "https://other.example.com/canary"
		manager = "system:serviceaccount:release:release-grafana-secure-value-operator"
	)
	long := strings.Repeat("x", 5000)
	server := startServer(t, "release", "team-a")
	chart := chartDir(t)
	server.run(t, manifests(t, chart), "apply", "--server-side", "-f", "-")
	server.run(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	server.run(t, connection("old", "https://old.example.com"), "create", "-f", "-")
	server.run(t, referencing("old-ref", "old"), "create", "-f", "-")
	server.run(t, value("old", "Adopt", long), "create", "-f", "-")
	server.run(t, value("fresh", "Refuse", "short"), "create", "-f", "-")
	server.run(t, set("old", "Adopt", 8), "create", "-f", "-")
	server.run(t, manifests(t, chart, "--set", "admissionPolicies.allowedURLs={"+allowed+"},admissionPolicies.denyAdopt=true,admissionPolicies.maxMetadataBytes=4096"),
		"apply", "--server-side", "-f", "-")

	refused := []struct{ what, object, message string }{
		{"url", connection("new", other), "spec.url must be one of: " + allowed},
		{"Adopt", value("new", "Adopt", "short"), "spec.adoptionPolicy must be Refuse"},
		{"metadata", value("new", "Refuse", long), "at most 4096 bytes"},
		{"Adopt by a set", set("new", "Adopt", 1), "spec.template.spec.adoptionPolicy must be Refuse"},
		{"metadata of a template", set("new", "Refuse", 8), "annotations of spec.template must have at most 4096 bytes"},
		{"url of an object that is there", connection("old", other), "spec.url must be one of: " + allowed},
		{"a Grafana, whose URL is not seen", referencing("new", "grafana"), "spec.url must be one of: " + allowed},
		{"another Grafana of an object that is there", referencing("old-ref", "new"), "spec.url must be one of: " + allowed},
		{"Adopt of an object that is there", value("fresh", "Adopt", "short"), "spec.adoptionPolicy must be Refuse"},
		{"metadata of an object that is there", value("fresh", "Refuse", long), "at most 4096 bytes"},
	}
	for _, row := range refused {
		var out string
		err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			var err error
			out, err = server.try(t, row.object, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
			return err != nil, nil
		})
		if err != nil || !strings.Contains(out, row.message) || strings.Contains(out, "canary") {
			t.Errorf("%s: %v\n%s", row.what, err, out)
		}
	}
	for _, row := range []struct {
		object string
		args   []string
	}{
		{connection("new", allowed), []string{"create", "-f", "-"}},
		{connection("new-too", allowed+"/"), []string{"create", "-f", "-"}},
		{value("new", "Refuse", "short"), []string{"create", "-f", "-"}},
		{set("new", "Refuse", 1), []string{"create", "-f", "-"}},
		{"", []string{"patch", "gsvset", "old", "-n", "team-a", "--type=merge", "-p", `{"spec":{"suspend":true}}`}},
		{"", []string{"patch", "gconn", "old", "-n", "team-a", "--type=merge", "-p", `{"spec":{"resyncPeriod":"1h"}}`}},
		{"", []string{"patch", "gconn", "old-ref", "-n", "team-a", "--type=merge", "-p", `{"spec":{"resyncPeriod":"1h"}}`}},
		{"", []string{"patch", "gsv", "old", "-n", "team-a", "--type=merge", "-p", `{"spec":{"suspend":true}}`}},
		{"", []string{"annotate", "gsv", "fresh", "-n", "team-a", "note=" + long, "--overwrite", "--as=" + manager}},
		{"", []string{"delete", "gsv,gconn", "old", "-n", "team-a"}},
	} {
		server.run(t, row.object, append(row.args, "--dry-run=server")...)
	}
}
