package connection

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// lab is one connection of a registry, and a Grafana that answers every call with one code.
type lab struct {
	*Reconciler
	t     *testing.T
	conn  *v1alpha1.GrafanaConnection
	code  atomic.Int32
	calls atomic.Int32
	retry atomic.Value // the header Retry-After

	mu    sync.Mutex
	woken []string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := newLabAt(t, "")
	l.retry.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		l.calls.Add(1)
		w.Header().Set("Retry-After", l.retry.Load().(string)) // nothing else is stored
		w.WriteHeader(int(l.code.Load()))
		_, _ = io.WriteString(w, `{"message":"Unauthorized"}`) // as Grafana says it
	}))
	t.Cleanup(server.Close)
	l.conn.Spec.URL = server.URL
	return l
}

// newLabAt returns one whose Grafana is at that address, and need not be there.
func newLabAt(t *testing.T, address string) *lab {
	t.Helper()
	l := &lab{t: t, conn: &v1alpha1.GrafanaConnection{}}
	l.conn.Namespace, l.conn.Name, l.conn.Generation = "ns", "prod", 1
	l.conn.Spec.URL, l.conn.Spec.Namespace, l.conn.Spec.APIVersion = address, "default", "v1beta1"
	l.conn.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0))}
	l.Reconciler = &Reconciler{registry: NewRegistry(0), now: time.Now, Options: Options{Policy: Policy{AllowLoopback: true}}}
	if err := l.registry.Objects.Start(t.Context(), queueOf{lab: l}); err != nil {
		t.Fatal(err)
	}
	return l
}

// queueOf is the queue of the controller of secure values.
type queueOf struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request] // what is not needed panics

	lab *lab
}

func (q queueOf) Add(req reconcile.Request) {
	q.lab.mu.Lock()
	defer q.lab.mu.Unlock()
	q.lab.woken = append(q.lab.woken, req.Name)
}

// client returns one more client to the Grafana.
func (l *lab) client() *grafana.Client {
	l.t.Helper()
	c, err := l.connect(l.conn, endpointOfSpec(l.conn.GetSpec()), credentials{token: grafana.NewToken([]byte("glsa_token"))})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(c.CloseIdleConnections)
	return c
}

// found publishes a check that began now, with that client and that outcome, of Secrets of that version.
func (l *lab) found(client *grafana.Client, secrets string, err error) {
	l.foundSince(l.epoch(), client, secrets, err)
}

func (l *lab) foundSince(epoch int, client *grafana.Client, secrets string, err error) checked {
	return l.registry.publish(l.conn, epoch, l.attemptWith(client, secrets, err))
}

func (l *lab) attemptWith(client *grafana.Client, secrets string, err error) attempt {
	to := endpointOfSpec(l.conn.GetSpec())
	return attempt{config: configOf(l.conn, to, secrets), endpoint: to, client: client, err: err}
}

func (l *lab) epoch() (epoch int) {
	l.registry.with(IDFor(l.conn), func(e *entry) { epoch = e.epoch })
	return epoch
}

func objectKey(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "ns", Name: name}
}

func (l *lab) acquire(name string, operation limiter.Operation) (*Session, error) {
	l.registry.Begin(objectKey(name))
	return l.registry.Acquire(l.conn, ownership.Place{Server: ServerOf(l.conn.Spec.URL), Namespace: "default", Name: name}, objectKey(name), operation)
}

func (l *lab) session(name string, operation limiter.Operation) *Session {
	l.t.Helper()
	s, err := l.acquire(name, operation)
	if err != nil {
		l.t.Fatalf("%s was not admitted: %v", name, err)
	}
	return s
}

// end ends a reconcile of an object.
func (l *lab) end(name string) { l.registry.End(objectKey(name)) }

// expectError checks that an object is not admitted, for that reason of its own.
func (l *lab) expectError(name string, operation limiter.Operation, reason string) {
	l.t.Helper()
	if _, err := l.acquire(name, operation); !status.IsReason(err, reason) {
		l.t.Errorf("Acquire(%s) = %v, want %s", name, err, reason)
	}
	l.end(name)
}

