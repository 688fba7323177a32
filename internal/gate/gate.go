// Package gate decides who may call one Grafana now.
//
// A worker asks and never waits: it is admitted, or its object is parked and handed back when its turn comes. A Grafana that
// hangs therefore holds as many workers as it may have requests in flight, and no more.
package gate

import (
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Bounds of the delay after which an object whose call failed is handed back. It doubles with each look in a row in which a
// call for the same purpose failed, and each delay is spread by a fifth either way.
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
	// Start is to hold a place for the first time. Changes of what is held come before it.
	Start

	purposes // how many there are
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
	pool *Pool // whose lock guards what follows

	tenant    string // who shares in the pool's workers
	counted   int    // places, as the pool has them
	countedAs pace   // likewise
	short     bool   // it is among those who found too few workers free
	retired   bool   // the pool has none of its places
	quick     bool   // a call has been answered soon
	slowUntil time.Time

	max      int
	bucket   bucket
	probe    *bucket   // takes the place of bucket while one object at a time is let through; nil is not so
	paused   time.Time // until then nobody is admitted
	held     bool      // nobody is admitted
	ended    bool      // nobody will be admitted
	timer    *time.Timer
	timerAt  time.Time
	state    state
	inFlight map[Key]time.Time // since when it waits for an answer; zero: it does not
	called   map[Key]bool      // handed back, or done and not left; their place is kept until they ask again or leave. True: a request is taken for it
	lanes    [purposes]lane
	arrivals uint64
	picks    uint64
}

// startEvery is how often the turn comes to those who start, where others wait too.
const startEvery = 4

// lane is who waits for one purpose.
type lane struct {
	parked  queue
	failing map[Key]*failure // objects of whom a call failed in their last look
}

// failure is what the gate remembers of an object of whom a call failed.
type failure struct {
	fresh  bool        // in the look that has not ended
	inARow int         // looks before that
	timer  *time.Timer // runs while the object is delayed, and not parked
}

// New returns a closed gate that admits at most maxInFlight objects at a time. It hands parked objects back by wake, which
// must not block and must lead to one more call of Leave for that object.
func New(maxInFlight int, wake func(Key)) *Gate { return NewPool(0).New("", maxInFlight, wake) }

// New is as the function New, with places of the pool, in which the tenant has its share.
func (p *Pool) New(tenant string, maxInFlight int, wake func(Key)) *Gate {
	g := &Gate{
		wake:     wake,
		pool:     p,
		tenant:   tenant,
		max:      maxInFlight,
		inFlight: map[Key]time.Time{},
		called:   map[Key]bool{},
	}
	for p := range g.lanes {
		g.lanes[p].failing = map[Key]*failure{}
	}
	return g
}

// Limit bounds the objects in flight, and the requests per second, 0 of which is no limit.
func (g *Gate) Limit(maxInFlight int, perSecond float64) {
	g.pool.mu.Lock()
	defer g.unlock()
	if g.max == maxInFlight && g.bucket.perSecond == perSecond {
		return
	}
	g.max = maxInFlight
	g.bucket.limit(perSecond, time.Now())
	g.handBack()
}

// Pause admits nobody before that time. It never shortens a pause.
func (g *Gate) Pause(until time.Time) {
	g.pool.mu.Lock()
	defer g.unlock()
	if until.After(g.paused) {
		g.paused = until
	}
	g.later(until)
}

// Resume ends a pause.
func (g *Gate) Resume() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.paused = time.Time{}
	g.handBack()
}

// PausedUntil returns until when nobody is admitted; a time that is past is none.
func (g *Gate) PausedUntil() time.Time {
	g.pool.mu.Lock()
	defer g.unlock()
	return g.paused
}

// Hold admits nobody before Release.
func (g *Gate) Hold() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.held = true
}

// Release ends what Hold began.
func (g *Gate) Release() {
	g.pool.mu.Lock()
	defer g.unlock()
	if g.held {
		g.held = false
		g.handBack()
	}
}

