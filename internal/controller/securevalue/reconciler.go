// Package securevalue keeps GrafanaSecureValues: it brings each secure value in Grafana in step with its Secret.
//
// There is one flow. desire (spec and Secret) and remembered or look (status and Grafana) feed decide, a pure function;
// settle takes the steps that it names; report alone writes status, events and log lines. Deletion and moves are the same flow
// for a place that shall hold nothing.
package securevalue

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
)

// lookTimeout bounds one look at one object, its calls to Grafana and to Kubernetes included. A look is not cut off when the
// process is told to stop, so that a write that has begun is also recorded.
const lookTimeout = 5 * time.Minute

// Reconciler keeps GrafanaSecureValues.
type Reconciler struct {
	client      client.Client // reads from the cache
	live        client.Reader // reads Secrets
	connections *connection.Registry
	keeper      *fingerprint.Keeper
	recorder    events.EventRecorder
	clusterID   string
	now         func() time.Time
	memory      memory
}

// Reconcile brings Grafana in line with the object, then reports how that went.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	defer r.connections.Leave(req.NamespacedName)

	sv := &v1alpha1.GrafanaSecureValue{}
	if err := r.client.Get(ctx, req.NamespacedName, sv); err != nil {
		r.memory.forget(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	sv = r.memory.newest(sv)

	done, err := r.sync(ctx, sv)
	return r.report(ctx, sv, done, err)
}

// sync brings the place that spec names in line first, and then gives up the places that the object has left. An object that
// is being deleted has left them all.
func (r *Reconciler) sync(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (*progress, error) {
	done := progressOf(sv)
	var wanted place
	if sv.DeletionTimestamp.IsZero() {
		want, err := r.desire(ctx, sv)
		if err != nil {
			return done, err
		}
		if r.inStep(ctx, sv, want.place) {
			return done, nil
		}
		if p, stray := strayIntent(sv, want.place); stray {
			done.note(p)
			return done, errNoted
		}
		if err := r.hold(ctx, sv, want, done); err != nil {
			return done, err
		}
		wanted = want.place
	}
	for _, p := range heldPlaces(sv) {
		if p != wanted {
			if err := r.giveUp(ctx, sv, p, done); err != nil {
				return done, err
			}
		}
	}
	if !sv.DeletionTimestamp.IsZero() {
		return done, r.letGo(ctx, sv)
	}
	return done, nil
}

// inStep reports whether status alone proves that there is nothing to do: this generation is in Grafana, from the version of
// the Secret that the cache shows, and no other place is held. Nobody is asked.
func (r *Reconciler) inStep(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, wanted place) bool {
	held := heldPlaces(sv)
	if !isSettled(sv) || len(held) != 1 || held[0] != wanted || sv.Status.Targets[0].Source == nil {
		return false
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	ref, source := sv.Spec.ValueFrom.SecretKeyRef, *sv.Status.Targets[0].Source
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: ref.Name}, secret); err != nil {
		return false
	}
	return source == v1alpha1.SourceStatus{
		Name: ref.Name, Key: ref.Key, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
	}
}

// isSettled reports whether status says that this generation of the spec is in Grafana.
func isSettled(sv *v1alpha1.GrafanaSecureValue) bool {
	return sv.Status.ObservedGeneration == sv.Generation &&
		meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionReady) && len(sv.Status.Targets) > 0
}

// hold makes the wanted place hold the value. The Secret is read only once it is this object's turn, and even where the
// connection is in trouble, so that an object that has nothing to write does not complain.
func (r *Reconciler) hold(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, done *progress) (err error) {
	session, trouble := r.admit(sv, want.id, want.place)
	if errors.Is(trouble, connection.ErrParked) {
		return trouble
	}
	defer func() { closeSession(session, err) }()

	if err := r.readSource(ctx, sv, want); err != nil {
		return err
	}
	seen := remembered(sv, want.place)
	if step, _ := decide(want, seen); step != keep {
		if trouble != nil {
			return trouble
		}
		if err := r.prepare(ctx, sv, want.place); err != nil {
			return err
		}
	}
	result, err := settle(ctx, session, want, seen)
	if err != nil {
		return err
	}
	done.hold(want, result, r.now())
	return nil
}

// giveUp makes a place hold nothing of ours, or forgets it.
func (r *Reconciler) giveUp(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, p place, done *progress) error {
	err := r.leavePlace(ctx, sv, p, done)
	if err == nil || errors.Is(err, connection.ErrParked) {
		return err
	}
	b := &blocked{object: keyOf(sv), place: p, cause: err}
	if !sv.DeletionTimestamp.IsZero() {
		b.since = sv.DeletionTimestamp.UTC().Format(time.RFC3339)
	}
	return b
}

func (r *Reconciler) leavePlace(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, p place, done *progress) (err error) {
	want := r.leave(sv, p)
	if want.retain {
		done.drop(p, keep)
		return nil
	}
	if _, err := r.getConnection(ctx, p.connection, sv.Namespace); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return waiting(v1alpha1.ReasonConnectionNotFound, "%s does not exist any more.", want.id)
		}
		return err
	}
	session, err := r.admit(sv, want.id, p)
	if err != nil {
		return err
	}
	defer func() { closeSession(session, err) }()

	result, err := settle(ctx, session, want, remembered(sv, p))
	if err != nil {
		return err
	}
	done.drop(p, result.did)
	return nil
}

func (r *Reconciler) admit(sv *v1alpha1.GrafanaSecureValue, id connection.ID, p place) (*connection.Session, error) {
	return r.connections.Admit(id, p.namespace, p.name, keyOf(sv))
}

// closeSession gives the connection back, and has the object handed back where the work failed in a way that time, or the
// connection's recovery, may heal. A nil session is none.
func closeSession(session *connection.Session, err error) {
	if session == nil {
		return
	}
	verdict, known := classify(err)
	if known && (verdict.Class == status.Time || verdict.Reason == v1alpha1.ReasonConnectionNotReady) {
		session.Retry()
	}
	session.Close()
}

// progress is what one look at an object has come to.
type progress struct {
	targets []v1alpha1.TargetStatus // the places held now
	ready   string                  // the message of Ready where the wanted place holds the value; "" keeps the old one
	notes   []string                // what syncs and yet will not work
	did     []deed                  // what was written to Grafana
}

// deed is one write to Grafana.
type deed struct {
	what    deedKind
	place   place
	version int64
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
		p.did = append(p.did, deed{what: writeKind(want, result.did, old, len(p.targets) > 0), place: want.place, version: target.Version})
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
func (p *progress) drop(place place, did action) {
	switch did {
	case remove:
		p.did = append(p.did, deed{what: deleted, place: place})
	case keep:
		p.did = append(p.did, deed{what: retained, place: place})
	case look, create, update, drop:
	}
	p.remove(place)
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
	deleted  deedKind = "Deleted"
	retained deedKind = "Retained"
)

// writeKind says what a write was, as a person would call it.
func writeKind(want *desired, did action, old *v1alpha1.TargetStatus, heldOthers bool) deedKind {
	switch {
	case old == nil && heldOthers:
		return moved
	case did == create, old == nil:
		return created
	case !sameValue(want, old):
		return rotated
	default:
		return updated
	}
}
