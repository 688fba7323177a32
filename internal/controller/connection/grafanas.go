package connection

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// grafanaIndex is the field index of GrafanaConnections by the Grafana that they reference.
const grafanaIndex = "grafana"

// grafanas reads the Grafanas of grafana-operator. They are watched from the first connection on that references one, once their kind is
// served and may be listed: a watch that is refused would never end.
type grafanas struct {
	cache cache.Cache
	live  client.Reader
	watch func() error // begins the watch

	mu      sync.Mutex
	watched bool
	refused error     // why not
	asked   time.Time // when that was
}

// askDelay is how long it is believed that Grafanas cannot be watched. What wakes a connection must not cost a request each time.
const askDelay = time.Second

// get returns a Grafana, as the cache shows it.
func (g *grafanas) get(ctx context.Context, key client.ObjectKey) (*grafanaoperator.Grafana, error) {
	if err := g.begin(ctx, key); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxLag)
	defer cancel()
	found := &grafanaoperator.Grafana{}
	if _, err := g.cache.GetInformer(ctx, found); err != nil { // it waits for the first LIST of the watch
		return nil, status.Errorf(status.Time, v1alpha1.ReasonKubernetesRefused,
			"The Grafanas of grafana-operator could not be listed. Check that the operator may get, list and watch grafanas.%s in all namespaces that it watches, and that each Grafana can be read. The operator retries automatically.",
			grafanaoperator.GroupVersion.Group).Because(err)
	}
	err := g.cache.Get(ctx, key, found)
	if apierrors.IsNotFound(err) {
		return nil, grafanaNotFound("Grafana %q, which spec.grafanaRef names, does not exist in namespace %q. Create it, or name another one; it is used as soon as it is there.",
			key.Name, key.Namespace)
	}
	return found, err
}

// begin makes sure that Grafanas are watched, or says why they cannot be.
func (g *grafanas) begin(ctx context.Context, key client.ObjectKey) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.watched {
		return nil
	}
	if time.Since(g.asked) >= askDelay {
		if g.refused = g.live.List(ctx, &grafanaoperator.GrafanaList{}, client.InNamespace(key.Namespace), client.Limit(1)); g.refused == nil {
			g.refused = g.watch()
		}
		g.watched, g.asked = g.refused == nil, time.Now()
	}
	e := status.Of(g.refused)
	switch {
	case meta.IsNoMatchError(g.refused), apierrors.IsNotFound(g.refused):
		return grafanaNotFound("The kind Grafana of grafana-operator (%s) is not installed in this cluster, and spec.grafanaRef names Grafana %q. Install grafana-operator, or name the Grafana by spec.url and spec.credentials. The operator notices the kind within a minute.",
			grafanaoperator.GroupVersion, key.Name)
	case e != nil:
		return status.Errorf(e.Class, e.Reason, "%s For spec.grafanaRef it needs get, list and watch of grafanas.%s: the chart grants them with `rbac.grafanaRef: true`.",
			e.Message, grafanaoperator.GroupVersion.Group).Because(g.refused)
	default:
		return g.refused
	}
}

// resolve returns where a connection calls Grafana, and with what. All else takes it from here.
func (r *Reconciler) resolve(ctx context.Context, conn v1alpha1.Connection) (*endpoint, error) {
	ref := GrafanaRef(conn)
	if ref == nil {
		return endpointOfSpec(conn.GetSpec()), nil
	}
	found, err := r.grafanas.get(ctx, client.ObjectKey{Namespace: conn.GetNamespace(), Name: ref.Name})
	if err != nil {
		return nil, err
	}
	return endpointOfGrafana(found, &conn.(*v1alpha1.GrafanaConnection).Spec) // no other kind has a reference
}

// watchGrafanas returns what begins the watch of Grafanas for a controller.
func (r *Reconciler) watchGrafanas(c controller.Controller, of cache.Cache) func() error {
	return func() error {
		return c.Watch(source.Kind(of, client.Object(&grafanaoperator.Grafana{}), handler.EnqueueRequestsFromMapFunc(r.referencing), edited))
	}
}

// edited passes a Grafana that has another spec than before, or is another one. Its status changes often.
var edited = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration()
}}

// referencing returns the connections that reference a Grafana. Those that were checked at another address, or with other credentials, are
// used no more until they are checked again.
func (r *Reconciler) referencing(ctx context.Context, o client.Object) []reconcile.Request {
	found, _ := o.(*grafanaoperator.Grafana) // the watch is of this kind
	list := &v1alpha1.GrafanaConnectionList{}
	if err := r.client.List(ctx, list, client.InNamespace(o.GetNamespace()), client.MatchingFields{grafanaIndex: o.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Connections of a Grafana not found in the cache")
	}
	var requests []reconcile.Request
	for i := range list.Items {
		conn := &list.Items[i]
		to, err := endpointOfGrafana(found, &conn.Spec)
		r.registry.with(IDFor(conn), func(e *entry) {
			if e.checked && (err != nil || !e.isAt(to)) {
				e.invalidate()
			}
		})
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(conn)})
	}
	return requests
}
