package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
)

// TestFloodOfReaders: 256 clients without a valid token send a megabyte each to the metrics endpoint and stay connected. It keeps little of
// that, while they are connected and afterwards, asks the API server nothing, and then serves the next one.
func TestFloodOfReaders(t *testing.T) {
	const (
		clients = 256
		most    = 32 << 20 // of the 256 MiB that the pod may use; what the clients of this test use is in it
	)
	var reviews atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reviews.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(api.Close)
	server, _, err := newMetricsServer(t.Context(), Options{MetricsBindAddress: "127.0.0.1:0", MetricsSecure: true},
		&rest.Config{Host: api.URL}, api.Client(), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Start(t.Context()) }()
	address := server.Listener.Addr().String()

	filler := bytes.Repeat([]byte("X"), 1<<20-4096)
	for name, row := range map[string]struct{ before, after string }{
		"method":  {"", " /metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer bogus\r\n\r\n"},
		"path":    {"GET /metrics?", " HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer bogus\r\n\r\n"},
		"token":   {"GET /metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ", "\r\n\r\n"},
		"header":  {"GET /metrics HTTP/1.1\r\nHost: h\r\nX-Filler: ", "\r\n\r\n"},
		"unended": {"GET /metrics HTTP/1.1\r\nHost: h\r\nX-Filler: ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, began := heap(), reviews.Load()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			var connected [clients]net.Conn
			var sent sync.WaitGroup
			for i := range connected {
				sent.Go(func() {
					// Some clients find no free connection, or are refused before they have sent everything.
					conn, err := dial(ctx, address)
					if err != nil {
						return
					}
					connected[i] = conn
					_, _ = io.WriteString(conn, row.before)
					_, _ = conn.Write(filler)
					_, _ = io.WriteString(conn, row.after)
				})
			}
			sent.Wait()
			if kept := heap() - before; kept > most {
				t.Errorf("%d MiB are kept while the clients are connected", kept>>20)
			}
			for _, conn := range connected {
				if conn != nil {
					_ = conn.Close()
				}
			}
			if kept := heap() - before; kept > most {
				t.Errorf("%d MiB are kept afterwards", kept>>20)
			}
			if asked := reviews.Load() - began; asked > 0 {
				t.Errorf("%d reviews", asked)
			}
			if code := get(t, address); code != http.StatusUnauthorized {
				t.Errorf("the next reader gets %d", code)
			}
		})
	}
}

// dial connects to the endpoint. The context bounds all that is done with the connection.
func dial(ctx context.Context, address string) (net.Conn, error) {
	//nolint:gosec // the certificate is the endpoint's own
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline)
}

func get(t *testing.T, address string) int {
	t.Helper()
	transport := &http.Transport{
		DialTLSContext:    func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
		DisableKeepAlives: true,
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}

// heap returns the bytes that are in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestReviewsAreLimited: clients that make up tokens have the API server asked at a bounded rate.
func TestReviewsAreLimited(t *testing.T) {
	var reviews atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reviews.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}`)
	}))
	t.Cleanup(api.Close)
	filter, err := readers(&rest.Config{Host: api.URL, QPS: -1}, api.Client())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := filter(logr.Discard(), http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	var clients sync.WaitGroup
	for i := range 1000 {
		clients.Go(func() {
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", http.NoBody)
			r.Header.Set("Authorization", "Bearer made-up-"+strconv.Itoa(i))
			handler.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	clients.Wait()
	if n, most := float64(reviews.Load()), reviewBurst+reviewRate*time.Since(began).Seconds()+1; n == 0 || n > most {
		t.Errorf("%.0f reviews, want at most %.0f", n, most)
	}
}
