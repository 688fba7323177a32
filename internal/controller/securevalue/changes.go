package securevalue

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// changes remembers when the changes of objects and of their Secrets were seen of which nothing has come yet. It serves metrics alone. Its
// zero value is ready for use.
type changes struct {
	mu      sync.Mutex
	seen    map[types.NamespacedName]time.Time // the first change since the last look that came to something
	rotated map[types.NamespacedName]time.Time // the same of changes of the Secret
}

// object notes a change of the object.
func (c *changes) object(key types.NamespacedName, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = since(c.seen, key, now)
}

// secret notes a change of the Secret that the object reads.
func (c *changes) secret(key types.NamespacedName, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.rotated = since(c.seen, key, now), since(c.rotated, key, now)
}

func since(m map[types.NamespacedName]time.Time, key types.NamespacedName, now time.Time) map[types.NamespacedName]time.Time {
	if m == nil {
		m = map[types.NamespacedName]time.Time{}
	}
	if _, noted := m[key]; !noted {
		m[key] = now
	}
	return m
}

// restart says that the work begins now: what was seen before that was not this process's to do.
func (c *changes) restart(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.seen {
		c.seen[key] = now
	}
	for key := range c.rotated {
		c.rotated[key] = now
	}
}

// reported says that what is known of the object was told.
func (c *changes) reported(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = without(c.seen, key)
}

// arrived says that what the Secret holds is in Grafana, and returns when its change was seen, if one was.
func (c *changes) arrived(key types.NamespacedName) (at time.Time, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, changed = c.rotated[key]
	c.rotated = without(c.rotated, key)
	return at, changed
}

// forget ends what is remembered of an object that is gone.
func (c *changes) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.rotated = without(c.seen, key), without(c.rotated, key)
}

// without returns the map without the key. A map never shrinks, and after a start this one has held all objects.
func without(m map[types.NamespacedName]time.Time, key types.NamespacedName) map[types.NamespacedName]time.Time {
	delete(m, key)
	if len(m) == 0 {
		return nil
	}
	return m
}

// oldest returns the age of the oldest change of which nothing has come yet, or 0.
func (c *changes) oldest(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest time.Duration
	for _, at := range c.seen {
		oldest = max(oldest, now.Sub(at))
	}
	return oldest
}
