package securevalue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// waitError says how long to wait. Without a condition there is nothing to report for so short a time, for example before a target is
// released.
type waitError struct {
	after time.Duration
	what  string
	says  error // what to report meanwhile; may be nil
}

func (e *waitError) Error() string { return fmt.Sprintf("wait %s for %s", e.after, e.what) }

func (e *waitError) Unwrap() error { return e.says }

// release makes targets none of the object's any more. One that cannot be released does not keep the others; the error that says most is
// returned. Wanted is what the spec of a living object names; nil where the object is being deleted.
func (r *Reconciler) release(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, targets []ownership.Target, wanted *desired,
) error {
	var first error
	for _, t := range targets {
		err := r.releaseTarget(ctx, sv, rec, t, wanted)
		if status.Of(err) != nil {
			err = blocked(sv, rec, t, err)
		}
		if first == nil || status.Of(err) != nil && status.Of(first) == nil {
			first = err
		}
	}
	return first
}

func (r *Reconciler) releaseTarget(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target, wanted *desired,
) error {
	if sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		done := changeKind("")
		if rec.wrote(t) {
			done = retained
		}
		rec.release(t, done)
		return nil
	}
	conn, err := r.connectionForRelease(ctx, sv, rec, t)
	if errors.Is(err, errNotServed) {
		rec.release(t, "")
		return nil
	}
	if err != nil {
		return err
	}
	place := r.placeOf(conn, t)
	if wanted != nil && place.Server != "" && place == wanted.place { // the same value, through another connection
		rec.release(t, "")
		return nil
	}
	session, err := r.connections.Acquire(conn, place, keyOf(sv), limiter.Release)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := r.isUnchanged(ctx, sv); err != nil {
		return err
	}
	return r.leave(ctx, session, sv, rec, t, wanted)
}

// leave observes what is at a target, and takes the step that departure names.
func (r *Reconciler) leave(
	ctx context.Context, session *connection.Session, sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target, wanted *desired,
) error {
	found, err := session.Get(ctx)
	at := r.now()
	if err != nil {
		return err
	}
	d, err := r.departure(ctx, session.Place, sv, t, found, wanted)
	if err != nil {
		return err
	}
	unknown := &waitError{after: r.untilOutcomeKnown(session), what: "the outcome of an earlier write"}
	switch d.decide() {
	case waitForOwner:
		return r.waitFor(d.owner)
	case waitForSuccessor:
		return r.waitFor(d.unclaimed...)
	case forget:
		if unknown.after > 0 {
			return unknown
		}
		rec.release(t, "")
		return nil
	case remove:
	}
	conn, err := r.getConnection(ctx, t.Connection, sv.Namespace)
	if err != nil || r.now().Sub(at) > maxAge {
		return cmp.Or(client.IgnoreNotFound(err), errChanged)
	}
	r.connections.Expect(conn)
	if unknown.after > 0 { // a 404 would prove nothing yet
		if err := session.Delete(ctx); err != nil {
			return err
		}
		rec.changes = append(rec.changes, change{kind: deleted, cause: rec.leaving, target: t})
		return unknown
	}
	if err := deleteForSure(ctx, session); err != nil {
		return err
	}
	rec.release(t, deleted)
	return nil
}

// waitFor wakes objects, and waits for them until their time is over.
func (r *Reconciler) waitFor(objects ...*v1alpha1.GrafanaSecureValue) error {
	wait := &waitError{what: "other objects"}
	for _, o := range objects {
		r.connections.Objects.Wake(keyOf(o))
		wait.after = max(wait.after, r.untilTimeout(o))
	}
	return wait
}

// departure is what decides how an object leaves a target.
type departure struct {
	found      bool
	label      ownership.Owner // what the owner label says
	moved      bool            // the value is the wanted one, reached by another address
	retained   bool            // the value carries the retain label
	owner      *v1alpha1.GrafanaSecureValue
	ownerNames bool // the owner's spec names the place
	ownerLists bool // the owner owns the place or has it pending
	ownerLate  bool // it was given its time
	claimed    bool // a successor has claimed the place
	unclaimed  []*v1alpha1.GrafanaSecureValue
	late       bool // they were given their time
}

// step is how an object leaves a target.
type step string

const (
	forget           step = "forget"
	remove           step = "remove" // DELETE, proved by a 404
	waitForOwner     step = "waitForOwner"
	waitForSuccessor step = "waitForSuccessor"
)

// decide returns the step of an object that leaves a target and does not retain the value. Whichever object leaves last deletes.
//
//	nothing there, or the wanted value by another address              forget
//	ours, a successor has claimed it                                   forget
//	ours, a successor has not claimed it yet                           wait, at most a minute
//	ours, no successor                                                 remove
//	another object's of the namespace, which names it                  wait until it has claimed it, at most a minute; forget
//	another object's of the namespace, which still lists it            wait until it has released it, at most a minute; forget
//	another object's of the namespace, retained                        forget
//	another object's of the namespace, which is gone or left it        as ours
//	anyone else's                                                      forget
func (d departure) decide() step {
	sibling := d.label == ownership.Sibling
	switch {
	case !d.found, d.moved, d.label != ownership.Self && !sibling:
		return forget
	case sibling && d.retained && !d.ownerNames:
		return forget
	case sibling && d.ownerNames != d.ownerLists && !d.ownerLate:
		return waitForOwner
	case sibling && (d.ownerNames || d.ownerLists):
		return forget
	case d.claimed:
		return forget
	case len(d.unclaimed) > 0 && !d.late:
		return waitForSuccessor
	default:
		return remove
	}
}

