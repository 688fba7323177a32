package grafana

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// canary is what no error text may repeat of an answer.
const canary = "canary-7f3a"

const wellFormed = `{"apiVersion":"secret.grafana.app/v1beta1","kind":"SecureValue","metadata":{"name":"api-key","namespace":"default",` +
	`"resourceVersion":"7","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"a":"b"}},"spec":{"description":"d"},"status":{"version":3}}`

// answers are bodies as servers and what stands before them send.
var answers = []string{
	wellFormed,
	`{"kind":"SecureValueList","items":[` + wellFormed + `]}`,
	`{"items":null,"kind":"SecureValueList"}`,
	`{"kind":"Status","status":"Success"}`,
	`{"kind":"Status","status":"Failure","reason":"NotFound","message":"` + canary + `","details":{"name":"api-key","kind":"securevalue"}}`,
	`{"kind":"Status","reason":"Invalid","details":{"causes":[{"field":"spec.value"},{"field":"` + canary + `"}],"retryAfterSeconds":9223372036854775807}}`,
	`<!DOCTYPE html><title>` + canary + `</title>`,
	`{"kind":"SecureValue","metadata":{"name":"other"}}`,
	`{"kind":"SecureValue","metadata":{"name":"api-key","creationTimestamp":"yesterday"}}`,
	`{"kind":"SecureValueList","items":[{"metadata":{}}]}`,
	`{"kind":"SecureValueList","items":[` + strings.Repeat("[", 64),
	"", "null", "[]", `"`, "{", "\x00", wellFormed + wellFormed,
}

func addAnswers(f *testing.F) {
	for _, body := range answers {
		f.Add([]byte(body))
	}
}

// What is taken for a secure value has the name that was asked for, and is a JSON object of that kind.
func FuzzDecodeObject(f *testing.F) {
	addAnswers(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		sv, err := decodeObject(body, "api-key")
		if err != nil {
			if err.Error() != errMalformed.Error() {
				t.Errorf("the error says more than that: %v", err)
			}
			return
		}
		var o struct{ Kind string }
		if sv.Name != "api-key" || json.Unmarshal(body, &o) != nil || o.Kind != kind {
			t.Errorf("%q passes for a secure value", body)
		}
		if len(sv.Value.Bytes()) != 0 {
			t.Error("a value was read from an answer")
		}
	})
}

// What is taken for a list is a whole one, and each of its items has a name.
func FuzzDecodeList(f *testing.F) {
	addAnswers(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var values []*SecureValue
		err := decodeList(bytes.NewReader(body), func(sv *SecureValue) { values = append(values, sv) })
		if err != nil {
			if err.Error() != errMalformed.Error() {
				t.Errorf("the error says more than that: %v", err)
			}
			return
		}
		var list map[string]json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			t.Errorf("%q passes for a list: %v", body, err)
		}
		for _, sv := range values {
			if sv.Name == "" {
				t.Errorf("%q passes for a list", body)
			}
		}
	})
}

// An answer that is no success always has one of our own reasons, and never a word of the server's.
func FuzzFailure(f *testing.F) {
	for _, body := range answers {
		for _, code := range []int{301, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503} {
			f.Add(code, "", []byte(body))
		}
	}
	f.Add(429, canary, []byte{})
	f.Fuzz(func(t *testing.T, code int, header string, body []byte) {
		e := failure(code, http.Header{"Retry-After": {header}}, body, "api-key", time.Unix(1_800_000_000, 0))
		e.Op, e.Name = "get", "api-key"
		if e.kind == nil {
			t.Fatal("no reason")
		}
		if e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Errorf("waits for %s", e.RetryAfter)
		}
		if strings.Contains(e.Error(), canary) {
			t.Errorf("the error repeats the answer: %v", e)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{
		"", "0", "1", " 120 ", "-1", "1.5", "3600", "3601", "18446744073709551615", "18446744073709551616", "1e9", "0x10", "+5", "soon",
		"Fri, 01 Jan 2027 00:00:30 GMT", "Friday, 01-Jan-27 00:00:30 GMT", "Fri Jan  1 00:00:30 2027", "Thu, 01 Jan 1970 00:00:00 GMT",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 99 Jan 2027 00:00:30 GMT",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); d < 0 || d > maxRetryAfter {
			t.Errorf("%q waits for %s", s, d)
		}
	})
}

// An address that is accepted has the host that a reader sees, http or https, and no query.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"https://acme.grafana.net", "http://localhost:3000/grafana/", "HTTPS://H", "https://[::1]:443", "https://[fe80::1%25en0]/", "http://h:0",
		"http://h:99999", "http://user:pw@h", "http://@h", "http://h?q", "http://h#", "http://h/#f", "http://h/?", "//h", "h", "", "ftp://h",
		"http://", "http:h", "http:///p", "http://h/../..", "http://h/%2e%2e/", "http://h/a%2fb", "http://h\x00", "http://h\\@evil", "http://h\t",
		"http://evil@h:80", "http://2130706433", "http://0x7f.1", "http://[::ffff:169.254.169.254]", "http://ⓔxample.com", "http://h%41",
		"https://a/" + strings.Repeat("b/", 64),
	} {
		f.Add(s, "api-key")
	}
	f.Add("http://h", "..")
	f.Add("http://h", "a/b?c#d")
	f.Fuzz(func(t *testing.T, s, name string) {
		c, err := New(Config{URL: s, Namespace: "default", APIVersion: "v1beta1", Timeout: time.Second})
		if err != nil {
			if len(s) > 8 && strings.Contains(err.Error(), s) {
				t.Errorf("the error repeats the URL: %v", err)
			}
			return
		}
		for _, u := range []string{c.collection.String(), c.item(name).String()} {
			req, err := c.request(t.Context(), http.MethodGet, c.item(name), nil)
			if err != nil {
				t.Fatalf("%q: %v", u, err)
			}
			switch {
			case req.URL.Scheme != "http" && req.URL.Scheme != "https", req.URL.Host == "", req.URL.Host != strings.TrimSuffix(c.collection.Host, ":"):
				t.Errorf("%q leads to %q", s, req.URL)
			case req.URL.User != nil, req.URL.RawQuery != "", req.URL.Fragment != "":
				t.Errorf("%q leads to %q", s, req.URL)
			case !strings.Contains(u, "/apis/"+apiGroup+"/v1beta1/namespaces/default/securevalues"):
				t.Errorf("%q leads to %q", s, u)
			}
		}
	})
}

// A value that passes reaches the server as it is: the body is decoded to the very same bytes.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"", "canary-1", "line\n", "\x00", "\xff", "\xed\xa0\x80", "\u2028<>&\"\\", "\ufffd", strings.Repeat("x", MaxValueBytes),
		strings.Repeat("x", MaxValueBytes+1), strings.Repeat("é", MaxValueBytes/2), "\xf4\x90\x80\x80",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		sv := &SecureValue{Name: "api-key", Description: "d", Value: NewValue(content)}
		if err := sv.Value.Validate(); err != nil {
			if len(content) > 0 && len(content) <= MaxValueBytes && utf8.Valid(content) {
				t.Errorf("%q is refused: %v", content, err)
			}
			return
		}
		body, err := encode(sv, "v1beta1", "default")
		if err != nil {
			t.Fatal(err)
		}
		var sent struct{ Spec struct{ Value string } }
		if err := json.Unmarshal(body, &sent); err != nil || sent.Spec.Value != string(content) {
			t.Errorf("%q is sent as %q (%v)", content, sent.Spec.Value, err)
		}
	})
}
