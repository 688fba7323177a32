package securevalue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// waiting is a fault that the change of something watched ends.
func waiting(reason, format string, args ...any) error {
	return status.NewFault(status.Watch, reason, format, args...)
}

// refused is a fault that a person must end by an edit of the object or its Secret.
func refused(reason, format string, args ...any) error {
	return status.NewFault(status.Here, reason, format, args...)
}

func invalidSpec(format string, args ...any) error {
	return refused(v1alpha1.ReasonInvalidSpec, format, args...)
}

func notAllowed(format string, args ...any) error {
	return status.NewFault(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, format, args...)
}

// errSuspended says that nothing is to be done, on purpose.
var errSuspended = status.NewFault(status.Paused, v1alpha1.ReasonSuspended,
	"spec.suspend is true: nothing is read or written until it is false again, except to delete this object.")

// taken says that the name is taken, and by whom as far as that may be told.
func taken(want *desired, seen observed) error {
	at := fmt.Sprintf("Secure value %q in Grafana namespace %q", want.place.name, want.place.namespace)
	var reason, message string
	switch seen.owner {
	case managed:
		reason, message = v1alpha1.ReasonAlreadyExists, at+" is managed by Grafana itself or by another tool. It was left alone. "+
			"Choose another spec.name, or have it deleted there."
	case unmarked, abandoned:
		reason, message = v1alpha1.ReasonAlreadyExists, at+" exists already, and no object holds it. It was left alone. Choose another "+
			"spec.name, delete it in Grafana, or set spec.adoptionPolicy to Adopt, which overwrites its value."
	case twin:
		reason, message = v1alpha1.ReasonNameConflict, at+" belongs to the GrafanaSecureValue of this namespace and name in another "+
			"cluster. It was left alone. To take it from there, set spec.adoptionPolicy to Adopt."
		if want.adopt {
			message = at + " belongs to the GrafanaSecureValue of this namespace and name in another cluster by now. It was left alone. " +
				"To take it back: kubectl annotate gsv " + want.marks.object.Name + " -n " + want.marks.object.Namespace +
				" --overwrite " + v1alpha1.AnnotationSyncNow + "=$(date +%s)"
		}
	case own, vacated, resident, leaver, stranger:
		reason, message = v1alpha1.ReasonNameConflict, at+" belongs to "+holderOf(want.marks, seen.found)+". It was left alone. Choose another "+
			"spec.name, or delete the other object."
	}
	return &takenError{status.NewFault(status.Elsewhere, reason, "%s", message)}
}

// holderOf says whose found is: by name only where that is an object of the namespace of the marks.
func holderOf(m marks, found *grafana.SecureValue) string {
	if whose, object := m.ownerOf(found); whose == resident && object.Namespace == m.object.Namespace {
		return fmt.Sprintf("GrafanaSecureValue %q of this namespace", object.Name)
	}
	return "another GrafanaSecureValue"
}

// takenError is the fault that somebody else has the place.
type takenError struct{ error }

func (e *takenError) Unwrap() error { return e.error }

func isTaken(err error) bool {
	_, ok := errors.AsType[*takenError](err)
	return ok
}

// driftedFault says what somebody else did to a value, and that it is left alone.
func driftedFault(want *desired, seen observed) error {
	why := "spec.driftPolicy is Report, so it is left as it is"
	if !want.report {
		why = fmt.Sprintf("It was corrected %d times within an hour before, so somebody else writes too: find out who. It is left as it is "+
			"until then", maxCorrections)
	}
	kind := driftOf(want, seen)
	return &driftedError{kind: kind, error: status.NewFault(status.Elsewhere, v1alpha1.ReasonDrifted,
		"Secure value %q in Grafana namespace %q was %s by somebody else. %s. "+
			"To write it again: kubectl annotate gsv %s -n %s --overwrite %s=$(date +%%s)", want.place.name, want.place.namespace,
		kind, why, want.marks.object.Name, want.marks.object.Namespace, v1alpha1.AnnotationSyncNow)}
}

// driftedError is the fault that drift is left alone.
type driftedError struct {
	error
	kind driftKind
}

func (e *driftedError) Unwrap() error { return e.error }

// leaving says that another object of the namespace, which leaves a place to this one, has not let go of it yet.
func leaving(name string) error {
	return waiting(v1alpha1.ReasonNameConflict, "GrafanaSecureValue %q is leaving it to this object, and has not let go of it yet.", name)
}

// busy says that the object of the namespace which is to follow at a place is not ready for that.
func busy(heir string) error {
	return waiting(v1alpha1.ReasonNameConflict, "GrafanaSecureValue %q is to follow there, and has not finished with a place that it named "+
		"before.", heir)
}

// isRefused reports whether a fault says that the connection does not serve the namespace.
func isRefused(err error) bool {
	fault, ok := errors.AsType[*status.Fault](err)
	return ok && fault.Reason == v1alpha1.ReasonConnectionNotAllowed
}

// errStillThere says that Grafana shows a value that it said to have deleted.
var errStillThere = status.NewFault(status.Time, v1alpha1.ReasonGrafanaUnavailable,
	"Grafana shows the secure value that it said to have deleted. It is looked at again by itself.")

// through is an error that was met while an object had the use of a connection, or asked for it.
type through struct {
	error
	id connection.ID
}

