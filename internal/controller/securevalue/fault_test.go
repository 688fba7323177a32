package securevalue

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Whoever reads of trouble with a connection is told which one it is, and the command that tells more, wherever the trouble was met.
func TestTroubleNamesTheConnection(t *testing.T) {
	shared := connection.IDOf(v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "prod"}, testObject.Namespace)
	trouble := func(class status.Class, reason string) error {
		return &connection.Trouble{Verdict: status.Verdict{Class: class, Reason: reason}}
	}
	failed := func(kind error) error { return fmt.Errorf("%w: %w", kind, &grafana.Error{Op: "create", Name: "db"}) }
	for name, row := range map[string]struct {
		id     connection.ID
		err    error
		reason string
		parts  []string
	}{
		"a person must end it": {
			testID, trouble(status.Elsewhere, v1alpha1.ReasonUnauthorized), v1alpha1.ReasonConnectionNotReady,
			[]string{`GrafanaConnection "prod" is not ready (Unauthorized).`, "by itself", "See: kubectl describe gconn prod -n team-a"},
		},
		"a shared connection": {
			shared, trouble(status.Elsewhere, v1alpha1.ReasonTLSError), v1alpha1.ReasonConnectionNotReady,
			[]string{`ClusterGrafanaConnection "prod" is not ready (TLSError).`, "See: kubectl describe cgconn prod"},
		},
		"time may heal it": {
			testID, trouble(status.Time, v1alpha1.ReasonUnreachable), v1alpha1.ReasonGrafanaUnavailable,
			[]string{`GrafanaConnection "prod" cannot reach Grafana (Unreachable).`, "See: kubectl describe gconn prod -n team-a"},
		},
		"the token is refused in a call": {
			testID, failed(grafana.ErrUnauthorized), v1alpha1.ReasonConnectionNotReady,
			[]string{`GrafanaConnection "prod" is not ready (Unauthorized).`, "See: kubectl describe gconn prod -n team-a"},
		},
		"an action is missing": {
			testID, failed(grafana.ErrForbidden), v1alpha1.ReasonForbidden,
			[]string{`The token of GrafanaConnection "prod" lacks the action secret.securevalues:create`, "kubectl describe gconn prod -n team-a"},
		},
	} {
		for where, err := range map[string]error{
			"held": metThrough(row.id, row.err),
			"left": &blocked{object: testObject, place: testPlace, cause: metThrough(row.id, row.err)},
		} {
			t.Run(name+"/"+where, func(t *testing.T) {
				got, known := classify(err)
				if where == "held" && got.Reason != row.reason || where == "left" && got.Reason != v1alpha1.ReasonDeletionBlocked || !known {
					t.Errorf("verdict = %+v", got)
				}
				for _, part := range row.parts {
					if !strings.Contains(got.Message, part) {
						t.Errorf("message %q lacks %q", got.Message, part)
					}
				}
			})
		}
	}
}

// A holder is named to its own namespace alone.
func TestHolderOf(t *testing.T) {
	for name, row := range map[string]struct {
		cluster string
		object  types.NamespacedName
		want    string
	}{
		"of the same namespace": {"cluster-1", types.NamespacedName{Namespace: testObject.Namespace, Name: "old"}, `GrafanaSecureValue "old" of this namespace`},
		"of another namespace":  {"cluster-1", types.NamespacedName{Namespace: "team-b", Name: "old"}, "another GrafanaSecureValue"},
		"of another cluster":    {"cluster-2", types.NamespacedName{Namespace: testObject.Namespace, Name: "old"}, "another GrafanaSecureValue"},
	} {
		t.Run(name, func(t *testing.T) {
			found := shown()
			marksOf(row.cluster, row.object, testID).put(found)
			if got := holderOf(testMarks, found); got != row.want {
				t.Errorf("holder = %s, want %s", got, row.want)
			}
		})
	}
}
