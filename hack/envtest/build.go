package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/progress"
)

// module is the directory of the Go module whose tools are the control plane, seen from the root of the repository.
var module = filepath.Join("hack", "controlplane")

// build compiles the control plane below scratch and returns its directory.
func build(ctx context.Context, scratch string) (string, error) {
	dir := assets.Dir(scratch, assets.Version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	var downloads, compiled atomic.Int64

	stop := progress.Show(func() string { return fmt.Sprintf("fetching modules: %d", downloads.Load()) })
	packages := 0
	err := run(ctx, []string{"list", "-deps", "tool"}, func(string) { packages++ }, func(line string) bool {
		if !strings.HasPrefix(line, "go: downloading ") {
			return false
		}
		downloads.Add(1)
		return true
	})
	stop()
	if err != nil {
		return "", err
	}

	// Packages that the build cache has already are counted by "go list", and not by "go build -v".
	stop = progress.Show(func() string { return fmt.Sprintf("compiled packages: %d of at most %d", compiled.Load(), packages) })
	err = run(ctx, []string{"build", "-v", "-trimpath", "-ldflags=" + ldflags(), "-o", dir + string(filepath.Separator), "tool"},
		func(string) {}, func(line string) bool {
			if !importPath.MatchString(line) {
				return false
			}
			compiled.Add(1)
			return true
		})
	stop()
	if err != nil {
		return "", err
	}
	return dir, os.Rename(filepath.Join(dir, "server"), filepath.Join(dir, "etcd"))
}

var importPath = regexp.MustCompile(`^[A-Za-z0-9_.~/-]+$`)

// ldflags leaves out symbols and debug data, and states the release as that of Kubernetes does.
func ldflags() string {
	major, minor, _ := strings.Cut(assets.Series, ".")
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			"-X="+pkg+".gitVersion=v"+assets.Version,
			"-X="+pkg+".gitMajor="+major,
			"-X="+pkg+".gitMinor="+minor,
			"-X="+pkg+".gitTreeState=archive",
			"-X="+pkg+".gitCommit=")
	}
	return strings.Join(flags, " ")
}

// run runs the go command in the control plane's module. It hands each line of standard output to out and each of standard
// error to seen, and returns the lines that seen does not know as part of the error, if there is one.
func run(ctx context.Context, args []string, out func(line string), seen func(line string) bool) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it removes its own temporary files
	var rest bytes.Buffer
	cmd.Stdout = &lines{each: out}
	cmd.Stderr = &lines{each: func(line string) {
		if !seen(line) {
			fmt.Fprintln(&rest, line)
		}
	}}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", args[0], module, err, rest.String())
	}
	return nil
}

// lines is a writer that hands on each complete line.
type lines struct {
	each    func(line string)
	pending []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	for {
		line, rest, found := bytes.Cut(l.pending, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.pending = rest
		l.each(string(line))
	}
}