// Probe lets one object at a time through from now on, and one request in each period, the first after a time that is not longer. Those
// whose calls failed come first. All others are handed back once, to learn why and to be parked again.
func (g *Gate) Probe(first, period time.Duration) {
	g.pool.mu.Lock()
	defer g.unlock()
	if g.probe != nil {
		return
	}
	for key, taken := range g.called {
		if taken {
			g.bucket.put()
		}
		delete(g.called, key)
	}
	g.probe = &bucket{perSecond: 1 / period.Seconds(), tokens: 1 - first.Seconds()/period.Seconds(), at: time.Now()}
	for p := range g.lanes {
		l := &g.lanes[p]
		var failed []Key
		for key, ok := l.parked.pop(0); ok; key, ok = l.parked.pop(0) {
			if l.failing[key] != nil {
				failed = append(failed, key)
			} else {
				g.wake(key)
			}
		}
		for _, key := range failed {
			g.park(l, key)
		}
		g.endDelays(l)
	}
	g.handBack()
}

// EndProbe ends what Probe began. Delays of objects whose calls failed end: what failed before may work now.
func (g *Gate) EndProbe() {
	g.pool.mu.Lock()
	defer g.unlock()
	if g.probe == nil {
		return
	}
	g.probe = nil
	for p := range g.lanes {
		g.endDelays(&g.lanes[p])
	}
	g.handBack()
}

// stopped reports whether nobody is admitted now, whatever for.
func (g *Gate) stopped() bool { return g.held || time.Now().Before(g.paused) }

// requests is where requests are taken from.
func (g *Gate) requests() *bucket {
	if g.probe != nil {
		return g.probe
	}
	return &g.bucket
}

// Spend counts one more request of somebody who is admitted. It reports false, and counts none, while the gate is paused or held: the
// request must not be made.
func (g *Gate) Spend() bool {
	g.pool.mu.Lock()
	defer g.unlock()
	if g.stopped() {
		return false
	}
	g.requests().owe(time.Now())
	return true
}

// Save gives back the request of somebody who was admitted and made none.
func (g *Gate) Save() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.requests().put()
}

// afford takes a request, or comes back to hand on the turn when there is one.
func (g *Gate) afford() bool {
	now := time.Now()
	if now.Before(g.paused) {
		g.later(g.paused)
		return false
	}
	wait, ok := g.requests().take(now)
	if !ok {
		g.later(now.Add(wait))
	}
	return ok
}

