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
)

// onRelease looks again at whoever an object kept waiting: those who name a place that it names no more, or that it will leave
// since it is being deleted, and the connections that it does not use any more.
func (c *Controller) onRelease() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			before, _ := e.ObjectOld.(*v1alpha1.GrafanaSecureValue) // the watch is of this kind
			after, _ := e.ObjectNew.(*v1alpha1.GrafanaSecureValue)
			c.released(ctx, before, after, q.Add)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			if before, ok := e.Object.(*v1alpha1.GrafanaSecureValue); ok {
				c.released(ctx, before, nil, q.Add)
			}
		},
	}
}

// released wakes whoever is concerned by the change of an object from before to after, which is nil where it is gone.
func (c *Controller) released(ctx context.Context, before, after *v1alpha1.GrafanaSecureValue, wake func(reconcile.Request)) {
	for _, name := range releasedNames(before, after) {
		for _, req := range c.requests(ctx, client.MatchingFields{nameIndex: name}) {
			if req.NamespacedName != keyOf(before) {
				wake(req)
			}
		}
	}
	for _, id := range connectionsOf(before) {
		if after == nil || !slices.Contains(connectionsOf(after), id) {
			c.connections.Released(id)
		}
	}
}

// claim is a name that an object has in Grafana, or wants to have, through a connection.
type claim struct {
	connection connection.ID
	name       string
}

func claimsOf(sv *v1alpha1.GrafanaSecureValue) []claim {
	claims := []claim{{connection.IDOf(sv.Spec.ConnectionRef, sv.Namespace), sv.SecureValueName()}}
	for _, p := range heldPlaces(sv) {
		claims = append(claims, claim{connection.IDOf(p.connection, sv.Namespace), p.name})
	}
	return claims
}

// releasedNames returns the names in Grafana that an object has let go of, each once. One that begins to be deleted lets go of
// all that it has: from then on another object of its namespace may follow.
func releasedNames(before, after *v1alpha1.GrafanaSecureValue) []string {
	var kept []claim
	if after != nil && after.DeletionTimestamp.IsZero() == before.DeletionTimestamp.IsZero() {
		kept = claimsOf(after)
	}
	var names []string
	for _, had := range claimsOf(before) {
		if !slices.Contains(kept, had) && !slices.Contains(names, had.name) {
			names = append(names, had.name)
		}
	}
	return names
}
