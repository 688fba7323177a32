package securevalueset

import (
	"context"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
)

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevaluesets,verbs=get;list;watch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevaluesets/status,verbs=patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevaluesets/finalizers,verbs=update
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanasecurevalues,verbs=get;list;watch;create;patch;delete

// setIndex is the field index of GrafanaSecureValues by the name of the set that made them.
const setIndex = "set"

// maxConcurrentReconciles bounds the sets that are reconciled at a time: each calls the API server alone.
const maxConcurrentReconciles = 4

// Setup adds the controller to the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, served connection.Served) error {
	r := &Reconciler{
		client:   status.Client{Client: mgr.GetClient()},
		live:     status.Reader{Reader: mgr.GetAPIReader()},
		served:   served,
		recorder: mgr.GetEventRecorder("grafana-secure-value-operator"),
		now:      time.Now,
		retries:  workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](time.Second, 30*time.Second),
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.GrafanaSecureValue{}, setIndex, SetsOf); err != nil {
		return err
	}
	build := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.GrafanaSecureValueSet{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.GrafanaSecureValue{}, ofSet).
		// A key that comes or goes. Metadata only: no content of a Secret is cached.
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.selectingSecret)).
		Watches(&v1alpha1.GrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(r.inScopeOf), builder.WithPredicates(selectionChanged)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrentReconciles,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup:            new(true),
		})
	if served.Cluster {
		build = build.
			Watches(&v1alpha1.ClusterGrafanaConnection{}, handler.EnqueueRequestsFromMapFunc(r.inScopeOf), builder.WithPredicates(selectionChanged)).
			// The labels of a namespace say which shared connections it may use.
			WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.inNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return build.Complete(r)
}

// selectionChanged passes changes of what a connection is selected by, and of its address.
var selectionChanged = predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, _ := e.ObjectOld.(v1alpha1.Connection) // the watches are of these kinds
		after, _ := e.ObjectNew.(v1alpha1.Connection)
		return connection.Address(before) != connection.Address(after)
	},
})

// SetsOf returns the name of the set whose controller reference or label a GrafanaSecureValue has. It may have those of two.
func SetsOf(o client.Object) []string {
	var names []string
	if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == v1alpha1.KindGrafanaSecureValueSet {
		names = append(names, owner.Name)
	}
	if name := o.GetLabels()[v1alpha1.LabelSet]; name != "" && !slices.Contains(names, name) {
		names = append(names, name)
	}
	return names
}

// ofChild is how the GrafanaSecureValues of sets are named.
var ofChild = regexp.MustCompile(`^(.+)-[0-9a-f]{10}$`)

// ofSet triggers a reconcile of the set that a GrafanaSecureValue is of, or would be by its name: at once where it was edited. All else waits,
// because many may come: the queue keeps one request of them.
var ofSet = handler.Funcs{
	CreateFunc: func(_ context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		enqueue(queue, e.Object, settleDelay)
	},
	UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		before, _ := e.ObjectOld.(*v1alpha1.GrafanaSecureValue) // the watch is of this kind
		after, _ := e.ObjectNew.(*v1alpha1.GrafanaSecureValue)
		switch {
		case after.DeletionTimestamp.IsZero() && isEdited(before, after):
			enqueue(queue, before, 0)
			enqueue(queue, after, 0)
		case before.Generation != after.Generation, before.Status.ObservedGeneration != after.Status.ObservedGeneration,
			!equality.Semantic.DeepEqual(before.Status.Conditions, after.Status.Conditions):
			enqueue(queue, after, settleDelay)
		}
	},
	DeleteFunc: func(_ context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		enqueue(queue, e.Object, settleDelay)
	},
}

// isEdited reports whether a GrafanaSecureValue may no longer be as its set wants it.
func isEdited(before, after *v1alpha1.GrafanaSecureValue) bool {
	return before.Generation != after.Generation ||
		!equality.Semantic.DeepEqual(before.Labels, after.Labels) ||
		!equality.Semantic.DeepEqual(withoutOwn(before.Annotations), withoutOwn(after.Annotations)) ||
		!equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences)
}

func enqueue(queue workqueue.TypedRateLimitingInterface[reconcile.Request], child client.Object, after time.Duration) {
	names := SetsOf(child)
	if found := ofChild.FindStringSubmatch(child.GetName()); found != nil {
		names = append(names, found[1])
	}
	for _, name := range names {
		queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: child.GetNamespace(), Name: name}}, after)
	}
}

// selectingSecret returns the sets that select a Secret.
func (r *Reconciler) selectingSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	return r.requests(ctx, secret.GetNamespace(), func(set *v1alpha1.GrafanaSecureValueSet) bool {
		if set.Spec.Secrets.Selector == nil {
			return slices.Contains(set.Spec.Secrets.Names, secret.GetName())
		}
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Secrets.Selector)
		return err == nil && selector.Matches(labels.Set(secret.GetLabels()))
	})
}

// inScopeOf returns the sets that may select a connection.
func (r *Reconciler) inScopeOf(ctx context.Context, conn client.Object) []reconcile.Request {
	return r.requests(ctx, conn.GetNamespace(), func(*v1alpha1.GrafanaSecureValueSet) bool { return true })
}

// inNamespace returns the sets of a namespace.
func (r *Reconciler) inNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.requests(ctx, namespace.GetName(), func(*v1alpha1.GrafanaSecureValueSet) bool { return true })
}

// requests returns the sets of a namespace, or of all for "", that the filter passes.
func (r *Reconciler) requests(ctx context.Context, namespace string, passes func(*v1alpha1.GrafanaSecureValueSet) bool) []reconcile.Request {
	list := &v1alpha1.GrafanaSecureValueSetList{}
	if err := r.client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Sets not found in the cache")
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if passes(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
