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
		if apierrors.IsNotFound(patchErr) && sv.DeletionTimestamp.IsZero() {
			return r.giveUpVanished(ctx, next)
		}
		if client.IgnoreNotFound(patchErr) != nil {
			return ctrl.Result{}, patchErr
		}
		if known {
			r.announceReason(sv, status.Reason(old.Status.Conditions), verdict)
		}
	}
	r.announce(ctx, sv, done)
	return resultOf(err, known)
}

// giveUpVanished gives up what an object holds that was gone before its status could be written. The API server can remove an object
// at once although our finalizer has just been put on it, where both happen at the same time. There is nobody left to report on.
func (r *Reconciler) giveUpVanished(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (ctrl.Result, error) {
	sv.DeletionTimestamp = &metav1.Time{Time: r.now()}
	done := progressOf(sv)
	err := r.giveUp(ctx, sv, heldPlaces(sv), false, done)
	sv.Status.Targets = done.targets
	r.announce(ctx, sv, done)
	if err == nil {
		r.memory.forget(keyOf(sv))
		return ctrl.Result{}, nil
	}
	r.memory.bury(sv)
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

// errLeaving says that another object has not finished to leave a place to this one.
var errLeaving = errors.New("another object is leaving the place")

// errNoted says that the status must be written before anything else is done, and the object looked at again at once.
var errNoted = errors.New("a place was noted in status")

// resultOf says when to look again. What a watch or the connection's gate brings back is not asked for a second time.
func resultOf(err error, known bool) (ctrl.Result, error) {
	switch {
	case known, errors.Is(err, connection.ErrParked):
		return ctrl.Result{}, nil
	case errors.Is(err, errNoted):
		return ctrl.Result{RequeueAfter: time.Nanosecond}, nil
	case apierrors.IsConflict(err), errors.Is(err, errLeaving):
		return ctrl.Result{RequeueAfter: status.StaleDelay}, nil
	default:
		return ctrl.Result{}, err
	}
}

// announceReason tells of a change of Ready's reason, where it is for the worse, or begins or ends a pause.
func (r *Reconciler) announceReason(sv *v1alpha1.GrafanaSecureValue, old string, verdict status.Verdict) {
	if old == verdict.Reason {
		return
	}
	if old == v1alpha1.ReasonSuspended {
		r.recorder.Eventf(sv, nil, corev1.EventTypeNormal, "Resumed", "Sync", "spec.suspend is not true any more")
	}
	switch verdict.Class {
	case status.None:
	case status.Paused:
		r.recorder.Eventf(sv, nil, corev1.EventTypeNormal, verdict.Reason, "Sync", "%s", verdict.Message)
	case status.Time, status.Watch, status.Here, status.Elsewhere:
		r.recorder.Eventf(sv, nil, corev1.EventTypeWarning, verdict.Reason, "Sync", "%s", verdict.Message)
	}
}

// announce tells of each write to Grafana, once.
func (r *Reconciler) announce(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, done *progress) {
	for _, d := range done.did {
		note := fmt.Sprintf("Secure value %s in Grafana namespace %s", d.place.name, d.place.namespace)
		if d.version != 0 {
			note += fmt.Sprintf(", version %d", d.version)
		}
		if d.heir != "" {
			note += fmt.Sprintf(", left to GrafanaSecureValue %s", d.heir)
		}
		r.recorder.Eventf(sv, nil, corev1.EventTypeNormal, string(d.what), "Sync", "%s", note)
		ctrl.LoggerFrom(ctx).Info(string(d.what)+" secure value", "connection", d.place.connection.Name,
			"grafanaNamespace", d.place.namespace, "secureValue", d.place.name, "version", d.version)
	}
	wrote := slices.ContainsFunc(done.did, func(d deed) bool { return d.what != deleted && d.what != retained })
	for _, note := range done.notes {
		if wrote {
			r.recorder.Eventf(sv, nil, corev1.EventTypeWarning, v1alpha1.ReasonSynced, "Sync", "Synced, but %s", note)
		}
	}
}

// readyMessage is the message of Ready=True.
func readyMessage(t v1alpha1.TargetStatus, notes []string) string {
	message := fmt.Sprintf("Key %q of Secret %q is in Grafana as secure value %q.", t.Source.Key, t.Source.Name, t.Name)
	if len(notes) > 0 {
		message += " But " + strings.Join(notes, "; ") + "."
	}
	return message
}
