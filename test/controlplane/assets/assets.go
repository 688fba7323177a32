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

// Versions are the supported minor versions of Kubernetes, the oldest first, each by the release that is built where none can be
// downloaded. Any patch release will do. The last one is the version that the tests are written for, and hack/controlplane/go.mod requires it.
var Versions = []string{"1.31.14", "1.32.13", "1.33.13", "1.34.4", "1.35.4", "1.36.3", "1.37.2"}

// Env is the environment variable with the wanted minor version, for example 1.34, or oldest. Without it, the newest one is wanted.
const Env = "K8S"

// Binaries are the names of the programs in an asset directory.
var Binaries = []string{"etcd", "kube-apiserver", "kubectl"}

// ErrMissing is returned by Find if the store holds no control plane of the wanted minor version.
var ErrMissing = errors.New("the control plane for the tests is missing")

// Wanted returns the item of Versions that Env asks for.
func Wanted() (string, error) {
	switch wanted := os.Getenv(Env); wanted {
	case "":
		return Newest(), nil
	case "oldest":
		return Versions[0], nil
	default:
		var known []string
		for _, version := range Versions {
			if Series(version) == wanted {
				return version, nil
			}
			known = append(known, Series(version))
		}
		return "", fmt.Errorf("%s=%s is not a supported minor version of Kubernetes: use oldest, or one of %s", Env, wanted, strings.Join(known, ", "))
	}
}

// Newest returns the last item of Versions.
func Newest() string {
	return Versions[len(Versions)-1]
}

// Series returns the minor version of a release: "1.37" for "1.37.2".
func Series(version string) string {
	return version[:strings.LastIndex(version, ".")]
}

// Find returns the directory that holds all Binaries: KUBEBUILDER_ASSETS if that is set, and otherwise what FindVersion finds for Wanted.
func Find() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		if err := check(dir); err != nil {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
		}
		return dir, nil
	}
	version, err := Wanted()
	if err != nil {
		return "", err
	}
	return FindVersion(version)
}

// FindVersion returns the directory of the store with the newest release of the version's minor version that is complete. The error is
// ErrMissing if the store has none.
func FindVersion(version string) (string, error) {
	store, err := Store()
	if err != nil {
		return "", err
	}
	series := Series(version)
	dirs, err := filepath.Glob(filepath.Join(store, "k8s", series+".*-"+platform))
	if err != nil {
		return "", fmt.Errorf("search %s: %w", store, err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return check(dir) != nil })
	if len(dirs) == 0 {
		return "", fmt.Errorf("%w: run `make envtest %s=%s`", ErrMissing, Env, series)
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return cmp.Compare(patch(a, series), patch(b, series)) }), nil
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

// patch is the last number of the release that dir is named after, and -1 for what is no release, for example a preview.
func patch(dir, series string) int {
	version := strings.TrimSuffix(filepath.Base(dir), "-"+platform)
	n, err := strconv.Atoi(strings.TrimPrefix(version, series+"."))
	if err != nil {
		return -1
	}
	return n
}