func (l *lab) expectQueued(name string, operation limiter.Operation) {
	l.t.Helper()
	if _, err := l.acquire(name, operation); !errors.Is(err, ErrQueued) {
		l.t.Errorf("Acquire(%s) = %v, want ErrQueued", name, err)
	}
	l.end(name)
}

// expectWoken checks who was woken since the last time.
func (l *lab) expectWoken(names ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.woken)
	if got := slices.Compact(l.woken); !slices.Equal(got, names) {
		l.t.Errorf("woken: %q, want %q", got, names)
	}
	l.woken = nil
}

func TestObjectsLearnWhatTheFirstCheckFound(t *testing.T) {
	l := newLab(t)
	l.expectQueued("early", limiter.Change)
	l.found(l.client(), "1", grafana.ErrForbidden)
	l.expectWoken("early")
	l.expectError("early", limiter.Change, v1alpha1.ReasonConnectionNotReady)
	l.found(l.client(), "1", grafana.ErrForbidden)
	l.found(l.client(), "1", grafana.ErrAPINotServed)
	l.expectWoken() // it says the same as before
	l.found(l.client(), "1", nil)
	l.expectWoken("early")
	l.session("early", limiter.Change)
}

// What was judged is what is used: an edited connection never lends the client that was made before.
func TestAnEditedConnectionLendsNothingBeforeItsCheck(t *testing.T) {
	l := newLab(t)
	l.found(l.client(), "1", nil)
	s := l.session("writes", limiter.Change)
	l.conn = l.conn.DeepCopy()
	l.conn.Generation++
	l.expectQueued("waits", limiter.Change)
	if _, err := s.Get(t.Context()); !errors.Is(err, ErrBusy) || l.calls.Load() != 0 {
		t.Errorf("a session of the old one: %v, %d calls", err, l.calls.Load())
	}
	l.found(l.client(), "1", nil)
	l.expectWoken("waits")
	l.session("waits", limiter.Change)

	anew := l.conn.DeepCopy()
	anew.UID = "another"
	if _, err := l.registry.Acquire(anew, ownership.Place{Name: "anew"}, objectKey("anew"), limiter.Change); !errors.Is(err, ErrQueued) {
		t.Errorf("Acquire of one that was made anew = %v, want ErrQueued", err)
	}
	l.conn = anew
	l.found(l.client(), "1", nil)

	old := l.conn.DeepCopy() // as a cache that is behind has it
	old.Generation--
	if _, err := l.registry.Acquire(old, ownership.Place{Name: "late"}, objectKey("late"), limiter.Change); !errors.Is(err, ErrBusy) {
		t.Errorf("Acquire = %v, want ErrBusy", err)
	}
}

func TestTwoObjectsDoNotWorkAtOneSecureValue(t *testing.T) {
	l := newLab(t)
	l.found(l.client(), "1", nil)
	place := ownership.Place{Server: ServerOf(l.conn.Spec.URL), Namespace: "default", Name: "x"}
	take := func(name string) (*Session, error) {
		return l.registry.Acquire(l.conn, place, objectKey(name), limiter.Change)
	}
	l.conn.Spec.RateLimit.MaxInFlight = new(int32(8))
	l.found(l.client(), "1", nil)
	s, err := take("a")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c", "b"} {
		if _, err := take(name); !errors.Is(err, ErrTaken) {
			t.Errorf("Acquire = %v, want ErrTaken", err)
		}
	}
	neighbour := objectKey("neighbour")
	neighbour.Namespace = "other"
	if _, err := l.registry.Acquire(l.conn, place, neighbour, limiter.Change); !errors.Is(err, ErrTaken) {
		t.Errorf("Acquire = %v, want ErrTaken", err)
	}
	s.Close()
	l.expectWoken("b", "neighbour") // the first of each namespace
	if _, err := take("b"); err != nil {
		t.Errorf("Acquire = %v", err)
	}
}

