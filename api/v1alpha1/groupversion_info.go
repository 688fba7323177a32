// Package v1alpha1 holds the kinds of the API group grafana.securevalues.io.
//
// +kubebuilder:object:generate=true
// +groupName=grafana.securevalues.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "grafana.securevalues.io", Version: "v1alpha1"}

var (
	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the kinds of this package to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&GrafanaSecureValue{}, &GrafanaSecureValueList{},
		&GrafanaSecureValueSet{}, &GrafanaSecureValueSetList{},
		&GrafanaConnection{}, &GrafanaConnectionList{},
		&ClusterGrafanaConnection{}, &ClusterGrafanaConnectionList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
