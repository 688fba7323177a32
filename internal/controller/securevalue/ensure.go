package securevalue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/limiter"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const (
	// maxSteps bounds the steps of one reconcile at one target: others may write there between ours.
	maxSteps = 6
	// maxAge is how old what Grafana showed may be when a write that rests on it begins.
	maxAge = 5 * time.Second
)

// ensure makes the wanted target have the value. The Secret is read only once it is this object's turn, and also where the connection
// cannot be used, so that an object that has nothing to write does not complain.
func (r *Reconciler) ensure(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, rec *record) error {
	operation := limiter.Change
	if !rec.wrote(want.target) {
		operation = limiter.Create
	}
	session, unavailable := r.connections.Acquire(want.connection, want.place, keyOf(sv), operation)
	if unavailable != nil && status.Of(unavailable) == nil {
		return unavailable
	}
	defer session.Close()

	seen := observedInStatus(sv, rec, want.target)
	contended, err := r.isContended(ctx, sv, want)
	if err != nil {
		return err
	}
	if seen.known = seen.known || contended; contended && session != nil && !isClaimed(sv, rec, want.target) {
		if err := r.claim(ctx, sv, rec, want.target); err != nil { // before the Secret: whoever leaves the target must see it
			return err
		}
	}
	if err := r.readSource(ctx, sv, want); err != nil {
		return err
	}
	again := seen.record.IsWritten() && seen.record.Generation == 0 // an earlier attempt had no answer
	rec.rotation = (seen.settled || again) && !want.again && !sameValue(want, seen.record)
	if rec.rotation && seen.settled {
		if err := r.mayRotate(sv); err != nil {
			return err
		}
	}
	seen.candidate = r.connections.MayHaveDrifted(keyOf(sv))
	seen.limit = r.memory.limitReached(keyOf(sv), r.now())
	if step, _ := decide(want, seen); step == keep {
		rec.own(want, nil, nil, r.now())
		return nil
	}
	err = unavailable
	if err == nil {
		err = r.settle(ctx, session, sv, want, rec, seen)
	}
	if e := status.Of(err); e == nil || e.Reason == v1alpha1.ReasonKubernetesRefused || e.Class != status.Time && e.Class != status.Watch {
		return err
	}
	if seen.settled && sameValue(want, seen.record) && !want.again && (isReady(sv) || seen.reported) {
		return &unreportedError{err} // there is nothing to write: only drift is looked for
	}
	rec.outcomeUnknown(want.target) // with the one report: what comes of the tries until it is served needs no further one
	return err
}

// unreportedError is an error that changes nothing for whoever reads status.
type unreportedError struct{ error }

func (e *unreportedError) Unwrap() error { return e.error }

// isClaimed reports whether the object shows that it has the target pending, or owns it.
func isClaimed(sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target) bool {
	return rec.has(t) && controllerutil.ContainsFinalizer(sv, v1alpha1.Finalizer)
}

// settle takes the steps that decide names, until the target has what is desired.
func (r *Reconciler) settle(
	ctx context.Context, session *connection.Session, sv *v1alpha1.GrafanaSecureValue, want *desired, rec *record, seen observed,
) error {
	var changed error // another writer was there since it was observed
	for range maxSteps {
		step, err := decide(want, seen)
		if err != nil {
			return err
		}
		switch step {
		case keep:
			rec.own(want, seen.found, nil, r.now())
			return nil
		case create, update, takeOver:
			if err := r.mayWrite(ctx, sv, want, rec, seen, step); err != nil {
				return err
			}
			if seen.asked && r.now().Sub(seen.at) > maxAge {
				break // it may have changed
			}
			err := r.write(ctx, session, want, rec, seen, step)
			if !isChangedMeanwhile(err) {
				return err
			}
			changed = err
		case observe:
		}
		if seen, err = r.observe(ctx, session, sv, want, seen); err != nil {
			return err
		}
	}
	return cmp.Or(changed, errChanged)
}

// mayWrite asks again whether the connection allows the write, and claims the target before a write of a value that is not ours yet.
func (r *Reconciler) mayWrite(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, rec *record, seen observed, step action,
) error {
	err := r.stillAllowed(ctx, sv, want)
	if err == nil {
		_, err = decide(want, seen) // which may forbid adoption by now
	}
	if err != nil {
		return err
	}
	if step == update || rec.claimed {
		return nil
	}
	return r.claim(ctx, sv, rec, want.target)
}

// observe asks Grafana what is there, and whose that is.
func (r *Reconciler) observe(
	ctx context.Context, session *connection.Session, sv *v1alpha1.GrafanaSecureValue, want *desired, seen observed,
) (observed, error) {
	found, err := session.Get(ctx)
	seen.at = r.now()
	if err != nil {
		seen.asked, seen.found = false, nil
		return seen, err
	}
	return r.classify(ctx, sv, want, seen, found)
}