func TestARefusedTokenEndsTheUseOfAConnection(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusUnauthorized)
	l.found(l.client(), "1", nil)
	first, second := l.session("first", limiter.Change), l.session("second", limiter.Change)
	if _, err := first.Get(t.Context()); !errors.Is(err, ErrBusy) {
		t.Fatalf("Get = %v, want another try, which waits for the connection", err)
	}
	l.expectError("first", limiter.Change, v1alpha1.ReasonConnectionNotReady)
	if _, err := second.Get(t.Context()); err == nil || l.calls.Load() != 1 {
		t.Errorf("another one that was admitted before: %v, %d calls", err, l.calls.Load())
	}
	l.expectError("next", limiter.Change, v1alpha1.ReasonConnectionNotReady)
	l.expectError("next", limiter.Release, v1alpha1.ReasonConnectionNotReady)
	l.found(l.client(), "2", nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.woken, "first") || !slices.Contains(l.woken, "next") {
		t.Errorf("with a new token %q are woken", l.woken)
	}
}

func TestAnAnswerToAnOldClientSaysNothingOfTheNewOne(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusUnauthorized)
	l.found(l.client(), "1", nil)
	s := l.session("object", limiter.Change)
	client := s.client
	l.found(l.client(), "2", nil)
	_, err := client.Get(t.Context(), "object")
	s.learn(err)
	l.session("next", limiter.Change)
}

func TestACheckDoesNotOverruleWhatACallHasLearntMeanwhile(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusUnauthorized)
	client := l.client()
	l.found(client, "1", nil)
	before := l.epoch()
	_, _ = l.session("object", limiter.Change).Get(t.Context())
	if got := l.foundSince(before, client, "1", nil); got.condition.Reason != v1alpha1.ReasonUnauthorized {
		t.Errorf("condition = %+v", got.condition)
	}
	l.expectError("next", limiter.Change, v1alpha1.ReasonConnectionNotReady)
	l.foundSince(before, l.client(), "2", nil)
	l.session("next", limiter.Change)
}

func TestWithoutCredentialsReleasesAreServed(t *testing.T) {
	l := newLab(t)
	l.found(l.client(), "1", nil)
	missing := credentialsNotFound("gone")
	l.found(l.client(), "", missing)
	l.session("leaves", limiter.Release).Close()
	l.end("leaves")
	l.expectError("writes", limiter.Change, v1alpha1.ReasonConnectionNotReady)
	l.found(nil, "", missing) // at another address
	l.expectError("leaves", limiter.Release, v1alpha1.ReasonConnectionNotReady)
}

func TestTheLastGoodCredentialsAreThoseOfTheSameAddress(t *testing.T) {
	l := newLab(t)
	good := credentials{token: grafana.NewToken([]byte("glsa_token")), versions: "1"}
	a := l.attemptWith(l.client(), "1", nil)
	a.cred = good
	l.registry.publish(l.conn, 0, a)
	l.live = withObjects(t).live // without the Secret
	attempt := func() attempt {
		t.Helper()
		a, err := l.attempt(t.Context(), l.conn, endpointOfSpec(l.conn.GetSpec()), nil)
		if err != nil || !status.IsReason(a.err, v1alpha1.ReasonCredentialsNotFound) {
			t.Fatalf("attempt = %v, %v", a.err, err)
		}
		return a
	}
	first := attempt()
	if first.client == nil {
		t.Fatal("there is no client for releases")
	}
	l.registry.publish(l.conn, 0, first)
	if again := attempt(); again.client != first.client {
		t.Error("another client was made")
	}
	l.conn = l.conn.DeepCopy()
	l.conn.Spec.URL = "http://other.example.com"
	if other := attempt(); other.client != nil {
		t.Error("they are used at another address")
	}
}

