package securevalue

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// record is what an object owns and has pending, and what a reconcile has changed of it.
type record struct {
	targets  []v1alpha1.TargetStatus // owned; the one that spec names is the first, once it is written
	pending  []ownership.Target
	claimed  bool               // this reconcile has claimed the wanted target
	written  []ownership.Target // by this reconcile, or found to be as they shall be
	released []ownership.Target // proved by this reconcile
	leaving  string             // why targets are released: the object moved, or is deleted

	changes  []change
	message  string    // of Ready=True; "" keeps the old one
	warnings []string  // what syncs and may still not work
	answered string    // the token of sync-now that a write has answered
	asked    bool      // Grafana showed that the wanted target is as it shall be, or it was written
	drift    driftKind // what the write corrected

	rotation  bool         // the Secret alone changed, which is limited
	rotatedAt *metav1.Time // when a value was written that differs because its source does; nil keeps the old time
	origin    *string      // of the Secret; nil if that was not read
}

// change is one write to Grafana, or a value that was left there.
type change struct {
	kind    changeKind
	cause   string // created, rotated, edited, moved, adopted, drift or sync_now; of a removal moved, deleted or labels_not_kept
	target  ownership.Target
	version int64
	from    *ownership.Target // what the object moved away from
	drift   driftKind         // what it corrected
}

// changeKind is also the reason of the event.
type changeKind string

const (
	created        changeKind = "Created"
	rotated        changeKind = "Rotated"
	updated        changeKind = "Updated"
	moved          changeKind = "Moved"
	adopted        changeKind = "Adopted"
	driftCorrected changeKind = "DriftCorrected"
	deleted        changeKind = "Deleted"
	retained       changeKind = "Retained"
)

// causeLabels is the cause of a removal where Grafana did not keep the labels of what was written.
const causeLabels = "labels_not_kept"

// isWrite reports whether it made a version.
func (c change) isWrite() bool { return c.kind != deleted && c.kind != retained }

func recordOf(sv *v1alpha1.GrafanaSecureValue) *record {
	rec := &record{targets: sv.Status.DeepCopy().Targets, pending: ownership.Pending(sv), leaving: "moved"}
	if !sv.DeletionTimestamp.IsZero() {
		rec.leaving = "deleted"
	}
	return rec
}

// all returns the targets that the object owns or has pending, each once.
func (rec *record) all() []ownership.Target {
	var all []ownership.Target
	for _, t := range rec.targets {
		all = append(all, ownership.TargetOf(t))
	}
	for _, t := range rec.pending {
		if !slices.Contains(all, t) && !slices.Contains(rec.released, t) {
			all = append(all, t)
		}
	}
	return all
}

func (rec *record) others(wanted ownership.Target) []ownership.Target {
	return slices.DeleteFunc(rec.all(), func(t ownership.Target) bool { return t == wanted })
}

// has reports whether the object owns the target or has it pending.
func (rec *record) has(t ownership.Target) bool { return slices.Contains(rec.all(), t) }

// wrote reports whether status says that the object wrote the target, rather than that it may have.
func (rec *record) wrote(t ownership.Target) bool {
	return ownership.Record(rec.targets, t).IsWritten()
}

// own records that the wanted target has the value, by the write if there was one. It becomes the first target.
func (rec *record) own(want *desired, found *grafana.SecureValue, write *change, now time.Time) {
	target := v1alpha1.TargetStatus{Connection: want.target.Connection, Namespace: want.target.Namespace, Name: want.target.Name}
	if old := ownership.Record(rec.targets, want.target); old != nil {
		target = *old
	}
	target.Source, target.Sources, target.Recipe = want.source.key, want.source.secrets, want.source.recipe
	target.Fingerprint, target.Generation = want.fingerprint, want.generation
	target.DescriptionKept = want.kept
	if found != nil {
		target.Version, target.CreatedAt = found.Version, nil
		if !found.CreatedAt.IsZero() {
			target.CreatedAt = &metav1.Time{Time: found.CreatedAt}
		}
	}
	if write != nil {
		target.LastWriteTime = &metav1.Time{Time: now.Truncate(time.Second)}
		write.version = target.Version
		rec.changes = append(rec.changes, *write)
		rec.drift = write.drift
	}
	if write != nil && want.rotated {
		rec.rotatedAt = target.LastWriteTime
	}
	if want.again && write != nil {
		rec.answered = want.token
	}
	rec.asked = rec.asked || found != nil
	rec.written = append(rec.written, want.target)
	rec.targets = append([]v1alpha1.TargetStatus{target}, slices.DeleteFunc(rec.targets, isTarget(want.target))...)
	rec.origin = &want.origin
	rec.warnings = want.warnings()
	rec.message = readyMessage(target, rec.warnings)
}

// outcomeUnknown records that the outcome of a write is not known: the target may have what this object sent.
func (rec *record) outcomeUnknown(t ownership.Target) {
	if record := ownership.Record(rec.targets, t); record != nil {
		record.Generation = 0
		rec.written = append(rec.written, t)
	}
}

// release records that a target is none of the object's any more, and what was done with its value.
func (rec *record) release(t ownership.Target, done changeKind) {
	if done != "" {
		rec.changes = append(rec.changes, change{kind: done, cause: rec.leaving, target: t})
	}
	rec.targets = slices.DeleteFunc(rec.targets, isTarget(t))
	rec.released = append(rec.released, t)
}

// onto puts what was written on top of a newer version of the object. Releases do not count: they must be decided again.
func (rec *record) onto(newer *v1alpha1.GrafanaSecureValue) {
	merged := newer.Status.DeepCopy().Targets
	for _, t := range slices.Backward(rec.written) {
		if record := ownership.Record(rec.targets, t); record != nil {
			merged = append([]v1alpha1.TargetStatus{*record}, slices.DeleteFunc(merged, isTarget(t))...)
		}
	}
	rec.targets, rec.pending, rec.released = merged, ownership.Pending(newer), nil
}

func isTarget(t ownership.Target) func(v1alpha1.TargetStatus) bool {
	return func(record v1alpha1.TargetStatus) bool { return ownership.TargetOf(record) == t }
}
