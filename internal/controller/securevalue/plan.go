package securevalue

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// observed is what is known of one place: what the object remembers of it, and what Grafana showed.
type observed struct {
	held     bool                   // status or intent says that something of ours may be there
	settled  bool                   // the record says that this generation of the spec is there
	trusted  bool                   // and nothing gives reason to ask Grafana whether that is still so
	drifted  bool                   // status says that it is not, and that this is left alone
	record   *v1alpha1.TargetStatus // what status remembers; nil if it holds no record
	mayClaim bool                   // a value of our twin in another cluster may be taken
	from     string                 // the object of our namespace from which the value there was inherited, if it was

	suspect   bool // a LIST shows something else there
	contested bool // drift was corrected as often as it may be

	looked bool                         // Grafana was asked
	found  *grafana.SecureValue         // what it showed; nil is nothing
	owner  owner                        // whose that is
	heir   *v1alpha1.GrafanaSecureValue // another object of the namespace that names the place which this one leaves
}

// remembered returns what sv itself tells of the place.
func remembered(sv *v1alpha1.GrafanaSecureValue, p place) observed {
	about := intentOf(sv)
	record := findTarget(sv.Status.Targets, p)
	seen := observed{
		held:    record != nil || about.place == p,
		settled: isSettled(sv, record),
		trusted: isTrusted(sv, p),
		drifted: isDrifted(sv),
		record:  record,
		// An object that has held the place and lost it, or that found it taken, takes it only when somebody says so: the same
		// object in two clusters would otherwise take it from each other for ever.
		mayClaim: sv.Status.ObservedGeneration != sv.Generation || syncNow(sv) != "" ||
			record == nil && status.Reason(sv.Status.Conditions) != v1alpha1.ReasonNameConflict,
	}
	if about.place == p {
		seen.from = about.from
	}
	return seen
}

// isSettled reports whether the record says that this generation of the spec was written to its place, or found there.
func isSettled(sv *v1alpha1.GrafanaSecureValue, record *v1alpha1.TargetStatus) bool {
	return record != nil && record.Source != nil && record.Generation == sv.Generation
}

// isTrusted reports whether status alone says that this generation of the spec is at the wanted place. Where Ready is False, the last
// look may have shown something else there, or failed half-way; that an old place could not be given up says nothing of the wanted one.
func isTrusted(sv *v1alpha1.GrafanaSecureValue, wanted place) bool {
	if sv.Status.ObservedGeneration != sv.Generation || len(sv.Status.Targets) == 0 || placeOf(sv.Status.Targets[0]) != wanted ||
		!isSettled(sv, &sv.Status.Targets[0]) {
		return false
	}
	return isReady(sv) || status.Reason(sv.Status.Conditions) == v1alpha1.ReasonDeletionBlocked
}

// isDrifted reports whether status says, of this generation, that drift is left alone.
func isDrifted(sv *v1alpha1.GrafanaSecureValue) bool {
	return sv.Status.ObservedGeneration == sv.Generation && status.Reason(sv.Status.Conditions) == v1alpha1.ReasonDrifted
}

func isReady(sv *v1alpha1.GrafanaSecureValue) bool {
	return meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReady)
}

// action is the next step towards what is desired at a place.
type action string

const (
	keep     action = "keep"     // it is there
	look     action = "look"     // ask Grafana what is there
	create   action = "create"   // POST
	update   action = "update"   // PUT over what Grafana showed
	remove   action = "remove"   // DELETE, proved by a 404
	bequeath action = "bequeath" // leave it to the heir, and forget the place
	wait     action = "wait"     // until the one who is leaving it to this object has let go
	drop     action = "drop"     // nothing of ours is there, or it is to stay: forget the place
)

// decide returns the next step at a place. Whatever is not ours is refused, and never written or deleted.
//
//	desired   known of the place                                   step
//	present   nothing says that we ever wrote there                create
//	present   same value, this generation trusted to be there      keep, unless it is to be written again
//	present   anything else, Grafana not asked yet                 look
//	present   nothing or ours, drifted, and drift is left alone    fault
//	present   Grafana shows nothing                                create
//	present   ours, same                                           keep, unless it is to be written again
//	present   ours, differs                                        update
//	present   vacated in our namespace                             update
//	present   unmarked, or abandoned in another namespace          update with Adopt, else fault
//	present   our twin's in another cluster                        update with Adopt if it may be claimed, else fault
//	present   anybody else's                                       fault
//	absent    to be retained                                       drop
//	absent    Grafana not asked yet                                look
//	absent    ours, of this connection, or inherited               bequeath if there is an heir, else remove
//	absent    to be inherited, and not let go of yet               wait
//	absent    nothing, another connection's, or anybody else's     drop
func decide(want *desired, seen observed) (action, error) {
	if want.absent {
		return decideAbsent(want, seen), nil
	}
	switch {
	case !seen.looked && !seen.held:
		return create, nil
	case !seen.looked && seen.trusted && !seen.suspect && sameValue(want, seen.record) && !want.again:
		return keep, nil
	case !seen.looked:
		return look, nil
	case (seen.found == nil || isMine(seen)) && driftOf(want, seen) != "" && withheld(want, seen):
		return "", driftedFault(want, seen)
	case seen.found == nil:
		return create, nil
	case isMine(seen) && !want.again && !differs(want, seen):
		return keep, nil
	case isMine(seen), seen.owner == vacated,
		want.adopt && (seen.owner == unmarked || seen.owner == abandoned),
		want.adopt && seen.owner == twin && seen.mayClaim:
		return update, nil
	default:
		return "", taken(want, seen)
	}
}

func decideAbsent(want *desired, seen observed) action {
	switch {
	case want.retain:
		return drop
	case !seen.looked:
		return look
	case seen.found == nil:
		return drop
	case seen.owner == leaver && inherited(want, seen):
		return wait
	case !mayRemove(want, seen):
		return drop
	case seen.heir != nil:
		return bequeath
	case want.heirsOnly:
		return keep
	default:
		return remove
	}
}

// mayRemove reports whether what Grafana showed is this object's to delete. With another connection's mark it is the same value
// reached through two connections, and held by the other.
func mayRemove(want *desired, seen observed) bool {
	switch seen.owner {
	case own:
		return seen.found.Labels[labelConnection] == want.marks.connection
	case vacated:
		return inherited(want, seen)
	default:
		return false
	}
}

// inherited reports whether what Grafana showed carries the mark of the object that left it to this one.
func inherited(want *desired, seen observed) bool {
	resident, proved := residentOf(seen.found.Labels, seen.found.Annotations)
	return seen.from != "" && proved && seen.from == resident.Name && want.marks.object.Namespace == resident.Namespace
}

// sameValue reports whether the value desired is the one that the record says is there: read from the same version of the
// same key, or of the same fingerprint.
func sameValue(want *desired, record *v1alpha1.TargetStatus) bool {
	if record == nil || record.Source == nil {
		return false
	}
	return *record.Source == want.source || fingerprint.Equal(record.Fingerprint, want.fingerprint)
}

// differs reports whether what Grafana showed is not what is desired. A version or creation time other than the recorded one
// says that somebody else has written, so that nothing is known of the value.
func differs(want *desired, seen observed) bool {
	found, record := seen.found, seen.record
	return !sameValue(want, record) ||
		(found.Version != 0 && found.Version != record.Version) ||
		!sameTime(found.CreatedAt, record) ||
		found.Description != want.description ||
		!sameSet(found.Decrypters, want.decrypters) ||
		!want.marks.complete(found.Labels, found.Annotations)
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
