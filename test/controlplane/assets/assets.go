// Package assets knows where the binaries of the test control plane are kept: in the store of setup-envtest, which all
// checkouts of a person share. It imports the standard library alone, so that what fills the store compiles in a moment.
package assets

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Series is the minor version of Kubernetes that the tests are written for. Any patch release of it will do.
const Series = "1.37"

// Version is the release that is built where none of its Series can be downloaded. hack/controlplane/go.mod requires it.
const Version = "1.37.2"

// Binaries are the names of the programs in an asset directory.
var Binaries = []string{"etcd", "kube-apiserver", "kubectl"}

// ErrMissing is returned by Find if the store holds no control plane of the Series.
var ErrMissing = errors.New("no kube-apiserver, etcd and kubectl " + Series + " for the tests: run `make envtest`")

// Find returns the directory that holds all Binaries: KUBEBUILDER_ASSETS if that is set, and otherwise the newest
// release of the Series in the store. The error is ErrMissing if the store has none.
func Find() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		if err := check(dir); err != nil {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
		}
		return dir, nil
	}
	store, err := Store()
	if err != nil {
		return "", err
	}
	dirs, err := filepath.Glob(filepath.Join(store, "k8s", Series+".*-"+platform))
	if err != nil {
		return "", fmt.Errorf("search %s: %w", store, err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return check(dir) != nil })
	if len(dirs) == 0 {
		return "", ErrMissing
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return cmp.Compare(patch(a), patch(b)) }), nil
}

// Dir is where the store keeps a release, for example "1.37.2", for this platform.
func Dir(store, version string) string {
	return filepath.Join(store, "k8s", version+"-"+platform)
}

const platform = runtime.GOOS + "-" + runtime.GOARCH

// Store returns the directory in which setup-envtest keeps its binaries by default. It need not exist.
func Store() (string, error) {
	if runtime.GOOS == "darwin" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		return filepath.Join(home, "Library", "Application Support", "io.kubebuilder.envtest"), nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "kubebuilder-envtest"), nil
}

// check returns an error that names the first of the Binaries that dir lacks.
func check(dir string) error {
	for _, name := range Binaries {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return &fs.PathError{Op: "use", Path: filepath.Join(dir, name), Err: errors.New("not a file")}
		}
	}
	return nil
}

// patch is the last number of the release that dir is named after, and -1 for what is no release, as a preview.
func patch(dir string) int {
	version := strings.TrimSuffix(filepath.Base(dir), "-"+platform)
	n, err := strconv.Atoi(strings.TrimPrefix(version, Series+"."))
	if err != nil {
		return -1
	}
	return n
}
