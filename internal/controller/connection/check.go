package connection

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

const (
	// firstRecheck is when the first check follows of what a person must fix elsewhere. It doubles with each further check.
	firstRecheck = time.Minute
	lastRecheck  = 10 * time.Minute
	// checkJitter is the share by which a check may be later, so that connections that were made at once do not check in step.
	checkJitter = 0.1
)

// checked is what is known of a connection after a check.
type checked struct {
	condition  status.Condition
	url        string      // of the endpoint
	known      bool        // false: it was never checked, and waits for its turn
	fresh      bool        // this reconcile checked it
	first      bool        // and it was the first check of this process
	comparison *comparison // nil where no LIST succeeded
}

// check makes sure that the client is the one that spec and Secrets ask for, and lists the secure values if that is due. It returns
// what is known then. An error is one of the Kubernetes API.
func (r *Reconciler) check(ctx context.Context, conn v1alpha1.Connection) (checked, error) {
	id := IDFor(conn)
	to, unresolved := r.resolve(ctx, conn)
	if unresolved != nil && status.Of(unresolved) == nil {
		return checked{}, unresolved
	}
	versions, complete := r.cachedVersions(ctx, conn, to)
	var known checked
	turn, epoch := false, 0
	r.registry.with(id, func(e *entry) {
		if to != nil && e.checked && GrafanaRef(conn) != nil && !e.isAt(to) {
			e.invalidate() // the Grafana was edited while it was checked
		}
		known, epoch = e.known(), e.epoch
		now := configOf(conn, to, versions)
		if complete && (e.config.secrets != now.secrets || e.config.server != now.server) {
			e.limiter.Pause(time.Time{}) // what asked to wait was another Grafana, or another token
		}
		turn = (!complete || e.isDue(now)) && e.limiter.Admit(checkKey(id), limiter.Check)
	})
	if !turn { // it is not due, or the connection is woken when its turn comes
		return known, nil
	}
	switch a, err := r.attempt(ctx, conn, to, unresolved); {
	case errors.Is(err, ErrQueued):
		return known, nil
	case ctx.Err() != nil: // the process ends: the check has no result
		return checked{}, ctx.Err()
	case err != nil:
		return checked{}, err
	default:
		return r.registry.publish(conn, epoch, a), nil
	}
}

// known returns what the last check found.
func (e *entry) known() checked {
	known := checked{condition: e.condition, known: e.checked}
	if e.endpoint != nil {
		known.url = e.endpoint.url
	}
	return known
}

// attempt is one check.
type attempt struct {
	config     config
	endpoint   *endpoint
	client     *grafana.Client
	cred       credentials
	comparison *comparison
	err        error // what is wrong with the connection
}

// unreadable are the reasons of credentials, or of a Grafana, that cannot be read now, and may be as they were.
var unreadable = []string{v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonKubernetesRefused, v1alpha1.ReasonGrafanaNotFound}

// attempt makes a client and lists the secure values. Where the credentials are gone, or the Grafana that the connection references, the
// client is made from their last good content, for releases. The error says nothing of the connection.
func (r *Reconciler) attempt(ctx context.Context, conn v1alpha1.Connection, to *endpoint, unresolved error) (attempt, error) {
	var cred credentials
	err := unresolved
	if err == nil {
		cred, err = r.credentials(ctx, conn, to)
	}
	if err != nil && status.Of(err) == nil {
		return attempt{}, err
	}
	id := IDFor(conn)
	var a attempt
	var lastGood *good
	r.registry.with(id, func(e *entry) {
		if to == nil && e.lastGood.isOf(conn) {
			to = e.lastGood.endpoint
		}
		a = attempt{config: configOf(conn, to, cred.versions), endpoint: to, cred: cred, err: err}
		if e.config == a.config {
			a.client = e.client
		}
		lastGood = e.lastGoodFor(a.config)
	})
	switch {
	case err != nil && (lastGood == nil || !slices.Contains(unreadable, status.Of(err).Reason)):
		a.client = nil
	case err != nil && a.client == nil:
		a.client, _ = r.connect(conn, to, lastGood.credentials) // without a client nothing is released
	case a.client == nil:
		a.client, a.err = r.connect(conn, to, cred)
	}
	if a.err != nil {
		return a, nil //nolint:nilerr // it is what the attempt found
	}
	r.registry.with(id, func(e *entry) {
		if !e.limiter.Request(checkKey(id), limiter.Check) {
			err = ErrQueued
		}
	})
	if err != nil {
		return a, err
	}
	c := r.compare(ctx, id)
	if a.err = a.client.List(ctx, "", c.visit); a.err != nil {
		return a, nil //nolint:nilerr // it is what the attempt found
	}
	a.comparison = c
	missing, err := c.valuesMissing(conn, a.config.server)
	if missing {
		a.err = errValuesMissing
	}
	return a, err
}

