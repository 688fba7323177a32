// Package apiserver runs the second fake Grafana, which is built on the generic API server of Kubernetes. See hack/grafana-apiserver.
package apiserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

// source is the directory of the module, seen from the root of the project.
var source = filepath.Join("hack", "grafana-apiserver")

// Start runs the program with these flags, and returns its address once it listens. The program ends with the context, with stop, and with this process.
func Start(ctx context.Context, flags ...string) (url string, stop func(), err error) {
	program, err := find()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, flags...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe() // the program ends with it
	if err == nil {
		var stdout fs.File
		if stdout, err = startWithPipe(cmd); err == nil {
			url, err = bufio.NewReader(stdout).ReadString('\n')
			_ = stdout.Close()
		}
	}
	stop = func() {
		cancel()
		if stdin != nil {
			_ = stdin.Close()
		}
		if cmd.Process != nil {
			_ = cmd.Wait() // it was killed
		}
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the second fake Grafana: %w\n%s", err, complaints.String())
	}
	return strings.TrimSpace(url), stop, nil
}

// startWithPipe starts a command, and returns what it prints. Unlike cmd.StdoutPipe it closes its own end of the pipe.
func startWithPipe(cmd *exec.Cmd) (fs.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = write
	err = errors.Join(cmd.Start(), write.Close())
	if err != nil {
		_ = read.Close()
		return nil, err
	}
	return read, nil
}

// find returns the path of the program, and refuses one that is older than its source.
func find() (string, error) {
	root, err := helm.Root()
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, "bin", "grafana-apiserver")
	built, err := os.Stat(program)
	if err != nil {
		return "", errors.New("no second fake Grafana for the tests: run `make tools`")
	}
	files, err := os.ReadDir(filepath.Join(root, source))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.ModTime().After(built.ModTime()) {
			return "", fmt.Errorf("%s is newer than %s: run `make tools`", filepath.Join(source, file.Name()), program)
		}
	}
	return program, nil
}
