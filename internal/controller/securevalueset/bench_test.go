package securevalueset

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// BenchmarkPlan is what a reconcile of a set of 1,000 keys computes, with all in sync.
func BenchmarkPlan(b *testing.B) {
	set := &v1alpha1.GrafanaSecureValueSet{}
	set.Namespace, set.Name, set.UID = "team-a", "monitoring", types.UID("1")
	set.Spec.Template.Spec.Decrypters = []string{"synthetic-monitoring"}
	conn := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	s := &selection{keys: map[selectedKey]bool{}, connections: map[v1alpha1.ConnectionReference]v1alpha1.Connection{conn: &v1alpha1.GrafanaConnection{}}}
	for i := range v1alpha1.MaxSecureValues {
		s.keys[selectedKey{fmt.Sprintf("sm-%d", i%2), fmt.Sprintf("key-%04d", i), conn}] = true
	}
	children, err := wantedBy(b.Context(), set, s)
	if err != nil {
		b.Fatal(err)
	}
	m := &memory{}
	for b.Loop() {
		m.begins(set)
		s.names = m.namesOf(s.keys)
		wanted, err := wantedBy(b.Context(), set, s)
		if err != nil {
			b.Fatal(err)
		}
		if p := planFor(set, wanted, children, nil, s, false); len(p.asWanted) != len(children) {
			b.Fatal("not all are as wanted")
		}
	}
}
