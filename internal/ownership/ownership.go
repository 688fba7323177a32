// Package ownership says which object owns a secure value in Grafana, and which targets an object names, owns or has pending.
// It makes no calls and keeps no state.
package ownership

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Connection names a connection from any namespace. Namespace is empty for a ClusterGrafanaConnection.
type Connection struct {
	Kind      v1alpha1.ConnectionKind
	Namespace string
	Name      string
}

// ConnectionOf returns the connection that an object of the given namespace means by ref.
func ConnectionOf(ref v1alpha1.ConnectionReference, namespace string) Connection {
	if ref.Kind == v1alpha1.KindClusterGrafanaConnection {
		namespace = ""
	}
	return Connection{Kind: ref.Kind, Namespace: namespace, Name: ref.Name}
}

func (c Connection) String() string { return fmt.Sprintf("%s %q", c.Kind, c.Name) }

// Key is the connection as a key of an index.
func (c Connection) Key() string { return string(c.Kind) + "/" + c.Namespace + "/" + c.Name }

// Object is the namespace and name of the connection.
func (c Connection) Object() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// Target is a secure value as an object names it: a connection, a namespace of Grafana, and a name there.
type Target struct {
	Connection v1alpha1.ConnectionReference
	Namespace  string
	Name       string
}

// TargetOf returns the target of a record in status.
func TargetOf(t v1alpha1.TargetStatus) Target {
	return Target{Connection: t.Connection, Namespace: t.Namespace, Name: t.Name}
}

// String is the form of the target in the annotation of pending targets.
func (t Target) String() string {
	return strings.Join([]string{string(t.Connection.Kind), t.Connection.Name, t.Namespace, t.Name}, "/")
}

// grafanaNamespace is what the schema allows as the namespace of a connection.
var grafanaNamespace = regexp.MustCompile(`^(default|(org|stacks)-[1-9][0-9]{0,17})$`)

func parseTarget(s string) (Target, bool) {
	f := strings.Split(s, "/")
	if len(f) != 4 {
		return Target{}, false
	}
	t := Target{Connection: v1alpha1.ConnectionReference{Kind: v1alpha1.ConnectionKind(f[0]), Name: f[1]}, Namespace: f[2], Name: f[3]}
	known := t.Connection.Kind == v1alpha1.KindGrafanaConnection || t.Connection.Kind == v1alpha1.KindClusterGrafanaConnection
	return t, known && isName(t.Connection.Name) && grafanaNamespace.MatchString(t.Namespace) && isName(t.Name)
}

