package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KindGrafanaSecureValueSet is the kind of a set.
const KindGrafanaSecureValueSet = "GrafanaSecureValueSet"

// DefaultNameTemplate is the nameTemplate of a set that gives none.
const DefaultNameTemplate = "{{ .Secret }}-{{ .Key | dnsName }}"

// Bounds of a set.
const (
	// MaxSecureValues is the most GrafanaSecureValues that a set makes.
	MaxSecureValues = 1000
	// MaxSetNameLength is the longest name of a set, which is a label value of what
	// it makes.
	MaxSetNameLength = 63
	// MaxFailures is the most failures that the status of a set names.
	MaxFailures = 16
)

// PrunePolicy says what happens to a GrafanaSecureValue of a set that the set no
// longer selects.
//
// +kubebuilder:validation:Enum=Retain;Delete
type PrunePolicy string

const (
	// PrunePolicyRetain keeps it, and it is counted as stale.
	PrunePolicyRetain PrunePolicy = "Retain"
	// PrunePolicyDelete deletes it, and its value in Grafana by its deletionPolicy.
	PrunePolicyDelete PrunePolicy = "Delete"
)

// SecretSelection selects Secrets of the namespace of the set: exactly one of
// names and selector.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) != has(self.selector)",message="must have exactly one of names and selector"
type SecretSelection struct {
	// names are the names of the Secrets: 1 to 100, no two alike. One that does not
	// exist yet is waited for. While one that existed is missing, Grafana keeps its
	// values. The list is replaced as a whole.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1 && size(self) <= 100",message="must name 1 to 100 Secrets"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="must not name a Secret twice: remove the duplicate"
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example grafana-token"
	Names []string `json:"names,omitempty"`

	// selector selects Secrets by their labels: at most 64 labels and 64 expressions.
	// An empty selector selects all of the namespace. The token of a ServiceAccount, a
	// release of Helm and the operator's fingerprint key are not selected. While no
	// Secret matches, everything stays as it is and Ready says NothingSelected.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || size(self.matchLabels) <= 64",message="must have at most 64 labels",fieldPath=".matchLabels"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || size(self.matchExpressions) <= 64",message="must have at most 64 expressions",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="must use the operators In, NotIn, Exists or DoesNotExist",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['Exists', 'DoesNotExist']) != (has(e.values) && size(e.values) > 0))",message="must have values with In and NotIn, and none with Exists and DoesNotExist",fieldPath=".matchExpressions"
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// KeySelection selects keys of Secrets by globs, in which * stands for any
// characters and ? for one.
type KeySelection struct {
	// include are globs of the keys that are selected, for example SM_*:
	// at most 16, each with at most four *.
	// Absent or empty: all keys. The list is replaced as a whole.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) <= 16",message="must have at most 16 globs"
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule="size(self) <= 253 && self.matches('^[-._a-zA-Z0-9?]*([*][-._a-zA-Z0-9?]*){0,4}$') && self != ''",message="must be a glob of keys: 1 to 253 letters, digits, '-', '_', '.', '?' and at most four '*', for example SM_*"
	Include []string `json:"include,omitempty"`

	// exclude are globs of keys that are not selected, though include has them: at
	// most 16, each with at most four *. The list is replaced as a whole.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) <= 16",message="must have at most 16 globs"
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule="size(self) <= 253 && self.matches('^[-._a-zA-Z0-9?]*([*][-._a-zA-Z0-9?]*){0,4}$') && self != ''",message="must be a glob of keys: 1 to 253 letters, digits, '-', '_', '.', '?' and at most four '*', for example *_OLD"
	Exclude []string `json:"exclude,omitempty"`
}

// ConnectionSelection selects connections of one kind: exactly one of name and
// selector. It has no namespace, like a ConnectionReference.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.selector)",message="must have exactly one of name and selector"
type ConnectionSelection struct {
	// kind is the kind of the connections: GrafanaConnection, in the namespace of the
	// set, or ClusterGrafanaConnection, shared by the namespaces that it allows.
	// Defaults to GrafanaConnection.
	//
	// +optional
	// +kubebuilder:default=GrafanaConnection
	Kind ConnectionKind `json:"kind,omitempty"`

	// name is the metadata.name of one connection: at most 253 lower-case letters,
	// digits, '-' and '.', for example prod. It need not exist yet.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a connection: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example prod"
	Name string `json:"name,omitempty"`

	// selector selects connections by their labels: at most 64 labels and 64
	// expressions. An empty selector selects all of the kind. Of the
	// ClusterGrafanaConnections only those are selected that allow the namespace of
	// the set. While none matches, everything stays as it is and Ready says
	// NothingSelected.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || size(self.matchLabels) <= 64",message="must have at most 64 labels",fieldPath=".matchLabels"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || size(self.matchExpressions) <= 64",message="must have at most 64 expressions",fieldPath=".matchExpressions"
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// SecureValueMetadata is metadata of each GrafanaSecureValue of a set.
type SecureValueMetadata struct {
	// labels of each GrafanaSecureValue: at most 16. Keys that begin with
	// grafana.securevalues.io/ belong to the operator.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="must have keys that Kubernetes takes: 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at each end, for example team; a domain and a slash may stand before them"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('grafana.securevalues.io/'))",message="must not have a key that begins with grafana.securevalues.io/, which belongs to the operator: remove it"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations of each GrafanaSecureValue: at most 16, of at most 512 bytes.
	// Of the keys that begin with grafana.securevalues.io/ only sync-now is allowed,
	// with which all values are written once more.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="must have keys that Kubernetes takes: 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at each end, for example team; a domain and a slash may stand before them"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('grafana.securevalues.io/') || k == 'grafana.securevalues.io/sync-now')",message="must not have a key that begins with grafana.securevalues.io/ other than sync-now: they belong to the operator"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}

// LabelValue is the value of a label: at most 63 characters.
//
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="size(self) <= 63 && self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="must be the value of a label: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at each end, or empty"
type LabelValue string

// AnnotationValue is the value of an annotation: at most 512 bytes.
//
// +kubebuilder:validation:MaxLength=8192
// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 512",message="must have at most 0.5 KiB: 512 characters of ASCII"
type AnnotationValue string

// SecureValueTemplate is what the GrafanaSecureValues of a set have in common.
type SecureValueTemplate struct {
	// metadata has labels and annotations for each GrafanaSecureValue.
	//
	// +optional
	Metadata SecureValueMetadata `json:"metadata,omitzero"`

	// spec is the spec of each GrafanaSecureValue, without valueFrom, connectionRef
	// and name, which the set makes.
	//
	// +optional
	Spec SecureValueSettings `json:"spec,omitzero"`
}

// GrafanaSecureValueSetSpec is the desired state of a GrafanaSecureValueSet.
type GrafanaSecureValueSetSpec struct {
	// secrets selects the Secrets, in the namespace of this object: exactly one of
	// names and selector.
	//
	// +required
	Secrets SecretSelection `json:"secrets"`

	// keys selects keys of these Secrets by globs. Absent: all keys.
	//
	// +optional
	Keys KeySelection `json:"keys,omitzero"`

	// connectionRefs select the connections through which each key is written, one
	// GrafanaSecureValue for each: at most 16 entries. Absent or empty: the
	// ClusterGrafanaConnection called default. The list is replaced as a whole.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="size(self) <= 16",message="must have at most 16 entries: select connections by labels instead"
	ConnectionRefs []ConnectionSelection `json:"connectionRefs,omitempty"`

	// nameTemplate is a template of Go (text/template) of at most 1,024 characters
	// that makes the name in Grafana. It reads .Secret, .Key, .Namespace and
	// .Connection, which are names, and may use the functions that docs/values.md
	// lists: dnsName makes a valid name of any text. Two keys with one name in one
	// Grafana are refused (NameCollision). A change moves each value to its new name.
	//
	// +optional
	// +kubebuilder:default="{{ .Secret }}-{{ .Key | dnsName }}"
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1 && size(self) <= 1024",message="must be 1 to 1,024 characters, for example {{ .Secret }}-{{ .Key | dnsName }}"
	NameTemplate string `json:"nameTemplate,omitempty"`

	// template is what each GrafanaSecureValue has: labels, annotations, and its spec
	// without valueFrom, connectionRef and name. A change is applied to all.
	//
	// +optional
	Template SecureValueTemplate `json:"template,omitzero"`

	// prunePolicy says what happens to a GrafanaSecureValue that is no longer
	// selected: Retain keeps it, in sync with its Secret, and counts it as stale;
	// Delete deletes it, and its value in Grafana by its deletionPolicy. While its
	// Secret or connection is missing, or a selector matches nothing, it stays in
	// either case. Defaults to Retain.
	//
	// +optional
	// +kubebuilder:default=Retain
	PrunePolicy PrunePolicy `json:"prunePolicy,omitempty"`

	// suspend pauses this object: no GrafanaSecureValue is created, changed or pruned
	// until suspend is false again. Those that exist keep syncing: template.spec.suspend
	// pauses them. Defaults to false.
	//
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// SecureValueCounts counts the GrafanaSecureValues of a set.
type SecureValueCounts struct {
	// desired is how many the set selects.
	//
	// +required
	Desired int32 `json:"desired"`

	// ready is how many of these are Ready.
	//
	// +required
	Ready int32 `json:"ready"`

	// failed is how many of these are not Ready, and say why.
	//
	// +required
	Failed int32 `json:"failed"`

	// stale is how many others exist that the set no longer selects.
	//
	// +required
	Stale int32 `json:"stale"`
}

// SecureValueFailure is a GrafanaSecureValue that is not Ready.
type SecureValueFailure struct {
	// name is the metadata.name of the GrafanaSecureValue.
	//
	// +required
	Name string `json:"name"`

	// reason is the reason of its Ready.
	//
	// +required
	Reason string `json:"reason"`
}

// GrafanaSecureValueSetStatus is the observed state of a GrafanaSecureValueSet.
type GrafanaSecureValueSetStatus struct {
	// observedGeneration is the metadata.generation that the conditions describe;
	// -1 before the first reconcile. The conditions are up to date only if it
	// equals metadata.generation.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions has Ready after the first reconcile: its reason is a word from a
	// documented list, and its message says what to do next. It also has
	// Reconciling while the operator works, retries or waits for something that it
	// watches, or Stalled while a person has to act; never both.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// secureValues counts the GrafanaSecureValues of this set. It is written when
	// they have settled, or now and then while they have not.
	//
	// +optional
	SecureValues *SecureValueCounts `json:"secureValues,omitempty"`

	// failures are GrafanaSecureValues of this set that are not Ready, by name, at
	// most 16. Their own status has the message.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Failures []SecureValueFailure `json:"failures,omitempty"`
}

// GrafanaSecureValueSet makes a GrafanaSecureValue for each selected key of the
// selected Secrets and each selected connection: many keys of one Secret or of
// many, to one Grafana or several. Example:
//
//	apiVersion: grafana.securevalues.io/v1alpha1
//	kind: GrafanaSecureValueSet
//	metadata: {name: monitoring, namespace: team-a}
//	spec:
//	  secrets: {names: [sm]}
//	  keys: {include: ["SM_*"]}
//	  connectionRefs: [{name: eu}, {name: us}]
//	  template:
//	    spec: {decrypters: [synthetic-monitoring]}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=grafanasecurevaluesets,scope=Namespaced,shortName=gsvset,categories=secure-values
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="metadata.name must be at most 63 characters: it is a label value of the GrafanaSecureValues of this set"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether all selected GrafanaSecureValues exist and are Ready"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="The reason of Ready"
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.secureValues.desired`,description="How many GrafanaSecureValues the set selects"
// +kubebuilder:printcolumn:name="Ready Values",type=integer,JSONPath=`.status.secureValues.ready`,description="How many of them are Ready"
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.secureValues.failed`,description="How many of them are not Ready, and say why"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Stale",type=integer,JSONPath=`.status.secureValues.stale`,priority=1,description="How many GrafanaSecureValues exist that the set no longer selects"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="The message of Ready: what is true, and what to do next"
type GrafanaSecureValueSet struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of a Kubernetes object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the desired state of the set.
	//
	// +required
	Spec GrafanaSecureValueSetSpec `json:"spec"`

	// status is what is known of the GrafanaSecureValues of this set. Only the
	// operator writes it.
	//
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status GrafanaSecureValueSetStatus `json:"status,omitzero"`
}

// GrafanaSecureValueSetList is a list of GrafanaSecureValueSet.
//
// +kubebuilder:object:root=true
type GrafanaSecureValueSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []GrafanaSecureValueSet `json:"items"`
}
