package securevalue

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

const (
	// maxCorrections bounds how often drift is corrected within correctionPeriod. After that another writer is active.
	maxCorrections   = 3
	correctionPeriod = time.Hour
)

// memory is what this process remembers of objects. The zero value is ready for use.
type memory struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*remembered
}

// remembered is what is remembered of one object. The zero value is nothing, and not kept.
type remembered struct {
	uid         types.UID
	version     string    // resourceVersion that our own last write got, until the cache shows it
	ended       bool      // that write removed our finalizer: whatever the cache shows is older
	writtenAt   time.Time // when
	changedAt   time.Time // the first change not yet reflected in Grafana or in status
	rotatedAt   time.Time // the same of the Secret
	corrections [maxCorrections]time.Time
	rotations   *rate.Limiter // of changed values; nil before the first
}

// with calls f with what is remembered of an object.
func (m *memory) with(key types.NamespacedName, f func(*remembered)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.objects[key]
	if o == nil {
		o = &remembered{}
	}
	f(o)
	if *o == (remembered{}) {
		delete(m.objects, key)
		return
	}
	if m.objects == nil {
		m.objects = map[types.NamespacedName]*remembered{}
	}
	m.objects[key] = o
}

func (m *memory) forget(key types.NamespacedName) {
	m.with(key, func(o *remembered) { *o = remembered{} })
}

// wrote remembers the answer to a write. Where that removed our finalizer and it was the last one, the answer has the resourceVersion that the
// object had before (k8s.io/apiserver, pkg/registry/generic/registry/store.go, deleteWithoutFinalizers), so that it cannot be compared.
func (m *memory) wrote(answer *v1alpha1.GrafanaSecureValue, ended bool, now time.Time) {
	m.with(keyOf(answer), func(o *remembered) {
		o.uid, o.version, o.ended, o.writtenAt = answer.UID, answer.ResourceVersion, ended, now
	})
}

// behind reports whether the cache shows an object older than our own last write, and since when.
func (m *memory) behind(cached *v1alpha1.GrafanaSecureValue, now time.Time) (lag time.Duration, behind bool) {
	m.with(keyOf(cached), func(o *remembered) {
		order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, o.version)
		if o.uid == cached.UID && (o.ended || err == nil && order < 0) {
			lag, behind = now.Sub(o.writtenAt), true
			return
		}
		o.uid, o.version, o.ended, o.writtenAt = "", "", false, time.Time{}
	})
	return lag, behind
}

// changed notes a change of the object, or of its Secret.
func (m *memory) changed(key types.NamespacedName, secret bool, now time.Time) {
	m.with(key, func(o *remembered) {
		if o.changedAt.IsZero() {
			o.changedAt = now
		}
		if secret && o.rotatedAt.IsZero() {
			o.rotatedAt = now
		}
	})
}

// leads says that the work begins now: what changed before was not this process's to do.
func (m *memory) leads(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.objects {
		for _, at := range []*time.Time{&o.changedAt, &o.rotatedAt} {
			if !at.IsZero() {
				*at = now
			}
		}
	}
}

// reported says that status has what is known of the object.
func (m *memory) reported(key types.NamespacedName) {
	m.with(key, func(o *remembered) { o.changedAt = time.Time{} })
}

// arrived says that Grafana has what the Secret holds, and returns when its change was seen; zero is that none was.
func (m *memory) arrived(key types.NamespacedName) (at time.Time) {
	m.with(key, func(o *remembered) { at, o.rotatedAt = o.rotatedAt, time.Time{} })
	return at
}

// corrected counts a correction of drift.
func (m *memory) corrected(key types.NamespacedName, now time.Time) {
	m.with(key, func(o *remembered) {
		copy(o.corrections[:], o.corrections[1:])
		o.corrections[maxCorrections-1] = now
	})
}

// limitReached reports whether a further correction would be one too many.
func (m *memory) limitReached(key types.NamespacedName, now time.Time) (reached bool) {
	m.with(key, func(o *remembered) {
		reached = !o.corrections[0].IsZero() && now.Sub(o.corrections[0]) < correctionPeriod
	})
	return reached
}

// wroteOwn ends the count of corrections: what is written for the object's own sake is no answer to another writer.
func (m *memory) wroteOwn(key types.NamespacedName) {
	m.with(key, func(o *remembered) { o.corrections = [maxCorrections]time.Time{} })
}

// oldest returns the age of the oldest change not yet reflected in Grafana or in status, or 0.
func (m *memory) oldest(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var oldest time.Duration
	for _, o := range m.objects {
		if !o.changedAt.IsZero() {
			oldest = max(oldest, now.Sub(o.changedAt))
		}
	}
	return oldest
}
