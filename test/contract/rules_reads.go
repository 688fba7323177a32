package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

var boundRules = []rule{
	{"A value of 24,576 bytes, and a description of 25 characters that are not ASCII, are accepted", true, atTheBounds},
	{"What is invalid is refused: no description, no value, too large a value, a bad decrypter, a bad name", true, invalid},
	{"64 decrypters are accepted, and 65 are refused", true, numberOfDecrypters},
	{"A description of 26 characters is refused", false, longDescription},
}

func atTheBounds(ctx context.Context, r *run) (string, error) {
	sv := value("bounds")
	sv.Value = grafana.NewValue(append(bytes.Repeat([]byte(`"`), grafana.MaxValueBytes-1), '\n'))
	sv.Description = strings.Repeat("é", grafana.MaxDescriptionRunes)
	_, err := r.client.Create(ctx, sv)
	return "", err
}

// refused sends a POST that must be refused as invalid.
func (r *run) refused(ctx context.Context, what, name, spec string) error {
	a, err := r.send(ctx, request{method: http.MethodPost, body: `{"metadata":{"name":"` + name + `"},"spec":` + spec + `}`})
	if err == nil && !a.refusedAsInvalid() {
		err = fmt.Errorf("%s: %s", what, a)
	}
	return err
}

func invalid(ctx context.Context, r *run) (string, error) {
	name := prefix + "invalid"
	return "", errors.Join(
		r.refused(ctx, "no description", name, `{"value":"x"}`),
		r.refused(ctx, "no value", name, `{"description":"x"}`),
		r.refused(ctx, "an empty value", name, `{"description":"x","value":""}`),
		r.refused(ctx, "24,577 bytes", name, `{"description":"x","value":"`+strings.Repeat("x", grafana.MaxValueBytes+1)+`"}`),
		r.refused(ctx, "decrypter a/b", name, `{"description":"x","value":"x","decrypters":["a/b"]}`),
		r.refused(ctx, "the same decrypter twice", name, `{"description":"x","value":"x","decrypters":["a","a"]}`),
		r.refused(ctx, "a name with a capital", prefix+"Invalid", `{"description":"x","value":"x"}`),
	)
}

func numberOfDecrypters(ctx context.Context, r *run) (string, error) {
	sv := value("decrypters")
	sv.Decrypters = nil
	for i := range grafana.MaxDecrypters {
		sv.Decrypters = append(sv.Decrypters, "contract-"+strconv.Itoa(i))
	}
	if _, err := r.client.Create(ctx, sv); err != nil {
		return "", err
	}
	names, err := json.Marshal(append(sv.Decrypters, "one-more"))
	if err != nil {
		return "", err
	}
	return "", r.refused(ctx, "65", prefix+"decrypters-2", `{"description":"x","value":"x","decrypters":`+string(names)+`}`)
}

func longDescription(ctx context.Context, r *run) (string, error) {
	return "", r.refused(ctx, "26", prefix+"description", `{"value":"x","description":"`+strings.Repeat("x", grafana.MaxDescriptionRunes+1)+`"}`)
}

var listRules = []rule{
	{"A label selector filters a LIST", true, labelSelector},
	{"A LIST is complete: without a limit it has no second page", true, listIsComplete},
	{"A LIST ignores limit", false, limitIsIgnored},
	{"fieldSelector=spec.decrypter=... filters a LIST", false, fieldSelector},
	{"A watch is refused: 405", false, watch},
	{"Discovery names the versions of the API", false, discovery},
}

