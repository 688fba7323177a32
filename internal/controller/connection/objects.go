package connection

import (
	"context"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Objects is what the controller of secure values tells of the objects that use a connection.
type Objects struct {
	// Users counts, in the cache, those that hold a value through the connection, or may use it and name it in spec or intent.
	Users func(context.Context, v1alpha1.Connection) (int, error)
	// InUse asks the API server itself whether there is one of them.
	InUse func(context.Context, v1alpha1.Connection) (bool, error)
	// Survey begins to compare what Grafana lists with what is recorded on the connection.
	Survey func(context.Context, ID) (Surveyor, error)
	// Marks are the labels and annotations of listed values that the surveyor reads.
	Marks []string
	// Listed is told of each LIST that succeeded, once the connection may be used.
	Listed func(context.Context, ID, Listing)
}

// Surveyor reads a LIST value by value, and keeps of it what is about the objects that use the connection: whoever answers there may list
// whatever they like.
type Surveyor struct {
	// See takes a value that is listed.
	See func(grafana.Listed)
	// Result tells what the values came to, at the end of the LIST.
	Result func() Survey
	// Values are those listed so far, by the names that objects have or hold. One that is not listed is nil.
	Values map[string]*grafana.Listed
}

// Listing is what a LIST showed.
type Listing struct {
	Values map[string]*grafana.Listed // as a Surveyor has them
	Begun  time.Time                  // whatever was written later may not be in it
}

// Survey is what a LIST shows of the values that are recorded on a connection.
type Survey struct {
	// Recorded is how many values objects say to have written through the connection, from before the LIST on. Where one of them is listed,
	// those that were given up meanwhile count too.
	Recorded int
	// Present is how many of them are listed, with the mark of their object.
	Present int
	// Unowned is how many listed values carry a mark of this cluster, and are held by no living object.
	Unowned int
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
