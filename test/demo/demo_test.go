package main

import (
	"bufio"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

func TestWrap(t *testing.T) {
	word := strings.Repeat("x", 60)
	for name, c := range map[string]struct{ text, want string }{
		"short lines":       {"a b\n\nc\n", "a b\n\nc\n"},
		"at the last space": {word + " b " + word, word + " b\n" + word},
		"exactly as wide":   {word + " " + word[:39], word + " " + word[:39]},
		"no space":          {word + word, word + word},
		"three lines":       {word + " " + word + " " + word + "\n", word + "\n" + word + "\n" + word + "\n"},
		"letters, not bytes": {
			strings.Repeat("ü", 50) + " " + strings.Repeat("ü", 49), strings.Repeat("ü", 50) + " " + strings.Repeat("ü", 49),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wrap(c.text); got != c.want {
				t.Errorf("wrap(%q) = %q, want %q", c.text, got, c.want)
			}
		})
	}
}

// TestNames: what the demo makes begins with its own name, which the quickstart does not use, so both have room in one namespace and Grafana.
func TestNames(t *testing.T) {
	names := regexp.MustCompile(`(?m)name: ([a-z0-9-]+)`)
	found := []string{object, movedName, adopted, many}
	err := fs.WalkDir(manifests, "manifests", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := manifests.ReadFile(path)
		for _, name := range names.FindAllStringSubmatch(string(content), -1) {
			found = append(found, name[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if name != "demo" && !strings.HasPrefix(name, "demo-") {
			t.Errorf("%q does not begin with demo", name)
		}
	}
	for _, name := range names.FindAllStringSubmatch(repositoryFile(t, "README.md"), -1) {
		if strings.HasPrefix(name[1], "demo") {
			t.Errorf("README.md uses the name %q of the demo", name[1])
		}
	}
}

// TestYourTurn: what a person pastes has no placeholder and no line that a terminal of the usual width would break.
func TestYourTurn(t *testing.T) {
	turn := yourTurn("/k/config", "/k/bin", &fakeGrafana{url: "http://127.0.0.1:12345", log: "/d/grafana.log"})
	for line := range strings.Lines(turn) {
		if strings.ContainsAny(line, "<>") || len(line) > columns {
			t.Errorf("line %q", line)
		}
	}
	for _, part := range []string{`KUBECONFIG="/k/config"`, ":/k/bin", "http://127.0.0.1:12345", token, grafanaNamespace, "/d/grafana.log"} {
		if !strings.Contains(turn, part) {
			t.Errorf("%q is missing in\n%s", part, turn)
		}
	}
}

func TestFakeGrafana(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grafana.log")
	g, err := startFakeGrafana(path)
	if err != nil {
		t.Fatal(err)
	}
	g.Put(grafanaNamespace, grafanatest.Stored{Name: "x", Decrypters: []string{"a", "b"}, Value: []byte("v")})
	response := httptest.NewRecorder()
	g.server.Handler.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, valuesPath, nil))
	want := "NAMESPACE     NAME   VERSION   DECRYPTERS   VALUE\nstacks-1234   x      1         a,b          v\n"
	if got := response.Body.String(); got != want {
		t.Errorf("the list is\n%s, want\n%s", got, want)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(log), " GET    /values: 200\n") {
		t.Errorf("the log is %q, %v", log, err)
	}
}

// TestCtrlC: a SIGINT to all processes, as a terminal sends it, ends `make demo` without an error of make, and leaves nothing.
func TestCtrlC(t *testing.T) {
	scratch := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "demo")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "MAKEFLAGS=", "MAKELEVEL=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	printed, sent := "", false
	for lines := bufio.NewScanner(out); lines.Scan(); { // until no process has the pipe any more
		printed += lines.Text() + "\n"
		if !sent && strings.Contains(printed, "== 1.") {
			sent = true
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // make ends by the signal itself
	if !sent || strings.Contains(printed, "***") || strings.Contains(printed, "rror") {
		t.Errorf("sent: %t, and it printed\n%s", sent, printed)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		if command, err := os.ReadFile(path); err == nil && strings.Contains(string(command), scratch) {
			t.Errorf("it left the process %q", command)
		}
	}
}

func repositoryFile(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// clock is a time that a test sets.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }
