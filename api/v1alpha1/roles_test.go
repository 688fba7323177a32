package v1alpha1_test

import (
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

func TestUserRoles(t *testing.T) {
	const aggregate = "rbac.authorization.k8s.io/aggregate-to-"
	given := map[string]string{
		"grafanasecurevalue-viewer-role":    "view",
		"grafanasecurevalue-editor-role":    "edit",
		"grafanasecurevalueset-viewer-role": "view",
		"grafanasecurevalueset-editor-role": "edit",
		"grafanaconnection-viewer-role":     "view",
		"grafanaconnection-editor-role":     "admin",
	}
	count := 0
	for _, file := range manifests(t, "rbac") {
		if !strings.HasPrefix(strings.TrimPrefix(filepath.Base(file), "cluster"), "grafana") {
			continue
		}
		count++
		var role rbacv1.ClusterRole
		if err := yaml.UnmarshalStrict(read(t, file), &role); err != nil {
			t.Fatal(err)
		}
		var to []string
		for label := range role.Labels {
			if rest, found := strings.CutPrefix(label, aggregate); found {
				to = append(to, rest)
			}
		}
		if got := strings.Join(to, ","); got != given[role.Name] {
			t.Errorf("%s is aggregated to %q, want %q", role.Name, got, given[role.Name])
		}
		for _, rule := range role.Rules {
			if got := strings.Join(rule.Resources, ","); strings.ContainsAny(got, "/*") {
				t.Errorf("%s gives rights on %s, want the objects alone and not their status", role.Name, got)
			}
		}
	}
	if count != 12 {
		t.Errorf("got %d roles, want a viewer, an editor and an admin of each of four kinds", count)
	}
}
