package operator

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/flowcontrol"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// maxMetricsHeader bounds the request line and the headers of a reader of metrics, in bytes. A token of Kubernetes has about one thousand.
	maxMetricsHeader = 16 << 10

	// maxMetricsConnections bounds the readers of metrics at a time; others wait. With maxMetricsHeader it bounds the memory that
	// clients take before they are authenticated.
	maxMetricsConnections = 128

	// reviewRate and reviewBurst bound what clients that make up tokens have the API server asked, in reviews a second. The answer about a
	// reader's token is cached for a minute.
	reviewRate  = 10
	reviewBurst = 20
)

// addMetricsServer has the manager serve metrics, if they are on. The server of controller-runtime reads a megabyte from each client before
// its filter is asked, and cannot be set to less.
func addMetricsServer(ctx context.Context, mgr ctrl.Manager, opts Options) error {
	if opts.MetricsBindAddress == "0" {
		return nil
	}
	server, watcher, err := newMetricsServer(ctx, opts, mgr.GetConfig(), mgr.GetHTTPClient(), mgr.GetLogger().WithName("metrics"))
	if err != nil {
		return err
	}
	if watcher != nil {
		if err := mgr.Add(watcher); err != nil {
			return err
		}
	}
	return mgr.Add(server)
}

// newMetricsServer returns a server that listens already, and what watches its certificate, if that is in files.
func newMetricsServer(ctx context.Context, opts Options, config *rest.Config, httpClient *http.Client, log logr.Logger,
) (*manager.Server, *certwatcher.CertWatcher, error) {
	handler := promhttp.HandlerFor(ctrlmetrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	// HTTP/2 stays off: its rapid reset lets a peer exhaust the server (CVE-2023-44487).
	tlsConfig := &tls.Config{NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	var watcher *certwatcher.CertWatcher
	if opts.MetricsSecure {
		filter, err := readers(config, httpClient)
		if err != nil {
			return nil, nil, err
		}
		if handler, err = filter(log, handler); err != nil {
			return nil, nil, err
		}
		if opts.MetricsCertPath == "" {
			tlsConfig.Certificates, err = selfSigned()
		} else {
			watcher, err = certwatcher.New(filepath.Join(opts.MetricsCertPath, "tls.crt"), filepath.Join(opts.MetricsCertPath, "tls.key"))
		}
		if err != nil {
			return nil, nil, err
		}
		if watcher != nil {
			tlsConfig.GetCertificate = watcher.GetCertificate
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opts.MetricsBindAddress)
	if err != nil {
		return nil, nil, err
	}
	listener = netutil.LimitListener(listener, maxMetricsConnections)
	if opts.MetricsSecure {
		listener = tls.NewListener(listener, tlsConfig)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
	return &manager.Server{
		Name:     "metrics",
		Listener: listener,
		Server: &http.Server{
			Handler:           mux,
			MaxHeaderBytes:    maxMetricsHeader,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       90 * time.Second, // longer than most scrape intervals
		},
		ShutdownTimeout: new(5 * time.Second),
	}, watcher, nil
}

// selfSigned returns a certificate that lasts as long as the process.
func selfSigned() ([]tls.Certificate, error) {
	certificate, key, err := cert.GenerateSelfSignedCertKeyWithFixtures("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil, "")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	return []tls.Certificate{pair}, err
}

// readers is controller-runtime's filter of those who read metrics. What is no request of a reader is refused before it: the filter asks the
// API server about each method that a client makes up, and caches the answer.
func readers(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(reviewRate, reviewBurst) // one for both kinds of reviews
	filter, err := filters.WithAuthenticationAndAuthorization(config, httpClient)
	if err != nil {
		return nil, err
	}
	return func(log logr.Logger, metrics http.Handler) (http.Handler, error) {
		reviewed, err := filter(log, metrics)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
				return
			}
			reviewed.ServeHTTP(w, r)
		}), err
	}, nil
}
