package gate

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// desk collects whom a gate hands back, in order.
type desk struct {
	mu    sync.Mutex
	woken []Key
}

func (d *desk) wake(key Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.woken = append(d.woken, key)
}

func (d *desk) take() []Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	woken := d.woken
	d.woken = nil
	return woken
}

func (d *desk) expect(t *testing.T, names ...string) {
	t.Helper()
	var got []string
	for _, key := range d.take() {
		got = append(got, key.Name)
	}
	if !slices.Equal(got, names) {
		t.Errorf("handed back %q, want %q", got, names)
	}
}

func key(name string) Key { return Key{Namespace: "ns", Name: name} }

// limited returns an open gate with these limits, and the desk at which it hands objects back.
func limited(maxInFlight int, perSecond float64) (*desk, *Gate) {
	d := &desk{}
	g := New(maxInFlight, d.wake)
	g.Limit(maxInFlight, perSecond)
	g.Open()
	return d, g
}

func expectAdmit(t *testing.T, g *Gate, name string, want bool) {
	t.Helper()
	if got := g.Admit(key(name), Hold); got != want {
		t.Errorf("Admit(%s) = %t, want %t", name, got, want)
	}
}

func expectNothingRemembered(t *testing.T, g *Gate) {
	t.Helper()
	for p := range g.lanes {
		if l := &g.lanes[p]; len(l.failing) != 0 || len(l.parked.at) != 0 {
			t.Errorf("purpose %d: still remembers %d failures and %d parked", p, len(l.failing), len(l.parked.at))
		}
	}
	if len(g.called) != 0 || len(g.inFlight) != 0 {
		t.Errorf("still keeps places for %v and %v", g.called, g.inFlight)
	}
}

func TestGateIsMadeClosed(t *testing.T) {
	d := &desk{}
	g := New(2, d.wake)
	expectAdmit(t, g, "a", false)
	d.expect(t)
	g.Open()
	d.expect(t, "a")
	expectAdmit(t, g, "a", true)
}

func TestGateBoundsWhatIsInFlight(t *testing.T) {
	d := &desk{}
	g := New(2, d.wake)
	g.Open()
	expectAdmit(t, g, "a", true)
	expectAdmit(t, g, "b", true)
	expectAdmit(t, g, "c", false)
	expectAdmit(t, g, "d", false)
	d.expect(t)

	g.Done(key("a"), Hold, false)
	g.Leave(key("a"))
	d.expect(t, "c")
	expectAdmit(t, g, "e", false) // the free place is kept for c
	expectAdmit(t, g, "c", true)
	g.Done(key("b"), Hold, false)
	g.Leave(key("b"))
	g.Done(key("c"), Hold, false)
	g.Leave(key("c"))
	d.expect(t, "d", "e")
}

func TestGateGivesOnThePlaceOfOneThatNeedsItNoMore(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Open()
	expectAdmit(t, g, "a", true)
	expectAdmit(t, g, "b", false)
	expectAdmit(t, g, "c", false)
	g.Done(key("a"), Hold, false)
	g.Leave(key("a"))
	d.expect(t, "b")
	g.Leave(key("b")) // b looked, and had nothing to do
	d.expect(t, "c")
}

func TestGateParksAKeyOnce(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	for range 3 {
		expectAdmit(t, g, "a", false)
	}
	g.Open()
	g.Leave(key("a"))
	d.expect(t, "a")
}

func TestGateClosingHandsEverybodyBackOnce(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Open()
	expectAdmit(t, g, "a", true)
	expectAdmit(t, g, "b", false)
	g.Close()
	d.expect(t, "b")
	expectAdmit(t, g, "b", false)
	g.Done(key("a"), Hold, true)
	g.Leave(key("a"))
	d.expect(t)
	g.Open()
	d.expect(t, "b")
	expectAdmit(t, g, "b", true)
	g.Done(key("b"), Hold, false)
	g.Leave(key("b"))
	d.expect(t, "a") // its delay ended with the trouble
}

func TestGateDelaysWhatFailedAndLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := make(chan Key, 10)
		g := New(1, func(key Key) { woken <- key })
		g.Open()
		for i := range 8 {
			start := time.Now()
			expectAdmit(t, g, "a", true)
			g.Done(key("a"), Hold, true)
			g.Leave(key("a"))
			expectAdmit(t, g, "a", false)
			g.Leave(key("a"))
			expectAdmit(t, g, "b", true)
			g.Done(key("b"), Hold, false)
			g.Leave(key("b"))
			if got := <-woken; got != key("a") {
				t.Fatalf("handed back %s", got)
			}
			want := min(firstRetry<<i, lastRetry)
			if wait := time.Since(start); wait < want*79/100 || wait > want*121/100 {
				t.Errorf("wait %d was %s, want %s by a fifth either way", i, wait, want)
			}
		}

		// A success ends the row.
		expectAdmit(t, g, "a", true)
		g.Done(key("a"), Hold, false)
		g.Leave(key("a"))
		expectNothingRemembered(t, g)
	})
}

func TestGateKeepsThePlaceOfALookThatAsksTwice(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Open()
	expectAdmit(t, g, "a", true)
	expectAdmit(t, g, "b", false)
	g.Done(key("a"), Hold, false)
	d.expect(t)
	if !g.Admit(key("a"), GiveUp) {
		t.Error("the second half of a look was put behind one who waits")
	}
	g.Done(key("a"), GiveUp, false)
	g.Leave(key("a"))
	d.expect(t, "b")
}

func TestGateRestrictedServesThoseWhoGiveUp(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	expectAdmit(t, g, "holds", false)
	if g.Admit(key("gives-up"), GiveUp) {
		t.Fatal("a closed gate admitted")
	}
	g.Restrict()
	d.expect(t, "holds", "gives-up") // the one to learn why, the other because it is its turn
	expectAdmit(t, g, "holds", false)
	if !g.Admit(key("gives-up"), GiveUp) {
		t.Error("one who gives up was refused")
	}
	g.Done(key("gives-up"), GiveUp, false)
	g.Leave(key("gives-up"))
	d.expect(t)
	g.Open()
	d.expect(t, "holds")
	g.Leave(key("holds"))
	expectNothingRemembered(t, g)
}

func TestGateRestrictedKeepsDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := make(chan Key, 10)
		g := New(1, func(key Key) { woken <- key })
		g.Restrict()
		if !g.Admit(key("a"), GiveUp) {
			t.Fatal("one who gives up was refused")
		}
		start := time.Now()
		g.Done(key("a"), GiveUp, true)
		g.Leave(key("a"))
		if got := <-woken; got != key("a") || time.Since(start) < firstRetry*79/100 {
			t.Errorf("handed back %s after %s", got, time.Since(start))
		}
	})
}

func TestGateKeepsTheDelaysOfPurposesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := make(chan Key, 10)
		g := New(2, func(key Key) { woken <- key })
		g.Open()
		for i := range 7 {
			// A look that holds one place, and fails to give up the first of two others.
			expectAdmit(t, g, "a", true)
			g.Done(key("a"), Hold, false)
			for _, failed := range []bool{true, false} {
				if !g.Admit(key("a"), GiveUp) {
					t.Fatal("one old place keeps the other")
				}
				g.Done(key("a"), GiveUp, failed)
			}
			start := time.Now()
			g.Leave(key("a"))

			// One that comes before the delay is over, for another reason.
			expectAdmit(t, g, "a", true)
			g.Done(key("a"), Hold, false)
			if g.Admit(key("a"), GiveUp) {
				t.Error("what failed is tried again before its delay is over")
			}
			g.Leave(key("a"))
			<-woken
			want := min(firstRetry<<i, lastRetry)
			if wait := time.Since(start); wait < want*79/100 || wait > want*121/100 {
				t.Errorf("wait %d was %s, want %s by a fifth either way", i, wait, want)
			}
		}
		g.Leave(key("a")) // it had nothing to give up any more
		expectNothingRemembered(t, g)
	})
}

func TestGateKeepsAFailureWhoseLookOutlastsATrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := make(chan Key, 10)
		g := New(1, func(key Key) { woken <- key })
		g.Open()
		expectAdmit(t, g, "a", true)
		g.Done(key("a"), Hold, true)
		g.Close()
		g.Open()
		g.Leave(key("a"))
		if got := <-woken; got != key("a") { // or synctest finds that nothing can ever come
			t.Errorf("handed back %s", got)
		}
	})
}

func TestGateHandsBackInTheOrderOfArrivalWhateverThePurpose(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Open()
	expectAdmit(t, g, "a", true)
	g.Admit(key("b"), Hold)
	g.Admit(key("c"), GiveUp)
	g.Admit(key("d"), Hold)
	g.Admit(key("b"), GiveUp)
	g.Done(key("a"), Hold, false)
	for _, name := range []string{"a", "b", "c", "d"} {
		g.Leave(key(name))
	}
	d.expect(t, "b", "c", "d")
	expectNothingRemembered(t, g)
}

