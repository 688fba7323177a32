package securevalue

import (
	"context"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
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
	"github.com/securevalues-io/grafana-secure-value-operator/internal/errorlog"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/watchdog"
)

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// secretIndex is the field index of objects by the bucket of the name of the Secret that they read.
const secretIndex = "secret"

// nameIndex is the field index of objects by the buckets of the names in Grafana that they want to have, or hold.
const nameIndex = "name"

// buckets is how many keys an index has. A key of its own costs each object some 300 bytes twice for an index, as client-go keeps a
// set for each key, and controller-runtime one with the namespace and one without. In a bucket it costs a tenth, and a lookup goes
// through one object of so many in the namespace.
const buckets = 256

// bucket returns the key of a name in an index. Others have it too, so that whoever looks a name up must compare it.
func bucket(name string) string {
	hash := fnv.New32a()
	_, _ = io.WriteString(hash, name) // it never fails
	return strconv.Itoa(int(hash.Sum32() % buckets))
}

// Options is what the controller needs to know.
type Options struct {
	// ClusterID is the label value that marks what this cluster keeps in Grafana.
	ClusterID string
	// WatchNamespaces are the namespaces served; none is all.
	WatchNamespaces []string
	// Served is which kinds of connection are served.
	Served connection.Served
	// MaxConcurrentReconciles bounds the objects that are worked on at a time.
	MaxConcurrentReconciles int
	// Watchdog watches over the work; nil is none.
	Watchdog *watchdog.Watchdog
}

func (o Options) watches(namespace string) bool {
	return len(o.WatchNamespaces) == 0 || slices.Contains(o.WatchNamespaces, namespace)
}

// Controller is the controller of GrafanaSecureValues. It is made before the connections are, which hand objects back to it.
type Controller struct {
	client      client.Client
	live        client.Reader
	connections *connection.Registry // set by Setup
	waker       connection.Waker
	memory      memory
	suspicions  suspicions
	changes     changes
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
		memory:      &c.memory,
		suspicions:  &c.suspicions,
		changes:     &c.changes,
	}
	for field, keys := range map[string]client.IndexerFunc{
		secretIndex: bySecret, nameIndex: byName, connection.SecureValuesIndex: byConnection,
	} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.GrafanaSecureValue{}, field, keys); err != nil {
			return err
		}
	}
	errorLog := errorlog.New(mgr.GetLogger(), "GrafanaSecureValue")
	build := ctrl.NewControllerManagedBy(mgr).
		// Edits and deletion, which raise the generation, and sync-now. Our own writes do not: they only end the memory of themselves.
		For(&v1alpha1.GrafanaSecureValue{}, builder.WithPredicates(
			predicate.NewPredicateFuncs(r.cacheShows), predicate.Or(predicate.GenerationChangedPredicate{}, syncNowChanged),
			predicate.NewPredicateFuncs(c.noteChange))).
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
			RateLimiter:    workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup:   new(true),
			NewQueue:       c.opts.Watchdog.Queue,
			LogConstructor: errorLog.Of,
		})
	if c.opts.Served.Cluster {
		build = build.
			Watches(&v1alpha1.ClusterGrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(c.onConnection),
				builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			// The labels of a namespace say which shared connections it may use.
			WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(c.inNamespace),
				builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return build.Complete(c.opts.Watchdog.Reconciler(errorLog.Reconciler(r)))
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

// noteChange remembers when a change of the object was seen, and lets every event pass.
func (c *Controller) noteChange(o client.Object) bool {
	c.changes.object(client.ObjectKeyFromObject(o), time.Now())
	return true
}

func bySecret(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	return []string{bucket(sv.Spec.ValueFrom.SecretKeyRef.Name)}
}

func byName(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	keys := []string{bucket(sv.SecureValueName())}
	for _, p := range heldPlaces(sv) {
		if key := bucket(p.name); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
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
	reads := func(sv *v1alpha1.GrafanaSecureValue) bool {
		return sv.Spec.ValueFrom.SecretKeyRef.Name == secret.GetName()
	}
	requests := c.requests(ctx, reads,
		client.InNamespace(secret.GetNamespace()), client.MatchingFields{secretIndex: bucket(secret.GetName())})
	for _, req := range requests {
		c.changes.secret(req.NamespacedName, time.Now())
	}
	return requests
}

func (c *Controller) onConnection(ctx context.Context, o client.Object) []reconcile.Request {
	conn, _ := o.(v1alpha1.Connection) // the watches are of these kinds
	id := connection.ID{Kind: conn.ConnectionKind(), Namespace: conn.GetNamespace(), Name: conn.GetName()}
	all := func(*v1alpha1.GrafanaSecureValue) bool { return true }
	return c.requests(ctx, all, client.InNamespace(id.Namespace), client.MatchingFields{connection.SecureValuesIndex: id.IndexKey()})
}

// inNamespace returns the objects of a namespace whose labels have changed, and has the shared connections that they name looked at: one
// that is being deleted may have been kept by them alone.
func (c *Controller) inNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	objects, err := c.list(ctx, client.InNamespace(namespace.GetName()))
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects of a namespace not found in the cache")
	}
	var requests []reconcile.Request
	for i := range objects {
		requests = append(requests, reconcile.Request{NamespacedName: keyOf(&objects[i])})
		for _, id := range connectionsOf(&objects[i]) {
			if id.Kind == v1alpha1.KindClusterGrafanaConnection {
				c.connections.Released(id)
			}
		}
	}
	return requests
}

// requests returns the objects listed that are concerned.
func (c *Controller) requests(
	ctx context.Context, concerned func(*v1alpha1.GrafanaSecureValue) bool, opts ...client.ListOption,
) []reconcile.Request {
	objects, err := c.list(ctx, opts...)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects not found in the cache")
	}
	var requests []reconcile.Request
	for i := range objects {
		if concerned(&objects[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: keyOf(&objects[i])})
		}
	}
	return requests
}

func (c *Controller) list(ctx context.Context, opts ...client.ListOption) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := c.client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...)
	return list.Items, err
}
