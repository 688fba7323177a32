package gate

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateSpreadsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(100, 10)
		admitted := 0
		for i := range 100 {
			if g.Admit(key(string(rune('a'+i%26))+string(rune('a'+i/26))), Hold) {
				admitted++
			}
		}
		if admitted != 10 {
			t.Errorf("%d admitted at once, want those of one second", admitted)
		}
		begun := time.Now()
		for done := 0; done < 90; {
			time.Sleep(time.Millisecond) //nolint:forbidigo // of fake time
			synctest.Wait()
			for _, k := range d.take() {
				if !g.Admit(k, Hold) {
					t.Fatalf("%s was handed back and is not admitted", k)
				}
				g.Done(k, Hold, false)
				g.Leave(k)
				done++
			}
		}
		if took := time.Since(begun); took < 8*time.Second || took > 10*time.Second {
			t.Errorf("90 more took %s at 10 a second", took)
		}
	})
}

func TestGateCountsEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(100, 2)
		expectAdmit(t, g, "a", true)
		for range 3 {
			if !g.Spend() {
				t.Fatal("who is admitted may go on")
			}
		}
		expectAdmit(t, g, "b", false)
		time.Sleep(1400 * time.Millisecond) //nolint:forbidigo // of fake time; the debt of two is paid, and one request is there after 1.5 s
		synctest.Wait()
		d.expect(t)
		time.Sleep(200 * time.Millisecond) //nolint:forbidigo // of fake time
		synctest.Wait()
		d.expect(t, "b")
	})
}

func TestGateTakesBackWhatIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(1, 1)
		expectAdmit(t, g, "a", true)
		expectAdmit(t, g, "b", false)
		g.Save() // a had nothing to ask
		g.Done(key("a"), Hold, false)
		g.Leave(key("a"))
		d.expect(t, "b")
		expectAdmit(t, g, "c", false)
		g.Leave(key("b")) // nor had b
		d.expect(t, "c")
	})
}

func TestGatePausesForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		g := New(8, d.wake)
		g.Open()
		expectAdmit(t, g, "a", true)
		g.Pause(time.Now().Add(30 * time.Second))
		g.Pause(time.Now().Add(time.Second)) // does not shorten it
		if g.Spend() {
			t.Error("who is admitted makes a further request before the date")
		}
		g.Done(key("a"), Hold, true)
		g.Leave(key("a"))
		expectAdmit(t, g, "b", false)
		time.Sleep(29 * time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		d.expect(t)
		time.Sleep(time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		if !slices.Contains(d.woken, key("b")) || !slices.Contains(d.woken, key("a")) {
			t.Errorf("after the pause %v are handed back", d.woken)
		}
	})
}

// However many of one namespace wait, and for whatever, another one comes after one of them at most.
func TestGateLetsNamespacesTakeTurns(t *testing.T) {
	for name, crowd := range map[string][]Purpose{
		"changes": {Hold}, "deletions": {GiveUp}, "both": {Hold, GiveUp}, "all": {Hold, GiveUp, Start},
	} {
		for _, wants := range urgent {
			t.Run(fmt.Sprint(name, wants), func(t *testing.T) {
				d := &desk{}
				g := New(1, d.wake)
				g.Open()
				last, served := Key{Namespace: "noisy", Name: "first"}, 0
				g.Admit(last, Hold)
				purpose := map[Key]Purpose{}
				ask := func(k Key, p Purpose) {
					purpose[k] = p
					if g.Admit(k, p) {
						t.Fatalf("%s is admitted before those who wait", k)
					}
				}
				serve := func() {
					g.Done(last, purpose[last], false)
					g.Leave(last)
					last = d.woken[len(d.woken)-1]
					if !g.Admit(last, purpose[last]) {
						t.Fatalf("%s was handed back and is not admitted", last)
					}
					served++
				}
				for i := range 1000 {
					ask(Key{Namespace: "noisy", Name: fmt.Sprint(i)}, crowd[i%len(crowd)])
				}
				for range 100 {
					serve()
				}
				quiet := Key{Namespace: "quiet", Name: "x"}
				ask(quiet, wants)
				for served = 0; last != quiet; {
					serve()
				}
				if most := 2 + len(crowd)/3; served > most { // itself, one other, and one that starts
					t.Errorf("it was the %dth to be served", served)
				}
			})
		}
	}
}

func TestGateLetsNobodyPassThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(8, 1)
		expectAdmit(t, g, "first", true)
		expectAdmit(t, g, "waits", false)
		time.Sleep(time.Second + time.Microsecond) //nolint:forbidigo // of fake time; there is one request more, and nobody was handed back yet
		for p := range purposes {
			if g.Admit(Key{Namespace: "other", Name: fmt.Sprint(p)}, p) {
				t.Errorf("one who comes with purpose %d passes one who waits", p)
			}
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // of fake time
		synctest.Wait()
		d.expect(t, "waits")
	})
}

func TestGateLetsChangesPassThoseWhoStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := limited(8, 1)
		expectAdmit(t, g, "first", true)
		if g.Admit(key("starts"), Start) {
			t.Fatal("more is admitted than there are requests")
		}
		time.Sleep(time.Second + time.Microsecond) //nolint:forbidigo // of fake time
		expectAdmit(t, g, "changes", true)
		time.Sleep(2 * time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		d.expect(t, "starts")
	})
}

func TestGateServesChangesBeforeStarts(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Open()
	expectAdmit(t, g, "first", true)
	for _, name := range []string{"s1", "s2", "s3"} {
		g.Admit(key(name), Start)
	}
	for _, name := range []string{"c1", "c2", "c3", "c4"} {
		g.Admit(key(name), Hold)
	}
	next := key("first")
	purpose := Hold
	for range 7 {
		g.Done(next, purpose, false)
		g.Leave(next)
		next = d.woken[len(d.woken)-1]
		if purpose = Hold; next.Name[0] == 's' {
			purpose = Start
		}
		if !g.Admit(next, purpose) {
			t.Fatalf("%s was handed back and is not admitted", next)
		}
	}
	// Starts come last, and yet not never.
	d.expect(t, "c1", "c2", "c3", "s1", "c4", "s2", "s3")
}

func TestGateKeepsStartsOutWhileRestricted(t *testing.T) {
	d := &desk{}
	g := New(1, d.wake)
	g.Restrict()
	if g.Admit(key("a"), Start) || g.Admit(key("a"), Hold) || !g.Admit(key("a"), GiveUp) {
		t.Error("a restricted gate admits others than those who give up")
	}
}
