package limiter

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// lab is a limiter, and the objects that it woke.
type lab struct {
	*Limiter
	t     *testing.T
	mu    sync.Mutex
	woken []Key
}

// newLab returns a limiter that admits everything, of a pool of so many workers.
func newLab(t *testing.T, workers int) *lab {
	return NewPool(workers).lab(t, "tenant")
}

func (p *Pool) lab(t *testing.T, tenant string) *lab {
	l := &lab{t: t}
	l.Limiter = p.New(tenant, func(key Key) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.woken = append(l.woken, key)
	})
	l.Limit(256, 0)
	l.Admits(Everything, false)
	return l
}

var checkKey = Key{Name: "check"}

func key(name string) Key { return Key{Namespace: "ns", Name: name} }

// begin begins a reconcile that asks, and reports whether it is admitted.
func (l *lab) begin(name string, operation Operation) bool {
	l.pool.Begin(key(name))
	return l.Admit(key(name), operation)
}

// reconcile makes a whole reconcile with so many requests, and reports how many of them were made.
func (l *lab) reconcile(k Key, operation Operation, requests int, fails bool) (made int) {
	l.pool.Begin(k)
	defer l.pool.End(k)
	if !l.Admit(k, operation) {
		return 0
	}
	for ; made < requests && l.Request(k, operation); made++ {
		if fails {
			l.Failed(k)
			return made + 1
		}
	}
	return made
}

func (l *lab) take() []Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	woken := l.woken
	l.woken = nil
	return woken
}

func (l *lab) expectWoken(names ...string) {
	l.t.Helper()
	var got []string
	for _, k := range l.take() {
		got = append(got, k.Name)
	}
	if !slices.Equal(got, names) {
		l.t.Errorf("woken: %q, want %q", got, names)
	}
}

// trip opens the breaker.
func (l *lab) trip() {
	l.t.Helper()
	for i := range failureThreshold {
		l.reconcile(key(fmt.Sprint("fails-", i)), Change, 1, true)
		l.pool.Forget(key(fmt.Sprint("fails-", i)))
	}
	if !l.Open() {
		l.t.Fatalf("closed after %d failures in a row", failureThreshold)
	}
}

func TestNothingIsAdmittedBeforeTheFirstCheck(t *testing.T) {
	l := newLab(t, 0)
	l.Admits(Nothing, false)
	if l.begin("a", Change) || l.begin("b", Release) {
		t.Error("an object was admitted")
	}
	if l.reconcile(checkKey, Check, 1, false) != 1 {
		t.Error("the check was not admitted")
	}
	l.Admits(ReleasesOnly, false)
	l.expectWoken("b")
	l.Admits(Everything, false)
	l.expectWoken("a")
}

func TestWhoWaitsIsToldWhy(t *testing.T) {
	l := newLab(t, 0)
	l.Admits(Nothing, false)
	l.begin("a", Change)
	l.Admits(Nothing, true)
	l.expectWoken("a")
	l.Admits(Nothing, true)
	l.expectWoken() // it does not wait any more
	if l.begin("a", Change) || l.Queued() != 1 {
		t.Error("it does not wait again")
	}
}

func TestTurnsAreBounded(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(2, 0)
	if !l.begin("a", Change) || !l.begin("b", Change) || l.begin("c", Change) || l.begin("d", Change) {
		t.Error("not two are admitted")
	}
	l.pool.End(key("a"))
	l.expectWoken("c")
	if l.begin("e", Change) {
		t.Error("the turn that waits for c was given to another")
	}
	if !l.begin("c", Change) {
		t.Error("c was woken for its turn, and has none")
	}
}

// A turn that is not used goes to the next one, or nobody would be served any more.
func TestAnUnusedTurnIsReturned(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("a", Change)
	l.begin("b", Change)
	l.begin("c", Change)
	l.pool.End(key("a"))
	l.expectWoken("b")
	l.pool.Begin(key("b"))
	l.pool.End(key("b")) // its reconcile found nothing to do
	l.expectWoken("c")
}

