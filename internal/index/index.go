// Package index finds GrafanaSecureValues in the cache by a value that few of them have in common.
package index

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// buckets is the number of keys of an index. The cache keeps a set of objects for each key, and each key twice: with and without the namespace.
// Where nearly every object has a value of its own, a key for each value would be a third of the memory that an object takes.
const buckets = 2048

// Index is a field index whose keys are hashes of the values.
type Index struct {
	// Field is its name.
	Field string
	// Values returns what an object is found by.
	Values func(*v1alpha1.GrafanaSecureValue) []string
}

// AddTo has the cache keep the index.
func (i Index) AddTo(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &v1alpha1.GrafanaSecureValue{}, i.Field, i.Keys)
}

// Keys returns the keys of a GrafanaSecureValue. It is a client.IndexerFunc.
func (i Index) Keys(o client.Object) []string {
	sv, _ := o.(*v1alpha1.GrafanaSecureValue) // the index is of this kind
	var keys []string
	for _, value := range i.Values(sv) {
		if key := keyOf(value); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Find returns the objects of a namespace, or of all if it is empty, that have the value. They are the cache's own and must not be changed.
func (i Index) Find(ctx context.Context, cache client.Reader, namespace, value string) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := cache.List(ctx, list, client.InNamespace(namespace), client.MatchingFields{i.Field: keyOf(value)}, client.UnsafeDisableDeepCopy)
	found := list.Items[:0]
	for n := range list.Items {
		if slices.Contains(i.Values(&list.Items[n]), value) {
			found = append(found, list.Items[n])
		}
	}
	return found, err
}

func keyOf(value string) string {
	hash := fnv.New32a()
	hash.Write([]byte(value))
	return strconv.Itoa(int(hash.Sum32() % buckets))
}
