package v1alpha1_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
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
	for _, kind := range []string{secureValueKind, connectionKind, clusterConnectionKind} {
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
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSynced, LastTransitionTime: monthAgo,
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
		"NAME", "READY", "STATUS", "CONNECTION", "SECURE VALUE", "VERSION", "LAST WRITE", "AGE", "CONNECTION KIND*", "SECRET*", "KEY*",
	}
	if !slices.Equal(headings, want) {
		t.Errorf("got columns %q, want %q", headings, want)
	}
	for heading, want := range map[string]any{
		"NAME": "object", "READY": "True", "STATUS": "Synced", "CONNECTION": "prod", "SECURE VALUE": "in-grafana",
		"VERSION": float64(7), "LAST WRITE": "30d", "CONNECTION KIND": "GrafanaConnection", "SECRET": "sm", "KEY": "api-key",
	} {
		if cells[heading] != want {
			t.Errorf("%s is %v, want %v", heading, cells[heading], want)
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
		patch := `{"status":{"secureValues":3,"conditions":[{"type":"Ready","status":"False","reason":"Unauthorized",
			"message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
		if err := c.Status().Patch(t.Context(), tc.connection, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		headings, cells := printed(t, config, tc.resource, tc.connection.GetNamespace(), tc.connection.GetName())
		want := []string{"NAME", "READY", "STATUS", "URL", "GRAFANA NAMESPACE", "USED BY", "AGE"}
		if !slices.Equal(headings, want) {
			t.Errorf("%s: got columns %q, want %q", tc.kind, headings, want)
		}
		for heading, want := range map[string]any{
			"READY": "False", "STATUS": "Unauthorized", "URL": "https://grafana.example.com", "GRAFANA NAMESPACE": "stacks-1234",
			"USED BY": float64(3),
		} {
			if cells[heading] != want {
				t.Errorf("%s: %s is %v, want %v", tc.kind, heading, cells[heading], want)
			}
		}
	}
}

func TestKindsAreFoundByTheirShortNames(t *testing.T) {
	_, config := newClient(t)
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := api.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, resource := range list.APIResources {
		if strings.Contains(resource.Name, "/") {
			continue
		}
		if !slices.Equal(resource.Categories, []string{"grafana"}) {
			t.Errorf("%s has the categories %q, want grafana", resource.Kind, resource.Categories)
		}
		got[resource.Kind] = strings.Join(resource.ShortNames, ",")
	}
	for kind, want := range map[string]string{secureValueKind: "gsv", connectionKind: "gconn", clusterConnectionKind: "cgconn"} {
		if got[kind] != want {
			t.Errorf("%s has the short names %q, want %q", kind, got[kind], want)
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
	operator := &corev1.Namespace{}
	operator.Name = "grafana-secure-value-operator-system"
	if err := c.Create(t.Context(), operator); err != nil {
		t.Fatal(err)
	}
	applied := map[string]*unstructured.Unstructured{}
	for _, file := range manifests(t, "samples") {
		for document := range strings.SplitSeq(string(read(t, file)), "\n---\n") {
			object := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(document), &object.Object); err != nil {
				t.Fatal(err)
			}
			configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
			if err := c.Apply(t.Context(), configuration, client.DryRunAll, client.FieldOwner("test")); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			applied[object.GetKind()+"/"+object.GetNamespace()+"/"+object.GetName()] = object
		}
	}

	secretKey := func(namespace string, ref v1alpha1.SecretKeyReference) {
		secret, found := applied["Secret/"+namespace+"/"+ref.Name]
		if !found {
			t.Errorf("the samples have no Secret %s in %s", ref.Name, namespace)
			return
		}
		value, _, err := unstructured.NestedString(secret.Object, "stringData", ref.Key)
		if err != nil || !strings.HasPrefix(value, "REPLACE-WITH-") {
			t.Errorf("key %s of the sample %s/%s holds %q, want a placeholder", ref.Key, namespace, ref.Name, value)
		}
	}
	var (
		sv      v1alpha1.GrafanaSecureValue
		local   v1alpha1.GrafanaConnection
		cluster v1alpha1.ClusterGrafanaConnection
	)
	for key, typed := range map[string]any{
		"GrafanaSecureValue/default/sm-api-key": &sv,
		"GrafanaConnection/default/prod":        &local,
		"ClusterGrafanaConnection//default":     &cluster,
	} {
		if applied[key] == nil {
			t.Fatalf("the samples have no %s", key)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(applied[key].Object, typed); err != nil {
			t.Fatal(err)
		}
	}
	if sv.Spec.ConnectionRef.Name != local.Name {
		t.Errorf("the sample uses connection %q, and the sample of a connection is %q", sv.Spec.ConnectionRef.Name, local.Name)
	}
	secretKey(sv.Namespace, sv.Spec.ValueFrom.SecretKeyRef)
	secretKey(local.Namespace, local.Spec.Credentials.TokenSecretRef)
	secretKey(operator.Name, cluster.Spec.Credentials.TokenSecretRef)
}

func TestApplyingAgainChangesNothing(t *testing.T) {
	c, _ := newClient(t)
	for _, kind := range []string{secureValueKind, connectionKind, clusterConnectionKind} {
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
