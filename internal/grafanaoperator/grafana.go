// Package grafanaoperator has what the operator reads of the Grafanas of grafana-operator, and nothing else of them.
//
// The fields are those of the kind Grafana in grafana.integreatly.org/v1beta1, as the CustomResourceDefinition of grafana-operator describes
// them. What is not named here is dropped as it is decoded, and so never cached.
package grafanaoperator

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API version of the kind.
var GroupVersion = schema.GroupVersion{Group: "grafana.integreatly.org", Version: "v1beta1"}

// DefaultTenant is the tenantNamespace of a Grafana that was given none.
const DefaultTenant = "default"

// AddToScheme adds the kind to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Grafana{}, &GrafanaList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// Grafana is one Grafana that grafana-operator knows.
type Grafana struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	Spec Spec `json:"spec,omitzero"`
}

// Spec says which Grafana it is, and how to call it.
type Spec struct {
	Client   *Client   `json:"client,omitempty"`
	External *External `json:"external,omitempty"` // nil where grafana-operator runs this Grafana itself
}

// Client says how to call it.
type Client struct {
	TLS *TLS `json:"tls,omitempty"`
}

// External is a Grafana that runs elsewhere. APIKey comes before the admin user and password.
type External struct {
	URL             string    `json:"url"`
	APIKey          SecretKey `json:"apiKey,omitzero"`
	AdminUser       SecretKey `json:"adminUser,omitzero"`
	AdminPassword   SecretKey `json:"adminPassword,omitzero"`
	TLS             *TLS      `json:"tls,omitempty"` // Client.TLS comes before it
	TenantNamespace string    `json:"tenantNamespace,omitempty"`
}

// SecretKey is a key of a Secret in the namespace of the Grafana. Without a name it is absent.
type SecretKey struct {
	Name string `json:"name,omitempty"`
	Key  string `json:"key,omitempty"`
}

// TLS says how the server is trusted. The Secret may have ca.crt, and tls.crt with tls.key.
type TLS struct {
	InsecureSkipVerify bool       `json:"insecureSkipVerify,omitempty"`
	CertSecretRef      *SecretRef `json:"certSecretRef,omitempty"`
}

// SecretRef is a Secret of any namespace; without one, that of the Grafana.
type SecretRef struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// GrafanaList is a list of Grafana.
type GrafanaList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Grafana `json:"items"`
}

// TLS returns the settings of TLS that apply, or nil.
func (g *Grafana) TLS() *TLS {
	if g.Spec.Client != nil && g.Spec.Client.TLS != nil {
		return g.Spec.Client.TLS
	}
	return g.externalTLS()
}

func (g *Grafana) externalTLS() *TLS {
	if g.Spec.External == nil {
		return nil
	}
	return g.Spec.External.TLS
}

// maxSmallBytes bounds what is kept of a Grafana in memory: a URL that is taken has at most 2,048 bytes, and each name and key 253.
const maxSmallBytes = 8 << 10

// IsSmall reports whether a Grafana is no larger than one that can be used.
func (g *Grafana) IsSmall() bool {
	size := 0
	if e := g.Spec.External; e != nil {
		size += len(e.URL) + len(e.TenantNamespace)
		for _, key := range []SecretKey{e.APIKey, e.AdminUser, e.AdminPassword} {
			size += len(key.Name) + len(key.Key)
		}
	}
	for _, tls := range []*TLS{g.TLS(), g.externalTLS()} {
		if tls != nil && tls.CertSecretRef != nil {
			size += len(tls.CertSecretRef.Name) + len(tls.CertSecretRef.Namespace)
		}
	}
	return size <= maxSmallBytes
}

// DeepCopyObject implements runtime.Object.
func (g *Grafana) DeepCopyObject() runtime.Object {
	copied := &Grafana{TypeMeta: g.TypeMeta, ObjectMeta: *g.DeepCopy()}
	if g.Spec.Client != nil {
		copied.Spec.Client = &Client{TLS: g.Spec.Client.TLS.deepCopy()}
	}
	if g.Spec.External != nil {
		external := *g.Spec.External
		external.TLS = external.TLS.deepCopy()
		copied.Spec.External = &external
	}
	return copied
}

func (t *TLS) deepCopy() *TLS {
	if t == nil {
		return nil
	}
	copied := *t
	if t.CertSecretRef != nil {
		copied.CertSecretRef = new(*t.CertSecretRef)
	}
	return &copied
}

// DeepCopyObject implements runtime.Object.
func (l *GrafanaList) DeepCopyObject() runtime.Object {
	copied := &GrafanaList{TypeMeta: l.TypeMeta, ListMeta: *l.DeepCopy()}
	for i := range l.Items {
		item, _ := l.Items[i].DeepCopyObject().(*Grafana) // a copy has the type of its original
		copied.Items = append(copied.Items, *item)
	}
	return copied
}
