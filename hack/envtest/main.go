// Envtest prints the directory of the kube-apiserver, etcd and kubectl that tests and demo run against, of the minor version that the
// environment variable K8S names. Where the store of setup-envtest has none it gets them: by a download, and from source where that does not work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/progress"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := get(ctx)
	if ctx.Err() != nil {
		os.Exit(130) // nothing else is deferred
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
	fmt.Println(dir)
}

// get returns an asset directory, and fills the store if it has none. Of two processes that want to, one waits for the
// other. The store never shows a directory that is not complete.
func get(ctx context.Context) (string, error) {
	dir, err := assets.Find()
	if !errors.Is(err, assets.ErrMissing) {
		return dir, err
	}
	store, err := assets.Store()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(store, "k8s"), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(store, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir, err := assets.Find(); !errors.Is(err, assets.ErrMissing) {
		return dir, err
	}

	scratch, err := emptyScratch(store)
	if err != nil {
		return "", err
	}
	defer func() { _ = removeAll(scratch) }() // the next process would remove it

	version, err := assets.Wanted()
	if err != nil {
		return "", err
	}
	return fill(ctx, store, scratch, version)
}

// fill puts a release of the version's minor version into the store, and returns its directory.
func fill(ctx context.Context, store, scratch, version string) (string, error) {
	made, err := download(ctx, scratch, version)
	if err != nil && ctx.Err() == nil {
		say("No download of kube-apiserver, etcd and kubectl %s (%v).", assets.Series(version), err)
		made, err = fromSource(ctx, store, scratch, version)
	}
	if err != nil {
		return "", err
	}
	dir := filepath.Join(store, "k8s", filepath.Base(made))
	if err := removeAll(dir); err != nil { // it is there, but not complete
		return "", err
	}
	if err := os.Rename(made, dir); err != nil {
		return "", err
	}
	return assets.FindVersion(version)
}

// fromSource builds the release below scratch, and returns its directory. Of an older release only kube-apiserver is built: the newest etcd
// and kubectl serve it too, and the store gets them first.
func fromSource(ctx context.Context, store, scratch, version string) (string, error) {
	if version == assets.Newest() {
		say("They are built from source instead: about five minutes on two cores, once for all checkouts.")
		return buildNewest(ctx, scratch)
	}
	newest, err := assets.FindVersion(assets.Newest())
	if errors.Is(err, assets.ErrMissing) {
		newest, err = fill(ctx, store, scratch, assets.Newest())
	}
	if err != nil {
		return "", err
	}
	say("kube-apiserver %s is built from source instead: about three minutes on two cores, once for all checkouts.", version)
	return buildOlder(ctx, scratch, version, newest)
}

// download gets the newest release of the version's minor version with setup-envtest, and returns the directory below scratch that holds it.
func download(ctx context.Context, scratch, version string) (string, error) {
	setupEnvtest, err := output(ctx, time.Minute*5, "building setup-envtest", "go", "tool", "-n", "setup-envtest")
	if err != nil {
		return "", err
	}
	series := assets.Series(version)
	// A machine without the internet shall not wait long, one with a slow line shall get its download.
	if _, err := output(ctx, time.Second*15, "asking for the newest release", setupEnvtest, "list", series+".x"); err != nil {
		return "", err
	}
	say("Downloading kube-apiserver, etcd and kubectl %s with setup-envtest.", series)
	return output(ctx, time.Minute*5, "downloading", setupEnvtest, "use", series+".x", "--bin-dir", scratch, "-p", "path")
}

// output runs a command for at most the given time, shows what it does, and returns what it prints, without space around it. The error
// holds the last line that the command wrote to standard error.
func output(ctx context.Context, limit time.Duration, does, name string, args ...string) (string, error) {
	defer progress.Show(func() string { return does })()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("no answer within %s", limit)
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		lines := strings.Split(strings.TrimSpace(string(failed.Stderr)), "\n")
		return "", errors.New(lines[len(lines)-1])
	}
	return strings.TrimSpace(string(out)), err
}

// lock waits until no other process holds the file's lock. The operating system frees it when this process ends.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = file.Close() }
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		say("Another process is getting the test control plane; waiting for it.")
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		unlock()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return unlock, nil
}

// emptyScratch makes a directory of its own for what is not complete, and removes those of processes that were killed.
func emptyScratch(store string) (string, error) {
	const pattern = ".partial-*"
	old, err := filepath.Glob(filepath.Join(store, pattern))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if err := removeAll(dir); err != nil {
			return "", err
		}
	}
	return os.MkdirTemp(store, pattern)
}

// removeAll is os.RemoveAll for directories of setup-envtest, which it leaves without the right to write.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
