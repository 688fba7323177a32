// Package connection keeps GrafanaConnections and ClusterGrafanaConnections: it checks them, reports on them, and lends
// them to the controller of secure values.
package connection

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

const (
	// doubtAfter is how many calls in a row must fail before a connection is checked out of turn.
	doubtAfter = 3
	// doubtPeriod is the least time between two checks out of turn.
	doubtPeriod = 15 * time.Second
	// firstProbe is when one object is let through, after a check has found that only writes fail.
	firstProbe = 5 * time.Second
	// probePeriod is the least time for each request made meanwhile.
	probePeriod = 15 * time.Second
	// probeJitter is the share that it may be longer.
	probeJitter = 0.4
)

// writesFail is the trouble with a Grafana that answers, and carries out no write.
var writesFail = status.Verdict{
	Class: status.Time, Reason: v1alpha1.ReasonGrafanaUnavailable,
	Message: "Grafana answers, and no write succeeds. One object at a time tries it again by itself.",
}

// ErrParked says that an object must wait for its turn. It has been noted and will be handed back: there is nothing to do
// and nothing to report.
var ErrParked = errors.New("parked")

// Trouble says why a connection is of no use now. The object that asked is handed back when that has changed.
type Trouble struct {
	Verdict status.Verdict // what the connection's own status says, or writesFail
	Probed  bool           // one object at a time tries all the same
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

// IDFor returns the ID of a connection.
func IDFor(conn v1alpha1.Connection) ID {
	return ID{Kind: conn.ConnectionKind(), Namespace: conn.GetNamespace(), Name: conn.GetName()}
}

func (id ID) String() string { return fmt.Sprintf("%s %q", id.Kind, id.Name) }

// Describe is the command that shows all that is known of the connection.
func (id ID) Describe() string {
	if id.Kind == v1alpha1.KindClusterGrafanaConnection {
		return "kubectl describe cgconn " + id.Name
	}
	return "kubectl describe gconn " + id.Name + " -n " + id.Namespace
}

func (id ID) key() types.NamespacedName {
	return types.NamespacedName{Namespace: id.Namespace, Name: id.Name}
}

// tenant names who answers for a connection: a namespace, or else whoever may make connections of the cluster, of which none is to
// suffer from another.
func (id ID) tenant() string {
	if id.Kind == v1alpha1.KindClusterGrafanaConnection {
		return id.String()
	}
	return id.Namespace
}

// Registry is what this process knows of each connection: the client made for it, the gate before it, and what its last
// check found. The connection's controller writes it; the controller of secure values borrows Sessions from it.
type Registry struct {
	wakeObject     func(gate.Key)
	wakeConnection func(ID)
	places         gate.Places
	pool           *gate.Pool // of the workers of secure values
	checks         *gate.Pool // of those of GrafanaConnections
	clusterChecks  *gate.Pool // of those of ClusterGrafanaConnections

	mu      sync.Mutex
	entries map[ID]*entry
	asked   map[gate.Key][]*entry // whose gates know of an object
}

// NewRegistry returns an empty registry. Secure values are handed back by wakeObject; a connection that must be looked at
// out of turn is named to wakeConnection. Neither may block.
func NewRegistry(wakeObject func(gate.Key), wakeConnection func(ID)) *Registry {
	r := &Registry{
		wakeObject:     wakeObject,
		wakeConnection: wakeConnection,
		places:         gate.Places{Wake: wakeObject},
		entries:        map[ID]*entry{},
		asked:          map[gate.Key][]*entry{},
	}
	r.share(0)
	return r
}

// share bounds the workers of secure values, and those of each kind of connection; 0 is no bound. It must come before anything else.
func (r *Registry) share(workers int) {
	r.pool, r.checks, r.clusterChecks = gate.NewPool(workers), gate.NewPool(workers), gate.NewPool(workers)
}

// entry is one connection. Its gate is open while nothing is known to be wrong, and restricted while it serves only those who give up
// their places.
type entry struct {
	id   ID
	gate *gate.Gate
	turn *gate.Gate // admits the connection itself, to be checked

	mu       sync.Mutex
	client   *grafana.Client
	last     credentials    // the last with which a LIST succeeded
	lastFor  basis          // where that was
	basis    basis          // what client was made from
	checked  bool           // by this process
	verdict  status.Verdict // of the last check
	unowned  int            // as the last LIST showed
	lastAt   time.Time      // of the last check
	nextAt   time.Time      // of the next check; zero is never
	failures int            // checks in a row that failed in a way that time may heal
	strikes  int            // calls of objects in a row that failed likewise
	writes   int            // writes of objects in a row that failed likewise, whatever was read in between
	probing  bool           // a check has found that only writes fail
	alarms   int            // times that the call of an object ended the use of the connection
	leaving  bool           // it is being deleted, and in use
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

// entry returns the entry of id, made on first use, so that objects can wait for a connection that is not checked yet.
func (r *Registry) entry(id ID) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(id)
}

// askedBy returns the entry of a connection, and remembers that its gate knows of the object.
func (r *Registry) askedBy(key gate.Key, id ID) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.find(id)
	if !slices.Contains(r.asked[key], e) {
		r.asked[key] = append(r.asked[key], e)
	}
	return e
}

