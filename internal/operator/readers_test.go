package operator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// reviewer is an API server that knows two tokens, of which one may read metrics.
type reviewer struct {
	*httptest.Server

	reviews []string // the paths asked for, in turn
	broken  bool
}

func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	r := &reviewer{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *reviewer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.reviews = append(r.reviews, req.URL.Path)
	if r.broken {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	body, _ := io.ReadAll(req.Body)
	answer, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(body, nil, nil) // JSON or Protobuf, as the client likes
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch review := answer.(type) {
	case *authenticationv1.TokenReview:
		name, known := map[string]string{"token-of-prometheus": "prometheus", "token-of-stranger": "stranger"}[review.Spec.Token]
		review.Status.Authenticated = known
		review.Status.User = authenticationv1.UserInfo{Username: name, Groups: []string{"monitoring"}}
	case *authorizationv1.SubjectAccessReview:
		about := review.Spec.NonResourceAttributes
		review.Status.Allowed = review.Spec.User == "prometheus" && len(review.Spec.Groups) == 1 && about.Path == "/metrics" && about.Verb == "get"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer)
}

// guarded returns metrics behind the filter.
func (r *reviewer) guarded(t *testing.T, log logr.Logger) http.Handler {
	t.Helper()
	filter, err := onlyReaders(&rest.Config{Host: r.URL}, r.Client())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := filter(log, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("gsv_parked 0")) }))
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

func read(t *testing.T, handler http.Handler, method, path, authorization string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, req)
	return answer
}

func TestOnlyReadersGetMetrics(t *testing.T) {
	for name, row := range map[string]struct {
		method, path, authorization string
		code, reviews               int
	}{
		"who may":                  {"GET", "/metrics", "Bearer token-of-prometheus", http.StatusOK, 2},
		"the scheme in small":      {"GET", "/metrics", "bearer token-of-prometheus", http.StatusOK, 2},
		"another verb":             {"POST", "/metrics", "Bearer token-of-prometheus", http.StatusForbidden, 2},
		"another path":             {"GET", "/debug/pprof", "Bearer token-of-prometheus", http.StatusForbidden, 2},
		"who may not":              {"GET", "/metrics", "Bearer token-of-stranger", http.StatusForbidden, 2},
		"a token of nobody":        {"GET", "/metrics", "Bearer canary", http.StatusUnauthorized, 1},
		"no token":                 {"GET", "/metrics", "", http.StatusUnauthorized, 0},
		"an empty token":           {"GET", "/metrics", "Bearer ", http.StatusUnauthorized, 0},
		"a password":               {"GET", "/metrics", "Basic token-of-prometheus", http.StatusUnauthorized, 0},
		"a token without a scheme": {"GET", "/metrics", "token-of-prometheus", http.StatusUnauthorized, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReviewer(t)
			handler := r.guarded(t, logr.Discard())
			for range 2 { // the second time by what is remembered
				answer := read(t, handler, row.method, row.path, row.authorization)
				if answer.Code != row.code {
					t.Errorf("code %d, want %d", answer.Code, row.code)
				}
				if shown := strings.Contains(answer.Body.String(), "gsv_parked"); shown != (row.code == http.StatusOK) {
					t.Errorf("metrics shown: %t", shown)
				}
			}
			if len(r.reviews) != row.reviews {
				t.Errorf("asked %v, want %d reviews", r.reviews, row.reviews)
			}
		})
	}
}

func TestNobodyGetsMetricsWithoutAnAnswer(t *testing.T) {
	r := newReviewer(t)
	var logged []string
	handler := r.guarded(t, funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{}))
	r.broken = true
	if code := read(t, handler, http.MethodGet, "/metrics", "Bearer token-of-prometheus").Code; code != http.StatusInternalServerError {
		t.Errorf("code %d", code)
	}
	if len(logged) != 1 || strings.Contains(logged[0], "token-of-prometheus") {
		t.Errorf("logged %q", logged)
	}
	r.broken = false
	if code := read(t, handler, http.MethodGet, "/metrics", "Bearer token-of-prometheus").Code; code != http.StatusOK {
		t.Errorf("code %d once it answers again: no answer is no verdict", code)
	}
}
