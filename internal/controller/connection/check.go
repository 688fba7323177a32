package connection

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/watchdog"
)

// When a connection is checked again. Each delay is jittered.
const (
	firstRecheck        = 5 * time.Second
	lastRecheck         = 15 * time.Second
	recheckJitter       = 0.4              // only upwards: at most 5 checks a minute, from the first on
	recheckUnauthorized = 5 * time.Minute  // a new token is noticed at once
	recheckStalled      = 10 * time.Minute // where resyncPeriod is 0s
	resyncJitter        = 0.1
)

// askTimeout bounds all that one check asks Grafana, however many pages a LIST has.
const askTimeout = watchdog.Limit - time.Minute

// finding is what is known of a connection.
type finding struct {
	status.Verdict

	fresh bool // a LIST was made, or it was not found before
	first bool // by the first check of this process

	listing Listing // of the LIST just made
	survey  *Survey // nil where none succeeded
}

// check makes sure that the client of the connection is the one that spec and Secrets ask for, and that its last LIST is
// not older than it may be. It returns what the last check found. An error is one of the Kubernetes API, or ErrParked: the connection is
// brought back when it is its turn.
func (r *Reconciler) check(ctx context.Context, conn v1alpha1.Connection) (finding, error) {
	e := r.registry.entry(IDFor(conn))

	if versions, known := r.cachedVersions(ctx, conn); known && e.current(basisOf(conn, versions), r.now()) {
		return finding{Verdict: e.lastVerdict()}, nil
	}
	if meta.IsStatusConditionTrue(conn.GetStatus().Conditions, v1alpha1.ConditionReady) {
		e.turn.Trust()
	}
	turn := e.id.key()
	if !e.turn.Admit(turn, gate.Hold) {
		return finding{}, ErrParked
	}
	defer e.turn.Done(turn, gate.Hold, false)
	cred, err := r.credentials(ctx, conn)
	if _, ours := errors.AsType[*status.Fault](err); err != nil && !ours {
		return finding{}, err // the API server's: nothing was learnt of the connection
	}
	b := basisOf(conn, cred.versions)
	return r.learn(ctx, conn, e, b, cred, err)
}

// learn asks Grafana and publishes what came of it. A process that is told to stop while it asks has learnt nothing.
func (r *Reconciler) learn(ctx context.Context, conn v1alpha1.Connection, e *entry, b basis, cred credentials, credErr error) (finding, error) {
	alarms := e.countAlarms()
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := r.ask(asking, conn, e, b, cred, credErr)
	if ctx.Err() != nil {
		return finding{}, ctx.Err()
	}
	if apiErr, ok := errors.AsType[*surveyError](err); ok {
		return finding{}, apiErr
	}
	return r.publish(conn, e, b, alarms, found, err), nil
}

// connected is a client, and the credentials that it was made with.
type connected struct {
	client *grafana.Client
	cred   credentials
	listed bool // it was asked

	listing Listing // where it answered
	survey  *Survey
}

// ask lists the values with the credentials, whose fault is credErr. Where they are gone, it returns what their last good
// content makes of the present spec, for those who give up.
func (r *Reconciler) ask(ctx context.Context, conn v1alpha1.Connection, e *entry, b basis, cred credentials, credErr error) (connected, error) {
	if credErr != nil {
		last, known := e.lastGood(b)
		if !known || !isCredentialsNotFound(credErr) {
			return connected{}, credErr
		}
		client := e.clientOf(b)
		if client == nil {
			client, _ = r.connect(conn, last) // without one nothing is given up
		}
		return connected{client: client, cred: last}, credErr
	}
	found := connected{client: e.clientOf(b), cred: cred}
	if found.client == nil {
		client, err := r.connect(conn, cred)
		if err != nil {
			return connected{}, err
		}
		found.client = client
	}
	surveyor, err := r.objects.Survey(ctx, e.id)
	if err != nil {
		return found, &surveyError{err}
	}
	found.listed = true
	begun := r.now()
	e.gate.Spend() // it is one of the connection's requests, and does not wait for the others
	e.turn.Calls(e.id.key())
	err = found.client.List(ctx, "", surveyor.See, r.objects.Marks...)
	e.turn.Answered(e.id.key())
	if err != nil {
		return found, err
	}
	survey := surveyor.Result()
	found.listing, found.survey = Listing{Values: surveyor.Values, Begun: begun}, &survey
	return found, verify(conn, e.lastVerdict(), survey)
}

// surveyError is an error of the Kubernetes API, which says nothing of the connection.
type surveyError struct{ error }

func (e *surveyError) Unwrap() error { return e.error }

// verify says what a LIST that succeeded proves all the same to be wrong.
//
//	the URL is another one, values are recorded, none of them is listed      ValuesMissing
//	labels were not kept, the spec is the same, no listed value has ours     LabelsNotKept
func verify(conn v1alpha1.Connection, last status.Verdict, survey Survey) error {
	st := conn.GetStatus()
	moved := st.URL != "" && ServerOf(st.URL) != ServerOf(conn.GetSpec().URL)
	ready := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
	forgetful := last.Reason == v1alpha1.ReasonLabelsNotKept || ready != nil && ready.Reason == v1alpha1.ReasonLabelsNotKept
	sameSpec := st.ObservedGeneration == conn.GetGeneration()
	switch {
	case moved && survey.Recorded > 0 && survey.Present == 0:
		return errValuesMissing
	case forgetful && sameSpec && !survey.Marked:
		return errLabelsNotKept
	default:
		return nil
	}
}

