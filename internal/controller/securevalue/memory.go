package securevalue

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// memory keeps what the API server answered to our own writes until the cache shows it: a cache that lags must not make us
// write the same value twice. It is told of each object that the cache shows. Its zero value is ready for use.
type memory struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*v1alpha1.GrafanaSecureValue
	buried  map[types.NamespacedName]*v1alpha1.GrafanaSecureValue // gone, and not everything that they held is given up; see bury
}

// remember keeps the answer to a write.
func (m *memory) remember(sv *v1alpha1.GrafanaSecureValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.objects[keyOf(sv)]; known != nil && isOlder(sv, known) {
		return // two have written at a time, and this answer comes last
	}
	if m.objects == nil {
		m.objects = map[types.NamespacedName]*v1alpha1.GrafanaSecureValue{}
	}
	m.objects[keyOf(sv)] = sv.DeepCopy()
}

// newest returns the newer of what the cache shows and what is remembered.
func (m *memory) newest(cached *v1alpha1.GrafanaSecureValue) *v1alpha1.GrafanaSecureValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.objects[keyOf(cached)]; known != nil && (isOlder(cached, known) || isEnd(cached, known)) {
		return known.DeepCopy()
	}
	return cached
}

// isEnd reports whether an answer is to the removal of our finalizer from what the cache shows. Where that was the last one, the object is
// gone, and the answer has the version that it had before (k8s.io/apiserver, pkg/registry/generic/registry/store.go, deleteWithoutFinalizers).
func isEnd(cached, answer *v1alpha1.GrafanaSecureValue) bool {
	return cached.UID == answer.UID && !answer.DeletionTimestamp.IsZero() && !isOlder(answer, cached) &&
		!controllerutil.ContainsFinalizer(answer, v1alpha1.Finalizer)
}

// shown ends the memory of an object once the cache shows one as new.
func (m *memory) shown(cached *v1alpha1.GrafanaSecureValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.objects[keyOf(cached)]; known != nil && !isOlder(cached, known) {
		delete(m.objects, keyOf(cached))
	}
}

// isOlder reports whether a is an older version than b of the same object.
func isOlder(a, b *v1alpha1.GrafanaSecureValue) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// maxBuried bounds the objects that bury keeps.
const maxBuried = 1000

// bury keeps of an object that is gone what is needed to give up what it still holds. It reports false where too many are kept.
func (m *memory) bury(sv *v1alpha1.GrafanaSecureValue) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.buried == nil {
		m.buried = map[types.NamespacedName]*v1alpha1.GrafanaSecureValue{}
	}
	if m.buried[keyOf(sv)] == nil && len(m.buried) >= maxBuried {
		return false
	}
	grave := &v1alpha1.GrafanaSecureValue{}
	grave.Namespace, grave.Name, grave.UID = sv.Namespace, sv.Name, sv.UID
	if about := sv.Annotations[v1alpha1.AnnotationIntent]; about != "" {
		grave.Annotations = map[string]string{v1alpha1.AnnotationIntent: about}
	}
	grave.Spec.DeletionPolicy = sv.Spec.DeletionPolicy
	grave.Status.Targets = sv.Status.DeepCopy().Targets
	m.buried[keyOf(sv)] = grave
	return true
}

// exhume returns an object that bury kept, or nil.
func (m *memory) exhume(key types.NamespacedName) *v1alpha1.GrafanaSecureValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buried[key].DeepCopy()
}

// graves returns all objects that bury keeps. They must not be changed.
func (m *memory) graves() []*v1alpha1.GrafanaSecureValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.buried))
}

// unbury ends what bury has begun for this object, and not for an earlier one of that name.
func (m *memory) unbury(gone *v1alpha1.GrafanaSecureValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if grave := m.buried[keyOf(gone)]; grave != nil && grave.UID == gone.UID {
		delete(m.buried, keyOf(gone))
	}
}

// forget ends the memory of the writes to an object that is gone.
func (m *memory) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
}

func keyOf(sv *v1alpha1.GrafanaSecureValue) types.NamespacedName {
	return types.NamespacedName{Namespace: sv.Namespace, Name: sv.Name}
}
