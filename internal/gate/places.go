package gate

import "sync"

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
	// Wake hands an object back that found its place taken. It must not block.
	Wake func(Key)

	mu    sync.Mutex
	taken map[Place]*holding
}

// holding is a taken place, and who found it so.
type holding struct {
	waiting queue
}

// Take reports whether key holds place now. If so, Leave must follow. If not, key is handed back once the place is free.
func (p *Places) Take(place Place, key Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	if h := p.taken[place]; h != nil {
		h.waiting.push(key)
		return false
	}
	if p.taken == nil {
		p.taken = map[Place]*holding{}
	}
	p.taken[place] = &holding{}
	return true
}

// Leave frees a place that was taken, and hands back whoever found it taken.
func (p *Places) Leave(place Place) {
	p.mu.Lock()
	defer p.mu.Unlock()

	h := p.taken[place]
	if h == nil {
		return
	}
	delete(p.taken, place)
	for key, ok := h.waiting.pop(nil); ok; key, ok = h.waiting.pop(nil) {
		p.Wake(key)
	}
}
