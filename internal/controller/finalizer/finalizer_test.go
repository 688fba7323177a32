package finalizer

import (
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestRemoval(t *testing.T) {
	patch, found, err := Removal([]string{"foregroundDeletion", v1alpha1.Finalizer})
	if err != nil || !found {
		t.Fatalf("found %t, %v", found, err)
	}
	want := `[{"op":"test","path":"/metadata/finalizers/1","value":"grafana.securevalues.io/finalizer"},` +
		`{"op":"remove","path":"/metadata/finalizers/1"}]`
	if data, err := patch.Data(nil); err != nil || string(data) != want {
		t.Errorf("patch = %s, %v", data, err)
	}
	if _, found, _ := Removal([]string{"foregroundDeletion"}); found {
		t.Error("found a finalizer that is not there")
	}
}
