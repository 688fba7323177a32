package grafana_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// canary is planted in whatever a server answers: no error may show it.
const canary = "canary-c0ffee"

const (
	testToken = "glsa_" + canary
	testValue = "value-" + canary
)

func config(url string) grafana.Config {
	return grafana.Config{
		URL: url, Namespace: "default", APIVersion: "v1beta1", Token: grafana.NewToken([]byte(testToken)),
		Timeout: 10 * time.Second, UserAgent: "grafana-secure-value-operator/test", AllowLoopback: true,
	}
}

func newClient(t *testing.T, cfg grafana.Config) *grafana.Client {
	t.Helper()
	c, err := grafana.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func secureValue() *grafana.SecureValue {
	return &grafana.SecureValue{
		Name: "db", Description: "text", Decrypters: []string{"k6-cloud"}, Value: grafana.NewValue([]byte(testValue)),
		Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, ResourceVersion: "42",
	}
}

// endpoints are the five calls, each about secure value "db" where it is about one.
// list returns what is listed.
func list(ctx context.Context, c *grafana.Client) (values []*grafana.SecureValue, err error) {
	err = c.List(ctx, "", func(sv *grafana.SecureValue) { values = append(values, sv) })
	return values, err
}

var endpoints = map[string]func(context.Context, *grafana.Client) error{
	"create": func(ctx context.Context, c *grafana.Client) error { _, err := c.Create(ctx, secureValue()); return err },
	"get":    func(ctx context.Context, c *grafana.Client) error { _, err := c.Get(ctx, "db"); return err },
	"list":   func(ctx context.Context, c *grafana.Client) error { _, err := list(ctx, c); return err },
	"update": func(ctx context.Context, c *grafana.Client) error { _, err := c.Update(ctx, secureValue()); return err },
	"delete": func(ctx context.Context, c *grafana.Client) error { return c.Delete(ctx, "db") },
}

var sentinels = map[string]error{
	"ErrUnauthorized": grafana.ErrUnauthorized, "ErrForbidden": grafana.ErrForbidden,
	"ErrNamespaceRejected": grafana.ErrNamespaceRejected, "ErrNotFound": grafana.ErrNotFound,
	"ErrAPINotServed": grafana.ErrAPINotServed, "ErrAlreadyExists": grafana.ErrAlreadyExists, "ErrConflict": grafana.ErrConflict,
	"ErrInvalid": grafana.ErrInvalid, "ErrRateLimited": grafana.ErrRateLimited, "ErrUnavailable": grafana.ErrUnavailable,
	"ErrAddress": grafana.ErrAddress, "ErrClearProxy": grafana.ErrClearProxy, "ErrRedirect": grafana.ErrRedirect, "ErrTLS": grafana.ErrTLS, "ErrUnreachable": grafana.ErrUnreachable,
	"ErrInvalidResponse": grafana.ErrInvalidResponse,
}

// expectOnly checks that err is the sentinel, is no other, and shows nothing of the server's.
func expectOnly(t *testing.T, err, want error) {
	t.Helper()
	for name, sentinel := range sentinels {
		if got := errors.Is(err, sentinel); got != errors.Is(want, sentinel) {
			t.Errorf("errors.Is(%v, %s) = %t", err, name, got)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if out := fmt.Sprintf(verb, err); strings.Contains(out, canary) {
			t.Errorf("%s shows what it must not: %s", verb, out)
		}
	}
}

func status(reason, kind, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,`+
		`"details":{"name":"db","group":"secret.grafana.app","kind":%q}}`, message+" "+canary, reason, kind)
}

const object = `{"apiVersion":"secret.grafana.app/v1beta1","kind":"SecureValue","metadata":{"name":"db"},"spec":{"description":"x"},"status":{}}`

func TestAnswers(t *testing.T) {
	const (
		html  = "text/html"
		plain = "text/plain"
		js    = "application/json"
	)
	for name, row := range map[string]struct {
		endpoints   string // of those it is about; empty is all
		code        int
		contentType string
		body        string
		want        error
	}{
		"created":                    {"create", 201, js, object, nil},
		"read or updated":            {"get update", 200, js, object, nil},
		"status missing":             {"create get update", 200, js, `{"kind":"SecureValue","metadata":{"name":"db"},"spec":{}}`, nil},
		"status full":                {"get", 200, js, strings.Replace(object, `"status":{}`, `"status":{"version":7,"externalID":"","keeper":"system"}`, 1), nil},
		"listed":                     {"list", 200, js, `{"kind":"SecureValueList","apiVersion":"secret.grafana.app/v1beta1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"db"},"spec":{}}]}`, nil},
		"listed, none":               {"list", 200, js, `{"kind":"SecureValueList","items":[]}`, nil},
		"listed, null":               {"list", 200, js, `{"kind":"SecureValueList","items":null}`, nil},
		"deleted":                    {"delete", 200, js, `{"apiVersion":"v1","kind":"Status","status":"Success","code":200}`, nil},
		"deleted, shown":             {"delete", 200, js, object, nil},
		"malformed JSON sent":        {"create update", 400, js, status("BadRequest", "", "bad"), grafana.ErrInvalid},
		"invalid as 422":             {"create update", 422, js, status("Invalid", "SecureValue", "invalid"), grafana.ErrInvalid},
		"invalid as 400":             {"create update", 400, js, status("Invalid", "SecureValue", "invalid"), grafana.ErrInvalid},
		"too large a body":           {"create update", 413, js, status("RequestEntityTooLarge", "", "large"), grafana.ErrInvalid},
		"no token":                   {"", 401, js, `{"message":"Unauthorized ` + canary + `"}`, grafana.ErrUnauthorized},
		"wrong token":                {"", 401, js, `{"extra":null,"message":"Invalid API key","messageId":"api-key.invalid","statusCode":401,"traceID":"` + canary + `"}`, grafana.ErrUnauthorized},
		"action missing":             {"", 403, js, status("Forbidden", "securevalues", "cannot get resource: unauthorized request"), grafana.ErrForbidden},
		"wrong org":                  {"", 403, js, status("Forbidden", "securevalues", "in the namespace: invalid org"), grafana.ErrNamespaceRejected},
		"wrong namespace":            {"", 403, js, status("Forbidden", "securevalues", "in the namespace: invalid namespace"), grafana.ErrNamespaceRejected},
		"wrong namespace, no Status": {"", 403, js, `{"message":"invalid namespace ` + canary + `"}`, grafana.ErrNamespaceRejected},
		"malformed namespace":        {"", 500, plain, `Internal Server Error: "/x": use default rather than org-1 ` + canary, grafana.ErrNamespaceRejected},
		"not there":                  {"get update delete", 404, js, status("NotFound", "securevalue", "not found"), grafana.ErrNotFound},
		"something else not there":   {"", 404, js, status("NotFound", "namespaces", "not found"), grafana.ErrAPINotServed},
		"another value not there":    {"", 404, js, strings.Replace(status("NotFound", "securevalue", "not found"), `"name":"db"`, `"name":"other"`, 1), grafana.ErrAPINotServed},
		"API not served":             {"", 404, plain, "404 page not found\n" + canary, grafana.ErrAPINotServed},
		"API not served, an index":   {"", 404, js, "{\n  \"paths\": [\n    \"/apis\",\n    \"" + canary + "\"\n  ]\n}", grafana.ErrAPINotServed},
		"API not served, in JSON":    {"", 404, js, `{"message":"Not found","traceID":"` + canary + `"}`, grafana.ErrAPINotServed},
		"API not served, as Status":  {"", 404, js, `{"kind":"Status","reason":"NotFound","message":"the server could not find the requested resource","details":{}}`, grafana.ErrAPINotServed},
		"name taken":                 {"create", 409, js, status("AlreadyExists", "securevalues", "already exists"), grafana.ErrAlreadyExists},
		"changed meanwhile":          {"update", 409, js, status("Conflict", "securevalues", "modified"), grafana.ErrConflict},
		"a login page with 401":      {"", 401, html, "<html>" + canary, grafana.ErrUnavailable},
		"a basic 401":                {"", 401, plain, "401 Authorization Required " + canary, grafana.ErrUnavailable},
		"an empty 401":               {"", 401, "", "", grafana.ErrUnavailable},
		"a 401 in another JSON":      {"", 401, js, `{"error":{"code":401,"message":"` + canary + `"}}`, grafana.ErrUnavailable},
		"a firewall's 403":           {"", 403, html, "<html>invalid organization " + canary, grafana.ErrUnavailable},
		"an empty 403":               {"", 403, "", "", grafana.ErrUnavailable},
		"a gateway's 403":            {"", 403, js, `{"message":"Forbidden ` + canary + `"}`, grafana.ErrUnavailable},
		"an ingress' 404":            {"", 404, html, "<html>404 Not Found " + canary, grafana.ErrUnavailable},
		"an empty 404":               {"", 404, "", "", grafana.ErrUnavailable},
		"a front's 400":              {"", 400, html, "<html>" + canary, grafana.ErrUnavailable},
		"a front's 409":              {"", 409, plain, canary, grafana.ErrUnavailable},
		"a front's 413":              {"", 413, html, "<html>" + canary, grafana.ErrUnavailable},
		"a front's 422":              {"", 422, js, `{"errors":[]}`, grafana.ErrUnavailable},
		"a front's 500":              {"", 500, html, "<html>invalid organization " + canary, grafana.ErrUnavailable},
		"method not allowed":         {"", 405, plain, canary, grafana.ErrUnavailable},
		"rate limited":               {"", 429, plain, canary, grafana.ErrRateLimited},
		"keeper failed":              {"", 500, js, status("", "", "keeper"), grafana.ErrUnavailable},
		"bad gateway":                {"", 502, html, "<html>" + canary, grafana.ErrUnavailable},
		"starting up":                {"", 503, js, status("ServiceUnavailable", "", "starting"), grafana.ErrUnavailable},
		"gateway timeout":            {"", 504, html, "<html>" + canary, grafana.ErrUnavailable},
		"HTML with 200":              {"", 200, html, "<html>" + canary, grafana.ErrInvalidResponse},
		"empty 200":                  {"", 200, js, "", grafana.ErrInvalidResponse},
		"empty 204":                  {"", 204, "", "", grafana.ErrInvalidResponse},
		"null":                       {"", 200, js, "null", grafana.ErrInvalidResponse},
		"an array":                   {"", 200, js, "[]", grafana.ErrInvalidResponse},
		"wrong kind":                 {"", 200, js, `{"kind":"Secret","metadata":{"name":"db"},"spec":{},"items":[]}`, grafana.ErrInvalidResponse},
		"wrong group":                {"create get update delete", 200, js, strings.Replace(object, "secret.grafana.app", "x", 1), grafana.ErrInvalidResponse},
		"kind missing":               {"", 200, js, `{"metadata":{"name":"db"},"spec":{},"items":[]}`, grafana.ErrInvalidResponse},
		"another name":               {"create get update delete", 200, js, strings.Replace(object, `"db"`, `"`+canary+`"`, 1), grafana.ErrInvalidResponse},
		"a failure with 200":         {"", 200, js, status("NotFound", "securevalue", "not found"), grafana.ErrInvalidResponse},
		"cut-off JSON":               {"", 200, js, object[:40], grafana.ErrInvalidResponse},
		"items missing":              {"list", 200, js, `{"kind":"SecureValueList"}`, grafana.ErrInvalidResponse},
		"text after the list":        {"list", 200, js, `{"kind":"SecureValueList","items":[]} ` + canary, grafana.ErrInvalidResponse},
		"item of another kind":       {"list", 200, js, `{"kind":"SecureValueList","items":[{"kind":"Secret","metadata":{"name":"db"}}]}`, grafana.ErrInvalidResponse},
		"item without a name":        {"list", 200, js, `{"kind":"SecureValueList","items":[{"spec":{}}]}`, grafana.ErrInvalidResponse},
		"huge body":                  {"create get update delete", 200, js, object + strings.Repeat(" ", 128<<10), grafana.ErrInvalidResponse},
	} {
		for endpoint, call := range endpoints {
			if row.endpoints != "" && !strings.Contains(row.endpoints, endpoint) {
				continue
			}
			want := row.want
			if endpoint == "delete" && row.code < 300 && name != "huge body" {
				want = nil // it is no proof, and not read
			}
			t.Run(name+"/"+endpoint, func(t *testing.T) {
				var calls atomic.Int32
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					calls.Add(1)
					w.Header().Set("Content-Type", row.contentType)
					w.Header().Set("X-Canary", canary)
					w.WriteHeader(row.code)
					_, _ = io.WriteString(w, row.body)
				}))
				defer server.Close()

				err := call(t.Context(), newClient(t, config(server.URL)))
				expectOnly(t, err, want)
				if want == nil && err != nil {
					t.Errorf("error = %v", err)
				}
				if e, ok := errors.AsType[*grafana.Error](err); want != nil && (!ok || e.StatusCode != row.code || e.Op != endpoint) {
					t.Errorf("error = %#v, want code %d and op %s", e, row.code, endpoint)
				}
				if calls.Load() != 1 {
					t.Errorf("%d calls", calls.Load())
				}
			})
		}
	}
}

func TestRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		for where, location := range map[string]string{
			"another host": other.URL + "/" + canary, "the same host": "/login?" + canary, "nowhere": "", "no URL": "http://[::1/%zz" + canary,
		} {
			for endpoint, call := range endpoints {
				t.Run(fmt.Sprintf("%d to %s/%s", code, where, endpoint), func(t *testing.T) {
					var calls atomic.Int32
					server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						calls.Add(1)
						if location != "" {
							w.Header().Set("Location", location)
						}
						w.WriteHeader(code)
					}))
					defer server.Close()
					err := call(t.Context(), newClient(t, config(server.URL)))
					expectOnly(t, err, grafana.ErrRedirect)
					if e, ok := errors.AsType[*grafana.Error](err); !ok || e.StatusCode != code {
						t.Errorf("error = %v, want code %d", err, code)
					}
					if calls.Load() != 1 || elsewhere.Load() != 0 {
						t.Errorf("%d calls, and %d elsewhere", calls.Load(), elsewhere.Load())
					}
				})
			}
		}
	}
}

func TestNoAnswer(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, handler := range map[string]http.HandlerFunc{
		"cut before the answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cut in the body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, object[:30])
			panic(http.ErrAbortHandler)
		},
		"too long a header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Canary", strings.Repeat(canary, 10_000))
			_, _ = io.WriteString(w, object)
		},
		"no header comes": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"the body does not end": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, object[:30])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
	} {
		for endpoint, call := range endpoints {
			t.Run(name+"/"+endpoint, func(t *testing.T) {
				t.Parallel()
				server := httptest.NewServer(handler)
				t.Cleanup(server.Close)
				cfg := config(server.URL)
				cfg.Timeout = 300 * time.Millisecond
				expectOnly(t, call(t.Context(), newClient(t, cfg)), grafana.ErrUnreachable)
			})
		}
	}
	t.Run("nobody listens", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		_, err := newClient(t, config(server.URL)).Get(t.Context(), "db")
		expectOnly(t, err, grafana.ErrUnreachable)
		if !errors.Is(err, grafana.ErrConnectionRefused) {
			t.Error("the cause is lost")
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(); <-hang }))
		t.Cleanup(server.CloseClientConnections)
		_, err := newClient(t, config(server.URL)).Get(ctx, "db")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want context.Canceled", err)
		}
	})
}