func TestGateRecallsThoseWhoWaitInVain(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	expectAdmit(t, g, "a", false)
	g.Close() // as it was
	d.expect(t)
	g.Recall()
	d.expect(t, "a")
	g.Recall()
	d.expect(t)

	g.Open()
	expectAdmit(t, g, "a", true)
	expectAdmit(t, g, "b", false)
	g.Recall()
	d.expect(t) // b waits for its turn, and knows
	g.Done(key("a"), Hold, true)
	g.Restrict()
	d.expect(t, "b")
	g.Leave(key("a"))
	g.Recall()
	d.expect(t, "a") // before its delay is over
}

func TestGateThatHasEndedKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(2, 0)
		fail := func(name string) {
			expectAdmit(t, g, name, true)
			g.Done(key(name), Hold, true)
			g.Leave(key(name))
		}
		fail("delayed")
		expectAdmit(t, g, "a", true)
		expectAdmit(t, g, "b", true)
		expectAdmit(t, g, "parked", false)
		g.End()
		d.expect(t, "delayed", "parked")

		expectAdmit(t, g, "late", false)
		d.expect(t, "late")
		g.Leave(key("late"))
		g.Done(key("a"), Hold, true)
		d.expect(t)
		g.Leave(key("a"))
		d.expect(t, "a") // at once: who comes instead of the gate knows nothing of the failure
		g.Open()
		expectAdmit(t, g, "late", false)
		d.expect(t, "late")
		g.Done(key("b"), Hold, false)
		g.Leave(key("b"))
		time.Sleep(time.Hour) //nolint:forbidigo // of fake time
		d.expect(t)
		expectNothingRemembered(t, g)
	})
}

func TestGateNeverStrandsAKey(t *testing.T) {
	// Every key that asks is admitted in the end, whatever the others do.
	d := &desk{}
	g := New(3, d.wake)
	g.Open()
	served := map[Key]bool{}
	pending := []Key{}
	for i := range 200 {
		pending = append(pending, key(fmt.Sprint(i)))
	}
	for i := 0; len(pending) > 0; i++ {
		k := pending[0]
		pending = pending[1:]
		if i%7 == 3 { // it is woken and finds nothing to do
			g.Leave(k)
			served[k] = true
		} else if g.Admit(k, Hold) {
			g.Done(k, Hold, false)
			served[k] = true
		}
		g.Leave(k)
		pending = append(pending, d.woken...)
		d.woken = nil
	}
	if len(served) != 200 {
		t.Errorf("%d of 200 keys served", len(served))
	}
}

func TestPlaces(t *testing.T) {
	d := &desk{}
	p := &Places{Wake: d.wake}
	here := Place{Server: "s", Namespace: "default", Name: "x"}
	there := Place{Server: "s", Namespace: "default", Name: "y"}
	if !p.Take(here, key("a")) || !p.Take(there, key("b")) {
		t.Fatal("a free place was refused")
	}
	for _, name := range []string{"c", "d", "e"} {
		if p.Take(here, key(name)) {
			t.Fatal("a taken place was given")
		}
		p.Leave(key(name))
	}
	d.expect(t)
	p.Free(here)
	p.Leave(key("a"))
	d.expect(t, "c")
	if p.Take(here, key("f")) {
		t.Error("a place that was offered to one was given to another")
	}
	p.Leave(key("f"))
	if !p.Take(here, key("c")) {
		t.Error("a place that was offered is refused")
	}
	p.Leave(key("c")) // it holds on to it, whatever becomes of the look
	d.expect(t)
	p.Free(here)
	p.Leave(key("c"))
	d.expect(t, "d")
	p.Leave(key("d")) // it had nothing to do there any more
	d.expect(t, "e")
	p.Leave(key("e"))
	d.expect(t, "f")
	p.Leave(key("f"))
	p.Free(there)
	if len(p.taken) != 0 || len(p.offered) != 0 || len(p.passed) != 0 {
		t.Errorf("still remembers %v, %v and %v", p.taken, p.offered, p.passed)
	}
}

