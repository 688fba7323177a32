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

// Gate admits objects to one Grafana, or parks them. It is made closed. The zero value is not usable; see New.
type Gate struct {
	wake func(Key)
	max  int

	mu       sync.Mutex
	open     bool
	inFlight map[Key]struct{}
	called   map[Key]struct{} // handed back; their place is kept until they ask again or leave
	parked   queue
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
		failing:  map[Key]*failure{},
	}
}

// Admit reports whether key may call Grafana now. If so, Done must follow. If not, key is parked and will be handed back.
func (g *Gate) Admit(key Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	_, turn := g.called[key]
	delete(g.called, key)
	if !g.open || g.delayed(key) || (!turn && !g.free()) {
		g.parked.push(key)
		return false
	}
	g.parked.remove(key)
	g.inFlight[key] = struct{}{}
	return true
}

// Done gives the place of an admitted key back. With failed set the key's call failed in a way that time may heal: the key
// is parked, and handed back after a delay.
func (g *Gate) Done(key Key, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.inFlight, key)
	if failed {
		g.delay(key)
	} else {
		g.forget(key)
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

// Open admits from now on, and hands back whom the closed gate parked, as many at a time as may be in flight. Delays of
// objects whose calls failed end: what failed before may work now.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()

	if !g.open {
		g.open = true
		for key := range g.failing {
			g.forget(key)
		}
	}
	g.handBack()
}

// Close parks whoever asks from now on. Everyone who is parked is handed back once, to learn why and to be parked again.
// Who is admitted already keeps that.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()

	g.open = false
	for key, ok := g.parked.pop(nil); ok; key, ok = g.parked.pop(nil) {
		g.wake(key)
	}
}

// free reports whether one more object may be admitted.
func (g *Gate) free() bool { return len(g.inFlight)+len(g.called) < g.max }

func (g *Gate) delayed(key Key) bool {
	f := g.failing[key]
	return f != nil && f.timer != nil
}

// handBack wakes parked keys while places are free, in the order in which they came.
func (g *Gate) handBack() {
	for g.open && g.free() {
		key, ok := g.parked.pop(g.delayed)
		if !ok {
			return
		}
		g.called[key] = struct{}{}
		g.wake(key)
	}
}

// delay parks key for a time that grows with its failures in a row.
func (g *Gate) delay(key Key) {
	f := g.failing[key]
	if f == nil {
		f = &failure{}
		g.failing[key] = f
	}
	g.parked.push(key)
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
