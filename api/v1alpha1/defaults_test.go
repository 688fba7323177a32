package v1alpha1_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestAbsentFieldsOfASecureValueGetTheirDefaults(t *testing.T) {
	c, _ := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{}
	create(t, c, newObject(t, secureValueKind), sv)
	want := v1alpha1.GrafanaSecureValueSpec{
		ValueFrom:           v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "sm", Key: "api-key"}},
		SecureValueSettings: v1alpha1.SecureValueSettings{DeletionPolicy: v1alpha1.DeletionPolicyDelete},
	}
	if got := sv.Spec; got.ConnectionRef != want.ConnectionRef || got.Name != want.Name ||
		got.Description != want.Description || len(got.Decrypters) != 0 || got.ValueFrom != want.ValueFrom ||
		got.DeletionPolicy != want.DeletionPolicy {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAbsentFieldsOfASetGetTheirDefaults(t *testing.T) {
	c, _ := newClient(t)
	set := &v1alpha1.GrafanaSecureValueSet{}
	create(t, c, newObject(t, setKind, edit{"spec.connectionRefs", []any{map[string]any{"name": "prod"}}}), set)
	want := v1alpha1.GrafanaSecureValueSetSpec{
		Secrets:        v1alpha1.SecretSelection{Names: []string{"sm"}},
		ConnectionRefs: []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}},
		NameTemplate:   v1alpha1.DefaultNameTemplate,
		PrunePolicy:    v1alpha1.PrunePolicyRetain,
	}
	if got := set.Spec; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestATemplateWithASpecGetsItsDefaults: the policies are those of a GrafanaSecureValue, stored once the template has a spec.
func TestATemplateWithASpecGetsItsDefaults(t *testing.T) {
	c, _ := newClient(t)
	set := &v1alpha1.GrafanaSecureValueSet{}
	create(t, c, newObject(t, setKind, edit{"spec.template.spec.description", "External API key"}), set)
	want := v1alpha1.SecureValueSettings{
		Description:    "External API key",
		DeletionPolicy: v1alpha1.DeletionPolicyDelete, AdoptionPolicy: v1alpha1.AdoptionPolicyRefuse, DriftPolicy: v1alpha1.DriftPolicyCorrect,
	}
	if got := set.Spec.Template.Spec; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestConnectionWithoutAKindIsOneOfTheNamespace(t *testing.T) {
	c, _ := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{}
	create(t, c, newObject(t, secureValueKind, edit{"spec.connectionRef.name", "prod"}), sv)
	want := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	if sv.Spec.ConnectionRef != want {
		t.Errorf("got %+v, want %+v", sv.Spec.ConnectionRef, want)
	}
}

func TestAbsentFieldsOfAConnectionGetTheirDefaults(t *testing.T) {
	c, _ := newClient(t)
	for kind, connection := range map[string]v1alpha1.Connection{
		connectionKind:        &v1alpha1.GrafanaConnection{},
		clusterConnectionKind: &v1alpha1.ClusterGrafanaConnection{},
	} {
		create(t, c, newObject(t, kind), connection)
		spec := connection.GetSpec()
		if spec.Namespace != "default" || spec.APIVersion != "v1beta1" || spec.TLS != nil {
			t.Errorf("%s: got %+v, want namespace default, apiVersion v1beta1 and no tls", kind, spec)
		}
		resync, err := time.ParseDuration(spec.ResyncPeriod)
		if err != nil || resync != v1alpha1.DefaultResyncPeriod {
			t.Errorf("%s: got resyncPeriod %q, want %v", kind, spec.ResyncPeriod, v1alpha1.DefaultResyncPeriod)
		}
		timeout, err := time.ParseDuration(spec.RequestTimeout)
		if err != nil || timeout != v1alpha1.DefaultRequestTimeout {
			t.Errorf("%s: got requestTimeout %q, want %v", kind, spec.RequestTimeout, v1alpha1.DefaultRequestTimeout)
		}
	}
}

func TestObjectOfGoNeedsNoMoreThanItsRequiredFields(t *testing.T) {
	c, _ := newClient(t)
	sv := &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Name: "object", Namespace: "default"},
		Spec: v1alpha1.GrafanaSecureValueSpec{ValueFrom: v1alpha1.ValueSource{
			SecretKeyRef: v1alpha1.SecretKeyReference{Name: "sm", Key: "api-key"},
		}},
	}
	if err := c.Create(t.Context(), sv, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "default"}
	if got := sv.ConnectionOrDefault(); got != want || sv.Spec.ConnectionRef != (v1alpha1.ConnectionReference{}) {
		t.Errorf("got connection %+v, and %+v stored, want %+v and none stored", got, sv.Spec.ConnectionRef, want)
	}
}

