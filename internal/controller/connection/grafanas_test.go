package connection

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// answering is an API server that answers each LIST with one error, or none.
type answering struct {
	client.Reader // what is not needed panics

	err   error
	lists int
}

func (a *answering) List(context.Context, client.ObjectList, ...client.ListOption) error {
	a.lists++
	return a.err
}

func TestGrafanasAreWatchedOnceTheyCanBe(t *testing.T) {
	resource := schema.GroupResource{Group: "grafana.integreatly.org", Resource: "grafanas"}
	synctest.Test(t, func(t *testing.T) {
		api, watches := &answering{}, 0
		g := &grafanas{live: status.Reader{Reader: api}, watch: func() error { watches++; return nil }}
		key := client.ObjectKey{Namespace: "team-a", Name: "grafana"}
		expect := func(err error, reason, part string) {
			t.Helper()
			api.err = err
			time.Sleep(askDelay) //nolint:forbidigo // of fake time
			lists := api.lists
			for range 3 { // it asks once a second at most
				got := g.begin(t.Context(), key)
				if reason == "" && got != nil || reason != "" && (!status.IsReason(got, reason) || !strings.Contains(got.Error(), part)) {
					t.Errorf("after %v: %v, want %s", err, got, reason)
				}
			}
			if api.lists != lists+1 || watches > 0 && reason != "" {
				t.Errorf("after %v: %d LISTs, %d watches", err, api.lists-lists, watches)
			}
		}
		expect(&meta.NoKindMatchError{}, v1alpha1.ReasonGrafanaNotFound, "is not installed")
		expect(apierrors.NewNotFound(resource, ""), v1alpha1.ReasonGrafanaNotFound, "is not installed")
		expect(apierrors.NewForbidden(resource, "", errors.New("no")), v1alpha1.ReasonKubernetesRefused, "`rbac.grafanaRef: true`")
		expect(nil, "", "")
		time.Sleep(askDelay) //nolint:forbidigo // of fake time
		if err := g.begin(t.Context(), key); err != nil || watches != 1 || api.lists != 4 {
			t.Errorf("%d watches, %d LISTs, %v", watches, api.lists, err)
		}
	})
}

// newGrafanaLab returns a lab whose connection references a Grafana, and was checked with it.
func newGrafanaLab(t *testing.T, external string) *lab {
	t.Helper()
	l := newLab(t)
	url := l.conn.Spec.URL
	l.conn = referencing("default")
	l.conn.UID, l.conn.Generation = "uid", 1
	to, err := endpointOfGrafana(grafanaOf(t, `{"external":{"url":"`+url+`",`+external+`}}`), &l.conn.Spec)
	if err != nil {
		t.Fatal(err)
	}
	cred := credentials{token: grafana.NewToken([]byte("glsa_token"))}
	c, err := l.connect(l.conn, to, cred)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	l.registry.publish(l.conn, 0, attempt{config: configOf(l.conn, to, "1"), endpoint: to, client: c, cred: cred})
	return l
}

const labAPIKey = `"apiKey":{"name":"token","key":"k"}`

// Where a connection with grafanaRef calls is known once it was checked, and of what was checked alone.
func TestTheServerOfAGrafana(t *testing.T) {
	l := newGrafanaLab(t, labAPIKey)
	server := l.registry.Server(l.conn)
	if !strings.HasPrefix(server, "http://127.0.0.1:") {
		t.Errorf("the server is %q", server)
	}
	for name, change := range map[string]func(*v1alpha1.GrafanaConnection){
		"made anew": func(c *v1alpha1.GrafanaConnection) { c.UID = "other" },
		"edited":    func(c *v1alpha1.GrafanaConnection) { c.Generation++ },
		"unknown":   func(c *v1alpha1.GrafanaConnection) { c.Name = "other" },
	} {
		conn := l.conn.DeepCopy()
		change(conn)
		if got := l.registry.Server(conn); got != "" {
			t.Errorf("%s: the server is %q", name, got)
		}
	}
}

