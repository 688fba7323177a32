package limiter

import (
	"slices"
	"sync"
)

// Pool is the workers of a controller, which the tenants of its limiters share. A tenant is admitted while it holds fewer than a third
// of the workers that are free, so that Grafanas that hang never take all of them.
type Pool struct {
	workers int // 0 is no bound

	mu       sync.Mutex
	limiters map[*Limiter]struct{}
	turns    map[Key][]*turn // of each object, at most one in a limiter
	held     map[string]int  // turns by tenant
	taken    int             // turns in all
	short    []*Limiter      // those that found too few workers free, in that order
}

// NewPool returns a pool of so many workers; 0 is no bound.
func NewPool(workers int) *Pool {
	return &Pool{workers: workers, limiters: map[*Limiter]struct{}{}, turns: map[Key][]*turn{}, held: map[string]int{}}
}

// turn is the right of an object to call one Grafana, from the moment it is granted until the end of the object's reconcile.
type turn struct {
	limiter   *Limiter
	operation Operation
	current   bool // the reconcile that runs now has it, and not the next one
	probe     bool // it was granted while the breaker was open
	requests  int
	failed    bool
	refused   bool // a request, or an operation, for which the object waits though later ones were served
}

// Begin says that a reconcile of the object begins. The turns that were granted before are its own. End must follow.
func (p *Pool) Begin(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.turns[key] {
		t.current = true
	}
}

// End says that the reconcile ends. Its turns, used or not, go to those that wait.
func (p *Pool) End(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ended, kept []*turn
	for _, t := range p.turns[key] {
		if t.current {
			ended = append(ended, t)
		} else { // granted meanwhile: for the reconcile that follows
			kept = append(kept, t)
		}
	}
	if p.turns[key] = kept; len(kept) == 0 {
		delete(p.turns, key)
	}
	for _, t := range ended {
		p.release(t)
		t.limiter.settle(t)
	}
	short := p.short // they found too few workers free before
	p.short = nil
	for _, l := range short {
		l.dispatch(Key{})
	}
	for _, t := range ended {
		t.limiter.dispatch(Key{})
	}
}

// Forget removes an object that is gone from all queues.
func (p *Pool) Forget(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.limiters {
		l.unqueue(key)
	}
}

// Waits reports whether the object waits in a queue, so that it is woken when its turn comes.
func (p *Pool) Waits(key Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.limiters {
		if _, waits := l.waiting[key]; waits {
			return true
		}
	}
	return false
}

func (p *Pool) turn(key Key, l *Limiter) *turn {
	for _, t := range p.turns[key] {
		if t.limiter == l {
			return t
		}
	}
	return nil
}

func (p *Pool) take(key Key, t *turn) {
	p.turns[key] = append(p.turns[key], t)
	p.held[t.limiter.tenant]++
	p.taken++
	t.limiter.turns++
	t.limiter.unspent++
}

func (p *Pool) release(t *turn) {
	p.taken--
	if p.held[t.limiter.tenant]--; p.held[t.limiter.tenant] == 0 {
		delete(p.held, t.limiter.tenant)
	}
	t.limiter.turns--
	if t.requests == 0 {
		t.limiter.unspent--
	}
}

// hasWorker reports whether the limiter's tenant may hold one more worker. If not, the limiter is asked again when one is free.
func (p *Pool) hasWorker(l *Limiter) bool {
	if p.workers == 0 || 3*p.held[l.tenant] < p.workers-p.taken {
		return true
	}
	if !slices.Contains(p.short, l) {
		p.short = append(p.short, l)
	}
	return false
}
