package gate

import (
	"slices"
	"sync"
)

// Place is a secure value in one Grafana, whatever connection leads there.
type Place struct {
	// Server is the URL of the Grafana.
	Server string
	// Namespace is Grafana's namespace: an org or a stack.
	Namespace string
	// Name is the name of the secure value.
	Name string
}

// Places makes what one object reads at a place and the write that rests on it one critical section. The zero value is
// ready for use once Wake is set.
type Places struct {
	// Wake hands an object back that found its place taken. It must not block, and must lead to one more call of Leave for that object.
	Wake func(Key)

	mu      sync.Mutex
	taken   map[Place]*holding
	offered map[Key][]Place // to whom it was handed back for them, and has not taken them yet
	passed  map[Key][]Place // what the look under way at a key gave up, and was offered to another
}

// holding is a place that is taken or offered, and who found it so.
type holding struct {
	by      Key
	offered bool
	waiting queue
}

// Take reports whether key holds place now. If so, Free must follow. If not, key is handed back when it is its turn. A look that
// has had the place goes on before whom it is offered to since: two that each need it twice in a look would otherwise send each other back
// for ever.
func (p *Places) Take(place Place, key Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	h := p.taken[place]
	switch {
	case h == nil:
		if p.taken == nil {
			p.taken = map[Place]*holding{}
		}
		p.taken[place] = &holding{by: key}
		return true
	case h.offered && (h.by == key || slices.Contains(p.passed[key], place)):
		p.withdraw(h.by, place)
		if h.by != key {
			h.waiting.putBack(h.by)
		}
		h.waiting.remove(key)
		h.by, h.offered = key, false
		return true
	default:
		h.waiting.push(key, 0)
		return false
	}
}

// Free gives up a place that was taken, and offers it to the first of those who found it taken.
func (p *Places) Free(place Place) {
	p.mu.Lock()
	defer p.mu.Unlock()

	h := p.taken[place]
	if h == nil {
		return
	}
	by := h.by
	if p.offer(place); h.offered {
		if p.passed == nil {
			p.passed = map[Key][]Place{}
		}
		p.passed[by] = append(p.passed[by], place)
	}
}

// Leave ends a look at key: what was offered to it, and not taken, is offered to the next one.
func (p *Places) Leave(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()

	places := p.offered[key]
	delete(p.offered, key)
	delete(p.passed, key)
	for _, place := range places {
		p.offer(place)
	}
}

// Forget ends whatever key waits for: it is gone. It must hold no place.
func (p *Places) Forget(key Key) {
	p.mu.Lock()
	for _, h := range p.taken {
		h.waiting.remove(key)
	}
	p.mu.Unlock()
	p.Leave(key)
}

func (p *Places) offer(place Place) {
	h := p.taken[place]
	if h == nil {
		return
	}
	next, ok := h.waiting.pop(0)
	if !ok {
		delete(p.taken, place)
		return
	}
	if p.offered == nil {
		p.offered = map[Key][]Place{}
	}
	h.by, h.offered = next, true
	p.offered[next] = append(p.offered[next], place)
	p.Wake(next)
}

func (p *Places) withdraw(key Key, place Place) {
	p.offered[key] = slices.DeleteFunc(p.offered[key], func(other Place) bool { return other == place })
	if len(p.offered[key]) == 0 {
		delete(p.offered, key)
	}
}
