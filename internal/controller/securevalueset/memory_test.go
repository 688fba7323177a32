package securevalueset

import (
	"slices"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestNamesAreThoseOfTheTemplateAndTheSelectedKeys(t *testing.T) {
	conn := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	m, set := &memory{}, &v1alpha1.GrafanaSecureValueSet{}
	set.Name = "monitoring"
	for _, step := range []struct {
		generation int64
		template   string
		keys       []string
		want       []string
		known      int
	}{
		{1, "{{ .Key }}", []string{"a", "b"}, []string{"a", "b"}, 0},
		{1, "{{ .Key }}", []string{"b", "c"}, []string{"b", "c"}, 1},
		{2, "{{ .Key }}-new", []string{"b", "c"}, []string{"b-new", "c-new"}, 0},
	} {
		s := &selection{keys: map[selectedKey]bool{}, connections: map[v1alpha1.ConnectionReference]v1alpha1.Connection{conn: nil}}
		for _, key := range step.keys {
			s.keys[selectedKey{"sm", key, conn}] = true
		}
		set.Generation, set.Spec.NameTemplate = step.generation, step.template
		m.begins(set)
		s.names = m.namesOf(s.keys)
		if known := len(s.names); known != step.known {
			t.Errorf("%s of %v: %d names are known, want %d", step.template, step.keys, known, step.known)
		}
		wanted, err := wantedBy(t.Context(), set, s)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, child := range wanted {
			names = append(names, child.Spec.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, step.want) {
			t.Errorf("%s of %v makes %v, want %v", step.template, step.keys, names, step.want)
		}
	}
}
