package securevalue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// Effect is what a reconcile would do at one target.
type Effect string

// The effects of a reconcile.
const (
	EffectCreate   Effect = "create"
	EffectUpdate   Effect = "update"   // the fields alone
	EffectRotate   Effect = "rotate"   // another value, and perhaps fields
	EffectMove     Effect = "move"     // a new target is written; the old one follows as an effect of its own
	EffectAdopt    Effect = "adopt"    // a value that was not the object's is overwritten
	EffectDelete   Effect = "delete"   // the value is deleted from Grafana
	EffectConflict Effect = "conflict" // the name is taken, and nothing is written
	EffectNotReady Effect = "notReady" // nothing is written, because of what Reason says
	EffectNothing  Effect = "nothing"
)

// IsChange reports whether Grafana would be changed.
func (e Effect) IsChange() bool {
	return e != EffectConflict && e != EffectNotReady && e != EffectNothing
}

// Planned is one effect of a reconcile.
type Planned struct {
	Effect Effect
	Target ownership.Target
	// May says that it depends on whether the value changed, which is not known without the fingerprint key.
	May bool
	// From is what a move leaves; nil for all else.
	From *ownership.Target
	// Fields are what a write would change beside the value: fields of spec, or labels, which name the owner.
	Fields []string
	// Reason and Message are what Ready would say where that is not Synced. A message without a reason is a remark.
	Reason, Message string
}

// Asker asks Grafana for a secure value; nil is that there is none.
type Asker func(ctx context.Context, conn v1alpha1.Connection, name string) (*grafana.SecureValue, error)

// Planner says what reconciles would do, by the rules of the Reconciler. It reads Kubernetes and Grafana, and writes nothing.
type Planner struct {
	r        *Reconciler
	ask      Asker
	hasKey   bool
	written  map[ownership.Place]client.ObjectKey // what objects that were planned before would write
	planning client.ObjectKey
}

// theKey is a keyStore of one key.
type theKey fingerprint.Key

func (k theKey) Key(context.Context) (fingerprint.Key, error) { return fingerprint.Key(k), nil }

// NewPlanner returns a planner for a cluster with that id, as the view shows it. Without a fingerprint key, which is nil, a value made from
// another version of its Secret may be the same.
func NewPlanner(view *View, clusterID string, key *fingerprint.Key, ask Asker) *Planner {
	p := &Planner{ask: ask, hasKey: key != nil, written: map[ownership.Place]client.ObjectKey{}}
	if key == nil {
		key = new(fingerprint.NewKey()) // which equals no recorded one
	}
	view.clusterID, view.indexed = clusterID, map[string]*namespaceView{}
	p.r = &Reconciler{
		client: readOnly{view: view}, live: view, connections: connection.NewRegistry(0), keys: theKey(*key), clusterID: clusterID,
		served: connection.Served{Namespaced: true, Cluster: true}, now: time.Now, leadingFrom: sync.OnceValue(time.Now),
	}
	return p
}

// Plan returns what a reconcile of the object, which is one of the view, would do: at the target that spec names first, and then at those
// that it leaves. The error is of Kubernetes or Grafana: then nothing is known.
func (p *Planner) Plan(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) ([]Planned, error) {
	rec := recordOf(sv)
	p.planning = keyOf(sv)
	if !sv.DeletionTimestamp.IsZero() {
		if ownership.IsReleased(sv) {
			return []Planned{nothing(p.specOf(sv), "The operator has released it.")}, nil
		}
		return p.leave(ctx, sv, rec, rec.all(), nil)
	}
	if sv.Spec.Suspend {
		return []Planned{nothing(p.specOf(sv), errSuspended.Message)}, nil
	}
	want, err := p.r.desired(ctx, sv)
	if err != nil {
		return p.refused(p.specOf(sv), err)
	}
	first, err := p.arrive(ctx, sv, want, rec)
	if err != nil {
		return p.refused(want.target, err)
	}
	rest, err := p.leave(ctx, sv, rec, rec.others(want.target), want)
	return append([]Planned{first}, rest...), err
}

// specOf returns the target that spec names, as far as it is known without the connection.
func (p *Planner) specOf(sv *v1alpha1.GrafanaSecureValue) ownership.Target {
	return ownership.Target{Connection: sv.ConnectionOrDefault(), Name: sv.SecureValueName()}
}

func nothing(t ownership.Target, message string) Planned {
	return Planned{Effect: EffectNothing, Target: t, Message: message}
}

// refused returns an error of the operator as an effect.
func (p *Planner) refused(t ownership.Target, err error) ([]Planned, error) {
	e := status.Of(err)
	if e == nil {
		return nil, err
	}
	effect := EffectNotReady
	if slices.Contains([]string{v1alpha1.ReasonNameConflict, v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonAdoptionNotAllowed}, e.Reason) {
		effect = EffectConflict
	}
	return []Planned{{Effect: effect, Target: t, Reason: e.Reason, Message: e.Message}}, nil
}