// A reconcile that has resolved its target before the connection was checked at another server locks the wrong one.
func TestASessionIsOfTheServerThatIsCalled(t *testing.T) {
	l := newGrafanaLab(t, labAPIKey)
	for server, want := range map[string]error{"": ErrBusy, "https://old.example.com": ErrBusy, l.registry.Server(l.conn): nil} {
		l.registry.Begin(objectKey("x"))
		s, err := l.registry.Acquire(l.conn, ownership.Place{Server: server, Namespace: "default", Name: "x"}, objectKey("x"), limiter.Change)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", server, err, want)
		}
		s.Close()
		l.end("x")
	}
}

// A value is not sent to the address, or with the token, that a Grafana no longer has.
func TestAChangedGrafanaEndsTheUseOfItsConnections(t *testing.T) {
	for name, row := range map[string]struct {
		external string // "" is that of before
		ends     bool
	}{
		"another part of it":   {labAPIKey, false},
		"another key":          {`"apiKey":{"name":"token","key":"other"}`, true},
		"the admin's":          {`"adminUser":{"name":"a","key":"u"},"adminPassword":{"name":"a","key":"p"}`, true},
		"other trust":          {labAPIKey + `,"tls":{"insecureSkipVerify":true}`, true},
		"no credentials":       {`"adminUser":{"name":"a","key":"u"}`, true},
		"another address":      {labAPIKey + `,"url":"https://new.example.com"`, true},
		"another tenant":       {labAPIKey + `,"tenantNamespace":"org-2"`, true},
		"the default, spelled": {labAPIKey + `,"tenantNamespace":"default"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newGrafanaLab(t, labAPIKey)
			with := withObjects(t, l.conn)
			l.Reconciler.client = with.client
			server := l.registry.Server(l.conn)
			changed := grafanaOf(t, `{"external":{"url":"`+server+`",`+row.external+`}}`)
			if got := l.referencing(t.Context(), changed); len(got) != 1 || got[0].Name != l.conn.Name {
				t.Errorf("woken are %v", got)
			}
			_, err := l.registry.Acquire(l.conn, ownership.Place{Server: server, Namespace: "default", Name: "x"}, objectKey("x"), limiter.Change)
			if errors.Is(err, ErrQueued) != row.ends {
				t.Errorf("Acquire = %v, want its use ended %t", err, row.ends)
			}
		})
	}
}

// A namespace can go in any order: the last good content serves releases where the Grafana is gone, and nothing else.
func TestTheLastGoodGrafanaServesReleases(t *testing.T) {
	gone, unsupported := grafanaNotFound("gone"), grafanaNotSupported("grafana", "x")
	for name, row := range map[string]struct {
		why    error
		change func(*v1alpha1.GrafanaConnection)
		serves bool
	}{
		"gone":                      {gone, func(*v1alpha1.GrafanaConnection) {}, true},
		"gone, of an edited one":    {gone, func(c *v1alpha1.GrafanaConnection) { c.Generation++ }, true},
		"gone, of another Grafana":  {gone, func(c *v1alpha1.GrafanaConnection) { c.Spec.GrafanaRef.Name = "other" }, false},
		"gone, of one that is anew": {gone, func(c *v1alpha1.GrafanaConnection) { c.UID = "other" }, false},
		"one that is not supported": {unsupported, func(*v1alpha1.GrafanaConnection) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newGrafanaLab(t, labAPIKey)
			server := l.registry.Server(l.conn)
			row.change(l.conn)
			a, err := l.attempt(t.Context(), l.conn, nil, row.why)
			if err != nil || !errors.Is(a.err, row.why) || (a.client != nil) != row.serves {
				t.Fatalf("attempt = %+v, %v", a, err)
			}
			l.registry.publish(l.conn, l.epoch(), a)
			if row.serves {
				if got := l.registry.Server(l.conn); got != server {
					t.Errorf("the server is %q", got)
				}
				l.conn.Spec.URL = server // of the lab's places
			}
			l.expectError("writes", limiter.Change, v1alpha1.ReasonConnectionNotReady)
			if s, err := l.acquire("leaves", limiter.Release); (err == nil) != row.serves {
				t.Errorf("a release: %v", err)
			} else {
				s.Close()
			}
		})
	}
}
