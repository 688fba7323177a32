package securevalueset

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// newScheme has the kinds that a set reads.
func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// TestWhatIsMissingStays: a child whose Secret or connection does not exist is still selected, and one that is there and not selected is not.
func TestWhatIsMissingStays(t *testing.T) {
	scheme := newScheme(t)
	labels := map[string]string{"env": "prod"}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	secret := func(labels map[string]string, key string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "a", Labels: labels}, Data: map[string][]byte{key: nil}}
	}
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "other", Labels: labels}, Data: map[string][]byte{"o": nil}}
	conn := func(name string, labels map[string]string) client.Object {
		return &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name, Labels: labels}}
	}
	bySelector := func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Secrets = v1alpha1.SecretSelection{Selector: selector} }
	byConnections := func(s *v1alpha1.GrafanaSecureValueSetSpec) {
		s.ConnectionRefs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindGrafanaConnection, Selector: selector}}
	}
	for name, row := range map[string]struct {
		cached, live client.Object // the Secret
		conn         client.Object
		edit         func(*v1alpha1.GrafanaSecureValueSetSpec)
		want         bool
	}{
		"all is there":                        {secret(nil, "k"), secret(nil, "k"), conn("prod", nil), nil, true},
		"no key":                              {secret(nil, "other"), secret(nil, "other"), conn("prod", nil), nil, false},
		"no Secret":                           {nil, nil, conn("prod", nil), nil, true},
		"a Secret that the cache still shows": {secret(nil, "k"), nil, conn("prod", nil), nil, true},
		"no Secret, and it is not named":      {nil, nil, conn("prod", nil), func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Secrets.Names = []string{"other"} }, false},
		"no Secret, and its key is excluded":  {nil, nil, conn("prod", nil), func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Keys.Exclude = []string{"k"} }, false},
		"no Secret of a selector":             {nil, nil, conn("prod", nil), bySelector, true},
		"a Secret without the label":          {secret(nil, "k"), secret(nil, "k"), conn("prod", nil), bySelector, false},
		"no connection, which is named":       {secret(nil, "k"), secret(nil, "k"), nil, nil, true},
		"no connection of a selector":         {secret(nil, "k"), secret(nil, "k"), nil, byConnections, true},
		"a connection without the label":      {secret(nil, "k"), secret(nil, "k"), conn("prod", nil), byConnections, false},
		"no connection, of another kind": {secret(nil, "k"), secret(nil, "k"), nil, func(s *v1alpha1.GrafanaSecureValueSetSpec) {
			s.ConnectionRefs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindClusterGrafanaConnection, Selector: selector}}
		}, false},
		"neither Secret nor connection":         {nil, nil, nil, byConnections, true},
		"no Secret, connection without a label": {nil, nil, conn("prod", nil), byConnections, false},
	} {
		t.Run(name, func(t *testing.T) {
			set := newSet()
			set.Spec.ConnectionRefs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}}
			if row.edit != nil {
				row.edit(&set.Spec)
			}
			with := func(objects ...client.Object) client.Client {
				b := fake.NewClientBuilder().WithScheme(scheme).WithObjects(other)
				for _, o := range objects {
					if o != nil {
						b.WithObjects(o)
					}
				}
				return b.Build()
			}
			matched := conn("matched", labels) // so that the selector matches something
			r := &Reconciler{client: with(row.cached, row.conn, matched), live: with(row.live), served: connection.Served{Namespaced: true, Cluster: true}}
			from := selectedKey{"a", "k", prod}
			s, err := r.selected(t.Context(), set, []v1alpha1.GrafanaSecureValue{*child(set, from, nil)}, &memory{})
			if err != nil {
				t.Fatal(err)
			}
			if _, selected := s.keys[from]; selected != row.want {
				t.Errorf("selected is %t, want %t", selected, row.want)
			}
		})
	}
}

// TestManyKeysCostLittle: of what is far too much, no more is kept than shows that.
func TestManyKeysCostLittle(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "a"}, Data: map[string][]byte{}}
	for i := range 5000 {
		secret.Data[fmt.Sprintf("key%d", i)] = nil
	}
	c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(secret).Build()
	r, set, m := &Reconciler{client: c, live: c}, newSet(), &memory{}
	set.Spec.ConnectionRefs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}}
	if _, err := r.selected(t.Context(), set, nil, m); !status.IsReason(err, v1alpha1.ReasonTooManySecureValues) || !strings.Contains(err.Error(), "more than 1000 keys") {
		t.Errorf("got %v, want TooManySecureValues", err)
	}
	if n := len(m.secrets["a"].keys); n != v1alpha1.MaxSecureValues+1 {
		t.Errorf("%d keys are kept", n)
	}
	set.Generation, set.Spec.Keys.Include = 2, []string{"nothing"}
	s, err := r.selected(t.Context(), set, nil, m)
	if err != nil || len(m.secrets["a"].keys) != 0 || len(s.nothing) != 1 {
		t.Errorf("%d keys are kept, %v, says %q", len(m.secrets["a"].keys), err, s.nothing)
	}
}

func TestASetHasAtMostAThousand(t *testing.T) {
	for _, row := range []struct {
		keys, connections int
		tooMany           bool
	}{{1000, 1, false}, {1001, 1, true}, {500, 2, false}, {501, 2, true}} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "a"}, Data: map[string][]byte{}}
		for i := range row.keys {
			secret.Data[fmt.Sprintf("key%d", i)] = nil
		}
		c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(secret).Build()
		r, set := &Reconciler{client: c, live: c}, newSet()
		for i := range row.connections {
			set.Spec.ConnectionRefs = append(set.Spec.ConnectionRefs, v1alpha1.ConnectionSelection{Kind: v1alpha1.KindGrafanaConnection, Name: fmt.Sprint("conn", i)})
		}
		s, err := r.selected(t.Context(), set, nil, &memory{})
		switch {
		case row.tooMany && (!status.IsReason(err, v1alpha1.ReasonTooManySecureValues) || !strings.Contains(err.Error(), "more than 1000 keys")):
			t.Errorf("%d keys of %d connections: got %v, want TooManySecureValues", row.keys, row.connections, err)
		case !row.tooMany && (err != nil || len(s.keys) != row.keys*row.connections):
			t.Errorf("%d keys of %d connections: got %v", row.keys, row.connections, err)
		}
	}
}
