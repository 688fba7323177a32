package securevalue

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// An intent that was written meanwhile may be the only trace of a value, so it is not replaced by who has not seen it.
func TestIntentIsNotWrittenOverAnother(t *testing.T) {
	sv := &v1alpha1.GrafanaSecureValue{}
	sv.Namespace, sv.Name = testObject.Namespace, testObject.Name
	api := fake.NewClientBuilder().WithScheme(worldScheme()).WithObjects(sv).Build()
	r := &Reconciler{client: api, memory: &memory{}}
	seen := &v1alpha1.GrafanaSecureValue{}
	if err := api.Get(t.Context(), testObject, seen); err != nil {
		t.Fatal(err)
	}
	other := testPlace
	other.name = "other"
	changed := seen.DeepCopy()
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, v1alpha1.AnnotationIntent, other.String())
	if err := api.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}

	if err := r.intend(t.Context(), seen, intent{place: testPlace}); !apierrors.IsConflict(err) {
		t.Errorf("intend = %v", err)
	}
	now := &v1alpha1.GrafanaSecureValue{}
	if err := api.Get(t.Context(), testObject, now); err != nil || intentOf(now).place != other {
		t.Errorf("the intent is %v, %v", intentOf(now), err)
	}
}
