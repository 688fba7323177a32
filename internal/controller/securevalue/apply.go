package securevalue

import (
	"context"
	"encoding/json"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/finalizer"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// maxSteps bounds the steps of one settle: look, create, look again where the name turns out to be taken, and the write.
const maxSteps = 5

// outcome is what settle did at a place, and what is there now.
type outcome struct {
	did     action               // the last step
	value   *grafana.SecureValue // as Grafana showed it last; nil if it was not asked, or shows nothing
	adopted bool                 // what was written over was not the object's own
	drift   driftKind            // what the write corrected
	bare    bool                 // Grafana did not keep the labels of what was written
	undone  bool                 // so that it was deleted again
	heir    string               // the object to which the value was left, if it was
}

// isWrite reports whether a version was made.
func (o outcome) isWrite() bool { return o.did == create || o.did == update }

// settle takes the steps that decide names, until the place holds what is desired.
func (r *Reconciler) settle(
	ctx context.Context, session *connection.Session, sv *v1alpha1.GrafanaSecureValue, want *desired, seen observed,
) (outcome, error) {
	var changed error // somebody changed the place since it was looked at
	for range maxSteps {
		step, err := decide(want, seen)
		if err != nil {
			return outcome{}, err
		}
		switch step {
		case keep, drop:
			return outcome{did: step, value: seen.found}, nil
		case wait:
			return outcome{}, leaving(seen.from)
		case remove:
			return outcome{did: step}, deleteForSure(ctx, session)
		case bequeath:
			err := r.bequeath(ctx, sv, seen.heir, want.place, seen.found)
			return outcome{did: step, value: seen.found, heir: seen.heir.Name}, err
		case create, update:
			if err := r.stillAllowed(ctx, sv, want); err != nil {
				return outcome{}, err
			}
			result, err := write(ctx, session, want, seen)
			if result.bare || !isChangedMeanwhile(err) {
				return result, err
			}
			changed = err
		case look:
		}
		if seen, err = r.look(ctx, session, sv, want, seen); err != nil {
			return outcome{}, err
		}
	}
	return outcome{}, changed
}

// look asks Grafana what is at the place, and Kubernetes whose that is, and who follows the object if it leaves.
func (r *Reconciler) look(
	ctx context.Context, session *connection.Session, sv *v1alpha1.GrafanaSecureValue, want *desired, seen observed,
) (observed, error) {
	found, err := session.Get(ctx)
	if errors.Is(err, grafana.ErrNotFound) {
		found, err = nil, nil
	}
	seen.looked, seen.found = err == nil, found
	if found == nil {
		return seen, err
	}
	if want.absent && seen.from == "" { // whether a resident has left matters only to one who follows or inherits
		seen.owner, _ = want.marks.ownerOf(found)
	} else {
		seen.owner = r.ownerOf(ctx, session.Place(), want.marks, found)
	}
	// A value that does not prove whose it is could not be left to anybody: the heir would take it for a stranger's.
	if _, proved := residentOf(found.Labels, found.Annotations); want.absent && proved && mayRemove(want, seen) {
		seen.heir, err = r.heirOf(ctx, sv, want.place, seen.owner)
	}
	return seen, err
}

// write makes the place hold what is desired: a new secure value, or one over what was found. Where Grafana drops our labels,
// a new one is taken out again.
func write(ctx context.Context, session *connection.Session, want *desired, seen observed) (outcome, error) {
	result, do := outcome{did: create, drift: driftOf(want, seen)}, session.Create
	if seen.found != nil {
		result.did, result.adopted, do = update, !isMine(seen), session.Update
	}
	answer, err := do(ctx, want.secureValue(seen.found))
	if err != nil {
		return result, err
	}
	result.value = answer
	if result.bare = !want.marks.labelled(answer.Labels); result.bare {
		if seen.found == nil {
			err = deleteForSure(ctx, session)
			result.undone = err == nil
		}
		return result, errors.Join(session.LabelsNotKept(), err)
	}
	if answer.Version != 0 {
		return result, nil
	}
	// The write is accepted, and its version not told: ask once. Where that fails, the answer stands as it is.
	if shown, err := session.Get(ctx); err == nil {
		result.value = shown
	}
	return result, nil
}

// isChangedMeanwhile reports whether a write failed because the place is not as it was when it was looked at.
func isChangedMeanwhile(err error) bool {
	return errors.Is(err, grafana.ErrAlreadyExists) || errors.Is(err, grafana.ErrConflict) || errors.Is(err, grafana.ErrNotFound)
}

// isUnknownOutcome reports whether a call may have had its effect although it failed.
func isUnknownOutcome(err error) bool {
	return errors.Is(err, grafana.ErrUnreachable) || errors.Is(err, grafana.ErrUnavailable) || errors.Is(err, grafana.ErrInvalidResponse)
}

// secureValue returns the body of a write: over what was found, whose labels and annotations that are not ours are kept, and
// whose resourceVersion goes with it.
func (d *desired) secureValue(found *grafana.SecureValue) *grafana.SecureValue {
	sv := &grafana.SecureValue{}
	if found != nil {
		*sv = *found
	}
	sv.Name, sv.Description, sv.Decrypters, sv.Value = d.place.name, d.description, d.decrypters, d.value
	d.marks.put(sv)
	return sv
}

// deleteForSure deletes, and believes only a 404 that it is gone.
func deleteForSure(ctx context.Context, session *connection.Session) error {
	err := session.Delete(ctx)
	if err == nil {
		_, err = session.Get(ctx)
		if err == nil {
			return errStillThere
		}
	}
	if errors.Is(err, grafana.ErrNotFound) {
		return nil
	}
	return err
}

// prepare makes sure, before the first write to a place, that the object carries our finalizer and names the place as its
// intent.
func (r *Reconciler) prepare(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	about := intentOf(sv)
	if about.place != want.place && !want.keepIntent {
		about = intent{place: want.place}
	}
	return r.intend(ctx, sv, about)
}

// intend records the intent, and makes sure of our finalizer. It is one patch, refused by the API server if the object has
// changed meanwhile, and none if everything is there.
func (r *Reconciler) intend(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, about intent) error {
	if intentOf(sv) == about && controllerutil.ContainsFinalizer(sv, v1alpha1.Finalizer) {
		return nil
	}
	changed := sv.DeepCopy()
	controllerutil.AddFinalizer(changed, v1alpha1.Finalizer)
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, v1alpha1.AnnotationIntent, about.String())
	patch := client.MergeFromWithOptions(sv.DeepCopy(), client.MergeFromWithOptimisticLock{})
	return r.patch(ctx, sv, changed, patch)
}

