package securevalue

import (
	"slices"
	"strings"
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
	tried   []place                 // the places that were to be given up, whether they were or not

	answered string // the token of sync-now that a write has answered

	concluded func() // to be called once status says all this; nil for nothing
}

// deed is one write to Grafana.
type deed struct {
	what    deedKind
	place   place
	version int64
	heir    string    // to whom it was left
	drift   driftKind // what it corrected
	again   bool      // sync-now has asked for it
	bare    bool      // Grafana did not keep the labels
}

// cause is what the metric of written versions calls it.
func (d deed) cause() string {
	switch {
	case d.what == updated && d.again:
		return "sync_now"
	case d.what == updated:
		return "edited"
	case d.what == restored:
		return "drift"
	default:
		return strings.ToLower(string(d.what))
	}
}

// isWrite reports whether it made a version.
func (d deed) isWrite() bool { return d.what != deleted && d.what != retained }

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
	target.Generation = want.generation
	if result.value != nil {
		target.Version = result.value.Version
		target.CreatedAt = nil
		if !result.value.CreatedAt.IsZero() {
			target.CreatedAt = &metav1.Time{Time: result.value.CreatedAt}
		}
	}
	if result.isWrite() {
		target.LastWriteTime = &metav1.Time{Time: now.Truncate(time.Second)}
		p.wrote(want, result, target.Version)
	}
	p.remove(want.place)
	p.targets = append([]v1alpha1.TargetStatus{target}, p.targets...)
	p.ready, p.notes = readyMessage(target, want.notes()), want.notes()
}

// wrote has a write told.
func (p *progress) wrote(want *desired, result outcome, version int64) {
	what := writeKind(want, result, findTarget(p.targets, want.place), len(p.targets) > 0)
	p.did = append(p.did, deed{
		what: what, place: want.place, version: version, drift: result.drift, again: want.again, bare: result.bare,
	})
}

// fail has told what was written, and was of no use.
func (p *progress) fail(want *desired, result outcome) {
	if result.bare {
		p.wrote(want, result, result.value.Version)
	}
	if result.undone {
		p.did = append(p.did, deed{what: deleted, place: want.place, bare: true})
	}
}

// doubt records that a write to a place ended with an outcome that is not known: what is there may be what this object wrote.
func (p *progress) doubt(at place) {
	if record := findTarget(p.targets, at); record != nil {
		record.Generation = 0
	}
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
	case result.did == bequeath, want.retain && p.wroteAt(want.place):
		p.did = append(p.did, deed{what: retained, place: want.place, heir: result.heir})
	}
	p.remove(want.place)
}

// wroteAt reports whether a place is known to hold a value of ours, rather than only that it may.
func (p *progress) wroteAt(at place) bool {
	record := findTarget(p.targets, at)
	return record != nil && record.Source != nil
}

func (p *progress) hasTried(at place) bool { return slices.Contains(p.tried, at) }

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
	restored deedKind = "DriftCorrected"
	deleted  deedKind = "Deleted"
	retained deedKind = "Retained"
)

// writeKind says what a write was, as a person would call it.
func writeKind(want *desired, result outcome, old *v1alpha1.TargetStatus, heldOthers bool) deedKind {
	switch {
	case result.adopted:
		return adopted
	case result.drift != "":
		return restored
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
