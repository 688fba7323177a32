package connection

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// ErrQueued says that an object waits for its turn. It is woken then, and there is nothing to report.
var ErrQueued = errors.New("queued")

// ErrTaken says that another object works at the same secure value. The object may be woken when that ends, and must be requeued in case
// it is not: others may wait too.
var ErrTaken = errors.New("taken")

// ErrBusy says that the connection has just changed. The object is not woken: it must be requeued.
var ErrBusy = errors.New("busy")

// Registry has the state of each connection. The controllers of connections write it; the controller of secure values acquires sessions
// from it.
type Registry struct {
	// Objects wakes secure values.
	Objects *Waker

	// Connections wakes connections.
	Connections map[v1alpha1.ConnectionKind]*Waker

	// MaxPerNamespace is how many GrafanaConnections of a namespace are served; 0 is no bound.
	MaxPerNamespace int

	pool    *limiter.Pool
	unknown sync.Map // ownership.Place to time.Time: until then a write without an answer may still take effect

	candidates sync.Map // of limiter.Key: objects whose secure value a LIST showed to differ from what they wrote

	mu      sync.Mutex // guards the entries and what they have, the ages and the locks
	entries map[ownership.Connection]*entry
	ages    map[string][]age                             // of the GrafanaConnections of a namespace, the oldest first
	locks   map[ownership.Place]map[string][]limiter.Key // an object works at each, and these wait for it, by namespace
}

// NewRegistry returns an empty registry whose connections share so many workers; 0 is no bound.
func NewRegistry(workers int) *Registry {
	return &Registry{
		Objects: &Waker{},
		Connections: map[v1alpha1.ConnectionKind]*Waker{
			v1alpha1.KindGrafanaConnection: {}, v1alpha1.KindClusterGrafanaConnection: {},
		},
		pool:    limiter.NewPool(workers),
		entries: map[ownership.Connection]*entry{},
		ages:    map[string][]age{},
		locks:   map[ownership.Place]map[string][]limiter.Key{},
	}
}

// entry is one connection.
type entry struct {
	id      ownership.Connection
	limiter *limiter.Limiter

	config    config    // what client was made from
	endpoint  *endpoint // the same
	client    *grafana.Client
	checked   bool
	condition status.Condition // of the last check, or of the call of an object that overruled it
	epoch     int              // counts what overruled a check
	checks    int              // that the last condition lasts, in a row
	nextCheck time.Time        // zero: when something changes
	lastCheck time.Time
	orphaned  int
	deleting  bool
	written   string // resourceVersion that our own last write got
	writtenAt time.Time

	lastGood good
}

// good is with what the last LIST succeeded.
type good struct {
	credentials

	config   config
	endpoint *endpoint
}

// config is what a client is made from: a check of one config says nothing of another.
type config struct {
	uid        types.UID
	generation int64
	secrets    string // versions of the Secrets read
	server     string
	access     string // which Secrets are read, and how the server is trusted
}

func configOf(conn v1alpha1.Connection, to *endpoint, secrets string) config {
	c := config{uid: conn.GetUID(), generation: conn.GetGeneration(), secrets: secrets, server: to.server()}
	if to != nil {
		c.access = to.access
	}
	return c
}