func TestTLS(t *testing.T) {
	server := grafanatest.New()
	server.AddToken(testToken)
	running := started(t, server.StartTLS)
	for name, row := range map[string]struct {
		ca         []byte
		serverName string
		url        string
		want       error
		cause      error
	}{
		"right CA":               {ca: running.CA},
		"right CA, name given":   {ca: running.CA, serverName: "example.com"},
		"another name":           {ca: running.CA, serverName: "other.test", want: grafana.ErrTLS, cause: grafana.ErrServerName},
		"CA not known":           {want: grafana.ErrTLS, cause: grafana.ErrUnknownAuthority},
		"a version that is old":  {url: tlsServer(t, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}), want: grafana.ErrTLS},
		"a certificate is asked": {ca: running.CA, url: tlsServer(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert}), want: grafana.ErrTLS},
		"plain HTTP under https": {url: "https://" + strings.TrimPrefix(plainServer(t), "http://"), want: grafana.ErrTLS, cause: grafana.ErrNoTLS},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(running.URL)
			if row.url != "" {
				cfg.URL = row.url
			}
			cfg.CAData, cfg.ServerName = row.ca, row.serverName
			_, err := list(t.Context(), newClient(t, cfg))
			if row.want == nil && err != nil {
				t.Fatal(err)
			}
			expectOnly(t, err, row.want)
			if row.cause != nil && !errors.Is(err, row.cause) {
				t.Errorf("error = %v, want it because of %v", err, row.cause)
			}
		})
	}
	cfg := config(running.URL)
	for _, bad := range []string{"not PEM " + canary, ""} { // an empty one is not the system's
		cfg.CAData = []byte(bad)
		_, err := grafana.New(cfg)
		expectOnly(t, err, grafana.ErrTLS)
		if !errors.Is(err, grafana.ErrCA) {
			t.Errorf("error = %v", err)
		}
	}
}

