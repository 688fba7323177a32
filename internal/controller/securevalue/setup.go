package securevalue

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
)

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// secretIndex is the field index of objects by the name of the Secret that they read.
const secretIndex = "secret"

const (
	// nameIndex is the field index of objects by the name that they want to have in Grafana.
	nameIndex = "name"
	// heldIndex is the field index of objects by the names of the places that they hold.
	heldIndex = "held"
)

// Options is what the controller needs to know.
type Options struct {
	// ClusterID is the label value that marks what this cluster keeps in Grafana.
	ClusterID string
	// Served is which kinds of connection are served.
	Served connection.Served
	// MaxConcurrentReconciles bounds the objects that are worked on at a time.
	MaxConcurrentReconciles int
}

// Controller is the controller of GrafanaSecureValues. It is made before the connections are, which hand objects back to it.
type Controller struct {
	client      client.Client
	live        client.Reader
	connections *connection.Registry // set by Setup
	waker       connection.Waker
	opts        Options
}

// New returns a controller that Setup adds to the manager.
func New(mgr ctrl.Manager, opts Options) *Controller {
	return &Controller{client: mgr.GetClient(), live: mgr.GetAPIReader(), opts: opts}
}

// Wake hands an object back that waited for its connection.
func (c *Controller) Wake(key client.ObjectKey) { c.waker.Wake(key) }

// Setup adds the controller to the manager.
func (c *Controller) Setup(ctx context.Context, mgr ctrl.Manager, connections *connection.Registry, keeper *fingerprint.Keeper) error {
	c.connections = connections
	r := &Reconciler{
		client:      mgr.GetClient(),
		live:        mgr.GetAPIReader(),
		connections: connections,
		keeper:      keeper,
		recorder:    mgr.GetEventRecorder("grafana-secure-value-operator"),
		clusterID:   c.opts.ClusterID,
		served:      c.opts.Served,
		now:         time.Now,
	}
	for field, keys := range map[string]client.IndexerFunc{
		secretIndex: bySecret, nameIndex: byName, heldIndex: byHeldName, connection.SecureValuesIndex: byConnection,
	} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.GrafanaSecureValue{}, field, keys); err != nil {
			return err
		}
	}
	build := ctrl.NewControllerManagedBy(mgr).
		// Edits and deletion, which raise the generation, and sync-now. Our own writes do not: they only end the memory of themselves.
		For(&v1alpha1.GrafanaSecureValue{}, builder.WithPredicates(
			predicate.NewPredicateFuncs(r.cacheShows), predicate.Or(predicate.GenerationChangedPredicate{}, syncNowChanged))).
		// Whoever waits for what another object has let go of, or has something to leave to another one.
		Watches(&v1alpha1.GrafanaSecureValue{}, c.onOthers()).
		// A rotation. Metadata only: no content of a Secret is cached.
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(c.readingSecret)).
		// A connection that was missing, or says something else now.
		Watches(&v1alpha1.GrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(c.onConnection),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// Objects that a connection's gate hands back.
		WatchesRawSource(&c.waker).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: c.opts.MaxConcurrentReconciles,
			// Only errors of the Kubernetes API come here: a failing Grafana is the gate's business.
			RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup: new(true),
		})
	if c.opts.Served.Cluster {
		build = build.
			Watches(&v1alpha1.ClusterGrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(c.onConnection),
				builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			// The labels of a namespace say which shared connections it may use.
			WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(c.inNamespace),
				builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return build.Complete(r)
}

// syncNowChanged passes what asks for one more write. Other annotations do not matter.
var syncNowChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetAnnotations()[v1alpha1.AnnotationSyncNow] != e.ObjectNew.GetAnnotations()[v1alpha1.AnnotationSyncNow]
}}

// cacheShows ends the memory of what the cache shows, and lets every event pass.
func (r *Reconciler) cacheShows(o client.Object) bool {
	if sv, ok := o.(*v1alpha1.GrafanaSecureValue); ok {
		r.memory.shown(sv)
	}
	return true
}

func bySecret(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	return []string{sv.Spec.ValueFrom.SecretKeyRef.Name}
}

func byName(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	return []string{sv.SecureValueName()}
}

func byHeldName(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	var names []string
	for _, p := range heldPlaces(sv) {
		names = append(names, p.name)
	}
	return names
}

func byConnection(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	var keys []string
	for _, id := range connectionsOf(sv) {
		keys = append(keys, id.IndexKey())
	}
	return keys
}

// connectionsOf returns the connections that an object names or holds places on, each once.
func connectionsOf(sv *v1alpha1.GrafanaSecureValue) []connection.ID {
	ids := []connection.ID{connection.IDOf(sv.Spec.ConnectionRef, sv.Namespace)}
	for _, p := range heldPlaces(sv) {
		if id := connection.IDOf(p.connection, sv.Namespace); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *Controller) readingSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	return c.requests(ctx, client.InNamespace(secret.GetNamespace()), client.MatchingFields{secretIndex: secret.GetName()})
}

func (c *Controller) onConnection(ctx context.Context, o client.Object) []reconcile.Request {
	conn, _ := o.(v1alpha1.Connection) // the watches are of these kinds
	id := connection.ID{Kind: conn.ConnectionKind(), Namespace: conn.GetNamespace(), Name: conn.GetName()}
	return c.requests(ctx, client.InNamespace(id.Namespace), client.MatchingFields{connection.SecureValuesIndex: id.IndexKey()})
}

func (c *Controller) inNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return c.requests(ctx, client.InNamespace(namespace.GetName()))
}

func (c *Controller) requests(ctx context.Context, opts ...client.ListOption) []reconcile.Request {
	objects, err := c.list(ctx, opts...)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects not found in the cache")
	}
	requests := make([]reconcile.Request, 0, len(objects))
	for i := range objects {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&objects[i])})
	}
	return requests
}

func (c *Controller) list(ctx context.Context, opts ...client.ListOption) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := c.client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...)
	return list.Items, err
}
