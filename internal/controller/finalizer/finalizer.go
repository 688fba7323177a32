// Package finalizer removes the operator's finalizer from objects, and never anybody else's.
package finalizer

import (
	"encoding/json"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// Removal returns a JSON patch that removes the operator's finalizer, and first tests that it is still where it was read. It
// reports false if the finalizer is not in the list.
func Removal(finalizers []string) (client.Patch, bool, error) {
	i := slices.Index(finalizers, v1alpha1.Finalizer)
	if i < 0 {
		return nil, false, nil
	}
	path := "/metadata/finalizers/" + strconv.Itoa(i)
	patch, err := json.Marshal([]map[string]string{
		{"op": "test", "path": path, "value": v1alpha1.Finalizer},
		{"op": "remove", "path": path},
	})
	return client.RawPatch(types.JSONPatchType, patch), true, err
}