func TestRetryAfterIsMeantForAllOfTheConnection(t *testing.T) {
	l := newLab(t)
	l.found(l.client(), "1", nil)
	l.code.Store(http.StatusNotFound)
	going := l.session("going", limiter.Change)
	_, _ = going.Get(t.Context())

	l.code.Store(http.StatusTooManyRequests)
	l.retry.Store("10")
	if _, err := l.session("asked", limiter.Change).Get(t.Context()); !errors.Is(err, grafana.ErrRateLimited) {
		t.Fatalf("Get = %v", err)
	}
	made := l.calls.Load()
	if _, err := going.Get(t.Context()); !errors.Is(err, ErrQueued) {
		t.Errorf("a second call of one that was admitted before = %v", err)
	}
	for _, operation := range []limiter.Operation{limiter.Change, limiter.Create, limiter.Release} {
		l.expectQueued("next", operation)
	}
	if l.calls.Load() != made {
		t.Errorf("%d calls before the date", l.calls.Load()-made)
	}
}

func TestALongRetryAfterIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabAt(t, "http://grafana.example.com")
		l.found(l.client(), "1", nil)
		s := l.session("told", limiter.Change)
		s.learn(errors.Join(grafana.ErrRateLimited, &grafana.Error{RetryAfter: time.Minute}))
		s.Close()
		l.expectError("waits", limiter.Change, v1alpha1.ReasonGrafanaUnavailable)
		if states := l.registry.States(); states[0].Ready || !states[0].BreakerOpen {
			t.Errorf("states are %+v", states)
		}
	})
}

func TestUnknownOutcomesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabAt(t, "http://grafana.invalid")
		l.conn.Spec.RequestTimeout = "10s"
		l.found(l.client(), "1", nil)
		s := l.session("object", limiter.Change)
		_, _ = call(s, true, func(*grafana.Client) (struct{}, error) { return struct{}{}, grafana.ErrUnavailable })
		if _, err := call(s, true, func(*grafana.Client) (struct{}, error) { return struct{}{}, nil }); err != nil {
			t.Fatal(err)
		}
		if wait := time.Until(l.registry.UnknownUntil(s.Place)); wait != 10*time.Second {
			t.Errorf("a later success leaves %s, want one requestTimeout", wait)
		}
		time.Sleep(11 * time.Second) //nolint:forbidigo // of fake time
		if until := l.registry.UnknownUntil(s.Place); !until.IsZero() {
			t.Errorf("unknown until %s", until)
		}
	})
}

func TestLimitsOfTheSpecAreThoseOfTheLimiter(t *testing.T) {
	l := newLab(t)
	l.conn.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0)), MaxInFlight: new(int32(1))}
	l.found(l.client(), "1", nil)
	l.session("a", limiter.Change)
	l.expectQueued("b", limiter.Change)
}

func TestNobodyWaitsForAConnectionThatIsGone(t *testing.T) {
	l := newLab(t)
	l.expectQueued("waits", limiter.Change)
	l.registry.remove(IDFor(l.conn))
	l.expectWoken("waits")
	if states := l.registry.States(); len(states) != 0 {
		t.Errorf("states are %+v", states)
	}
}

