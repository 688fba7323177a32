package connection

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// lab is one connection of a registry, and a Grafana that answers every call with one code.
type lab struct {
	*Reconciler
	t     *testing.T
	conn  *v1alpha1.GrafanaConnection
	entry *entry
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
		w.Header().Set("Retry-After", l.retry.Load().(string)) //nolint:forcetypeassert // nothing else is stored
		w.WriteHeader(int(l.code.Load()))
	}))
	t.Cleanup(server.Close)
	l.conn.Spec.URL = server.URL
	return l
}

// newLabAt returns one whose Grafana is at that address, and need not be there.
func newLabAt(t *testing.T, address string) *lab {
	t.Helper()
	l := &lab{t: t, conn: &v1alpha1.GrafanaConnection{}}
	l.conn.Namespace, l.conn.Name = "ns", "prod"
	l.conn.Spec.URL, l.conn.Spec.Namespace, l.conn.Spec.APIVersion = address, "default", "v1beta1"
	registry := NewRegistry(func(key gate.Key) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.woken = append(l.woken, key.Name)
	}, func(ID) {})
	l.Reconciler, l.entry = &Reconciler{registry: registry, now: time.Now, policy: Policy{AllowLoopback: true}}, registry.entry(IDFor(l.conn))
	l.objects.Survey = func(context.Context, ID) (Surveyor, error) {
		return Surveyor{See: func(grafana.Listed) {}, Result: func() Survey { return Survey{} }}, nil
	}
	return l
}

// client returns one more client to the Grafana.
func (l *lab) client() *grafana.Client {
	l.t.Helper()
	c, err := l.connect(l.conn, credentials{token: grafana.NewToken([]byte("glsa_token"))})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(c.CloseIdleConnections)
	return c
}

// found publishes a check with that client and that outcome, of Secrets of that version.
func (l *lab) found(client *grafana.Client, secrets string, err error) finding {
	return l.publish(l.conn, l.entry, basisOf(l.conn, secrets), l.entry.countAlarms(), connected{client: client}, err)
}

func (l *lab) admit(name string, purpose gate.Purpose) (*Session, error) {
	return l.registry.Admit(l.entry.id, "default", name, types.NamespacedName{Namespace: "ns", Name: name}, purpose)
}

func (l *lab) session(name string, purpose gate.Purpose) *Session {
	l.t.Helper()
	s, err := l.admit(name, purpose)
	if err != nil {
		l.t.Fatalf("%s was not admitted: %v", name, err)
	}
	return s
}

// leave ends a look at an object.
func (l *lab) leave(name string) { l.registry.Leave(types.NamespacedName{Namespace: "ns", Name: name}) }

// expectTrouble checks that nobody is admitted for that purpose, for that reason.
func (l *lab) expectTrouble(name string, purpose gate.Purpose, reason string) {
	l.t.Helper()
	_, err := l.admit(name, purpose)
	trouble, ok := errors.AsType[*Trouble](err)
	if !ok || trouble.Verdict.Reason != reason {
		l.t.Errorf("Admit(%s) = %v, want trouble %s", name, err, reason)
	}
}

// expectWoken checks who was handed back since the last time.
func (l *lab) expectWoken(names ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := map[string]bool{}
	for _, name := range l.woken {
		got[name] = true
	}
	for _, name := range names {
		if !got[name] {
			l.t.Errorf("%s was not handed back", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		l.t.Errorf("handed back for nothing: %v", got)
	}
	l.woken = nil
}

func TestObjectsLearnWhatTheFirstCheckFound(t *testing.T) {
	l := newLab(t)
	if _, err := l.admit("early", gate.Hold); !errors.Is(err, ErrParked) {
		t.Errorf("Admit = %v, want ErrParked", err)
	}
	l.found(l.client(), "1", grafana.ErrForbidden)
	l.expectWoken("early")
	l.expectTrouble("early", gate.Hold, v1alpha1.ReasonForbidden)
	l.found(l.client(), "1", grafana.ErrForbidden)
	l.expectWoken()
	l.found(l.client(), "1", grafana.ErrAPINotServed)
	l.expectWoken("early")
}

func TestLabelsNotKeptStillServesThoseWhoGiveUp(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusNotFound)
	l.found(l.client(), "1", nil)
	writer := l.session("writer", gate.Hold)
	_ = writer.LabelsNotKept()
	writer.Close()
	l.expectTrouble("other", gate.Hold, v1alpha1.ReasonLabelsNotKept)
	for range 2 {
		leaver := l.session("leaver", gate.GiveUp)
		if err := leaver.Delete(t.Context()); !errors.Is(err, grafana.ErrAPINotServed) { // Grafana was asked
			t.Errorf("Delete = %v", err)
		}
		leaver.Close()
		l.registry.Leave(leaver.key)
		l.found(l.client(), "1", errLabelsNotKept) // as the LIST goes on to say
		l.expectTrouble("other", gate.Hold, v1alpha1.ReasonLabelsNotKept)
	}
}

func TestAnAnswerToAnOldClientSaysNothingOfTheNewOne(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusUnauthorized)
	l.found(l.client(), "1", nil)
	first, second := l.session("first", gate.Hold), l.session("second", gate.Hold)
	l.found(l.client(), "2", nil)

	if _, err := first.Get(t.Context()); !errors.Is(err, grafana.ErrUnauthorized) {
		t.Fatalf("Get = %v", err)
	}
	_ = second.LabelsNotKept()
	last := l.session("last", gate.Hold)
	_, _ = last.Get(t.Context())
	l.expectTrouble("next", gate.Hold, v1alpha1.ReasonUnauthorized)
	l.expectTrouble("next", gate.GiveUp, v1alpha1.ReasonUnauthorized)
}

