package gate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGatesLeaveAsManyWorkersAsTheyTake(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	admitted := func(g *Gate, prefix string) (n int) {
		for i := range 40 {
			if g.Admit(key(fmt.Sprint(prefix, i)), Hold) {
				n++
			}
		}
		return n
	}
	var gates []*Gate
	for i, want := range []int{8, 4, 2, 1} {
		g := pool.New(fmt.Sprint(i), 64, d.wake)
		g.Trust()
		g.Open()
		gates = append(gates, g)
		if n := admitted(g, fmt.Sprint(i, "-")); n != want {
			t.Errorf("gate %d admitted %d, want %d", i, n, want)
		}
	}
	d.expect(t)

	// What a gate had that is gone is shared by those who stay, once it is given back.
	gates[0].Close()
	gates[0].Recall()
	d.take()
	if gates[0].counted != 8 || sum(pool.taken) != 15 {
		t.Errorf("%d of %d places are those of a gate that is gone while its looks go on", gates[0].counted, sum(pool.taken))
	}
	for i := range 8 {
		gates[0].Done(key(fmt.Sprint("0-", i)), Hold, false)
		gates[0].Leave(key(fmt.Sprint("0-", i)))
	}
	for i, g := range gates[1:] {
		if g.counted != 4 {
			t.Errorf("gate %d has %d places, want 4", i+1, g.counted)
		}
	}
	expectTaken(t, pool, 12)
}

func TestAGateThatIsRetiredHasNoPlaces(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	g := openGate(pool, "a", 8, d)
	expectAdmit(t, g, "a", true)
	g.Retire()
	expectTaken(t, pool, 0)
	g.Done(key("a"), Hold, false) // of a look that was under way
	g.Leave(key("a"))
	expectTaken(t, pool, 0)
}

func TestGatesGetWhatOthersGiveBack(t *testing.T) {
	pool, first, second := NewPool(4), &desk{}, &desk{}
	a, b := pool.New("a", 64, first.wake), pool.New("b", 64, second.wake)
	a.Trust()
	a.Open()
	b.Trust()
	b.Open()
	for i := range 4 {
		a.Admit(key(fmt.Sprint(i)), Hold) // 2 of them
	}
	for i := range 4 {
		b.Admit(key(fmt.Sprint("b", i)), Hold) // 1 of them
	}
	for i := range 2 {
		a.Forget(key(fmt.Sprint(2 + i)))
	}
	a.Done(key("0"), Hold, false)
	a.Leave(key("0"))
	first.expect(t)
	second.expect(t, "b1")
}

// A move asks through two connections in one look. Where each waited for the other, it would never come to an end.
func TestALookDoesNotWaitForItself(t *testing.T) {
	pool, d := NewPool(1), &desk{}
	a, b := pool.New("a", 8, d.wake), pool.New("b", 8, d.wake)
	a.Open()
	b.Open()
	expectAdmit(t, a, "moves", true)
	a.Done(key("moves"), Hold, false)
	expectAdmit(t, b, "other", false)
	if !b.Admit(key("moves"), GiveUp) {
		t.Error("a look that has a worker waits for one")
	}
}

func openGate(p *Pool, tenant string, most int, d *desk) *Gate {
	g := p.New(tenant, most, d.wake)
	g.Trust()
	g.Open()
	return g
}

func expectTaken(t *testing.T, p *Pool, want int) {
	t.Helper()
	if n := sum(p.taken); n != want {
		t.Errorf("%d workers are taken, want %d", n, want)
	}
}

// Or looks that hang at a tenant's own Grafana would keep others from the one that all share.
func TestAPlaceMovesWithItsLook(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	shared, own := openGate(pool, "shared", 1, d), openGate(pool, "own", 8, d)
	expectAdmit(t, shared, "k", true)
	shared.Done(key("k"), Hold, false)
	expectAdmit(t, shared, "other", false)
	expectAdmit(t, own, "k", true)
	own.Calls(key("k"))
	d.expect(t, "other")
	expectAdmit(t, shared, "other", true)
	expectTaken(t, pool, 2)

	own.Answered(key("k"))
	own.Done(key("k"), Hold, false)
	expectAdmit(t, shared, "k", false) // it comes back, and waits as others do
	own.Leave(key("k"))
	shared.Leave(key("k"))
	shared.Done(key("other"), Hold, false)
	shared.Leave(key("other"))
	d.expect(t, "k")
	expectAdmit(t, shared, "k", true)
	expectTaken(t, pool, 1)
}

func TestALookHasOnePlaceAtHoweverManyGates(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	for i := range 15 {
		g := openGate(pool, fmt.Sprint(i), 8, d)
		expectAdmit(t, g, "k", true)
		g.Done(key("k"), Hold, false)
		expectTaken(t, pool, 1)
	}
}

