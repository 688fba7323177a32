package grafanatest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// running is a fake Grafana, and a token that may do everything.
type running struct {
	*grafanatest.Server

	url string
}

const token = "glsa_test"

func start(t *testing.T, options ...grafanatest.Option) running {
	t.Helper()
	server := grafanatest.New(options...)
	server.AddToken(token)
	r, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return running{Server: server, url: r.URL}
}

// call makes a request about default/<name>, and returns the code, the content type and the body.
func (r running) call(t *testing.T, method, path, body, bearer string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(content)
}

const values = "/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues"

func body(name, more string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"description":"x","value":"v"%s}}`, name, more)
}

func TestAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		options      []grafanatest.Option
		method, path string
		body, token  string
		code         int
		contentType  string
		part         string
	}{
		"no token":                      {nil, "GET", values, "", "", 401, "application/json", `{"message":"Unauthorized"}`},
		"wrong token":                   {nil, "GET", values, "", "x", 401, "application/json", "api-key.invalid"},
		"API not served":                {[]grafanatest.Option{grafanatest.WithAPINotServed()}, "GET", values, "", token, 404, "text/plain; charset=utf-8", "404 page not found"},
		"another version":               {nil, "GET", strings.Replace(values, "v1beta1", "v1", 1), "", token, 404, "application/json", "could not find the requested resource"},
		"another namespace":             {nil, "GET", strings.Replace(values, "default", "org-2", 1), "", token, 403, "application/json", "invalid namespace"},
		"org-1":                         {nil, "GET", strings.Replace(values, "default", "org-1", 1), "", token, 500, "text/plain; charset=utf-8", "use default rather than org-1"},
		"a stack that is none":          {nil, "GET", strings.Replace(values, "default", "stacks-abc", 1), "", token, 500, "text/plain; charset=utf-8", "invalid stack id"},
		"not there":                     {nil, "GET", values + "/none", "", token, 404, "application/json", `"kind":"securevalue"`},
		"PUT, not there":                {nil, "PUT", values + "/none", body("none", ""), token, 404, "application/json", `"reason":"NotFound"`},
		"DELETE, not there":             {nil, "DELETE", values + "/none", "", token, 404, "application/json", `"reason":"NotFound"`},
		"DELETE of all":                 {nil, "DELETE", values, "", token, 405, "application/json", "MethodNotAllowed"},
		"watch":                         {nil, "GET", values + "?watch=true", "", token, 405, "application/json", "MethodNotAllowed"},
		"bad selector":                  {nil, "GET", values + "?labelSelector=!!", "", token, 400, "application/json", "BadRequest"},
		"bad JSON":                      {nil, "POST", values, "{", token, 400, "application/json", "BadRequest"},
		"wrong apiVersion":              {nil, "POST", values, `{"apiVersion":"secret.grafana.app/v9"}`, token, 400, "application/json", "BadRequest"},
		"another namespace in the body": {nil, "POST", values, `{"metadata":{"namespace":"org-2"}}`, token, 400, "application/json", "BadRequest"},
		"another name in the body":      {nil, "PUT", values + "/a", body("b", ""), token, 400, "application/json", "BadRequest"},
		"too large a body":              {nil, "POST", values, strings.Repeat(" ", 17<<20), token, 413, "application/json", "RequestEntityTooLarge"},
		"invalid":                       {nil, "POST", values, body("a", `,"decrypters":["ok","a/b"]`), token, 422, "application/json", `"spec.decrypters.[1]"`},
		"invalid as 400":                {[]grafanatest.Option{grafanatest.WithInvalidAs400()}, "POST", values, body("A", ""), token, 400, "application/json", "metadata.name"},
		"created":                       {nil, "POST", values, body("a", ""), token, 201, "application/json", `"version":1`},
		"created, no status":            {[]grafanatest.Option{grafanatest.WithoutStatus()}, "POST", values, body("a", ""), token, 201, "application/json", `"status":{}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, row.options...)
			code, contentType, content := r.call(t, row.method, row.path, row.body, row.token)
			if code != row.code || contentType != row.contentType || !strings.Contains(content, row.part) {
				t.Errorf("HTTP %d %s %s", code, contentType, content)
			}
		})
	}
}

func TestPermissions(t *testing.T) {
	r := start(t, grafanatest.WithNamespaces("default", "org-2"))
	r.AddToken("reader", grafanatest.Permission{Action: grafanatest.ActionRead, Namespace: "default", Name: "seen"})
	r.Put("default", grafanatest.Stored{Name: "seen", Description: "x"})
	r.Put("default", grafanatest.Stored{Name: "hidden", Description: "x"})
	for path, want := range map[string]int{
		values: 200, values + "/seen": 200, values + "/hidden": 403, strings.Replace(values, "default", "org-2", 1): 403,
	} {
		code, _, content := r.call(t, "GET", path, "", "reader")
		if code != want || (path == values && (strings.Contains(content, "hidden") || !strings.Contains(content, "seen"))) {
			t.Errorf("GET %s: HTTP %d %s", path, code, content)
		}
	}
	// Forbidden comes before the body is read, and before it shows whether the value exists.
	for _, method := range []string{"PUT", "DELETE"} {
		if code, _, _ := r.call(t, method, values+"/none", "{", "reader"); code != 403 {
			t.Errorf("%s: HTTP %d", method, code)
		}
	}
	if code, _, _ := r.call(t, "POST", values, "{", "reader"); code != 403 {
		t.Errorf("POST: HTTP %d", code)
	}
}

