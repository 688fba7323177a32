package operator

import (
	"slices"
	"strings"
	"unique"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalueset"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// maxMetadataBytes bounds the labels, or the annotations, that are cached of an object, so that nobody fills the memory with them. It is twice
// what a set can give its GrafanaSecureValues.
const maxMetadataBytes = 32 << 10

// maxSecretLabelBytes bounds the labels that are cached of a Secret. One that has more is selected by no selector.
const maxSecretLabelBytes = 4 << 10

// isSmall reports whether labels or annotations are cached.
func isSmall(content map[string]string) bool { return sizeOf(content) <= maxMetadataBytes }

func sizeOf(content map[string]string) int {
	size := 0
	for key, value := range content {
		size += len(key) + len(value)
	}
	return size
}

// maxAnnotationBytes bounds what is cached of an annotation. It is more than either of ours may have: 16 pending targets of two names.
const maxAnnotationBytes = 16 << 10

// strip removes from an object what is never used, before it is cached, and has objects share the strings that they have in common.
// Nothing is ever written back whole.
func strip(obj any) (any, error) {
	o, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil //nolint:nilerr // not an object, for example a tombstone
	}
	if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
		share(&o.Kind, &o.APIVersion, &o.Namespace)
		used := metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}
		if o.Kind == "Namespace" || sizeOf(o.Labels) <= maxSecretLabelBytes { // selectors match them
			used.Labels = shared(o.Labels)
		}
		o.ObjectMeta = used
		return o, nil
	}
	o.SetManagedFields(nil)
	o.SetFinalizers(cut(o.GetFinalizers()))
	_, isConnection := obj.(v1alpha1.Connection)
	if g, ok := obj.(*grafanaoperator.Grafana); ok && !g.IsSmall() { // it could not be used anyway
		g.Spec = grafanaoperator.Spec{}
	}
	sv, isValue := obj.(*v1alpha1.GrafanaSecureValue)
	isOfSet := isValue && len(securevalueset.SetsOf(sv)) > 0 // which compares all that it gave it
	if !isOfSet || !isSmall(o.GetAnnotations()) {
		o.SetAnnotations(used(o.GetAnnotations()))
	}
	if set, labeled := o.GetLabels()[v1alpha1.LabelSet]; !isOfSet && !isConnection || !isSmall(o.GetLabels()) {
		o.SetLabels(nil)
		if labeled && isOfSet {
			o.SetLabels(map[string]string{v1alpha1.LabelSet: set})
		}
	}
	owner := metav1.GetControllerOf(o)
	o.SetOwnerReferences(nil)
	if isOfSet && owner != nil {
		o.SetOwnerReferences([]metav1.OwnerReference{*owner})
	}
	if isValue {
		shareOf(sv)
	}
	return obj, nil
}

// cut returns at most MaxCachedFinalizers, and ours if it is among them.
func cut(finalizers []string) []string {
	if len(finalizers) <= status.MaxCachedFinalizers {
		return finalizers
	}
	kept := slices.Clone(finalizers[:status.MaxCachedFinalizers])
	if slices.Contains(finalizers, v1alpha1.Finalizer) && !slices.Contains(kept, v1alpha1.Finalizer) {
		kept[len(kept)-1] = v1alpha1.Finalizer
	}
	return kept
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

// shared returns the labels with one copy of each string for all objects.
func shared(labels map[string]string) map[string]string {
	if labels == nil {
		return nil
	}
	copies := make(map[string]string, len(labels))
	for key, value := range labels {
		share(&key, &value)
		copies[key] = value
	}
	return copies
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
	if d := sv.Status.Desired; d != nil {
		share(&d.Connection.Name, (*string)(&d.Connection.Kind))
		if d.Name == sv.Name {
			d.Name = sv.Name
		}
	}
	for i := range sv.Status.Targets {
		t := &sv.Status.Targets[i]
		share(&t.Connection.Name, (*string)(&t.Connection.Kind), &t.Namespace)
	}
}
