package v1alpha1

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Lengths are bounded by CEL rules in this package. MaxLength and MaxItems are
// wider bounds beside them that keep the rules cheap: the API server words a
// violated MaxLength in bytes, though it counts characters, and where either is
// violated it checks no rule and says so in a second complaint.

// DefaultDescription is the description of a secure value whose spec gives
// none.
const DefaultDescription = "Synced from Kubernetes"

// DefaultConnection is the name of the ClusterGrafanaConnection of a spec
// without connectionRef.
const DefaultConnection = "default"

// ConnectionKind is the kind of a connection.
//
// +kubebuilder:validation:Enum=GrafanaConnection;ClusterGrafanaConnection
type ConnectionKind string

const (
	// KindGrafanaConnection is a connection of the object's own namespace.
	KindGrafanaConnection ConnectionKind = "GrafanaConnection"
	// KindClusterGrafanaConnection is a connection that several namespaces share.
	KindClusterGrafanaConnection ConnectionKind = "ClusterGrafanaConnection"
)

// DeletionPolicy says what happens to the secure value in Grafana when this
// object no longer wants it there.
//
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the secure value from Grafana.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves the secure value in Grafana.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// DriftPolicy says what happens to a secure value that another writer has
// changed in Grafana.
//
// +kubebuilder:validation:Enum=Correct;Report
type DriftPolicy string

const (
	// DriftPolicyCorrect writes it again.
	DriftPolicyCorrect DriftPolicy = "Correct"
	// DriftPolicyReport reports it and leaves it alone.
	DriftPolicyReport DriftPolicy = "Report"
)

// AdoptionPolicy says what happens to a secure value that already exists in
// Grafana and that no object of this cluster owns.
//
// +kubebuilder:validation:Enum=Refuse;Adopt
type AdoptionPolicy string

const (
	// AdoptionPolicyRefuse leaves it alone.
	AdoptionPolicyRefuse AdoptionPolicy = "Refuse"
	// AdoptionPolicyAdopt takes it over, and overwrites its value.
	AdoptionPolicyAdopt AdoptionPolicy = "Adopt"
)

// ValueTransform changes the value on its way to Grafana.
//
// +kubebuilder:validation:Enum=TrimTrailingNewline;Base64Encode;Base64Decode
type ValueTransform string

const (
	// TransformTrimTrailingNewline removes one newline at the end, \n or \r\n, if
	// there is one.
	TransformTrimTrailingNewline ValueTransform = "TrimTrailingNewline"
	// TransformBase64Encode encodes the value as standard Base64 with padding.
	TransformBase64Encode ValueTransform = "Base64Encode"
	// TransformBase64Decode decodes standard Base64 with padding, and ignores line
	// breaks. What is not Base64 is refused (TransformFailed).
	TransformBase64Decode ValueTransform = "Base64Decode"
)

// MaxTransforms is the most transforms of a value.
const MaxTransforms = 8

// Bounds of a template.
const (
	// MaxTemplateSecrets is the most Secrets that a template reads.
	MaxTemplateSecrets = 8
	// MaxTemplateBytes is the longest text of a template.
	MaxTemplateBytes = 16 << 10
)

// ConnectionReference names a connection. It has no namespace: a
// GrafanaConnection is always that of the object's own namespace, and a
// ClusterGrafanaConnection has none.
//
// +structType=atomic
type ConnectionReference struct {
	// kind is the kind of the connection: GrafanaConnection, in the namespace of
	// this object, or ClusterGrafanaConnection, shared by the namespaces that it
	// allows. Defaults to GrafanaConnection where a name is given without a kind.
	//
	// +optional
	// +kubebuilder:default=GrafanaConnection
	Kind ConnectionKind `json:"kind,omitempty"`

	// name is the metadata.name of the connection: at most 253 lower-case
	// letters, digits, '-' and '.', for example prod.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a connection: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example prod"
	Name string `json:"name"`
}

// SecretReference names a Secret. It has no namespace, like a
// SecretKeyReference.
//
// +structType=atomic
type SecretReference struct {
	// name is the metadata.name of the Secret: at most 253 lower-case letters,
	// digits, '-' and '.', for example grafana-client.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example grafana-token"
	Name string `json:"name"`
}

