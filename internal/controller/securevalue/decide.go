package securevalue

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// observed is what is known of the wanted target: what the object remembers, and what Grafana showed.
type observed struct {
	known     bool                   // something may be there: ours, or of an object that wants the same
	settled   bool                   // the record says that this generation of the spec is there
	trusted   bool                   // and nothing gives reason to ask Grafana whether that is still so
	reported  bool                   // status says that it drifted, and that this is left alone
	record    *v1alpha1.TargetStatus // what status remembers; nil if it has no record
	conflict  bool                   // status says NameConflict
	candidate bool                   // a LIST showed something else there
	limit     bool                   // drift was corrected as often as it may be

	asked bool                 // Grafana was asked
	at    time.Time            // when
	found *grafana.SecureValue // what it showed; nil is nothing
	class class                // whose that is
	owner ownership.Owner      // what its labels say
	by    string               // the name of its owner, where that is an object of the same namespace
}

// class is whose secure value Grafana showed.
type class string

const (
	ours      class = "ours"
	claimable class = "claimable" // its owner is of this namespace, and gone or names another target
	adoptable class = "adoptable" // nobody owns it, or the object of this name in another cluster
	foreign   class = "foreign"
)

// observedInStatus returns what the object itself says of the wanted target.
func observedInStatus(sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target) observed {
	record := ownership.Record(sv.Status.Targets, t)
	reason := status.Reason(sv.Status.Conditions)
	return observed{
		known:    rec.has(t),
		settled:  isSettled(sv, record),
		trusted:  isTrusted(sv, t),
		reported: sv.Status.ObservedGeneration == sv.Generation && reason == v1alpha1.ReasonDrifted,
		record:   record,
		conflict: reason == v1alpha1.ReasonNameConflict,
	}
}

// isSettled reports whether the record says that this generation of the spec was written, or found there.
func isSettled(sv *v1alpha1.GrafanaSecureValue, record *v1alpha1.TargetStatus) bool {
	return record.IsWritten() && record.Generation == sv.Generation
}

// isTrusted reports whether status alone says that this generation of the spec is at the wanted target. Where Ready is False for this
// generation, the last reconcile may have found something else, or failed half-way; that an old target could not be released says nothing
// of the wanted one.
func isTrusted(sv *v1alpha1.GrafanaSecureValue, wanted ownership.Target) bool {
	if len(sv.Status.Targets) == 0 || ownership.TargetOf(sv.Status.Targets[0]) != wanted || !isSettled(sv, &sv.Status.Targets[0]) {
		return false
	}
	return sv.Status.ObservedGeneration != sv.Generation || isReady(sv) || status.Reason(sv.Status.Conditions) == v1alpha1.ReasonDeletionBlocked
}

func isReady(sv *v1alpha1.GrafanaSecureValue) bool {
	return meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReady)
}

// action is the next step towards what is desired at the wanted target.
type action string

const (
	keep     action = "keep"     // it is there
	observe  action = "observe"  // ask Grafana what is there
	create   action = "create"   // POST, after a claim
	update   action = "update"   // PUT over our own value
	takeOver action = "takeOver" // PUT over a value that was not ours, after a claim
)

// decide returns the next step. What is not ours, claimable or adoptable is never written.
//
//	known of the target                                          step
//	nothing says that anything is there                          create
//	same value, this generation trusted to be there              keep, unless it is to be written again
//	anything else, Grafana not asked yet                         observe
//	nothing or ours, drifted, and drift is left alone            Drifted
//	Grafana shows nothing                                        create
//	ours, same                                                   keep, unless it is to be written again
//	ours, differs                                                update
//	claimable                                                    takeOver
//	adoptable                                                    takeOver with Adopt, else AlreadyExists; AdoptionNotAllowed by the connection
//	adoptable, and another cluster took it from this object      takeOver with Adopt and sync-now, else NameConflict
//	foreign                                                      NameConflict, or AlreadyExists where no object owns it
func decide(want *desired, seen observed) (action, error) {
	switch {
	case !seen.asked && !seen.known:
		return create, nil
	case !seen.asked && seen.trusted && !seen.candidate && sameValue(want, seen.record) && !want.again:
		return keep, nil
	case !seen.asked:
		return observe, nil
	case (seen.found == nil || seen.class == ours) && driftOf(want, seen) != "" && (want.report || seen.limit || seen.reported):
		return "", driftedError(want, seen)
	case seen.found == nil:
		return create, nil
	case seen.class == ours && !want.again && !differs(want, seen):
		return keep, nil
	case seen.class == ours:
		return update, nil
	case seen.class == claimable, seen.class == adoptable && want.adopt && !want.noAdoption && !isLost(want, seen):
		return takeOver, nil
	default:
		return "", conflictError(want, seen)
	}
}

// isLost reports whether the object of another cluster took the value from this one. It is taken back only by sync-now: the same object
// in two clusters would otherwise take it from each other for ever.
func isLost(want *desired, seen observed) bool {
	wrote := seen.record.IsWritten() || seen.conflict
	return seen.owner == ownership.OtherCluster && wrote && !want.again
}

// sameValue reports whether the desired value is the recorded one: made from the same versions of the same Secrets in the same way, or of the same
// fingerprint.
func sameValue(want *desired, record *v1alpha1.TargetStatus) bool {
	return isValueOf(record, want.source, want.fingerprint)
}

// isValueOf reports whether a record is of the value with that source, or with that fingerprint at the target of the record.
func isValueOf(record *v1alpha1.TargetStatus, source sourceStatus, print string) bool {
	return record.IsWritten() && (source.isOf(record) || fingerprint.Equal(record.Fingerprint, print))
}

// differs reports whether what Grafana showed is not what is desired.
func differs(want *desired, seen observed) bool {
	return !sameValue(want, seen.record) || !want.labels.Intact(seen.found, seen.record, want.text(seen.found), want.decrypters)
}

// driftKind is what another writer did to a value.
type driftKind string

const (
	driftDeleted     driftKind = "deleted"
	driftRecreated   driftKind = "recreated"   // deleted and created anew
	driftOverwritten driftKind = "overwritten" // another version
	driftEdited      driftKind = "edited"      // the same version, or none is served, and yet not what was written
)

// driftOf returns what another writer did to a target that is known to have had what is desired, or "".
func driftOf(want *desired, seen observed) driftKind {
	record, found := seen.record, seen.found
	if !seen.asked || !seen.settled || want.again || !sameValue(want, record) {
		return ""
	}
	switch {
	case found == nil:
		return driftDeleted
	case !ownership.SameAge(found, record):
		return driftRecreated
	case found.Version != 0 && found.Version != record.Version:
		return driftOverwritten
	case differs(want, seen):
		return driftEdited
	default:
		return ""
	}
}
