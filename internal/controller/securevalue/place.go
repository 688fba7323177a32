package securevalue

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/parts"
)

// place is where a value lives: a name in a namespace of Grafana, and the connection that leads there.
type place struct {
	connection v1alpha1.ConnectionReference
	namespace  string // Grafana's
	name       string
}

func placeOf(t v1alpha1.TargetStatus) place {
	return place{connection: t.Connection, namespace: t.Namespace, name: t.Name}
}

// String writes the place for the intent annotation. None of its parts may hold a slash.
func (p place) String() string {
	return strings.Join([]string{string(p.connection.Kind), p.connection.Name, p.namespace, p.name}, "/")
}

// parsePlace reads what String wrote. Anything else is no place.
func parsePlace(s string) (place, bool) {
	f := strings.Split(s, "/")
	if len(f) != 4 {
		return place{}, false
	}
	p := place{
		connection: v1alpha1.ConnectionReference{Kind: v1alpha1.ConnectionKind(f[0]), Name: f[1]},
		namespace:  f[2], name: f[3],
	}
	known := p.connection.Kind == v1alpha1.KindGrafanaConnection || p.connection.Kind == v1alpha1.KindClusterGrafanaConnection
	return p, known && p.connection.Name != "" && p.namespace != "" && p.name != ""
}

// heldPlaces returns every place where a value of sv may be: those that status lists, and the one that it was about to
// write to.
func heldPlaces(sv *v1alpha1.GrafanaSecureValue) []place {
	var held []place
	for _, t := range sv.Status.Targets {
		held = append(held, placeOf(t))
	}
	if p, ok := intentOf(sv); ok && findTarget(sv.Status.Targets, p) == nil {
		held = append(held, p)
	}
	return held
}

func intentOf(sv *v1alpha1.GrafanaSecureValue) (place, bool) {
	return parsePlace(sv.Annotations[v1alpha1.AnnotationIntent])
}

// strayIntent returns the place that only the intent tells of, if that is not the wanted one. It must be noted in status before
// another intent takes its place.
func strayIntent(sv *v1alpha1.GrafanaSecureValue, wanted place) (place, bool) {
	p, ok := intentOf(sv)
	return p, ok && p != wanted && findTarget(sv.Status.Targets, p) == nil
}

// findTarget returns the record of a place, or nil.
func findTarget(targets []v1alpha1.TargetStatus, p place) *v1alpha1.TargetStatus {
	for i := range targets {
		if placeOf(targets[i]) == p {
			return &targets[i]
		}
	}
	return nil
}

// The marks that a secure value in Grafana carries.
const (
	labelCluster       = v1alpha1.GroupName + "/cluster"
	labelOwner         = v1alpha1.GroupName + "/owner"
	labelConnection    = v1alpha1.GroupName + "/connection"
	annotationResource = v1alpha1.GroupName + "/resource"

	// annotationManagedBy is set by other tools on what they manage, among them Terraform.
	annotationManagedBy = "grafana.app/managedBy"
)

// marks say in Grafana which object a value belongs to, and which connection it was written through.
type marks struct {
	cluster    string
	owner      string
	connection string
	resource   string
}

func marksOf(clusterID string, object types.NamespacedName, id connection.ID) marks {
	return marks{
		cluster:    clusterID,
		owner:      mark(clusterID, object.Namespace, object.Name),
		connection: mark(string(id.Kind), id.Namespace, id.Name),
		resource:   object.String(),
	}
}

// mark returns a label value made of the parts: the first 40 hex digits of their SHA-256, each part written with its length.
func mark(p ...string) string {
	h := sha256.New()
	parts.Write(h, p...)
	return hex.EncodeToString(h.Sum(nil))[:40]
}

// own reports whether found belongs to the object of these marks. What Grafana's own resources or another tool manage
// belongs to nobody here, whatever its labels say.
func (m marks) own(found *grafana.SecureValue) bool {
	return found.Labels[labelOwner] == m.owner && !managedElsewhere(found)
}

// complete reports whether found carries all of these marks.
func (m marks) complete(found *grafana.SecureValue) bool {
	return found.Labels[labelCluster] == m.cluster && found.Labels[labelOwner] == m.owner &&
		found.Labels[labelConnection] == m.connection && found.Annotations[annotationResource] == m.resource
}

// put writes the marks into sv and keeps its other labels and annotations.
func (m marks) put(sv *grafana.SecureValue) {
	if sv.Labels == nil {
		sv.Labels = map[string]string{}
	}
	if sv.Annotations == nil {
		sv.Annotations = map[string]string{}
	}
	sv.Labels[labelCluster] = m.cluster
	sv.Labels[labelOwner] = m.owner
	sv.Labels[labelConnection] = m.connection
	sv.Annotations[annotationResource] = m.resource
}

func managedElsewhere(found *grafana.SecureValue) bool {
	return found.Owned || found.Annotations[annotationManagedBy] != ""
}
