// Package chart tests what helm-unittest cannot: renderings against an API server and config/default, and values against schema and README.
package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

func TestUnits(t *testing.T) {
	unittest, err := helm.Unittest()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), unittest, "--strict", chartDir(t)).CombinedOutput()
	if err != nil {
		t.Errorf("helm-unittest: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("Test Suites: ")) {
		t.Errorf("helm-unittest ran no suites:\n%s", out)
	}
}

// kubeVersion is of the cluster that helm renders for. A helm that go builds does not know a version of its own.
var kubeVersion = assets.Series(assets.Versions[0]) + ".0"

// TestHelm3AndHelm4: both take the chart with all files of values, and render the same.
func TestHelm3AndHelm4(t *testing.T) {
	helm3 := helm3(t)
	for name, file := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			chart := chartDir(t)
			run(t, "lint", "--strict", chart, "--values", file)
			runWith(t, helm3, "lint", "--strict", chart, "--values", file)
			args := []string{"template", "release", chart, "--namespace", "release", "--values", file, "--kube-version", kubeVersion}
			got, want := byName(objects(t, runWith(t, helm3, args...))), byName(objects(t, run(t, args...)))
			if len(want) == 0 || len(got) != len(want) {
				t.Errorf("Helm 3 renders %d objects, Helm 4 %d", len(got), len(want))
			}
			for name, o := range want {
				if !reflect.DeepEqual(got[name], o) {
					t.Errorf("Helm 3 renders %s\n%s\nHelm 4\n%s", name, encode(t, got[name]), encode(t, o))
				}
			}
		})
	}
}

// TestRefusals: what a value cannot do is refused, by Helm 3 and Helm 4, with what to do.
func TestRefusals(t *testing.T) {
	chart := chartDir(t)
	for _, program := range []string{helm4(t), helm3(t)} {
		for set, want := range map[string]string{
			"image.tag=dev":                      "image.repository is required, for example image.repository=YOUR-REGISTRY/grafana-secure-value-operator",
			"image.repository=operator,crd.on=1": "additional properties 'crd' not allowed",
		} {
			out, err := tryWith(t, program, "template", "release", chart, "--set", set, "--kube-version", kubeVersion)
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%s template --set %s: %v, and not %q\n%s", filepath.Base(program), set, err, want, out)
			}
		}
	}
}

// TestIcon: the icon that the chart names is in the repository.
func TestIcon(t *testing.T) {
	var chart struct {
		Home string `json:"home"`
		Icon string `json:"icon"`
	}
	readYAML(t, filepath.Join(chartDir(t), "Chart.yaml"), &chart)
	repository := strings.Replace(chart.Home, "https://github.com/", "https://raw.githubusercontent.com/", 1) + "/main/"
	path, found := strings.CutPrefix(chart.Icon, repository)
	if _, err := os.Stat(filepath.Join(rootDir(t), path)); !found || err != nil {
		t.Errorf("icon %s is not a file of %s: %v", chart.Icon, repository, err)
	}
}

// TestEveryValueIsTurnedByAUnitTest holds the suites of the chart to all its values.
func TestEveryValueIsTurnedByAUnitTest(t *testing.T) {
	suites, err := filepath.Glob(filepath.Join(chartDir(t), "tests", "*_test.yaml"))
	if err != nil || len(suites) == 0 {
		t.Fatalf("suites: %v, %v", suites, err)
	}
	turned := map[string][]string{}
	for _, file := range suites {
		if filepath.Base(file) == "schema_test.yaml" {
			continue // its values are refused
		}
		var suite struct {
			Suite string `json:"suite"`
			Tests []struct {
				It  string         `json:"it"`
				Set map[string]any `json:"set"`
			} `json:"tests"`
		}
		readYAML(t, file, &suite)
		for _, test := range suite.Tests {
			for key, value := range test.Set {
				for _, path := range leaves(key, value) {
					turned[path] = append(turned[path], suite.Suite+": "+test.It)
				}
			}
		}
	}
	documented := documentedValues(t)
	if len(documented) == 0 {
		t.Fatal("the README of the chart documents no value")
	}
	for _, path := range documented {
		var tests []string
		for set, by := range turned {
			if set == path || strings.HasPrefix(set, path+".") {
				tests = append(tests, by...)
			}
		}
		if len(tests) == 0 {
			t.Errorf("no unit test of the chart turns %s", path)
			continue
		}
		t.Logf("| `%s` | %s |", path, strings.Join(slices.Compact(slices.Sorted(slices.Values(tests))), "; "))
	}
}

// documentedValues returns the values in the table of the README. Each must have a description.
func documentedValues(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(chartDir(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "\n## Values\n")
	var paths []string
	for _, row := range regexp.MustCompile("(?m)^\\| ([A-Za-z.]+) \\| .* \\| `.*` \\|(.*)\\|$").FindAllStringSubmatch(table, -1) {
		paths = append(paths, row[1])
		if strings.TrimSpace(row[2]) == "" {
			t.Errorf("%s has no description: begin a comment above it in values.yaml with --", row[1])
		}
	}
	return paths
}

// TestSchema: what values.yaml has is in the schema, what the schema has is in values.yaml, and nothing else is taken.
func TestSchema(t *testing.T) {
	var schema map[string]any
	readYAML(t, filepath.Join(chartDir(t), "values.schema.json"), &schema)
	var compare func(path string, schema, values map[string]any)
	compare = func(path string, schema, values map[string]any) {
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			return // any keys
		}
		if schema["additionalProperties"] != false && path != "global." { // which other charts share
			t.Errorf("the schema takes any key of %q", path)
		}
		for key, value := range values {
			property, ok := properties[key].(map[string]any)
			if !ok {
				t.Errorf("the schema lacks %s%s", path, key)
				continue
			}
			if value, ok := value.(map[string]any); ok {
				compare(path+key+".", property, value)
			}
		}
	}
	compare("", schema, values(t))
	for key := range schema["properties"].(map[string]any) {
		if _, ok := values(t)[key]; !ok {
			t.Errorf("values.yaml lacks %s", key)
		}
	}
}