func TestVersions(t *testing.T) {
	r := start(t)
	expect := func(what string, version int64) grafanatest.Stored {
		t.Helper()
		v, found := r.Value("default", "a")
		if !found || v.Version != version {
			t.Errorf("%s: version %d, want %d", what, v.Version, version)
		}
		return v
	}
	r.call(t, "POST", values, body("a", ""), token)
	first := expect("created", 1)
	r.call(t, "PUT", values+"/a", body("a", ""), token)
	second := expect("nothing changed", 2)
	if first.UID == second.UID || !first.CreatedAt.Equal(second.CreatedAt) {
		t.Error("each version has a uid of its own, and all of them one time of creation")
	}
	r.call(t, "PUT", values+"/a", `{"metadata":{"name":"a"},"spec":{"description":"x"}}`, token)
	if v := expect("value left out", 3); string(v.Value) != "v" {
		t.Errorf("a value that is left out is kept: %q", v.Value)
	}
	r.call(t, "PUT", values+"/a", `{"metadata":{"name":"a"},"spec":{"description":"x","value":""}}`, token)
	expect("an empty value is refused", 3)
	r.call(t, "DELETE", values+"/a", "", token)
	r.call(t, "POST", values, body("a", ""), token)
	expect("deleted and made again", 4)
	r.Remove("default", "a")
	r.CollectGarbage()
	r.call(t, "POST", values, body("a", ""), token)
	expect("made again after the garbage was collected", 1)
}

func TestWhatIsKept(t *testing.T) {
	r := start(t)
	r.Put("default", grafanatest.Stored{
		Name: "a", Description: "x", Value: []byte("v"), OwnerReferences: []grafanatest.OwnerReference{{Kind: "X", Name: "x"}},
	})
	r.call(t, "PUT", values+"/a", `{"metadata":{"name":"a","labels":{"l":"1"},"annotations":{"a":"1","grafana.app/createdBy":"me"}},`+
		`"spec":{"description":"x","value":"v","decrypters":[" k6-cloud"]}}`, token)
	v, _ := r.Value("default", "a")
	if v.Labels["l"] != "1" || v.Annotations["a"] != "1" || v.Annotations["grafana.app/createdBy"] != "" || len(v.OwnerReferences) != 1 {
		t.Errorf("kept %+v", v)
	}
	if _, err := r.Decrypt("default", "a", "k6-cloud"); !errors.Is(err, grafanatest.ErrNotDecrypted) {
		t.Error("a decrypter with spaces around it decrypts")
	}
	_, _, content := r.call(t, "GET", values+"/a", "", token)
	if !strings.Contains(content, "service-account:") || strings.Contains(content, `"value"`) {
		t.Errorf("shows %s", content)
	}

	dropping := start(t, grafanatest.WithLabelsDropped())
	dropping.call(t, "POST", values, strings.Replace(body("a", ""), `"name":"a"`, `"name":"a","labels":{"l":"1"}`, 1), token)
	if v, _ := dropping.Value("default", "a"); v.Labels != nil {
		t.Errorf("labels are kept: %v", v.Labels)
	}
}

func TestResourceVersionEnforced(t *testing.T) {
	for _, enforced := range []bool{false, true} {
		var options []grafanatest.Option
		want := 200
		if enforced {
			options, want = append(options, grafanatest.WithResourceVersionEnforced()), 409
		}
		r := start(t, options...)
		r.Put("default", grafanatest.Stored{Name: "a", Description: "x"})
		stale := strings.Replace(body("a", ""), `"name":"a"`, `"name":"a","resourceVersion":"1"`, 1)
		if code, _, content := r.call(t, "PUT", values+"/a", stale, token); code != want {
			t.Errorf("enforced %t: HTTP %d %s", enforced, code, content)
		}
	}
}

func TestFaults(t *testing.T) {
	r := start(t)
	r.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Name: "a", Code: 503, Body: "down", Times: 1})
	remove := r.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Rewrite: func(b []byte) []byte { return bytes.ToUpper(b) }})
	if code, _, content := r.call(t, "POST", values, body("a", ""), token); code != 503 || content != "down" {
		t.Errorf("HTTP %d %s", code, content)
	}
	if code, _, _ := r.call(t, "POST", values, body("a", ""), token); code != 201 {
		t.Errorf("the fault happens more often than it should: HTTP %d", code)
	}
	if _, _, content := r.call(t, "GET", values+"/a", "", token); !strings.Contains(content, "SECUREVALUE") {
		t.Errorf("not rewritten: %s", content)
	}
	remove()
	if _, _, content := r.call(t, "GET", values+"/a", "", token); !strings.Contains(content, "SecureValue") {
		t.Errorf("the fault stays: %s", content)
	}
	var got []string
	for _, c := range r.Calls() {
		got = append(got, fmt.Sprintf("%s %s %d", c.Verb, c.Name, c.Code))
	}
	if fmt.Sprint(got) != "[create a 503 create a 201 get a 200 get a 200]" {
		t.Errorf("calls = %q", got)
	}
	r.ResetCalls()
	if len(r.Calls()) != 0 {
		t.Error("calls are not forgotten")
	}
}
