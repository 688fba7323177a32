package index

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// The values of an object share the keys of others, and no other object is found.
func TestFind(t *testing.T) {
	sameKey := []string{"value"} // and others with its key
	for i := 0; len(sameKey) < 3; i++ {
		if value := fmt.Sprint("value-", i); keyOf(value) == keyOf("value") {
			sameKey = append(sameKey, value)
		}
	}
	index := Index{Field: "test", Values: func(sv *v1alpha1.GrafanaSecureValue) []string { return sv.Spec.Decrypters }}
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	build := fake.NewClientBuilder().WithScheme(scheme).WithIndex(&v1alpha1.GrafanaSecureValue{}, index.Field, index.Keys)
	for name, values := range map[string][]string{"one": {"value"}, "other": sameKey[1:], "all": sameKey, "none": nil} {
		for _, namespace := range []string{"a", "b"} {
			sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
			sv.Spec.Decrypters = values
			build = build.WithObjects(sv)
			if keys := index.Keys(sv); len(keys) != min(len(values), 1) {
				t.Errorf("%q has the keys %q, want one key for values that share it", values, keys)
			}
		}
	}
	cache := build.Build()
	for _, row := range []struct {
		namespace, value string
		want             []string
	}{
		{"a", "value", []string{"a/all", "a/one"}},
		{"", "value", []string{"a/all", "a/one", "b/all", "b/one"}},
		{"b", sameKey[1], []string{"b/all", "b/other"}},
		{"c", "value", nil},
		{"a", "unknown", nil},
	} {
		objects, err := index.Find(t.Context(), cache, row.namespace, row.value)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range objects {
			got = append(got, objects[i].Namespace+"/"+objects[i].Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, row.want) {
			t.Errorf("in %q %q finds %q, want %q", row.namespace, row.value, got, row.want)
		}
	}
}
