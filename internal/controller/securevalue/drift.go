package securevalue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

const (
	// maxCorrections bounds how often drift is corrected within correctionPeriod. Whoever comes back after that writes too.
	maxCorrections   = 3
	correctionPeriod = time.Hour
)

// driftKind is what somebody else did to a value.
type driftKind string

const (
	driftDeleted     driftKind = "deleted"
	driftRecreated   driftKind = "recreated"   // deleted and created anew
	driftOverwritten driftKind = "overwritten" // another version
	driftEdited      driftKind = "edited"      // the same version, or none is served, and yet not what was written
)

// driftOf returns what somebody else did to a place that is known to have held what is desired, or "" where there was none.
func driftOf(want *desired, seen observed) driftKind {
	record, found := seen.record, seen.found
	if !seen.looked || !seen.settled || want.again || !sameValue(want, record) {
		return ""
	}
	switch {
	case found == nil:
		return driftDeleted
	case !sameTime(found.CreatedAt, record):
		return driftRecreated
	case found.Version != 0 && found.Version != record.Version:
		return driftOverwritten
	case differs(want, seen):
		return driftEdited
	default:
		return ""
	}
}

// withheld reports whether drift is left alone: by the policy, because it came again and again, or because either was said before and
// nobody has answered it.
func withheld(want *desired, seen observed) bool {
	return want.report || seen.contested || seen.drifted
}

// isMine reports whether what Grafana showed is the object's own: by its mark, or because it is the very value that is on record, whose
// marks somebody has removed.
func isMine(seen observed) bool {
	stripped := seen.owner == unmarked && seen.record != nil && seen.record.Source != nil &&
		seen.record.CreatedAt != nil && !seen.found.CreatedAt.IsZero() && sameTime(seen.found.CreatedAt, seen.record)
	return seen.owner == own || stripped
}

// sameTime reports whether a creation time that Grafana showed is the recorded one, as far as both are known. Grafana counts seconds.
func sameTime(createdAt time.Time, record *v1alpha1.TargetStatus) bool {
	return createdAt.IsZero() || record.CreatedAt == nil || createdAt.Unix() == record.CreatedAt.Unix()
}

// suspicion compares what a LIST that was begun at that time shows of the place that sv holds; nil is nothing. It returns what gives
// reason to ask Grafana for that value alone, or "". A LIST begun before our own last write proves nothing.
func suspicion(sv *v1alpha1.GrafanaSecureValue, m marks, listed *grafana.Listed, begun time.Time) string {
	if !sv.DeletionTimestamp.IsZero() || sv.Spec.Suspend || len(sv.Status.Targets) == 0 {
		return ""
	}
	record := &sv.Status.Targets[0]
	if record.Source == nil || record.Generation != sv.Generation {
		return "" // it is to be written anyway
	}
	if last := record.LastWriteTime; last != nil && !begun.After(last.Add(time.Second)) { // the record counts seconds
		return ""
	}
	same := listed != nil && (listed.Version == 0 || listed.Version == record.Version) && sameTime(listed.CreatedAt, record) &&
		listed.Spec == grafana.DigestOf(sv.DescriptionOrDefault(), sv.Spec.Decrypters) && m.complete(listed.Labels, listed.Annotations)
	switch {
	case same && isDrifted(sv):
		return "restored"
	case same:
		return ""
	case listed == nil:
		return string(driftDeleted)
	default:
		return fmt.Sprintf("version %d of %d", listed.Version, listed.CreatedAt.Unix())
	}
}

// suspicions remembers, for the objects of this process, what LISTs gave reason to look at and what came of it. A restart may forget it.
// Its zero value is ready for use.
type suspicions struct {
	mu        sync.Mutex
	open      map[types.NamespacedName]string // not looked at yet
	known     map[types.NamespacedName]string // looked at, and left alone
	corrected map[types.NamespacedName][]time.Time
}

// raise notes a suspicion. It reports false where it is the one that was looked at before and left alone.
func (s *suspicions) raise(key types.NamespacedName, suspicion string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[key] == suspicion {
		return false
	}
	if s.open == nil {
		s.open = map[types.NamespacedName]string{}
	}
	s.open[key] = suspicion
	return true
}

