package connection

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// longPause is the shortest wait that Grafana may ask for which connection and objects report.
const longPause = 15 * time.Second

// Session is the use of a connection by one object, for calls about one secure value. It excludes all other objects from that value.
type Session struct {
	Place   ownership.Place // the secure value
	Timeout time.Duration   // bounds each call

	registry  *Registry
	entry     *entry
	client    *grafana.Client
	key       limiter.Key
	operation limiter.Operation
}

// Acquire returns a session of the object key on the connection, as it was read, for calls about one secure value. The error is ErrQueued,
// ErrTaken or ErrBusy, or says why the connection cannot be used now; except after ErrTaken and ErrBusy the object is woken when that
// changes. A session must be closed.
func (r *Registry) Acquire(conn v1alpha1.Connection, place ownership.Place, key limiter.Key, operation limiter.Operation) (*Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(IDFor(conn))
	r.expect(e, conn)
	if !e.limiter.Admit(key, operation) {
		return nil, e.unusable(operation)
	}
	if e.config.generation != conn.GetGeneration() || e.config.server != place.Server {
		return nil, ErrBusy // the caller's cache is behind, or the connection was checked at another server since
	}
	if waiting, taken := r.locks[place]; taken {
		if keys := waiting[key.Namespace]; !slices.Contains(keys, key) {
			waiting[key.Namespace] = append(keys, key)
		}
		return nil, ErrTaken
	}
	r.locks[place] = map[string][]limiter.Key{}
	return &Session{
		registry: r, entry: e, client: e.client, Place: place, key: key, operation: operation, Timeout: conn.GetSpec().Timeout(),
	}, nil
}

// Expect ends the use of a connection that is newer than the checked one, also by open sessions.
func (r *Registry) Expect(conn v1alpha1.Connection) {
	r.with(IDFor(conn), func(e *entry) { r.expect(e, conn) })
}

// expect makes the entry wait for a check where the connection is a newer one than was checked: what was judged is what is used.
func (r *Registry) expect(e *entry, conn v1alpha1.Connection) {
	if e.checked && (e.config.uid != conn.GetUID() || e.config.generation < conn.GetGeneration()) {
		e.invalidate()
		r.WakeConnection(e.id)
	}
}

// unusable says why an operation is not admitted.
func (e *entry) unusable(operation limiter.Operation) error {
	class := e.condition.Class
	switch {
	case !e.checked:
		return ErrQueued
	case class != status.None && class != status.Time && (operation != limiter.Release || !e.servesReleases()):
		return notReady(e.id, e.condition.Reason)
	case e.limiter.Open():
		return unavailable(e.id, e.condition)
	default:
		return ErrQueued
	}
}

// Close releases the secure value, and wakes in each namespace the object that has waited for it longest.
func (s *Session) Close() {
	if s == nil {
		return
	}
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.locks[s.Place]
	delete(r.locks, s.Place)
	for _, keys := range waiting {
		r.Objects.Wake(keys[0])
	}
}

// Get asks for the secure value; nil where there is none.
func (s *Session) Get(ctx context.Context) (*grafana.SecureValue, error) {
	found, err := call(s, false, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Get(ctx, s.Place.Name) })
	if errors.Is(err, grafana.ErrNotFound) {
		return nil, nil
	}
	return found, err
}

// Create makes the secure value.
func (s *Session) Create(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, true, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Create(ctx, sv) })
}

// Update replaces the secure value.
func (s *Session) Update(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, true, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Update(ctx, sv) })
}

// Delete deletes the secure value. That there is none is no error, and no error is no proof that it is gone.
func (s *Session) Delete(ctx context.Context) error {
	_, err := call(s, true, func(c *grafana.Client) (struct{}, error) { return struct{}{}, c.Delete(ctx, s.Place.Name) })
	if errors.Is(err, grafana.ErrNotFound) {
		return nil
	}
	return err
}

// call makes one call, unless the connection became unusable since the session was acquired, and updates the connection by its result.
func call[T any](s *Session, write bool, do func(*grafana.Client) (T, error)) (answer T, err error) {
	if err := s.mayCall(); err != nil {
		return answer, err
	}
	answer, err = do(s.client)
	if write && isAny(err, unknownOutcomes) {
		s.registry.unknown.Store(s.Place, time.Now().Add(s.Timeout))
	}
	if err == nil {
		return answer, nil
	}
	queued := s.learn(err)
	if errors.Is(err, grafana.ErrUnauthorized) {
		return answer, ErrBusy // the next reconcile waits for the connection, and reports it
	}
	err = objectError(s.entry.id, err)
	if e := status.Of(err); queued && e != nil {
		e.Retry = status.Watch
	}
	return answer, err
}

func (s *Session) mayCall() error {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	switch {
	case s.entry.client != s.client || !s.entry.checked: // replaced since the session was acquired
		return ErrBusy
	case !s.entry.limiter.Request(s.key, s.operation):
		return s.entry.unusable(s.operation)
	default:
		return nil
	}
}

// learn updates the connection after a call that failed: a refused token ends its use at once, Retry-After pauses all calls, and an outage
// counts for the breaker.
func (s *Session) learn(err error) (queued bool) {
	r, e := s.registry, s.entry
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.client != s.client {
		return false
	}
	wait := retryAfter(err)
	if wait > 0 {
		e.limiter.Pause(time.Now().Add(wait))
	}
	switch {
	case errors.Is(err, grafana.ErrUnauthorized):
		e.exchange(nil) // not even for deletions
		e.lastGood = good{}
		e.overrule(e.endpoint.condition(err), time.Now().Add(firstRecheck))
		r.WakeConnection(e.id)
	case wait >= longPause:
		e.overrule(e.endpoint.condition(err), time.Time{})
		r.WakeConnection(e.id)
	case wait > 0 && errors.Is(err, grafana.ErrRateLimited): // Grafana works, and says when it will serve
	case isAny(err, outages):
		if e.limiter.Failed(s.key) {
			e.nextCheck = time.Now()
			r.WakeConnection(e.id)
		}
		return e.limiter.Open()
	}
	return false
}

func retryAfter(err error) time.Duration {
	if failed, ok := errors.AsType[*grafana.Error](err); ok {
		return failed.RetryAfter
	}
	return 0
}
