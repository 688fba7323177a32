package main

import (
	"maps"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// OpenAPIModelName names the schema.
func (SecureValue) OpenAPIModelName() string { return "app.grafana.secret.v1beta1.SecureValue" }

// OpenAPIModelName names the schema.
func (SecureValueList) OpenAPIModelName() string { return "app.grafana.secret.v1beta1.SecureValueList" }

// definitions returns the schemas of the API: our own, and those of the framework, which come with that of CRDs.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := maps.Clone(apiextensions.GetOpenAPIDefinitions(ref))
	item := schemaRef(ref, SecureValue{}.OpenAPIModelName())
	objectMeta, listMeta := metav1.ObjectMeta{}.OpenAPIModelName(), metav1.ListMeta{}.OpenAPIModelName()
	all[SecureValue{}.OpenAPIModelName()] = definition(map[string]spec.Schema{
		"metadata": schemaRef(ref, objectMeta),
		"spec": object(map[string]spec.Schema{
			"description": *spec.StringProperty(), "value": *spec.StringProperty(), "ref": *spec.StringProperty(),
			"keeper": *spec.StringProperty(), "decrypters": *spec.ArrayProperty(spec.StringProperty()),
		}),
		"status": object(map[string]spec.Schema{
			"version": *spec.Int64Property(), "externalID": *spec.StringProperty(), "keeper": *spec.StringProperty(),
		}),
	}, objectMeta)
	all[SecureValueList{}.OpenAPIModelName()] = definition(map[string]spec.Schema{
		"metadata": schemaRef(ref, listMeta),
		"items":    *spec.ArrayProperty(&item),
	}, listMeta, SecureValue{}.OpenAPIModelName())
	return all
}

func schemaRef(ref common.ReferenceCallback, name string) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref(name)}}
}

func object(properties map[string]spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: properties}}
}

// definition adds what each kind has.
func definition(properties map[string]spec.Schema, dependencies ...string) common.OpenAPIDefinition {
	properties["apiVersion"], properties["kind"] = *spec.StringProperty(), *spec.StringProperty()
	return common.OpenAPIDefinition{Schema: object(properties), Dependencies: dependencies}
}
