package securevalue

import (
	"slices"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// observed is what is known of one place: what status remembers of it, and what Grafana showed.
type observed struct {
	held    bool                   // status or intent says that something of ours may be there
	settled bool                   // status says that this generation of the spec is there
	record  *v1alpha1.TargetStatus // what status remembers; nil if it holds no record

	looked bool                 // Grafana was asked
	found  *grafana.SecureValue // what it showed; nil is nothing
}

// remembered returns what sv itself tells of the place.
func remembered(sv *v1alpha1.GrafanaSecureValue, p place) observed {
	intent, _ := intentOf(sv)
	record := findTarget(sv.Status.Targets, p)
	return observed{
		held:    record != nil || intent == p,
		settled: isSettled(sv),
		record:  record,
	}
}

// action is the next step towards what is desired at a place.
type action string

const (
	keep   action = "keep"   // it is there
	look   action = "look"   // ask Grafana what is there
	create action = "create" // POST
	update action = "update" // PUT over what Grafana showed
	remove action = "remove" // DELETE, proved by a 404
	drop   action = "drop"   // nothing of ours is there, or it is to stay: forget the place
)

// decide returns the next step at a place. Whatever is not ours is refused, and never written or deleted.
//
//	desired   known of the place                                   step
//	present   nothing says that we ever wrote there                create
//	present   same value, this generation already there            keep
//	present   anything else, Grafana not asked yet                 look
//	present   Grafana shows nothing                                create
//	present   ours, same                                           keep
//	present   ours, differs                                        update
//	present   not ours                                             fault
//	absent    to be retained                                       drop
//	absent    Grafana not asked yet                                look
//	absent    nothing, not ours, or another connection's           drop
//	absent    ours, of this connection                             remove
func decide(want *desired, seen observed) (action, error) {
	if want.absent {
		return decideAbsent(want, seen), nil
	}
	switch {
	case !seen.looked && !seen.held:
		return create, nil
	case !seen.looked && seen.settled && sameValue(want, seen.record):
		return keep, nil
	case !seen.looked:
		return look, nil
	case seen.found == nil:
		return create, nil
	case !want.marks.own(seen.found):
		return "", notOurs(want, seen.found)
	case differs(want, seen):
		return update, nil
	default:
		return keep, nil
	}
}

func decideAbsent(want *desired, seen observed) action {
	switch {
	case want.retain:
		return drop
	case !seen.looked:
		return look
	case seen.found == nil, !want.marks.own(seen.found), seen.found.Labels[labelConnection] != want.marks.connection:
		return drop
	default:
		return remove
	}
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
		(!found.CreatedAt.IsZero() && record.CreatedAt != nil && found.CreatedAt.Unix() != record.CreatedAt.Unix()) ||
		found.Description != want.description ||
		!sameSet(found.Decrypters, want.decrypters) ||
		!want.marks.complete(found)
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
