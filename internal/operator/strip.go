package operator

import (
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// maxAnnotationBytes bounds what is cached of an annotation. It is more than either of ours may have.
const maxAnnotationBytes = 2048

// strip returns what takes out of an object what is never used, before it is cached, and has objects share the strings that they have
// in common. Nothing is ever written back whole.
func strip() func(any) (any, error) {
	common := &commons{}
	return func(obj any) (any, error) {
		o, err := meta.Accessor(obj)
		if err != nil {
			return obj, nil //nolint:nilerr // not an object, as a tombstone
		}
		o.SetManagedFields(nil)
		switch o := obj.(type) {
		case *metav1.PartialObjectMetadata:
			share(common, &o.Kind, &o.APIVersion, &o.Namespace)
			if o.Kind == "Secret" {
				o.ObjectMeta = metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}
				return o, nil
			}
		case *v1alpha1.GrafanaSecureValue:
			o.Labels, o.OwnerReferences = nil, nil
			common.shareOf(o)
		}
		o.SetAnnotations(used(o.GetAnnotations()))
		return obj, nil
	}
}

// used returns the annotations that are read.
func used(annotations map[string]string) map[string]string {
	var kept map[string]string
	for _, name := range []string{v1alpha1.AnnotationIntent, v1alpha1.AnnotationSyncNow} {
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

// Bounds of commons.
const (
	maxCommons     = 4096
	maxCommonBytes = 64
)

// commons keeps one copy of strings that many objects have: JSON makes a new one each time. Its zero value is ready for use.
type commons struct {
	mu  sync.Mutex
	all map[string]string
}

// share replaces strings by the copies that others have.
func share[S ~string](c *commons, strings ...*S) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range strings {
		known, found := c.all[string(*s)]
		switch {
		case found:
			*s = S(known)
		case len(*s) <= maxCommonBytes && len(c.all) < maxCommons:
			if c.all == nil {
				c.all = map[string]string{}
			}
			c.all[string(*s)] = string(*s)
		}
	}
}

// shareOf shares what an object has in common with most others.
func (c *commons) shareOf(sv *v1alpha1.GrafanaSecureValue) {
	spec := &sv.Spec
	share(c, &sv.Kind, &sv.APIVersion, &sv.Namespace, &spec.ConnectionRef.Name, &spec.ValueFrom.SecretKeyRef.Key)
	share(c, &spec.ConnectionRef.Kind)
	share(c, &spec.DeletionPolicy)
	share(c, &spec.DriftPolicy)
	share(c, &spec.AdoptionPolicy)
	for _, list := range [][]string{sv.Finalizers, spec.Decrypters} {
		for i := range list {
			share(c, &list[i])
		}
	}
	for i := range sv.Status.Conditions {
		condition := &sv.Status.Conditions[i]
		share(c, &condition.Type, &condition.Reason, &condition.Message)
		share(c, &condition.Status)
	}
	for i := range sv.Status.Targets {
		t := &sv.Status.Targets[i]
		share(c, &t.Connection.Name, &t.Namespace)
		share(c, &t.Connection.Kind)
	}
}