func isName(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// Pending returns the pending targets of an object, each once, of the first MaxTargets entries. Whoever may edit the object may edit the
// annotation: what no object could name is ignored.
func Pending(sv *v1alpha1.GrafanaSecureValue) []Target {
	var pending []Target
	entries := strings.SplitN(sv.Annotations[v1alpha1.AnnotationPendingTargets], ",", v1alpha1.MaxTargets+1)
	for _, s := range entries[:min(len(entries), v1alpha1.MaxTargets)] {
		if t, ok := parseTarget(strings.TrimSpace(s)); ok && !slices.Contains(pending, t) {
			pending = append(pending, t)
		}
	}
	return pending
}

// FormatPending returns the annotation of pending targets.
func FormatPending(pending []Target) string {
	parts := make([]string, len(pending))
	for i, t := range pending {
		parts[i] = t.String()
	}
	return strings.Join(parts, ",")
}

// IsReleased reports whether an object is being deleted and the operator's part of that is done. Whatever it still says, it names and
// owns nothing.
func IsReleased(sv *v1alpha1.GrafanaSecureValue) bool {
	return !sv.DeletionTimestamp.IsZero() && !slices.Contains(sv.Finalizers, v1alpha1.Finalizer)
}

// Targets returns every target that an object owns or has pending, each once: those of status first.
func Targets(sv *v1alpha1.GrafanaSecureValue) []Target {
	if IsReleased(sv) {
		return nil
	}
	var targets []Target
	for _, t := range sv.Status.Targets {
		targets = append(targets, TargetOf(t))
	}
	for _, t := range Pending(sv) {
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	return targets
}

// Record returns what status says of a target, or nil.
func Record(targets []v1alpha1.TargetStatus, t Target) *v1alpha1.TargetStatus {
	for i := range targets {
		if TargetOf(targets[i]) == t {
			return &targets[i]
		}
	}
	return nil
}

// Names returns the names in Grafana that an object names, owns or has pending, each once: that of spec first.
func Names(sv *v1alpha1.GrafanaSecureValue) []string {
	if IsReleased(sv) {
		return nil
	}
	names := []string{sv.SecureValueName()}
	for _, t := range Targets(sv) {
		if !slices.Contains(names, t.Name) {
			names = append(names, t.Name)
		}
	}
	return names
}

// Uses reports whether an object names, owns or has pending a secure value of that name. A value with its owner label that it does not use is
// orphaned.
func Uses(sv *v1alpha1.GrafanaSecureValue, name string) bool { return slices.Contains(Names(sv), name) }

// Concerns reports whether a listed secure value has an owner label of this cluster that the users of the connection may know of: on a
// connection of one namespace nothing is looked up of others.
func (c Connection) Concerns(cluster string, found *grafana.SecureValue) bool {
	return found.Labels[LabelCluster] == cluster &&
		(c.Namespace == "" || OfNamespace(found.Labels[LabelOwner], cluster, c.Namespace))
}

// Connections returns the connections that an object names, owns a value through or has pending, each once: that of spec first.
func Connections(sv *v1alpha1.GrafanaSecureValue) []Connection {
	if IsReleased(sv) {
		return nil
	}
	connections := []Connection{ConnectionOf(sv.ConnectionOrDefault(), sv.Namespace)}
	for _, t := range Targets(sv) {
		if c := ConnectionOf(t.Connection, sv.Namespace); !slices.Contains(connections, c) {
			connections = append(connections, c)
		}
	}
	return connections
}

// WrittenThrough returns the names of the secure values that status says the object wrote through the connection.
func WrittenThrough(c Connection, sv *v1alpha1.GrafanaSecureValue) []string {
	var names []string
	for _, t := range sv.Status.Targets {
		if t.IsWritten() && !IsReleased(sv) && ConnectionOf(t.Connection, sv.Namespace) == c {
			names = append(names, t.Name)
		}
	}
	return names
}

// Place is what a target resolves to, the same for all connections to one Grafana.
type Place struct{ Server, Namespace, Name string }

// The owner labels of a secure value. Their keys have no "/", which the form of Grafana's Synthetic Monitoring app does not accept: a
// person could not save a value there any more.
const (
	LabelCluster    = "securevalues.io.cluster"
	LabelOwner      = "securevalues.io.owner"
	LabelConnection = "securevalues.io.connection"
	LabelRetain     = "securevalues.io.retain" // present under deletionPolicy Retain
)

// AnnotationResource names the owner for users. Nothing is decided by it: other writers drop annotations.
const AnnotationResource = "grafana.securevalues.io/resource"

// annotationManagedBy is set by other tools on what they manage, Terraform among them.
const annotationManagedBy = "grafana.app/managedBy"

// Lengths of the hashes in labels, in hexadecimal digits. Grafana's form accepts 63 characters.
const (
	ownerDigits      = 24
	connectionDigits = 40
)

// Labels are the owner labels of one object for one connection.
type Labels struct {
	Cluster    string
	Object     types.NamespacedName
	Connection Connection
	Retain     bool
}

// LabelsOf returns the owner labels of what an object writes through the connection that it means by ref.
func LabelsOf(cluster string, sv *v1alpha1.GrafanaSecureValue, ref v1alpha1.ConnectionReference) Labels {
	return Labels{
		Cluster: cluster, Object: types.NamespacedName{Namespace: sv.Namespace, Name: sv.Name},
		Connection: ConnectionOf(ref, sv.Namespace), Retain: sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain,
	}
}

// OwnerLabel returns the owner label of an object: a hash of its namespace, a dot, and a hash of its namespace and name.
func OwnerLabel(cluster string, object types.NamespacedName) string {
	return NamespaceLabel(cluster, object.Namespace) + "." + digest(ownerDigits, cluster, object.Namespace, object.Name)
}

// NamespaceLabel returns the part before the dot of the owner labels of all objects of a namespace.
func NamespaceLabel(cluster, namespace string) string { return digest(ownerDigits, cluster, namespace) }

// Label returns the connection label.
func (c Connection) Label() string {
	return digest(connectionDigits, string(c.Kind), c.Namespace, c.Name)
}

func digest(digits int, parts ...string) string {
	h := sha256.New()
	fingerprint.WriteParts(h, parts...)
	return hex.EncodeToString(h.Sum(nil))[:digits]
}

// Match reports whether the labels of a secure value are these.
func (l Labels) Match(labels map[string]string) bool {
	_, retain := labels[LabelRetain]
	return labels[LabelCluster] == l.Cluster && labels[LabelOwner] == OwnerLabel(l.Cluster, l.Object) &&
		labels[LabelConnection] == l.Connection.Label() && retain == l.Retain
}

// Intact reports whether Grafana shows a secure value with these labels, description and decrypters, in any order, as it was when it was
// recorded. A version or creation time other than the recorded one says that another writer was there; 0 and nil are not known.
func (l Labels) Intact(found *grafana.SecureValue, record *v1alpha1.TargetStatus, description string, decrypters []string) bool {
	return (found.Version == 0 || found.Version == record.Version) && SameAge(found, record) && found.Description == description &&
		slices.Equal(slices.Sorted(slices.Values(found.Decrypters)), slices.Sorted(slices.Values(decrypters))) && l.Match(found.Labels)
}

// SameAge reports whether a secure value was created when the recorded one was, as far as both are known. Grafana counts seconds.
func SameAge(found *grafana.SecureValue, record *v1alpha1.TargetStatus) bool {
	return found.CreatedAt.IsZero() || record == nil || record.CreatedAt == nil || found.CreatedAt.Unix() == record.CreatedAt.Unix()
}

// Put writes the labels, and the annotation for users, into sv and keeps what else it carries.
func (l Labels) Put(sv *grafana.SecureValue) {
	if sv.Labels == nil {
		sv.Labels = map[string]string{}
	}
	if sv.Annotations == nil {
		sv.Annotations = map[string]string{}
	}
	sv.Labels[LabelCluster] = l.Cluster
	sv.Labels[LabelOwner] = OwnerLabel(l.Cluster, l.Object)
	sv.Labels[LabelConnection] = l.Connection.Label()
	delete(sv.Labels, LabelRetain)
	if l.Retain {
		sv.Labels[LabelRetain] = "true"
	}
	sv.Annotations[AnnotationResource] = l.Object.String()
}

// Owner is what the labels of a secure value say of its owner, as seen by one object.
type Owner string

// The owners that labels distinguish.
const (
	Self         Owner = "self"         // the object itself
	Sibling      Owner = "sibling"      // another object of its cluster and namespace, which may be gone
	OtherCluster Owner = "otherCluster" // the object of its namespace and name in another cluster
	Nobody       Owner = "nobody"       // no owner labels
	Managed      Owner = "managed"      // a resource of Grafana's own, or another tool, whatever the labels say
	Foreign      Owner = "foreign"      // anything else
)

// OwnerOf reads the owner of a secure value from its labels.
func (l Labels) OwnerOf(found *grafana.SecureValue) Owner {
	cluster, owner := found.Labels[LabelCluster], found.Labels[LabelOwner]
	switch {
	case found.Owned || found.Annotations[annotationManagedBy] != "":
		return Managed
	case owner == OwnerLabel(l.Cluster, l.Object):
		return Self
	case cluster == "" && owner == "":
		return Nobody
	case OfNamespace(owner, l.Cluster, l.Object.Namespace):
		return Sibling
	case cluster != l.Cluster && owner == OwnerLabel(cluster, l.Object):
		return OtherCluster
	default:
		return Foreign
	}
}

// OfNamespace reports whether an owner label is one of an object of that namespace.
func OfNamespace(owner, cluster, namespace string) bool {
	return len(owner) == 2*ownerDigits+1 && owner[:ownerDigits+1] == NamespaceLabel(cluster, namespace)+"."
}
