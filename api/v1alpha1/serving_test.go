package v1alpha1_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// create makes an object for one test, and reads it back into typed.
func create(t *testing.T, c client.Client, object *unstructured.Unstructured, typed client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteObject(t, c, object) })
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), typed); err != nil {
		t.Fatal(err)
	}
}

func TestUnseenObjectIsNotTakenForAHealthyOne(t *testing.T) {
	c, _ := newClient(t)
	for _, kind := range []string{secureValueKind, setKind, connectionKind, clusterConnectionKind} {
		created, read := newObject(t, kind), newObject(t, kind)
		create(t, c, created, read)
		for what, object := range map[string]*unstructured.Unstructured{"the answer to its creation": created, "a later read": read} {
			got, found, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
			if err != nil || !found || got != -1 {
				t.Errorf("%s: %s has observedGeneration %d (%t, %v), want -1", kind, what, got, found, err)
			}
		}
	}
}

func TestStatusIsWrittenApart(t *testing.T) {
	c, _ := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{}
	create(t, c, newObject(t, secureValueKind), sv)
	before := sv.DeepCopy()

	sv.Status.ObservedGeneration = sv.Generation
	sv.Spec.Description = "by the way"
	if err := c.Status().Patch(t.Context(), sv, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	if sv.Spec.Description != "" || sv.Generation != before.Generation {
		t.Errorf("a write of status changed the spec: %+v at generation %d", sv.Spec, sv.Generation)
	}
	before = sv.DeepCopy()
	sv.Status.ObservedGeneration = 99
	if err := c.Patch(t.Context(), sv, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	if sv.Status.ObservedGeneration != before.Generation {
		t.Errorf("a write of the object changed its status: observedGeneration is %d", sv.Status.ObservedGeneration)
	}
}

func TestStatusIsBounded(t *testing.T) {
	c, _ := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{}
	create(t, c, newObject(t, secureValueKind), sv)
	target := v1alpha1.TargetStatus{
		Connection: v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"},
		Namespace:  "stacks-1234", Name: "sm-api-key",
	}
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSynced,
		LastTransitionTime: metav1.Now(),
	}
	write := func(status v1alpha1.GrafanaSecureValueStatus) error {
		object := sv.DeepCopy()
		object.Status = status
		return c.Status().Patch(t.Context(), object, client.MergeFrom(sv), client.DryRunAll)
	}
	if err := write(v1alpha1.GrafanaSecureValueStatus{Targets: slices.Repeat([]v1alpha1.TargetStatus{target}, 16)}); err != nil {
		t.Errorf("16 targets: %v", err)
	}
	if err := write(v1alpha1.GrafanaSecureValueStatus{
		Targets: slices.Repeat([]v1alpha1.TargetStatus{target}, 17),
	}); !apierrors.IsInvalid(err) {
		t.Errorf("17 targets: got %v, want them refused", err)
	}
	if err := write(v1alpha1.GrafanaSecureValueStatus{
		Conditions: []metav1.Condition{ready, ready},
	}); !apierrors.IsInvalid(err) {
		t.Errorf("two conditions of one type: got %v, want them refused", err)
	}
}

// printed is what kubectl get prints of one object: each column under its heading, with a star where it needs -o wide.
func printed(t *testing.T, config *rest.Config, resource, namespace, name string) ([]string, map[string]any) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	request := api.Get().Resource(resource).Name(name).SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	raw, err := request.NamespaceIfScoped(namespace, namespace != "").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 {
		t.Fatalf("got %d rows, want 1", len(table.Rows))
	}
	headings, cells := make([]string, 0, len(table.ColumnDefinitions)), map[string]any{}
	for i, column := range table.ColumnDefinitions {
		heading := strings.ToUpper(column.Name)
		cells[heading] = table.Rows[0].Cells[i]
		if column.Priority > 0 {
			heading += "*"
		}
		headings = append(headings, heading)
	}
	return headings, cells
}