// arrive plans what ensure would do at the wanted target.
func (p *Planner) arrive(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, rec *record) (Planned, error) {
	none := nothing(want.target, "")
	seen := observedInStatus(sv, rec, want.target)
	contended, err := p.r.isContended(ctx, sv, want)
	if err != nil {
		return none, err
	}
	seen.known = seen.known || contended
	if err := p.r.readSource(ctx, sv, want); err != nil {
		return none, err
	}
	if step, _ := decide(want, seen); step == keep {
		return none, nil
	}
	found, err := p.ask(ctx, want.connection, want.target.Name)
	if err != nil {
		return none, err
	}
	if seen, err = p.r.classify(ctx, sv, want, seen, found); err != nil {
		return none, err
	}
	step, err := decide(want, seen)
	if err != nil || step == keep {
		return none, err
	}
	if other, taken := p.written[want.place]; taken && other != p.planning {
		return none, conflictError(want, observed{owner: ownership.Sibling, class: foreign, by: nameWithin(other, sv.Namespace)})
	}
	p.written[want.place] = p.planning
	return p.write(want, rec, seen, step), nil
}

// nameWithin returns the name of an object of that namespace; others are not named.
func nameWithin(object client.ObjectKey, namespace string) string {
	if object.Namespace != namespace {
		return ""
	}
	return object.Name
}

// write says what a write would be, and what it would change.
func (p *Planner) write(want *desired, rec *record, seen observed, step action) Planned {
	want.kept = keepsDescription(want, rec, seen, step)
	done := changeOf(want, rec, seen, step)
	planned := Planned{Effect: EffectUpdate, Target: want.target}
	if step != create {
		planned.Fields = fieldsOf(want, seen.found)
	}
	isRotation := !sameValue(want, seen.record)
	switch {
	case step == create && done.kind == moved:
		planned.Effect, planned.From = EffectMove, done.from
	case step == create:
		planned.Effect = EffectCreate
	case step == takeOver:
		planned.Effect = EffectAdopt
	case isRotation && !p.hasKey && seen.record.IsWritten():
		planned.Effect, planned.May = EffectRotate, true
	case isRotation:
		planned.Effect = EffectRotate
	case want.again:
		planned.Message = "The annotation " + v1alpha1.AnnotationSyncNow + " asks for one more write."
	case done.kind == driftCorrected:
		planned.Message = "Another writer has changed it: " + string(done.drift) + "."
	}
	return planned
}

// fieldsOf returns what a write over that value would change beside the value itself.
func fieldsOf(want *desired, found *grafana.SecureValue) []string {
	var fields []string
	if want.text(found) != found.Description {
		fields = append(fields, "description")
	}
	if !slices.Equal(slices.Sorted(slices.Values(want.decrypters)), slices.Sorted(slices.Values(found.Decrypters))) {
		fields = append(fields, "decrypters")
	}
	_, retained := found.Labels[ownership.LabelRetain]
	switch labels := want.labels; {
	case labels.Match(found.Labels):
	case labels.OwnerOf(found) != ownership.Self:
		fields = append(fields, "labels")
	default:
		if found.Labels[ownership.LabelConnection] != labels.Connection.Label() {
			fields = append(fields, "connectionRef")
		}
		if retained != labels.Retain {
			fields = append(fields, "deletionPolicy")
		}
	}
	return fields
}

// leave plans what release would do at targets.
func (p *Planner) leave(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, targets []ownership.Target, wanted *desired,
) ([]Planned, error) {
	var all []Planned
	for _, t := range targets {
		planned, err := p.leaveOne(ctx, sv, rec, t, wanted)
		if err != nil {
			if status.Of(err) == nil {
				return nil, err
			}
			refused, _ := p.refused(t, blocked(sv, rec, t, err)) // which is an error of the operator
			all = append(all, refused...)
			continue
		}
		all = append(all, planned)
	}
	return all, nil
}

func (p *Planner) leaveOne(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, t ownership.Target, wanted *desired,
) (Planned, error) {
	if sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		return nothing(t, "spec.deletionPolicy is Retain: the value stays in Grafana, and this object no longer owns it."), nil
	}
	conn, err := p.r.connectionForRelease(ctx, sv, rec, t)
	if errors.Is(err, errNotServed) {
		return nothing(t, ""), nil
	}
	if err != nil {
		return Planned{}, err
	}
	place := p.r.placeOf(conn, t)
	if wanted != nil && place.Server != "" && place == wanted.place {
		return nothing(t, "It is the same secure value, through another connection."), nil
	}
	found, err := p.ask(ctx, conn, t.Name)
	if err != nil {
		return Planned{}, err
	}
	d, err := p.r.departure(ctx, place, sv, t, found, wanted)
	if err != nil {
		return Planned{}, err
	}
	switch d.decide() {
	case remove:
		return Planned{Effect: EffectDelete, Target: t}, nil
	case waitForOwner, waitForSuccessor:
		return nothing(t, "Another object of the namespace takes it over."), nil
	case forget:
	}
	if found == nil {
		return nothing(t, "It is not in Grafana."), nil
	}
	return nothing(t, "It stays in Grafana, because this object does not own it, or another one has taken it over."), nil
}