// A turn that is granted while a reconcile of the same object runs is for the next one.
func TestATurnIsReservedUntilTheReconcileThatItWokeEnds(t *testing.T) {
	p := NewPool(0)
	l, other := p.lab(t, "tenant"), p.lab(t, "other")
	l.Limit(1, 0)
	l.begin("first", Change)
	l.begin("a", Change)
	p.End(key("a"))
	p.Begin(key("a")) // for another reason
	other.Admit(key("a"), Change)
	l.begin("b", Change)
	p.End(key("first"))
	l.expectWoken("a")
	p.End(key("a"))
	l.expectWoken()
	if !l.begin("a", Change) {
		t.Error("the turn was lost")
	}
}

func TestAReconcileAsksTwiceWithOneTurn(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("a", Change)
	l.begin("b", Change)
	if !l.Admit(key("a"), Release) {
		t.Error("the second half of a reconcile was put behind one that waits")
	}
}

// TestWhatWasRefusedIsNotForgotten: a reconcile that releases many targets is refused some while the connection is checked, and is served others
// after that. Where there is no room for another turn yet, it still waits for one.
func TestWhatWasRefusedIsNotForgotten(t *testing.T) {
	for name, refuse := range map[string]func(*lab) bool{
		"a request":    func(l *lab) bool { return l.Request(key("a"), Release) },
		"an operation": func(l *lab) bool { return l.Admit(key("a"), Release) },
	} {
		l := newLab(t, 0)
		l.Limit(256, 1)
		if !l.begin("a", Release) || !l.Request(key("a"), Release) || !l.Request(key("a"), Release) {
			t.Fatal("no turn")
		}
		l.Admits(Nothing, false)
		if refuse(l) {
			t.Errorf("%s is admitted by a connection that serves nothing", name)
		}
		l.Admits(Everything, false)
		if !l.Admit(key("a"), Release) || !l.Request(key("a"), Release) {
			t.Errorf("%s: the next one is refused, too", name)
		}
		l.pool.End(key("a"))
		if !l.pool.Waits(key("a")) {
			t.Errorf("%s was refused, and nobody waits for it", name)
		}
	}
}

func TestNewcomersQueueBehindThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.Limit(256, 1)
		if l.reconcile(key("a"), Change, 1, false) != 1 || l.reconcile(key("b"), Change, 1, false) != 0 {
			t.Fatal("not one request in a second")
		}
		time.Sleep(990 * time.Millisecond) //nolint:forbidigo // of fake time
		if l.reconcile(key("c"), Change, 1, false) != 0 {
			t.Error("a newcomer was served before one that waits")
		}
		time.Sleep(time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		l.expectWoken("b")
	})
}

func TestNamespacesTakeTurns(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("first", Change)
	for _, k := range []Key{{Namespace: "big", Name: "1"}, {Namespace: "big", Name: "2"}, {Namespace: "big", Name: "3"}, {Namespace: "small", Name: "4"}} {
		l.Admit(k, Change)
	}
	var order []string
	for last := key("first"); len(order) < 4; {
		l.pool.End(last)
		last = l.take()[0]
		l.pool.Begin(last)
		order = append(order, last.Name)
	}
	if !slices.Equal(order, []string{"1", "4", "2", "3"}) {
		t.Errorf("order is %q", order)
	}
}

func TestChangesComeBeforeFirstWrites(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("first", Change)
	for i := range 6 {
		l.Admit(key(fmt.Sprint("new-", i)), Create)
		l.Admit(key(fmt.Sprint("changed-", i)), Change)
	}
	creates := 0
	for last, i := key("first"), 0; i < 4; i++ {
		l.pool.End(last)
		last = l.take()[0]
		l.pool.Begin(last)
		if last.Name[:3] == "new" {
			creates++
		}
	}
	if creates != 1 {
		t.Errorf("%d of 4 turns went to first writes", creates)
	}
}

func TestRequestsPerSecondAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.Limit(256, 10)
		made, waits := 0, []Key{}
		for i := range 100 {
			waits = append(waits, key(fmt.Sprint(i)))
		}
		for begun := time.Now(); time.Since(begun) < 4*time.Second; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // of fake time
			synctest.Wait()
			for _, k := range append(waits, l.take()...) {
				made += l.reconcile(k, Change, 2, false) // a GET and a PUT
			}
			waits = nil
		}
		if made < 44 || made > 52 { // those of one second at once, and 10 in each of four
			t.Errorf("%d requests in four seconds", made)
		}
	})
}

// Every request checks whether Grafana has asked to wait, also of a reconcile that has begun.
func TestAPauseIsMeantForAllRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.begin("between", Change)
		if !l.Request(key("between"), Change) {
			t.Fatal("the first request was refused")
		}
		l.Pause(time.Now().Add(time.Minute))
		l.Pause(time.Now().Add(time.Second)) // never shorter
		if l.Request(key("between"), Change) || l.begin("next", Change) || l.begin("check", Check) {
			t.Error("a request was made in a pause")
		}
		l.pool.End(key("between"))
		l.pool.End(key("next"))
		time.Sleep(59 * time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		l.expectWoken()
		time.Sleep(2 * time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		if woken := l.take(); len(woken) != 3 {
			t.Errorf("after the pause %v are woken", woken)
		}
	})
}

func TestTheBreakerOpensAfterFailuresInARow(t *testing.T) {
	l := newLab(t, 0)
	for range 3 {
		for range failureThreshold - 1 {
			l.reconcile(key("fails"), Change, 1, true)
		}
		l.reconcile(key("works"), Change, 1, false)
	}
	if l.Open() {
		t.Error("open, although a success came between")
	}
	l.trip()
}

func TestOpeningTellsThoseThatWait(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(failureThreshold, 0)
	for i := range failureThreshold {
		l.begin(fmt.Sprint(i), Change)
		l.Request(key(fmt.Sprint(i)), Change)
	}
	l.begin("waits", Change)
	for i := range failureThreshold {
		if opened := l.Failed(key(fmt.Sprint(i))); opened != (i == failureThreshold-1) {
			t.Errorf("failure %d: opened %t", i, opened)
		}
	}
	l.expectWoken("waits")
	if l.Request(key("0"), Change) {
		t.Error("a reconcile that was admitted before goes on")
	}
}

// What is counted here is the budget of an outage: at most 5 requests a minute, LIST included, whatever a probe needs.
func TestWhileOpenAllRequestsShareOneBucket(t *testing.T) {
	for name, works := range map[string]int{"the first request fails": 0, "only writes fail": 1, "the third request fails": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 0)
				l.trip()
				var made []time.Time
				waits := []Key{checkKey}
				for i := range 50 {
					waits = append(waits, key(fmt.Sprint(i)))
				}
				probed := map[Key]bool{}
				for begun := time.Now(); time.Since(begun) < 2*time.Hour; time.Sleep(100 * time.Millisecond) { //nolint:forbidigo // of fake time
					synctest.Wait()
					for _, k := range append(waits, l.take()...) {
						n := l.outage(k, works)
						for range n {
							made, probed[k] = append(made, time.Now()), true
						}
					}
					waits = nil
				}
				if len(made) < 60*4 || len(probed) != 51 {
					t.Fatalf("%d requests of %d objects in two hours", len(made), len(probed))
				}
				for i := range made[:len(made)-5] {
					if took := made[i+5].Sub(made[i]); took < time.Minute {
						t.Fatalf("six requests within %s", took)
					}
				}
			})
		})
	}
}

// outage reconciles an object, or the check, whose requests fail after so many.
func (l *lab) outage(k Key, works int) (made int) {
	operation := Change
	if k == checkKey {
		operation = Check
	}
	l.pool.Begin(k)
	defer l.pool.End(k)
	if !l.Admit(k, operation) {
		return 0
	}
	for ; l.Request(k, operation); made++ {
		if operation == Check {
			l.Checked(k, works == 0)
			l.pool.End(k)
			l.Admit(k, Check) // its time has come again
			return made + 1
		}
		if made == works {
			l.Failed(k)
			return made + 1
		}
	}
	return made
}

