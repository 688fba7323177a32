// Package operator puts the manager together: caches, controllers, metrics, probes and leader election.
package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalueset"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/leader"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

const (
	// retryPeriod is how often the leader renews its lease; a standby asks for it after that time, or up to 2.2 times that. With the
	// default of 2 s no manager would work for up to 4.4 s after a leader has released its lease.
	retryPeriod = 500 * time.Millisecond

	// shutdownTimeout is the time that running writes have to end; the pod's grace period must be longer.
	shutdownTimeout = 25 * time.Second

	// clusterIDNamespace is the namespace whose UID names a cluster that was given no other id.
	clusterIDNamespace = "kube-system"
)

// Options is what a manager is started with. See the flags in cmd for their meaning.
type Options struct {
	MetricsBindAddress      string
	MetricsSecure           bool
	MetricsCertPath         string // empty: a certificate of its own, made at each start
	HealthProbeBindAddress  string
	LeaderElect             bool
	MaxConcurrentReconciles int
	OperatorNamespace       string
	ClusterID               string   // empty: the UID of namespace kube-system
	WatchNamespaces         []string // empty: all
	NamespacedConnections   bool
	AllowedHosts            []string // empty: any
	AllowInsecureTLS        bool
	MaxConnections          int // GrafanaConnections served in one namespace; 0: no bound
	Version                 string
	CheckOnly               bool // see Check, which is called instead of Run

	// SkipNameValidation lets one process start more than one manager, as tests do.
	SkipNameValidation bool
	// RotationPeriod is in how long each object may write one changed value after its burst; 0: a minute. Tests change Secrets more often.
	RotationPeriod time.Duration
}

func (o Options) validate() error {
	if o.OperatorNamespace == "" {
		return errors.New("the operator's namespace is not known: set --operator-namespace or $POD_NAMESPACE")
	}
	if problems := validation.IsValidLabelValue(o.ClusterID); problems != nil {
		return fmt.Errorf("--cluster-id %q is not a label value: %s", o.ClusterID, problems[0])
	}
	for _, namespace := range o.WatchNamespaces {
		if problems := validation.IsDNS1123Label(namespace); problems != nil {
			return fmt.Errorf("--watch-namespaces names %q, which is not a namespace: %s", namespace, problems[0])
		}
	}
	switch watch := len(o.WatchNamespaces) > 0; {
	case watch && o.ClusterID == "":
		return errors.New("--watch-namespaces needs --cluster-id: the UID of namespace kube-system, which it is otherwise, may not be read with Roles alone; set it to any label value that no other cluster with the same Grafana has")
	case watch && !o.NamespacedConnections:
		return errors.New("--watch-namespaces serves GrafanaConnections alone, and --namespaced-connections=false serves none: leave one of them out")
	}
	return nil
}

func (o Options) served() connection.Served {
	return connection.Served{Namespaced: o.NamespacedConnections, Cluster: len(o.WatchNamespaces) == 0}
}

// podTokenFile is what a pod authenticates with: Kubernetes, "Accessing the Kubernetes API from a Pod".
const podTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" // no credentials, but where they are

// policy returns what connections may do. The addresses of the host itself are refused in a pod, where the metrics of the manager listen, among
// others. Outside of a pod they are allowed, for a Grafana on the same machine.
func (o Options) policy(restConfig *rest.Config) (connection.Policy, error) {
	p := connection.Policy{
		AllowInsecureTLS: o.AllowInsecureTLS,
		AllowLoopback:    restConfig.BearerTokenFile != podTokenFile,
	}
	for _, host := range o.AllowedHosts {
		pattern, err := connection.ParseHostPattern(host)
		if err != nil {
			return p, fmt.Errorf("--allowed-hosts: %w; use patterns like *.grafana.net or grafana.internal:3000", err)
		}
		p.AllowedHosts = append(p.AllowedHosts, pattern)
	}
	return p, nil
}