func TestCertificateThatIsNotChecked(t *testing.T) {
	server := grafanatest.New()
	server.AddToken(testToken)
	running := started(t, server.StartTLS)
	cfg := config(running.URL)
	cfg.InsecureSkipVerify, cfg.ServerName = true, "other.test"
	if _, err := list(t.Context(), newClient(t, cfg)); err != nil {
		t.Error(err)
	}
	cfg.URL = tlsServer(t, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	_, err := list(t.Context(), newClient(t, cfg))
	expectOnly(t, err, grafana.ErrTLS)
}

func TestClientCertificate(t *testing.T) {
	cert, key, err := grafanatest.ClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	otherCert, otherKey, err := grafanatest.ClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	server := grafanatest.New()
	server.AddToken(testToken)
	running := started(t, func() (*grafanatest.Running, error) { return server.StartMutualTLS(cert) })
	for name, row := range map[string]struct {
		cert, key []byte
		bad       bool // New refuses it
		want      error
	}{
		"right":                     {cert: cert, key: key},
		"another one":               {cert: otherCert, key: otherKey, want: grafana.ErrTLS},
		"none":                      {want: grafana.ErrTLS},
		"the key of another one":    {cert: cert, key: otherKey, bad: true, want: grafana.ErrTLS},
		"no key":                    {cert: cert, bad: true, want: grafana.ErrTLS},
		"no certificate":            {key: key, bad: true, want: grafana.ErrTLS},
		"both empty":                {cert: []byte{}, key: []byte{}, bad: true, want: grafana.ErrTLS},
		"a certificate that is not": {cert: []byte(canary), key: key, bad: true, want: grafana.ErrTLS},
		"a key that is not":         {cert: cert, key: []byte(canary), bad: true, want: grafana.ErrTLS},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(running.URL)
			cfg.CAData, cfg.ClientCert, cfg.ClientKey = running.CA, row.cert, row.key
			c, err := grafana.New(cfg)
			if errors.Is(err, grafana.ErrClientCert) != row.bad {
				t.Fatalf("New: %v", err)
			}
			if err == nil {
				t.Cleanup(c.CloseIdleConnections)
				_, err = list(t.Context(), c)
			}
			if row.want == nil && err != nil {
				t.Fatal(err)
			}
			expectOnly(t, err, row.want)
		})
	}
}

