// Package limiter decides which object may call one Grafana now: by rate, requests in flight, what Grafana asked for, a circuit breaker,
// and the workers of the process.
//
// A reconcile never blocks on it. It has a turn, or its object waits in a queue and is woken when its turn comes.
package limiter

import (
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// Key names the object that asks. Its namespace is the unit of fairness.
type Key = types.NamespacedName

// Operation is what an object wants to call Grafana for.
type Operation int

const (
	// Check is the connection's own LIST.
	Check Operation = iota
	// Release is to delete a secure value that the object no longer wants.
	Release
	// Change is to write a secure value that the object wrote before.
	Change
	// Create is the first write of an object. Three changes come before each of them where both wait.
	Create
)

// Mode says which operations a limiter admits, apart from Check.
type Mode int

const (
	// Nothing is admitted.
	Nothing Mode = iota
	// ReleasesOnly admits Release.
	ReleasesOnly
	// Everything is admitted.
	Everything
)

// createEvery is how often a turn goes to those that write for the first time, where others wait too.
const createEvery = 4

// Limiter admits objects to one Grafana. It is made with mode Nothing. The zero value is not usable; see Pool.New.
type Limiter struct {
	pool   *Pool // whose lock guards all below
	tenant string
	wake   func(Key)

	mode        Mode
	closed      bool
	requests    *rate.Limiter
	maxInFlight int
	paused      time.Time // until then no request is made
	breaker     breaker

	turns   int // granted and not ended
	unspent int // those that made no request yet

	waiting    map[Key]Operation // those in the queues
	changes    queue             // all but Create
	checkWaits bool              // the check of the connection is among them
	creates    queue
	picks      int
	timer      *time.Timer
}

// New returns a limiter whose turns count against the tenant's share of the pool. It wakes an object by wake, which must not block and
// must cause one more reconcile of that object.
func (p *Pool) New(tenant string, wake func(Key)) *Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &Limiter{pool: p, tenant: tenant, wake: wake, requests: rate.NewLimiter(rate.Inf, 1), maxInFlight: 1, waiting: map[Key]Operation{}}
	p.limiters[l] = struct{}{}
	return l
}

// Limit bounds the turns at a time and the requests per second; 0 requests is no limit. Those of one second may come at once.
func (l *Limiter) Limit(maxInFlight, perSecond int) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	if l.requests.Limit() != limit {
		l.requests = rate.NewLimiter(limit, max(1, perSecond))
	}
	l.maxInFlight = maxInFlight
	l.dispatch(Key{})
}

// Admit reports whether the object has a turn. If not, it waits behind those that wait already, and is woken.
func (l *Limiter) Admit(key Key, operation Operation) bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if t := l.pool.turn(key, l); t != nil && l.serves(t, operation) {
		t.current, t.operation = true, operation
		if !t.refused {
			l.unqueue(key)
		}
		return true
	} else if t != nil {
		t.refused = true
	}
	l.queue(key, operation)
	l.dispatch(key)
	t := l.pool.turn(key, l)
	return t != nil && l.serves(t, operation)
}

// Request takes one request for an object that has a turn. It reports false where none may be made now: the object waits again.
func (l *Limiter) Request(key Key, operation Operation) bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	t := l.pool.turn(key, l)
	if t == nil || !l.serves(t, operation) {
		if t != nil {
			t.refused = true
		}
		l.queue(key, operation)
		l.dispatch(Key{})
		return false
	}
	l.bucket().Reserve() // into debt where it is not the first one of the turn
	if t.requests == 0 {
		l.unspent--
	}
	t.requests++
	return true
}

// serves reports whether a turn may be used now.
func (l *Limiter) serves(t *turn, operation Operation) bool {
	return l.admits(operation) && !time.Now().Before(l.paused) && (!l.breaker.open() || t.probe)
}

func (l *Limiter) admits(operation Operation) bool {
	return !l.closed && (operation == Check || l.mode == Everything || l.mode == ReleasesOnly && operation == Release)
}

// bucket is where requests are taken from.
func (l *Limiter) bucket() *rate.Limiter {
	if l.breaker.open() {
		return l.breaker.probes
	}
	return l.requests
}

// Failed says that a call of the object failed as calls do while Grafana is down. It reports whether that opened the breaker. While
// the breaker is open the object waits again.
func (l *Limiter) Failed(key Key) (opened bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	t := l.pool.turn(key, l)
	if t == nil {
		return false
	}
	if !t.failed {
		t.failed = true
		opened = l.trip(func(b *breaker) { b.failures++ })
	}
	if l.breaker.open() {
		l.queue(key, t.operation)
	}
	return opened
}

// Checked says how the check of the connection, which has the key, ended. After one that failed, it waits for its next turn. One that
// succeeded does not close a breaker that objects opened while any of them waits: a Grafana may answer a LIST and fail each write.
func (l *Limiter) Checked(key Key, failed bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if failed {
		l.queue(key, Check)
	}
	l.trip(func(b *breaker) {
		b.checkFailed = failed
		if !failed && len(l.waiting) == 0 {
			b.failures = 0
		}
	})
	l.dispatch(Key{})
}