// classify says whose the value is that Grafana showed, which may be nothing.
func (r *Reconciler) classify(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, seen observed, found *grafana.SecureValue,
) (observed, error) {
	if seen.asked, seen.found = true, found; found == nil {
		return seen, nil
	}
	seen.owner, seen.by = want.labels.OwnerOf(found), ""
	switch {
	case seen.owner == ownership.Self, seen.owner == ownership.Nobody && isStripped(seen):
		seen.class = ours
	case seen.owner == ownership.Nobody, seen.owner == ownership.OtherCluster:
		seen.class = adoptable
	case seen.owner == ownership.Sibling:
		seen.class = foreign
		owner, err := r.owner(ctx, sv.Namespace, found.Labels[ownership.LabelOwner])
		switch {
		case err != nil:
			return seen, err
		case owner == nil || !r.names(ctx, owner, want.place, found):
			seen.class = claimable
		default:
			seen.by = owner.Name
		}
	default:
		seen.class = foreign
	}
	return seen, nil
}

// isStripped reports whether a value without owner labels is the very one on record, whose labels another writer dropped.
func isStripped(seen observed) bool {
	return seen.record.IsWritten() && seen.record.CreatedAt != nil && !seen.found.CreatedAt.IsZero() &&
		ownership.SameAge(seen.found, seen.record)
}

// write creates the value, or replaces what was found. Where Grafana drops our labels, a value that we created is deleted again.
func (r *Reconciler) write(
	ctx context.Context, session *connection.Session, want *desired, rec *record, seen observed, step action,
) error {
	do := session.Update
	if step == create {
		do = session.Create
	}
	want.kept = keepsDescription(want, rec, seen, step)
	done := changeOf(want, rec, seen, step)
	answer, err := do(ctx, want.secureValue(seen.found))
	if err != nil {
		return err
	}
	if !want.labels.Match(answer.Labels) {
		done.version = answer.Version
		rec.changes = append(rec.changes, done)
		if step != create {
			return labelsNotKept(want)
		}
		if err := deleteForSure(ctx, session); err != nil {
			return err
		}
		rec.changes = append(rec.changes, change{kind: deleted, cause: causeLabels, target: want.target})
		return labelsNotKept(want)
	}
	if answer.Version == 0 { // it is accepted, and its version not told: ask once
		if shown, err := session.Get(ctx); err == nil && shown != nil {
			answer = shown
		}
	}
	rec.own(want, answer, &done, r.now())
	return nil
}

// keepsDescription reports whether a write keeps the description that Grafana has: spec gives none, and the value is or was adopted.
func keepsDescription(want *desired, rec *record, seen observed, step action) bool {
	adopts := seen.class == adoptable ||
		seen.class == ours && !rec.wrote(want.target) && seen.found.Description != v1alpha1.DefaultDescription // or did, and status does not say so
	return want.kept || step != create && adopts && want.description == ""
}

// changeOf says what a write is, in the words of a person.
func changeOf(want *desired, rec *record, seen observed, step action) change {
	old, others := ownership.Record(rec.targets, want.target), rec.others(want.target)
	from := slices.IndexFunc(others, rec.wrote)
	drift := driftOf(want, seen)
	switch {
	case step == takeOver:
		return change{kind: adopted, cause: "adopted", target: want.target}
	case drift != "":
		return change{kind: driftCorrected, cause: "drift", target: want.target, drift: drift}
	case old == nil && from >= 0:
		return change{kind: moved, cause: "moved", target: want.target, from: &others[from]}
	case step == create, old == nil:
		return change{kind: created, cause: "created", target: want.target}
	case !sameValue(want, old):
		return change{kind: rotated, cause: "rotated", target: want.target}
	case want.again:
		return change{kind: updated, cause: "sync_now", target: want.target}
	default:
		return change{kind: updated, cause: "edited", target: want.target}
	}
}

// secureValue returns the body of a write: over what was found, whose labels and annotations that are not ours are kept, and whose
// resourceVersion goes with it.
func (d *desired) secureValue(found *grafana.SecureValue) *grafana.SecureValue {
	sv := &grafana.SecureValue{}
	if found != nil {
		*sv = *found
	}
	sv.Name, sv.Description, sv.Decrypters, sv.Value = d.target.Name, d.text(found), d.decrypters, d.value
	d.labels.Put(sv)
	return sv
}

// deleteForSure deletes, and believes only a 404 that the value is gone.
func deleteForSure(ctx context.Context, session *connection.Session) error {
	if err := session.Delete(ctx); err != nil {
		return err
	}
	found, err := session.Get(ctx)
	if err == nil && found != nil {
		return errStillThere
	}
	return err
}

// isChangedMeanwhile reports whether a write failed because the value is not as it was when it was observed.
func isChangedMeanwhile(err error) bool {
	return errors.Is(err, grafana.ErrAlreadyExists) || errors.Is(err, grafana.ErrConflict) || errors.Is(err, grafana.ErrNotFound)
}