// later hands on the turn at that time, if not before.
func (g *Gate) later(at time.Time) {
	now := time.Now()
	if g.timer != nil && g.timerAt.After(now) && !at.Before(g.timerAt) {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	g.timerAt = at
	g.timer = time.AfterFunc(at.Sub(now), func() {
		g.pool.mu.Lock()
		defer g.unlock()
		g.handBack()
	})
}

// Admit reports whether key may call Grafana now for that purpose. If so, one request is taken for it, and Done must follow. If not,
// key is parked and will be handed back. Nobody passes those who wait for their turn, except that changes pass those who start, and that a
// look which has a place at another gate goes on. That place moves with it: the other gate keeps none for a look that works here.
func (g *Gate) Admit(key Key, purpose Purpose) bool {
	g.pool.mu.Lock()
	defer g.unlock()

	taken, turn := g.called[key]
	delete(g.called, key)
	l := &g.lanes[purpose]
	ready := !l.delayed(key) && g.admits(purpose) && !g.stopped()
	switch {
	case !ready && taken:
		g.requests().put()
	case taken:
	case ready && turn: // it goes on with its look, which is not put behind all who wait
		g.requests().owe(time.Now())
	case ready:
		ready = (!g.precedes(purpose) || g.pool.serves(key)) && g.free() && g.pool.leaves(g, key, false) && g.afford()
	}
	if !ready {
		if !l.delayed(key) {
			g.park(l, key)
			if time.Now().Before(g.paused) {
				g.later(g.paused)
			}
		}
		return false
	}
	for p := range g.lanes {
		if Purpose(p) != GiveUp || purpose == GiveUp {
			g.lanes[p].parked.remove(key)
		}
	}
	g.inFlight[key] = time.Time{}
	g.pool.move(key, g, false)
	return true
}

// HasTurn reports whether key was handed back for its turn here and has not asked yet: a request is taken for it.
func (g *Gate) HasTurn(key Key) bool {
	g.pool.mu.Lock()
	defer g.pool.mu.Unlock()
	return g.called[key]
}

// Done ends what a key was admitted for. Its place is kept for it until Leave, or until another gate admits it, so that a look which asks
// once more is not put behind all who wait. With failed set the key's call failed in a way that time may heal: after Leave the key is not
// admitted for that purpose, and handed back, before a delay is over.
func (g *Gate) Done(key Key, purpose Purpose, failed bool) {
	g.pool.mu.Lock()
	defer g.unlock()

	delete(g.inFlight, key)
	if !g.called[key] { // else it was handed back meanwhile, and a request is taken for it
		g.called[key] = false
	}
	if !failed {
		return
	}
	l := &g.lanes[purpose]
	if l.failing[key] == nil {
		l.failing[key] = &failure{}
	}
	l.failing[key].fresh = true
}

// endTurn gives back what is kept for key since it was handed back for its turn.
func (g *Gate) endTurn(key Key) {
	if g.called[key] {
		g.requests().put()
	}
	delete(g.called, key)
}

// Leave ends a look at key. The place that was kept for it goes to the next one. A key that is parked stays so. It reports whether the
// gate still knows of key: until then Leave must follow each further look, whether that asks or not.
func (g *Gate) Leave(key Key) (known bool) {
	g.pool.mu.Lock()
	defer g.unlock()

	g.endTurn(key)
	for p := range g.lanes {
		l := &g.lanes[p]
		switch f := l.failing[key]; {
		case f == nil:
		case f.fresh:
			g.delay(l, key, f)
		case f.timer == nil && !l.parked.has(key): // it succeeded, or did not ask any more
			delete(l.failing, key)
		}
	}
	g.handBack()
	return g.knows(key)
}

// knows reports whether key waits here, has a place, or has failed in its last look.
func (g *Gate) knows(key Key) bool {
	known := g.serves(key)
	for p := range g.lanes {
		known = known || g.lanes[p].parked.has(key) || g.lanes[p].failing[key] != nil
	}
	return known
}

// Forget ends whatever key waits for: it is gone. It must not be in flight.
func (g *Gate) Forget(key Key) {
	g.pool.mu.Lock()
	defer g.unlock()

	g.endTurn(key)
	for p := range g.lanes {
		l := &g.lanes[p]
		l.parked.remove(key)
		if f := l.failing[key]; f != nil && f.timer != nil {
			f.timer.Stop()
		}
		delete(l.failing, key)
	}
	g.handBack()
}

// Parked returns how many keys wait: for their turn, for the gate to open, or for a delay to be over. One that waits for two purposes
// counts twice.
func (g *Gate) Parked() int {
	g.pool.mu.Lock()
	defer g.unlock()
	n := 0
	for p := range g.lanes {
		n += len(g.lanes[p].parked.at)
		for key := range g.lanes[p].failing {
			if g.lanes[p].delayed(key) {
				n++
			}
		}
	}
	return n
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

// Recall hands back once whoever is parked and not admitted, to learn why that is so now.
func (g *Gate) Recall() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.recall()
}

// End closes the gate for good, where nobody is left to open it. Whoever is parked, or comes to be, is handed back at once. Who is
// admitted keeps that.
func (g *Gate) End() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.end()
}

func (g *Gate) end() {
	g.ended, g.state = true, closed
	g.recall()
}

func (g *Gate) change(to state) {
	g.pool.mu.Lock()
	defer g.unlock()

	if g.ended || to == g.state {
		return
	}
	rises := to > g.state
	g.state = to
	if rises {
		for p := range g.lanes {
			g.endDelays(&g.lanes[p])
		}
	}
	g.recall()
	g.handBack()
}

func (g *Gate) recall() {
	for p := range g.lanes {
		if g.admits(Purpose(p)) {
			continue
		}
		l := &g.lanes[p]
		g.endDelays(l)
		for key, ok := l.parked.pop(0); ok; key, ok = l.parked.pop(0) {
			g.wake(key)
		}
	}
}

func (g *Gate) admits(purpose Purpose) bool {
	return g.state == open || g.state == restricted && purpose == GiveUp
}

