package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ConnectionKind is the kind of a connection.
type ConnectionKind string

const (
	// KindGrafanaConnection is a connection of the object's own namespace.
	KindGrafanaConnection ConnectionKind = "GrafanaConnection"
	// KindClusterGrafanaConnection is a connection that namespaces share.
	KindClusterGrafanaConnection ConnectionKind = "ClusterGrafanaConnection"
)

// DeletionPolicy says what becomes of the secure value in Grafana.
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the secure value from Grafana.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves the secure value in Grafana.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// ConnectionReference names a connection.
type ConnectionReference struct {
	Kind ConnectionKind `json:"kind,omitempty"`
	Name string         `json:"name"`
}

// SecretKeyReference names a key of a Secret.
type SecretKeyReference struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// ValueSource says where the value comes from.
type ValueSource struct {
	SecretKeyRef SecretKeyReference `json:"secretKeyRef"`
}

// GrafanaSecureValueSpec is the desired state.
type GrafanaSecureValueSpec struct {
	ConnectionRef  ConnectionReference `json:"connectionRef,omitempty"`
	Name           string              `json:"name,omitempty"`
	Description    string              `json:"description,omitempty"`
	Decrypters     []string            `json:"decrypters,omitempty"`
	ValueFrom      ValueSource         `json:"valueFrom"`
	DeletionPolicy DeletionPolicy      `json:"deletionPolicy,omitempty"`
}

// SourceStatus is the Secret and key whose value is known to be in Grafana.
type SourceStatus struct {
	Name            string    `json:"name"`
	Key             string    `json:"key"`
	UID             types.UID `json:"uid"`
	ResourceVersion string    `json:"resourceVersion"`
}

// TargetStatus is a place in Grafana that the object holds.
type TargetStatus struct {
	Connection    ConnectionReference `json:"connection"`
	Namespace     string              `json:"namespace"`
	Name          string              `json:"name"`
	Version       int64               `json:"version,omitempty"`
	CreatedAt     *metav1.Time        `json:"createdAt,omitempty"`
	Source        *SourceStatus       `json:"source,omitempty"`
	Fingerprint   string              `json:"fingerprint,omitempty"`
	LastWriteTime *metav1.Time        `json:"lastWriteTime,omitempty"`
}

// GrafanaSecureValueStatus is the observed state.
type GrafanaSecureValueStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Targets            []TargetStatus     `json:"targets,omitempty"`
}

// GrafanaSecureValue keeps a secure value in Grafana in step with a key of a Secret.
//
// +kubebuilder:object:root=true
type GrafanaSecureValue struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GrafanaSecureValueSpec   `json:"spec"`
	Status GrafanaSecureValueStatus `json:"status,omitempty"`
}

// GrafanaSecureValueList is a list of GrafanaSecureValue.
//
// +kubebuilder:object:root=true
type GrafanaSecureValueList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []GrafanaSecureValue `json:"items"`
}
