package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	grafanaNamespace = "stacks-1234"
	token            = "glsa_demo"
	valuesPath       = "/values"
)

// fakeGrafana serves the API, and at valuesPath a list of what it holds. Its log has a line for each request.
type fakeGrafana struct {
	*grafanatest.Server
	url    string
	log    string
	server *http.Server
	file   *os.File
}

func startFakeGrafana(logPath string) (*fakeGrafana, error) {
	file, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the server
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	g := &fakeGrafana{
		Server: grafanatest.New(grafanatest.WithNamespaces("default", grafanaNamespace)),
		url:    "http://" + listener.Addr().String(), log: logPath, file: file,
	}
	g.AddToken(token)
	mux := http.NewServeMux()
	mux.Handle("/", g.Server)
	mux.HandleFunc("GET "+valuesPath, g.list)
	lines := log.New(file, "", log.Ltime|log.Lmicroseconds)
	g.server = &http.Server{Handler: logged(lines, mux), ReadHeaderTimeout: time.Minute, ErrorLog: lines}
	go func() { _ = g.server.Serve(listener) }() // until stop
	return g, nil
}

func (g *fakeGrafana) stop() error { return errors.Join(g.server.Close(), g.file.Close()) }

// list prints all values. Grafana itself has nothing like it: it never shows a value.
func (g *fakeGrafana) list(w http.ResponseWriter, _ *http.Request) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer func() { _ = table.Flush() }() // the client may be gone
	fmt.Fprintln(table, "NAMESPACE\tNAME\tVERSION\tDECRYPTERS\tVALUE")
	for _, namespace := range []string{"default", grafanaNamespace} {
		values := g.Values(namespace)
		for _, name := range slices.Sorted(maps.Keys(values)) {
			v := values[name]
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", namespace, name, v.Version, strings.Join(v.Decrypters, ","), v.Value)
		}
	}
}

// logged writes a line for each request after its answer; 0 is a connection that was cut.
func logged(lines *log.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answer{ResponseWriter: w}
		defer func() { lines.Printf("%-6s %s: %d", r.Method, r.URL, answer.code) }()
		next.ServeHTTP(answer, r)
	})
}

type answer struct {
	http.ResponseWriter
	code int
}

func (a *answer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}