// find returns the entry of a connection, which it makes where there is none. r.mu is held.
func (r *Registry) find(id ID) *entry {
	e := r.entries[id]
	if e == nil {
		checks := r.checks
		if id.Kind == v1alpha1.KindClusterGrafanaConnection {
			checks = r.clusterChecks
		}
		e = &entry{
			id:   id,
			gate: r.pool.New(id.tenant(), v1alpha1.DefaultMaxInFlight, r.wakeObject),
			turn: checks.New(id.tenant(), 1, func(gate.Key) { r.wakeConnection(id) }),
		}
		e.gate.Trust() // it is closed until a check was answered
		e.turn.Open()
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

// leaves notes whether the connection is being deleted. One that was made anew may have the entry of its predecessor.
func (e *entry) leaves(leaving bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving = leaving
}

// isBehind reports whether the cache does not show our own last write yet. Its event comes, and brings the connection back.
func (e *entry) isBehind(cached v1alpha1.Connection) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	order, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), e.written)
	return err == nil && order < 0
}

// Remove forgets a connection that is gone, and hands back whoever waits for it, or is about to. The looks that are under way there keep
// their places until they end: whoever makes and deletes connections whose Grafana hangs gets no more workers by it.
func (r *Registry) Remove(id ID) {
	r.mu.Lock()
	e := r.entries[id]
	delete(r.entries, id)
	r.mu.Unlock()

	if e != nil {
		e.gate.End()
		e.turn.Retire() // no Leave follows
	}
	metrics.Forget(id.Labels())
}

