package securevalue

import (
	"context"
	"slices"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// onOthers looks again at whoever the change of an object concerns beside itself: those who name a place that it has let go of, those
// who may leave it one that it names now, and the connections that it does not use any more.
func (c *Controller) onOthers() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	change := func(ctx context.Context, q queue, before, after client.Object) {
		old, _ := before.(*v1alpha1.GrafanaSecureValue) // the watch is of this kind, or there is none
		now, _ := after.(*v1alpha1.GrafanaSecureValue)
		c.changed(ctx, old, now, q.Add)
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { change(ctx, q, nil, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) { change(ctx, q, e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { change(ctx, q, e.Object, nil) },
	}
}

// changed wakes whoever is concerned by the change of an object from before to after, either of which is nil where it is not there.
func (c *Controller) changed(ctx context.Context, before, after *v1alpha1.GrafanaSecureValue, wake func(reconcile.Request)) {
	self := after
	if after == nil {
		self = before
	}
	others := func(name string, concerned func(*v1alpha1.GrafanaSecureValue) bool, opts ...client.ListOption) {
		isOther := func(sv *v1alpha1.GrafanaSecureValue) bool { return keyOf(sv) != keyOf(self) && concerned(sv) }
		for _, req := range c.requests(ctx, isOther, append(opts, client.MatchingFields{nameIndex: bucket(name)})...) {
			wake(req)
		}
	}
	for _, name := range releasedNames(before, after) {
		others(name, isWithout(name))
		others(name, mayHold(name), client.InNamespace(self.Namespace)) // who was left it, and has left it
	}
	if after != nil && (before == nil || wantedBy(before) != wantedBy(after) || intentOf(before) != intentOf(after)) {
		others(after.SecureValueName(), mayHold(after.SecureValueName()), client.InNamespace(after.Namespace))
	}
	if before == nil {
		return
	}
	for _, id := range connectionsOf(before) {
		if after == nil || !slices.Contains(connectionsOf(after), id) {
			c.connections.Released(id)
		}
	}
}

// isWithout reports whether an object wants the name, and may lack the place. The cache may be late: only one that it shows to have the
// place for the latest generation does not.
func isWithout(name string) func(*v1alpha1.GrafanaSecureValue) bool {
	return func(sv *v1alpha1.GrafanaSecureValue) bool {
		return sv.SecureValueName() == name && (!isReady(sv) || sv.Status.ObservedGeneration != sv.Generation)
	}
}

// mayHold reports whether an object may hold a place of that name.
func mayHold(name string) func(*v1alpha1.GrafanaSecureValue) bool {
	return func(sv *v1alpha1.GrafanaSecureValue) bool {
		return slices.ContainsFunc(heldPlaces(sv), func(p place) bool { return p.name == name })
	}
}

// claim is a name that an object has in Grafana, or wants to have, through a connection.
type claim struct {
	connection connection.ID
	name       string
}

// wantedBy returns what the spec of an object names.
func wantedBy(sv *v1alpha1.GrafanaSecureValue) claim {
	return claim{connection.IDOf(sv.Spec.ConnectionRef, sv.Namespace), sv.SecureValueName()}
}

func claimsOf(sv *v1alpha1.GrafanaSecureValue) []claim {
	claims := []claim{wantedBy(sv)}
	for _, p := range heldPlaces(sv) {
		claims = append(claims, claim{connection.IDOf(p.connection, sv.Namespace), p.name})
	}
	return claims
}

// held returns what an object may have had of its claims: it names a place in its intent before it writes there. One that found its name
// taken has nothing there, unless it was left it.
func held(sv *v1alpha1.GrafanaSecureValue) []claim {
	reason := status.Reason(sv.Status.Conditions)
	lost := (reason == v1alpha1.ReasonNameConflict || reason == v1alpha1.ReasonAlreadyExists) && intentOf(sv).from == ""
	var had []claim
	for _, p := range heldPlaces(sv) {
		c := claim{connection.IDOf(p.connection, sv.Namespace), p.name}
		if !lost || c != wantedBy(sv) || findTarget(sv.Status.Targets, p) != nil {
			had = append(had, c)
		}
	}
	return had
}

// releasedNames returns the names in Grafana that an object has let go of, each once. One that begins to be deleted lets go of
// all that it has: from then on another object of its namespace may follow.
func releasedNames(before, after *v1alpha1.GrafanaSecureValue) []string {
	if before == nil {
		return nil
	}
	var kept []claim
	if after != nil && after.DeletionTimestamp.IsZero() == before.DeletionTimestamp.IsZero() {
		kept = claimsOf(after)
	}
	var names []string
	for _, had := range held(before) {
		if !slices.Contains(kept, had) && !slices.Contains(names, had.name) {
			names = append(names, had.name)
		}
	}
	return names
}
