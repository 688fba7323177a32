package securevalue

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/index"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// FieldManager is the name under which the operator patches objects.
const FieldManager = "grafana-secure-value-operator"

var (
	// secretIndex finds objects by the names of the Secrets that they read.
	secretIndex = index.Index{Field: "secret", Values: secretsRead}
	// nameIndex finds objects by the names in Grafana that they name, own or have pending.
	nameIndex = index.Index{Field: "name", Values: ownership.Names}
	// takenIndex finds objects by the name in Grafana that they found taken.
	takenIndex = index.Index{Field: "taken", Values: nameTaken}
)

// Backoff of what time may heal, and of what a person must fix elsewhere.
const (
	firstRetry, lastRetry     = time.Second, 30 * time.Second
	firstRecheck, lastRecheck = time.Minute, 10 * time.Minute
)

// Options configures the controller.
type Options struct {
	// ClusterID is the label value that stands for this cluster in owner labels.
	ClusterID string
	// Served is which kinds of connection are served.
	Served connection.Served
	// MaxConcurrentReconciles bounds the objects that are reconciled at a time.
	MaxConcurrentReconciles int
	// RotationPeriod is in how long each object may write one changed value after its burst; 0: a minute.
	RotationPeriod time.Duration
}

// Setup adds the controller to the manager.
func Setup(
	ctx context.Context, mgr ctrl.Manager, connections *connection.Registry, keys *fingerprint.Store, opts Options,
) (*Reconciler, error) {
	r := &Reconciler{
		client:      status.Client{Client: client.WithFieldOwner(mgr.GetClient(), FieldManager)},
		live:        status.Reader{Reader: mgr.GetAPIReader()},
		connections: connections,
		keys:        keys,
		recorder:    mgr.GetEventRecorder("grafana-secure-value-operator"),
		clusterID:   opts.ClusterID,
		served:      opts.Served,
		now:         time.Now,
		leadingFrom: sync.OnceValue(time.Now),
		retries:     workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry),
		rechecks:    workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRecheck, lastRecheck),

		rotationPeriod: cmp.Or(opts.RotationPeriod, rotationPeriod),
	}
	for _, index := range []index.Index{secretIndex, nameIndex, takenIndex} {
		if err := index.AddTo(ctx, mgr.GetFieldIndexer()); err != nil {
			return nil, err
		}
	}
	build := ctrl.NewControllerManagedBy(mgr).
		// Edits and deletion, which raise the generation, and sync-now. Our own writes do neither.
		For(&v1alpha1.GrafanaSecureValue{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, syncNowChanged), predicate.NewPredicateFuncs(r.noteChange))).
		// Those that name a secure value which another object names, owns, has pending or has released.
		Watches(&v1alpha1.GrafanaSecureValue{}, handler.EnqueueRequestsFromMapFunc(r.concerned),
			builder.WithPredicates(predicate.Funcs{UpdateFunc: r.usageChanged})).
		// A rotation. Metadata only: no content of a Secret is cached.
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.readingSecret)).
		// A connection that was missing, or says something else now.
		Watches(&v1alpha1.GrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(r.ofConnection),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// Objects whose turn has come, or whose secure value may have drifted.
		WatchesRawSource(connections.Objects).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: opts.MaxConcurrentReconciles,
			// Only errors of the Kubernetes API come here: of a Grafana that fails, result says when to retry.
			RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup: new(true),
		})
	if opts.Served.Cluster {
		build = build.
			Watches(&v1alpha1.ClusterGrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(r.ofConnection),
				builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			// The labels of a namespace say which shared connections it may use.
			WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.inNamespace),
				builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return r, build.Complete(r)
}

// syncNowChanged passes what asks for one more write. Other annotations do not matter.
var syncNowChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetAnnotations()[v1alpha1.AnnotationSyncNow] != e.ObjectNew.GetAnnotations()[v1alpha1.AnnotationSyncNow]
}}

// noteChange remembers when a change of the object was seen, and lets every event pass.
func (r *Reconciler) noteChange(o client.Object) bool {
	r.memory.changed(client.ObjectKeyFromObject(o), false, r.now())
	return true
}

func secretsRead(sv *v1alpha1.GrafanaSecureValue) []string { return sv.Spec.ValueFrom.Secrets() }

func nameTaken(sv *v1alpha1.GrafanaSecureValue) []string {
	switch status.Reason(sv.Status.Conditions) {
	case v1alpha1.ReasonNameConflict, v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonAdoptionNotAllowed:
		return []string{sv.SecureValueName()}
	default:
		return nil
	}
}

// readingSecret returns the objects that read a Secret.
func (r *Reconciler) readingSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	requests := requestsOf(r.find(ctx, secretIndex, secret.GetNamespace(), secret.GetName()))
	for _, req := range requests {
		r.memory.changed(req.NamespacedName, true, r.now())
	}
	return requests
}

// ofConnection returns the objects that name a connection, own a value through it or have one pending.
func (r *Reconciler) ofConnection(ctx context.Context, o client.Object) []reconcile.Request {
	conn, _ := o.(v1alpha1.Connection) // the watches are of these kinds
	return requestsOf(r.list(ctx, client.InNamespace(o.GetNamespace()),
		client.MatchingFields{connection.ConnectionIndex: connection.IDFor(conn).Key()}))
}

// inNamespace returns the objects of a namespace whose labels changed. The shared connections that they name are woken too: one that is
// being deleted may have waited for them alone.
func (r *Reconciler) inNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	objects := r.list(ctx, client.InNamespace(namespace.GetName()))
	for i := range objects {
		for _, id := range ownership.Connections(&objects[i]) {
			if id.Kind == v1alpha1.KindClusterGrafanaConnection {
				r.connections.WakeConnection(id)
			}
		}
	}
	return requestsOf(objects)
}