func TestACheckDoesNotOverruleWhatACallHasLearntMeanwhile(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusUnauthorized)
	client := l.client()
	l.found(client, "1", nil)
	before := l.entry.countAlarms()
	_, _ = l.session("object", gate.Hold).Get(t.Context())

	got := l.publish(l.conn, l.entry, basisOf(l.conn, "1"), before, connected{client: client, listed: true}, nil)
	if got.Reason != v1alpha1.ReasonUnauthorized {
		t.Errorf("verdict = %+v", got.Verdict)
	}
	l.expectTrouble("next", gate.Hold, v1alpha1.ReasonUnauthorized)
	l.publish(l.conn, l.entry, basisOf(l.conn, "2"), before, connected{client: l.client(), listed: true}, nil)
	l.session("next", gate.Hold)
}

func TestGateAndVerdictAgree(t *testing.T) {
	missing := credentialsNotFound("gone")
	l := newLab(t)
	l.found(l.client(), "1", nil)
	l.found(l.client(), "", missing)
	l.session("leaver", gate.GiveUp).Close()
	l.expectTrouble("holder", gate.Hold, v1alpha1.ReasonCredentialsNotFound)
	l.expectWoken()
	l.found(nil, "", missing) // at another address
	l.expectTrouble("leaver", gate.GiveUp, v1alpha1.ReasonCredentialsNotFound)
	l.found(l.client(), "", missing)
	l.expectWoken("leaver", "holder")
	l.session("leaver", gate.GiveUp)

	// Whoever has to wait for others in such a gate is not told of a trouble.
	for _, name := range []string{"2", "3", "4", "5", "6", "7", "8"} {
		l.session(name, gate.GiveUp)
	}
	if _, err := l.admit("9", gate.GiveUp); !errors.Is(err, ErrParked) {
		t.Errorf("Admit = %v, want ErrParked", err)
	}
}

func TestGateAndVerdictAgreeWhateverComesFirst(t *testing.T) {
	l := newLab(t)
	old, next := l.client(), l.client()
	for range 5000 {
		l.registry.Remove(l.entry.id)
		l.entry = l.registry.entry(l.entry.id)
		l.found(old, "1", nil)
		var both sync.WaitGroup
		both.Go(func() { l.entry.note(old, false, grafana.ErrUnauthorized) })
		both.Go(func() { l.found(next, "2", nil) })
		both.Wait()
		session, err := l.admit("object", gate.Hold)
		if session != nil {
			session.Close()
		}
		if serves := l.entry.lastVerdict().Class == status.None; serves != (err == nil) {
			t.Fatalf("verdict %s, and Admit = %v", l.entry.lastVerdict().Reason, err)
		}
	}
}

func TestWithoutCredentialsNothingIsFreshAndNoClientIsMade(t *testing.T) {
	l := newLab(t)
	cred := credentials{token: grafana.NewToken([]byte("glsa_token")), versions: "1"}
	good := basisOf(l.conn, "1")
	l.publish(l.conn, l.entry, good, 0, connected{client: l.client(), cred: cred, listed: true}, nil)

	missing := credentialsNotFound("gone")
	b := basisOf(l.conn, "")
	var before *grafana.Client
	for i := range 3 {
		found, err := l.ask(t.Context(), l.conn, l.entry, b, credentials{}, missing)
		if got := l.publish(l.conn, l.entry, b, 0, found, err); got.fresh != (i == 0) {
			t.Errorf("look %d: fresh = %t", i, got.fresh)
		}
		if found.client == nil || i > 0 && found.client != before {
			t.Errorf("look %d: another client, or none", i)
		}
		before = found.client
	}
}

