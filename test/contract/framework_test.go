package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// TestTooManyRequests: what the framework answers above its limit of writes in flight is a rate limit to the client, with the time to wait.
func TestTooManyRequests(t *testing.T) {
	s := framework(t, "default", "-max-writes", "1")
	r, err := newRun(s)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The framework asks for the body once the request has its place, and then waits for it.
	_, err = io.WriteString(conn, "POST "+s.collection()+" HTTP/1.1\r\nHost: fake\r\nAuthorization: Bearer "+testToken+
		"\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = r.client.Create(t.Context(), value("limited"))
	if failed, ok := errors.AsType[*grafana.Error](err); !ok || !errors.Is(err, grafana.ErrRateLimited) || failed.RetryAfter != time.Second {
		t.Errorf("a write more: %v", err)
	}
	if _, err := list(t.Context(), r.client, ""); err != nil { // reads have a limit of their own
		t.Error(err)
	}
}

// TestLargeList: the framework compresses from 128 KiB on, and the client, which accepts no encoding, reads such a list as it is.
func TestLargeList(t *testing.T) {
	const values = 400
	s := framework(t, "default")
	r, err := newRun(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range values {
		if _, err := r.client.Create(t.Context(), value("large-"+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	found, err := list(t.Context(), r.client, "")
	if err != nil || len(found) != values {
		t.Errorf("%d values, %v", len(found), err)
	}
	a, err := s.send(t.Context(), request{method: http.MethodGet, header: http.Header{"Accept-Encoding": {"gzip"}}})
	if err != nil || a.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("whoever accepts gzip gets %q, %v: this test shows nothing", a.header.Get("Content-Encoding"), err)
	}
}

// TestInterrupted: a run that is cancelled tests no further rule, and still removes what it made.
func TestInterrupted(t *testing.T) {
	r, err := newRun(framework(t, "default"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	interrupting := rule{"interrupts", false, func(ctx context.Context, r *run) (string, error) {
		_, err := r.client.Create(ctx, value("interrupted"))
		cancel()
		return "", err
	}}
	results, err := r.runRules(ctx, []rule{interrupting, lifeRules[0]})
	if err != nil || len(results) != 2 || results[0].outcome != expected || results[1].outcome != notTestable {
		t.Errorf("%v, %v", results, err)
	}
	if left, err := list(t.Context(), r.client, ""); err != nil || len(left) > 0 {
		t.Errorf("left behind: %d values, %v", len(left), err)
	}
}
