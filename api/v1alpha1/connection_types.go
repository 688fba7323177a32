package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Credentials is what the connection authenticates with.
type Credentials struct {
	TokenSecretRef SecretKeyReference `json:"tokenSecretRef"`
}

// TLSConfig is how the connection trusts Grafana's certificate.
type TLSConfig struct {
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`
	ServerName  string              `json:"serverName,omitempty"`
}

// ConnectionSpec is what the two kinds of connection share.
type ConnectionSpec struct {
	URL            string      `json:"url"`
	Namespace      string      `json:"namespace,omitempty"`
	APIVersion     string      `json:"apiVersion,omitempty"`
	Credentials    Credentials `json:"credentials"`
	TLS            *TLSConfig  `json:"tls,omitempty"`
	ResyncPeriod   string      `json:"resyncPeriod,omitempty"`
	RequestTimeout string      `json:"requestTimeout,omitempty"`
}

// ConnectionStatus is the observed state of either kind of connection.
type ConnectionStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	SecureValues       *int32             `json:"secureValues,omitempty"`
}

// GrafanaConnection is a connection of one namespace.
//
// +kubebuilder:object:root=true
type GrafanaConnection struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ConnectionSpec   `json:"spec"`
	Status ConnectionStatus `json:"status,omitempty"`
}

// GrafanaConnectionList is a list of GrafanaConnection.
//
// +kubebuilder:object:root=true
type GrafanaConnectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []GrafanaConnection `json:"items"`
}

// NamespacesFrom says which namespaces may use a cluster connection.
type NamespacesFrom string

const (
	// NamespacesFromAll allows every namespace.
	NamespacesFromAll NamespacesFrom = "All"
	// NamespacesFromSelector allows the namespaces that a label selector matches.
	NamespacesFromSelector NamespacesFrom = "Selector"
)

// AllowedNamespaces says which namespaces may use a cluster connection.
type AllowedNamespaces struct {
	From     NamespacesFrom        `json:"from"`
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// ClusterGrafanaConnectionSpec is the desired state.
type ClusterGrafanaConnectionSpec struct {
	ConnectionSpec    `json:",inline"`
	AllowedNamespaces AllowedNamespaces `json:"allowedNamespaces"`
}

// ClusterGrafanaConnection is a connection that namespaces share.
//
// +kubebuilder:object:root=true
type ClusterGrafanaConnection struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ClusterGrafanaConnectionSpec `json:"spec"`
	Status ConnectionStatus             `json:"status,omitempty"`
}

// ClusterGrafanaConnectionList is a list of ClusterGrafanaConnection.
//
// +kubebuilder:object:root=true
type ClusterGrafanaConnectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ClusterGrafanaConnection `json:"items"`
}
