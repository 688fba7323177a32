package connection

import (
	"context"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Objects is what the controller of secure values tells of the objects that use a connection.
type Objects struct {
	// Users counts, in the cache, those that name the connection in spec, intent or targets.
	Users func(context.Context, ID) (int, error)
	// InUse asks the API server itself whether there is one of them.
	InUse func(context.Context, ID) (bool, error)
	// Survey compares what Grafana lists with what is recorded on the connection.
	Survey func(context.Context, ID, []grafana.SecureValue) (Survey, error)
	// Listed is told of each connection whose LIST succeeded just now.
	Listed func(context.Context, ID)
}

// Survey is what a LIST shows of the values that are recorded on a connection.
type Survey struct {
	// Recorded is how many values objects say to have written through the connection.
	Recorded int
	// Present is how many of them are listed, with the mark of their object.
	Present int
	// Marked says that some listed value carries a mark of this cluster: labels are kept.
	Marked bool
}

// Served says which kinds of connection an installation serves.
type Served struct {
	// Namespaced is whether GrafanaConnections are served.
	Namespaced bool
	// Cluster is whether ClusterGrafanaConnections are served.
	Cluster bool
}

// Has reports whether connections of that kind are served.
func (s Served) Has(kind v1alpha1.ConnectionKind) bool {
	if kind == v1alpha1.KindClusterGrafanaConnection {
		return s.Cluster
	}
	return s.Namespaced
}

// WhyNot says, for people, why connections of a kind that is not served are not.
func (s Served) WhyNot(kind v1alpha1.ConnectionKind) string {
	if kind == v1alpha1.KindClusterGrafanaConnection {
		return "This installation serves the namespaces of --watch-namespaces alone, and no ClusterGrafanaConnection."
	}
	return "This installation serves ClusterGrafanaConnections alone (--namespaced-connections=false)."
}
