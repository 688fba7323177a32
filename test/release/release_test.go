// Package release tests how a release is made: the workflows, the image, and the recipes of the Makefile, with stand-ins for docker, cosign,
// gh and the registry.
package release

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

type workflow struct {
	Permissions map[string]string `json:"permissions"`
	Jobs        map[string]struct {
		Needs       any               `json:"needs"`
		Permissions map[string]string `json:"permissions"`
		Steps       []struct {
			Uses string         `json:"uses"`
			Run  string         `json:"run"`
			With map[string]any `json:"with"`
		} `json:"steps"`
	} `json:"jobs"`
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), ".github", "workflows", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("workflows: %v, %v", files, err)
	}
	found := map[string]workflow{}
	for _, file := range files {
		var w workflow
		if err := yaml.Unmarshal([]byte(text(t, ".github", "workflows", filepath.Base(file))), &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		found[filepath.Base(file)] = w
	}
	return found
}

// TestJobsHaveTheRightsOfTheirOwn: no workflow has rights, each job names its own, and only the job that signs can get an identity.
func TestJobsHaveTheRightsOfTheirOwn(t *testing.T) {
	got := map[string]map[string]string{}
	for file, w := range workflows(t) {
		if w.Permissions == nil || len(w.Permissions) > 0 {
			t.Errorf("%s gives every job %v", file, w.Permissions)
		}
		for name, job := range w.Jobs {
			got[file+" "+name] = job.Permissions
		}
	}
	want := map[string]map[string]string{
		"ci.yaml test":        {"contents": "read"},
		"ci.yaml test-oldest": {"contents": "read"},
		"ci.yaml vulncheck":   {"contents": "read"},
		"release.yaml test":   {"contents": "read"},
		"release.yaml build":  {"contents": "read", "packages": "write"},
		"release.yaml sign":   {"contents": "write", "packages": "write", "id-token": "write"},
	}
	if !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("rights are %v, want %v", got, want)
	}
}

// TestReleaseIsTestedBuiltAndSigned: each job of the release waits for the one before it.
func TestReleaseIsTestedBuiltAndSigned(t *testing.T) {
	jobs := workflows(t)["release.yaml"].Jobs
	for job, needs := range map[string]any{"test": nil, "build": "test", "sign": "build"} {
		if jobs[job].Needs != needs {
			t.Errorf("%s needs %v, want %v", job, jobs[job].Needs, needs)
		}
	}
	for _, step := range jobs["sign"].Steps {
		if step.Run != "" && step.Run != "make release-login" && step.Run != "make release-sign" {
			t.Errorf("the job that can get an identity runs %q", step.Run)
		}
	}
}