// tlsServer serves nothing, over TLS and with the certificate that all servers of httptest have.
func tlsServer(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS, server.Config.ErrorLog = cfg, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func plainServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestRequests(t *testing.T) {
	var got *http.Request
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		got, body = r, string(content)
		_, _ = io.WriteString(w, object)
	}))
	t.Cleanup(server.Close)

	for base, path := range map[string]string{
		"":              "/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues",
		"/":             "/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues",
		"/sub/grafana/": "/sub/grafana/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues",
		"/a%2Fb":        "/a%2Fb/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues",
	} {
		c := newClient(t, config(server.URL+base))
		if _, err := c.Get(t.Context(), "db"); err != nil || got.URL.EscapedPath() != path+"/db" || got.Method != http.MethodGet {
			t.Errorf("GET %s, %v", got.URL, err)
		}
		if _, err := c.Update(t.Context(), secureValue()); err != nil || got.URL.EscapedPath() != path+"/db" || got.Method != http.MethodPut {
			t.Errorf("PUT %s, %v", got.URL, err)
		}
		if err := c.Delete(t.Context(), "db"); err != nil || got.URL.EscapedPath() != path+"/db" || got.Method != http.MethodDelete {
			t.Errorf("DELETE %s, %v", got.URL, err)
		}
		if _, err := c.Create(t.Context(), secureValue()); err != nil || got.URL.EscapedPath() != path || got.Method != http.MethodPost {
			t.Errorf("POST %s, %v", got.URL, err)
		}
	}
	const want = `{"apiVersion":"secret.grafana.app/v1beta1","kind":"SecureValue","metadata":{"name":"db","namespace":"default",` +
		`"resourceVersion":"42","labels":{"a":"b"},"annotations":{"c":"d"}},"spec":{"description":"text","value":"` + testValue +
		`","decrypters":["k6-cloud"]}}` + "\n"
	if body != want {
		t.Errorf("body = %s", body)
	}
	if got.Header.Get("Authorization") != "Bearer "+testToken || got.Header.Get("User-Agent") != "grafana-secure-value-operator/test" {
		t.Errorf("headers = %v", got.Header)
	}
	cfg := config(server.URL)
	cfg.Token = grafana.NewBasicAuth([]byte("admin"), []byte("a: ü"))
	_, _ = newClient(t, cfg).Get(t.Context(), "db")
	if user, password, ok := got.BasicAuth(); !ok || user != "admin" || password != "a: ü" {
		t.Errorf("a user and a password are sent as %q, %q", user, password)
	}
	c := newClient(t, config(server.URL))
	_ = c.List(t.Context(), "a=b,c in (d)", func(*grafana.SecureValue) {})
	if got.URL.Query().Get("labelSelector") != "a=b,c in (d)" {
		t.Errorf("LIST %s", got.URL)
	}
	_, _ = c.Get(t.Context(), "a/../b?c")
	if got.URL.EscapedPath() != "/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues/a%2F..%2Fb%3Fc" {
		t.Errorf("a name left its place: %s", got.URL.EscapedPath())
	}
}

