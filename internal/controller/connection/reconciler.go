// Package connection reconciles GrafanaConnections and ClusterGrafanaConnections: it checks them, reports on them, and
// provides sessions to the controller of secure values.
package connection

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/index"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const (
	// conflictDelay is how long to wait for the cache after the API server refused a patch of an older version.
	conflictDelay = time.Second
	// maxLag is how long to wait at most for a cache that is behind our own write.
	maxLag = 5 * time.Second
)

// Reconciler reconciles the connections of one kind.
type Reconciler struct {
	Options

	client    client.Client // reads from the cache
	live      client.Reader // reads Secrets, and what must be certain
	registry  *Registry
	grafanas  *grafanas
	recorder  events.EventRecorder
	kind      v1alpha1.ConnectionKind
	newObject func() v1alpha1.Connection
	newList   func() client.ObjectList
	now       func() time.Time
}

// Reconcile releases a connection that is being deleted and that no object uses. Else it adds our finalizer, checks the connection if that is
// due, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	id := ownership.Connection{Kind: r.kind, Namespace: req.Namespace, Name: req.Name}
	r.registry.Begin(checkKey(id))
	defer r.registry.End(checkKey(id))
	conn := r.newObject()
	err := r.client.Get(ctx, req.NamespacedName, conn)
	if err == nil && len(conn.GetFinalizers()) >= status.MaxCachedFinalizers {
		conn = r.newObject()
		err = r.live.Get(ctx, req.NamespacedName, conn)
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.registry.remove(id)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	behind, epoch := false, 0
	r.registry.with(id, func(e *entry) { behind, epoch = e.isBehind(conn), e.epoch })
	if behind {
		return ctrl.Result{RequeueAfter: maxLag}, nil // the event of our own last write comes, and else it would be repeated
	}
	if released, err := r.release(ctx, conn); released || err != nil {
		if refused := status.Of(err); refused != nil {
			_, reportErr := r.report(ctx, conn, checked{condition: refused.Condition, known: true})
			err = errors.Join(err, reportErr)
		}
		return ctrl.Result{}, err
	}
	if !r.Served.Has(r.kind) {
		return r.report(ctx, conn, checked{condition: notServed(r.Served, r.kind), known: true})
	}
	if !r.registry.serves(conn) {
		return r.report(ctx, conn, r.registry.refuse(conn, epoch))
	}
	switch err := r.addFinalizer(ctx, conn); {
	case status.Of(err) != nil:
		return r.report(ctx, conn, r.registry.publish(conn, epoch, attempt{config: configOf(conn, nil, ""), err: err}))
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	found, err := r.check(ctx, conn)
	if err != nil {
		return ctrl.Result{}, err
	}
	if found.comparison != nil && found.condition.Class == status.None {
		if err := found.comparison.wake(); err != nil {
			return ctrl.Result{}, err
		}
	}
	return r.report(ctx, conn, found)
}

// addFinalizer makes sure that the connection carries our finalizer before it is used.
func (r *Reconciler) addFinalizer(ctx context.Context, conn v1alpha1.Connection) error {
	if !conn.GetDeletionTimestamp().IsZero() || controllerutil.ContainsFinalizer(conn, v1alpha1.Finalizer) {
		return nil
	}
	old, _ := conn.DeepCopyObject().(v1alpha1.Connection) // a copy has the type of its original
	controllerutil.AddFinalizer(conn, v1alpha1.Finalizer)
	err := r.client.Patch(ctx, conn, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if err == nil {
		r.registry.with(IDFor(conn), func(e *entry) { e.written, e.writtenAt = conn.GetResourceVersion(), time.Now() })
	}
	return err
}

// release removes our finalizer from a connection that is being deleted if a live LIST shows no object that uses it. It reports whether the
// finalizer is gone.
func (r *Reconciler) release(ctx context.Context, conn v1alpha1.Connection) (released bool, err error) {
	if conn.GetDeletionTimestamp().IsZero() {
		return false, nil
	}
	if patch := status.FinalizerRemoval(conn.GetFinalizers(), ""); patch != nil {
		if n, err := r.users(ctx, conn, r.client, byConnection(IDFor(conn))); n > 0 || err != nil {
			return false, err
		}
		if n, err := r.users(ctx, conn, r.live, client.InNamespace(conn.GetNamespace()), client.Limit(pageSize)); n > 0 || err != nil {
			return false, err
		}
		if err := r.client.Patch(ctx, conn, patch); status.Of(err) != nil || client.IgnoreNotFound(err) != nil {
			return false, err
		}
	}
	r.registry.remove(IDFor(conn))
	return true, nil
}

// report writes what was found into the status, if that changes it. The number of users is counted with each check. A restart alone is
// no reason to write it.
func (r *Reconciler) report(ctx context.Context, conn v1alpha1.Connection, found checked) (ctrl.Result, error) {
	id := IDFor(conn)
	deleting := !conn.GetDeletionTimestamp().IsZero()
	next := time.Duration(0)
	r.registry.with(id, func(e *entry) {
		e.deleting = deleting
		if !r.registry.Waits(checkKey(id)) { // else the limiter wakes it when its turn comes
			next = e.untilNext()
		}
	})
	if !found.known && !deleting {
		return ctrl.Result{}, nil
	}
	old, _ := conn.DeepCopyObject().(v1alpha1.Connection) // a copy has the type of its original
	st := conn.GetStatus()
	if found.condition.Class == status.None && found.known {
		st.URL = found.url
	}
	if deleting && found.condition.Reason != v1alpha1.ReasonKubernetesRefused {
		found.condition = inUse(id)
	}
	found.condition.Apply(&st.Conditions, conn.GetGeneration())
	st.ObservedGeneration, st.ClusterID = conn.GetGeneration(), r.ClusterID
	changed := !equality.Semantic.DeepEqual(old.GetStatus(), st)
	if found.fresh && (changed || !found.first) {
		n, err := r.users(ctx, conn, r.client, byConnection(IDFor(conn)))
		if err != nil {
			return ctrl.Result{}, err
		}
		st.SecureValues = new(int32(min(n, math.MaxInt32))) //nolint:gosec // bounded
		if found.comparison != nil {
			st.OrphanedValues = new(int32(min(found.comparison.orphaned, math.MaxInt32))) //nolint:gosec // bounded
		}
		changed = !equality.Semantic.DeepEqual(old.GetStatus(), st)
	}
	if changed {
		if err := r.client.Status().Patch(ctx, conn, client.MergeFrom(old)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		r.registry.with(id, func(e *entry) { e.written, e.writtenAt = conn.GetResourceVersion(), time.Now() })
		r.announce(ctx, old, conn, found.condition)
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// announce emits one event, and a line in the log, where the reason of Ready has changed.
func (r *Reconciler) announce(ctx context.Context, old, conn v1alpha1.Connection, condition status.Condition) {
	if status.Reason(old.GetStatus().Conditions) == condition.Reason {
		return
	}
	ctrl.LoggerFrom(ctx).Info("Reason of Ready changed", "reason", condition.Reason, "message", condition.Message)
	eventType := corev1.EventTypeNormal
	if condition.Class != status.None {
		eventType = corev1.EventTypeWarning
	}
	r.recorder.Eventf(conn, nil, eventType, condition.Reason, "Check", "%s", status.NoteOf(condition.Message))
}

// isBehind reports whether the cache does not show our own last write yet. After a restore of etcd it never does.
func (e *entry) isBehind(cached v1alpha1.Connection) bool {
	order, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), e.written)
	return err == nil && order < 0 && time.Since(e.writtenAt) < maxLag
}

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanaconnections;clustergrafanaconnections,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanaconnections/status;clustergrafanaconnections/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// ConnectionIndex is the field index of GrafanaSecureValues by the connections that they name, own a value through or have pending. Its keys
// are Connection.Key.
const ConnectionIndex = "connection"

// OwnerIndex finds objects by their owner label.
func OwnerIndex(clusterID string) index.Index {
	return index.Index{Field: "owner", Values: func(sv *v1alpha1.GrafanaSecureValue) []string {
		return []string{ownership.OwnerLabel(clusterID, client.ObjectKeyFromObject(sv))}
	}}
}

// secretsIndex is the field index of connections by the names of the Secrets that they read.
const secretsIndex = "secret"

// Options configures the controllers of connections.
type Options struct {
	// OperatorNamespace is where the Secrets of ClusterGrafanaConnections live.
	OperatorNamespace string
	// ClusterID is the label value that stands for this cluster in owner labels.
	ClusterID string
	// UserAgent is sent with each request to Grafana.
	UserAgent string
	// Served is which kinds of connection are served.
	Served Served
	// Policy restricts which addresses connections may call, and how.
	Policy Policy
	// MaxConcurrentReconciles bounds the connections of a kind that are checked at a time.
	MaxConcurrentReconciles int
}

// Setup adds the controllers of both kinds of connection, and the indexes, to the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, registry *Registry, opts Options) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.GrafanaSecureValue{}, ConnectionIndex, connectionKeys)
	if err == nil {
		err = OwnerIndex(opts.ClusterID).AddTo(ctx, mgr.GetFieldIndexer())
	}
	if err != nil {
		return err
	}
	for _, r := range []*Reconciler{{
		kind:      v1alpha1.KindGrafanaConnection,
		newObject: func() v1alpha1.Connection { return &v1alpha1.GrafanaConnection{} },
		newList:   func() client.ObjectList { return &v1alpha1.GrafanaConnectionList{} },
	}, {
		kind:      v1alpha1.KindClusterGrafanaConnection,
		newObject: func() v1alpha1.Connection { return &v1alpha1.ClusterGrafanaConnection{} },
		newList:   func() client.ObjectList { return &v1alpha1.ClusterGrafanaConnectionList{} },
	}} {
		if r.kind == v1alpha1.KindClusterGrafanaConnection && !opts.Served.Cluster {
			continue // it may not even be read
		}
		r.client, r.live = status.Client{Client: mgr.GetClient()}, status.Reader{Reader: mgr.GetAPIReader()}
		r.registry, r.Options, r.now = registry, opts, time.Now
		r.recorder = mgr.GetEventRecorder("grafana-secure-value-operator")
		if err := r.setup(ctx, mgr); err != nil {
			return fmt.Errorf("controller of %s: %w", r.kind, err)
		}
	}
	return nil
}

func connectionKeys(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	var keys []string
	for _, id := range ownership.Connections(sv) {
		keys = append(keys, id.Key())
	}
	return keys
}

func (r *Reconciler) setup(ctx context.Context, mgr ctrl.Manager) error {
	for field, keys := range map[string]client.IndexerFunc{secretsIndex: bySecret, grafanaIndex: byGrafana} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, r.newObject(), field, keys); err != nil {
			return err
		}
	}
	var predicates []predicate.Predicate
	if r.kind == v1alpha1.KindGrafanaConnection {
		predicates = append(predicates, r.registry.noteAges())
	}
	c, err := ctrl.NewControllerManagedBy(mgr).
		For(r.newObject(), builder.WithPredicates(predicates...)).
		// A new token or CA is used at once.
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.namingSecret)).
		// The turn of a check, and what the calls of objects showed.
		WatchesRawSource(r.registry.Connections[r.kind]).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.MaxConcurrentReconciles,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup:            new(true),
		}).
		Build(r)
	if err == nil {
		r.grafanas = &grafanas{cache: mgr.GetCache(), live: r.live, watch: r.watchGrafanas(c, mgr.GetCache())}
	}
	return err
}