// SecretKeyReference names a key of a Secret. It has no namespace: the object
// that names the Secret decides that, so nobody can read the Secrets of another
// namespace.
//
// +structType=atomic
type SecretKeyReference struct {
	// name is the metadata.name of the Secret: at most 253 lower-case letters,
	// digits, '-' and '.', for example grafana-token.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example grafana-token"
	Name string `json:"name"`

	// key is the key within the data of that Secret: at most 253 letters, digits,
	// '-', '_' and '.', for example token.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a key of a Secret: at most 253 letters, digits, '-', '_' and '.', not '.' and not beginning with '..', for example api-key"
	Key string `json:"key"`
}

// TemplateSecretReference names a Secret that a template reads, and the word by
// which the template names it. It has no namespace, like a SecretKeyReference.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="has(self.__as__) || self.name.matches('^[a-z][a-z0-9]*$')",message="must have as, for example as: app: the name of the Secret has a character that a template cannot name"
type TemplateSecretReference struct {
	// name is the metadata.name of the Secret: at most 253 lower-case letters,
	// digits, '-' and '.', for example app-config.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example grafana-token"
	Name string `json:"name"`

	// as is the word by which the template names the Secret: {{ .app.host }} is key
	// host of the Secret whose as is app. An identifier of Go: at most 63 letters,
	// digits and '_', not beginning with a digit. Defaults to name, and is required
	// where name has a '-' or '.' or begins with a digit.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 63 && self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",message="must be an identifier: at most 63 letters, digits and '_', not beginning with a digit, for example app"
	As string `json:"as,omitempty"`
}

// Alias is the word by which the template names the Secret: as, or the name
// where that is absent.
func (r TemplateSecretReference) Alias() string {
	if r.As != "" {
		return r.As
	}
	return r.Name
}

// ValueTemplate renders the value from the keys of several Secrets.
type ValueTemplate struct {
	// secretRefs are the Secrets that text reads, in the namespace of this object: 1
	// to 8, no two of the same as. All of them must exist. They hold at most 1 MiB
	// together. A change of any renders the value again; an equal result writes
	// nothing to Grafana. The list is replaced as a whole.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1 && size(self) <= 8",message="must name 1 to 8 Secrets"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, (has(a.__as__) ? a.__as__ : a.name) == (has(b.__as__) ? b.__as__ : b.name)))",message="must not have the same as twice: give one of them another as"
	SecretRefs []TemplateSecretReference `json:"secretRefs"`

	// text is a template of Go (text/template) of at most 16 KiB: {{ .db.user }} is
	// key user of the Secret whose as is db, {{ index .tls "tls.crt" }} a key that is
	// no identifier. It may use the functions that docs/values.md lists, and no
	// define, template or block. A key that is missing is SecretKeyNotFound, and
	// every other error TemplateInvalid, which names the line and never a value.
	//
	// +required
	// +kubebuilder:validation:MaxLength=65536
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1 && size(bytes(self)) <= 16384",message="must not be empty, and have at most 16 KiB"
	Text string `json:"text"`
}

// ValueSource says where the value comes from: exactly one of secretKeyRef and
// template. It is replaced as a whole.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="has(self.secretKeyRef) != has(self.template)",message="must have exactly one of secretKeyRef and template"
type ValueSource struct {
	// secretKeyRef names the Secret, in the namespace of this object, and the key
	// in it that has the value. The value is sent byte for byte, including a
	// newline at its end, unless transforms say otherwise, and must be 1 to 24,576
	// bytes of UTF-8. The token of a ServiceAccount and a release of Helm are
	// refused (SourceNotAllowed). A change of the Secret, or of this reference, is
	// written to Grafana at once. While the Secret or the key is missing or
	// unusable, Grafana keeps the last good value and Ready says why.
	//
	// +optional
	SecretKeyRef SecretKeyReference `json:"secretKeyRef,omitzero"`

	// template renders the value from the keys of 1 to 8 Secrets, in the namespace
	// of this object, for example a connection string of a user and a password. The
	// result must be 1 to 24,576 bytes of UTF-8. What holds for the Secret of
	// secretKeyRef holds for each of them: which are refused, that a change is
	// written at once, and that Grafana keeps the last good value while one of them
	// is missing or unusable.
	//
	// +optional
	Template *ValueTemplate `json:"template,omitempty"`
}

