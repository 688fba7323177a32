package docs

import (
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// object is what an example is, as far as it could hurt somebody.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		URL string `json:"url"`
	} `json:"spec"`
}

// own are the namespaces that examples make, or the operator lives in. No name in them is another's.
var own = []string{"grafana-secure-value-operator-system", "secure-values-team-a"}

// TestExamplesHurtNobody: who applies an example as it is overwrites nothing that may be there, stores no made-up secret, sends no token to a
// host that exists, and shares no cluster id.
func TestExamplesHurtNobody(t *testing.T) {
	read := 0
	for file, content := range examples(t) {
		for _, wrong := range []string{`(?i)REPLACE`, `(?m)^ *clusterID: *\w`, `securevalues-io/grafana-secure-value-operator\.git`} {
			if found := regexp.MustCompile(wrong).FindString(content); found != "" {
				t.Errorf("%s has %q", file, found)
			}
		}
		for document := range strings.SplitSeq(content, "\n---\n") {
			var o object
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if o.Metadata.Name == "" { // of kustomize
				continue
			}
			read++
			switch {
			case o.Kind == "Secret":
				t.Errorf("%s has the Secret %s", file, o.Metadata.Name)
			case o.Kind == "ConfigMap" && o.Metadata.Name == "argocd-cm": // is merged into the one of Argo CD
			case !strings.HasPrefix(o.Metadata.Name, "secure-values-") && !slices.Contains(own, o.Metadata.Namespace) &&
				!slices.Contains(own, o.Metadata.Name):
				t.Errorf("%s: the %s %q may be another's, want a name that begins with secure-values-", file, o.Kind, o.Metadata.Name)
			}
			if at, err := url.Parse(o.Spec.URL); strings.HasSuffix(o.Kind, "GrafanaConnection") && (err != nil || at.Hostname() != "grafana.example.com") {
				t.Errorf("%s: the %s sends its token to %s", file, o.Kind, o.Spec.URL)
			}
		}
	}
	if read == 0 {
		t.Error("no examples")
	}
}

// examples returns the YAML that people may apply, by its path.
func examples(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{"examples", filepath.Join("config", "samples"), filepath.Join("config", "argocd")} {
		err := filepath.WalkDir(filepath.Join(root(t), dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".yaml" && !strings.Contains(path, "resource_customizations") {
				name, err := filepath.Rel(root(t), path)
				if err != nil {
					return err
				}
				found[name] = text(t, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
