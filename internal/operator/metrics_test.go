package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
)

// TestReaders: the API server is a fake that knows the token "good" alone, whose user may read, and counts what it is asked.
func TestReaders(t *testing.T) {
	var reviews atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reviews.Add(1)
		w.Header().Set("Content-Type", "application/json")
		switch path.Base(r.URL.Path) {
		case "tokenreviews":
			review := &authenticationv1.TokenReview{}
			_ = json.NewDecoder(r.Body).Decode(review)
			review.Status.Authenticated = review.Spec.Token != "bad"
			review.Status.User.Username = review.Spec.Token
			_ = json.NewEncoder(w).Encode(review)
		case "subjectaccessreviews":
			review := &authorizationv1.SubjectAccessReview{}
			_ = json.NewDecoder(r.Body).Decode(review)
			review.Status.Allowed = review.Spec.User == "good"
			_ = json.NewEncoder(w).Encode(review)
		}
	}))
	t.Cleanup(server.Close)
	filter, err := readers(&rest.Config{Host: server.URL}, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := filter(logr.Discard(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		method, token string
		code          int
		reviewed      bool
	}{
		{http.MethodGet, "good", http.StatusOK, true},
		{http.MethodHead, "good", http.StatusOK, true},
		{http.MethodGet, "other", http.StatusForbidden, true},
		{http.MethodGet, "bad", http.StatusInternalServerError, true},
		{http.MethodGet, "", http.StatusUnauthorized, false},
		{http.MethodPost, "good", http.StatusMethodNotAllowed, false},
		{http.MethodOptions, "other", http.StatusMethodNotAllowed, false},
		{"MADE-UP", "bad", http.StatusMethodNotAllowed, false},
	} {
		reviews.Store(0)
		r := httptest.NewRequestWithContext(t.Context(), row.method, "/metrics", http.NoBody)
		if row.token != "" {
			r.Header.Set("Authorization", "Bearer "+row.token)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != row.code || (reviews.Load() > 0) != row.reviewed {
			t.Errorf("%s with token %.10q: %d after %d reviews", row.method, row.token, w.Code, reviews.Load())
		}
	}
}

// TestMetricsCertificate: the endpoint shows the certificate of the given directory, and the next one once that is there.
func TestMetricsCertificate(t *testing.T) {
	dir := t.TempDir()
	want := writeCertificate(t, dir)
	server, watcher, err := newMetricsServer(t.Context(), Options{MetricsBindAddress: "127.0.0.1:0", MetricsSecure: true, MetricsCertPath: dir},
		&rest.Config{}, http.DefaultClient, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Start(t.Context()) }()
	shown := func() []byte {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, err := dial(ctx, server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
	}
	if !bytes.Equal(shown(), want) {
		t.Error("the endpoint shows another certificate")
	}
	want = writeCertificate(t, dir)
	if err := watcher.ReadCertificate(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shown(), want) {
		t.Error("the endpoint shows the old certificate")
	}
}

// writeCertificate writes the files of a Secret of type kubernetes.io/tls, and returns the certificate.
func writeCertificate(t *testing.T, dir string) []byte {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKeyWithFixtures("metrics.example.com", nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	block, _ := pem.Decode(certificate)
	return block.Bytes
}
