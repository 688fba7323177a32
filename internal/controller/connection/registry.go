// Package connection keeps GrafanaConnections and ClusterGrafanaConnections: it checks them, reports on them, and lends
// them to the controller of secure values.
package connection

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

const (
	// maxInFlight bounds the objects that one connection serves at a time.
	maxInFlight = 8
	// doubtAfter is how many calls in a row must fail before a connection is checked out of turn.
	doubtAfter = 3
	// doubtPeriod is the least time between two checks out of turn.
	doubtPeriod = 15 * time.Second
)

// ErrParked says that an object must wait for its turn. It has been noted and will be handed back: there is nothing to do
// and nothing to report.
var ErrParked = errors.New("parked")

// Trouble says why a connection is of no use now. The object that asked is handed back when that has changed.
type Trouble struct {
	Verdict status.Verdict // what the connection's own status says
}

func (t *Trouble) Error() string { return "connection not ready: " + t.Verdict.Reason }

// ID names a connection. Namespace is empty for a ClusterGrafanaConnection.
type ID struct {
	Kind      v1alpha1.ConnectionKind
	Namespace string
	Name      string
}

// IDOf returns the connection that an object of the given namespace means by ref.
func IDOf(ref v1alpha1.ConnectionReference, namespace string) ID {
	if ref.Kind == v1alpha1.KindClusterGrafanaConnection {
		namespace = ""
	}
	return ID{Kind: ref.Kind, Namespace: namespace, Name: ref.Name}
}

func (id ID) String() string { return fmt.Sprintf("%s %q", id.Kind, id.Name) }

func (id ID) key() types.NamespacedName {
	return types.NamespacedName{Namespace: id.Namespace, Name: id.Name}
}

// Registry is what this process knows of each connection: the client made for it, the gate before it, and what its last
// check found. The connection's controller writes it; the controller of secure values borrows Sessions from it.
type Registry struct {
	wakeObject     func(gate.Key)
	wakeConnection func(ID)
	places         gate.Places

	mu      sync.Mutex
	entries map[ID]*entry
}

// NewRegistry returns an empty registry. Secure values are handed back by wakeObject; a connection that must be looked at
// out of turn is named to wakeConnection. Neither may block.
func NewRegistry(wakeObject func(gate.Key), wakeConnection func(ID)) *Registry {
	return &Registry{
		wakeObject:     wakeObject,
		wakeConnection: wakeConnection,
		places:         gate.Places{Wake: wakeObject},
		entries:        map[ID]*entry{},
	}
}

// entry is one connection. Its gate is open while the last check found nothing wrong, and restricted while only the credentials are
// gone and their last good content is known.
type entry struct {
	id   ID
	gate *gate.Gate

	mu       sync.Mutex
	client   *grafana.Client
	last     credentials    // the last with which a LIST succeeded
	lastFor  basis          // where that was
	basis    basis          // what client was made from
	checked  bool           // by this process
	verdict  status.Verdict // of the last check
	lastAt   time.Time      // of the last check
	nextAt   time.Time      // of the next check; zero is never
	failures int            // checks in a row that failed in a way that time may heal
	strikes  int            // calls of objects in a row that failed likewise
	written  string         // resourceVersion that the API server answered to our own last write
}

// basis is what a client is made from. A check of another basis proves nothing.
type basis struct {
	uid        types.UID
	generation int64
	secrets    string // versions of the Secrets read
	server     string // see ServerOf
}

// ServerOf returns what URLs of one Grafana have in common: scheme and host in lower case, without the default port and a
// slash at the end.
func ServerOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := u.Port(); scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/")
}

// entry returns the entry of id, made on first use, so that objects can wait for a connection that is not checked yet.
func (r *Registry) entry(id ID) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()

	e := r.entries[id]
	if e == nil {
		e = &entry{id: id, gate: gate.New(maxInFlight, r.wakeObject)}
		r.entries[id] = e
	}
	return e
}

// wrote remembers the answer to a write of our own.
func (e *entry) wrote(conn v1alpha1.Connection) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.written = conn.GetResourceVersion()
}

// isBehind reports whether the cache does not show our own last write yet. Its event comes, and brings the connection back.
func (e *entry) isBehind(cached v1alpha1.Connection) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	order, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), e.written)
	return err == nil && order < 0
}

// Remove forgets a connection that is gone, and hands back whoever waits for it.
func (r *Registry) Remove(id ID) {
	r.mu.Lock()
	e := r.entries[id]
	delete(r.entries, id)
	r.mu.Unlock()

	if e != nil {
		e.gate.Close()
	}
}

// Leave says that the object asks for nothing more for now, so that the places kept for it are given on.
// It must be called at the end of each look at an object.
func (r *Registry) Leave(key gate.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		e.gate.Leave(key)
	}
}

// Released has a connection looked at that an object has stopped to use.
func (r *Registry) Released(id ID) { r.wakeConnection(id) }

