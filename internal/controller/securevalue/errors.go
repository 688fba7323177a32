package securevalue

import (
	"errors"
	"fmt"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// watch is an error that the change of something watched ends.
func watch(reason, format string, args ...any) error {
	return status.Errorf(status.Watch, reason, format, args...)
}

// here is an error that a person ends by an edit of the object or its Secret.
func here(reason, format string, args ...any) error {
	return status.Errorf(status.Here, reason, format, args...)
}

func invalidSpec(format string, args ...any) error {
	return here(v1alpha1.ReasonInvalidSpec, format, args...)
}

func notAllowed(conn v1alpha1.Connection, namespace string) error {
	return status.Errorf(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "%s %q does not allow namespace %q. Ask its owner to allow it in spec.allowedNamespaces, or use another connection.", conn.ConnectionKind(), conn.GetName(), namespace)
}

// errSuspended says that nothing is to be done, on purpose.
var errSuspended = status.Errorf(status.Paused, v1alpha1.ReasonSuspended,
	"spec.suspend is true: nothing is read or written until it is false again, except to delete this object.")

// errReleased says that the object may go, as far as the operator is concerned.
var errReleased = status.Errorf(status.Over, v1alpha1.ReasonReleased,
	"The operator has released all that this object owned in Grafana, and removed its own finalizer. The object is deleted once the finalizers of others are removed.")

// errStillThere says that Grafana shows a value that it said to have deleted.
var errStillThere = status.Errorf(status.Time, v1alpha1.ReasonGrafanaUnavailable,
	"Grafana still shows the secure value that it said to have deleted. The operator retries automatically.")

// labelsNotKept says that the value cannot be told from those of others.
func labelsNotKept(want *desired) error {
	return status.Errorf(status.Elsewhere, v1alpha1.ReasonLabelsNotKept, "Grafana does not keep the labels of secure value %q, by which the operator knows its owner. A value that was created was deleted again. Use a Grafana that keeps labels.", want.target.Name)
}

// conflictError says that the name is taken, and by whom as far as that may be told.
func conflictError(want *desired, seen observed) error {
	at := fmt.Sprintf("Secure value %q in Grafana namespace %q", want.target.Name, want.target.Namespace)
	object := want.labels.Object
	elsewhere := func(reason, message string) error {
		return status.Errorf(status.Elsewhere, reason, "%s %s", at, message)
	}
	switch {
	case seen.owner == ownership.Managed:
		return elsewhere(v1alpha1.ReasonAlreadyExists, "is managed by Grafana itself or by another tool. It was left alone. Choose another spec.name, or delete it there.")
	case isLost(want, seen):
		return elsewhere(v1alpha1.ReasonNameConflict, fmt.Sprintf("now belongs to the GrafanaSecureValue of this namespace and name in another cluster. It was left alone. To take it back, set spec.adoptionPolicy to Adopt. Then run `kubectl annotate gsv %s -n %s --overwrite %s=$(date +%%s)`.", object.Name, object.Namespace, v1alpha1.AnnotationSyncNow))
	case seen.class == adoptable && want.adopt:
		return elsewhere(v1alpha1.ReasonAdoptionNotAllowed, fmt.Sprintf("exists already, and ClusterGrafanaConnection %q forbids adoption (spec.adoption). It was left alone. Choose another spec.name, or ask the owner of the connection to allow it.", want.target.Connection.Name))
	case seen.owner == ownership.OtherCluster:
		return elsewhere(v1alpha1.ReasonAlreadyExists, "belongs to the GrafanaSecureValue of this namespace and name in another cluster. It was left alone. To take it over, set spec.adoptionPolicy to Adopt.")
	case seen.class == adoptable:
		return elsewhere(v1alpha1.ReasonAlreadyExists, "exists already, and no object owns it. It was left alone. Choose another spec.name, delete it in Grafana, or set spec.adoptionPolicy to Adopt, which overwrites its value.")
	case seen.by != "":
		return elsewhere(v1alpha1.ReasonNameConflict, fmt.Sprintf("belongs to GrafanaSecureValue %q of this namespace. It was left alone. Choose another spec.name, or delete or rename the other object. This one then syncs automatically.", seen.by))
	default:
		return elsewhere(v1alpha1.ReasonNameConflict, "belongs to another GrafanaSecureValue. It was left alone. Choose another spec.name, or delete or rename the other object. This one then syncs automatically.")
	}
}

// driftError says that drift is left alone.
type driftError struct {
	error

	kind driftKind
}

func (e *driftError) Unwrap() error { return e.error }

func driftedError(want *desired, seen observed) error {
	why := "spec.driftPolicy is Report, so it is left as it is"
	if !want.report {
		why = "It was corrected several times within an hour before, so another writer is active: find out which. It is left as it is until then"
	}
	kind, object := driftOf(want, seen), want.labels.Object
	e := status.Errorf(status.Elsewhere, v1alpha1.ReasonDrifted, "Secure value %q in Grafana namespace %q was %s by another writer. %s. To write it again: `kubectl annotate gsv %s -n %s --overwrite %s=$(date +%%s)`.", want.target.Name,
		want.target.Namespace, kind, why, object.Name, object.Namespace, v1alpha1.AnnotationSyncNow)
	if want.report {
		e.Retry = status.Here // the next LIST says if it changes
	}
	return &driftError{e, kind}
}

// blocked says that an object cannot release a target, since when and why, and how to end that without Grafana. It is retried as its
// cause is.
func blocked(sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target, err error) error {
	cause, _ := errors.AsType[*status.Error](err)
	since, moved, next := "", "", "To leave the value in Grafana"
	if at := sv.DeletionTimestamp; at != nil {
		since = fmt.Sprintf("Since %s: ", at.UTC().Format(time.RFC3339))
	} else {
		moved = ", which this object no longer names,"
	}
	what := fmt.Sprintf("%sSecure value %q%s could not be deleted from Grafana", since, t.Name, moved)
	if !rec.wrote(t) {
		what = fmt.Sprintf("%sThe operator cannot check whether Grafana has secure value %q, which this object never wrote as far as is known", since, t.Name)
		next = "To go on without that"
	}
	class := status.Watch
	if cause.Class == status.Time {
		class = status.Time
	}
	e := status.Errorf(class, v1alpha1.ReasonDeletionBlocked, "%s (%s). %s %s: `kubectl patch gsv %s -n %s "+
		`--type=merge -p '{"spec":{"deletionPolicy":"Retain"}}'`+"`.", what, cause.Reason, cause.Message, next, sv.Name, sv.Namespace).Because(err)
	e.Retry, e.About = cause.Retry, "("+cause.Reason+")"
	return e
}
