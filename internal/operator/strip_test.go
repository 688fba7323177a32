package operator

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestStrip(t *testing.T) {
	meta := func() metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: "team-a", Name: "name", UID: "uid", ResourceVersion: "7", Generation: 2,
			Labels: map[string]string{"app": "web"}, Finalizers: []string{v1alpha1.Finalizer},
			Annotations:     map[string]string{v1alpha1.AnnotationPendingTargets: "place", v1alpha1.AnnotationSyncNow: "now", "note": "long"},
			OwnerReferences: []metav1.OwnerReference{{Name: "owner"}}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		}
	}
	secret := metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	namespace := metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
	ofSet := func(size int) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Labels:          map[string]string{v1alpha1.LabelSet: "set"},
			Annotations:     map[string]string{"note": strings.Repeat("x", size)},
			OwnerReferences: []metav1.OwnerReference{{Name: "other"}, {Name: "set", Kind: v1alpha1.KindGrafanaSecureValueSet, Controller: new(true)}},
		}
	}
	for name, row := range map[string]struct{ object, want any }{
		"of a Secret stay what names its version, and its labels": {
			&metav1.PartialObjectMetadata{TypeMeta: secret, ObjectMeta: meta()},
			&metav1.PartialObjectMetadata{TypeMeta: secret, ObjectMeta: metav1.ObjectMeta{
				Namespace: "team-a", Name: "name", UID: "uid", ResourceVersion: "7", Labels: map[string]string{"app": "web"},
			}},
		},
		"too many labels": {
			&metav1.PartialObjectMetadata{TypeMeta: secret, ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{strings.Repeat("x", maxMetadataBytes): "y"}}},
			&metav1.PartialObjectMetadata{TypeMeta: secret},
		},
		"of an object of a set stay labels, annotations and controller": {
			&v1alpha1.GrafanaSecureValue{ObjectMeta: ofSet(0)},
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{v1alpha1.LabelSet: "set"}, Annotations: map[string]string{"note": ""}, OwnerReferences: ofSet(0).OwnerReferences[1:],
			}},
		},
		"and not where they are large": {
			&v1alpha1.GrafanaSecureValue{ObjectMeta: ofSet(maxMetadataBytes)},
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{v1alpha1.LabelSet: "set"}, OwnerReferences: ofSet(0).OwnerReferences[1:],
			}},
		},
		"of a Namespace stay its labels": {
			&metav1.PartialObjectMetadata{TypeMeta: namespace, ObjectMeta: meta()},
			&metav1.PartialObjectMetadata{TypeMeta: namespace, ObjectMeta: metav1.ObjectMeta{
				Namespace: "team-a", Name: "name", UID: "uid", ResourceVersion: "7", Labels: map[string]string{"app": "web"},
			}},
		},
		"of an object stay our own annotations": {
			&v1alpha1.GrafanaSecureValue{ObjectMeta: meta()},
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
				Namespace: "team-a", Name: "name", UID: "uid", ResourceVersion: "7", Generation: 2, Finalizers: []string{v1alpha1.Finalizer},
				Annotations: map[string]string{v1alpha1.AnnotationPendingTargets: "place", v1alpha1.AnnotationSyncNow: "now"},
			}},
		},
		"of a connection too, and its labels": {
			&v1alpha1.GrafanaConnection{ObjectMeta: meta()},
			&v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{
				Labels:    map[string]string{"app": "web"},
				Namespace: "team-a", Name: "name", UID: "uid", ResourceVersion: "7", Generation: 2, Finalizers: []string{v1alpha1.Finalizer},
				Annotations: map[string]string{v1alpha1.AnnotationPendingTargets: "place", v1alpha1.AnnotationSyncNow: "now"},
			}},
		},
		"of many finalizers stay some": {
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Finalizers: foreign(1000)}},
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Finalizers: foreign(16)}},
		},
		"of many finalizers stays ours": {
			&v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Finalizers: append(foreign(1000), v1alpha1.Finalizer)}},
			&v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Finalizers: append(foreign(15), v1alpha1.Finalizer)}},
		},
		"an annotation is bounded": {
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
				Annotations: map[string]string{v1alpha1.AnnotationSyncNow: strings.Repeat("x", 3*maxAnnotationBytes)},
			}},
			&v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
				Annotations: map[string]string{v1alpha1.AnnotationSyncNow: strings.Repeat("x", maxAnnotationBytes)},
			}},
		},
		"a tombstone": {cache.DeletedFinalStateUnknown{Key: "key"}, cache.DeletedFinalStateUnknown{Key: "key"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := strip(row.object)
			if err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// foreign returns finalizers of other controllers.
func foreign(n int) []string {
	finalizers := make([]string, n)
	for i := range finalizers {
		finalizers[i] = fmt.Sprint("example.com/finalizer-", i)
	}
	return finalizers
}

func TestObjectsShareStrings(t *testing.T) {
	made := func() *v1alpha1.GrafanaSecureValue {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Namespace = strings.Clone("team-a")
		sv.Spec.Decrypters = []string{strings.Clone("synthetic-monitoring")}
		sv.Status.Conditions = []metav1.Condition{{Reason: strings.Clone("Synced")}}
		if _, err := strip(sv); err != nil {
			t.Fatal(err)
		}
		return sv
	}
	one, two := made(), made()
	for name, pair := range map[string][2]string{
		"namespace": {one.Namespace, two.Namespace},
		"decrypter": {one.Spec.Decrypters[0], two.Spec.Decrypters[0]},
		"reason":    {one.Status.Conditions[0].Reason, two.Status.Conditions[0].Reason},
	} {
		if unsafe.StringData(pair[0]) != unsafe.StringData(pair[1]) {
			t.Errorf("%s %q is there twice", name, pair[0])
		}
	}
}
