package securevalue

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// freshness returns what Fresh says at a time of a value that was last rotated at another, and when it says something else; zero is
// never.
func freshness(spec v1alpha1.Freshness, rotated *metav1.Time, now time.Time) (fresh metav1.Condition, until time.Time) {
	fresh = metav1.Condition{Type: v1alpha1.ConditionFresh}
	if rotated == nil {
		fresh.Status, fresh.Reason = metav1.ConditionUnknown, v1alpha1.ReasonNotWritten
		fresh.Message = "No value was written to Grafana yet. Ready says why."
		return fresh, time.Time{}
	}
	var due, expires time.Time
	limits := make([]string, 0, 2)
	if age, ok := spec.Age(); ok {
		due = rotated.Add(age)
		limits = append(limits, "is overdue at "+timestamp(due))
	}
	if spec.ExpirationTime != nil {
		expires = spec.ExpirationTime.Time
		limits = append(limits, "expires at "+timestamp(expires))
	}
	last := "was last rotated at " + timestamp(rotated.Time)
	fresh.Status = metav1.ConditionFalse
	switch {
	case !expires.IsZero() && !now.Before(expires):
		fresh.Reason = v1alpha1.ReasonExpired
		fresh.Message = fmt.Sprintf("The value expired at %s, and %s. Rotate it at its source, and set spec.freshness.expirationTime to the time at which the new value expires.", timestamp(expires), last)
		return fresh, time.Time{}
	case !due.IsZero() && !now.Before(due):
		fresh.Reason = v1alpha1.ReasonOverdue
		fresh.Message = fmt.Sprintf("The value %s, longer ago than spec.freshness.maxAge (%s). Rotate it at its source.", last, spec.MaxAge)
		return fresh, expires
	}
	fresh.Status, fresh.Reason = metav1.ConditionTrue, v1alpha1.ReasonCurrent
	fresh.Message = fmt.Sprintf("The value %s.", last)
	if len(limits) > 0 {
		fresh.Message += fmt.Sprintf(" It %s.", strings.Join(limits, " and "))
	}
	if due.IsZero() || !expires.IsZero() && expires.Before(due) {
		return fresh, expires
	}
	return fresh, due
}

// validateFreshness repeats what the schema asks for, for objects that are older than the schema.
func validateFreshness(f *v1alpha1.Freshness) error {
	if f == nil || f.MaxAge == "" {
		return nil
	}
	if _, ok := f.Age(); !ok {
		return invalidSpec("spec.freshness.maxAge is %q. Use a duration from 1h to 87600h, for example 2160h for 90 days.", f.MaxAge)
	}
	return nil
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// hasFreshness reports whether the freshness of the object is watched now.
func hasFreshness(sv *v1alpha1.GrafanaSecureValue) bool {
	return sv.Spec.Freshness != nil && !sv.Spec.Suspend && sv.DeletionTimestamp.IsZero()
}

// applyFresh writes Fresh into the status of the object. Where the value is not fresh any more, its message ends with the origin of the
// Secrets, which are read for that if this reconcile has not read them, and status does not say it already.
func (r *Reconciler) applyFresh(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, now time.Time) {
	if sv.Spec.Freshness == nil {
		meta.RemoveStatusCondition(&sv.Status.Conditions, v1alpha1.ConditionFresh)
	}
	if !hasFreshness(sv) {
		return
	}
	fresh, _ := freshness(*sv.Spec.Freshness, sv.Status.LastRotationTime, now)
	fresh.ObservedGeneration = sv.Generation
	if fresh.Status == metav1.ConditionFalse {
		old := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionFresh)
		if rec.origin == nil && old != nil && old.Reason == fresh.Reason && strings.HasPrefix(old.Message, fresh.Message) {
			fresh.Message = old.Message
		} else {
			if rec.origin == nil {
				rec.origin = new(r.readOrigin(ctx, sv))
			}
			fresh.Message += *rec.origin
		}
	}
	meta.SetStatusCondition(&sv.Status.Conditions, fresh)
}

// untilStale makes a reconcile come no later than Fresh changes, which status has as of a time.
func (r *Reconciler) untilStale(sv *v1alpha1.GrafanaSecureValue, asOf time.Time, result ctrl.Result) ctrl.Result {
	if !hasFreshness(sv) {
		return result
	}
	_, until := freshness(*sv.Spec.Freshness, sv.Status.LastRotationTime, asOf)
	if wait := max(until.Sub(r.now()), requeueSoon); !until.IsZero() && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
		result.RequeueAfter = wait
	}
	return result
}

// staleReason returns the reason of Fresh where that is False, else "".
func staleReason(conditions []metav1.Condition) string {
	if meta.IsStatusConditionFalse(conditions, v1alpha1.ConditionFresh) {
		return meta.FindStatusCondition(conditions, v1alpha1.ConditionFresh).Reason
	}
	return ""
}

// announceStale tells that a value has become overdue or has expired.
func (r *Reconciler) announceStale(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, old string) {
	if reason := staleReason(sv.Status.Conditions); reason != "" && reason != old {
		message := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionFresh).Message
		ctrl.LoggerFrom(ctx).Info("Value is not fresh", "reason", reason, "message", message)
		r.recorder.Eventf(sv, nil, corev1.EventTypeWarning, reason, "Sync", "%s", status.NoteOf(message))
	}
}

// readOrigin returns the origin of the Secrets that the object reads, without those that cannot be read.
func (r *Reconciler) readOrigin(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) string {
	var origin strings.Builder
	for _, name := range sv.Spec.ValueFrom.Secrets() {
		secret := &corev1.Secret{}
		if err := r.live.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: name}, secret); err == nil {
			origin.WriteString(originOf(secret))
		}
	}
	return origin.String()
}

// What makers leave on a Secret: their owner references by kind and group, and where these may be absent, an annotation or a label.
var makers = map[string]string{"ExternalSecret": "external-secrets.io", "Certificate": "cert-manager.io", "SealedSecret": "bitnami.com"}

const (
	certificateAnnotation = "cert-manager.io/certificate-name"
	externalSecretsLabel  = "reconcile.external-secrets.io/managed"
)

// originOf says in sentences that follow another what makes a Secret, where that is known, and whether it can be changed. A writer of the
// Secret can write anything there, so a maker is named only by a name that an object can have.
func originOf(secret *corev1.Secret) string {
	maker := ""
	for _, owner := range secret.OwnerReferences {
		if group, known := makers[owner.Kind]; known && strings.HasPrefix(owner.APIVersion, group+"/") && isName(owner.Name) {
			maker = fmt.Sprintf("%s %q", owner.Kind, owner.Name)
		}
	}
	if name := secret.Annotations[certificateAnnotation]; maker == "" && isName(name) {
		maker = fmt.Sprintf("Certificate %q of cert-manager", name)
	}
	if maker == "" && secret.Labels[externalSecretsLabel] == "true" {
		maker = "an ExternalSecret"
	}
	origin := ""
	if maker != "" {
		origin = fmt.Sprintf(" Secret %q is made by %s.", secret.Name, maker)
	}
	if secret.Immutable != nil && *secret.Immutable {
		origin += fmt.Sprintf(" Secret %q is immutable: only a Secret that replaces it can hold another value.", secret.Name)
	}
	return origin
}

func isName(s string) bool { return validation.IsDNS1123Subdomain(s) == nil }