func TestColumnsOfASecureValue(t *testing.T) {
	c, config := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{}
	create(t, c, newObject(t, secureValueKind, edit{"spec.connectionRef.name", "prod"}), sv)
	before := sv.DeepCopy()
	monthAgo := metav1.NewTime(time.Now().AddDate(0, 0, -30))
	sv.Status = v1alpha1.GrafanaSecureValueStatus{
		ObservedGeneration: sv.Generation,
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSynced, Message: "In Grafana.",
			LastTransitionTime: monthAgo,
		}},
		Desired: &v1alpha1.DesiredStatus{Connection: sv.Spec.ConnectionRef, Name: "in-grafana"},
		Targets: []v1alpha1.TargetStatus{{
			Connection: sv.Spec.ConnectionRef, Namespace: "stacks-1234", Name: "in-grafana", Version: 7, LastWriteTime: &monthAgo,
		}},
	}
	if err := c.Status().Patch(t.Context(), sv, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	headings, cells := printed(t, config, "grafanasecurevalues", sv.Namespace, sv.Name)
	want := []string{
		"NAME", "READY", "REASON", "CONNECTION", "SECURE VALUE", "VERSION", "LAST WRITE", "AGE", "CONNECTION KIND*", "SECRET*", "KEY*", "MESSAGE*",
	}
	if !slices.Equal(headings, want) {
		t.Errorf("got columns %q, want %q", headings, want)
	}
	for heading, want := range map[string]any{
		"NAME": "object", "READY": "True", "REASON": "Synced", "CONNECTION": "prod", "SECURE VALUE": "in-grafana",
		"VERSION": float64(7), "LAST WRITE": "30d", "CONNECTION KIND": "GrafanaConnection", "SECRET": "sm", "KEY": "api-key",
		"MESSAGE": "In Grafana.",
	} {
		if cells[heading] != want {
			t.Errorf("%s is %v, want %v", heading, cells[heading], want)
		}
	}
}

