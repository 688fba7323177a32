package controlplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// assetsVariable names the directory of the binaries, as setup-envtest and envtest have it.
const assetsVariable = "KUBEBUILDER_ASSETS"

// assetsDirectory returns where kube-apiserver, etcd and kubectl are.
func assetsDirectory() (string, error) {
	dir := os.Getenv(assetsVariable)
	if dir == "" {
		store, err := storeDirectory()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(store, "k8s", fmt.Sprintf("%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH))
	}
	for _, binary := range []string{"kube-apiserver", "etcd", "kubectl"} {
		if _, err := os.Stat(filepath.Join(dir, binary)); err != nil {
			return "", fmt.Errorf("no %s in %s: run `make envtest` first, which gets it", binary, dir)
		}
	}
	return dir, nil
}

// storeDirectory returns where setup-envtest keeps its binaries.
func storeDirectory() (string, error) {
	if runtime.GOOS == "linux" {
		if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
			return filepath.Join(dir, "kubebuilder-envtest"), nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	switch runtime.GOOS {
	case "linux":
		return filepath.Join(home, ".local", "share", "kubebuilder-envtest"), nil
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", "io.kubebuilder.envtest"), nil
	default:
		return "", errors.New("kube-apiserver runs on Linux and macOS only: set " + assetsVariable + " to where it is")
	}
}
