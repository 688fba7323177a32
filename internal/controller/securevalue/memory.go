package securevalue

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// memory keeps what the API server answered to our own writes until the cache shows it: a cache that lags must not make us
// write the same value twice. It is told of each object that the cache shows. Its zero value is ready for use.
type memory struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*v1alpha1.GrafanaSecureValue
	buried  map[types.NamespacedName]*v1alpha1.GrafanaSecureValue // gone, and not everything that they held is given up
}

// remember keeps the answer to a write.
func (m *memory) remember(sv *v1alpha1.GrafanaSecureValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = map[types.NamespacedName]*v1alpha1.GrafanaSecureValue{}
	}
	m.objects[keyOf(sv)] = sv.DeepCopy()
}

// newest returns the newer of what the cache shows and what is remembered.
func (m *memory) newest(cached *v1alpha1.GrafanaSecureValue) *v1alpha1.GrafanaSecureValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.objects[keyOf(cached)]; known != nil && isOlder(cached, known) {
		return known.DeepCopy()
	}
	return cached
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

// bury keeps an object that is gone, with what it still holds.
func (m *memory) bury(sv *v1alpha1.GrafanaSecureValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.buried == nil {
		m.buried = map[types.NamespacedName]*v1alpha1.GrafanaSecureValue{}
	}
	m.buried[keyOf(sv)] = sv.DeepCopy()
}

// exhume returns an object that bury kept, or nil.
func (m *memory) exhume(key types.NamespacedName) *v1alpha1.GrafanaSecureValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buried[key].DeepCopy()
}

// forget ends the memory of an object that is gone.
func (m *memory) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	delete(m.buried, key)
}

func keyOf(sv *v1alpha1.GrafanaSecureValue) types.NamespacedName {
	return types.NamespacedName{Namespace: sv.Namespace, Name: sv.Name}
}
