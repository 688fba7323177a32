package operator

import (
	"strings"
	"unique"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// maxAnnotationBytes bounds what is cached of an annotation. It is more than either of ours may have: 16 pending targets of two names.
const maxAnnotationBytes = 16 << 10

// strip removes from an object what is never used, before it is cached, and has objects share the strings that they have in common.
// Nothing is ever written back whole.
func strip(obj any) (any, error) {
	o, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil //nolint:nilerr // not an object, for example a tombstone
	}
	o.SetManagedFields(nil)
	switch o := obj.(type) {
	case *metav1.PartialObjectMetadata:
		share(&o.Kind, &o.APIVersion, &o.Namespace)
		if o.Kind == "Secret" {
			o.ObjectMeta = metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}
			return o, nil
		}
	case *v1alpha1.GrafanaSecureValue:
		o.Labels, o.OwnerReferences = nil, nil
		shareOf(o)
	}
	o.SetAnnotations(used(o.GetAnnotations()))
	return obj, nil
}

// used returns the annotations that are read.
func used(annotations map[string]string) map[string]string {
	var kept map[string]string
	for _, name := range []string{v1alpha1.AnnotationPendingTargets, v1alpha1.AnnotationSyncNow} {
		content, found := annotations[name]
		if !found {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = strings.Clone(content[:min(len(content), maxAnnotationBytes)])
	}
	return kept
}

// share replaces strings by one copy for all objects: JSON makes a new one each time.
func share(strings ...*string) {
	for _, s := range strings {
		*s = unique.Make(*s).Value()
	}
}

// shareOf shares what an object has in common with most others.
func shareOf(sv *v1alpha1.GrafanaSecureValue) {
	spec := &sv.Spec
	share(&sv.Kind, &sv.APIVersion, &sv.Namespace, &spec.ConnectionRef.Name, (*string)(&spec.ConnectionRef.Kind), &spec.ValueFrom.SecretKeyRef.Key,
		(*string)(&spec.DeletionPolicy), (*string)(&spec.DriftPolicy), (*string)(&spec.AdoptionPolicy))
	for _, list := range [][]string{sv.Finalizers, spec.Decrypters} {
		for i := range list {
			share(&list[i])
		}
	}
	for i := range sv.Status.Conditions {
		c := &sv.Status.Conditions[i]
		share(&c.Type, &c.Reason, &c.Message, (*string)(&c.Status))
	}
	for i := range sv.Status.Targets {
		t := &sv.Status.Targets[i]
		share(&t.Connection.Name, (*string)(&t.Connection.Kind), &t.Namespace)
	}
}
