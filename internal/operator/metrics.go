package operator

import (
	"net/http"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// maxMetricsHeader bounds the path and the token of a reader of metrics, in bytes. A token of Kubernetes has about one thousand.
const maxMetricsHeader = 16 << 10

// readers is controller-runtime's filter of those who read metrics. What is no request of a reader is refused before it: the filter asks the
// API server about each method, path and token that a client makes up, and caches the answer.
func readers(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	filter, err := filters.WithAuthenticationAndAuthorization(config, httpClient)
	if err != nil {
		return nil, err
	}
	return func(log logr.Logger, metrics http.Handler) (http.Handler, error) {
		reviewed, err := filter(log, metrics)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refuse := func(code int) { http.Error(w, http.StatusText(code), code) }
			switch {
			case r.Method != http.MethodGet && r.Method != http.MethodHead:
				w.Header().Set("Allow", "GET, HEAD")
				refuse(http.StatusMethodNotAllowed)
			case len(r.RequestURI) > maxMetricsHeader || len(r.Header.Get("Authorization")) > maxMetricsHeader:
				refuse(http.StatusRequestHeaderFieldsTooLarge)
			default:
				reviewed.ServeHTTP(w, r)
			}
		}), err
	}, nil
}
