package gate

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// desk collects whom a gate hands back, in order.
type desk struct{ woken []Key }

func (d *desk) wake(key Key) { d.woken = append(d.woken, key) }

func (d *desk) expect(t *testing.T, names ...string) {
	t.Helper()
	var got []string
	for _, key := range d.woken {
		got = append(got, key.Name)
	}
	if !slices.Equal(got, names) {
		t.Errorf("handed back %q, want %q", got, names)
	}
	d.woken = nil
}

func key(name string) Key { return Key{Namespace: "ns", Name: name} }

func expectAdmit(t *testing.T, g *Gate, name string, want bool) {
	t.Helper()
	if got := g.Admit(key(name), Hold); got != want {
		t.Errorf("Admit(%s) = %t, want %t", name, got, want)
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
			expectAdmit(t, g, "a", false)
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
		if len(g.failing) != 0 {
			t.Errorf("still remembers %d failures", len(g.failing))
		}
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
	if len(g.purposes) != 0 {
		t.Errorf("still remembers %v", g.purposes)
	}
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
		if got := <-woken; got != key("a") || time.Since(start) < firstRetry*79/100 {
			t.Errorf("handed back %s after %s", got, time.Since(start))
		}
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
	if p.Take(here, key("c")) || p.Take(here, key("d")) {
		t.Fatal("a taken place was given")
	}
	d.expect(t)
	p.Leave(here)
	d.expect(t, "c", "d")
	if !p.Take(here, key("c")) {
		t.Error("a place that was left is refused")
	}
}
