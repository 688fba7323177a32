package securevalue

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// This file is all that the world of the tests knows of the inside of the core: its setup, its watches, its labels and
// its claims. Another core needs another version of this file alone.

// start sets the controllers up as the product does, with a manager that starts nothing.
func (p *process) start(ctx context.Context) {
	w := p.world
	served := connection.Served{Namespaced: true}
	p.values = New(p, Options{ClusterID: worldCluster, Served: served, MaxConcurrentReconciles: 1})
	registry, err := connection.Setup(ctx, p, p.values.Wake, connection.Options{
		Policy:            connection.Policy{AllowLoopback: true},
		OperatorNamespace: worldOperator, UserAgent: p.agent(), Objects: p.values.Objects(), Served: served, MaxConcurrentReconciles: w.workers,
	})
	w.must(err)
	keeper := fingerprint.NewKeeper(w.api, w.api, worldOperator)
	w.must(keeper.Start(ctx))
	w.must(p.values.Setup(ctx, p, registry, keeper))
	w.must(p.values.waker.Start(ctx, wakes{process: p}))
}

// wake does what the watches of the controllers do when the cache shows another version of an object. Either version is nil where there
// is none, but not both.
func (p *process) wake(ctx context.Context, key item, old, now client.Object) {
	either := now
	if now == nil {
		either = old
	}
	add := func(requests ...reconcile.Request) {
		for _, req := range requests {
			p.add(item{kindValue, req.NamespacedName})
		}
	}
	isNew := old == nil || now == nil || predicate.GenerationChangedPredicate{}.Update(event.UpdateEvent{ObjectOld: old, ObjectNew: now})
	switch key.kind {
	case kindSecret:
		add(p.values.readingSecret(ctx, either)...)
		p.addConnections()
	case kindConnection:
		p.add(key)
		if isNew {
			add(p.values.onConnection(ctx, either)...)
		}
	case kindValue:
		before, _ := old.(*v1alpha1.GrafanaSecureValue) // the cache holds none but these
		after, _ := now.(*v1alpha1.GrafanaSecureValue)
		if after != nil {
			p.values.memory.shown(after)
		}
		if isNew || syncNowChanged.Update(event.UpdateEvent{ObjectOld: old, ObjectNew: now}) {
			p.add(key)
		}
		p.values.changed(ctx, before, after, func(req reconcile.Request) { add(req) })
	}
}

// isLabelled reports whether a value in Grafana carries owner labels.
func isLabelled(stored grafanatest.Stored) bool { return stored.Labels[labelOwner] != "" }

// isLabelledFor reports whether the owner labels of a value in Grafana are those of an object.
func isLabelledFor(stored grafanatest.Stored, object types.NamespacedName) bool {
	return stored.Labels[labelOwner] == mark(worldCluster, object.Namespace, object.Name)
}

// claimsIn returns the targets that status lists or that are pending, as "namespace/name" in Grafana.
func claimsIn(sv *v1alpha1.GrafanaSecureValue) []string {
	var claims []string
	for _, p := range heldPlaces(sv) {
		claims = append(claims, p.namespace+"/"+p.name)
	}
	return claims
}
