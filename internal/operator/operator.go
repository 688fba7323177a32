// Package operator puts the manager together: caches, controllers, metrics, probes and leader election.
package operator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

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
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/watchdog"
)

const (
	// leaderElectionID is the name of the Lease in the operator's namespace.
	leaderElectionID = "grafana-secure-value-operator"

	// retryPeriod is how often the leader renews its lease; a standby asks for it after that time, or up to 2.2 times that. With the
	// default of 2 s nobody would work for up to 4.4 s after a leader has let go.
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
	HealthProbeBindAddress  string
	LeaderElect             bool
	MaxConcurrentReconciles int
	OperatorNamespace       string
	ClusterID               string   // empty: the UID of namespace kube-system
	WatchNamespaces         []string // empty: all
	NamespacedConnections   bool
	AllowedHosts            []string // empty: any
	AllowInsecureTLS        bool
	Version                 string

	// SkipNameValidation lets one process start more than one manager, as tests do.
	SkipNameValidation bool
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
		return errors.New("--watch-namespaces needs --cluster-id: the UID of namespace kube-system, which it is otherwise, may not be " +
			"read with Roles alone; set it to any label value that no other cluster with the same Grafana has")
	case watch && !o.NamespacedConnections:
		return errors.New("--watch-namespaces serves GrafanaConnections alone, and --namespaced-connections=false serves none: leave one of them out")
	}
	return nil
}

func (o Options) served() connection.Served {
	return connection.Served{Namespaced: o.NamespacedConnections, Cluster: len(o.WatchNamespaces) == 0}
}

// podTokenFile is what a pod authenticates with: Kubernetes, "Accessing the Kubernetes API from a Pod".
const podTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // no credentials, but where they are

// policy returns what connections may do. To this host itself they may lead where the manager runs on somebody's machine, as for a test.
// In a pod, that is whatever else listens there, the manager's own metrics among it.
func (o Options) policy(restConfig *rest.Config) (connection.Policy, error) {
	p := connection.Policy{
		AllowInsecureTLS: o.AllowInsecureTLS,
		AllowLoopback:    restConfig.BearerTokenFile != podTokenFile,
	}
	for _, host := range o.AllowedHosts {
		pattern, err := connection.ParseHostPattern(host)
		if err != nil {
			return p, fmt.Errorf("--allowed-hosts: %w; use patterns as *.grafana.net or grafana.internal:3000", err)
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
	mgr, err := ctrl.NewManager(restConfig, managerOptions(opts))
	if err != nil {
		return nil, err
	}
	if err := checkInstalled(mgr.GetRESTMapper(), opts.served()); err != nil {
		return nil, err
	}
	clusterID, err := resolveClusterID(ctx, mgr.GetAPIReader(), opts.ClusterID)
	if err != nil {
		return nil, err
	}
	mgr.GetLogger().Info("Manager configured", "version", opts.Version, "clusterID", clusterID,
		"operatorNamespace", opts.OperatorNamespace, "watchedNamespaces", cmp.Or(strings.Join(opts.WatchNamespaces, ","), "all"))
	keeper := fingerprint.NewKeeper(mgr.GetAPIReader(), mgr.GetClient(), opts.OperatorNamespace)
	if err := mgr.Add(keeper); err != nil {
		return nil, err
	}

	dog := watchdog.New(mgr.GetLogger().WithName("watchdog"), mgr.Elected())
	values := securevalue.New(mgr, securevalue.Options{
		ClusterID:               clusterID,
		WatchNamespaces:         opts.WatchNamespaces,
		Served:                  opts.served(),
		MaxConcurrentReconciles: opts.MaxConcurrentReconciles,
		Watchdog:                dog,
	})
	connections, err := connection.Setup(ctx, mgr, values.Wake, connection.Options{
		OperatorNamespace:       opts.OperatorNamespace,
		UserAgent:               "grafana-secure-value-operator/" + opts.Version,
		Objects:                 values.Objects(),
		Served:                  opts.served(),
		Policy:                  policy,
		MaxConcurrentReconciles: opts.MaxConcurrentReconciles,
		Watchdog:                dog,
	})
	if err != nil {
		return nil, err
	}
	if err := values.Setup(ctx, mgr, connections, keeper); err != nil {
		return nil, fmt.Errorf("controller of GrafanaSecureValue: %w", err)
	}
	if err := mgr.Add(whileLeading(values.Leads, &metrics.Source{
		Values: values.States, Connections: connections.States, OldestUnseen: values.OldestUnseen,
	})); err != nil {
		return nil, err
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("watchdog", dog.Check), mgr.AddReadyzCheck("readyz", healthz.Ping),
		mgr.AddReadyzCheck("fingerprint", keeper.Check))
}

// whileLeading makes the gauges tell of this manager while it leads: a runnable needs that, unless it says otherwise.
func whileLeading(begin func(), source *metrics.Source) manager.Runnable {
	return manager.RunnableFunc(func(ctx context.Context) error {
		begin()
		metrics.SetSource(source)
		<-ctx.Done()
		metrics.Unset(source)
		return nil
	})
}

func managerOptions(opts Options) ctrl.Options {
	metricsOptions := metricsserver.Options{
		BindAddress:   opts.MetricsBindAddress,
		SecureServing: opts.MetricsSecure,
		// HTTP/2 stays off: its rapid reset lets a peer exhaust the server (CVE-2023-44487).
		TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	}
	if opts.MetricsSecure {
		metricsOptions.FilterProvider = onlyReaders
	}
	return ctrl.Options{
		Scheme:                        Scheme(),
		Logger:                        discreet(ctrl.Log),
		Metrics:                       metricsOptions,
		HealthProbeBindAddress:        opts.HealthProbeBindAddress,
		LeaderElection:                opts.LeaderElect,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       opts.OperatorNamespace,
		LeaderElectionReleaseOnCancel: true,
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(shutdownTimeout),
		Controller:                    config.Controller{SkipNameValidation: new(opts.SkipNameValidation)},
		Cache: cache.Options{
			// Without this, one stray read of a whole Secret would cache every Secret of the cluster.
			ReaderFailOnMissingInformer: true,
			DefaultTransform:            strip(),
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

// Scheme returns the kinds that the manager reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// checkInstalled asks the API server for the kinds of this project.
func checkInstalled(mapper meta.RESTMapper, served connection.Served) error {
	kinds := []string{"GrafanaSecureValue", "GrafanaConnection"}
	if served.Cluster {
		kinds = append(kinds, "ClusterGrafanaConnection")
	}
	for _, kind := range kinds {
		gk := v1alpha1.GroupVersion.WithKind(kind).GroupKind()
		_, err := mapper.RESTMapping(gk, v1alpha1.GroupVersion.Version)
		if meta.IsNoMatchError(err) {
			return fmt.Errorf("the CustomResourceDefinition of %s is not installed: install the CRDs of this version first, "+
				"for example with `make install` or `kubectl apply --server-side -k config/crd`", gk)
		}
		if err != nil {
			return fmt.Errorf("ask the API server for %s: %w", gk, err)
		}
	}
	return nil
}

// resolveClusterID returns the id that marks what this cluster keeps in Grafana.
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