// Leave says that the object asks for nothing more for now, so that the places kept for it are given on.
// It must be called at the end of each look at an object.
func (r *Registry) Leave(key gate.Key) {
	r.places.Leave(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	known := slices.DeleteFunc(r.asked[key], func(e *entry) bool { return !e.gate.Leave(key) })
	if r.asked[key] = known; len(known) == 0 {
		delete(r.asked, key)
	}
}

// Forget ends whatever an object waits for that is gone. It must be called at the end of the look that finds it so.
func (r *Registry) Forget(key gate.Key) {
	r.places.Forget(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.asked[key] {
		e.gate.Forget(key)
	}
	delete(r.asked, key)
}

// States tells what this process knows of each connection that it has checked.
func (r *Registry) States() []metrics.ConnectionState {
	r.mu.Lock()
	entries := slices.Collect(maps.Values(r.entries))
	r.mu.Unlock()
	var states []metrics.ConnectionState
	for _, e := range entries {
		e.mu.Lock()
		if e.checked {
			states = append(states, metrics.ConnectionState{
				Connection:  e.id.Labels(),
				Ready:       e.verdict.Class == status.None && !e.leaving,
				BreakerOpen: e.verdict.Class == status.Time || e.probing,
				Parked:      e.gate.Parked(),
				Unowned:     e.unowned,
			})
		}
		e.mu.Unlock()
	}
	return states
}

// Labels returns the connection as metrics call it.
func (id ID) Labels() metrics.Connection {
	return metrics.Connection{Kind: string(id.Kind), Namespace: id.Namespace, Name: id.Name}
}

// observe counts a request.
func (id ID) observe(operation string, code int, took time.Duration) {
	metrics.Request(id.Labels(), operation, code, took)
}

// Released has a connection looked at that an object has stopped to use.
func (r *Registry) Released(id ID) { r.wakeConnection(id) }

// HasTurn reports whether the object was handed back for its turn on the connection, which it has until it calls another Grafana.
func (r *Registry) HasTurn(id ID, key gate.Key) bool {
	r.mu.Lock()
	e := r.entries[id]
	r.mu.Unlock()
	return e != nil && e.gate.HasTurn(key)
}

// Admit lends the connection to the object key for work at one name in Grafana. It returns ErrParked where the object must
// wait its turn, and a *Trouble where the connection is of no use now; either way the object is handed back when that
// changes. A session must be closed.
func (r *Registry) Admit(id ID, namespace, name string, key gate.Key, purpose gate.Purpose) (*Session, error) {
	e := r.askedBy(key, id)
	client, server, err := e.admit(key, purpose)
	if err != nil {
		return nil, err
	}
	s := &Session{
		registry: r, entry: e, client: client, key: key, purpose: purpose,
		place: gate.Place{Server: server, Namespace: namespace, Name: name},
	}
	if !r.places.Take(s.place, key) {
		e.gate.Save()
		e.gate.Done(key, purpose, false)
		return nil, ErrParked
	}
	return s, nil
}

// admit asks the gate, and returns the client and where it leads. The gate admits nobody whom use refuses: verdict and gate change
// together.
func (e *entry) admit(key gate.Key, purpose gate.Purpose) (*grafana.Client, string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	admitted, err := e.gate.Admit(key, purpose), e.use(purpose)
	switch {
	case err != nil || admitted:
	case e.probing:
		err = &Trouble{Verdict: writesFail, Probed: true}
	default:
		err = ErrParked
	}
	return e.client, e.basis.server, err
}

// use says why the client may not be used for that purpose; nil is that it may. e.mu is held.
func (e *entry) use(purpose gate.Purpose) error {
	switch {
	case !e.checked:
		return ErrParked
	case e.verdict.Class == status.None, purpose == gate.GiveUp && e.servesGivingUp():
		return nil
	default:
		return &Trouble{Verdict: e.verdict}
	}
}

// servesGivingUp reports whether a connection in trouble still serves those who give up their places: because the credentials are
// gone and their last good content is known, so that a namespace can go in any order, or because only writes go wrong. e.mu is held.
func (e *entry) servesGivingUp() bool {
	return e.client != nil &&
		(e.verdict.Reason == v1alpha1.ReasonCredentialsNotFound || e.verdict.Reason == v1alpha1.ReasonLabelsNotKept)
}

// become makes the verdict the entry's, and has the gate admit whom it lets through: one object at a time where it finds nothing wrong
// and yet writes fail. Whoever waits in vain is handed back if there is another reason for that now. e.mu is held.
func (e *entry) become(verdict status.Verdict) (changed bool) {
	changed = !e.checked || e.verdict.Reason != verdict.Reason
	e.checked, e.verdict = true, verdict
	switch {
	case verdict.Class == status.None:
		e.gate.Open()
	case e.servesGivingUp():
		e.gate.Restrict()
	default:
		e.gate.Close()
	}
	if changed {
		e.gate.Recall()
	}
	if verdict.Class != status.None {
		e.writes = 0 // it is more than that
	}
	e.probes(e.writes >= doubtAfter)
	e.gate.Release()
	return changed
}

// probes has the gate let one object at a time through, or no longer. e.mu is held.
func (e *entry) probes(probing bool) {
	if e.probing = probing; probing {
		e.gate.Probe(firstProbe, gate.Later(probePeriod, probeJitter))
	} else {
		e.gate.EndProbe()
	}
}

// exchange replaces the client. e.mu is held.
func (e *entry) exchange(client *grafana.Client) {
	if e.client != nil && e.client != client {
		e.client.CloseIdleConnections()
	}
	e.client = client
}

// Session is a connection lent to one object, for calls about one name. No other object works at that name meanwhile.
type Session struct {
	registry *Registry
	entry    *entry
	client   *grafana.Client
	place    gate.Place
	key      gate.Key
	purpose  gate.Purpose
	calls    int  // made so far
	retry    bool // the object is to be handed back after a delay
}

// Close gives the connection and the name back.
func (s *Session) Close() {
	if s.calls == 0 {
		s.entry.gate.Save()
	}
	s.registry.places.Free(s.place)
	s.entry.gate.Done(s.key, s.purpose, s.retry)
}

// Place is where the session works.
func (s *Session) Place() gate.Place { return s.place }

// Get asks for the secure value of the session.
func (s *Session) Get(ctx context.Context) (*grafana.SecureValue, error) {
	return call(s, false, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Get(ctx, s.place.Name) })
}

// Create makes the secure value of the session.
func (s *Session) Create(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, true, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Create(ctx, sv) })
}

// Update replaces the secure value of the session.
func (s *Session) Update(ctx context.Context, sv *grafana.SecureValue) (*grafana.SecureValue, error) {
	return call(s, true, func(c *grafana.Client) (*grafana.SecureValue, error) { return c.Update(ctx, sv) })
}

