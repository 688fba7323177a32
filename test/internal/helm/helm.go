// Package helm knows the chart, and where make keeps the programs that its tests run.
package helm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Chart is the directory of the chart below the root of the project.
const Chart = "charts/grafana-secure-value-operator"

// Root returns the root of the project, which the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "PROJECT")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no PROJECT in the working directory and those above it")
		}
		dir = parent
	}
	return "", err
}

// Helm returns the path of helm, of the version that the Makefile names.
func Helm() (string, error) {
	return find("helm", "Makefile", `(?m)^HELM_VERSION := (\S+)$`)
}

// Helm3 returns the path of the helm of the last major version, of the version that the Makefile names.
func Helm3() (string, error) {
	return find("helm", "Makefile", `(?m)^HELM3_VERSION := (\S+)$`)
}

// Unittest returns the path of helm-unittest, of the version that its module requires.
func Unittest() (string, error) {
	return find("helm-unittest", "hack/helm-unittest/go.mod", `github\.com/helm-unittest/helm-unittest (v\S+)`)
}

// Promtool returns the path of promtool, of the version that its module requires.
func Promtool() (string, error) {
	return find("promtool", "hack/promtool/go.mod", `github\.com/prometheus/prometheus (v\S+)`)
}

// find returns the path of a program of the version that the pattern finds in a file of the project.
func find(program, file, pattern string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return "", err
	}
	version := regexp.MustCompile(pattern).FindSubmatch(content)
	if version == nil {
		return "", fmt.Errorf("%s names no version of %s", file, program)
	}
	path := filepath.Join(root, "bin", program+"-"+string(version[1]))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no %s %s for the tests: run `make tools`", program, version[1])
	}
	return path, nil
}
