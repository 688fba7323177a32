// The manager keeps secure values in Grafana in sync with Secrets in Kubernetes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/buildinfo"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// version is set by the build.
var version = ""

// namespaceFile has the namespace of the pod: Kubernetes, "Accessing the Kubernetes API from a Pod".
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func main() {
	err := run(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) || errors.Is(err, errVersion) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: "+strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// gcPercent is how far the heap grows beyond the live data before it is collected. The live data is the caches, which change little, so
// collecting sooner than by default costs some time, and saves more memory: docs/internals/measurements.md has the figures.
const gcPercent = 50

func run(args []string) error {
	opts, logOptions, err := parse(args)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log := zap.New(zap.UseFlagOptions(&logOptions))
	ctrl.SetLogger(log)
	klog.SetLogger(log) // for the libraries of Kubernetes
	restConfig, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	ctx := ctrl.SetupSignalHandler()
	if opts.CheckOnly {
		leader, err := operator.Check(ctx, restConfig, opts)
		if err == nil {
			fmt.Println("ok: " + leader + " leads")
		}
		return err
	}
	return operator.Run(ctx, restConfig, opts)
}

// errVersion says that the version was asked for, and printed.
var errVersion = errors.New("version requested")

// parse reads the flags. It prints the usage or the version only on request, and returns flag.ErrHelp or errVersion then.
func parse(args []string) (operator.Options, zap.Options, error) {
	opts := operator.Options{Version: buildinfo.Version(version)}
	logOptions := zap.Options{}

	fs := flag.NewFlagSet("manager", flag.ContinueOnError)
	var usage strings.Builder
	fs.SetOutput(&usage)
	printVersion := fs.Bool("version", false, "print the version and exit")
	config.RegisterFlags(fs)
	logOptions.BindFlags(fs)
	fs.StringVar(&opts.MetricsBindAddress, "metrics-bind-address", "0", "address of the metrics endpoint, for example :8443; 0 turns it off")
	fs.BoolVar(&opts.MetricsSecure, "metrics-secure", true, "serve metrics over HTTPS, with Kubernetes authentication and authorization")
	fs.StringVar(&opts.MetricsCertPath, "metrics-cert-path", "",
		"directory with tls.crt and tls.key, the certificate of the metrics endpoint (default: one of its own, made at each start)")
	fs.StringVar(&opts.HealthProbeBindAddress, "health-probe-bind-address", ":8081", "address of the probe endpoint; 0 turns it off")
	fs.BoolVar(&opts.LeaderElect, "leader-elect", false, "elect a leader: only one of several managers works at a time")
	fs.BoolVar(&opts.CheckOnly, "check", false,
		"start nothing: check that the API server has what a manager with these flags needs and that one leads, and exit with 0 or 1")
	fs.IntVar(&opts.MaxConcurrentReconciles, "max-concurrent-reconciles", 64, "objects of a kind that are reconciled at a time")
	fs.StringVar(&opts.OperatorNamespace, "operator-namespace", ownNamespace(),
		"namespace of the Secrets of ClusterGrafanaConnections and of the fingerprint key")
	fs.StringVar(&opts.ClusterID, "cluster-id", "",
		"label value that identifies this cluster in owner labels (default: the UID of namespace kube-system)")
	var watch string
	fs.StringVar(&watch, "watch-namespaces", "",
		"namespaces to serve, with commas between them; ClusterGrafanaConnections are off then, and --cluster-id is required (default: all)")
	fs.BoolVar(&opts.NamespacedConnections, "namespaced-connections", true,
		"serve GrafanaConnections; if false, only ClusterGrafanaConnections")
	var hosts string
	fs.StringVar(&hosts, "allowed-hosts", "",
		"hosts that connections may name, with commas between them, for example *.grafana.net,grafana.internal:3000 (default: any)")
	fs.IntVar(&opts.MaxConnections, "max-connections-per-namespace", 50, "GrafanaConnections served in one namespace: the oldest ones")
	fs.BoolVar(&opts.AllowInsecureTLS, "allow-insecure-tls", false,
		"let connections set tls.insecureSkipVerify, with which the certificate of Grafana is not checked")

	err := fs.Parse(args)
	opts.WatchNamespaces, opts.AllowedHosts = list(watch), list(hosts)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage.String())
		return opts, logOptions, err
	case err != nil:
		return opts, logOptions, fmt.Errorf("%w; see manager --help", err)
	case *printVersion:
		fmt.Println(opts.Version)
		return opts, logOptions, errVersion
	case fs.NArg() > 0:
		return opts, logOptions, fmt.Errorf("unexpected argument %q; see manager --help", fs.Arg(0))
	case watch != "" && len(opts.WatchNamespaces) == 0:
		return opts, logOptions, fmt.Errorf("--watch-namespaces is %q and names none: name some, or leave it out to serve all", watch)
	case hosts != "" && len(opts.AllowedHosts) == 0:
		return opts, logOptions, fmt.Errorf("--allowed-hosts is %q and names none: name some, or leave it out to allow any", hosts)
	case opts.MaxConnections < 1:
		return opts, logOptions, fmt.Errorf("--max-connections-per-namespace is %d: use 1 or more", opts.MaxConnections)
	case opts.MaxConcurrentReconciles < 1:
		return opts, logOptions, fmt.Errorf("--max-concurrent-reconciles is %d: use 1 or more", opts.MaxConcurrentReconciles)
	}
	return opts, logOptions, nil
}

// list splits at commas, trims white space and drops empty items.
func list(commas string) []string {
	var names []string
	for name := range strings.SplitSeq(commas, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// ownNamespace returns the namespace of this pod; "" outside of a pod.
func ownNamespace() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	namespace, err := os.ReadFile(namespaceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(namespace))
}
