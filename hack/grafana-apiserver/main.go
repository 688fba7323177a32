// Grafana-apiserver is a fake Grafana that is built as Grafana is: the generic API server of Kubernetes serves the Secrets Management API, and
// the checks of Grafana's web server come before it. What it knows of Grafana is in storage.go, validate.go and auth.go; all else is the framework.
//
// It prints its address, and serves until its standard input ends: it never outlives the test that started it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
}

func run() error {
	users := tokens{}
	flag.Var(users, "token", "a token, its namespace and, if not all, its actions: `TOKEN,NAMESPACE[,read+write]`; more than once for more tokens")
	address := flag.String("address", "127.0.0.1:0", "the `address` to listen at")
	basePath := flag.String("base-path", "", "the sub-path to serve at, for example /grafana")
	maxReads := flag.Int("max-reads", 400, "requests in flight that read, before the framework answers 429")
	maxWrites := flag.Int("max-writes", 200, "requests in flight that write, before the framework answers 429")
	flag.Parse()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	api, err := newHandler(ctx, *maxReads, *maxWrites)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.StripPrefix(strings.TrimRight(*basePath, "/"), webServer(users, api)), ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	fmt.Printf("http://%s%s\n", listener.Addr(), *basePath)
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// webServer is what comes before the API server.
func webServer(users tokens, api http.Handler) http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/apis", "/apis/", "/openapi/", "/version"} {
		mux.Handle(path, users.signedIn(api))
	}
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"database":"ok","version":%q}`, "fake on k8s.io/apiserver "+frameworkVersion())
	})
	return mux
}

// frameworkVersion returns the version of the framework that was built in.
func frameworkVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "k8s.io/apiserver" {
				return module.Version
			}
		}
	}
	return "unknown"
}