// TestAManifestMeansTheSameWhateverWasThereBefore: a default that is stored would merge with what is applied later.
func TestAManifestMeansTheSameWhateverWasThereBefore(t *testing.T) {
	c, _ := newClient(t)
	named := edit{"spec.connectionRef.name", "prod"}
	want := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	apply := func(owner string, edits ...edit) error {
		object := client.ApplyConfigurationFromUnstructured(newObject(t, secureValueKind, edits...))
		return c.Apply(t.Context(), object, client.FieldOwner(owner), client.ForceOwnership)
	}
	patch := func(ref string) error {
		sv := newObject(t, secureValueKind)
		return c.Patch(t.Context(), sv, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"connectionRef":`+ref+`}}`)))
	}
	for name, tc := range map[string]struct {
		before []edit
		change func() error
	}{
		"server-side apply":                    {nil, func() error { return apply("gitops", named) }},
		"server-side apply of another manager": {nil, func() error { return apply("other", named) }},
		"server-side apply over the other kind": {
			[]edit{{"spec.connectionRef", map[string]any{"kind": clusterConnectionKind, "name": "shared"}}},
			func() error { return apply("other", named) },
		},
		"a patch":           {nil, func() error { return patch(`{"name":"prod"}`) }},
		"client-side apply": {nil, func() error { return patch(`{"name":"prod"}`) }}, // it sends such a patch
		"client-side apply over the other kind": {
			[]edit{{"spec.connectionRef", map[string]any{"kind": clusterConnectionKind, "name": "shared"}}},
			func() error { return patch(`{"kind":null,"name":"prod"}`) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := apply("gitops", tc.before...); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { deleteObject(t, c, newObject(t, secureValueKind)) })
			if err := tc.change(); err != nil {
				t.Fatal(err)
			}
			sv := &v1alpha1.GrafanaSecureValue{}
			if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "object"}, sv); err != nil {
				t.Fatal(err)
			}
			if sv.Spec.ConnectionRef != want {
				t.Errorf("got %+v, want %+v", sv.Spec.ConnectionRef, want)
			}
		})
	}
}

// TestStoredDefaults lists every default that a schema stores. Each is a scalar that means the same beside whatever is written later;
// that of spec.namespace must be stored, since the rule against its change compares with it.
func TestStoredDefaults(t *testing.T) {
	connection := []string{
		"spec.apiVersion", "spec.namespace", "spec.rateLimit.maxInFlight", "spec.rateLimit.requestsPerSecond",
		"spec.requestTimeout", "spec.resyncPeriod",
	}
	want := map[string][]string{
		"grafanaconnections": connection, "clustergrafanaconnections": append([]string{"spec.adoption"}, connection...),
		"grafanasecurevaluesets": {
			"spec.nameTemplate", "spec.prunePolicy",
			"spec.template.spec.adoptionPolicy", "spec.template.spec.deletionPolicy", "spec.template.spec.driftPolicy",
		},
		"grafanasecurevalues": {"spec.adoptionPolicy", "spec.connectionRef.kind", "spec.deletionPolicy", "spec.driftPolicy"},
	}
	for _, file := range manifests(t, "crd", "bases") {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(read(t, file), &crd); err != nil {
			t.Fatal(err)
		}
		var got []string
		var walk func(path string, schema apiextensionsv1.JSONSchemaProps)
		walk = func(path string, schema apiextensionsv1.JSONSchemaProps) {
			if schema.Default != nil {
				got = append(got, path)
			}
			for name, property := range schema.Properties {
				walk(path+"."+name, property)
			}
		}
		walk("spec", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
		slices.Sort(got)
		if !slices.Equal(got, want[crd.Spec.Names.Plural]) {
			t.Errorf("%s stores the defaults %q, want %q", crd.Name, got, want[crd.Spec.Names.Plural])
		}
	}
}