func TestATimerStartsTheNextProbeAndASuccessWakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.trip()
		for _, name := range []string{"a", "b", "c"} {
			if l.reconcile(key(name), Change, 1, false) != 0 {
				t.Fatal("a request was made at once")
			}
		}
		time.Sleep(2 * probeInterval) //nolint:forbidigo // of fake time
		synctest.Wait()
		l.expectWoken("a")
		if l.reconcile(key("a"), Change, 1, false) != 1 {
			t.Fatal("the probe was refused")
		}
		if l.Open() {
			t.Error("open after a success")
		}
		l.expectWoken("b", "c")
	})
}

// However many objects of one namespace fail, and open the breaker, it closes soon for others.
func TestABreakerThatOneNamespaceOpensKeepsOthersForOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.trip()
		for i := range 50 {
			l.reconcile(key(fmt.Sprint(i)), Change, 1, true)
		}
		other := Key{Namespace: "other", Name: "works"}
		l.reconcile(other, Change, 1, false)
		failed := 0
		for l.Open() && failed < 50 {
			time.Sleep(time.Second) //nolint:forbidigo // of fake time
			synctest.Wait()
			for _, k := range l.take() {
				if made := l.reconcile(k, Change, 1, k != other); k != other {
					failed += made
				}
			}
		}
		if failed > 1 {
			t.Errorf("%d probes failed before the other namespace was served", failed)
		}
	})
}

// A probe that makes no request, because its object finds nothing to do, is given to another.
func TestAProbeThatIsNotUsedIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.trip()
		l.reconcile(key("a"), Change, 1, false)
		l.reconcile(key("b"), Change, 1, false)
		time.Sleep(2 * probeInterval) //nolint:forbidigo // of fake time
		synctest.Wait()
		l.expectWoken("a")
		if l.reconcile(key("a"), Change, 0, false); !l.Open() {
			t.Error("closed by a probe that made no request")
		}
		l.expectWoken("b")
	})
}

// First writes and changes take turns, so that those which always fail keep nobody from a probe.
func TestProbesRotateOverAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 0)
		l.trip()
		operations := map[Key]Operation{key("changed"): Change, key("new-1"): Create, key("new-2"): Create}
		for k, operation := range operations {
			l.reconcile(k, operation, 1, true)
		}
		creates := 0
		for range 4 {
			time.Sleep(2 * probeInterval) //nolint:forbidigo // of fake time
			synctest.Wait()
			for _, k := range l.take() {
				if l.reconcile(k, operations[k], 1, true); operations[k] == Create {
					creates++
				}
			}
		}
		if creates != 2 {
			t.Errorf("%d of 4 probes went to first writes", creates)
		}
	})
}

// The connections of one Grafana do not probe at the same moments, and none more often than the budget allows.
func TestProbesAreSpread(t *testing.T) {
	limits := map[rate.Limit]bool{}
	for range 100 {
		var b breaker
		b.reset()
		if limits[b.probes.Limit()] = true; b.probes.Limit() > rate.Every(probeInterval) || b.probes.Limit() < rate.Every(2*probeInterval) {
			t.Errorf("%v probes per second", b.probes.Limit())
		}
	}
	if len(limits) < 50 {
		t.Errorf("%d intervals of 100 breakers", len(limits))
	}
}

// A Grafana may answer a LIST and fail each write: where objects wait, one of them must succeed.
func TestASuccessfulCheckClosesOnlyWhereNobodyWaits(t *testing.T) {
	l := newLab(t, 0)
	l.trip()
	l.reconcile(key("waits"), Change, 1, false)
	if l.Checked(checkKey, false); !l.Open() {
		t.Error("closed while an object waits")
	}
	l.pool.Forget(key("waits"))
	if l.Checked(checkKey, false); l.Open() {
		t.Error("open although nobody waits")
	}
	if l.Checked(checkKey, true); !l.Open() || !l.pool.Waits(checkKey) || l.Queued() != 0 {
		t.Error("a failed check does not open, or does not wait for its next turn")
	}
}

