package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	// fakeGrafanaCommand makes this program a fake Grafana.
	fakeGrafanaCommand = "fake-grafana"
	grafanaToken       = "glsa_bench"
)

// address is what the fake Grafana prints about itself on its first line.
type address struct {
	URL   string // of the API
	CA    []byte // empty without TLS
	Admin string // of what follows
}

// runFakeGrafana is a Grafana until its standard input ends.
func runFakeGrafana(_ context.Context, args []string) error {
	latency, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	server := grafanatest.New()
	server.AddToken(grafanaToken)
	server.SetLatency(latency)
	start := server.StartTLS
	if args[2] == "http" {
		start = server.Start
	}
	running, err := start()
	if err != nil {
		return err
	}
	defer running.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the process
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, admin(server)) }() // for this program alone
	if err := json.NewEncoder(os.Stdout).Encode(address{running.URL, running.CA, "http://" + listener.Addr().String()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// admin serves what this program asks of its fake Grafana.
func admin(server *grafanatest.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(server.Calls()) })
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(count(server.Calls())) })
	mux.HandleFunc("POST /reset", func(http.ResponseWriter, *http.Request) { server.ResetCalls() })
	mux.HandleFunc("POST /up", func(http.ResponseWriter, *http.Request) { server.ClearFaults() })
	mux.HandleFunc("POST /down", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		server.Inject(grafanatest.Fault{Code: code, Hang: code == 0})
	})
	return mux
}

// count counts calls by verb.
func count(calls []grafanatest.Call) map[grafanatest.Verb]int {
	counts := map[grafanatest.Verb]int{}
	for _, c := range calls {
		counts[c.Verb]++
	}
	return counts
}

// fakeGrafana is a fake Grafana in a process of its own.
type fakeGrafana struct {
	address

	process *exec.Cmd
	input   io.Closer
}

func startFakeGrafana(latency time.Duration, plainHTTP bool) (*fakeGrafana, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if plainHTTP {
		scheme = "http"
	}
	s := &fakeGrafana{process: exec.Command(self, fakeGrafanaCommand, latency.String(), scheme)} //nolint:noctx // it ends with its input
	s.process.Stderr = os.Stderr
	out, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if s.input, err = s.process.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&s.address); err != nil {
		return nil, errors.Join(fmt.Errorf("start the fake Grafana: %w", err), s.close())
	}
	return s, nil
}

// client returns a client that trusts it.
func (s *fakeGrafana) client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: bareHands}
	return &http.Client{Transport: transport}
}

func (s *fakeGrafana) close() error { return errors.Join(s.input.Close(), s.process.Wait()) }

func (s *fakeGrafana) calls(ctx context.Context) (calls []grafanatest.Call, err error) {
	err = s.do(ctx, http.MethodGet, "/calls", &calls)
	return calls, err
}

func (s *fakeGrafana) count(ctx context.Context) (counts map[grafanatest.Verb]int, err error) {
	err = s.do(ctx, http.MethodGet, "/count", &counts)
	return counts, err
}

func (s *fakeGrafana) reset(ctx context.Context) error {
	return s.do(ctx, http.MethodPost, "/reset", nil)
}

// down makes each call answer with the code, or hang for 0.
func (s *fakeGrafana) down(ctx context.Context, code int) error {
	return s.do(ctx, http.MethodPost, "/down?code="+strconv.Itoa(code), nil)
}

func (s *fakeGrafana) up(ctx context.Context) error { return s.do(ctx, http.MethodPost, "/up", nil) }

func (s *fakeGrafana) do(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.Admin+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