// connect makes the client that spec, endpoint and credentials ask for, if the installation allows it. No call is made.
func (r *Reconciler) connect(conn v1alpha1.Connection, to *endpoint, cred credentials) (*grafana.Client, error) {
	spec := conn.GetSpec()
	if err := r.Policy.check(to); err != nil {
		return nil, err
	}
	id := IDFor(conn)
	cfg := grafana.Config{
		URL:           to.url,
		Namespace:     spec.Namespace,
		APIVersion:    spec.APIVersion,
		Token:         cred.token,
		AllowLoopback: r.Policy.allowsLoopback(to.url),
		CAData:        cred.ca,
		ClientCert:    cred.cert,
		ClientKey:     cred.key,
		Timeout:       spec.Timeout(),
		UserAgent:     r.UserAgent,
		Observe: func(operation string, code int, took time.Duration) {
			metrics.Request(id, operation, code, took)
		},
	}
	if to.tls != nil {
		cfg.ServerName, cfg.InsecureSkipVerify = to.tls.ServerName, to.tls.InsecureSkipVerify
	}
	c, err := grafana.New(cfg)
	if err != nil {
		return nil, unusableSpec(to, err)
	}
	return c, nil
}

// isDue reports whether a connection must be checked: it was not with this config, it failed as in an outage, or its time has come.
func (e *entry) isDue(now config) bool {
	return !e.checked || e.config != now || e.condition.Class == status.Time || !e.nextCheck.IsZero() && !time.Now().Before(e.nextCheck)
}

// isOf reports whether it is known, and of the Grafana that a connection references.
func (g good) isOf(conn v1alpha1.Connection) bool {
	ref := GrafanaRef(conn)
	return ref != nil && g.endpoint != nil && g.endpoint.grafana == ref.Name && g.config.uid == conn.GetUID()
}

// lastGoodFor returns with what the last LIST succeeded, if that was the same connection at the same address, with the same references and
// TLS settings. Nil is that there is none.
func (e *entry) lastGoodFor(c config) *good {
	last := e.lastGood
	if last.token.Empty() || last.config.uid != c.uid || last.config.server != c.server || last.config.access != c.access {
		return nil
	}
	return &last
}

// publish makes the result of a check that began in that epoch what objects use. A call of an object that overruled it meanwhile stands.
func (r *Registry) publish(conn v1alpha1.Connection, epoch int, a attempt) checked {
	condition := a.endpoint.condition(a.err)
	if condition.Reason == v1alpha1.ReasonKubernetesRefused {
		condition.Class = status.Watch // to objects it is as if credentials were missing, and no outage of Grafana
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(IDFor(conn))
	if e.epoch != epoch && e.config == a.config {
		return e.known()
	}
	e.exchange(a.client)
	switch condition.Reason {
	case v1alpha1.ReasonConnected:
		e.lastGood = good{a.cred, a.config, a.endpoint}
	case v1alpha1.ReasonUnauthorized, v1alpha1.ReasonCredentialsInvalid:
		e.lastGood = good{}
	}
	perSecond, inFlight := conn.GetSpec().Limits()
	e.limiter.Limit(inFlight, perSecond)
	if wait := retryAfter(a.err); wait > 0 {
		e.limiter.Pause(time.Now().Add(wait))
	}
	first := e.lastCheck.IsZero()
	e.config, e.endpoint, e.lastCheck = a.config, a.endpoint, time.Now()
	e.become(condition)
	if a.comparison != nil {
		e.orphaned = a.comparison.orphaned
	}
	e.nextCheck = time.Time{}
	if wait := untilCheck(condition, e.checks, conn.GetSpec().ResyncInterval()); wait > 0 {
		e.nextCheck = e.lastCheck.Add(time.Duration(float64(wait) * (1 + checkJitter*rand.Float64())))
	}
	found := e.known()
	found.fresh, found.first, found.comparison = true, first, a.comparison
	return found
}

// untilCheck says when a connection is checked again that was found so for so many checks in a row; zero is when something changes, or,
// after an outage, when the limiter grants the next probe.
func untilCheck(c status.Condition, checks int, resync time.Duration) time.Duration {
	again := firstRecheck << min(checks-1, 10)
	switch {
	case c.Reason == v1alpha1.ReasonUnauthorized:
		return min(again, max(resync, lastRecheck))
	case c.Reason == v1alpha1.ReasonKubernetesRefused, c.Reason == v1alpha1.ReasonGrafanaNotFound: // its kind is not watched before it is there
		return time.Second << min(checks-1, 5)
	case c.Class == status.Time, c.Class == status.Watch, c.Class == status.Here:
		return 0
	case c.Class == status.Elsewhere && resync == 0:
		return min(again, lastRecheck)
	case c.Class == status.Elsewhere:
		return min(again, lastRecheck, resync)
	default:
		return resync
	}
}

// untilNext returns the time until the next check; zero means that a change triggers it.
func (e *entry) untilNext() time.Duration {
	if e.nextCheck.IsZero() {
		return 0
	}
	return max(time.Until(e.nextCheck), time.Millisecond)
}

// moved reports whether a connection is at another server than the one that status names.
func moved(conn v1alpha1.Connection, server string) bool {
	st := conn.GetStatus()
	return st.URL != "" && ServerOf(st.URL) != server
}