func TestAPlaceThatMovesIsNotTakenTwice(t *testing.T) {
	pool, d := NewPool(2), &desk{}
	a, b, full := openGate(pool, "a", 1, d), openGate(pool, "b", 8, d), openGate(pool, "full", 8, d)
	expectAdmit(t, a, "k", true)
	a.Done(key("k"), Hold, false)
	expectAdmit(t, a, "other", false)
	expectAdmit(t, full, "another", true)
	expectAdmit(t, b, "k", true)
	expectTaken(t, pool, 2)
	d.expect(t)
	b.Done(key("k"), Hold, false)
	b.Leave(key("k"))
	d.expect(t, "other")
}

func TestAPlaceThatMovesIsOfferedToThoseWhoFoundTooFew(t *testing.T) {
	pool, d := NewPool(4), &desk{}
	a, sibling, b := openGate(pool, "a", 8, d), openGate(pool, "a", 8, d), openGate(pool, "b", 8, d)
	expectAdmit(t, a, "k", true)
	expectAdmit(t, a, "k2", true)
	a.Done(key("k"), Hold, false)
	expectAdmit(t, sibling, "other", false)
	expectAdmit(t, b, "k", true)
	d.expect(t, "other")
	expectTaken(t, pool, 3)
}

func TestALookThatMovesWithinATenantNeedsNoMore(t *testing.T) {
	pool, d := NewPool(4), &desk{}
	a, sibling, b := openGate(pool, "a", 8, d), openGate(pool, "a", 8, d), openGate(pool, "b", 8, d)
	expectAdmit(t, a, "k", true)
	expectAdmit(t, a, "k2", true)
	expectAdmit(t, b, "other", true)
	a.Done(key("k"), Hold, false)
	expectAdmit(t, sibling, "k", true)
	expectTaken(t, pool, 3)
}

// Or one in step at the one gate, where it asks first, would never come to its turn at the other.
func TestALookKeepsItsTurnUntilItCalls(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	first, second := openGate(pool, "first", 8, d), openGate(pool, "second", 1, d)
	second.Limit(1, 1)
	expectAdmit(t, second, "busy", true)
	expectAdmit(t, second, "k", false)
	expectAdmit(t, second, "next", false)
	second.bucket.put()
	second.Done(key("busy"), Hold, false)
	second.Leave(key("busy"))
	d.expect(t, "k")
	expectAdmit(t, first, "k", true)
	d.expect(t)
	if turn := second.called[key("k")]; !turn {
		t.Error("a look that has made no call has lost its turn")
	}
	first.Calls(key("k"))
	d.expect(t, "next") // for whom the request is taken now
	expectTaken(t, pool, 2)
	expectAdmit(t, second, "next", true)
}

// Its place would be of no use to it, and nobody else could have it.
func TestALookThatWaitsForAnAnswerIsGivenNoPlace(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	shared, own := openGate(pool, "shared", 1, d), openGate(pool, "own", 8, d)
	expectAdmit(t, shared, "busy", true)
	expectAdmit(t, shared, "k", false)
	expectAdmit(t, shared, "next", false)
	expectAdmit(t, own, "k", true)
	own.Calls(key("k"))
	shared.Done(key("busy"), Hold, false)
	shared.Leave(key("busy"))
	d.expect(t, "k", "next") // the one to look again after this look
	expectAdmit(t, shared, "next", true)
	expectTaken(t, pool, 2)
}

// Or they would take all workers on the way through a gate that answers quickly.
func TestPlacesMoveOnlyWhereThereIsRoom(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	shared, own := openGate(pool, "shared", 64, d), openGate(pool, "own", 64, d)
	moved := 0
	for i := range 40 {
		k := key(fmt.Sprint(i))
		if !shared.Admit(k, Hold) {
			continue
		}
		shared.Done(k, Hold, false)
		if own.Admit(k, GiveUp) {
			own.Calls(k)
			moved++
		}
		shared.Leave(k)
	}
	if moved != 8 {
		t.Errorf("%d of 16 workers are with one tenant, want 8", moved)
	}
	expectTaken(t, pool, 8)
}