func (s *suspicions) has(key types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[key] != ""
}

// confirm says that what was suspected is true, and left alone. It reports whether something was suspected.
func (s *suspicions) confirm(key types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == "" {
		return false
	}
	if s.known == nil {
		s.known = map[types.NamespacedName]string{}
	}
	s.known[key] = s.open[key]
	delete(s.open, key)
	return true
}

// settle says that Grafana was asked and holds what is desired.
func (s *suspicions) settle(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, key)
	delete(s.known, key)
}

// correct counts a correction.
func (s *suspicions) correct(key types.NamespacedName, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.corrected == nil {
		s.corrected = map[types.NamespacedName][]time.Time{}
	}
	s.corrected[key] = append(s.recent(key, now), now)
}

// contested reports whether a further correction would be one too many.
func (s *suspicions) contested(key types.NamespacedName, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.recent(key, now)) >= maxCorrections
}

// recent returns the corrections that count at that time. s.mu is held.
func (s *suspicions) recent(key types.NamespacedName, now time.Time) []time.Time {
	return slices.DeleteFunc(s.corrected[key], func(t time.Time) bool { return now.Sub(t) >= correctionPeriod })
}

// intend ends the count of corrections: what is written now is our own intent.
func (s *suspicions) intend(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.corrected, key)
}

// forget ends what is remembered of an object that is gone.
func (s *suspicions) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, key)
	delete(s.known, key)
	delete(s.corrected, key)
}

// compare looks for drift in a LIST, and has the objects looked at whose value is not listed as it was written: the LIST is a hint, and
// each of them asks Grafana itself.
func (c *Controller) compare(objects []v1alpha1.GrafanaSecureValue, id connection.ID, listing connection.Listing) {
	for i := range objects {
		sv := c.memory.newest(&objects[i])
		if isUnfinished(sv) && sv.DeletionTimestamp.IsZero() {
			c.waker.Wake(keyOf(sv)) // it is late, or a leader that had stopped for a while has written an old status over a newer one
			continue
		}
		if len(sv.Status.Targets) == 0 || connection.IDOf(sv.Status.Targets[0].Connection, sv.Namespace) != id {
			continue
		}
		listed, asked := listing.Values[sv.Status.Targets[0].Name]
		if !asked { // nobody knew of it when the LIST was begun
			continue
		}
		m := marksOf(c.opts.ClusterID, keyOf(sv), id)
		if s := suspicion(sv, m, listed, listing.Begun); s != "" && c.suspicions.raise(keyOf(sv), s) {
			c.waker.Wake(keyOf(sv))
		}
	}
}

// isUnfinished reports whether status leaves open what became of the latest generation: it was not looked at, or its write had no answer.
func isUnfinished(sv *v1alpha1.GrafanaSecureValue) bool {
	if sv.Status.ObservedGeneration != sv.Generation {
		return true
	}
	written := len(sv.Status.Targets) > 0 && sv.Status.Targets[0].Generation == sv.Generation
	return !written && status.Reason(sv.Status.Conditions) == v1alpha1.ReasonGrafanaUnavailable
}

// isUnowned reports whether no object names or holds a listed value of this cluster that is of none of those that use the connection.
func (c *Controller) isUnowned(ctx context.Context, v grafana.Listed) bool {
	object, proved := residentOf(v.Labels, v.Annotations)
	return !proved || c.opts.watches(object.Namespace) && !c.claims(ctx, object, v.Name) // it may do so through another connection
}

// claims reports whether an object names or holds that name in Grafana.
func (c *Controller) claims(ctx context.Context, object types.NamespacedName, name string) bool {
	sv := &v1alpha1.GrafanaSecureValue{}
	if err := c.client.Get(ctx, object, sv); err != nil {
		return !apierrors.IsNotFound(err)
	}
	return slices.ContainsFunc(claimsOf(sv), func(had claim) bool { return had.name == name })
}