// usageChanged reports whether an object names, owns or has pending something else than before, or will no longer go on with that.
func (r *Reconciler) usageChanged(e event.UpdateEvent) bool {
	before, _ := e.ObjectOld.(*v1alpha1.GrafanaSecureValue) // the watch is of this kind
	after, _ := e.ObjectNew.(*v1alpha1.GrafanaSecureValue)
	r.memory.behind(after, r.now()) // what the cache shows need not be remembered
	return before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() || ownership.IsReleased(before) != ownership.IsReleased(after) ||
		before.Spec.Suspend != after.Spec.Suspend || before.ConnectionOrDefault() != after.ConnectionOrDefault() ||
		before.SecureValueName() != after.SecureValueName() || !slices.Equal(ownership.Targets(before), ownership.Targets(after))
}

// concerned returns the objects that a change of another one concerns: of its namespace all that name, own or have pending a name that it
// uses or used, whatever their status says; of other namespaces those that found a name taken which it has released on the same server.
// Connections that it no longer uses are woken too.
func (r *Reconciler) concerned(ctx context.Context, o client.Object) []reconcile.Request {
	changed, _ := o.(*v1alpha1.GrafanaSecureValue) // the watch is of this kind; it is the object before or after the change
	var names []string
	var connections []ownership.Connection
	now := &v1alpha1.GrafanaSecureValue{}
	if err := r.client.Get(ctx, client.ObjectKeyFromObject(o), now); err == nil {
		names, connections = ownership.Names(now), ownership.Connections(now)
	}
	var requests []reconcile.Request
	for _, name := range ownership.Names(changed) {
		near := r.find(ctx, nameIndex, changed.Namespace, name)
		requests = append(requests, requestsOf(slices.DeleteFunc(near, func(o v1alpha1.GrafanaSecureValue) bool { return o.Name == changed.Name }))...)
		if !slices.Contains(names, name) {
			requests = append(requests, requestsOf(r.waitingFor(ctx, name, changed))...)
		}
	}
	for _, id := range ownership.Connections(changed) {
		if !slices.Contains(connections, id) {
			r.connections.WakeConnection(id)
		}
	}
	return requests
}

// waitingFor returns the objects of all namespaces that found a name taken on a server that another object uses. Those of other servers
// must not learn that the name was in use.
func (r *Reconciler) waitingFor(ctx context.Context, name string, changed *v1alpha1.GrafanaSecureValue) []v1alpha1.GrafanaSecureValue {
	waiting := r.find(ctx, takenIndex, "", name)
	if len(waiting) == 0 {
		return nil
	}
	var servers []string
	for _, id := range ownership.Connections(changed) {
		servers = append(servers, r.serverOf(ctx, v1alpha1.ConnectionReference{Kind: id.Kind, Name: id.Name}, changed.Namespace))
	}
	return slices.DeleteFunc(waiting, func(o v1alpha1.GrafanaSecureValue) bool {
		server := r.serverOf(ctx, o.ConnectionOrDefault(), o.Namespace)
		return server == "" || !slices.Contains(servers, server)
	})
}

// serverOf returns the server of a connection, or "" if it is not known.
func (r *Reconciler) serverOf(ctx context.Context, ref v1alpha1.ConnectionReference, namespace string) string {
	conn, err := r.getConnection(ctx, ref, namespace)
	if err != nil {
		return ""
	}
	return r.connections.Server(conn)
}

// find returns objects by an index, of a namespace or of all, as the cache shows them. They are the cache's own and must not be changed.
func (r *Reconciler) find(ctx context.Context, index index.Index, namespace, value string) []v1alpha1.GrafanaSecureValue {
	objects, err := index.Find(ctx, r.client, namespace, value)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects not found in the cache")
	}
	return objects
}

// list returns objects as the cache shows them. They are the cache's own and must not be changed.
func (r *Reconciler) list(ctx context.Context, opts ...client.ListOption) []v1alpha1.GrafanaSecureValue {
	list := &v1alpha1.GrafanaSecureValueList{}
	if err := r.client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects not found in the cache")
	}
	return list.Items
}

func requestsOf(objects []v1alpha1.GrafanaSecureValue) []reconcile.Request {
	requests := make([]reconcile.Request, len(objects))
	for i := range objects {
		requests[i].NamespacedName = keyOf(&objects[i])
	}
	return requests
}

// States counts the objects by connection and reason of Ready, and those whose value is overdue or has expired by connection and reason of
// Fresh, as the cache shows them. Those that are released count no more.
func (r *Reconciler) States() (values, overdue map[metrics.ValueState]int) {
	values, overdue = map[metrics.ValueState]int{}, map[metrics.ValueState]int{}
	objects := r.list(context.Background())
	for i := range objects {
		if ownership.IsReleased(&objects[i]) {
			continue
		}
		state := metrics.ValueState{
			Connection: ownership.ConnectionOf(objects[i].ConnectionOrDefault(), objects[i].Namespace),
			Reason:     status.Reason(objects[i].Status.Conditions),
		}
		values[state]++
		if state.Reason = staleReason(objects[i].Status.Conditions); state.Reason != "" {
			overdue[state]++
		}
	}
	return values, overdue
}

// Leads says that this process begins to work. A reconcile may come a moment earlier.
func (r *Reconciler) Leads() {
	r.leadingFrom()
	r.memory.leads(time.Now())
}

// OldestPending returns the age of the oldest change not yet reflected in Grafana or in status, or 0.
func (r *Reconciler) OldestPending() time.Duration { return r.memory.oldest(time.Now()) }
