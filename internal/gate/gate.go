// Package gate decides who may call one Grafana now.
//
// A worker asks and never waits: it is admitted, or its object is parked and handed back when its turn comes. A Grafana that
// hangs therefore holds as many workers as it may have requests in flight, and no more.
package gate

import (
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Bounds of the delay after which an object whose call failed is handed back. It doubles with each failure in a row of
// the same object, and each delay is spread by a fifth either way.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Key names the object that asks.
type Key = types.NamespacedName

// Purpose is what an object wants to call Grafana for.
type Purpose int

const (
	// Hold is to make a place hold the object's value.
	Hold Purpose = iota
	// GiveUp is to make a place that the object has left hold nothing of it.
	GiveUp
)

// state says whom a gate admits.
type state int

const (
	closed     state = iota // nobody
	restricted              // those who give up
	open                    // everybody
)

// Gate admits objects to one Grafana, or parks them. It is made closed. The zero value is not usable; see New.
type Gate struct {
	wake func(Key)
	max  int

	mu       sync.Mutex
	state    state
	inFlight map[Key]struct{}
	called   map[Key]struct{} // handed back, or done and not left; their place is kept until they ask again or leave
	parked   queue
	purposes map[Key]Purpose  // of those who are parked
	failing  map[Key]*failure // objects whose last call failed
}

// failure is what the gate remembers of an object whose last call failed.
type failure struct {
	inARow int
	timer  *time.Timer // nil once the delay is over
}

// New returns a closed gate that admits at most maxInFlight objects at a time. It hands parked objects back by wake, which
// must not block and must lead to one more call of Admit or Leave for that object.
func New(maxInFlight int, wake func(Key)) *Gate {
	return &Gate{
		wake:     wake,
		max:      maxInFlight,
		inFlight: map[Key]struct{}{},
		called:   map[Key]struct{}{},
		purposes: map[Key]Purpose{},
		failing:  map[Key]*failure{},
	}
}

// Admit reports whether key may call Grafana now for that purpose. If so, Done must follow. If not, key is parked and will be
// handed back.
func (g *Gate) Admit(key Key, purpose Purpose) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	_, turn := g.called[key]
	delete(g.called, key)
	if !g.admits(purpose) || g.delayed(key) || (!turn && !g.free()) {
		g.park(key, purpose)
		return false
	}
	g.unpark(key)
	g.inFlight[key] = struct{}{}
	return true
}

// Done ends what a key was admitted for. Its place is kept for it until Leave, so that a look which asks once more is not put behind all
// who wait. With failed set the key's call failed in a way that time may heal: the key is parked, and handed back after a delay.
func (g *Gate) Done(key Key, purpose Purpose, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.inFlight, key)
	if failed {
		g.delay(key, purpose)
	} else {
		g.forget(key)
		g.called[key] = struct{}{}
	}
	g.handBack()
}

// Leave says that key asks for nothing any more: the place that was kept for it goes to the next one. A key that is parked
// stays so.
func (g *Gate) Leave(key Key) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.called, key)
	g.handBack()
}

// Open admits everybody from now on, and hands back whom the gate parked, as many at a time as may be in flight. Delays of
// objects whose calls failed end: what failed before may work now.
func (g *Gate) Open() { g.change(open) }

// Restrict admits from now on only those who give up. Those of them who are parked are handed back as by Open, all others
// as by Close.
func (g *Gate) Restrict() { g.change(restricted) }

// Close parks whoever asks from now on. Everyone who is parked is handed back once, to learn why and to be parked again.
// Who is admitted already keeps that.
func (g *Gate) Close() { g.change(closed) }

func (g *Gate) change(to state) {
	g.mu.Lock()
	defer g.mu.Unlock()

	if to > g.state {
		for key := range g.failing {
			g.forget(key)
		}
	}
	g.state = to
	if to != open {
		admitted := func(key Key) bool { return g.admits(g.purposes[key]) }
		for key, ok := g.parked.pop(admitted); ok; key, ok = g.parked.pop(admitted) {
			delete(g.purposes, key)
			g.wake(key)
		}
	}
	g.handBack()
}

func (g *Gate) admits(purpose Purpose) bool {
	return g.state == open || g.state == restricted && purpose == GiveUp
}

func (g *Gate) park(key Key, purpose Purpose) {
	g.parked.push(key)
	g.purposes[key] = purpose
}

func (g *Gate) unpark(key Key) {
	g.parked.remove(key)
	delete(g.purposes, key)
}

// free reports whether one more object may be admitted.
func (g *Gate) free() bool { return len(g.inFlight)+len(g.called) < g.max }

func (g *Gate) delayed(key Key) bool {
	f := g.failing[key]
	return f != nil && f.timer != nil
}

// handBack wakes parked keys whom the gate admits while places are free, in the order in which they came.
func (g *Gate) handBack() {
	waits := func(key Key) bool { return g.delayed(key) || !g.admits(g.purposes[key]) }
	for g.state != closed && g.free() {
		key, ok := g.parked.pop(waits)
		if !ok {
			return
		}
		delete(g.purposes, key)
		g.called[key] = struct{}{}
		g.wake(key)
	}
}

// delay parks key for a time that grows with its failures in a row.
func (g *Gate) delay(key Key, purpose Purpose) {
	f := g.failing[key]
	if f == nil {
		f = &failure{}
		g.failing[key] = f
	}
	g.park(key, purpose)
	f.timer = time.AfterFunc(Backoff(f.inARow, firstRetry, lastRetry), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.failing[key] == f {
			f.timer = nil
			g.handBack()
		}
	})
	f.inARow++
}

func (g *Gate) forget(key Key) {
	if f := g.failing[key]; f != nil && f.timer != nil {
		f.timer.Stop()
	}
	delete(g.failing, key)
}

// Backoff returns first doubled n times, at most last, spread by a fifth either way.
func Backoff(n int, first, last time.Duration) time.Duration {
	d := first
	for range n {
		if d *= 2; d >= last {
			d = last
			break
		}
	}
	return Jitter(d, 0.2)
}

// Jitter returns d spread evenly by the given share either way.
func Jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}
