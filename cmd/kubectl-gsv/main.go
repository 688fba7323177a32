// kubectl-gsv is a kubectl plugin that shows what is wrong with secure values, and what a manifest would change in Grafana.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/buildinfo"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/plugin"
)

// version is set by the build.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := plugin.Run(ctx, os.Args[1:], streams, buildinfo.Version(version))
	stop()
	os.Exit(code)
}