func TestColumnsOfASet(t *testing.T) {
	c, config := newClient(t)
	set := &v1alpha1.GrafanaSecureValueSet{}
	create(t, c, newObject(t, setKind), set)
	patch := `{"status":{"secureValues":{"desired":12,"ready":10,"failed":1,"stale":3},
		"conditions":[{"type":"Ready","status":"False","reason":"SecureValuesNotReady","message":"One is not.","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	if err := c.Status().Patch(t.Context(), set, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	headings, cells := printed(t, config, "grafanasecurevaluesets", set.Namespace, set.Name)
	want := []string{"NAME", "READY", "REASON", "DESIRED", "READY VALUES", "FAILED", "AGE", "STALE*", "MESSAGE*"}
	if !slices.Equal(headings, want) {
		t.Errorf("got columns %q, want %q", headings, want)
	}
	for heading, want := range map[string]any{
		"NAME": "object", "READY": "False", "REASON": "SecureValuesNotReady", "DESIRED": float64(12), "READY VALUES": float64(10),
		"FAILED": float64(1), "STALE": float64(3), "MESSAGE": "One is not.",
	} {
		if cells[heading] != want {
			t.Errorf("%s is %v, want %v", heading, cells[heading], want)
		}
	}
}

func TestStatusOfASetIsBounded(t *testing.T) {
	c, _ := newClient(t)
	set := &v1alpha1.GrafanaSecureValueSet{}
	create(t, c, newObject(t, setKind), set)
	for count, accepted := range map[int]bool{v1alpha1.MaxFailures: true, v1alpha1.MaxFailures + 1: false} {
		object := set.DeepCopy()
		failure := v1alpha1.SecureValueFailure{Name: "monitoring-0123456789", Reason: v1alpha1.ReasonSourceNotAllowed}
		object.Status.Failures = slices.Repeat([]v1alpha1.SecureValueFailure{failure}, count)
		err := c.Status().Patch(t.Context(), object, client.MergeFrom(set), client.DryRunAll)
		if (err == nil) != accepted || err != nil && !apierrors.IsInvalid(err) {
			t.Errorf("%d failures: got %v, want them accepted: %t", count, err, accepted)
		}
	}
}

func TestColumnsOfAConnection(t *testing.T) {
	c, config := newClient(t)
	for _, tc := range []struct {
		kind       string
		resource   string
		connection v1alpha1.Connection
	}{
		{connectionKind, "grafanaconnections", &v1alpha1.GrafanaConnection{}},
		{clusterConnectionKind, "clustergrafanaconnections", &v1alpha1.ClusterGrafanaConnection{}},
	} {
		create(t, c, newObject(t, tc.kind, edit{"spec.namespace", "stacks-1234"}), tc.connection)
		patch := `{"status":{"url":"https://before.example.com","clusterID":"east","secureValues":3,"orphanedValues":2,
			"conditions":[{"type":"Ready","status":"False","reason":"Unauthorized","message":"Make a new token.","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
		if err := c.Status().Patch(t.Context(), tc.connection, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		headings, cells := printed(t, config, tc.resource, tc.connection.GetNamespace(), tc.connection.GetName())
		want := []string{"NAME", "READY", "REASON", "URL", "GRAFANA NAMESPACE", "USED BY", "AGE", "ORPHANED*", "MESSAGE*"}
		if !slices.Equal(headings, want) {
			t.Errorf("%s: got columns %q, want %q", tc.kind, headings, want)
		}
		for heading, want := range map[string]any{
			"READY": "False", "REASON": "Unauthorized", "URL": "https://before.example.com", "GRAFANA NAMESPACE": "stacks-1234",
			"USED BY": float64(3), "ORPHANED": float64(2), "MESSAGE": "Make a new token.",
		} {
			if cells[heading] != want {
				t.Errorf("%s: %s is %v, want %v", tc.kind, heading, cells[heading], want)
			}
		}
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	for _, file := range manifests(t, "crd", "bases") {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(read(t, file), &crd); err != nil {
			t.Fatal(err)
		}
		schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		if len(crd.Spec.Versions) != 1 || schema.Description == "" {
			t.Errorf("%s: want one version, with a description", crd.Name)
		}
		var walk func(path string, schema apiextensionsv1.JSONSchemaProps)
		walk = func(path string, schema apiextensionsv1.JSONSchemaProps) {
			for name, property := range schema.Properties {
				if property.Description == "" {
					t.Errorf("%s: %s.%s has no description", crd.Name, path, name)
				}
				walk(path+"."+name, property)
			}
			if schema.Items != nil && schema.Items.Schema != nil {
				walk(path+"[]", *schema.Items.Schema)
			}
		}
		walk("spec", schema.Properties["spec"])
		walk("status", schema.Properties["status"])
	}
}

// manifests are the YAML files of a folder under config, without its kustomization.
func manifests(t *testing.T, folder ...string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(append(append([]string{"..", "..", "config"}, folder...), "*.yaml")...))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Base(file) == "kustomization.yaml" })
	if len(files) == 0 {
		t.Fatalf("no manifests in %q", folder)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestSamplesAreAccepted(t *testing.T) {
	c, _ := newClient(t)
	applied := map[string]*unstructured.Unstructured{}
	for _, file := range manifests(t, "samples") {
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(read(t, file), &object.Object); err != nil {
			t.Fatal(err)
		}
		configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
		if err := c.Apply(t.Context(), configuration, client.DryRunAll, client.FieldOwner("test")); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		applied[object.GetKind()] = object
	}
	sv, set, connection := &v1alpha1.GrafanaSecureValue{}, &v1alpha1.GrafanaSecureValueSet{}, &v1alpha1.GrafanaConnection{}
	for kind, typed := range map[string]any{
		secureValueKind: sv, setKind: set, connectionKind: connection, clusterConnectionKind: &v1alpha1.ClusterGrafanaConnection{},
	} {
		if applied[kind] == nil {
			t.Fatalf("the samples have no %s", kind)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(applied[kind].Object, typed, true); err != nil {
			t.Fatal(err)
		}
	}
	if sv.Spec.ConnectionRef.Name != connection.Name || sv.Namespace != connection.Namespace {
		t.Errorf("the sample uses %+v, and the sample of a connection is %s/%s", sv.Spec.ConnectionRef, connection.Namespace, connection.Name)
	}
	if set.Spec.ConnectionRefs[0].Name != connection.Name || set.Namespace != connection.Namespace {
		t.Errorf("the sample of a set uses %+v, and the sample of a connection is %s/%s", set.Spec.ConnectionRefs, connection.Namespace, connection.Name)
	}
}

// TestSamplesShowWhatCanBeSet: each field of spec is in the sample of its kind, set or commented out. What a ClusterGrafanaConnection shares
// with a GrafanaConnection need not be repeated.
func TestSamplesShowWhatCanBeSet(t *testing.T) {
	samples := ""
	for _, file := range manifests(t, "samples") {
		samples += string(read(t, file))
	}
	for _, file := range manifests(t, "crd", "bases") {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(read(t, file), &crd); err != nil {
			t.Fatal(err)
		}
		var walk func(path string, schema apiextensionsv1.JSONSchemaProps)
		walk = func(path string, schema apiextensionsv1.JSONSchemaProps) {
			for name, property := range schema.Properties {
				if !regexp.MustCompile(`[ {]` + name + `:`).MatchString(samples) {
					t.Errorf("%s: the samples do not show %s.%s", crd.Spec.Names.Kind, path, name)
				}
				walk(path+"."+name, property)
			}
		}
		walk("spec", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	}
}

func TestApplyingAgainChangesNothing(t *testing.T) {
	c, _ := newClient(t)
	for _, kind := range []string{secureValueKind, setKind, connectionKind, clusterConnectionKind} {
		apply := func() *unstructured.Unstructured {
			object := newObject(t, kind)
			if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("gitops")); err != nil {
				t.Fatal(err)
			}
			return object
		}
		t.Cleanup(func() { deleteObject(t, c, newObject(t, kind)) })
		first := apply()
		second := apply() // The first write after the creation stores the default of status.
		third := apply()
		if third.GetGeneration() != first.GetGeneration() || third.GetResourceVersion() != second.GetResourceVersion() {
			t.Errorf("%s: applying again moved it from generation %d to %d, and from resourceVersion %s to %s", kind,
				first.GetGeneration(), third.GetGeneration(), second.GetResourceVersion(), third.GetResourceVersion())
		}
	}
}