func TestURLs(t *testing.T) {
	for _, url := range []string{
		"", "grafana.example.com", "ftp://h", "http://", "https:///path", "http://user@h", "https://u:" + canary + "@h", "http://h?q=1",
		"http://h/?", "http://h#f", "http://h#", "http:h", "http://h:port", "http://h:0", "http://h:99999", "http://[::1", "http://h\x7f", "//h",
	} {
		if _, err := grafana.New(config(url)); err == nil {
			t.Errorf("%q was taken", url)
		} else {
			expectOnly(t, err, nil)
		}
	}
	for _, url := range []string{"http://h", "https://h:3000", "http://[::1]:3000/sub/path/", "HTTPS://H"} {
		if _, err := grafana.New(config(url)); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestConfigs(t *testing.T) {
	for name, change := range map[string]func(*grafana.Config){
		"no namespace":                     func(cfg *grafana.Config) { cfg.Namespace = "" },
		"a namespace that leaves the path": func(cfg *grafana.Config) { cfg.Namespace = "../default" },
		"no version":                       func(cfg *grafana.Config) { cfg.APIVersion = "" },
		"a version that leaves the path":   func(cfg *grafana.Config) { cfg.APIVersion = ".." },
		"no timeout":                       func(cfg *grafana.Config) { cfg.Timeout = 0 },
	} {
		cfg := config("https://h")
		change(&cfg)
		if _, err := grafana.New(cfg); err == nil {
			t.Errorf("%s was taken", name)
		} else {
			expectOnly(t, err, nil)
		}
	}
}

func TestNothingBadIsSent(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(server.Close)
	c := newClient(t, config(server.URL))
	for name, change := range map[string]func(*grafana.SecureValue){
		"empty value":  func(sv *grafana.SecureValue) { sv.Value = grafana.Value{} },
		"24,577 bytes": func(sv *grafana.SecureValue) { sv.Value = grafana.NewValue(make([]byte, 24577)) },
		"not UTF-8":    func(sv *grafana.SecureValue) { sv.Value = grafana.NewValue([]byte(canary + "\xff")) },
	} {
		t.Run(name, func(t *testing.T) {
			sv := secureValue()
			change(sv)
			_, err := c.Create(t.Context(), sv)
			expectOnly(t, err, grafana.ErrInvalid)
			_, err = c.Update(t.Context(), sv)
			expectOnly(t, err, grafana.ErrInvalid)
		})
	}
	for _, name := range []string{"", ".", ".."} {
		sv := secureValue()
		sv.Name = name
		for _, send := range []func() error{
			func() error { _, err := c.Create(t.Context(), sv); return err },
			func() error { _, err := c.Get(t.Context(), name); return err },
			func() error { _, err := c.Update(t.Context(), sv); return err },
			func() error { return c.Delete(t.Context(), name) },
		} {
			expectOnly(t, send(), grafana.ErrInvalid)
		}
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestFieldsThatAreKnown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind":"Status","reason":"Invalid","details":{"causes":[{"field":"spec.decrypters.[3]"},{"field":"spec.value"},`+
			`{"field":"`+canary+`"},{"field":"spec.value `+canary+`"}]}}`)
	}))
	t.Cleanup(server.Close)
	_, err := newClient(t, config(server.URL)).Create(t.Context(), secureValue())
	expectOnly(t, err, grafana.ErrInvalid)
	e, ok := errors.AsType[*grafana.Error](err)
	if !ok || fmt.Sprint(e.Fields) != "[spec.decrypters[3] spec.value]" {
		t.Errorf("fields = %v", e.Fields)
	}
}