// TestActionsArePinned: an action is a commit, not a tag that can be moved, and leaves no token behind.
func TestActionsArePinned(t *testing.T) {
	for file, w := range workflows(t) {
		for name, job := range w.Jobs {
			for _, step := range job.Steps {
				if step.Uses != "" && !regexp.MustCompile(`^[a-z/-]+@[0-9a-f]{40}$`).MatchString(step.Uses) {
					t.Errorf("%s, %s: %s is not pinned to a commit", file, name, step.Uses)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != false {
					t.Errorf("%s, %s: the checkout keeps its token", file, name)
				}
			}
		}
	}
}

// TestImagesArePinned: the image is made of images by digest, with the Go of go.mod.
func TestImagesArePinned(t *testing.T) {
	var images []string
	for _, from := range regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`).FindAllStringSubmatch(text(t, "Dockerfile"), -1) {
		images = append(images, from[1])
		if !regexp.MustCompile(`@sha256:[0-9a-f]{64}$`).MatchString(from[1]) {
			t.Errorf("%s is not pinned to a digest", from[1])
		}
	}
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(text(t, "go.mod"))
	if want := "golang:" + version[1] + "@"; len(images) == 0 || !strings.HasPrefix(images[0], want) {
		t.Errorf("the first image is %v, want %s", images, want)
	}
}

// TestDependabotKnowsWhatIsPinned: each module, the actions and the images are updated.
func TestDependabotKnowsWhatIsPinned(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string   `json:"package-ecosystem"`
			Directory   string   `json:"directory"`
			Directories []string `json:"directories"`
		} `json:"updates"`
	}
	if err := yaml.Unmarshal([]byte(text(t, ".github", "dependabot.yml")), &config); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, update := range config.Updates {
		for _, directory := range append(update.Directories, update.Directory) {
			if directory != "" {
				got = append(got, update.Ecosystem+" "+directory)
			}
		}
	}
	want := []string{"docker /", "github-actions /", "gomod /"}
	modules, err := filepath.Glob(filepath.Join(root(t), "hack", "*", "go.mod"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("modules: %v, %v", modules, err)
	}
	for _, module := range modules {
		want = append(want, "gomod /hack/"+filepath.Base(filepath.Dir(module)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("Dependabot updates %v, want %v", got, want)
	}
}

const (
	imageDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	chartDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	registry    = "ghcr.io/securevalues-io"
)

// TestReleaseFiles: what is released names the image by the digest that was pushed, and image and chart are signed by theirs.
func TestReleaseFiles(t *testing.T) {
	r := newRelease(t)
	r.make("release-build")
	dist := filepath.Join(r.dir, "dist")
	image := registry + "/grafana-secure-value-operator"
	if manifest := read(t, filepath.Join(dist, "install.yaml")); !strings.Contains(manifest, "image: "+image+":1.2.3@"+imageDigest+"\n") {
		t.Errorf("install.yaml names the image otherwise:\n%s", strings.Join(regexp.MustCompile(`image: .*`).FindAllString(manifest, -1), "\n"))
	}
	rendered := r.run(r.helm, "template", "release", filepath.Join(dist, "grafana-secure-value-operator-1.2.3.tgz"))
	if !strings.Contains(rendered, "image: "+image+"@"+imageDigest+"\n") {
		t.Errorf("the chart names the image otherwise:\n%s", strings.Join(regexp.MustCompile(`image: .*`).FindAllString(rendered, -1), "\n"))
	}
	if strings.Contains(r.calls(), "cosign") {
		t.Errorf("signed before the job that signs:\n%s", r.calls())
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "checksums.txt")
	check.Dir = dist
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 4+len(platforms) {
		t.Errorf("checksums: %v\n%s", err, out)
	}

	r.make("release-sign")
	for _, want := range []string{
		"cosign sign --yes " + image + "@" + imageDigest,
		"cosign sign --yes " + registry + "/charts/grafana-secure-value-operator@" + chartDigest,
		"cosign sign-blob --yes --bundle dist/checksums.txt.sigstore.json dist/checksums.txt",
	} {
		if !strings.Contains(r.calls(), want+"\n") {
			t.Errorf("not called: %s\ncalled:\n%s", want, r.calls())
		}
	}
	calls := strings.Split(strings.TrimSpace(r.calls()), "\n")
	if last := calls[len(calls)-1]; !strings.HasPrefix(last, "gh release create v1.2.3 ") {
		t.Errorf("the release is not made last, but %s", last)
	} else {
		files := []string{"install.yaml", "sbom.cdx.json", "checksums.txt", "grafana-secure-value-operator-1.2.3.tgz", "gsv.yaml"}
		for _, platform := range platforms {
			files = append(files, archiveOf(platform))
		}
		for _, file := range files {
			if !strings.Contains(last+" ", " dist/"+file+" ") {
				t.Errorf("the release lacks %s: %s", file, last)
			}
		}
	}
}

// platforms are what the plugin is built for.
var platforms = []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64", "windows_arm64"}

func archiveOf(platform string) string { return "kubectl-gsv_" + platform + ".tar.gz" }

// TestPluginManifest: krew finds each archive by its checksum, and in it the program that the manifest names, and the licence.
func TestPluginManifest(t *testing.T) {
	r := newRelease(t)
	r.make("release-plugin")
	var manifest struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version, Homepage, ShortDescription, Description string
			Platforms                                        []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, SHA256, Bin string
			}
		}
	}
	dist := filepath.Join(r.dir, "dist")
	if err := yaml.UnmarshalStrict([]byte(read(t, filepath.Join(dist, "gsv.yaml"))), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Kind != "Plugin" || manifest.Metadata.Name != "gsv" || manifest.Spec.Version != "v1.2.3" || len(manifest.Spec.ShortDescription) > 50 {
		t.Errorf("manifest: %+v", manifest)
	}
	var got []string
	for _, p := range manifest.Spec.Platforms {
		platform := p.Selector.MatchLabels["os"] + "_" + p.Selector.MatchLabels["arch"]
		got = append(got, platform)
		archive := filepath.Join(dist, archiveOf(platform))
		if want := "https://github.com/securevalues-io/grafana-secure-value-operator/releases/download/v1.2.3/" + archiveOf(platform); p.URI != want {
			t.Errorf("%s is at %s, want %s", platform, p.URI, want)
		}
		if sum, _, _ := strings.Cut(r.run("sha256sum", archive), " "); sum != p.SHA256 {
			t.Errorf("the checksum of %s is %s, want %s", platform, p.SHA256, sum)
		}
		if files := strings.Fields(r.run("tar", "--list", "--file", archive)); !slices.Equal(files, []string{p.Bin, "LICENSE"}) {
			t.Errorf("%s has %v", platform, files)
		}
		if strings.HasPrefix(platform, "windows") != strings.HasSuffix(p.Bin, ".exe") {
			t.Errorf("%s has %s", platform, p.Bin)
		}
	}
	if !slices.Equal(got, platforms) {
		t.Errorf("built for %v, want %v", got, platforms)
	}
}

// TestNothingIsSignedWithoutADigest: an image that was not pushed is neither named nor signed.
func TestNothingIsSignedWithoutADigest(t *testing.T) {
	for _, target := range []string{"release-files", "release-sign"} {
		r := newRelease(t)
		if out, err := r.try(target); err == nil || strings.Contains(r.calls(), "cosign") {
			t.Errorf("%s: %v\n%s\n%s", target, err, out, r.calls())
		}
	}
}

// TestVerifyIsDocumented: the commands of the page name what the workflow signs, and who signs it.
func TestVerifyIsDocumented(t *testing.T) {
	_, section, found := strings.Cut(text(t, "docs", "operations.md"), "\n## Verify a release\n")
	if !found {
		t.Fatal("docs/operations.md has no section \"Verify a release\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, want := range []string{
		"cosign verify", "cosign verify-blob", "--bundle checksums.txt.sigstore.json",
		registry + "/grafana-secure-value-operator:", registry + "/charts/grafana-secure-value-operator:",
		"https://github.com/securevalues-io/grafana-secure-value-operator/.github/workflows/release.yaml@refs/tags/v",
		"https://token.actions.githubusercontent.com",
	} {
		if !strings.Contains(section, want) {
			t.Errorf("the section lacks %q", want)
		}
	}
}

// release is a copy of the project in which recipes of the Makefile are run. What they call instead of docker, cosign and gh is written down.
type release struct {
	t                   *testing.T
	dir, bin, log, helm string
}

func newRelease(t *testing.T) *release {
	t.Helper()
	r := &release{t: t, dir: t.TempDir(), bin: t.TempDir()}
	r.log = filepath.Join(r.bin, "calls")
	write(t, r.log, "")
	for _, path := range []string{"charts", "config", "hack/helm-unittest", "hack/promtool"} {
		if err := os.CopyFS(filepath.Join(r.dir, path), os.DirFS(filepath.Join(root(t), path))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"Makefile", "go.mod", "CHANGELOG.md", "LICENSE"} {
		write(t, filepath.Join(r.dir, file), text(t, file))
	}
	if err := os.Mkdir(filepath.Join(r.dir, "dist"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.dir, "dist", "sbom.cdx.json"), "{}")
	var err error
	if r.helm, err = helm.Helm(); err != nil {
		t.Fatal(err)
	}
	binaries, err := assets.Find()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(binaries, "kubectl"), filepath.Join(r.bin, "kubectl")); err != nil {
		t.Fatal(err)
	}
	r.script("docker", `while [ $# -gt 0 ]; do [ "$1" = --metadata-file ] && printf '{\n  "containerimage.digest": "`+imageDigest+`"\n}\n' > "$2"; shift; done`)
	r.script("helm", `[ "$1" = push ] || exec `+r.helm+` "$@"; printf 'Pushed: %s\nDigest: `+chartDigest+`\n' "$3" >&2`)
	r.script("cosign", "")
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	r.script("go", `[ "$1" = build ] || exec `+goTool+` "$@"; while [ $# -gt 0 ]; do [ "$1" = -o ] && echo "$GOOS $GOARCH" > "$2"; shift; done`)
	r.script("gh", "")
	return r
}

// script makes a program that writes down how it was called, and then does what the body says.
func (r *release) script(name, body string) {
	r.t.Helper()
	path := filepath.Join(r.bin, name)
	write(r.t, path, "#!/bin/sh\necho "+name+" \"$@\" >> "+r.log+"\n"+body+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r *release) try(target string) (string, error) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "make", "--no-print-directory", target,
		"VERSION=v1.2.3", "HELM="+filepath.Join(r.bin, "helm"), "COSIGN=cosign", "CYCLONEDX=true")
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *release) make(target string) {
	r.t.Helper()
	if out, err := r.try(target); err != nil {
		r.t.Fatalf("make %s: %v\n%s", target, err, out)
	}
}

func (r *release) run(name string, args ...string) string {
	r.t.Helper()
	out, err := exec.CommandContext(r.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func (r *release) calls() string {
	r.t.Helper()
	return read(r.t, r.log)
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := helm.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func text(t *testing.T, path ...string) string {
	t.Helper()
	return read(t, filepath.Join(append([]string{root(t)}, path...)...))
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
