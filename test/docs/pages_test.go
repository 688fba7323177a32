package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// TestLinks: what a page links to in this project is there, with the heading that is named.
func TestLinks(t *testing.T) {
	links := 0
	for file, content := range pages(t) {
		for _, target := range all(withoutCode(content), `\]\(([^)\s]+)\)`) {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			path, heading, named := strings.Cut(target, "#")
			to := file
			if path != "" {
				to = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(filepath.Join(root(t), to)); err != nil {
				t.Errorf("%s links to %s, which is not there", file, target)
				continue
			}
			if named && !slices.Contains(headings(text(t, to)), heading) {
				t.Errorf("%s links to %s, and there is no such heading", file, target)
			}
		}
	}
	if links == 0 {
		t.Error("no links")
	}
}

// TestReadmeIsShort: the README has 600 to 900 words, as wc counts them, and its pictures fit a narrow window.
func TestReadmeIsShort(t *testing.T) {
	page := text(t, "README.md")
	if words := len(strings.Fields(page)); words < 600 || words > 900 {
		t.Errorf("README.md has %d words, want 600 to 900: move the rest to docs", words)
	}
	for _, block := range fence.FindAllString(page, -1) {
		for line := range strings.SplitSeq(block, "\n") {
			if columns := utf8.RuneCountInString(line); columns > 100 {
				t.Errorf("README.md has a line of %d columns in a block, want 100 at most:\n%s", columns, line)
			}
		}
	}
}

// foreign are the groups of other projects in the pages, whose kinds the server does not have.
var foreign = []string{
	"argoproj.io/", "external-secrets.io/", "generators.external-secrets.io/", "grafana.integreatly.org/", "helm.toolkit.fluxcd.io/", "kustomize.config.k8s.io/",
	"kustomize.toolkit.fluxcd.io/", "source.toolkit.fluxcd.io/", "monitoring.coreos.com/",
}

// TestYAML: an API server with our CRDs accepts each object in a block of YAML and in config/samples, and all YAML can be parsed.
func TestYAML(t *testing.T) {
	plane := controlplane.StartForTest(t, controlplane.Options{CRDDirectories: []string{filepath.Join(root(t), "config", "crd", "bases")}})
	kubectl := func(input string, args ...string) error {
		command := exec.CommandContext(t.Context(), plane.KubectlPath(), append(args, "--kubeconfig", plane.KubeconfigPath(), "-f", "-")...)
		command.Stdin = strings.NewReader(input)
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	found := map[string][]string{}
	for file, content := range pages(t) {
		found[file] = blocks(content, "yaml")
	}
	samples, err := filepath.Glob(filepath.Join(root(t), "config", "samples", "grafana_*.yaml"))
	if err != nil || len(samples) == 0 {
		t.Fatalf("samples: %v, %v", samples, err)
	}
	for _, sample := range samples {
		file := filepath.Join("config", "samples", filepath.Base(sample))
		found[file] = []string{text(t, file)}
	}
	namespaces, taken := map[string]bool{}, 0
	for file, blocks := range found {
		for _, block := range blocks {
			for document := range strings.SplitSeq(block, "\n---\n") {
				var o struct {
					APIVersion string `json:"apiVersion"`
					Kind       string `json:"kind"`
					Metadata   struct {
						Namespace string `json:"namespace"`
					} `json:"metadata"`
				}
				if err := yaml.Unmarshal([]byte(document), &o); err != nil {
					t.Errorf("%s: %v in\n%s", file, err, document)
					continue
				}
				other := func(group string) bool { return strings.HasPrefix(o.APIVersion, group) }
				if o.APIVersion == "" || slices.ContainsFunc(foreign, other) {
					continue
				}
				if ns := o.Metadata.Namespace; ns != "" && ns != "default" && !namespaces[ns] {
					namespaces[ns] = true
					if err := kubectl("{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+"}}", "create"); err != nil {
						t.Fatal(err)
					}
				}
				if err := kubectl(document, "apply", "--server-side", "--dry-run=server", "--validate=strict"); err != nil {
					t.Errorf("%s: %v in\n%s", file, err, document)
				}
				taken++
			}
		}
	}
	if taken == 0 {
		t.Error("no objects")
	}
}

// pages returns the Markdown of the project, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root(t), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules"}, entry.Name()) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			name, err := filepath.Rel(root(t), path)
			if err != nil {
				return err
			}
			found[name] = text(t, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var fence = regexp.MustCompile("(?ms)^( *)```([a-z]*)\n(.*?)^ *```$")

func withoutCode(page string) string { return fence.ReplaceAllString(page, "") }

// blocks returns the code of that language in a page, without what indents it.
func blocks(page, language string) []string {
	var found []string
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		if block[2] == language {
			lines := bytes.ReplaceAll([]byte("\n"+block[3]), []byte("\n"+block[1]), []byte("\n"))
			found = append(found, string(lines[1:]))
		}
	}
	return found
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)

// headings returns the anchors of the headings of a page, as GitHub makes them.
func headings(page string) []string {
	var found []string
	for _, heading := range all(withoutCode(page), `(?m)^#+ (.+)$`) {
		found = append(found, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-"))
	}
	return found
}
