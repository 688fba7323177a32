package securevalue

import (
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// sameBucket returns another name that an index does not tell from this one.
func sameBucket(name string) string {
	for i := 0; ; i++ {
		if other := name + strconv.Itoa(i); bucket(other) == bucket(name) {
			return other
		}
	}
}

func TestASecretConcernsThoseWhoReadIt(t *testing.T) {
	w := newWorld(t, newFront(t), grafanatest.New())
	other := w.value("other")
	other.Spec.ValueFrom.SecretKeyRef.Name = sameBucket("source")
	w.create(w.value("api-key"))
	w.create(other)
	w.restart()
	for secret, want := range map[string]string{"source": "api-key", sameBucket("source"): "other"} {
		got := w.process.values.readingSecret(t.Context(), &metav1.PartialObjectMetadata{
			ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: secret},
		})
		if len(got) != 1 || got[0].NamespacedName != (client.ObjectKey{Namespace: worldNamespace, Name: want}) {
			t.Errorf("a change of %s wakes %v, want %s", secret, got, want)
		}
	}
}