func TestRetryAfterIsMeantForAllOfTheConnection(t *testing.T) {
	l := newLab(t)
	client := l.client()
	l.found(client, "1", nil)
	l.code.Store(http.StatusNotFound)
	going := l.session("going", gate.Hold)
	_, _ = going.Get(t.Context())

	l.code.Store(http.StatusTooManyRequests)
	l.retry.Store("10")
	if _, err := l.session("asked", gate.Hold).Get(t.Context()); !errors.Is(err, grafana.ErrRateLimited) {
		t.Fatalf("Get = %v", err)
	}
	made := l.calls.Load()
	if _, err := going.Get(t.Context()); !errors.Is(err, ErrParked) {
		t.Errorf("a second call of one who was admitted before = %v", err)
	}
	for _, purpose := range []gate.Purpose{gate.Hold, gate.Start, gate.GiveUp} {
		if _, err := l.admit("next", purpose); !errors.Is(err, ErrParked) {
			t.Errorf("Admit = %v", err)
		}
	}
	if !l.entry.current(basisOf(l.conn, "1"), time.Now().Add(9*time.Second)) {
		t.Error("the connection is checked before the date")
	}
	if l.calls.Load() != made {
		t.Errorf("%d calls before the date", l.calls.Load()-made)
	}
	going.Close()
	l.expectWoken()
}

func TestLimitsOfTheSpecAreThoseOfTheGate(t *testing.T) {
	l := newLab(t)
	l.conn.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(2)), MaxInFlight: new(int32(256))}
	l.found(l.client(), "1", nil)
	l.session("a", gate.Hold)
	l.session("b", gate.Hold)
	if _, err := l.admit("c", gate.Hold); !errors.Is(err, ErrParked) {
		t.Errorf("a third request within a second: %v", err)
	}

	l = newLab(t)
	l.conn.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0)), MaxInFlight: new(int32(1))}
	l.found(l.client(), "1", nil)
	l.session("a", gate.Hold)
	if _, err := l.admit("b", gate.Hold); !errors.Is(err, ErrParked) {
		t.Errorf("a second object at a time: %v", err)
	}
}

// crowd is objects that each want to write, worked on one after the other, and the connection's checks when they are due.
type crowd struct {
	*lab
	list, read, write error // what each kind of call comes to

	lists, reads, writes int
	reports              map[string]int // of trouble, by object
	done                 map[string]bool
}

func newCrowd(t *testing.T, size int) *crowd {
	t.Helper()
	c := &crowd{lab: newLabAt(t, "http://grafana.example.com"), reports: map[string]int{}, done: map[string]bool{}}
	c.found(c.client(), "1", nil)
	for i := range size {
		c.woken = append(c.woken, fmt.Sprint(i))
	}
	return c
}

func outcome(count *int, err error) func(*grafana.Client) (struct{}, error) {
	return func(*grafana.Client) (struct{}, error) {
		*count++
		return struct{}{}, err
	}
}

func (c *crowd) look(name string) {
	defer c.registry.Leave(types.NamespacedName{Namespace: "ns", Name: name})
	s, err := c.admit(name, gate.Hold)
	if _, ok := errors.AsType[*Trouble](err); ok {
		c.reports[name]++
	}
	if err != nil {
		return
	}
	defer s.Close()
	if _, err = call(s, false, outcome(&c.reads, c.read)); err == nil {
		_, err = call(s, true, outcome(&c.writes, c.write))
	}
	if err != nil {
		s.Retry()
		return
	}
	c.done[name] = true
}

// pass lets that time pass.
func (c *crowd) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // of fake time
		synctest.Wait()
		if !c.entry.current(basisOf(c.conn, "1"), time.Now()) {
			c.lists++
			c.found(c.entry.clientOf(basisOf(c.conn, "1")), "1", c.list)
		}
		for _, name := range c.takeWoken() {
			c.look(name)
		}
	}
}

func (l *lab) takeWoken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	woken := l.woken
	l.woken = nil
	return woken
}

func (c *crowd) requests() int { return c.lists + c.reads + c.writes }