// Admit lends the connection to the object key for work at one name in Grafana. It returns ErrParked where the object must
// wait its turn, and a *Trouble where the connection is of no use now; either way the object is handed back when that
// changes. A session must be closed.
func (r *Registry) Admit(id ID, namespace, name string, key gate.Key, purpose gate.Purpose) (*Session, error) {
	e := r.entry(id)
	if !e.gate.Admit(key, purpose) {
		return nil, e.refusal()
	}
	client, server, err := e.use(purpose)
	if err != nil { // it came into trouble just now
		e.gate.Done(key, purpose, true)
		return nil, err
	}
	s := &Session{
		registry: r, entry: e, client: client, key: key, purpose: purpose,
		place: gate.Place{Server: server, Namespace: namespace, Name: name},
	}
	if !r.places.Take(s.place, key) {
		e.gate.Done(key, purpose, false)
		return nil, ErrParked
	}
	return s, nil
}

// refusal says why the gate did not admit.
func (e *entry) refusal() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.checked && e.verdict.Class != status.None {
		return &Trouble{Verdict: e.verdict}
	}
	return ErrParked
}

// use returns the client, if it may be used for that purpose.
func (e *entry) use(purpose gate.Purpose) (*grafana.Client, string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.checked && (e.verdict.Class == status.None || purpose == gate.GiveUp && e.orphaned()) {
		return e.client, e.basis.server, nil
	}
	return nil, "", &Trouble{Verdict: e.verdict}
}

// orphaned reports whether the credentials are gone and their last good content is still known. It serves those who give up
// their places, so that a namespace can go in any order. e.mu is held.
func (e *entry) orphaned() bool {
	return e.verdict.Reason == v1alpha1.ReasonCredentialsNotFound && e.client != nil
}

// Session is a connection lent to one object, for calls about one name. No other object works at that name meanwhile.
type Session struct {
	registry *Registry
	entry    *entry
	client   *grafana.Client
	place    gate.Place
	key      gate.Key
	purpose  gate.Purpose
	retry    bool // the object is to be handed back after a delay
}

// Close gives the connection and the name back.
func (s *Session) Close() {
	s.registry.places.Leave(s.place)
	s.entry.gate.Done(s.key, s.purpose, s.retry)
}

// Place is where the session works.
func (s *Session) Place() gate.Place { return s.place }

// Get asks for the secure value of the session.
func (s *Session) Get(ctx context.Context) (*grafana.SecureValue, error) {
	return call(s, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Get(ctx, s.place.Name) })
}

// Create makes the secure value of the session.
func (s *Session) Create(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Create(ctx, sv) })
}

// Update replaces the secure value of the session.
func (s *Session) Update(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Update(ctx, sv) })
}

// Delete deletes the secure value of the session.
func (s *Session) Delete(ctx context.Context) error {
	_, err := call(s, func(c *grafana.Client) (struct{}, error) { return struct{}{}, c.Delete(ctx, s.place.Name) })
	return err
}

// Retry makes Close park the object, so that it is handed back after a delay that grows with each time in a row, or as soon
// as the connection is out of trouble.
func (s *Session) Retry() { s.retry = true }

// LabelsNotKept says that Grafana did not keep the labels of a write. It ends the use of the connection, and returns that trouble.
func (s *Session) LabelsNotKept() error {
	e := s.entry
	e.mu.Lock()
	e.verdict = classify(e.id, errLabelsNotKept)
	if e.nextAt.IsZero() { // resyncPeriod is 0s
		e.nextAt = time.Now().Add(gate.Jitter(recheckStalled, resyncJitter))
	}
	trouble := &Trouble{Verdict: e.verdict}
	e.mu.Unlock()

	e.gate.Close()
	s.registry.wakeConnection(e.id)
	return trouble
}

// call makes one call, unless the connection has come into trouble since the session was lent, and notes what the answer
// says of the connection.
func call[T any](s *Session, do func(*grafana.Client) (T, error)) (T, error) {
	if _, _, err := s.entry.use(s.purpose); err != nil {
		var none T
		return none, err
	}
	answer, err := do(s.client)
	s.registry.note(s.entry, err)
	return answer, err
}

// note learns from the outcome of an object's call. A refused token ends the use of the connection at once. Calls that keep
// failing, or an answer that no sound connection gives, have it checked out of turn.
func (r *Registry) note(e *entry, err error) {
	e.mu.Lock()
	unauthorized := errors.Is(err, grafana.ErrUnauthorized)
	if unauthorized {
		e.checked, e.verdict = true, classify(e.id, err)
		e.client, e.last = nil, credentials{} // not even for deletions
		e.nextAt = time.Now().Add(recheckUnauthorized)
	}
	if isOutage(err) {
		e.strikes++
	} else {
		e.strikes = 0
	}
	doubt := e.strikes >= doubtAfter || isAboutConnection(err)
	if doubt {
		if at := e.lastAt.Add(doubtPeriod); e.nextAt.IsZero() || at.Before(e.nextAt) {
			e.nextAt = at
		}
	}
	e.mu.Unlock()

	if unauthorized {
		e.gate.Close()
	}
	if unauthorized || doubt {
		r.wakeConnection(e.id)
	}
}
