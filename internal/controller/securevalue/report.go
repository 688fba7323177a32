package securevalue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

// maxMerges bounds how often a status is merged into a newer version of the object.
const maxMerges = 5

// keyDelay is how long an object waits for the fingerprint key.
const keyDelay = 5 * time.Second

// report writes what a reconcile found into the status, if that changes it, and only then tells it in events and the log. It is the only
// writer of status.
func (r *Reconciler) report(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, err error) (ctrl.Result, error) {
	now, ended := r.now(), !sv.DeletionTimestamp.IsZero() && err == nil
	if !ended { // before status says that it is done
		if dropErr := r.dropPending(ctx, sv, rec); dropErr != nil && (err == nil || errors.Is(err, errReleased)) {
			err = dropErr
		}
	}
	condition, known := conditionOf(sv, rec, err)
	if !ended {
		old, oldStale := status.Reason(sv.Status.Conditions), staleReason(sv.Status.Conditions)
		changed, writeErr := r.writeStatus(ctx, sv, rec, condition, known, now)
		switch {
		case apierrors.IsNotFound(writeErr):
			r.releaseVanished(ctx, sv, rec)
		case errors.Is(writeErr, errChanged):
			err, known = writeErr, false
		case writeErr != nil && status.Of(writeErr) != nil: // the log alone can have it
			r.announce(ctx, sv, rec)
			return ctrl.Result{}, writeErr
		case writeErr != nil:
			r.announce(ctx, sv, rec)
			return r.result(keyOf(sv), writeErr)
		}
		if changed && known {
			status.Announce(ctx, r.recorder, sv, old, condition)
		}
		if changed {
			r.announceStale(ctx, sv, oldStale)
		}
		if drift, ok := errors.AsType[*driftError](err); ok && known && old != condition.Reason {
			metrics.Drift(string(drift.kind))
		}
	}
	r.conclude(sv, rec, err)
	r.announce(ctx, sv, rec)
	if known {
		r.memory.reported(keyOf(sv))
	}
	result, err := r.result(keyOf(sv), err)
	if err != nil {
		return ctrl.Result{}, err
	}
	return r.untilStale(sv, now, result), nil
}

// conditionOf returns what to say of the object. It reports false where nothing new is known, which includes that an old target is not
// released yet.
func conditionOf(sv *v1alpha1.GrafanaSecureValue, rec *record, err error) (status.Condition, bool) {
	if err != nil {
		e := status.Of(err)
		if e == nil || errors.As(err, new(*unreportedError)) {
			return status.Condition{}, false
		}
		return e.Condition, true
	}
	message := rec.message
	if ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady); message == "" && ready != nil {
		message = ready.Message
	}
	return status.Condition{Class: status.None, Reason: v1alpha1.ReasonSynced, Message: message}, true
}

// writeStatus writes the status, if it changes, in one patch that the API server refuses where the object has changed. Then what was
// written to Grafana is merged into the newer version; where something was released, that must be decided again, and errChanged is returned.
func (r *Reconciler) writeStatus(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, condition status.Condition, known bool, now time.Time,
) (changed bool, err error) {
	generation, uid := sv.Generation, sv.UID
	desired := &v1alpha1.DesiredStatus{Connection: sv.ConnectionOrDefault(), Name: sv.SecureValueName()}
	for range maxMerges {
		next := sv.DeepCopy()
		next.Status.Targets = rec.targets
		next.Status.LastSyncNow = cmp.Or(rec.answered, next.Status.LastSyncNow)
		if known && next.Status.ObservedGeneration <= generation {
			condition.Apply(&next.Status.Conditions, generation)
			next.Status.ObservedGeneration, next.Status.Desired = generation, desired
		}
		if rec.rotatedAt != nil {
			next.Status.LastRotationTime = rec.rotatedAt
		}
		if sv.Generation == generation && next.Status.ObservedGeneration == generation {
			r.applyFresh(ctx, next, rec, now)
		}
		if equality.Semantic.DeepEqual(sv.Status, next.Status) {
			return changed, err
		}
		patchErr := r.patchStatus(ctx, sv, next)
		if patchErr == nil {
			return true, err
		}
		if !apierrors.IsInvalid(patchErr) && !apierrors.IsConflict(patchErr) { // a test of a JSON patch that fails is Invalid
			return false, patchErr
		}
		newer, getErr := r.get(ctx, keyOf(sv))
		switch {
		case getErr != nil:
			return false, getErr
		case newer == nil || newer.UID != uid:
			return false, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("grafanasecurevalues").GroupResource(), sv.Name)
		case newer.ResourceVersion == sv.ResourceVersion:
			return false, patchErr
		}
		newer.DeepCopyInto(sv)
		if len(rec.released) > 0 {
			known, err = false, errChanged
		}
		rec.onto(newer)
	}
	return false, errChanged
}

// patchStatus makes the status of sv the changed one. The patch tests UID and resourceVersion.
func (r *Reconciler) patchStatus(ctx context.Context, sv, changed *v1alpha1.GrafanaSecureValue) error {
	patch, err := status.Replacement(sv, "/status", changed.Status)
	if err != nil {
		return err
	}
	return r.patch(ctx, sv, changed, patch, true)
}