// Who needs a place twice in a look, as one that it wants through one connection and leaves through another, is not sent back between the
// two by another who needs it as often.
func TestALookGoesOnAtAPlaceThatItHasHad(t *testing.T) {
	d := &desk{}
	p := &Places{Wake: d.wake}
	here := Place{Server: "s", Namespace: "default", Name: "x"}
	take := func(name string, want bool) {
		t.Helper()
		if got := p.Take(here, key(name)); got != want {
			t.Errorf("%s takes the place: %t", name, got)
		}
	}
	take("a", true)
	take("b", false)
	take("c", false)
	p.Free(here)
	d.expect(t, "b")
	take("a", true) // again
	take("b", false)
	p.Leave(key("b"))
	p.Free(here)
	d.expect(t, "b") // who comes before c still
	p.Leave(key("a"))
	take("a", false) // in another look
	take("b", true)
	p.Free(here)
	d.expect(t, "c")
	take("c", true)
	take("b", false) // c has come already
	p.Leave(key("b"))
	p.Free(here)
	p.Leave(key("c"))
	d.expect(t, "a")
	p.Leave(key("a"))
	d.expect(t, "b")
	p.Leave(key("b"))
	if len(p.taken) != 0 || len(p.offered) != 0 || len(p.passed) != 0 {
		t.Errorf("still remembers %v, %v and %v", p.taken, p.offered, p.passed)
	}
}

func TestPlacesServeEachOfManyWithFewLooks(t *testing.T) {
	const objects = 100
	looks, served := 0, map[Key]bool{}
	var woken []Key
	p := &Places{Wake: func(key Key) { woken = append(woken, key) }}
	here := Place{Server: "s", Namespace: "default", Name: "x"}
	if !p.Take(here, key("first")) {
		t.Fatal("a free place was refused")
	}
	for i := range objects {
		if p.Take(here, key(fmt.Sprint(i))) {
			t.Fatal("a taken place was given")
		}
		p.Leave(key(fmt.Sprint(i)))
	}
	p.Free(here)
	for len(woken) > 0 {
		together := woken // as many workers look at a time
		woken = nil
		for _, k := range together {
			looks++
			if p.Take(here, k) {
				served[k] = true
			}
		}
		p.Free(here)
		for _, k := range together {
			p.Leave(k)
		}
	}
	if len(served) != objects || looks != objects {
		t.Errorf("%d of %d objects were served with %d looks", len(served), objects, looks)
	}
}

func TestGateForgetsAKeyThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		g := New(1, d.wake)
		g.Open()
		expectAdmit(t, g, "delayed", true)
		g.Done(key("delayed"), Hold, true)
		g.Leave(key("delayed"))
		expectAdmit(t, g, "going", true)
		for _, name := range []string{"parked", "called", "next"} {
			expectAdmit(t, g, name, false)
		}
		g.Forget(key("delayed"))
		g.Forget(key("parked"))
		if n := g.Parked(); n != 2 {
			t.Errorf("%d parked, want those who are there", n)
		}
		g.Done(key("going"), Hold, false)
		g.Leave(key("going"))
		d.expect(t, "called")
		g.Forget(key("called"))
		d.expect(t, "next")
		g.Leave(key("next"))
		expectNothingRemembered(t, g)
		time.Sleep(time.Minute) //nolint:forbidigo // of fake time
		synctest.Wait()
		d.expect(t)
	})
}

func TestPlacesForgetAKeyThatIsGone(t *testing.T) {
	d := &desk{}
	p := &Places{Wake: d.wake}
	here := Place{Server: "s", Namespace: "default", Name: "x"}
	for _, name := range []string{"a", "gone", "offered", "last"} {
		p.Take(here, key(name))
		p.Leave(key(name))
	}
	p.Forget(key("gone"))
	p.Free(here)
	d.expect(t, "offered")
	p.Forget(key("offered"))
	d.expect(t, "last")
}

func TestGateKeepsTheRequestOfOneThatIsHandedBackWhileInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(2, 10)
		expectAdmit(t, g, "a", true)
		g.Close()
		if g.Admit(key("a"), GiveUp) {
			t.Fatal("a closed gate admitted")
		}
		g.Restrict()
		d.expect(t, "a")
		g.Open()
		expectAdmit(t, g, "b", true) // a has one place, not two
		g.Done(key("a"), Hold, false)
		g.Leave(key("a"))
		if g.bucket.tokens != 8 { // of a's first call and b's
			t.Errorf("%v requests are left, want 8", g.bucket.tokens)
		}
	})
}