func TestWhileOnlyWritesFailOneObjectAtATimeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const objects = 100
		c := newCrowd(t, objects)
		c.write = grafana.ErrUnavailable
		c.pass(doubtPeriod + time.Second)
		if c.writes != doubtAfter || c.lists != 1 {
			t.Errorf("%d writes and %d LISTs before it was found out", c.writes, c.lists)
		}
		for minute := range 10 {
			before, written := c.requests(), c.writes
			c.pass(time.Minute)
			if made := c.requests() - before; made > 5 || c.writes == written {
				t.Errorf("minute %d: %d requests, %d of them writes", minute, made, c.writes-written)
			}
		}
		if len(c.reports) != objects-doubtAfter {
			t.Errorf("%d objects were told", len(c.reports))
		}
		for name, n := range c.reports {
			if n > 1 {
				t.Errorf("%s was told %d times", name, n)
			}
		}
		if states := c.registry.States(); !states[0].BreakerOpen {
			t.Error("the breaker is not shown to be open")
		}
		c.write = nil
		c.pass(time.Minute)
		if len(c.done) != objects {
			t.Errorf("%d of %d objects written a minute after writes succeed", len(c.done), objects)
		}
	})
}

func TestAfterThreeFailuresInARowNobodyCallsBeforeTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 100)
		c.read, c.write, c.list = grafana.ErrUnavailable, grafana.ErrUnavailable, grafana.ErrUnavailable
		c.pass(time.Minute)
		if c.reads != doubtAfter || c.writes != 0 {
			t.Errorf("%d reads and %d writes while Grafana is down", c.reads, c.writes)
		}
		c.read, c.write, c.list = nil, nil, nil
		c.pass(time.Minute)
		if len(c.done) != 100 {
			t.Errorf("%d objects written a minute after Grafana is back", len(c.done))
		}
	})
}

func TestANewTokenEndsTheCountOfWrites(t *testing.T) {
	l := newLabAt(t, "http://grafana.example.com")
	l.found(l.client(), "1", nil)
	for range doubtAfter {
		l.entry.note(l.entry.client, true, grafana.ErrUnavailable)
	}
	l.found(l.entry.client, "1", nil)
	l.expectTrouble("waits", gate.Hold, v1alpha1.ReasonGrafanaUnavailable)
	l.found(l.client(), "2", nil)
	l.session("waits", gate.Hold)
}

func TestALongRetryAfterIsSaidByTheConnectionAndItsObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabAt(t, "http://grafana.example.com")
		l.found(l.client(), "1", nil)
		s := l.session("told", gate.Hold)
		waits, err := l.admit("waits", gate.Hold)
		if err != nil {
			t.Fatal(err)
		}
		if !l.entry.note(l.entry.client, false, rateLimited(time.Hour)) {
			t.Error("the connection is not looked at")
		}
		s.Close()
		waits.Close()
		l.expectTrouble("waits", gate.Hold, v1alpha1.ReasonRateLimited)
		if until := l.entry.untilNext(time.Now()); until != time.Hour || !l.entry.current(basisOf(l.conn, "1"), time.Now()) {
			t.Errorf("the connection is checked after %s, want an hour", until)
		}
		if got := l.entry.lastVerdict().Reason; got != v1alpha1.ReasonRateLimited {
			t.Errorf("the connection says %s", got)
		}

		l.found(l.client(), "2", grafana.ErrUnavailable)
		l.expectTrouble("waits", gate.Hold, v1alpha1.ReasonUnreachable)
		if !time.Now().Before(l.entry.gate.PausedUntil()) {
			t.Error("a check that fails has ended the pause")
		}
		l.found(l.client(), "3", nil) // a new token
		l.session("waits", gate.Hold)
	})
}

func TestAShortRetryAfterIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabAt(t, "http://grafana.example.com")
		l.found(l.client(), "1", nil)
		l.entry.note(l.entry.client, true, rateLimited(doubtPeriod-time.Second))
		if _, err := l.admit("waits", gate.Hold); !errors.Is(err, ErrParked) {
			t.Errorf("Admit = %v, want ErrParked", err)
		}
		time.Sleep(doubtPeriod) //nolint:forbidigo // of fake time
		synctest.Wait()
		l.expectWoken("waits")
	})
}

func rateLimited(retryAfter time.Duration) error {
	return errors.Join(grafana.ErrRateLimited, &grafana.Error{RetryAfter: retryAfter})
}