// Secrets are the names of the Secrets that the value comes from, each once.
func (s *ValueSource) Secrets() []string {
	if s.Template == nil {
		return []string{s.SecretKeyRef.Name}
	}
	names := make([]string, 0, len(s.Template.SecretRefs))
	for _, ref := range s.Template.SecretRefs {
		if !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	return names
}

// The bounds of freshness.maxAge, as in the schema.
const (
	// MinMaxAge is the shortest maxAge.
	MinMaxAge = time.Hour
	// MaxMaxAge is the longest maxAge: ten years.
	MaxMaxAge = 87600 * time.Hour
)

// Freshness says until when the value is fresh.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxAge) || has(self.expirationTime)",message="must give maxAge or expirationTime, or both: otherwise leave freshness out"
type Freshness struct {
	// maxAge is how long after status.lastRotationTime the value is fresh: 1h to
	// 87600h (ten years), written with h, m and s, for example 2160h for 90 days.
	// After that Fresh is False with reason Overdue, until the value is rotated.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self != '' && size(self) <= 32 && self.matches('^([0-9]{1,5}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?$') && duration(self) >= duration('1h') && duration(self) <= duration('87600h')",message="must be from 1h to 87600h, written with h, m and s in at most 32 characters, for example 2160h for 90 days"
	MaxAge string `json:"maxAge,omitempty"`

	// expirationTime is when the current value expires at its source, in RFC 3339,
	// for example 2027-01-31T00:00:00Z. From then on Fresh is False with reason
	// Expired, also where the value was rotated meanwhile: set the time at which
	// the new value expires. At most the year 2999.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=date-time
	// +kubebuilder:validation:Pattern=`^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|(\+|-)([01][0-9]|2[0-3]):[0-5][0-9])$`
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`
}

// Age returns maxAge. It reports false where maxAge is absent, or is none that
// the schema allows.
func (f *Freshness) Age() (time.Duration, bool) {
	age, err := time.ParseDuration(f.MaxAge)
	return age, err == nil && age >= MinMaxAge && age <= MaxMaxAge
}

// SecureValueSettings say how a value is written to Grafana, and what happens to
// it there: all of the spec of a GrafanaSecureValue but where the value comes
// from and where it goes.
type SecureValueSettings struct {
	// description says in Grafana what the value is for: 1 to 25 characters, where
	// an emoji of one code point counts as one. Absent: "Synced from Kubernetes",
	// but a value that adoptionPolicy takes over keeps its text. A change is
	// written to Grafana, which makes a new version of the secure value.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.matches(r'\\p{Cc}')",message="must not contain control characters, for example a line break"
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1 && size(self) <= 25",message="must be 1 to 25 characters: shorten it, or leave it out and Synced from Kubernetes is used"
	Description string `json:"description,omitempty"`

	// decrypters are the services of Grafana that may read the value: at most 64,
	// no two alike. Each is 1 to 63 letters, digits, '-', '_' and '.', with a
	// letter or digit at each end. Grafana knows synthetic-monitoring,
	// provisioning.grafana.app and k6-cloud, adds names over time, and accepts
	// names that it does not know: a misspelt one syncs and cannot decrypt.
	// Without decrypters no service can read the value. The list is replaced as a
	// whole; a change is written to Grafana, which makes a new version of the
	// secure value.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="size(self) <= 64",message="must have at most 64 decrypters"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="must not name a decrypter twice: remove the duplicate"
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:XValidation:rule="size(self) <= 63 && self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the name of a decrypter: 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at each end and no spaces, for example synthetic-monitoring"
	Decrypters []string `json:"decrypters,omitempty"`

	// transforms change the value on its way to Grafana, in this order: at most 8.
	// TrimTrailingNewline removes one newline at the end, \n or \r\n, if there is
	// one. Base64Encode encodes as standard Base64 with padding, which a value that
	// is not UTF-8 needs. Base64Decode decodes it, ignores line breaks, and refuses
	// everything else (TransformFailed). The value must be 1 to 24,576 bytes of UTF-8
	// after them: Base64Encode leaves room for 18,432. The list is replaced as a
	// whole.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) <= 8",message="must have at most 8 transforms"
	Transforms []ValueTransform `json:"transforms,omitempty"`

	// freshness says until when the value is fresh, which the condition Fresh
	// reports. It gives at least one of maxAge and expirationTime. It writes nothing
	// to Grafana, and Ready does not depend on it. Absent: no condition Fresh.
	//
	// +optional
	Freshness *Freshness `json:"freshness,omitempty"`

	// deletionPolicy says what happens to the secure value in Grafana when this
	// object is deleted, or moves away from it by a change of name or
	// connectionRef: Delete deletes it, and this object stays until Grafana has
	// confirmed that; Retain leaves it as it is. Where another object of the
	// namespace takes the value over, neither deletes it. A change is written to
	// Grafana as a label, which makes a new version of the secure value. Defaults
	// to Delete.
	//
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// adoptionPolicy says what happens to a secure value of that name that already
	// exists in Grafana without an owner label, or that belongs to the object of
	// this namespace and name in another cluster: Refuse leaves it alone and says
	// AlreadyExists; Adopt takes it over and overwrites its value. The object in
	// the other cluster then leaves it alone. What other objects own, and what
	// Grafana itself or another tool manages, is never taken over. A value whose
	// owner in this namespace is gone, or names another target now, is taken over
	// under either policy. Defaults to Refuse.
	//
	// +optional
	// +kubebuilder:default=Refuse
	AdoptionPolicy AdoptionPolicy `json:"adoptionPolicy,omitempty"`

	// driftPolicy says what happens to a secure value that another writer has
	// changed, overwritten or deleted in Grafana, which the resync of the
	// connection finds: Correct writes it again, once, with a Warning event, and
	// after three corrections within an hour behaves like Report; Report says
	// Drifted and leaves it alone. Under either, a change of the Secret or spec and
	// a new grafana.securevalues.io/sync-now are written. Defaults to Correct.
	//
	// +optional
	// +kubebuilder:default=Correct
	DriftPolicy DriftPolicy `json:"driftPolicy,omitempty"`

	// suspend pauses this object: nothing is read or written, except to delete it,
	// until suspend is false again. The operator then catches up. Ready keeps its
	// status and says Suspended. Defaults to false.
	//
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// GrafanaSecureValueSpec is the desired state of a GrafanaSecureValue.
type GrafanaSecureValueSpec struct {
	// connectionRef names the connection through which the value is written: which
	// Grafana, and with which credentials. Absent: the ClusterGrafanaConnection
	// called default; status.desired shows it. After a change the value is written
	// through the new connection first. Only then is the old value deleted, or
	// retained by deletionPolicy.
	//
	// +optional
	ConnectionRef ConnectionReference `json:"connectionRef,omitzero"`

	// name is the name of the secure value in Grafana, by which others refer to it
	// there. Defaults to metadata.name. At most 253 lower-case letters, digits,
	// '-' and '.', with a letter or digit at each end, for example sm-api-key.
	// After a change the value is written under the new name first. Only then is
	// the old value deleted, or retained by deletionPolicy.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a name that Grafana takes: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example sm-api-key; or leave it out, and metadata.name is used"
	Name string `json:"name,omitempty"`

	// valueFrom says where the value comes from: a key of a Secret (secretKeyRef), or
	// a template of the keys of several Secrets (template). Exactly one of them.
	//
	// +required
	ValueFrom ValueSource `json:"valueFrom"`

	SecureValueSettings `json:",inline"`
}

// SourceStatus is the Secret and key whose value is known to be in Grafana.
type SourceStatus struct {
	// name is the name of the Secret.
	//
	// +required
	Name string `json:"name"`

	// key is the key within the Secret.
	//
	// +required
	Key string `json:"key"`

	// uid is the UID of the Secret. A recreated Secret has another one.
	//
	// +required
	UID types.UID `json:"uid"`

	// resourceVersion is that of the Secret when its value was read.
	//
	// +required
	ResourceVersion string `json:"resourceVersion"`
}

// SecretStatus is a Secret that a template read for the value that is known to
// be in Grafana.
type SecretStatus struct {
	// name is the name of the Secret.
	//
	// +required
	Name string `json:"name"`

	// uid is the UID of the Secret. A recreated Secret has another one.
	//
	// +required
	UID types.UID `json:"uid"`

	// resourceVersion is that of the Secret when the value was rendered.
	//
	// +required
	ResourceVersion string `json:"resourceVersion"`
}

// TargetStatus is a target in Grafana that the object owns.
type TargetStatus struct {
	// connection is the connection through which the target was written.
	//
	// +required
	Connection ConnectionReference `json:"connection"`

	// namespace is the namespace in Grafana, for example stacks-1234.
	//
	// +required
	Namespace string `json:"namespace"`

	// name is the name of the secure value in Grafana.
	//
	// +required
	Name string `json:"name"`

	// version is the version that Grafana answered to the operator's last write.
	// Grafana increments it with each write, so a different version there means
	// another writer.
	//
	// +optional
	Version int64 `json:"version,omitempty"`

	// createdAt is when Grafana created the secure value. Another time there means
	// that it was deleted and recreated.
	//
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`

	// generation is the metadata.generation whose spec was last written to Grafana,
	// or found there.
	//
	// +optional
	Generation int64 `json:"generation,omitempty"`

	// source is the Secret and key whose value is known to be in Grafana. It
	// changes only after a write that Grafana accepted, or when a changed Secret
	// is found to hold the same value. Absent where the value comes from a template.
	//
	// +optional
	Source *SourceStatus `json:"source,omitempty"`

	// sources are the Secrets of the template whose result is known to be in Grafana,
	// in the order of spec. They change as source does, which they replace.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Sources []SecretStatus `json:"sources,omitempty"`

	// recipe is a hash of the template and the transforms of spec that made the value.
	// Once the fingerprint key is lost, it shows whether unchanged Secrets still make
	// the same value. Absent where spec has neither.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Recipe string `json:"recipe,omitempty"`

	// fingerprint is a keyed hash of the value in Grafana. It shows the operator
	// that a changed Secret still has the same value. Without the operator's key
	// nothing can be learnt from it.
	//
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`

	// lastWriteTime is when the operator last wrote to Grafana.
	//
	// +optional
	LastWriteTime *metav1.Time `json:"lastWriteTime,omitempty"`

	// descriptionKept is whether the value keeps the description that it had in
	// Grafana when it was adopted, because spec gives none.
	//
	// +optional
	DescriptionKept bool `json:"descriptionKept,omitempty"`
}

// IsWritten reports whether the record says that the target was written, or
// found as it shall be, rather than that it may have been.
func (t *TargetStatus) IsWritten() bool {
	return t != nil && (t.Source != nil || len(t.Sources) > 0)
}

// DesiredStatus is the connection and the name that spec resolves to.
type DesiredStatus struct {
	// connection is spec.connectionRef, or the ClusterGrafanaConnection called
	// default where that is absent.
	//
	// +required
	Connection ConnectionReference `json:"connection"`

	// name is spec.name, or metadata.name where that is absent.
	//
	// +required
	Name string `json:"name"`
}

// GrafanaSecureValueStatus is the observed state of a GrafanaSecureValue.
type GrafanaSecureValueStatus struct {
	// observedGeneration is the metadata.generation that the conditions describe;
	// -1 before the first reconcile. The conditions are up to date only if it
	// equals metadata.generation.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions has Ready after the first reconcile: its reason is a word from a
	// documented list, and its message says what to do next. It also has
	// Reconciling while the operator retries or waits for something that it
	// watches, or Stalled while a person has to act; never both. With
	// spec.freshness it has Fresh: True while the value is fresh, False when it is
	// Overdue or Expired, Unknown before the first write to Grafana.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// targets are the targets in Grafana that this object owns. The first is the
	// one that spec names, once it was written; the others are old ones that are
	// not released yet.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Targets []TargetStatus `json:"targets,omitempty"`

	// desired is what spec resolves to: the connection, and the name of the secure
	// value in Grafana. The first target is the same once it was written.
	//
	// +optional
	Desired *DesiredStatus `json:"desired,omitempty"`

	// lastRotationTime is when Grafana last accepted a value that differed because
	// its source differed; the first write counts. A correction of drift, sync-now,
	// a move, and an edit of description or decrypters do not change it.
	//
	// +optional
	LastRotationTime *metav1.Time `json:"lastRotationTime,omitempty"`

	// lastSyncNow is the content of the annotation
	// grafana.securevalues.io/sync-now that was last answered by a write to
	// Grafana.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	LastSyncNow string `json:"lastSyncNow,omitempty"`
}

// MaxTargets is the most targets that an object can own or have pending.
const MaxTargets = 16

// GrafanaSecureValue keeps a secure value of Grafana's Secrets Management API
// in sync with a key of a Secret, or with a template of several: the operator
// creates, updates and deletes it in Grafana as they and this object change.
// Example:
//
//	apiVersion: grafana.securevalues.io/v1alpha1
//	kind: GrafanaSecureValue
//	metadata: {name: sm-api-key, namespace: team-a}
//	spec:
//	  connectionRef: {name: prod}
//	  description: External API key
//	  decrypters: [synthetic-monitoring]
//	  valueFrom:
//	    secretKeyRef: {name: sm, key: api-key}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=grafanasecurevalues,scope=Namespaced,shortName=gsv,categories=secure-values
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether Grafana holds what the spec and the Secret say"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="The reason of Ready"
// +kubebuilder:printcolumn:name="Connection",type=string,JSONPath=`.status.desired.connection.name`,description="The connection that the spec resolves to"
// +kubebuilder:printcolumn:name="Secure Value",type=string,JSONPath=`.status.desired.name`,description="The name of the secure value in Grafana"
// +kubebuilder:printcolumn:name="Version",type=integer,JSONPath=`.status.targets[0].version`,description="The version that Grafana answered to the last write"
// +kubebuilder:printcolumn:name="Last Write",type=date,JSONPath=`.status.targets[0].lastWriteTime`,description="How long ago the operator last wrote to Grafana"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Connection Kind",type=string,JSONPath=`.status.desired.connection.kind`,priority=1,description="The kind of the connection"
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.spec.valueFrom.secretKeyRef.name`,priority=1,description="The Secret that holds the value"
// +kubebuilder:printcolumn:name="Key",type=string,JSONPath=`.spec.valueFrom.secretKeyRef.key`,priority=1,description="The key within the Secret"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="The message of Ready: what is true, and what to do next"
type GrafanaSecureValue struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of a Kubernetes object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the desired state of the secure value in Grafana.
	//
	// +required
	Spec GrafanaSecureValueSpec `json:"spec"`

	// status is what is known to be in Grafana. Only the operator writes it.
	//
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status GrafanaSecureValueStatus `json:"status,omitzero"`
}

// ConnectionOrDefault is the connection that the spec resolves to:
// connectionRef, or the ClusterGrafanaConnection called default where that is
// absent. No schema stores it: a stored default would merge with a later
// manifest into a third meaning.
func (sv *GrafanaSecureValue) ConnectionOrDefault() ConnectionReference {
	if sv.Spec.ConnectionRef != (ConnectionReference{}) {
		return sv.Spec.ConnectionRef
	}
	return ConnectionReference{Kind: KindClusterGrafanaConnection, Name: DefaultConnection}
}

// SecureValueName is the name of the secure value in Grafana: spec.name, or
// metadata.name where that is absent.
func (sv *GrafanaSecureValue) SecureValueName() string {
	if sv.Spec.Name != "" {
		return sv.Spec.Name
	}
	return sv.Name
}

// DescriptionOrDefault is the description of the secure value in Grafana,
// which cannot be empty there.
func (sv *GrafanaSecureValue) DescriptionOrDefault() string {
	if sv.Spec.Description != "" {
		return sv.Spec.Description
	}
	return DefaultDescription
}

// GrafanaSecureValueList is a list of GrafanaSecureValue.
//
// +kubebuilder:object:root=true
type GrafanaSecureValueList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []GrafanaSecureValue `json:"items"`
}
