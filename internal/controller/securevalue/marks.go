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
	object     types.NamespacedName
}

func marksOf(clusterID string, object types.NamespacedName, id connection.ID) marks {
	return marks{
		cluster:    clusterID,
		owner:      mark(clusterID, object.Namespace, object.Name),
		connection: connectionMark(id),
		object:     object,
	}
}

func connectionMark(id connection.ID) string { return mark(string(id.Kind), id.Namespace, id.Name) }

// mark returns a label value made of the parts: the first 40 hex digits of their SHA-256, each part written with its length.
func mark(p ...string) string {
	h := sha256.New()
	parts.Write(h, p...)
	return hex.EncodeToString(h.Sum(nil))[:40]
}

// owner is who a value in Grafana belongs to, as seen by one object.
type owner string

const (
	own       owner = "own"       // to the object itself
	unmarked  owner = "unmarked"  // to nobody who marks: somebody made it in Grafana
	managed   owner = "managed"   // to a resource of Grafana's own or another tool, whatever else it carries
	twin      owner = "twin"      // to the object of the same namespace and name in another cluster
	resident  owner = "resident"  // to another object of this cluster, which the value names and which may be gone
	leaver    owner = "leaver"    // to a resident that wants another place by now, and has not let go of this one yet
	stranger  owner = "stranger"  // to an object of another cluster, or it lies about whose it is
	vacated   owner = "vacated"   // to a resident of the same namespace that is gone or has left it
	abandoned owner = "abandoned" // the same, of another namespace
)

// ownerOf tells from the marks alone whose found is. Of a resident it also returns the name.
func (m marks) ownerOf(found *grafana.SecureValue) (owner, types.NamespacedName) {
	cluster, mine := found.Labels[labelCluster], found.Labels[labelOwner]
	resource, hashes := residentOf(found.Labels, found.Annotations)
	switch {
	case managedElsewhere(found):
		return managed, types.NamespacedName{}
	case mine == m.owner:
		return own, types.NamespacedName{}
	case cluster == "" && mine == "":
		return unmarked, types.NamespacedName{}
	case cluster != m.cluster && mine == mark(cluster, m.object.Namespace, m.object.Name):
		return twin, types.NamespacedName{}
	case cluster == m.cluster && hashes:
		return resident, resource
	default:
		return stranger, types.NamespacedName{}
	}
}

// residentOf returns the object that the resource annotation of a value names, and whether that hashes to the owner label.
func residentOf(labels, annotations map[string]string) (types.NamespacedName, bool) {
	namespace, name, _ := strings.Cut(annotations[annotationResource], "/")
	object := types.NamespacedName{Namespace: namespace, Name: name}
	return object, labels[labelOwner] == mark(labels[labelCluster], namespace, name)
}

// labelled reports whether these are the labels of these marks.
func (m marks) labelled(labels map[string]string) bool {
	return labels[labelCluster] == m.cluster && labels[labelOwner] == m.owner && labels[labelConnection] == m.connection
}

// complete reports whether labels and annotations of a value hold all of these marks.
func (m marks) complete(labels, annotations map[string]string) bool {
	return m.labelled(labels) && annotations[annotationResource] == m.object.String()
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
	sv.Annotations[annotationResource] = m.object.String()
}

func managedElsewhere(found *grafana.SecureValue) bool {
	return found.Owned || found.Annotations[annotationManagedBy] != ""
}
