package securevalue

import (
	"encoding/json"
	"slices"
	"strconv"
)

// removeFinalizer returns a JSON patch that removes the finalizer, and first tests that it is still where it was read, so
// that nobody else's is removed. It reports false if the finalizer is not in the list.
func removeFinalizer(finalizers []string, name string) ([]byte, bool, error) {
	i := slices.Index(finalizers, name)
	if i < 0 {
		return nil, false, nil
	}
	path := "/metadata/finalizers/" + strconv.Itoa(i)
	patch, err := json.Marshal([]map[string]string{
		{"op": "test", "path": path, "value": name},
		{"op": "remove", "path": path},
	})
	return patch, true, err
}