func TestAProcessThatIsToldToStopLearnsNothing(t *testing.T) {
	l := newLab(t)
	l.code.Store(http.StatusNotFound)
	l.found(l.client(), "1", nil)
	s := l.session("going", gate.Hold)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := l.learn(stopped, l.conn, l.entry, basisOf(l.conn, "1"), credentials{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("learn = %v", err)
	}
	made := l.calls.Load()
	if _, _ = s.Get(t.Context()); l.calls.Load() != made+1 {
		t.Error("a look that was under way may not call any more")
	}
}

func TestNobodyWaitsForAnObjectThatIsGone(t *testing.T) {
	l := newLabAt(t, "http://grafana.example.com")
	if _, err := l.admit("gone", gate.Hold); !errors.Is(err, ErrParked) {
		t.Errorf("Admit = %v, want ErrParked", err)
	}
	l.registry.Leave(types.NamespacedName{Namespace: "ns", Name: "gone"})
	l.registry.Forget(types.NamespacedName{Namespace: "ns", Name: "gone"})
	if n := l.entry.gate.Parked(); n != 0 {
		t.Errorf("%d parked", n)
	}
	l.found(l.client(), "1", nil)
	l.expectWoken()
}

func TestNobodyWaitsForAConnectionThatIsGone(t *testing.T) {
	l := newLabAt(t, "http://grafana.example.com")
	l.found(l.client(), "1", nil)
	failing := l.session("failing", gate.Hold)
	between := l.registry.askedBy(types.NamespacedName{Namespace: "ns", Name: "between"}, l.entry.id)
	l.registry.Remove(l.entry.id)
	l.expectWoken()

	if _, _, err := between.admit(types.NamespacedName{Namespace: "ns", Name: "between"}, gate.Hold); !errors.Is(err, ErrParked) {
		t.Errorf("admit = %v, want ErrParked", err)
	}
	l.expectWoken("between")
	failing.Retry()
	failing.Close()
	l.leave("failing")
	l.expectWoken("failing")
	if n := l.entry.gate.Parked(); n != 0 {
		t.Errorf("%d parked", n)
	}
}

// A look at an object costs the same however many connections there are: only those that know of it are asked.
func TestRegistryKnowsWhichConnectionsAnObjectHasAsked(t *testing.T) {
	l := newLab(t)
	for i := range 10 {
		l.registry.entry(ID{Kind: v1alpha1.KindGrafanaConnection, Namespace: "ns", Name: fmt.Sprint(i)})
	}
	expect := func(name string, connections int) {
		t.Helper()
		if n := len(l.registry.asked[types.NamespacedName{Namespace: "ns", Name: name}]); n != connections {
			t.Errorf("%s is known to %d connections, want %d", name, n, connections)
		}
	}
	client := l.client()
	l.found(client, "1", nil)
	l.session("a", gate.Hold).Close()
	expect("a", 1)
	l.leave("a")
	expect("a", 0)

	failed := l.session("a", gate.Hold)
	failed.Retry()
	failed.Close()
	l.leave("a")
	expect("a", 1) // it is delayed
	l.leave("a")
	expect("a", 1)
	l.registry.Forget(types.NamespacedName{Namespace: "ns", Name: "a"})
	expect("a", 0)

	l.found(client, "1", grafana.ErrUnreachable)
	l.expectTrouble("b", gate.Hold, v1alpha1.ReasonUnreachable)
	l.leave("b")
	expect("b", 1) // it waits
	l.registry.Remove(l.entry.id)
	l.leave("b")
	expect("b", 0)
}

// Or a tenant that makes and deletes connections to a Grafana that hangs would come to have all workers.
func TestAConnectionThatIsGoneHasItsWorkersUntilItsLooksEnd(t *testing.T) {
	l := newLabAt(t, "http://grafana.example.com")
	l.registry.share(4)
	var sessions []*Session
	admitted := func(made int) (n int) {
		l.conn.UID = types.UID(fmt.Sprint(made))
		l.entry = l.registry.entry(IDFor(l.conn))
		l.found(l.client(), "1", nil)
		for i := range 4 {
			if s, err := l.admit(fmt.Sprint(made, "-", i), gate.Hold); err == nil {
				sessions = append(sessions, s)
				n++
			}
		}
		return n
	}
	l.registry.Remove(l.entry.id) // it was made before the workers were shared
	if n := admitted(0); n != 2 {
		t.Fatalf("%d of 4 workers are the connection's, want 2", n)
	}
	l.registry.Remove(l.entry.id)
	if n := admitted(1); n != 0 {
		t.Errorf("%d more workers are the tenant's after it has made its connection anew", n)
	}
	for _, s := range sessions {
		s.Close()
		l.leave(s.key.Name)
	}
	l.registry.Remove(l.entry.id)
	for i := range 4 {
		l.leave(fmt.Sprint("1-", i)) // it was handed back, and there is nothing left for it
	}
	if n := admitted(2); n != 2 {
		t.Errorf("%d of 4 workers are the connection's once nobody hangs, want 2", n)
	}
}
