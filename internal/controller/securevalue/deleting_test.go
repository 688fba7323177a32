package securevalue

import (
	"context"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// A connection that is being deleted goes on with what was written through it, however the value is made.
func TestAConnectionThatIsDeletedServesWhatItWrote(t *testing.T) {
	for name, from := range map[string]v1alpha1.ValueSource{
		"a key":      {SecretKeyRef: v1alpha1.SecretKeyReference{Name: "source", Key: "key"}},
		"a template": templateOf("{{ .source.key }}", "source"),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				sv := w.value("api-key")
				sv.Spec.ValueFrom = from
				w.create(sv)
				w.restart()
				w.pass(time.Minute)
				conn := &v1alpha1.GrafanaConnection{}
				w.must(w.api.Get(context.Background(), client.ObjectKey{Namespace: worldNamespace, Name: "prod"}, conn)) //nolint:forbidigo // the API server ends with the world
				w.remove(conn)
				w.source("canary-2")
				w.pass(time.Minute)
				w.expectStored(t, "canary-2")
			})
		})
	}
}
