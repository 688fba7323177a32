package assets_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

const platform = runtime.GOOS + "-" + runtime.GOARCH

func TestFind(t *testing.T) {
	for name, test := range map[string]struct {
		wanted               string   // K8S
		complete, incomplete []string // directories of the store
		want                 string   // and the error ErrMissing if empty
	}{
		"an empty store":             {},
		"our release":                {complete: []string{"1.37.2-" + platform}, want: "1.37.2-" + platform},
		"the newest, by number":      {complete: []string{"1.37.9-" + platform, "1.37.10-" + platform}, want: "1.37.10-" + platform},
		"another minor version":      {complete: []string{"1.36.2-" + platform, "1.370.0-" + platform}},
		"another platform":           {complete: []string{"1.37.2-plan9-arm"}},
		"a binary is missing":        {incomplete: []string{"1.37.2-" + platform}},
		"the newest is not complete": {complete: []string{"1.37.0-" + platform}, incomplete: []string{"1.37.2-" + platform}, want: "1.37.0-" + platform},
		"a release beats a preview":  {complete: []string{"1.37.0-rc.1-" + platform, "1.37.0-" + platform}, want: "1.37.0-" + platform},
		"the one of K8S":             {wanted: "1.34", complete: []string{"1.34.0-" + platform, "1.37.2-" + platform}, want: "1.34.0-" + platform},
		"the one of K8S is missing":  {wanted: "1.34", complete: []string{"1.37.2-" + platform}},
		"the oldest":                 {wanted: "oldest", complete: []string{"1.31.9-" + platform, "1.37.2-" + platform}, want: "1.31.9-" + platform},
	} {
		t.Run(name, func(t *testing.T) {
			store := emptyStore(t)
			t.Setenv(assets.Env, test.wanted)
			for _, dir := range test.complete {
				fill(t, filepath.Join(store, "k8s", dir), assets.Binaries)
			}
			for _, dir := range test.incomplete {
				fill(t, filepath.Join(store, "k8s", dir), assets.Binaries[1:])
			}
			got, err := assets.Find()
			if test.want == "" {
				if !errors.Is(err, assets.ErrMissing) {
					t.Errorf("Find() = %q, %v, want ErrMissing", got, err)
				}
				return
			}
			if want := filepath.Join(store, "k8s", test.want); got != want || err != nil {
				t.Errorf("Find() = %q, %v, want %q", got, err, want)
			}
		})
	}
}

func TestFindPrefersTheEnvironment(t *testing.T) {
	store := emptyStore(t)
	fill(t, assets.Dir(store, assets.Newest()), assets.Binaries)
	own := filepath.Join(t.TempDir(), "own")
	t.Setenv("KUBEBUILDER_ASSETS", own)

	if got, err := assets.Find(); err == nil || !strings.Contains(err.Error(), "KUBEBUILDER_ASSETS") {
		t.Errorf("Find() = %q, %v, want an error that names the variable", got, err)
	}
	fill(t, own, assets.Binaries)
	if got, err := assets.Find(); got != own || err != nil {
		t.Errorf("Find() = %q, %v, want %q", got, err, own)
	}
}

func TestFindSaysWhatIsSupported(t *testing.T) {
	for wanted, message := range map[string]string{
		"1.30":   "use oldest, or one of 1.31, 1.32, ",
		"1.37.2": "1.37",
		"1.31":   "run `make envtest K8S=1.31`",
		"oldest": "run `make envtest K8S=1.31`",
	} {
		emptyStore(t)
		t.Setenv(assets.Env, wanted)
		if _, err := assets.Find(); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: error = %v, want one that says %q", wanted, err, message)
		}
	}
}

// TestVersionsHaveNoGap: each minor version between the oldest and the newest is supported.
func TestVersionsHaveNoGap(t *testing.T) {
	for i, version := range assets.Versions {
		if want := fmt.Sprintf("1.%d", 31+i); assets.Series(version) != want {
			t.Errorf("Versions[%d] = %s, want a release of %s", i, version, want)
		}
	}
}

// TestNewestIsWhatIsBuilt compares the two places that name the newest release: this package and the module that is built.
func TestNewestIsWhatIsBuilt(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "..", "hack", "controlplane", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`\bk8s\.io/kubernetes v(\S+)`).FindSubmatch(mod)
	if required == nil || string(required[1]) != assets.Newest() {
		t.Errorf("hack/controlplane requires %q, want %s", required, assets.Newest())
	}
	staged := strings.Replace(assets.Newest(), "1.", "0.", 1)
	for _, replaced := range regexp.MustCompile(`=> (k8s\.io/\S+) v(\S+)`).FindAllSubmatch(mod, -1) {
		if string(replaced[2]) != staged {
			t.Errorf("hack/controlplane replaces %s by v%s, want v%s", replaced[1], replaced[2], staged)
		}
	}
}

// emptyStore makes an empty store the one that is searched, and returns its directory.
func emptyStore(t *testing.T) string {
	t.Helper()
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Setenv(assets.Env, "")
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	store, err := assets.Store()
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// fill makes dir with files of the given names.
func fill(t *testing.T, dir string, names []string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
