package securevalue

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// This file is all that the world and the histories of ownership know of the inside of the core: its setup, its watches, its labels and
// its claims. Another core needs another version of this file alone.

// start sets the controllers up as the product does, with a manager that starts nothing.
func (p *process) start(ctx context.Context) {
	w := p.world
	served := connection.Served{Namespaced: true}
	registry := connection.NewRegistry(w.workers)
	w.must(connection.Setup(ctx, p, registry, connection.Options{
		Policy:            connection.Policy{AllowLoopback: true},
		OperatorNamespace: worldOperator, ClusterID: worldCluster, UserAgent: p.agent(), Served: served, MaxConcurrentReconciles: w.workers,
	}))
	keys := fingerprint.NewStore(w.api, w.api, worldOperator)
	w.must(keys.Start(ctx))
	values, err := Setup(ctx, p, registry, keys, Options{ClusterID: worldCluster, Served: served, MaxConcurrentReconciles: w.workers})
	w.must(err)
	p.values = values
	w.must(registry.Objects.Start(ctx, wakes{process: p, kind: kindValue}))
	w.must(registry.Connections[v1alpha1.KindGrafanaConnection].Start(ctx, wakes{process: p, kind: kindConnection}))
	values.Leads()
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
			add(p.values.ofConnection(ctx, either)...)
		}
	case kindValue:
		if isNew || syncNowChanged.Update(event.UpdateEvent{ObjectOld: old, ObjectNew: now}) {
			p.add(key)
		}
		if old != nil && now != nil && !p.values.usageChanged(event.UpdateEvent{ObjectOld: old, ObjectNew: now}) {
			return
		}
		for _, o := range []client.Object{old, now} {
			if o != nil {
				add(p.values.concerned(ctx, o)...)
			}
		}
	}
}

// isLabelled reports whether a value in Grafana carries owner labels.
func isLabelled(stored grafanatest.Stored) bool { return stored.Labels[ownership.LabelOwner] != "" }

// isLabelledFor reports whether the owner labels of a value in Grafana are those of an object.
func isLabelledFor(stored grafanatest.Stored, object types.NamespacedName) bool {
	return stored.Labels[ownership.LabelOwner] == ownership.OwnerLabel(worldCluster, object)
}

// isRetained reports whether a value says that its owner retains it. A policy that was never written to a target counts for its owner alone.
func isRetained(stored grafanatest.Stored) bool { return stored.Labels[ownership.LabelRetain] != "" }

// claimsIn returns the targets that status lists or that are pending, as "namespace/name" in Grafana.
func claimsIn(sv *v1alpha1.GrafanaSecureValue) []string {
	var claims []string
	for _, t := range ownership.Targets(sv) {
		if at := t.Namespace + "/" + t.Name; !slices.Contains(claims, at) {
			claims = append(claims, at)
		}
	}
	return claims
}

// isResponsible reports whether this object has to delete a value when it releases the target, unless another one has claimed it: whichever
// object leaves last deletes, but for what another one has retained.
func isResponsible(sv *v1alpha1.GrafanaSecureValue, at string, stored grafanatest.Stored) bool {
	sibling := ownership.OfNamespace(stored.Labels[ownership.LabelOwner], worldCluster, sv.Namespace)
	return slices.Contains(claimsIn(sv), at) && (isLabelledFor(stored, client.ObjectKeyFromObject(sv)) || sibling && !isRetained(stored))
}
