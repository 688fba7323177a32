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
)

// When a connection is checked again. Each delay is jittered.
const (
	firstRecheck        = time.Second
	lastRecheck         = 15 * time.Second // with jitter at least 12 s: at most 5 checks a minute
	recheckUnauthorized = 5 * time.Minute  // a new token is noticed at once
	recheckStalled      = 10 * time.Minute // where resyncPeriod is 0s
	resyncJitter        = 0.1
)

// finding is what is known of a connection.
type finding struct {
	status.Verdict

	fresh bool // it was found just now
	first bool // by the first check of this process
}

// check makes sure that the client of the connection is the one that spec and Secrets ask for, and that its last LIST is
// not older than it may be. It returns what the last check found. An error is one of the Kubernetes API.
func (r *Reconciler) check(ctx context.Context, conn v1alpha1.Connection) (finding, error) {
	e := r.registry.entry(idOf(conn))

	if versions, known := r.cachedVersions(ctx, conn); known && e.current(basisOf(conn, versions), r.now()) {
		return finding{Verdict: e.lastVerdict()}, nil
	}
	cred, err := r.credentials(ctx, conn)
	if _, ours := errors.AsType[*status.Fault](err); err != nil && !ours {
		return finding{}, err // the API server's: nothing was learnt of the connection
	}
	b := basisOf(conn, cred.versions)
	found, err := r.ask(ctx, conn, e, b, cred, err)
	if apiErr, ok := errors.AsType[*surveyError](err); ok {
		return finding{}, apiErr
	}
	return r.publish(conn, e, b, found, err), nil
}

// connected is a client, and the credentials that it was made with.
type connected struct {
	client *grafana.Client
	cred   credentials
}

// ask lists the values with the credentials, whose fault is credErr. Where they are gone, it returns what their last good
// content makes of the present spec, for those who give up.
func (r *Reconciler) ask(ctx context.Context, conn v1alpha1.Connection, e *entry, b basis, cred credentials, credErr error) (connected, error) {
	if credErr != nil {
		last, known := e.lastGood(b)
		if !known || !isCredentialsNotFound(credErr) {
			return connected{}, credErr
		}
		client, err := r.connect(conn, last)
		if err != nil {
			return connected{}, credErr
		}
		return connected{client, last}, credErr
	}
	found := connected{client: e.clientOf(b), cred: cred}
	if found.client == nil {
		client, err := r.connect(conn, cred)
		if err != nil {
			return connected{}, err
		}
		found.client = client
	}
	values, err := found.client.List(ctx, "")
	if err != nil {
		return found, err
	}
	survey, err := r.objects.Survey(ctx, e.id, values)
	if err != nil {
		return found, &surveyError{err}
	}
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

// publish records a check and opens or closes the gate by it.
func (r *Reconciler) publish(conn v1alpha1.Connection, e *entry, b basis, with connected, err error) finding {
	verdict := classify(e.id, err)
	e.mu.Lock()
	first := !e.checked
	changed := first || e.verdict.Reason != verdict.Reason
	if with.client != e.client && e.client != nil {
		e.client.CloseIdleConnections()
	}
	e.client = with.client
	switch verdict.Reason {
	case v1alpha1.ReasonConnected:
		e.last, e.lastFor = with.cred, b
	case v1alpha1.ReasonUnauthorized, v1alpha1.ReasonCredentialsInvalid:
		e.last = credentials{}
	}
	e.basis, e.checked, e.verdict, e.lastAt, e.strikes = b, true, verdict, r.now(), 0
	if verdict.Class == status.Time {
		e.failures++
	} else {
		e.failures = 0
	}
	e.nextAt = nextCheck(e.lastAt, verdict, err, e.failures, conn.GetSpec().ResyncInterval())
	orphaned := e.orphaned()
	e.mu.Unlock()

	switch {
	case verdict.Class == status.None:
		e.gate.Open()
	case changed && orphaned:
		e.gate.Restrict()
	case changed:
		e.gate.Close()
	}
	return finding{Verdict: verdict, fresh: true, first: first}
}

// nextCheck says when a connection is checked again; zero is never.
func nextCheck(now time.Time, v status.Verdict, err error, failures int, resync time.Duration) time.Time {
	switch {
	case v.Class == status.Time:
		wait := gate.Backoff(failures-1, firstRecheck, lastRecheck)
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

// current reports whether the last check was of this basis and is recent enough.
func (e *entry) current(b basis, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.checked && e.basis == b && (e.nextAt.IsZero() || now.Before(e.nextAt))
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
	return max(e.nextAt.Sub(now), time.Millisecond)
}

// connect makes the client that spec and credentials ask for. No call is made.
func (r *Reconciler) connect(conn v1alpha1.Connection, cred credentials) (*grafana.Client, error) {
	spec := conn.GetSpec()
	cfg := grafana.Config{
		URL:        spec.URL,
		Namespace:  spec.Namespace,
		APIVersion: spec.APIVersion,
		Token:      cred.token,
		CAData:     cred.ca,
		Timeout:    spec.Timeout(),
		UserAgent:  r.userAgent,
	}
	if spec.TLS != nil {
		cfg.ServerName = spec.TLS.ServerName
	}
	c, err := grafana.New(cfg)
	if err != nil && !errors.Is(err, grafana.ErrTLS) {
		return nil, invalidSpec(err)
	}
	return c, err
}

func basisOf(conn v1alpha1.Connection, secrets string) basis {
	return basis{
		uid:        conn.GetUID(),
		generation: conn.GetGeneration(),
		secrets:    secrets,
		server:     ServerOf(conn.GetSpec().URL),
	}
}

func idOf(conn v1alpha1.Connection) ID {
	return ID{Kind: conn.ConnectionKind(), Namespace: conn.GetNamespace(), Name: conn.GetName()}
}