// precedes reports whether somebody waits whose turn is before that of one who comes now with that purpose.
func (g *Gate) precedes(purpose Purpose) bool {
	for p := range g.lanes {
		if _, _, waits := g.lanes[p].parked.front(); waits && g.admits(Purpose(p)) && (Purpose(p) != Start || purpose == Start) {
			return true
		}
	}
	return false
}

// free reports whether one more object may be admitted.
func (g *Gate) free() bool {
	most := g.max
	if g.probe != nil {
		most = 1
	}
	return g.places() < most
}

// places is how many keys are in flight or called. One may be both: handed back for another purpose than it is in flight for.
func (g *Gate) places() int {
	n := len(g.inFlight)
	for key := range g.called {
		if _, both := g.inFlight[key]; !both {
			n++
		}
	}
	return n
}

func (g *Gate) park(l *lane, key Key) {
	if g.ended {
		g.wake(key)
		return
	}
	g.arrivals++
	l.parked.push(key, g.arrivals)
}

// handBack wakes parked keys whom the gate admits while there are places and requests. A look asks for all that its object needs, so that
// it waits for nothing else meanwhile.
func (g *Gate) handBack() {
	for !g.held && g.free() {
		l, ok := g.next()
		if !ok {
			return
		}
		first, _, _ := l.parked.front()
		waits := g.pool.waits(first.key, g)
		if !waits && (!g.pool.leaves(g, first.key, true) || !g.afford()) {
			return
		}
		g.picks++
		g.arrivals++
		key, _ := l.parked.pop(g.arrivals)
		for _, p := range urgent {
			if l != &g.lanes[Start] { // a turn for the one purpose is a turn for the other
				g.lanes[p].parked.pass(key.Namespace, g.arrivals)
			}
		}
		for p := range g.lanes {
			g.lanes[p].parked.remove(key)
		}
		if !waits { // else its look has no use for a place now, and another one follows that asks
			g.called[key] = true
		}
		g.wake(key)
	}
}

// urgent are the purposes whose turns are shared: a namespace that has had its turn for one of them comes after the others for both.
var urgent = []Purpose{Hold, GiveUp}

// next returns the lane whose turn it is: of those who wait and are admitted, that of the namespace whose turn it is, and within one
// that of the key which came first; those who start, only now and then while others wait.
func (g *Gate) next() (*lane, bool) {
	var found *lane
	var first arrival
	var turn uint64
	for _, p := range urgent {
		a, t, ok := g.lanes[p].parked.front()
		if ok && g.admits(p) && (found == nil || t < turn || t == turn && a.number < first.number) {
			found, first, turn = &g.lanes[p], a, t
		}
	}
	start := &g.lanes[Start]
	if _, _, ok := start.parked.front(); ok && g.admits(Start) && (found == nil || g.picks%startEvery == startEvery-1) {
		return start, true
	}
	return found, found != nil
}

// delay parks key after a time that grows with its failures in a row.
func (g *Gate) delay(l *lane, key Key, f *failure) {
	if g.ended { // what is asked instead knows nothing of the failure
		delete(l.failing, key)
		g.park(l, key)
		return
	}
	l.parked.remove(key)
	f.fresh = false
	f.timer = time.AfterFunc(Backoff(f.inARow, firstRetry, lastRetry), func() {
		g.pool.mu.Lock()
		defer g.unlock()
		if l.failing[key] == f && f.timer != nil {
			f.timer = nil
			g.park(l, key)
			g.handBack()
		}
	})
	f.inARow++
}

func (l *lane) delayed(key Key) bool {
	f := l.failing[key]
	return f != nil && f.timer != nil
}

// endDelays parks whoever is delayed, and forgets all failures but those of looks that have not ended.
func (g *Gate) endDelays(l *lane) {
	for key, f := range l.failing {
		if f.timer != nil {
			f.timer.Stop()
			g.park(l, key)
		}
		f.timer, f.inARow = nil, 0
		if !f.fresh {
			delete(l.failing, key)
		}
	}
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

// Later returns d lengthened evenly by at most the given share.
func Later(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*rand.Float64()))
}
