package grafanaoperator

import (
	"encoding/json"
	"reflect"
	"testing"
)

// The cache hands out copies.
func TestACopyIsWholeAndItsOwn(t *testing.T) {
	const whole = `{"items":[{"metadata":{"name":"a","labels":{"b":"c"}},"spec":{"client":{"tls":{"certSecretRef":{"name":"d"}}},` +
		`"external":{"url":"e","apiKey":{"name":"f","key":"g"},"tls":{"certSecretRef":{"name":"h","namespace":"i"}},"tenantNamespace":"j"}}}]}`
	read := func() *GrafanaList {
		list := &GrafanaList{}
		if err := json.Unmarshal([]byte(whole), list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := read()
	copied, ok := list.DeepCopyObject().(*GrafanaList)
	if !ok || !reflect.DeepEqual(copied, list) {
		t.Fatalf("the copy is %+v", copied)
	}
	changed := &copied.Items[0]
	changed.Labels["b"], changed.Spec.External.URL = "x", "x"
	changed.Spec.Client.TLS.CertSecretRef.Name, changed.Spec.External.TLS.CertSecretRef.Name = "x", "x"
	if !reflect.DeepEqual(list, read()) {
		t.Errorf("a change of the copy changes the original: %+v", list)
	}
}