func TestActions(t *testing.T) {
	server := grafanatest.New()
	server.AddToken(testToken, grafanatest.Permission{})
	running := started(t, server.Start)
	c := newClient(t, config(running.URL))
	for endpoint, action := range map[string]string{
		"create": "create", "get": "read", "list": "read", "update": "write", "delete": "delete",
	} {
		err := endpoints[endpoint](t.Context(), c)
		e, ok := errors.AsType[*grafana.Error](err)
		if !ok || !errors.Is(err, grafana.ErrForbidden) || e.Action() != "secret.securevalues:"+action {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-1": 0, "soon": 0, "99999999": 15 * time.Minute, "18446744073709551615": 15 * time.Minute,
		"99999999999999999999999": 0, time.Now().Add(48 * time.Hour).UTC().Format(http.TimeFormat): 15 * time.Minute,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(http.StatusTooManyRequests)
		}))
		_, err := newClient(t, config(server.URL)).Get(t.Context(), "db")
		if e, ok := errors.AsType[*grafana.Error](err); !ok || e.RetryAfter != want {
			t.Errorf("Retry-After %q: %s, want %s", header, e.RetryAfter, want)
		}
		server.Close()
	}
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} { // the server's clock
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			now := time.Now().UTC().Add(ahead)
			w.Header().Set("Date", now.Format(http.TimeFormat))
			w.Header().Set("Retry-After", now.Add(30*time.Second).Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		_, err := newClient(t, config(server.URL)).Get(t.Context(), "db")
		if e, ok := errors.AsType[*grafana.Error](err); !ok || e.RetryAfter != 30*time.Second {
			t.Errorf("a clock %s ahead: %s, want 30s", ahead, e.RetryAfter)
		}
		server.Close()
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"kind":"Status","reason":"ServiceUnavailable","details":{"retryAfterSeconds":5}}`)
	}))
	t.Cleanup(server.Close)
	_, err := newClient(t, config(server.URL)).Get(t.Context(), "db")
	if e, ok := errors.AsType[*grafana.Error](err); !ok || e.RetryAfter != 5*time.Second {
		t.Errorf("retryAfterSeconds: %v", err)
	}
}

func TestVersions(t *testing.T) {
	server := grafanatest.New(grafanatest.WithBasePath("/grafana"))
	server.AddToken(testToken)
	c := newClient(t, config(started(t, server.Start).URL))
	if versions, err := c.Versions(t.Context()); err != nil || !slices.Equal(versions, []string{"v1beta1"}) {
		t.Errorf("%v, %v", versions, err)
	}
	notServed := grafanatest.New(grafanatest.WithAPINotServed())
	notServed.AddToken(testToken)
	_, err := newClient(t, config(started(t, notServed.Start).URL)).Versions(t.Context())
	expectOnly(t, err, grafana.ErrAPINotServed)
	words := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"APIGroup","name":"secret.grafana.app","versions":[{"version":"`+canary+`"},{"version":"v1"}]}`)
	}))
	t.Cleanup(words.Close)
	if versions, err := newClient(t, config(words.URL)).Versions(t.Context()); err != nil || !slices.Equal(versions, []string{"v1"}) {
		t.Errorf("%v, %v", versions, err)
	}
}