func TestUntilCheck(t *testing.T) {
	const resync = 10 * time.Minute
	for name, row := range map[string]struct {
		err    error
		checks int
		resync time.Duration
		want   time.Duration // 0: when something changes, or by the limiter
	}{
		"connected":                    {nil, 1, resync, resync},
		"connected, resync off":        {nil, 1, 0, 0},
		"an outage: the limiter's":     {grafana.ErrUnreachable, 9, resync, 0},
		"token refused":                {grafana.ErrUnauthorized, 1, 5 * time.Second, time.Minute},
		"token refused again":          {grafana.ErrUnauthorized, 3, 5 * time.Second, 4 * time.Minute},
		"token refused for long":       {grafana.ErrUnauthorized, 1000, 5 * time.Second, 10 * time.Minute},
		"refused for long, resync 1h":  {grafana.ErrUnauthorized, 1000, time.Hour, time.Hour},
		"token refused, resync is off": {grafana.ErrUnauthorized, 1000, 0, 10 * time.Minute},
		"no credentials: a watch":      {credentialsNotFound("x"), 1, time.Minute, 0},
		"no Grafana: its kind":         {grafanaNotFound("x"), 1, 0, time.Second},
		"no Grafana for long":          {grafanaNotFound("x"), 1000, 0, 32 * time.Second},
		"bad credentials: a person":    {credentialsInvalid("x"), 1, time.Minute, 0},
		"action missing":               {grafana.ErrForbidden, 1, time.Hour, time.Minute},
		"action missing again":         {grafana.ErrForbidden, 3, time.Hour, 4 * time.Minute},
		"action missing for long":      {grafana.ErrForbidden, 1000, time.Hour, 10 * time.Minute},
		"action missing, resync 5s":    {grafana.ErrForbidden, 1, 5 * time.Second, 5 * time.Second},
		"action missing, resync off":   {grafana.ErrForbidden, 1, 0, time.Minute},
		"missing for long, resync off": {grafana.ErrForbidden, 1000, 0, 10 * time.Minute},
		"redirected, resync off":       {grafana.ErrRedirect, 1, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			if got := untilCheck(checkCondition("", row.err), row.checks, row.resync); got != row.want {
				t.Errorf("checked after %s, want %s", got, row.want)
			}
		})
	}
}

func TestARefusedTokenRestsForAMinute(t *testing.T) {
	for range 50 { // the jitter is random
		l := newLabAt(t, "https://grafana.example.com")
		l.found(l.client(), "1", grafana.ErrUnauthorized)
		l.registry.with(IDFor(l.conn), func(e *entry) {
			if rest := e.nextCheck.Sub(e.lastCheck); rest < time.Minute {
				t.Errorf("checked again after %s", rest)
			}
		})
	}
}

func TestServerOf(t *testing.T) {
	same := []string{"https://h", "https://h/", "HTTPS://H", "https://h:443", "https://H:443//"}
	for _, address := range same {
		if got := ServerOf(address); got != "https://h" {
			t.Errorf("ServerOf(%q) = %q", address, got)
		}
	}
	seen := map[string]string{"https://h": "https://h"}
	for _, address := range []string{"http://h", "https://h:80", "https://h:3000", "https://h/a", "https://h/A", "https://h/a/b", "https://i"} {
		got := ServerOf(address)
		if seen[got] != "" {
			t.Errorf("%q and %q are one server", address, seen[got])
		}
		seen[got] = address
	}
}

// A connection that names another Secret, or other trust, does not release with the token of before under the trust of before.
func TestTheLastGoodCredentialsAreOfTheSameReferences(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(*v1alpha1.ConnectionSpec)
		want bool
	}{
		"the Secret is gone":          {func(*v1alpha1.ConnectionSpec) {}, true},
		"another token is named":      {func(s *v1alpha1.ConnectionSpec) { s.Credentials.TokenSecretRef.Name = "other" }, false},
		"an authority is named":       {func(s *v1alpha1.ConnectionSpec) { s.TLS = &v1alpha1.TLSConfig{ServerName: "grafana"} }, false},
		"the address is another one":  {func(s *v1alpha1.ConnectionSpec) { s.URL = "https://other.example.com" }, false},
		"the rate limit is different": {func(s *v1alpha1.ConnectionSpec) { s.RateLimit = nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := newLab(t).conn
			at := func(secrets string) config { return configOf(conn, endpointOfSpec(conn.GetSpec()), secrets) }
			e := &entry{lastGood: good{credentials: credentials{token: grafana.NewToken([]byte("glsa_token"))}, config: at("1")}}
			row.edit(conn.GetSpec())
			if got := e.lastGoodFor(at("2")) != nil; got != row.want {
				t.Errorf("they are used: %t, want %t", got, row.want)
			}
		})
	}
}