// Run starts the manager and blocks until ctx ends. Its errors say what to do.
func Run(ctx context.Context, restConfig *rest.Config, opts Options) error {
	mgr, err := New(ctx, restConfig, opts)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// New returns a manager that is ready to be started. It asks the API server whether everything needed is there.
func New(ctx context.Context, restConfig *rest.Config, opts Options) (ctrl.Manager, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	policy, err := opts.policy(restConfig)
	if err != nil {
		return nil, err
	}
	mgr, err := newAnnouncing(restConfig, managerOptions(opts))
	if err != nil {
		return nil, err
	}
	if err := checkInstalled(mgr.GetRESTMapper(), opts.served()); err != nil {
		return nil, err
	}
	if err := addMetricsServer(ctx, mgr, opts); err != nil {
		return nil, fmt.Errorf("metrics endpoint: %w", err)
	}
	clusterID, err := resolveClusterID(ctx, mgr.GetAPIReader(), opts.ClusterID)
	if err != nil {
		return nil, err
	}
	mgr.GetLogger().Info("Manager configured", "version", opts.Version, "clusterID", clusterID,
		"operatorNamespace", opts.OperatorNamespace, "watchedNamespaces", cmp.Or(strings.Join(opts.WatchNamespaces, ","), "all"))
	keys := fingerprint.NewStore(status.Reader{Reader: mgr.GetAPIReader()}, status.Client{Client: mgr.GetClient()}, opts.OperatorNamespace)
	if err := mgr.Add(keys); err != nil {
		return nil, err
	}
	connections := connection.NewRegistry(opts.MaxConcurrentReconciles)
	connections.MaxPerNamespace = opts.MaxConnections
	if err := connection.Setup(ctx, mgr, connections, connection.Options{
		OperatorNamespace:       opts.OperatorNamespace,
		ClusterID:               clusterID,
		UserAgent:               "grafana-secure-value-operator/" + opts.Version,
		Served:                  opts.served(),
		Policy:                  policy,
		MaxConcurrentReconciles: opts.MaxConcurrentReconciles,
	}); err != nil {
		return nil, err
	}
	values, err := securevalue.Setup(ctx, mgr, connections, keys, securevalue.Options{
		ClusterID: clusterID, Served: opts.served(), MaxConcurrentReconciles: opts.MaxConcurrentReconciles, RotationPeriod: opts.RotationPeriod,
	})
	if err != nil {
		return nil, fmt.Errorf("controller of GrafanaSecureValue: %w", err)
	}
	if err := securevalueset.Setup(ctx, mgr, opts.served()); err != nil {
		return nil, fmt.Errorf("controller of GrafanaSecureValueSet: %w", err)
	}
	source := &metrics.Source{Values: values.States, Connections: connections.States, OldestPending: values.OldestPending}
	leads := manager.RunnableFunc(func(ctx context.Context) error { // with the lease, as any runnable that says nothing else
		values.Leads()
		metrics.SetSource(source)
		<-ctx.Done()
		metrics.Unset(source)
		return nil
	})
	return mgr, errors.Join(mgr.Add(leads), mgr.AddHealthzCheck("healthz", healthz.Ping), mgr.AddReadyzCheck("readyz", healthz.Ping),
		mgr.AddReadyzCheck("fingerprint", keys.Check))
}

func managerOptions(opts Options) ctrl.Options {
	return ctrl.Options{
		Scheme:                        Scheme(),
		Logger:                        discreet(ctrl.Log),
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // see addMetricsServer
		HealthProbeBindAddress:        opts.HealthProbeBindAddress,
		LeaderElection:                opts.LeaderElect,
		LeaderElectionID:              leader.LeaseName,
		LeaderElectionNamespace:       opts.OperatorNamespace,
		LeaderElectionReleaseOnCancel: true,
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(shutdownTimeout),
		Controller:                    config.Controller{SkipNameValidation: new(opts.SkipNameValidation)},
		Cache: cache.Options{
			// Without this, one accidental read of a whole Secret would cache every Secret of the cluster.
			ReaderFailOnMissingInformer: true,
			DefaultTransform:            strip,
			DefaultNamespaces:           watched(opts.WatchNamespaces),
		},
	}
}

// watched returns the configuration of caches for the given namespaces; nil, which is all of them, for none.
func watched(namespaces []string) map[string]cache.Config {
	var configs map[string]cache.Config
	for _, namespace := range namespaces {
		if configs == nil {
			configs = map[string]cache.Config{}
		}
		configs[namespace] = cache.Config{}
	}
	return configs
}

// scheme is client-go's own, which has the kinds of Kubernetes anyway: a second one with them would take 2 MB.
var scheme = func() *runtime.Scheme {
	utilruntime.Must(v1alpha1.AddToScheme(clientgoscheme.Scheme))
	utilruntime.Must(grafanaoperator.AddToScheme(clientgoscheme.Scheme))
	return clientgoscheme.Scheme
}()

// Scheme returns the kinds that the manager reads and writes, which all callers share.
func Scheme() *runtime.Scheme { return scheme }

// checkInstalled asks the API server for the kinds of this project.
func checkInstalled(mapper meta.RESTMapper, served connection.Served) error {
	kinds := []string{"GrafanaSecureValue", "GrafanaSecureValueSet", "GrafanaConnection"}
	if served.Cluster {
		kinds = append(kinds, "ClusterGrafanaConnection")
	}
	for _, kind := range kinds {
		gk := v1alpha1.GroupVersion.WithKind(kind).GroupKind()
		_, err := mapper.RESTMapping(gk, v1alpha1.GroupVersion.Version)
		if meta.IsNoMatchError(err) {
			return fmt.Errorf("the CustomResourceDefinition of %s is not installed: install the CRDs of this version first, for example with `make install` or `kubectl apply --server-side -k config/crd`", gk)
		}
		if err != nil {
			return fmt.Errorf("ask the API server for %s: %w", gk, err)
		}
	}
	return nil
}

// resolveClusterID returns the id in the owner labels of this cluster.
func resolveClusterID(ctx context.Context, reader client.Reader, id string) (string, error) {
	if id != "" {
		return id, nil
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := reader.Get(ctx, client.ObjectKey{Name: clusterIDNamespace}, namespace); err != nil {
		return "", fmt.Errorf("read the UID of namespace %s, which names this cluster unless --cluster-id does: %w", clusterIDNamespace, err)
	}
	return string(namespace.UID), nil
}

// maxVerbosity is the most detail that is logged, whatever --zap-log-level says. From 8 on the Kubernetes client, which logs to what it
// finds in its context, would log requests and answers whole: Secrets, and the fingerprint key.
const maxVerbosity = 5

// discreet returns the logger, and logs nothing beyond maxVerbosity.
func discreet(log logr.Logger) logr.Logger { return log.WithSink(discreetSink{log.GetSink()}) }

type discreetSink struct{ logr.LogSink }

func (s discreetSink) Enabled(level int) bool {
	return level <= maxVerbosity && s.LogSink.Enabled(level)
}

func (s discreetSink) WithName(name string) logr.LogSink {
	return discreetSink{s.LogSink.WithName(name)}
}

func (s discreetSink) WithValues(keysAndValues ...any) logr.LogSink {
	return discreetSink{s.LogSink.WithValues(keysAndValues...)}
}