// Delete deletes the secure value of the session.
func (s *Session) Delete(ctx context.Context) error {
	_, err := call(s, true, func(c *grafana.Client) (struct{}, error) { return struct{}{}, c.Delete(ctx, s.place.Name) })
	return err
}

// Retry makes Close park the object, so that it is handed back after a delay that grows with each time in a row, or as soon
// as the connection is out of trouble.
func (s *Session) Retry() { s.retry = true }

// LabelsNotKept says that Grafana did not keep the labels of a write. It ends the use of the connection but for those who give up
// their places, and returns that trouble.
func (s *Session) LabelsNotKept() error {
	e := s.entry
	trouble := &Trouble{Verdict: classify(s.place.Server, errLabelsNotKept)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.client != e.client { // the spec or the token is another one by now
		return trouble
	}
	e.become(trouble.Verdict)
	e.alarms++
	if e.nextAt.IsZero() { // resyncPeriod is 0s
		e.nextAt = time.Now().Add(gate.Jitter(recheckStalled, resyncJitter))
	}
	s.registry.wakeConnection(e.id)
	return trouble
}

// call makes one call, unless the connection has come into trouble since the session was lent or Grafana has asked to wait, and notes
// what the answer says of the connection. The first call was paid for by the admission.
func call[T any](s *Session, write bool, do func(*grafana.Client) (T, error)) (T, error) {
	s.entry.mu.Lock()
	err := s.entry.use(s.purpose)
	s.entry.mu.Unlock()
	if err == nil && s.calls > 0 && !s.entry.gate.Spend() { // Grafana has asked to wait
		s.Retry()
		err = ErrParked
	}
	if err != nil {
		var none T
		return none, err
	}
	s.calls++
	s.entry.gate.Calls(s.key)
	answer, err := do(s.client)
	s.entry.gate.Answered(s.key)
	if s.entry.note(s.client, write, err) {
		s.registry.wakeConnection(s.entry.id)
	}
	return answer, err
}

// note learns from the outcome of an object's call with that client, and reports whether the connection must be looked at. A refused
// token ends the use of the connection at once. Calls that keep failing, or an answer that no sound connection gives, have it checked
// out of turn; the former are held back until that check has come to a verdict. A write that succeeds proves that writes do. An answer to
// a client that is not used any more says nothing of the one that is.
func (e *entry) note(client *grafana.Client, write bool, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if client != e.client {
		return false
	}
	if errors.Is(err, grafana.ErrUnauthorized) {
		e.exchange(nil) // not even for deletions
		e.last, e.strikes = credentials{}, 0
		e.nextAt = time.Now().Add(recheckUnauthorized)
		e.become(classify(e.basis.server, err))
		e.alarms++
		return true
	}
	retryAfter := retryAfter(err)
	if retryAfter > 0 {
		e.gate.Pause(time.Now().Add(retryAfter)) // it is meant for all of the connection
	}
	if retryAfter >= doubtPeriod { // long enough that all who wait must say why
		verdict := classify(e.basis.server, err)
		if !isOutage(err) {
			verdict = classify(e.basis.server, grafana.ErrRateLimited)
		}
		e.strikes = 0
		e.nextAt = e.gate.PausedUntil()
		e.become(verdict)
		e.alarms++
		return true
	}
	paced := retryAfter > 0 && errors.Is(err, grafana.ErrRateLimited) // Grafana is well, and says when it will serve
	if isOutage(err) {
		e.strikes++
	} else {
		e.strikes = 0
	}
	switch {
	case !write || paced:
	case err == nil:
		e.writes = 0
		e.probes(false)
	case isOutage(err) || isAboutConnection(err):
		e.writes++
	}
	inARow := e.strikes >= doubtAfter || e.writes >= doubtAfter && !e.probing
	if !inARow && (!isAboutConnection(err) || write && e.probing) {
		return false
	}
	if inARow && !paced && e.verdict.Class == status.None {
		e.gate.Hold()
	}
	at := e.lastAt.Add(doubtPeriod)
	if paused := e.gate.PausedUntil(); paused.After(at) {
		at = paused
	}
	if e.nextAt.IsZero() || at.Before(e.nextAt) {
		e.nextAt = at
	}
	return true
}

// retryAfter returns how long Grafana asks to wait.
func retryAfter(err error) time.Duration {
	if failed, ok := errors.AsType[*grafana.Error](err); ok {
		return failed.RetryAfter
	}
	return 0
}
