package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

// module is what these tests compare of `go mod edit -json`.
type module struct {
	Require, Tool []struct{ Path, Version string }
	Replace       []struct {
		Old, New struct{ Path, Version string }
	}
}

func TestOlderModule(t *testing.T) {
	path := filepath.Join("..", "controlplane", "go.mod")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := parse(t, path)
	for _, version := range assets.Versions {
		path := filepath.Join(t.TempDir(), "go.mod")
		if err := os.WriteFile(path, olderModule(content, version), 0o644); err != nil {
			t.Fatal(err)
		}
		older := parse(t, path)
		if len(older.Require) != 1 || older.Require[0].Path != "k8s.io/kubernetes" || older.Require[0].Version != "v"+version {
			t.Errorf("%s: requires %v", version, older.Require)
		}
		if len(older.Tool) != 1 || older.Tool[0].Path != "k8s.io/kubernetes/cmd/kube-apiserver" {
			t.Errorf("%s: tools %v", version, older.Tool)
		}
		if len(older.Replace) != len(newest.Replace) || len(older.Replace) == 0 {
			t.Errorf("%s: replaces %d modules, and the newest %d", version, len(older.Replace), len(newest.Replace))
		}
		for _, r := range older.Replace {
			if r.New.Path != r.Old.Path || r.New.Version != "v0."+strings.TrimPrefix(version, "1.") {
				t.Errorf("%s: replaces %s by %s %s", version, r.Old.Path, r.New.Path, r.New.Version)
			}
		}
	}
}

func parse(t *testing.T, path string) module {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var m module
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLinkMissing(t *testing.T) {
	newest, older := t.TempDir(), t.TempDir()
	for _, name := range assets.Binaries {
		write(t, filepath.Join(newest, name), "newest")
	}
	write(t, filepath.Join(older, "kube-apiserver"), "older")
	if err := linkMissing(newest, older); err != nil {
		t.Fatal(err)
	}
	for _, name := range assets.Binaries {
		want := "newest"
		if name == "kube-apiserver" {
			want = "older"
		}
		if got, err := os.ReadFile(filepath.Join(older, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestLdflagsStateTheRelease(t *testing.T) {
	for _, flag := range []string{".gitVersion=v1.31.14 ", ".gitMajor=1 ", ".gitMinor=31 "} {
		if flags := ldflags("1.31.14"); !strings.Contains(flags, "k8s.io/component-base/version"+flag) {
			t.Errorf("ldflags = %s, want %s", flags, flag)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}
