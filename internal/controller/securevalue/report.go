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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

// report writes what a look came to into the status, if that changes it, and only then tells of it in events and the log.
// It is the only writer of status.
func (r *Reconciler) report(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, done *progress, err error) (ctrl.Result, error) {
	next := sv.DeepCopy()
	next.Status.Targets = done.targets
	next.Status.LastSyncNow = cmp.Or(done.answered, next.Status.LastSyncNow)
	verdict, known := verdictOf(sv, done, err)
	if known {
		verdict.Apply(&next.Status.Conditions, sv.Generation)
		next.Status.ObservedGeneration = sv.Generation
	}
	letGo := !sv.DeletionTimestamp.IsZero() && err == nil
	if !letGo && !equality.Semantic.DeepEqual(sv.Status, next.Status) {
		old := sv.DeepCopy()
		patchErr := r.patchStatus(ctx, sv, next)
		if sv.DeletionTimestamp.IsZero() && (apierrors.IsNotFound(patchErr) || apierrors.IsInvalid(patchErr)) {
			present := &v1alpha1.GrafanaSecureValue{}
			switch err := r.live.Get(ctx, keyOf(sv), present); {
			case apierrors.IsNotFound(err):
				return r.giveUpVanished(ctx, next, nil)
			case err == nil && present.UID != sv.UID:
				_, err := r.giveUpVanished(ctx, next, present)
				return ctrl.Result{RequeueAfter: status.StaleDelay}, err
			}
		}
		if client.IgnoreNotFound(patchErr) != nil {
			return ctrl.Result{}, patchErr
		}
		if known {
			r.announceReason(ctx, sv, status.Reason(old.Status.Conditions), verdict)
		}
	}
	if done.concluded != nil {
		done.concluded()
	}
	r.announce(ctx, sv, done)
	if known {
		r.changes.reported(keyOf(sv))
	}
	return resultOf(err, known)
}

// giveUpVanished gives up what an object holds that was gone before its status could be written; nil is none. The API server can
// remove an object at once although our finalizer has just been put on it, where both happen at the same time. What a successor, an
// object of the same name and so of the same marks, holds or wants is left to that. There is nobody to report on: what
// cannot be given up yet is kept in memory. An error is one of the Kubernetes API.
func (r *Reconciler) giveUpVanished(ctx context.Context, gone, successor *v1alpha1.GrafanaSecureValue) (ctrl.Result, error) {
	if gone == nil {
		return ctrl.Result{}, nil
	}
	gone.DeletionTimestamp = &metav1.Time{Time: r.now()}
	if successor != nil {
		claims := claimsOf(successor)
		gone.Status.Targets = slices.DeleteFunc(gone.Status.Targets, func(t v1alpha1.TargetStatus) bool {
			return slices.Contains(claims, claim{connection.IDOf(t.Connection, gone.Namespace), t.Name})
		})
		if p := intentOf(gone).place; slices.Contains(claims, claim{connection.IDOf(p.connection, gone.Namespace), p.name}) {
			delete(gone.Annotations, v1alpha1.AnnotationIntent)
		}
	}
	done := progressOf(gone)
	err := r.giveUp(ctx, gone, heldPlaces(gone), false, done)
	gone.Status.Targets = done.targets
	r.announce(ctx, gone, done)
	if err == nil {
		r.memory.unbury(gone)
		return ctrl.Result{}, nil
	}
	if !r.memory.bury(gone) {
		ctrl.LoggerFrom(ctx).Error(err, "An object that vanished in spite of its finalizer may have left a secure value in Grafana")
	}
	_, known := classify(err)
	return resultOf(err, known)
}

// verdictOf returns what to say of the object. It reports false where nothing new is known.
func verdictOf(sv *v1alpha1.GrafanaSecureValue, done *progress, err error) (status.Verdict, bool) {
	if err != nil {
		return classify(err)
	}
	message := done.ready
	if message == "" {
		if ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			message = ready.Message
		}
	}
	return status.Verdict{Class: status.None, Reason: v1alpha1.ReasonSynced, Message: message}, true
}

// keyDelay is how long an object waits for the fingerprint key before it is looked at again.
const keyDelay = 5 * time.Second

// errNoted says that the status must be written before anything else is done, and the object looked at again at once.
var errNoted = errors.New("a place was noted in status")