func (t *through) Unwrap() error { return t.error }

// metThrough names the connection to an error that speaks of it; nil stays nil.
func metThrough(id connection.ID, err error) error {
	if err == nil {
		return nil
	}
	return &through{err, id}
}

// classify is the table of what can be wrong with an object. It reports false for an error that says nothing of the object:
// one of the Kubernetes API, or that it has to wait its turn.
func classify(err error) (status.Verdict, bool) {
	if b, ok := errors.AsType[*blocked](err); ok {
		cause, known := classify(b.cause)
		return b.verdict(cause), known
	}
	if f, ok := errors.AsType[*status.Fault](err); ok {
		return f.Verdict, true
	}
	var id connection.ID
	if t, ok := errors.AsType[*through](err); ok {
		id = t.id
	}
	if t, ok := errors.AsType[*connection.Trouble](err); ok {
		return troubleVerdict(id, t), true
	}
	e, ok := errors.AsType[*grafana.Error](err)
	if !ok {
		return status.Verdict{}, false
	}
	code := ""
	if e.StatusCode != 0 {
		code = fmt.Sprintf(" (HTTP %d)", e.StatusCode)
	}
	verdict := func(class status.Class, reason, message string) (status.Verdict, bool) {
		return status.Verdict{Class: class, Reason: reason, Message: message}, true
	}
	switch {
	case errors.Is(err, grafana.ErrUnauthorized):
		return notReady(id, v1alpha1.ReasonUnauthorized), true
	case errors.Is(err, grafana.ErrForbidden):
		return verdict(status.Elsewhere, v1alpha1.ReasonForbidden,
			fmt.Sprintf("The token of %s lacks the action %s on this secure value%s. Grant it to its service account in Grafana. This "+
				"object follows by itself. See: %s", id, e.Action(), code, id.Describe()))
	case errors.Is(err, grafana.ErrAlreadyExists):
		return verdict(status.Elsewhere, v1alpha1.ReasonAlreadyExists,
			fmt.Sprintf("Grafana says that secure value %q exists, and does not show it to the token of %s. Choose another "+
				"spec.name, or grant the token secret.securevalues:read on secret.securevalues:*.", e.Name, id))
	case errors.Is(err, grafana.ErrInvalid):
		message := "Grafana refused the secure value as invalid" + code
		if len(e.Fields) > 0 {
			message += ": " + strings.Join(e.Fields, ", ")
		}
		return verdict(status.Here, v1alpha1.ReasonRejectedByGrafana, message+". Edit spec or the Secret.")
	default:
		return verdict(status.Time, v1alpha1.ReasonGrafanaUnavailable,
			"The last call to Grafana through "+id.String()+" failed"+code+". What Grafana holds may be old. It is tried again by itself.")
	}
}

func troubleVerdict(id connection.ID, t *connection.Trouble) status.Verdict {
	if t.Verdict.Class == status.Time {
		return status.Verdict{
			Class: status.Time, Reason: v1alpha1.ReasonGrafanaUnavailable,
			Message: id.String() + " cannot reach Grafana (" + t.Verdict.Reason + "). What Grafana holds may be old. It is tried again " +
				"by itself. See: " + id.Describe(),
		}
	}
	return notReady(id, t.Verdict.Reason)
}

// notReady says that a person must end the trouble of a connection, and where to read how.
func notReady(id connection.ID, reason string) status.Verdict {
	return status.Verdict{
		Class: status.Watch, Reason: v1alpha1.ReasonConnectionNotReady,
		Message: fmt.Sprintf("%s is not ready (%s). This object follows by itself. See: %s", id, reason, id.Describe()),
	}
}

// blocked says that an object could not give up a place that it holds, and why.
type blocked struct {
	object types.NamespacedName
	place  place
	since  string // empty where the object itself is not being deleted
	cause  error
}

func blockedAt(sv *v1alpha1.GrafanaSecureValue, p place, cause error) error {
	b := &blocked{object: keyOf(sv), place: p, cause: cause}
	if !sv.DeletionTimestamp.IsZero() {
		b.since = sv.DeletionTimestamp.UTC().Format(time.RFC3339)
	}
	return b
}

func (b *blocked) Error() string { return "give up " + b.place.String() + ": " + b.cause.Error() }
func (b *blocked) Unwrap() error { return b.cause }

// verdict tells what blocks, since when, and how to end it without Grafana. It wakes as its cause does.
func (b *blocked) verdict(cause status.Verdict) status.Verdict {
	v := status.Verdict{Class: status.Watch, Reason: v1alpha1.ReasonDeletionBlocked}
	if cause.Class == status.Time {
		v.Class = status.Time
	}
	what := fmt.Sprintf("Secure value %q, which this object has left, could not be deleted from Grafana", b.place.name)
	if b.since != "" {
		what = fmt.Sprintf("Since %s secure value %q could not be deleted from Grafana", b.since, b.place.name)
	}
	v.Message = fmt.Sprintf("%s (%s). %s To leave it there: kubectl patch gsv %s -n %s --type=merge "+
		`-p '{"spec":{"deletionPolicy":"Retain"}}'`, what, cause.Reason, cause.Message, b.object.Name, b.object.Namespace)
	return v
}