// Server returns the server of a connection: of its url, or where the Grafana that it references was when it was checked last, by this process or
// as status says. "" is that this is not known. Nothing is sent on the word of a status: see Acquire.
func (r *Registry) Server(conn v1alpha1.Connection) (server string) {
	if GrafanaRef(conn) == nil {
		return ServerOf(conn.GetSpec().URL)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[IDFor(conn)]; e != nil && e.config.uid == conn.GetUID() && e.config.generation == conn.GetGeneration() {
		return e.config.server
	}
	return ServerOf(Address(conn))
}

// ServerOf returns what the URLs of one Grafana have in common: scheme and host in lower case, without default port and final slash.
func ServerOf(address string) string {
	u, err := url.Parse(address)
	host, port, hostErr := grafana.HostOf(address)
	if err != nil || hostErr != nil {
		return address
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		port = ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/")
}

// IDFor returns the identity of a connection.
func IDFor(conn v1alpha1.Connection) ownership.Connection {
	return ownership.Connection{Kind: conn.ConnectionKind(), Namespace: conn.GetNamespace(), Name: conn.GetName()}
}

// tenant is the unit that shares workers: the namespace of a connection, or a cluster connection itself.
func tenant(id ownership.Connection) string {
	if id.Kind == v1alpha1.KindClusterGrafanaConnection {
		return id.Key()
	}
	return id.Namespace
}

// checkKey stands for the connection itself in its limiter. No object can have that name.
func checkKey(id ownership.Connection) limiter.Key { return limiter.Key{Name: id.Key()} }

// with calls f with the entry of a connection.
func (r *Registry) with(id ownership.Connection, f func(*entry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.entry(id))
}

// entry returns the entry of id, made on first use. r.mu is held.
func (r *Registry) entry(id ownership.Connection) *entry {
	e := r.entries[id]
	if e == nil {
		check := checkKey(id)
		e = &entry{id: id}
		e.limiter = r.pool.New(tenant(id), func(key limiter.Key) {
			if key == check {
				r.WakeConnection(id)
			} else {
				r.Objects.Wake(key)
			}
		})
		r.entries[id] = e
	}
	return e
}

// WakeConnection triggers a reconcile of a connection.
func (r *Registry) WakeConnection(id ownership.Connection) {
	r.Connections[id.Kind].Wake(id.Object())
}

// Begin says that a reconcile of an object begins. End must follow.
func (r *Registry) Begin(key limiter.Key) { r.pool.Begin(key) }

// End says that the reconcile ends: what it holds goes to those that wait.
func (r *Registry) End(key limiter.Key) { r.pool.End(key) }

// Waits reports whether the object, or the check of a connection, waits for its turn at any connection.
func (r *Registry) Waits(key limiter.Key) bool { return r.pool.Waits(key) }

// Forget removes an object that is gone.
func (r *Registry) Forget(key limiter.Key) {
	r.pool.Forget(key)
	r.candidates.Delete(key)
}

// MayHaveDrifted reports whether the object must ask Grafana, because a LIST showed something else than it wrote.
func (r *Registry) MayHaveDrifted(key limiter.Key) bool {
	_, may := r.candidates.Load(key)
	return may
}

// Asked says that the object has asked Grafana.
func (r *Registry) Asked(key limiter.Key) { r.candidates.Delete(key) }

// remove forgets a connection that is gone, and wakes the objects that wait for it.
func (r *Registry) remove(id ownership.Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[id]; e != nil {
		delete(r.entries, id)
		e.limiter.Close()
		e.exchange(nil)
	}
	metrics.Forget(id)
}

// exchange replaces the client.
func (e *entry) exchange(client *grafana.Client) {
	if e.client != nil && e.client != client {
		e.client.CloseIdleConnections()
	}
	e.client = client
}

// become makes the condition the entry's, and admits what that allows. Objects that wait for a connection that cannot be used are
// woken once, to report why.
func (e *entry) become(condition status.Condition) {
	news := !e.checked || e.condition.Class != condition.Class
	if e.checks++; news || e.condition.Reason != condition.Reason {
		e.checks = 1
	}
	e.checked, e.condition = true, condition
	mode := limiter.Nothing
	switch {
	case condition.Class == status.None, condition.Class == status.Time: // the breaker knows what time heals
		mode, news = limiter.Everything, false
	case e.servesReleases():
		mode = limiter.ReleasesOnly
	}
	e.limiter.Admits(mode, news)
	e.limiter.Checked(checkKey(e.id), condition.Class == status.Time)
}

// servesReleases reports whether a connection that is not ready still serves releases: its credentials cannot be read and their last good
// content is known, so that a namespace can be deleted in any order.
func (e *entry) servesReleases() bool {
	return e.client != nil && slices.Contains(unreadable, e.condition.Reason)
}

// isAt reports whether the connection was checked at that endpoint.
func (e *entry) isAt(to *endpoint) bool {
	return e.config.server == to.server() && e.config.access == to.access
}

// invalidate ends the use of the connection until it is checked again: it is no longer what was checked.
func (e *entry) invalidate() {
	e.checked = false
	e.epoch++
	e.limiter.Admits(limiter.Nothing, false)
}

// overrule replaces the condition of a check that may run now, whose result then does not count.
func (e *entry) overrule(condition status.Condition, nextCheck time.Time) {
	e.epoch++
	e.nextCheck = nextCheck
	e.become(condition)
}

// States describes each connection that this process has checked.
func (r *Registry) States() []metrics.ConnectionState {
	r.mu.Lock()
	defer r.mu.Unlock()
	var states []metrics.ConnectionState
	for _, e := range r.entries {
		if e.checked {
			states = append(states, metrics.ConnectionState{
				Connection:  e.id,
				Ready:       e.condition.Class == status.None && !e.deleting,
				BreakerOpen: e.limiter.Open(),
				Queued:      e.limiter.Queued(),
				Orphaned:    e.orphaned,
			})
		}
	}
	return states
}

// UnknownUntil says until when a write at that place, whose outcome is not known, may still take effect; zero is that there is none.
func (r *Registry) UnknownUntil(place ownership.Place) time.Time {
	until, _ := r.unknown.Load(place)
	at, _ := until.(time.Time)
	if time.Now().After(at) {
		r.unknown.Delete(place)
		return time.Time{}
	}
	return at
}

// Waker adds objects to the queue of their controller, of which it is a source.Source. Before the controller starts it does nothing:
// every object is reconciled then.
type Waker struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]
}

// Start is called by the controller with its queue.
func (w *Waker) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	w.queue.Store(&queue)
	return nil
}

// Wake triggers a reconcile of the object. It does not block.
func (w *Waker) Wake(key types.NamespacedName) {
	if queue := w.queue.Load(); queue != nil {
		(*queue).Add(reconcile.Request{NamespacedName: key})
	}
}