// anySecret is the key of secretsIndex of connections whose Secrets a Grafana names. No Secret has that name.
const anySecret = ""

func bySecret(o client.Object) []string {
	conn, _ := o.(v1alpha1.Connection) // the index is of this kind
	if GrafanaRef(conn) != nil {
		return []string{anySecret}
	}
	var names []string
	for _, ref := range endpointOfSpec(conn.GetSpec()).secrets {
		names = append(names, ref.name)
	}
	return names
}

func byGrafana(o client.Object) []string {
	conn, _ := o.(v1alpha1.Connection) // the index is of this kind
	if ref := GrafanaRef(conn); ref != nil {
		return []string{ref.Name}
	}
	return nil
}

// namingSecret returns the connections that read a Secret, and those of its namespace whose Secrets a Grafana names: it may be among them.
func (r *Reconciler) namingSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	var opts []client.ListOption
	if r.kind == v1alpha1.KindGrafanaConnection {
		opts = append(opts, client.InNamespace(secret.GetNamespace()))
	} else if secret.GetNamespace() != r.OperatorNamespace {
		return nil
	}
	var requests []reconcile.Request
	for _, name := range []string{secret.GetName(), anySecret} {
		list := r.newList()
		err := r.client.List(ctx, list, append(opts, client.MatchingFields{secretsIndex: name})...)
		if err == nil {
			err = meta.EachListItem(list, func(o runtime.Object) error {
				conn, _ := o.(v1alpha1.Connection) // each item of the list
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(conn)})
				return nil
			})
		}
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Connections of a Secret not found in the cache")
		}
	}
	return requests
}
