package securevalue

import (
	"context"
	"slices"
	"time"

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

// This file is all that the world and the histories of ownership know of the inside of the core: its setup, its watches, its labels and
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

// promises are what not every core keeps. The histories of ownership neither play nor require what is false here.
var promises = struct {
	// latePosts: a POST of unknown outcome that Grafana carries out within a requestTimeout leaves no orphan.
	// This core believes the first 404.
	latePosts bool
	// guardedReleases: a target is released by the stored deletionPolicy. This core releases by the one that its cache shows.
	guardedReleases bool
	// readsAgain: an owner that cannot be read is read again before a release. This core takes it for one that names the target, and
	// forgets what it was handed over.
	readsAgain bool
	// waitsForOwner: a departing owner that names its target again is given time to claim it. This core forgets the target at once.
	waitsForOwner bool
	// keepsOverBoth: an object that was handed over a value, and now names it over its other connection, does not delete it.
	// This core releases the target over the first connection before it writes.
	keepsOverBoth bool
	// deletesOverBoth: an object deletes a value that an earlier one of its name wrote over the other connection.
	// This core takes that for a value which the object still has over that connection.
	deletesOverBoth bool
	// endsHandOvers: a hand-over ends when the former owner, or a later object of its name, writes the value again. This core keeps its
	// mark on the successor, which then waits for that owner for ever, or deletes what it retains.
	endsHandOvers bool
	// remembersHandOvers: a successor deletes what it never wrote. This core loses the mark if status lists the target from an earlier
	// interrupted move.
	remembersHandOvers bool
	// patience is how long a successor that has not claimed its target is waited for after its last edit; 0 is for ever.
	patience time.Duration
}{}

// handedOverBy returns which object has handed a target over to this one, and the target; nothing if none has.
func handedOverBy(sv *v1alpha1.GrafanaSecureValue) (owner types.NamespacedName, at string) {
	if sv == nil || intentOf(sv).from == "" {
		return types.NamespacedName{}, ""
	}
	about := intentOf(sv)
	return types.NamespacedName{Namespace: sv.Namespace, Name: about.from}, about.place.namespace + "/" + about.place.name
}

// isResponsible reports whether this object has to delete a value when it releases the target.
func isResponsible(sv *v1alpha1.GrafanaSecureValue, at string, stored grafanatest.Stored) bool {
	if isLabelledFor(stored, client.ObjectKeyFromObject(sv)) {
		return slices.Contains(claimsIn(sv), at)
	}
	owner, target := handedOverBy(sv)
	return target == at && isLabelledFor(stored, owner)
}

// forgetsHandOver reports whether an object has lost the mark of a hand-over to a target that status still lists.
func forgetsHandOver(before, after *v1alpha1.GrafanaSecureValue, at string) bool {
	if _, target := handedOverBy(before); target != at || after == nil || intentOf(after) == intentOf(before) {
		return false
	}
	record := findTarget(after.Status.Targets, intentOf(before).place)
	return record != nil && record.Source == nil
}

// isOverOther reports whether a value of this object was written over a connection over which the object does not claim it.
func isOverOther(sv *v1alpha1.GrafanaSecureValue, at string, stored grafanatest.Stored) bool {
	return isLabelledFor(stored, client.ObjectKeyFromObject(sv)) && !slices.ContainsFunc(heldPlaces(sv), func(p place) bool {
		return p.namespace+"/"+p.name == at && connectionMark(connection.IDOf(p.connection, sv.Namespace)) == stored.Labels[labelConnection]
	})
}