// object is the part of an answer that the client does not read.
type object struct {
	Metadata struct {
		Name     string `json:"name"`
		UID      string `json:"uid"`
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []object `json:"items"`
}

// object gets what is at a path below the collection, for example "/name" or "?limit=1".
func (r *run) object(ctx context.Context, path string) (object, error) {
	var o object
	a, err := r.send(ctx, request{method: http.MethodGet, path: path})
	if err == nil && a.code != http.StatusOK {
		err = fmt.Errorf("GET: %s", a)
	}
	if err == nil && json.Unmarshal([]byte(a.body), &o) != nil {
		err = untestable("the answer is too large, or no JSON")
	}
	return o, err
}

func (r *run) two(ctx context.Context, first, second string) error {
	_, err := r.client.Create(ctx, value(first))
	if err == nil {
		other := value(second)
		other.Decrypters = []string{"k6-cloud"}
		_, err = r.client.Create(ctx, other)
	}
	return err
}

func labelSelector(ctx context.Context, r *run) (string, error) {
	if err := r.two(ctx, "select-a", "select-b"); err != nil {
		return "", err
	}
	found, err := list(ctx, r.client, "grafana.securevalues.io/value=select-b")
	if err == nil && (len(found) != 1 || found[0].Name != prefix+"select-b") {
		err = fmt.Errorf("it lists %d values instead of 1", len(found))
	}
	return "", err
}

func listIsComplete(ctx context.Context, r *run) (string, error) {
	o, err := r.object(ctx, "")
	if err == nil && o.Metadata.Continue != "" {
		err = errors.New("it has a second page")
	}
	return "", err
}

func limitIsIgnored(ctx context.Context, r *run) (string, error) {
	if err := r.two(ctx, "limit-a", "limit-b"); err != nil {
		return "", err
	}
	o, err := r.object(ctx, "?limit=1")
	if err == nil && len(o.Items) < 2 {
		err = fmt.Errorf("with limit=1 it lists %d", len(o.Items))
	}
	return "", err
}

func fieldSelector(ctx context.Context, r *run) (string, error) {
	if err := r.two(ctx, "field-a", "field-b"); err != nil {
		return "", err
	}
	o, err := r.object(ctx, "?fieldSelector=spec.decrypter%3Dk6-cloud")
	if err != nil {
		return "", err
	}
	found := map[string]bool{}
	for _, item := range o.Items {
		found[item.Metadata.Name] = true
	}
	if !found[prefix+"field-b"] || found[prefix+"field-a"] {
		return "", errors.New("it does not")
	}
	return "", nil
}

func watch(ctx context.Context, r *run) (string, error) {
	return "", r.answers(ctx, http.StatusMethodNotAllowed, request{method: http.MethodGet, path: "?watch=true&timeoutSeconds=1"})
}

func discovery(ctx context.Context, r *run) (string, error) {
	var group struct{ Versions []struct{ Version string } }
	a, err := r.send(ctx, request{method: http.MethodGet, at: "/apis/secret.grafana.app"})
	if err != nil {
		return "", err
	}
	if a.code != http.StatusOK || json.Unmarshal([]byte(a.body), &group) != nil || len(group.Versions) == 0 {
		return "", fmt.Errorf("it does not: %s", a)
	}
	var names []string
	for _, v := range group.Versions {
		names = append(names, plain(v.Version))
	}
	return strings.Join(names, ", "), nil
}

// answers sends a request that must be answered with the code.
func (r *run) answers(ctx context.Context, code int, q request) error {
	a, err := r.send(ctx, q)
	if err == nil && a.code != code {
		err = errors.New(a.String())
	}
	return err
}

var refusalRules = []rule{
	{"A wrong token: 401", true, wrongToken},
	{"No token: 401", true, withoutToken},
	{"A version of the API that is not served: 404 that speaks of no value", true, wrongVersion},
	{"A namespace of another org or stack: 403", true, anotherNamespace},
	{"The namespace org-1, which is no namespace, is refused", true, malformedNamespace},
	{"A token that may only read writes nothing: 403", true, onlyRead},
}

func wrongToken(ctx context.Context, r *run) (string, error) {
	return "", r.wantList(ctx, grafana.ErrUnauthorized, func(s *settings) { s.token = "glsa_wrong" })
}

// wantList lists as a changed client, which must fail with an error.
func (r *run) wantList(ctx context.Context, wanted error, change func(*settings)) error {
	client, err := r.with(change)
	if err != nil {
		return err
	}
	_, err = list(ctx, client, "")
	return want(wanted)(nil, err)
}

func withoutToken(ctx context.Context, r *run) (string, error) {
	return "", r.answers(ctx, http.StatusUnauthorized, request{method: http.MethodGet, token: noToken})
}

func wrongVersion(ctx context.Context, r *run) (string, error) {
	return "", r.wantList(ctx, grafana.ErrAPINotServed, func(s *settings) { s.apiVersion = "v9" })
}

func anotherNamespace(ctx context.Context, r *run) (string, error) {
	const number = "987654321"
	other := "org-" + number
	if strings.HasPrefix(r.namespace, "stacks-") {
		other = "stacks-" + number
	}
	client, err := r.with(func(s *settings) { s.namespace = other })
	if err != nil {
		return "", err
	}
	if _, err = list(ctx, client, ""); err == nil {
		return "", untestable("the token may read " + other + ": it is that of a server administrator")
	}
	return "", want(grafana.ErrNamespaceRejected)(nil, err)
}

func malformedNamespace(ctx context.Context, r *run) (string, error) {
	return "", r.wantList(ctx, grafana.ErrNamespaceRejected, func(s *settings) { s.namespace = "org-1" })
}

func onlyRead(ctx context.Context, r *run) (string, error) {
	if r.readerToken == "" {
		return "", untestable(envReaderToken + " is not set")
	}
	client, err := r.with(func(s *settings) { s.token = r.readerToken })
	if err != nil {
		return "", err
	}
	if _, err := list(ctx, client, ""); err != nil {
		return "", err
	}
	sv := value("reader")
	return "", errors.Join(
		want(grafana.ErrForbidden)(client.Create(ctx, sv)),
		want(grafana.ErrForbidden)(client.Update(ctx, sv)),
		want(grafana.ErrForbidden)(nil, client.Delete(ctx, sv.Name)),
	)
}