// Connections that hang cannot take all workers, however many tenants they are of.
func TestATenantHoldsFewerThanAThirdOfTheFreeWorkers(t *testing.T) {
	p := NewPool(64)
	for tenant, want := range []int{16, 12, 9, 7} {
		l := p.lab(t, fmt.Sprint(tenant))
		held := 0
		for i := range 64 {
			k := Key{Namespace: fmt.Sprint(tenant), Name: fmt.Sprint(i)}
			if l.Admit(k, Change) {
				held++
			}
		}
		if held != want {
			t.Errorf("tenant %d holds %d workers, want %d", tenant, held, want)
		}
	}
	fresh := p.lab(t, "fresh")
	if !fresh.begin("a", Change) {
		t.Error("a tenant whose Grafana works is not admitted")
	}
}

func TestAWorkerThatIsFreeGoesToWhoFoundTooFew(t *testing.T) {
	p := NewPool(16)
	hangs, waits := p.lab(t, "hangs"), p.lab(t, "waits")
	admitted := []Key{}
	for i := range 16 {
		if k := key(fmt.Sprint(i)); hangs.Admit(k, Change) {
			admitted = append(admitted, k)
		} else {
			p.Forget(k)
		}
	}
	for i := range 16 {
		waits.Admit(Key{Namespace: "other", Name: fmt.Sprint(i)}, Change)
	}
	waits.expectWoken()
	for _, k := range admitted {
		p.Begin(k)
		p.End(k)
	}
	if len(waits.take()) == 0 {
		t.Error("nobody of those that wait is woken")
	}
}

func TestNobodyIsLeftInALimiterThatIsReplaced(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("has", Change)
	l.begin("waits", Change)
	l.Close()
	l.expectWoken("waits")
	if l.begin("late", Change) || l.Request(key("has"), Change) {
		t.Error("a closed limiter admits")
	}
	l.expectWoken("late", "has")
	l.pool.End(key("has"))
	l.pool.End(key("late"))
	if l.pool.taken != 0 || len(l.pool.turns) != 0 || len(l.pool.held) != 0 {
		t.Error("the pool still counts its turns")
	}
}

func TestNobodyWaitsForAnObjectThatIsGone(t *testing.T) {
	l := newLab(t, 0)
	l.Limit(1, 0)
	l.begin("a", Change)
	l.begin("gone", Change)
	l.pool.End(key("gone"))
	if !l.pool.Waits(key("gone")) {
		t.Error("it does not wait")
	}
	l.pool.Forget(key("gone"))
	l.pool.End(key("a"))
	l.expectWoken()
	if l.pool.Waits(key("gone")) || l.Queued() != 0 {
		t.Error("it still waits")
	}
}

// Whatever objects do, each is served in the end, and nothing is left over.
func TestNobodyIsStranded(t *testing.T) {
	l := newLab(t, 16)
	l.Limit(3, 0)
	served, pending := map[Key]bool{}, []Key{}
	for i := range 200 {
		pending = append(pending, Key{Namespace: fmt.Sprint(i % 7), Name: fmt.Sprint(i)})
	}
	for i := 0; len(pending) > 0; i++ {
		k := pending[0]
		pending = pending[1:]
		if i%7 == 3 { // woken, with nothing to do
			l.pool.Begin(k)
			l.pool.End(k)
			l.pool.Forget(k)
			served[k] = true
		} else if l.reconcile(k, Operation(1+i%3), 2, false) > 0 {
			served[k] = true
		}
		pending = append(pending, l.take()...)
	}
	if len(served) != 200 || l.turns != 0 || l.unspent != 0 || len(l.waiting) != 0 || l.pool.taken != 0 {
		t.Errorf("%d of 200 served; %d turns, %d unspent, %d waiting, %d workers", len(served), l.turns, l.unspent, len(l.waiting), l.pool.taken)
	}
}
