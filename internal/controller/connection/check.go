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
	known      bool        // false: it was never checked, and waits for its turn
	fresh      bool        // this reconcile checked it
	first      bool        // and it was the first check of this process
	comparison *comparison // nil where no LIST succeeded
}

// check makes sure that the client is the one that spec and Secrets ask for, and lists the secure values if that is due. It returns
// what is known then. An error is one of the Kubernetes API.
func (r *Reconciler) check(ctx context.Context, conn v1alpha1.Connection) (checked, error) {
	id := IDFor(conn)
	versions, complete := r.cachedVersions(ctx, conn)
	var known checked
	turn, epoch := false, 0
	r.registry.with(id, func(e *entry) {
		known, epoch = checked{condition: e.condition, known: e.checked}, e.epoch
		now := configOf(conn, versions)
		if complete && (e.config.secrets != now.secrets || e.config.server != now.server) {
			e.limiter.Pause(time.Time{}) // what asked to wait was another Grafana, or another token
		}
		turn = (!complete || e.isDue(now)) && e.limiter.Admit(checkKey(id), limiter.Check)
	})
	if !turn { // it is not due, or the connection is woken when its turn comes
		return known, nil
	}
	switch a, err := r.attempt(ctx, conn); {
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

// attempt is one check.
type attempt struct {
	config     config
	client     *grafana.Client
	cred       credentials
	comparison *comparison
	err        error // what is wrong with the connection
}

// unreadable are the reasons of credentials that cannot be read now, and may be as they were.
var unreadable = []string{v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonKubernetesRefused}

// attempt makes a client and lists the secure values. Where the credentials are gone, the client is made from their last good content,
// for releases. The error says nothing of the connection.
func (r *Reconciler) attempt(ctx context.Context, conn v1alpha1.Connection) (attempt, error) {
	cred, err := r.credentials(ctx, conn)
	if err != nil && status.Of(err) == nil {
		return attempt{}, err
	}
	id, a := IDFor(conn), attempt{config: configOf(conn, cred.versions), cred: cred, err: err}
	var lastGood *credentials
	r.registry.with(id, func(e *entry) {
		if e.config == a.config {
			a.client = e.client
		}
		lastGood = e.lastGoodFor(a.config)
	})
	switch {
	case err != nil && (lastGood == nil || !slices.Contains(unreadable, status.Of(err).Reason)):
		a.client = nil
	case err != nil && a.client == nil:
		a.client, _ = r.connect(conn, *lastGood) // without a client nothing is released
	case a.client == nil:
		a.client, a.err = r.connect(conn, cred)
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
	missing, err := c.valuesMissing(conn)
	if missing {
		a.err = errValuesMissing
	}
	return a, err
}

// connect makes the client that spec and credentials ask for, if the installation allows it. No call is made.
func (r *Reconciler) connect(conn v1alpha1.Connection, cred credentials) (*grafana.Client, error) {
	spec := conn.GetSpec()
	if err := r.Policy.check(spec); err != nil {
		return nil, err
	}
	id := IDFor(conn)
	cfg := grafana.Config{
		URL:           spec.URL,
		Namespace:     spec.Namespace,
		APIVersion:    spec.APIVersion,
		Token:         cred.token,
		AllowLoopback: r.Policy.allowsLoopback(spec.URL),
		CAData:        cred.ca,
		ClientCert:    cred.cert,
		ClientKey:     cred.key,
		Timeout:       spec.Timeout(),
		UserAgent:     r.UserAgent,
		Observe: func(operation string, code int, took time.Duration) {
			metrics.Request(id, operation, code, took)
		},
	}
	if spec.TLS != nil {
		cfg.ServerName, cfg.InsecureSkipVerify = spec.TLS.ServerName, spec.TLS.InsecureSkipVerify
	}
	c, err := grafana.New(cfg)
	if err != nil {
		return nil, unusableSpec(spec, err)
	}
	return c, nil
}

// isDue reports whether a connection must be checked: it was not with this config, it failed as in an outage, or its time has come.
func (e *entry) isDue(now config) bool {
	return !e.checked || e.config != now || e.condition.Class == status.Time || !e.nextCheck.IsZero() && !time.Now().Before(e.nextCheck)
}

// lastGoodFor returns the credentials with which the last LIST succeeded, if that was the same connection at the same address, with the
// same references and TLS settings. Nil is that there are none.
func (e *entry) lastGoodFor(c config) *credentials {
	good := e.lastGoodConfig
	if e.lastGood.token.Empty() || good.uid != c.uid || good.server != c.server || good.access != c.access {
		return nil
	}
	lastGood := e.lastGood
	return &lastGood
}

// publish makes the result of a check that began in that epoch what objects use. A call of an object that overruled it meanwhile stands.
func (r *Registry) publish(conn v1alpha1.Connection, epoch int, a attempt) checked {
	condition := checkCondition(a.config.server, a.err)
	if condition.Reason == v1alpha1.ReasonKubernetesRefused {
		condition.Class = status.Watch // to objects it is as if credentials were missing, and no outage of Grafana
	}
	if condition.Class == status.None {
		condition.Message += warning(conn.GetSpec())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(IDFor(conn))
	if e.epoch != epoch && e.config == a.config {
		return checked{condition: e.condition, known: e.checked}
	}
	e.exchange(a.client)
	switch condition.Reason {
	case v1alpha1.ReasonConnected:
		e.lastGood, e.lastGoodConfig = a.cred, a.config
	case v1alpha1.ReasonUnauthorized, v1alpha1.ReasonCredentialsInvalid:
		e.lastGood = credentials{}
	}
	perSecond, inFlight := conn.GetSpec().Limits()
	e.limiter.Limit(inFlight, perSecond)
	if wait := retryAfter(a.err); wait > 0 {
		e.limiter.Pause(time.Now().Add(wait))
	}
	first := e.lastCheck.IsZero()
	e.config, e.lastCheck = a.config, time.Now()
	e.become(condition)
	if a.comparison != nil {
		e.orphaned = a.comparison.orphaned
	}
	e.nextCheck = time.Time{}
	if wait := untilCheck(condition, e.checks, conn.GetSpec().ResyncInterval()); wait > 0 {
		e.nextCheck = e.lastCheck.Add(time.Duration(float64(wait) * (1 + checkJitter*rand.Float64())))
	}
	return checked{condition: condition, known: true, fresh: true, first: first, comparison: a.comparison}
}

// untilCheck says when a connection is checked again that was found so for so many checks in a row; zero is when something changes, or,
// after an outage, when the limiter grants the next probe.
func untilCheck(c status.Condition, checks int, resync time.Duration) time.Duration {
	again := firstRecheck << min(checks-1, 10)
	switch {
	case c.Reason == v1alpha1.ReasonUnauthorized:
		return min(again, max(resync, lastRecheck))
	case c.Reason == v1alpha1.ReasonKubernetesRefused:
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

// moved reports whether spec.url of a connection names another Grafana than the one that status names.
func moved(conn v1alpha1.Connection) bool {
	st := conn.GetStatus()
	return st.URL != "" && ServerOf(st.URL) != ServerOf(conn.GetSpec().URL)
}
