package connection

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// released counts the patches that it is asked for, and refuses them.
type released struct {
	client.Client

	patches int
}

func (r *released) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	r.patches++
	return context.Canceled
}

// TestALateCacheLetsNoConnectionGo: that nobody needs a connection is for the API server itself to say.
func TestALateCacheLetsNoConnectionGo(t *testing.T) {
	for _, inUse := range []bool{true, false} {
		api := &released{}
		r := &Reconciler{client: api, objects: Objects{
			Users: func(context.Context, v1alpha1.Connection) (int, error) { return 0, nil },
			InUse: func(context.Context, v1alpha1.Connection) (bool, error) { return inUse, nil },
		}}
		now := metav1.Now()
		conn := &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{
			Namespace: "team-a", Name: "prod", Finalizers: []string{v1alpha1.Finalizer}, DeletionTimestamp: &now,
		}}
		if gone, _ := r.letGo(t.Context(), conn); gone || (api.patches == 0) != inUse {
			t.Errorf("in use %t: gone %t, %d patches", inUse, gone, api.patches)
		}
	}
}

// A connection that is made anew under the name before its predecessor is seen to be gone is that of the same entry.
func TestAConnectionMadeAnewIsReadyAgain(t *testing.T) {
	l := newLabAt(t, "http://grafana.example.com")
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	l.Reconciler.client = fake.NewClientBuilder().WithScheme(scheme).Build()
	l.recorder = events.NewFakeRecorder(10)
	found := l.found(l.client(), "1", nil)
	found.fresh = false
	expect := func(conn *v1alpha1.GrafanaConnection, ready bool) {
		t.Helper()
		if _, err := l.report(t.Context(), conn, found); err != nil {
			t.Fatal(err)
		}
		if states := l.registry.States(); len(states) != 1 || states[0].Ready != ready {
			t.Errorf("the states are %+v, want ready %t", states, ready)
		}
	}
	now := metav1.Now()
	old := l.conn.DeepCopy()
	old.Finalizers, old.DeletionTimestamp = []string{v1alpha1.Finalizer}, &now
	expect(l.conn.DeepCopy(), true)
	expect(old, false)
	expect(l.conn.DeepCopy(), true)
}
