package grafana_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// A header of an answer that does not end is not read to its end.
func TestHeadersOfAnswersAreBounded(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		part := "HTTP/1.1 200 OK\r\nX-Long: "
		for err == nil {
			var n int
			n, err = io.WriteString(conn, part)
			sent.Add(int64(n))
			part = strings.Repeat("x", 64<<10)
		}
	}))
	t.Cleanup(server.Close)
	c := newClient(t, config(server.URL))
	for endpoint, call := range endpoints {
		sent.Store(0)
		expectOnly(t, call(t.Context(), c), grafana.ErrUnreachable)
		if sent.Load() > 8<<20 { // with what is under way
			t.Errorf("%s: %d bytes were read", endpoint, sent.Load())
		}
	}
}