// result says when to reconcile again. What an event or the limiter triggers is not asked for a second time.
func (r *Reconciler) result(key types.NamespacedName, err error) (ctrl.Result, error) {
	if wait, ok := errors.AsType[*waitError](err); ok {
		return ctrl.Result{RequeueAfter: max(wait.after, requeueSoon)}, nil
	}
	e, ok := errors.AsType[*status.Error](err)
	switch {
	case err == nil || ok && e.Retry != status.Time && e.Retry != status.Elsewhere:
		r.retries.Forget(key)
		r.rechecks.Forget(key)
		return ctrl.Result{}, nil
	case ok && e.Retry == status.Time:
		return ctrl.Result{RequeueAfter: r.retries.When(key)}, nil
	case ok && e.Retry == status.Elsewhere:
		return ctrl.Result{RequeueAfter: r.rechecks.When(key)}, nil
	case ok, errors.Is(err, connection.ErrQueued):
		return ctrl.Result{}, nil
	case errors.Is(err, connection.ErrTaken):
		return ctrl.Result{RequeueAfter: takenDelay}, nil
	case errors.Is(err, errChanged), errors.Is(err, connection.ErrBusy), apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: requeueSoon}, nil
	case errors.Is(err, fingerprint.ErrNotLoaded):
		return ctrl.Result{RequeueAfter: keyDelay}, nil
	default:
		return ctrl.Result{}, err
	}
}

// conclude remembers what was found of drift, once status says it.
func (r *Reconciler) conclude(sv *v1alpha1.GrafanaSecureValue, rec *record, err error) {
	key := keyOf(sv)
	wrote := rec.asked && slices.ContainsFunc(rec.changes, change.isWrite)
	switch {
	case rec.asked, errors.As(err, new(*driftError)):
		r.connections.Asked(key)
	}
	switch {
	case rec.drift != "":
		r.memory.corrected(key, r.now())
	case wrote:
		r.memory.wroteOwn(key)
	}
	if wrote && rec.rotation {
		r.memory.rotated(key, r.rotationPeriod, r.now())
	}
	if rec.message == "" {
		return
	}
	if at := r.memory.arrived(key); !at.IsZero() && wrote {
		metrics.Propagated(r.now().Sub(at))
	}
}

// announce tells each write to Grafana, once, in an event, the log and metrics.
func (r *Reconciler) announce(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record) {
	for _, c := range rec.changes {
		if c.isWrite() {
			metrics.Written(c.cause)
		}
		eventType := corev1.EventTypeNormal
		if c.drift != "" {
			metrics.Drift(string(c.drift))
			eventType = corev1.EventTypeWarning
		}
		r.recorder.Eventf(sv, nil, eventType, string(c.kind), "Sync", "%s", c.note(rec.warnings))
		what := []any{
			"connectionKind", c.target.Connection.Kind, "connection", c.target.Connection.Name, "grafanaNamespace", c.target.Namespace,
			"secureValue", c.target.Name, "cause", c.cause,
		}
		if c.isWrite() {
			what = append(what, "version", c.version)
		}
		ctrl.LoggerFrom(ctx).Info(string(c.kind)+" secure value", what...)
	}
}

// note is the text of the event.
func (c change) note(warnings []string) string {
	version := ""
	if c.isWrite() && c.version != 0 {
		version = fmt.Sprintf(" to version %d", c.version)
	}
	if c.kind == created || c.kind == adopted {
		version = strings.Replace(version, "to", "at", 1)
	}
	note := fmt.Sprintf("%s secure value %s%s in %s", c.kind, c.target.Name, version, c.target.Namespace)
	switch {
	case c.kind == moved:
		from, to := "", "" // two Grafanas may have namespaces of one name
		if c.from.Connection != c.target.Connection {
			from = fmt.Sprintf(" of %s %s", c.from.Connection.Kind, c.from.Connection.Name)
			to = fmt.Sprintf(" of %s %s", c.target.Connection.Kind, c.target.Connection.Name)
		}
		note = fmt.Sprintf("Moved secure value %s in %s%s to %s in %s%s", c.from.Name, c.from.Namespace, from, c.target.Name, c.target.Namespace, to)
	case c.kind == driftCorrected:
		note = fmt.Sprintf("Corrected secure value %s%s in %s, which was %s by another writer", c.target.Name, version, c.target.Namespace, c.drift)
	case c.cause == causeLabels:
		note += ", because Grafana did not keep its labels"
	}
	if more := ". " + strings.Join(warnings, " "); c.isWrite() && len(warnings) > 0 && len(note)+len(more) <= status.MaxNoteBytes {
		note += more // the message of Ready has them in any case
	}
	return note
}

// readyMessage is the message of Ready=True.
func readyMessage(t v1alpha1.TargetStatus, warnings []string) string {
	message := fmt.Sprintf("The result of the template is in Grafana as secure value %q.", t.Name)
	if t.Source != nil {
		message = fmt.Sprintf("Key %q of Secret %q is in Grafana as secure value %q.", t.Source.Key, t.Source.Name, t.Name)
	}
	return strings.Join(append([]string{message}, warnings...), " ")
}