// Looks that ask several gates, in any order and interleaving, all come to an end, and no more have places than there are workers.
func TestGatesNeverStrandALookThatAsksSeveral(t *testing.T) {
	const workers, objects = 4, 30
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
		pool, d := NewPool(workers), &desk{}
		var gates []*Gate
		for i := range 4 {
			gates = append(gates, openGate(pool, fmt.Sprint(i%3), 1+random.IntN(3), d))
		}
		type look struct {
			key   Key
			asks  []int // gates, the first of which it asks again each time
			left  []int // in this look
			at    *Gate // where it is admitted
			held  bool  // by the first, in this look
			calls bool
		}
		open, running, again := map[Key]*look{}, []*look{}, map[Key]bool{}
		var queue []Key
		wake := func() {
			for _, k := range d.take() {
				if !again[k] {
					again[k] = true
					queue = append(queue, k)
				}
			}
		}
		for i := range objects {
			k := Key{Namespace: fmt.Sprint(i % 3), Name: fmt.Sprint(i)}
			open[k] = &look{key: k, asks: random.Perm(4)[:1+random.IntN(4)]}
			d.wake(k)
		}
		for step := 0; len(open) > 0; step++ {
			wake()
			if len(queue) > 0 && len(running) < workers && random.IntN(2) == 0 {
				i := slices.IndexFunc(queue, func(k Key) bool {
					return !slices.ContainsFunc(running, func(l *look) bool { return l.key == k })
				})
				if i >= 0 {
					k := queue[i]
					queue = slices.Delete(queue, i, i+1)
					delete(again, k)
					if l := open[k]; l != nil {
						l.left, l.held = slices.Clone(l.asks), false
						running = append(running, l)
					}
				}
			}
			if len(running) == 0 {
				if len(queue) == 0 || step > 100000 {
					t.Fatalf("seed %d: %d objects wait for ever", seed, len(open))
				}
				continue
			}
			i := random.IntN(len(running))
			l := running[i]
			switch {
			case l.at != nil && !l.calls && (len(l.left) < len(l.asks)-1 || random.IntN(2) == 0):
				l.at.Calls(l.key)
				l.calls = true
				continue
			case l.at != nil:
				done := slices.Index(gates, l.at)
				l.at.Answered(l.key)
				l.at.Done(l.key, Hold, false)
				if l.asks[0] == done {
					l.held = true
				} else {
					l.asks = slices.DeleteFunc(l.asks, func(g int) bool { return g == done })
				}
				l.at, l.calls = nil, false
			case len(l.left) > 0:
				g := gates[l.left[0]]
				l.left = l.left[1:]
				if g.Admit(l.key, Hold) {
					l.at = g
				} else if g == gates[l.asks[0]] {
					l.left = nil
				}
			}
			serving := map[Key]bool{}
			for _, g := range gates {
				for k := range g.inFlight {
					serving[k] = true
				}
				for k := range g.called {
					serving[k] = true
				}
			}
			if len(serving) > workers {
				t.Fatalf("seed %d: %d objects have %d workers", seed, len(serving), workers)
			}
			if l.at == nil && len(l.left) == 0 {
				for _, g := range gates {
					g.Leave(l.key)
				}
				running = slices.Delete(running, i, i+1)
				if l.held && len(l.asks) == 1 {
					delete(open, l.key)
				}
			}
		}
		for wake(); len(queue) > 0; wake() { // who was handed back, and is done by now
			for _, g := range gates {
				g.Leave(queue[0])
			}
			delete(again, queue[0])
			queue = queue[1:]
		}
		expectTaken(t, pool, 0)
	}
}

// hang takes as many places at the gate as it gives, and has each of them call.
func hang(g *Gate, prefix string) (n int) {
	for i := range 40 {
		if k := key(fmt.Sprint(prefix, i)); g.Admit(k, Hold) {
			g.Calls(k)
			n++
		}
	}
	return n
}

// answer ends all calls at the gate.
func answer(g *Gate) {
	for k := range g.inFlight {
		g.Answered(k)
		g.Done(k, Hold, false)
		g.Leave(k)
	}
}

func TestGatesOfOneTenantShareWhatItMayTake(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	taken := 0
	for i := range 5 {
		g := pool.New("noisy", 64, d.wake)
		g.Trust()
		g.Open()
		taken += hang(g, fmt.Sprint(i, "-"))
	}
	if taken != 8 {
		t.Errorf("one tenant has %d of 16 workers, want 8", taken)
	}
}

// However many they are, and of however many tenants, they leave workers to those that answer quickly.
func TestGatesThatAreSlowHaveHalfOfTheWorkersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, d := NewPool(16), &desk{}
		open := func(tenant string) *Gate {
			g := pool.New(tenant, 64, d.wake)
			g.Trust()
			g.Open()
			return g
		}
		var tarpits []*Gate
		for i := range 20 {
			tarpits = append(tarpits, open(fmt.Sprint("tarpit-", i)))
		}
		for i, g := range tarpits {
			hang(g, fmt.Sprint(i, "-"))
		}
		if n := sum(pool.taken); n != 16 {
			t.Errorf("%d workers are taken before anything is known, want all", n)
		}
		for range 10 { // each comes to hang: whoever is handed back calls
			time.Sleep(30 * time.Second) //nolint:forbidigo // of fake time
			for _, g := range tarpits {
				answer(g)
			}
			for _, k := range d.take() {
				for _, g := range tarpits {
					if _, called := g.called[k]; called && g.Admit(k, Hold) {
						g.Calls(k)
					}
				}
			}
		}
		if n := sum(pool.taken); n != 8 {
			t.Errorf("those that are slow have %d of 16 workers, want 8", n)
		}
		quick := open("quick")
		if n := hang(quick, "quick-"); n != 4 {
			t.Errorf("one that is quick has %d of 16 workers, want 4", n)
		}
	})
}

func TestGateCountsAsSlowForTenTimesAsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		g := New(1, d.wake)
		g.Open()
		expect := func(want pace) {
			t.Helper()
			if got := g.pace(time.Now()); got != want {
				t.Errorf("pace is %d, want %d", got, want)
			}
		}
		call := func(took time.Duration) {
			t.Helper()
			expectAdmit(t, g, "a", true)
			g.Calls(key("a"))
			time.Sleep(took) //nolint:forbidigo // of fake time
			g.Answered(key("a"))
			g.Done(key("a"), Hold, false)
			g.Leave(key("a"))
		}
		expect(unknown)
		call(time.Second)
		expect(swift)
		call(30 * time.Second)
		call(0) // does not make up for that
		expect(slow)
		time.Sleep(299 * time.Second) //nolint:forbidigo // of fake time
		expect(slow)
		time.Sleep(time.Second) //nolint:forbidigo // of fake time
		expect(swift)
	})
}

func TestGatesCountAsSlowWhileACallTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, d := NewPool(16), &desk{}
		var gates []*Gate
		for i := range 2 {
			g := pool.New(fmt.Sprint(i), 64, d.wake)
			g.Trust()
			g.Open()
			gates = append(gates, g)
		}
		if n := hang(gates[0], "a"); n != 8 {
			t.Fatalf("the first has %d of 16 workers, want 8", n)
		}
		expectAdmit(t, gates[1], "b", true)
		gates[1].Calls(key("b"))
		time.Sleep(2 * time.Second) //nolint:forbidigo // of fake time
		gates[1].Answered(key("b"))
		gates[1].Done(key("b"), Hold, false)
		gates[1].Leave(key("b"))
		expectAdmit(t, gates[1], "b", false) // the half of those who are slow is with the first
		answer(gates[0])
		d.take()
		expectAdmit(t, gates[1], "b", true)
	})
}

func TestGatesOfWhichNothingIsKnownLeaveAQuarterOfTheWorkers(t *testing.T) {
	pool, d := NewPool(16), &desk{}
	for i := range 20 {
		g := pool.New(fmt.Sprint(i), 64, d.wake)
		g.Open()
		hang(g, fmt.Sprint(i, "-"))
	}
	if n := sum(pool.taken); n != 12 {
		t.Errorf("those of whom nothing is known have %d of 16 workers, want 12", n)
	}
	g := pool.New("known", 64, d.wake)
	g.Trust()
	g.Open()
	expectAdmit(t, g, "known", true)
}

// Or those who have something would give it to themselves again and again.
func TestGatesTakeTurnsWhereWorkersAreShort(t *testing.T) {
	pool, d := NewPool(2), &desk{}
	gates, served := map[string]*Gate{}, map[string]int{}
	for _, tenant := range []string{"a", "b", "c", "d"} {
		g := pool.New(tenant, 64, d.wake)
		g.Trust()
		g.Open()
		gates[tenant] = g
	}
	for _, tenant := range []string{"a", "b", "c", "d"} {
		for i := range 100 {
			if k := (Key{Namespace: tenant, Name: fmt.Sprint(i)}); gates[tenant].Admit(k, Hold) {
				d.wake(k)
			}
		}
	}
	for range 40 {
		if len(d.woken) == 0 {
			t.Fatal("nobody is handed back any more")
		}
		k := d.woken[0]
		d.woken = d.woken[1:]
		g := gates[k.Namespace]
		if _, flies := g.inFlight[k]; !flies && !g.Admit(k, Hold) {
			t.Fatalf("%s was handed back and is not admitted", k)
		}
		g.Done(k, Hold, false)
		g.Leave(k)
		served[k.Namespace]++
		if n := sum(pool.taken); n > 2 {
			t.Fatalf("%d of 2 workers are taken", n)
		}
	}
	for _, tenant := range []string{"a", "b", "c", "d"} {
		if n := served[tenant]; n < 9 {
			t.Errorf("%s was served %d times of 40, as one of four", tenant, n)
		}
	}
}

func sum(of places) (n int) {
	for _, taken := range of {
		n += taken
	}
	return n
}
