package docs

import (
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

// TestFunctions: the page has each function that a template may call, once, and no other.
func TestFunctions(t *testing.T) {
	compare(t, "values.md", table(t, text(t, "docs/values.md"), "| function |"), source.Functions())
}

// TestTemplates: each template of the page makes a value.
func TestTemplates(t *testing.T) {
	keys := map[string][]byte{}
	for _, key := range []string{"user", "password", "host", "tls.crt", "tls.key", "ca.crt"} {
		keys[key] = []byte("<" + key + ">\n")
	}
	var results []string
	for _, block := range blocks(text(t, "docs/values.md"), "yaml") {
		sv := &v1alpha1.GrafanaSecureValue{}
		if err := yaml.UnmarshalStrict([]byte(block), sv); err != nil {
			t.Fatal(err)
		}
		template := sv.Spec.ValueFrom.Template
		if template == nil {
			continue
		}
		secrets := map[string]map[string][]byte{}
		for _, ref := range template.SecretRefs {
			secrets[ref.Alias()] = keys
		}
		result, err := source.Render(t.Context(), template.Text, secrets)
		if err != nil {
			t.Errorf("%s: %v", sv.Name, err)
		}
		results = append(results, string(result))
	}
	want := []string{
		"postgres://%3Cuser%3E%0A:%3Cpassword%3E%0A@<host>\n/app",
		"<tls.crt>\n<tls.key>\n<ca.crt>\n",
		`{"auths":{"\u003chost\u003e\n":{"auth":"PHVzZXI+Cjo8cGFzc3dvcmQ+Cg=="}}}`,
	}
	if !slices.Equal(results, want) {
		t.Errorf("%q, want %q", results, want)
	}
}
