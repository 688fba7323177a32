package securevalue

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// progress is what one look at an object has come to.
type progress struct {
	targets []v1alpha1.TargetStatus // the places held now
	ready   string                  // the message of Ready where the wanted place holds the value; "" keeps the old one
	notes   []string                // what syncs and yet will not work
	did     []deed                  // what was written to Grafana, or left there

	answered string // the token of sync-now that a write has answered
}

// deed is one write to Grafana.
type deed struct {
	what    deedKind
	place   place
	version int64
	heir    string // to whom it was left
}

func progressOf(sv *v1alpha1.GrafanaSecureValue) *progress {
	return &progress{targets: sv.Status.DeepCopy().Targets}
}

// hold records that the wanted place holds the value. It becomes the first target.
func (p *progress) hold(want *desired, result outcome, now time.Time) {
	target := v1alpha1.TargetStatus{
		Connection: want.place.connection, Namespace: want.place.namespace, Name: want.place.name,
	}
	old := findTarget(p.targets, want.place)
	if old != nil {
		target = *old
	}
	target.Source = &want.source
	target.Fingerprint = want.fingerprint
	if result.value != nil {
		target.Version = result.value.Version
		target.CreatedAt = nil
		if !result.value.CreatedAt.IsZero() {
			target.CreatedAt = &metav1.Time{Time: result.value.CreatedAt}
		}
	}
	if result.did == create || result.did == update {
		target.LastWriteTime = &metav1.Time{Time: now.Truncate(time.Second)}
		p.did = append(p.did, deed{what: writeKind(want, result, old, len(p.targets) > 0), place: want.place, version: target.Version})
	}
	p.remove(want.place)
	p.targets = append([]v1alpha1.TargetStatus{target}, p.targets...)
	p.ready, p.notes = readyMessage(target, want.notes()), want.notes()
}

// note records a place of which nothing is known but that it may hold a value of ours.
func (p *progress) note(at place) {
	p.targets = append(p.targets, v1alpha1.TargetStatus{Connection: at.connection, Namespace: at.namespace, Name: at.name})
}

// drop records that a place is given up.
func (p *progress) drop(want *desired, result outcome) {
	switch {
	case result.did == keep: // it is not
		return
	case result.did == remove:
		p.did = append(p.did, deed{what: deleted, place: want.place})
	case result.did == bequeath, want.retain:
		p.did = append(p.did, deed{what: retained, place: want.place, heir: result.heir})
	}
	p.remove(want.place)
}

func (p *progress) remove(place place) {
	var rest []v1alpha1.TargetStatus
	for _, t := range p.targets {
		if placeOf(t) != place {
			rest = append(rest, t)
		}
	}
	p.targets = rest
}

// deedKind is also the reason of the event that tells of a write.
type deedKind string

const (
	created  deedKind = "Created"
	rotated  deedKind = "Rotated"
	updated  deedKind = "Updated"
	moved    deedKind = "Moved"
	adopted  deedKind = "Adopted"
	deleted  deedKind = "Deleted"
	retained deedKind = "Retained"
)

// writeKind says what a write was, as a person would call it.
func writeKind(want *desired, result outcome, old *v1alpha1.TargetStatus, heldOthers bool) deedKind {
	switch {
	case result.adopted:
		return adopted
	case old == nil && heldOthers:
		return moved
	case result.did == create, old == nil:
		return created
	case !sameValue(want, old):
		return rotated
	default:
		return updated
	}
}