func TestKubeVersionIsTheOldestOfTheTests(t *testing.T) {
	var chart struct {
		KubeVersion string `json:"kubeVersion"`
	}
	readYAML(t, filepath.Join(chartDir(t), "Chart.yaml"), &chart)
	if want := ">=" + assets.Series(assets.Versions[0]) + ".0-0"; chart.KubeVersion != want {
		t.Errorf("kubeVersion = %q, want %q", chart.KubeVersion, want)
	}
}

// TestPackageLeavesTestsOut: what is installed holds what is needed to install.
func TestPackageLeavesTestsOut(t *testing.T) {
	dir := t.TempDir()
	run(t, "package", chartDir(t), "--destination", dir)
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives: %v, %v", archives, err)
	}
	out, err := exec.CommandContext(t.Context(), "tar", "tzf", archives[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	for _, file := range files {
		if strings.Contains(file, "/tests/") || strings.Contains(file, "/ci/") {
			t.Errorf("the package holds %s", file)
		}
	}
	for _, file := range []string{"files/role.yaml", "files/crds/grafana.securevalues.io_grafanasecurevalues.yaml", "values.schema.json", "README.md"} {
		if !slices.Contains(files, "grafana-secure-value-operator/"+file) {
			t.Errorf("the package lacks %s", file)
		}
	}
}

// object is one object of a rendering.
type object = map[string]any

func render(t *testing.T, chart string, args ...string) []object {
	t.Helper()
	return objects(t, manifests(t, chart, args...))
}

// manifests returns what is installed with an image and further arguments.
func manifests(t *testing.T, chart string, args ...string) string {
	t.Helper()
	return run(t, append([]string{
		"template", "release", chart, "--namespace", "release", "--skip-tests",
		"--set", "image.repository=registry.example.com/operator",
	}, args...)...)
}

// byName returns the objects by kind, namespace and name.
func byName(objects []object) map[string]object {
	found := map[string]object{}
	for _, o := range objects {
		found[fmt.Sprintf("%v %v/%s", o["kind"], at(o, "metadata", "namespace"), name(o))] = o
	}
	return found
}

// objects returns the documents of a YAML stream.
func objects(t *testing.T, stream string) []object {
	t.Helper()
	var found []object
	for document := range strings.SplitSeq("\n"+stream, "\n---") {
		var o object
		if err := yaml.Unmarshal([]byte(document+"\n"), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(o) > 0 {
			found = append(found, o)
		}
	}
	return found
}

// only returns the one object of a kind.
func only(t *testing.T, objects []object, kind string) object {
	t.Helper()
	found := ofKind(objects, kind)
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s, want 1", len(found), kind)
	}
	return found[0]
}

func ofKind(objects []object, kind string) []object {
	var found []object
	for _, o := range objects {
		if o["kind"] == kind {
			found = append(found, o)
		}
	}
	return found
}

// at returns what is below the keys; a number is the index of a list.
func at(v any, keys ...any) any {
	for _, key := range keys {
		switch key := key.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[key]
		case int:
			l, _ := v.([]any)
			if key >= len(l) {
				return nil
			}
			v = l[key]
		}
	}
	return v
}

func name(o object) string { return fmt.Sprint(at(o, "metadata", "name")) }

// leaves returns the paths of all that is no map with keys, at the prefix and below.
func leaves(prefix string, v any) []string {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		return []string{prefix}
	}
	var paths []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		paths = append(paths, leaves(prefix+"."+key, m[key])...)
	}
	return paths
}

func values(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	readYAML(t, filepath.Join(chartDir(t), "values.yaml"), &v)
	return v
}

// valuesFiles returns the files of values that the chart is tried with, by name.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(chartDir(t), "ci", "*-values.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("files of values: %v, %v", paths, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = path
	}
	return files
}

// chartDir returns the directory of a copy of the chart, so that go test sees which files the test depends on.
func chartDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(helm.Chart))
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(rootDir(t), helm.Chart))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func rootDir(t *testing.T) string { t.Helper(); return found(t, helm.Root) }

func helm4(t *testing.T) string { t.Helper(); return found(t, helm.Helm) }

func helm3(t *testing.T) string { t.Helper(); return found(t, helm.Helm3) }

// found returns a path that must be there.
func found(t *testing.T, find func() (string, error)) string {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs helm, which must succeed, and returns its output.
func run(t *testing.T, args ...string) string {
	t.Helper()
	return runWith(t, helm4(t), args...)
}

func runWith(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := tryWith(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

// tryWith runs a helm, without the settings of the person who runs it.
func tryWith(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