// departure reads live what decides how the object leaves the place.
func (r *Reconciler) departure(
	ctx context.Context, place ownership.Place, sv *v1alpha1.GrafanaSecureValue, t ownership.Target, found *grafana.SecureValue, wanted *desired,
) (departure, error) {
	if found == nil {
		return departure{}, nil
	}
	label := found.Labels[ownership.LabelConnection]
	d := departure{
		found: true, label: ownership.LabelsOf(r.clusterID, sv, t.Connection).OwnerOf(found), retained: found.Labels[ownership.LabelRetain] != "",
	}
	d.moved = d.label == ownership.Self && wanted != nil && wanted.target.Connection != t.Connection &&
		label == wanted.labels.Connection.Label()
	if d.label != ownership.Self && d.label != ownership.Sibling {
		return d, nil
	}
	var err error
	if d.label == ownership.Sibling {
		if d.owner, err = r.owner(ctx, sv.Namespace, found.Labels[ownership.LabelOwner]); err != nil {
			return d, err
		}
		if o := d.owner; o != nil && o.DeletionTimestamp.IsZero() {
			d.ownerNames, d.ownerLists = r.names(ctx, o, place, found), r.lists(ctx, o, place, found)
			d.ownerLate = r.untilTimeout(o) <= 0 || o.Spec.Suspend
		}
	}
	d.claimed, d.unclaimed, err = r.successors(ctx, sv, place, found)
	d.late = !slices.ContainsFunc(d.unclaimed, func(o *v1alpha1.GrafanaSecureValue) bool { return r.untilTimeout(o) > 0 })
	return d, err
}

// isUnchanged makes sure that an object is, for the API server too, what this reconcile decides by: a target that its spec names again, or
// that is to be retained by now, is not deleted. An object that is known to be gone has no UID.
func (r *Reconciler) isUnchanged(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) error {
	if sv.UID == "" {
		return nil
	}
	live, err := r.get(ctx, keyOf(sv))
	if err != nil || live != nil && live.UID == sv.UID && live.ResourceVersion == sv.ResourceVersion {
		return err
	}
	if live == nil || live.UID != sv.UID {
		r.memory.wrote(sv, true, r.now()) // the next reconcile waits for the cache to show it
	} else {
		r.memory.wrote(live, false, r.now())
	}
	return errChanged
}

// untilOutcomeKnown returns how long a write at the session's place, of this process or of one before it, may still take effect. Until
// then the target is neither forgotten, nor is a 404 believed.
func (r *Reconciler) untilOutcomeKnown(session *connection.Session) time.Duration {
	until := r.leadingFrom().Add(session.Timeout)
	if known := r.connections.UnknownUntil(session.Place); known.After(until) {
		until = known
	}
	return until.Sub(r.now())
}

// connectionForRelease returns the connection through which a target is released, or errNotServed.
func (r *Reconciler) connectionForRelease(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target,
) (v1alpha1.Connection, error) {
	id := ownership.ConnectionOf(t.Connection, sv.Namespace)
	if !r.served.Has(id.Kind) {
		return nil, watch(v1alpha1.ReasonConnectionNotFound, "%s is not served. %s", id, r.served.WhyNot(id.Kind))
	}
	conn, err := r.getConnection(ctx, t.Connection, sv.Namespace)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err != nil || !conn.GetDeletionTimestamp().IsZero() && !controllerutil.ContainsFinalizer(conn, v1alpha1.Finalizer) {
		return nil, watch(v1alpha1.ReasonConnectionNotFound, "%s does not exist any more.", id)
	}
	if conn.GetSpec().Namespace != t.Namespace { // made anew: a call would meet another value of that name
		return nil, watch(v1alpha1.ReasonConnectionNotReady, "%s is of another namespace of Grafana than the one written to.", id)
	}
	if ownership.Record(rec.targets, t) != nil {
		return conn, nil
	}
	// Anybody may write a pending target: it gives no right to call through a connection that does not allow the namespace.
	allowed, err := connection.Allows(ctx, r.client, conn, sv.Namespace)
	if err == nil && !allowed {
		return nil, errNotServed
	}
	return conn, err
}

// errNotServed says that the object could never write a pending target, so that there is nothing to release.
var errNotServed = errors.New("target not served")

// uses reports whether an object names, owns or has pending the same place in Grafana as a target.
func (r *Reconciler) uses(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, t ownership.Target) bool {
	conn, err := r.getConnection(ctx, t.Connection, sv.Namespace)
	if err != nil {
		return true
	}
	place := r.placeOf(conn, t)
	return r.names(ctx, sv, place, nil) || r.lists(ctx, sv, place, nil)
}

// releaseVanished releases what this reconcile wrote for an object that is gone. The API server can remove an object although our finalizer
// has just been put on it, where both happen at the same time. What cannot be released now is counted as orphaned.
func (r *Reconciler) releaseVanished(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record) {
	again, err := r.get(ctx, keyOf(sv))
	targets := slices.DeleteFunc(slices.Clone(rec.written), func(t ownership.Target) bool {
		return again != nil && r.uses(ctx, again, t) // it has the same owner label
	})
	gone := sv.DeepCopy()
	gone.UID, gone.DeletionTimestamp = "", &metav1.Time{Time: r.now()}
	if err == nil {
		err = r.release(ctx, gone, rec, targets, nil)
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Secure value of an object that vanished was not released")
	}
}