// publish records a check that was begun after so many alarms, and opens or closes the gate by it. One of the same basis that has come
// meanwhile is not overruled: what the check saw may be older.
func (r *Reconciler) publish(conn v1alpha1.Connection, e *entry, b basis, alarms int, with connected, err error) finding {
	verdict := classify(b.server, err)
	if verdict.Class == status.None {
		verdict.Message += remark(conn.GetSpec())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.basis == b && e.alarms != alarms {
		return finding{Verdict: e.verdict}
	}
	e.exchange(with.client)
	switch verdict.Reason {
	case v1alpha1.ReasonConnected:
		e.last, e.lastFor = with.cred, b
	case v1alpha1.ReasonUnauthorized, v1alpha1.ReasonCredentialsInvalid:
		e.last = credentials{}
	}
	perSecond, inFlight := conn.GetSpec().Limits()
	e.gate.Limit(inFlight, float64(perSecond))
	first := !e.checked
	if e.basis != b {
		e.writes = 0 // of something else
		if verdict.Class == status.None {
			e.gate.Resume() // who asked to wait was asked with another token, or was another
		}
	}
	changed := e.become(verdict)
	e.basis, e.lastAt, e.strikes = b, r.now(), 0
	if with.survey != nil {
		e.unowned = with.survey.Unowned
	}
	if verdict.Class == status.Time {
		e.failures++
	} else {
		e.failures = 0
	}
	e.nextAt = nextCheck(e.lastAt, verdict, err, e.failures, conn.GetSpec().ResyncInterval())
	return finding{Verdict: verdict, fresh: with.listed || changed, first: first, listing: with.listing, survey: with.survey}
}

// nextCheck says when a connection is checked again; zero is never.
func nextCheck(now time.Time, v status.Verdict, err error, failures int, resync time.Duration) time.Time {
	switch {
	case v.Class == status.Time:
		wait := gate.Later(min(time.Duration(failures)*firstRecheck, lastRecheck), recheckJitter)
		if e, ok := errors.AsType[*grafana.Error](err); ok {
			wait = max(wait, e.RetryAfter)
		}
		return now.Add(wait)
	case v.Reason == v1alpha1.ReasonUnauthorized:
		return now.Add(gate.Jitter(max(resync, recheckUnauthorized), resyncJitter))
	case v.Class == status.Watch, v.Class == status.Here:
		return time.Time{} // the Secret or the spec must change first, and both are watched
	case resync > 0:
		return now.Add(gate.Jitter(resync, resyncJitter))
	case v.Class == status.Elsewhere:
		return now.Add(gate.Jitter(recheckStalled, resyncJitter))
	default:
		return time.Time{}
	}
}

// current reports whether the last check was of this basis and is recent enough, or Grafana has asked to wait.
func (e *entry) current(b basis, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.checked && e.basis == b && (e.nextAt.IsZero() || now.Before(e.nextAt) || now.Before(e.gate.PausedUntil()))
}

// clientOf returns the client that was made from this basis, or nil.
func (e *entry) clientOf(b basis) *grafana.Client {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.basis != b {
		return nil
	}
	return e.client
}

// lastGood returns the credentials with which the last LIST succeeded, if that was of the same connection at the same address: what
// is there under another one is not known.
func (e *entry) lastGood(b basis) (credentials, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last, !e.last.token.Empty() && e.lastFor.uid == b.uid && e.lastFor.server == b.server
}

func (e *entry) countAlarms() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.alarms
}

func (e *entry) lastVerdict() status.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.verdict
}

// untilNext returns how long the connection may rest; zero is until something changes.
func (e *entry) untilNext(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.nextAt.IsZero() {
		return 0
	}
	return max(e.nextAt.Sub(now), e.gate.PausedUntil().Sub(now), time.Millisecond)
}

// connect makes the client that spec and credentials ask for, if the installation's policy lets it. No call is made.
func (r *Reconciler) connect(conn v1alpha1.Connection, cred credentials) (*grafana.Client, error) {
	spec := conn.GetSpec()
	if err := r.policy.check(spec); err != nil {
		return nil, err
	}
	cfg := grafana.Config{
		URL:           spec.URL,
		Namespace:     spec.Namespace,
		APIVersion:    spec.APIVersion,
		Token:         cred.token,
		AllowLoopback: r.policy.allowsLoopback(spec.URL),
		CAData:        cred.ca,
		ClientCert:    cred.cert,
		ClientKey:     cred.key,
		Timeout:       spec.Timeout(),
		UserAgent:     r.userAgent,
		Observe:       IDFor(conn).observe,
	}
	if spec.TLS != nil {
		cfg.ServerName, cfg.InsecureSkipVerify = spec.TLS.ServerName, spec.TLS.InsecureSkipVerify
	}
	c, err := grafana.New(cfg)
	if err != nil {
		return nil, unusable(spec, err)
	}
	return c, nil
}

func basisOf(conn v1alpha1.Connection, secrets string) basis {
	return basis{
		uid:        conn.GetUID(),
		generation: conn.GetGeneration(),
		secrets:    secrets,
		server:     ServerOf(conn.GetSpec().URL),
	}
}