// letGo takes the finalizer off an object that holds no place any more.
func (r *Reconciler) letGo(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) error {
	patch, found, err := finalizer.Removal(sv.Finalizers)
	if err != nil || !found {
		return err
	}
	return client.IgnoreNotFound(r.patch(ctx, sv, sv, patch))
}

// patchStatus makes the status of sv the changed one. The patch tests the UID: another object may have the name by now. (Of a merge
// patch to the status the API server does not look at the UID.)
func (r *Reconciler) patchStatus(ctx context.Context, sv, changed *v1alpha1.GrafanaSecureValue) error {
	data, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": sv.UID},
		{"op": "add", "path": "/status", "value": changed.Status},
	})
	if err != nil {
		return err
	}
	patch := client.RawPatch(types.JSONPatchType, data)
	return r.send(ctx, sv, changed, patch, func(answer client.Object, patch client.Patch) error {
		return r.client.Status().Patch(ctx, answer, patch)
	})
}

// patch sends the patch that makes sv the changed one.
func (r *Reconciler) patch(ctx context.Context, sv, changed *v1alpha1.GrafanaSecureValue, patch client.Patch) error {
	return r.send(ctx, sv, changed, patch, func(answer client.Object, patch client.Patch) error {
		return r.client.Patch(ctx, answer, patch)
	})
}

// send sends a patch, and puts the answer into sv and into the memory.
func (r *Reconciler) send(
	ctx context.Context, sv, changed *v1alpha1.GrafanaSecureValue, patch client.Patch,
	do func(answer client.Object, patch client.Patch) error,
) error {
	data, err := patch.Data(changed)
	if err != nil {
		return err
	}
	// The answer is decoded into an empty object: what it does not hold would otherwise stay as it was.
	answer := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: sv.Namespace, Name: sv.Name}}
	if err := do(answer, client.RawPatch(patch.Type(), data)); err != nil {
		return err
	}
	answer.DeepCopyInto(sv)
	r.memory.remember(answer)
	cached := &v1alpha1.GrafanaSecureValue{}
	if r.client.Get(ctx, keyOf(sv), cached) == nil { // the event may have come before the answer
		r.memory.shown(cached)
	}
	return nil
}