// resultOf says when to look again. What a watch or the connection's gate brings back is not asked for a second time.
func resultOf(err error, known bool) (ctrl.Result, error) {
	switch {
	case known, errors.Is(err, connection.ErrParked):
		return ctrl.Result{}, nil
	case errors.Is(err, errNoted):
		return ctrl.Result{RequeueAfter: time.Nanosecond}, nil
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: status.StaleDelay}, nil
	case errors.Is(err, fingerprint.ErrNotLoaded):
		return ctrl.Result{RequeueAfter: keyDelay}, nil
	default:
		return ctrl.Result{}, err
	}
}

// announceReason tells of a change of Ready's reason, where it is for the worse, or begins or ends a pause, in the log too.
func (r *Reconciler) announceReason(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, old string, verdict status.Verdict) {
	if old == verdict.Reason {
		return
	}
	if old == v1alpha1.ReasonSuspended {
		r.recorder.Eventf(sv, nil, corev1.EventTypeNormal, "Resumed", "Sync", "spec.suspend is not true any more")
	}
	if verdict.Class == status.None {
		return
	}
	ctrl.LoggerFrom(ctx).Info("Reason of Ready changed", "reason", verdict.Reason, "message", verdict.Message)
	eventType := corev1.EventTypeWarning
	if verdict.Class == status.Paused {
		eventType = corev1.EventTypeNormal
	}
	r.recorder.Eventf(sv, nil, eventType, verdict.Reason, "Sync", "%s", verdict.Message)
}

// announce tells of each write to Grafana, once.
func (r *Reconciler) announce(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, done *progress) {
	for _, d := range done.did {
		if d.isWrite() {
			metrics.Written(d.cause())
		}
		if d.drift != "" {
			metrics.Drift(string(d.drift))
		}
		note := fmt.Sprintf("Secure value %s in Grafana namespace %s", d.place.name, d.place.namespace)
		if d.version != 0 {
			note += fmt.Sprintf(", version %d", d.version)
		}
		if d.heir != "" {
			note += fmt.Sprintf(", left to GrafanaSecureValue %s", d.heir)
		}
		eventType := corev1.EventTypeNormal
		if d.drift != "" {
			eventType = corev1.EventTypeWarning
			note += fmt.Sprintf(": it was %s by somebody else", d.drift)
		}
		if d.bare {
			note += ": Grafana did not keep its labels"
		}
		r.recorder.Eventf(sv, nil, eventType, string(d.what), "Sync", "%s", note)
		r.log(ctx, sv, d)
	}
	wrote := slices.ContainsFunc(done.did, deed.isWrite)
	if wrote && len(done.notes) > 0 { // one event: several with one reason would be counted as one, with the words of one
		r.recorder.Eventf(sv, nil, corev1.EventTypeWarning, v1alpha1.ReasonSynced, "Sync", "Synced, but %s", strings.Join(done.notes, "; "))
	}
}

// log has one line for each write to Grafana. A version is there where one was made.
func (r *Reconciler) log(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, d deed) {
	keysAndValues := []any{
		"connectionKind", d.place.connection.Kind, "connection", d.place.connection.Name,
		"grafanaNamespace", d.place.namespace, "secureValue", d.place.name,
	}
	switch {
	case d.isWrite():
		keysAndValues = append(keysAndValues, "cause", d.cause(), "version", d.version)
	case d.bare:
		keysAndValues = append(keysAndValues, "cause", "labels_not_kept")
	case sv.DeletionTimestamp.IsZero():
		keysAndValues = append(keysAndValues, "cause", "moved")
	default:
		keysAndValues = append(keysAndValues, "cause", "deleted")
	}
	if d.heir != "" {
		keysAndValues = append(keysAndValues, "heir", d.heir)
	}
	ctrl.LoggerFrom(ctx).Info(string(d.what)+" secure value", keysAndValues...)
}

// readyMessage is the message of Ready=True.
func readyMessage(t v1alpha1.TargetStatus, notes []string) string {
	message := fmt.Sprintf("Key %q of Secret %q is in Grafana as secure value %q.", t.Source.Key, t.Source.Name, t.Name)
	if len(notes) > 0 {
		message += " But " + strings.Join(notes, "; ") + "."
	}
	return message
}
