package main

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

const (
	kind     = "SecureValue"
	resource = "securevalues"
	singular = "securevalue"

	fieldDecrypter = "spec.decrypter"
)

var (
	groupVersion = schema.GroupVersion{Group: "secret.grafana.app", Version: "v1beta1"}

	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

// SecureValue is a secure value as the API has it.
type SecureValue struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   Spec   `json:"spec"`
	Status Status `json:"status"`
}

// Spec is what a client writes.
type Spec struct {
	Description string `json:"description"`
	// Value is nil in every answer. A write without it keeps the stored one.
	Value      *string  `json:"value,omitempty"`
	Ref        string   `json:"ref,omitempty"`
	Keeper     string   `json:"keeper,omitempty"`
	Decrypters []string `json:"decrypters,omitempty"`
}

// Status is what the server writes.
type Status struct {
	Version    int64  `json:"version"`
	ExternalID string `json:"externalID"`
	Keeper     string `json:"keeper"`
}

// SecureValueList is a list of secure values.
type SecureValueList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []SecureValue `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (v *SecureValue) DeepCopyObject() runtime.Object { return v.copy() }

func (v *SecureValue) copy() *SecureValue {
	c := *v
	v.DeepCopyInto(&c.ObjectMeta)
	if v.Spec.Value != nil {
		c.Spec.Value = new(*v.Spec.Value)
	}
	c.Spec.Decrypters = slices.Clone(v.Spec.Decrypters)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (l *SecureValueList) DeepCopyObject() runtime.Object {
	c := *l
	l.DeepCopyInto(&c.ListMeta)
	c.Items = make([]SecureValue, 0, len(l.Items))
	for i := range l.Items {
		c.Items = append(c.Items, *l.Items[i].copy())
	}
	return &c
}

// redacted returns the object of an answer: without its value, and with who wrote it.
func (v *SecureValue) redacted() *SecureValue {
	c := v.copy()
	c.Spec.Value = nil
	c.Annotations = maps.Clone(c.Annotations)
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	for _, name := range []string{annotationCreatedBy, annotationUpdatedBy} {
		c.Annotations[name] = "service-account:" + userName
	}
	return c
}

func init() {
	// As Grafana does, one Go type is both the version that is served and the one in memory.
	for _, gv := range []schema.GroupVersion{groupVersion, {Group: groupVersion.Group, Version: runtime.APIVersionInternal}} {
		scheme.AddKnownTypeWithName(gv.WithKind(kind), &SecureValue{})
		scheme.AddKnownTypeWithName(gv.WithKind(kind+"List"), &SecureValueList{})
	}
	metav1.AddToGroupVersion(scheme, groupVersion)
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, unversioned)
	scheme.AddUnversionedTypes(unversioned, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{},
		&metav1.APIResourceList{}, &metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadataList{})
	must(scheme.SetVersionPriority(groupVersion))
	must(scheme.AddFieldLabelConversionFunc(groupVersion.WithKind(kind), func(label, value string) (string, string, error) {
		if label == fieldDecrypter {
			return label, value, nil
		}
		return runtime.DefaultMetaV1FieldSelectorConversion(label, value)
	}))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
