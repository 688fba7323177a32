package main

import (
	"bytes"
	"context"
	"errors"
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

// newestModule is the directory of the Go module whose tools are the newest control plane, seen from the root of the repository.
var newestModule = filepath.Join("hack", "controlplane")

// buildNewest compiles the newest control plane below scratch and returns its directory.
func buildNewest(ctx context.Context, scratch string) (string, error) {
	dir := assets.Dir(scratch, assets.Newest())
	if err := build(ctx, newestModule, dir, assets.Newest()); err != nil {
		return "", err
	}
	return dir, os.Rename(filepath.Join(dir, "server"), filepath.Join(dir, "etcd"))
}

// buildOlder compiles kube-apiserver of an older version below scratch, in a module that it makes there, and returns its directory. The
// other binaries are those of the newest control plane.
func buildOlder(ctx context.Context, scratch, version, newest string) (string, error) {
	mod, err := os.ReadFile(filepath.Join(newestModule, "go.mod"))
	if err != nil {
		return "", err
	}
	module := filepath.Join(scratch, "module")
	if err := os.MkdirAll(module, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), olderModule(mod, version), 0o644); err != nil {
		return "", err
	}
	dir := assets.Dir(scratch, version)
	if err := build(ctx, module, dir, version); err != nil {
		return "", err
	}
	return dir, linkMissing(newest, dir)
}

var (
	goVersion    = regexp.MustCompile(`(?m)^go \S+$`)
	godebug      = regexp.MustCompile(`(?m)^godebug .*$`)
	stagedModule = regexp.MustCompile(`(?m)^\t(k8s\.io/\S+) => `)
)

// olderModule returns the go.mod of kube-apiserver of an older version, made of that of the newest. The requirements are those of
// k8s.io/kubernetes itself, and Go checks all modules by its checksum database.
func olderModule(newest []byte, version string) []byte {
	var mod bytes.Buffer
	fmt.Fprintf(&mod, "module controlplane\n\n%s\n\n%s\n\n", goVersion.Find(newest), godebug.Find(newest))
	fmt.Fprintf(&mod, "tool k8s.io/kubernetes/cmd/kube-apiserver\n\nrequire k8s.io/kubernetes v%s\n\n", version)
	for _, staged := range stagedModule.FindAllSubmatch(newest, -1) {
		fmt.Fprintf(&mod, "replace %s => %[1]s v%s\n", staged[1], strings.Replace(version, "1.", "0.", 1))
	}
	return mod.Bytes()
}

// linkMissing gives dir the binaries of another directory of the same file system that it lacks.
func linkMissing(from, dir string) error {
	for _, name := range assets.Binaries {
		if err := os.Link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// build compiles the tools of a module into dir, which it makes.
func build(ctx context.Context, module, dir, version string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	mod := "-mod=readonly"
	if version != assets.Newest() { // what olderModule made is not complete
		mod = "-mod=mod"
	}
	var downloads, compiled atomic.Int64

	stop := progress.Show(func() string { return fmt.Sprintf("fetching modules: %d", downloads.Load()) })
	packages := 0
	err := run(ctx, module, []string{"list", mod, "-deps", "tool"}, func(string) { packages++ }, func(line string) bool {
		if !strings.HasPrefix(line, "go: downloading ") {
			return false
		}
		downloads.Add(1)
		return true
	})
	stop()
	if err != nil {
		return err
	}

	// Packages that the build cache has already are counted by "go list", and not by "go build -v".
	stop = progress.Show(func() string { return fmt.Sprintf("compiled packages: %d of at most %d", compiled.Load(), packages) })
	err = run(ctx, module, []string{"build", mod, "-v", "-trimpath", "-ldflags=" + ldflags(version), "-o", dir + string(filepath.Separator), "tool"},
		func(string) {}, func(line string) bool {
			if !importPath.MatchString(line) {
				return false
			}
			compiled.Add(1)
			return true
		})
	stop()
	return err
}

var importPath = regexp.MustCompile(`^[A-Za-z0-9_.~/-]+$`)

// ldflags leaves out symbols and debug data, and states the release as that of Kubernetes does.
func ldflags(version string) string {
	major, minor, _ := strings.Cut(assets.Series(version), ".")
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			"-X="+pkg+".gitVersion=v"+version,
			"-X="+pkg+".gitMajor="+major,
			"-X="+pkg+".gitMinor="+minor,
			"-X="+pkg+".gitTreeState=archive",
			"-X="+pkg+".gitCommit=")
	}
	return strings.Join(flags, " ")
}

// run runs the go command in a module. It hands each line of standard output to out and each of standard
// error to seen, and returns the lines that seen does not know as part of the error, if there is one.
func run(ctx context.Context, module string, args []string, out func(line string), seen func(line string) bool) error {
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
