// Contract checks what this project assumes of Grafana's Secrets Management API against a Grafana, and prints a report in Markdown.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The variables that name a Grafana.
const (
	envURL         = "GRAFANA_URL"
	envToken       = "GRAFANA_TOKEN"
	envNamespace   = "GRAFANA_NAMESPACE"
	envVersion     = "GRAFANA_API_VERSION"  // v1beta1 unless set
	envReaderToken = "GRAFANA_READER_TOKEN" // a token that may only read
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := contract(ctx)
	stop()
	os.Exit(code)
}

// contract returns the exit code: 1 if a rule differs on which the operator relies, and 2 if there is no report or something was left behind.
func contract(ctx context.Context) int {
	s := settings{
		url: os.Getenv(envURL), token: os.Getenv(envToken), namespace: os.Getenv(envNamespace), apiVersion: os.Getenv(envVersion),
		readerToken: os.Getenv(envReaderToken),
	}
	if s.apiVersion == "" {
		s.apiVersion = "v1beta1"
	}
	if s.url == "" || s.token == "" || s.namespace == "" {
		fmt.Fprintf(os.Stderr, "error: set %s, %s and %s.\n", envURL, envToken, envNamespace)
		return 2
	}
	r, err := newRun(s)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v. Check %s, %s and %s.\n", err, envURL, envToken, envNamespace)
		return 2
	}
	fmt.Fprintf(os.Stderr, "Checking the rules, in up to a minute. Names that begin with %s are removed before and after.\n", prefix)
	results, err := r.runRules(ctx, allRules())
	if results == nil {
		fmt.Fprintf(os.Stderr, "error: Grafana does not serve the API to this token: %v. Check %s, %s and %s.\n", err, envURL, envToken, envNamespace)
		return 2
	}
	p := r.report(context.WithoutCancel(ctx), results, time.Now())
	fmt.Print(p)
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "error: %v. Run it again to remove them.\n", err)
		return 2
	case p.failed() > 0:
		return 1
	}
	return 0
}
