package connection

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/errorlog"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/watchdog"
)

// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanaconnections;clustergrafanaconnections,verbs=list;watch;patch
// +kubebuilder:rbac:groups=grafana.securevalues.io,resources=grafanaconnections/status;clustergrafanaconnections/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SecureValuesIndex is the field index of GrafanaSecureValues by the connections that they name or hold places on. Its keys
// are ID.IndexKey. The controller of secure values registers it.
const SecureValuesIndex = "connection"

// IndexKey is the key of the connection in SecureValuesIndex.
func (id ID) IndexKey() string { return string(id.Kind) + "/" + id.Namespace + "/" + id.Name }

// secretsIndex is the field index of connections by the names of the Secrets that they read.
const secretsIndex = "secret"

// Options is what the controllers of connections need to know.
type Options struct {
	// OperatorNamespace is where the Secrets of ClusterGrafanaConnections live.
	OperatorNamespace string
	// UserAgent is sent with each request to Grafana.
	UserAgent string
	// Objects tells of the objects that use a connection.
	Objects Objects
	// Served is which kinds of connection are served.
	Served Served
	// Policy is what connections may lead to.
	Policy Policy
	// MaxConcurrentReconciles bounds the connections of a kind that are checked at a time.
	MaxConcurrentReconciles int
	// Watchdog watches over the work; nil is none.
	Watchdog *watchdog.Watchdog
}

// Setup adds the controllers of both kinds of connection to the manager and returns the registry that they keep. Objects
// that waited for a connection are handed back by wakeObject.
func Setup(ctx context.Context, mgr ctrl.Manager, wakeObject func(gate.Key), opts Options) (*Registry, error) {
	wakers := map[v1alpha1.ConnectionKind]*Waker{v1alpha1.KindGrafanaConnection: {}}
	if opts.Served.Cluster {
		wakers[v1alpha1.KindClusterGrafanaConnection] = &Waker{}
	}
	registry := NewRegistry(wakeObject, func(id ID) {
		if waker := wakers[id.Kind]; waker != nil {
			waker.Wake(id.key())
		}
	})
	registry.share(opts.MaxConcurrentReconciles)

	for kind, newObject := range map[v1alpha1.ConnectionKind]func() v1alpha1.Connection{
		v1alpha1.KindGrafanaConnection:        func() v1alpha1.Connection { return &v1alpha1.GrafanaConnection{} },
		v1alpha1.KindClusterGrafanaConnection: func() v1alpha1.Connection { return &v1alpha1.ClusterGrafanaConnection{} },
	} {
		if wakers[kind] == nil {
			continue // it may not even be read
		}
		r := &Reconciler{
			client:            mgr.GetClient(),
			live:              mgr.GetAPIReader(),
			registry:          registry,
			recorder:          mgr.GetEventRecorder("grafana-secure-value-operator"),
			kind:              kind,
			newObject:         newObject,
			operatorNamespace: opts.OperatorNamespace,
			userAgent:         opts.UserAgent,
			objects:           opts.Objects,
			served:            opts.Served,
			policy:            opts.Policy,
			now:               time.Now,
		}
		if err := r.setup(ctx, mgr, wakers[kind], opts); err != nil {
			return nil, fmt.Errorf("controller of %s: %w", kind, err)
		}
	}
	return registry, nil
}

func (r *Reconciler) setup(ctx context.Context, mgr ctrl.Manager, waker *Waker, opts Options) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, r.newObject(), secretsIndex, func(o client.Object) []string {
		conn, _ := o.(v1alpha1.Connection) // the index is of this kind
		var names []string
		for _, ref := range secretRefs(conn.GetSpec()) {
			names = append(names, ref.name)
		}
		return names
	})
	if err != nil {
		return err
	}
	errorLog := errorlog.New(mgr.GetLogger(), string(r.kind))
	return ctrl.NewControllerManagedBy(mgr).
		For(r.newObject()).
		// A new token or CA is used at once.
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.namingSecret)).
		// A connection that an object's calls put in doubt is checked out of turn.
		WatchesRawSource(waker).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: opts.MaxConcurrentReconciles,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute),
			EnableWarmup:            new(true),
			NewQueue:                opts.Watchdog.Queue,
			LogConstructor:          errorLog.Of,
		}).
		Complete(opts.Watchdog.Reconciler(errorLog.Reconciler(r)))
}

// namingSecret returns the connections that read the given Secret.
func (r *Reconciler) namingSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	opts := []client.ListOption{client.MatchingFields{secretsIndex: secret.GetName()}}
	if r.kind == v1alpha1.KindGrafanaConnection {
		opts = append(opts, client.InNamespace(secret.GetNamespace()))
	} else if secret.GetNamespace() != r.operatorNamespace {
		return nil
	}
	list, err := r.list(ctx, opts...)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Connections of a Secret not found in the cache")
	}
	return list
}

func (r *Reconciler) list(ctx context.Context, opts ...client.ListOption) ([]reconcile.Request, error) {
	var requests []reconcile.Request
	add := func(conn v1alpha1.Connection) {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(conn)})
	}
	if r.kind == v1alpha1.KindGrafanaConnection {
		list := &v1alpha1.GrafanaConnectionList{}
		err := r.client.List(ctx, list, opts...)
		for i := range list.Items {
			add(&list.Items[i])
		}
		return requests, err
	}
	list := &v1alpha1.ClusterGrafanaConnectionList{}
	err := r.client.List(ctx, list, opts...)
	for i := range list.Items {
		add(&list.Items[i])
	}
	return requests, err
}
