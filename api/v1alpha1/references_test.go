package v1alpha1_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// grafanaNamespaces are the fields that speak of namespaces and name none of Kubernetes's that something would be read from. Each says
// what it is.
var grafanaNamespaces = map[string]string{
	"ConnectionSpec.namespace":                       "the organization or stack in Grafana",
	"TargetStatus.namespace":                         "the organization or stack in Grafana",
	"ClusterGrafanaConnectionSpec.allowedNamespaces": "who may use the connection, by labels; nothing is read there for it",
}

// TestNoReferenceHasANamespace walks all that a user may write, and all that the operator writes: with a namespace in a reference, whoever
// may write the object could have the operator read, with its rights, what belongs to another tenant.
func TestNoReferenceHasANamespace(t *testing.T) {
	seen := map[string]bool{}
	visited := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			walk(typ.Elem())
			return
		case reflect.Map:
			walk(typ.Key())
			walk(typ.Elem())
			return
		case reflect.Struct:
		case reflect.Interface:
			t.Errorf("%s can hold anything, a namespace too", typ)
			return
		default:
			return
		}
		if visited[typ] {
			return
		}
		visited[typ] = true
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if typ.PkgPath() != "time" && strings.Contains(strings.ToLower(name), "namespace") {
				seen[typ.Name()+"."+name] = true
			}
			if field.IsExported() {
				walk(field.Type)
			}
		}
	}
	for _, root := range []any{
		v1alpha1.GrafanaSecureValueSpec{},
		v1alpha1.GrafanaSecureValueStatus{},
		v1alpha1.GrafanaSecureValueSetSpec{},
		v1alpha1.GrafanaSecureValueSetStatus{},
		v1alpha1.GrafanaConnectionSpec{},
		v1alpha1.ClusterGrafanaConnectionSpec{},
		v1alpha1.ConnectionStatus{},
	} {
		walk(reflect.TypeOf(root))
	}
	for _, kind := range []any{
		v1alpha1.GrafanaSecureValue{}, v1alpha1.GrafanaSecureValueSet{}, v1alpha1.GrafanaConnection{}, v1alpha1.ClusterGrafanaConnection{},
	} {
		for field := range reflect.TypeOf(kind).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && name != "metadata" && !visited[field.Type] {
				t.Errorf("%T.%s was not walked", kind, name)
			}
		}
	}
	for _, reference := range []any{v1alpha1.ConnectionReference{}, v1alpha1.SecretReference{}, v1alpha1.SecretKeyReference{}, v1alpha1.GrafanaReference{}} {
		if !visited[reflect.TypeOf(reference)] {
			t.Errorf("%T was not walked", reference)
		}
	}
	if want := slices.Sorted(maps.Keys(grafanaNamespaces)); !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("fields that speak of namespaces: %q, want %q alone", slices.Sorted(maps.Keys(seen)), want)
	}
}
