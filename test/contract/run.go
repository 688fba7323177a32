package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// prefix begins each name that a run touches. Whatever has it is removed before and after a run.
const prefix = "gsv-contract-"

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 1 << 20 // bytes of an answer that are read
)

// settings name a Grafana.
type settings struct {
	url, token, namespace, apiVersion string
	readerToken                       string // may only read; empty if there is none
}

// run is one run of the rules against a Grafana.
type run struct {
	settings

	client *grafana.Client
}

func newRun(s settings) (*run, error) {
	client, err := newClient(s)
	return &run{settings: s, client: client}, err
}

func newClient(s settings) (*grafana.Client, error) {
	return grafana.New(grafana.Config{
		URL: s.url, Namespace: s.namespace, APIVersion: s.apiVersion, Token: grafana.NewToken([]byte(s.token)),
		Timeout: callTimeout, UserAgent: "grafana-secure-value-operator/contract", AllowLoopback: true,
	})
}

// with returns the client of a run that differs in its settings.
func (r *run) with(change func(*settings)) (*grafana.Client, error) {
	s := r.settings
	change(&s)
	return newClient(s)
}

// list returns the values of the namespace that match the selector.
func list(ctx context.Context, c *grafana.Client, selector string) (values []*grafana.SecureValue, err error) {
	err = c.List(ctx, selector, func(sv *grafana.SecureValue) { values = append(values, sv) })
	return values, err
}

// cleanUp removes what this run made, and what a run left behind that was killed.
func (r *run) cleanUp(ctx context.Context) error {
	values, err := list(ctx, r.client, "")
	if err != nil {
		return err
	}
	var problems []error
	for _, v := range values {
		if strings.HasPrefix(v.Name, prefix) {
			if err := r.client.Delete(ctx, v.Name); err != nil && !errors.Is(err, grafana.ErrNotFound) {
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}

// answer is what the server says to a request that the client would not send.
type answer struct {
	code        int
	contentType string
	header      http.Header
	body        string
	status      struct {
		Kind, Reason, Message string
		Details               struct{ Kind string }
	}
}

func (a answer) String() string {
	if a.status.Reason == "" {
		return fmt.Sprintf("HTTP %d", a.code)
	}
	return fmt.Sprintf("HTTP %d %s", a.code, plain(a.status.Reason))
}

// refusedAsInvalid reports whether the server says that the object is at fault. Grafana's documentation says 400, and its code 422.
func (a answer) refusedAsInvalid() bool {
	return a.code == http.StatusBadRequest || a.code == http.StatusUnprocessableEntity
}

// request is one that the client would not send.
type request struct {
	method string
	path   string // below the collection, with the query
	at     string // instead of the collection
	body   string
	token  string // that of the run, if it is empty
	header http.Header
}

// collection is the path of the secure values.
func (s settings) collection() string {
	return "/apis/secret.grafana.app/" + s.apiVersion + "/namespaces/" + s.namespace + "/securevalues"
}

// send sends a request, and follows no redirect.
func (s settings) send(ctx context.Context, q request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at := q.at
	if at == "" {
		at = s.collection()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, strings.TrimRight(s.url, "/")+at+q.path, strings.NewReader(q.body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	maps.Copy(req.Header, q.header)
	token := q.token
	if token == "" {
		token = s.token
	}
	if token != noToken {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	a := answer{code: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), header: resp.Header, body: string(content)}
	_ = json.Unmarshal(content, &a.status) // not every answer is a Status
	return a, nil
}

// noToken sends no token at all.
const noToken = "\x00"

// plain keeps the printable ASCII of a text of the server's, and bounds it: a report is printed, and attached to an issue.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '|' || c == '`' || c == '<' {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 60)]
}
