package securevalueset

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
)

// TestNothingIsPrunedOnTheWordOfAnOldCache: a Secret that has just got its label, or a connection that was made again, is not shown yet.
func TestNothingIsPrunedOnTheWordOfAnOldCache(t *testing.T) {
	with := func(version string) client.Client {
		b := fake.NewClientBuilder().WithScheme(newScheme(t))
		if version == "" {
			return b.Build()
		}
		return b.WithObjects(
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "a", ResourceVersion: version}},
			&v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "prod", ResourceVersion: version}},
		).Build()
	}
	for name, row := range map[string]struct {
		cached, live string
		want         error
	}{
		"the same":    {"7", "7", nil},
		"edited":      {"7", "8", errChanged},
		"gone":        {"7", "", errChanged},
		"made":        {"", "7", errChanged},
		"never there": {"", "", nil},
	} {
		r := &Reconciler{client: with(row.cached), live: with(row.live), served: connection.Served{Namespaced: true}}
		for what, get := range map[string]func(client.Reader) (client.Object, error){
			"Secret": func(reader client.Reader) (client.Object, error) {
				return secretVersion(t.Context(), reader, "team-a", "a")
			},
			"connection": func(reader client.Reader) (client.Object, error) {
				return connection.Get(t.Context(), reader, r.served, prod, "team-a")
			},
			"connection that is not served": func(reader client.Reader) (client.Object, error) {
				return connection.Get(t.Context(), reader, connection.Served{}, prod, "team-a")
			},
		} {
			want := row.want
			if what == "connection that is not served" {
				want = nil
			}
			if err := r.isCurrent(get); !errors.Is(err, want) {
				t.Errorf("%s, %s: got %v, want %v", what, name, err, want)
			}
		}
	}
}
