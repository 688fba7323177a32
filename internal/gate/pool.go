package gate

import (
	"sync"
	"time"
)

const (
	// patience is how long a call may take that counts as quick.
	patience = time.Second
	// grudge is for how many times as long as a call took, if that was not quick, what is behind the gate counts as slow.
	grudge = 10
)

// pace is how quickly what is behind a gate answers, as far as is known.
type pace int

const (
	slow    pace = iota // a call takes long now, or did so of late
	unknown             // no call was made
	swift

	paces // how many there are
)

// Pool is the workers that several gates admit objects to. No tenant takes more of them than it leaves free, so that one behind whose
// gates all hang leaves half of them, a second one a quarter, and so on. Gates that are slow have half of the workers together, however
// many tenants they are of, and with those of whom nothing is known three quarters: the others find some that are free or about to be, but
// where gates of so many tenants that they have all workers come to hang at once, each of which counted as swift until then: that lasts
// until their first calls end. When somebody gives back what it took, each tenant gets as much as every other.
type Pool struct {
	mu      sync.Mutex
	workers int // 0 is no bound
	taken   places
	tenants map[string]*places
	busy    map[*Gate]struct{} // who has places
	short   []*Gate            // who found too few of them free, or others who wait for them, in that order
	yielded bool               // one has let the others go first
	offers  bool               // to them, in their order
}

// places is how many workers are taken, by pace.
type places [paces]int

// NewPool returns a pool of so many workers; 0 is no bound.
func NewPool(workers int) *Pool {
	return &Pool{workers: workers, tenants: map[string]*places{}, busy: map[*Gate]struct{}{}}
}

// limit is how many workers all have together who are of that pace or a slower one.
func (p *Pool) limit(of pace) int {
	switch of {
	case slow:
		return max(1, p.workers/2)
	case unknown:
		return max(1, p.workers*3/4)
	case swift, paces:
	}
	return p.workers
}

// leaves reports whether a gate may take one more place, for key. One that yields lets those gates go first that wait already. Places that
// key has at other gates do not count: its look has one worker, and must not wait for itself.
func (p *Pool) leaves(g *Gate, key Key, yields bool) bool {
	if p.workers == 0 {
		return true
	}
	now := time.Now()
	p.recount(now)
	yields = yields && len(p.short) > 0 && !p.offers
	if !yields && p.hasRoom(g, now, key) || g.serves(key) {
		return true
	}
	p.yielded = p.yielded || yields
	if !g.short {
		g.short = true
		p.short = append(p.short, g)
	}
	return false
}

// hasRoom reports whether a gate may take one more place, for key if that has come.
func (p *Pool) hasRoom(g *Gate, now time.Time, key Key) bool {
	taken, own := p.taken, places{}
	if known := p.tenants[g.tenant]; known != nil {
		own = *known
	}
	present := g.pace(now)
	for _, of := range []*places{&taken, &own} { // what has changed since the gate was counted
		of[g.countedAs] -= g.counted
		of[present] += g.places()
	}
	for other := range p.busy {
		if other == g || !other.serves(key) {
			continue
		}
		taken[other.countedAs]--
		if other.tenant == g.tenant {
			own[other.countedAs]--
		}
	}
	all, mine := 0, 0
	for of := range paces {
		all, mine = all+taken[of], mine+own[of]
		if of >= present && mine >= p.limit(of)-all {
			return false
		}
	}
	return true
}

// recount counts those as slow whose calls take long by now.
func (p *Pool) recount(now time.Time) {
	for g := range p.busy {
		p.count(g, g.counted, g.pace(now))
	}
}

// count makes it so many places that a gate has.
func (p *Pool) count(g *Gate, n int, as pace) {
	tenant := p.tenants[g.tenant]
	if tenant == nil {
		tenant = &places{}
		p.tenants[g.tenant] = tenant
	}
	for _, of := range []*places{&p.taken, tenant} {
		of[g.countedAs] -= g.counted
		of[as] += n
	}
	g.counted, g.countedAs = n, as
	if n > 0 {
		p.busy[g] = struct{}{}
	} else {
		delete(p.busy, g)
	}
	if *tenant == (places{}) {
		delete(p.tenants, g.tenant)
	}
}

// count tells the pool of the places that the gate has now, and reports whether they are fewer than before.
func (g *Gate) count() (fewer bool) {
	n := g.places()
	if g.retired {
		n = 0
	}
	before := g.counted
	g.pool.count(g, n, g.pace(time.Now()))
	return n < before
}

// unlock ends work on the gate. What it has given back is offered to those who found too few places.
func (g *Gate) unlock() {
	p := g.pool
	if fewer := g.count(); fewer || p.yielded {
		now := time.Now()
		p.offers = true
		p.recount(now)
		short := p.short
		p.short = nil
		var waiting []*Gate
		for _, other := range short {
			if !p.hasRoom(other, now, Key{}) {
				waiting = append(waiting, other)
				continue
			}
			other.short = false
			other.handBack()
			other.count()
		}
		p.short = append(waiting, p.short...)
		p.offers, p.yielded = false, false
	}
	p.mu.Unlock()
}

// Trust has what is behind the gate count as one that answers quickly, until a call shows something else.
func (g *Gate) Trust() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.quick = true
}

// Calls says that a key which is in flight waits for an answer from now on, until Answered. It has no turn at another gate meanwhile.
func (g *Gate) Calls(key Key) {
	g.pool.mu.Lock()
	defer g.unlock()
	if _, flying := g.inFlight[key]; flying {
		g.inFlight[key] = time.Now()
		g.pool.move(key, g, true)
	}
}

// Answered ends what Calls began.
func (g *Gate) Answered(key Key) {
	g.pool.mu.Lock()
	defer g.unlock()
	now, since := time.Now(), g.inFlight[key]
	if since.IsZero() {
		return
	}
	took := now.Sub(since)
	g.inFlight[key] = time.Time{}
	if took <= patience {
		g.quick = true
	} else if until := now.Add(grudge * took); until.After(g.slowUntil) {
		g.slowUntil = until
	}
}

func (g *Gate) pace(now time.Time) pace {
	if now.Before(g.slowUntil) {
		return slow
	}
	for _, since := range g.inFlight {
		if !since.IsZero() && now.Sub(since) > patience {
			return slow
		}
	}
	if g.quick {
		return swift
	}
	return unknown
}

// Retire is as End, and gives the gate's places back.
func (g *Gate) Retire() {
	g.pool.mu.Lock()
	defer g.unlock()
	g.end()
	g.retired = true
}

// move gives on the places that other gates keep for key, now that it has one at a gate; where it has been handed back for its turn, only
// with the turn.
func (p *Pool) move(key Key, to *Gate, turns bool) {
	for other := range p.busy {
		taken, called := other.called[key]
		if _, flying := other.inFlight[key]; other == to || !called || flying || taken && !turns {
			continue
		}
		to.count() // or the other would take a worker that is not free
		other.endTurn(key)
		other.handBack()
		other.count()
		p.yielded = true
	}
}

// waits reports whether key waits for an answer behind another gate.
func (p *Pool) waits(key Key, at *Gate) bool {
	for other := range p.busy {
		if other != at && !other.inFlight[key].IsZero() {
			return true
		}
	}
	return false
}

// serves reports whether key has a place at any gate.
func (p *Pool) serves(key Key) bool {
	for g := range p.busy {
		if g.serves(key) {
			return true
		}
	}
	return false
}

// serves reports whether key has a place here.
func (g *Gate) serves(key Key) bool {
	_, flying := g.inFlight[key]
	_, called := g.called[key]
	return flying || called
}