// settle learns from a turn that ended: an object that was served proves that Grafana works.
func (l *Limiter) settle(t *turn) {
	if t.operation != Check && t.requests > 0 && !t.failed {
		l.breaker.failures, l.breaker.checkFailed = 0, false
	}
}

// trip changes the breaker. Where that opens it, all that wait are woken, to report it and to wait again.
func (l *Limiter) trip(change func(*breaker)) (opened bool) {
	before := l.breaker.open()
	change(&l.breaker)
	if opened = !before && l.breaker.open(); opened {
		l.breaker.reset()
		l.notify()
	}
	return opened
}

// Open reports whether the breaker is open.
func (l *Limiter) Open() bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return l.breaker.open()
}

// Pause makes no request before that time. It never shortens a pause; the zero time ends one.
func (l *Limiter) Pause(until time.Time) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if until.IsZero() || until.After(l.paused) {
		l.paused = until
	}
	l.dispatch(Key{})
}

// Admits sets the mode, and wakes all that wait where they have something to report.
func (l *Limiter) Admits(mode Mode, report bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.mode = mode; report {
		l.notify()
	}
	l.dispatch(Key{})
}

// notify wakes all objects that wait, to report what changed and to wait again.
func (l *Limiter) notify() {
	woken := l.waiting
	l.waiting, l.changes, l.creates = map[Key]Operation{}, queue{}, queue{}
	for key, operation := range woken {
		if operation == Check {
			l.queue(key, Check)
		} else {
			l.wake(key)
		}
	}
}

// Close ends the limiter, whose connection is gone: all that wait, or come to wait, are woken.
func (l *Limiter) Close() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.closed = true
	delete(l.pool.limiters, l)
	l.notify()
	if l.timer != nil {
		l.timer.Stop()
	}
}

// Queued returns how many objects wait. The connection's own check does not count.
func (l *Limiter) Queued() int {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	n := 0
	for _, operation := range l.waiting {
		if operation != Check {
			n++
		}
	}
	return n
}

// queue makes the object wait, or changes what it waits for.
func (l *Limiter) queue(key Key, operation Operation) {
	if l.closed {
		l.wake(key)
		return
	}
	if before, waits := l.waiting[key]; !waits || (before == Create) != (operation == Create) {
		l.unqueue(key)
		l.queueOf(operation).push(key)
	}
	l.waiting[key] = operation
	l.checkWaits = l.checkWaits || operation == Check
}

func (l *Limiter) unqueue(key Key) {
	if operation, waits := l.waiting[key]; waits {
		l.queueOf(operation).remove(key)
		delete(l.waiting, key)
		l.checkWaits = l.checkWaits && operation != Check
	}
}

func (l *Limiter) queueOf(operation Operation) *queue {
	if operation == Create {
		return &l.creates
	}
	return &l.changes
}

// dispatch grants turns to those that wait, as far as there is room. It wakes all but the object whose reconcile asks.
func (l *Limiter) dispatch(asks Key) {
	for l.hasRoom() {
		key, operation, ok := l.next()
		if !ok {
			return
		}
		l.grant(key, operation, key == asks)
		if key != asks {
			l.wake(key)
		}
	}
}

// hasRoom reports whether one more turn may be granted. Where time alone will make room, a timer dispatches then.
func (l *Limiter) hasRoom() bool {
	most := l.maxInFlight
	if l.breaker.open() {
		most = 1
	}
	if len(l.waiting) == 0 || l.mode == Nothing && !l.checkWaits || l.turns >= most {
		return false
	}
	if wait := max(time.Until(l.paused), untilToken(l.bucket(), float64(1+l.unspent))); wait > 0 {
		l.dispatchAfter(wait)
		return false
	}
	return l.pool.hasWorker(l)
}

func (l *Limiter) dispatchAfter(wait time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, func() {
			l.pool.mu.Lock()
			defer l.pool.mu.Unlock()
			l.dispatch(Key{})
		})
	}
	l.timer.Reset(wait)
}

// next removes the one whose turn it is. While the breaker is open, changes and creates take turns, so that one object whose calls always
// fail does not keep the others from proving that Grafana works.
func (l *Limiter) next() (Key, Operation, bool) {
	l.picks++
	order := []*queue{&l.changes, &l.creates}
	if l.breaker.open() && l.picks%2 == 0 || l.picks%createEvery == 0 {
		order[0], order[1] = order[1], order[0]
	}
	for _, q := range order {
		if key, ok := q.pop(l.mayGo); ok {
			operation := l.waiting[key]
			delete(l.waiting, key)
			l.checkWaits = l.checkWaits && operation != Check
			return key, operation, true
		}
	}
	return Key{}, 0, false
}

func (l *Limiter) mayGo(key Key) bool { return l.admits(l.waiting[key]) }

// grant gives a turn. An object that has one already keeps it for its next reconcile.
func (l *Limiter) grant(key Key, operation Operation, current bool) {
	t := l.pool.turn(key, l)
	if t == nil {
		t = &turn{limiter: l}
		l.pool.take(key, t)
	} else if t.requests > 0 {
		l.unspent++
	}
	t.operation, t.current, t.probe, t.requests, t.failed = operation, current, l.breaker.open(), 0, false
}
