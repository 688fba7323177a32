package connection

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// wakes is a queue that keeps the names which were added.
type wakes struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request] // what is not needed panics

	names []string
}

func (w *wakes) Add(req reconcile.Request) { w.names = append(w.names, req.Name) }

func TestTheOldestConnectionsOfANamespaceAreServed(t *testing.T) {
	registry, woken := NewRegistry(0), &wakes{}
	registry.MaxPerNamespace = 2
	if err := registry.Connections[v1alpha1.KindGrafanaConnection].Start(t.Context(), woken); err != nil {
		t.Fatal(err)
	}
	events := registry.noteAges()
	made := func(name string, second int) *v1alpha1.GrafanaConnection {
		conn := connectionIn("team-a")
		conn.Name, conn.CreationTimestamp = name, metav1.Time{Time: testTime.Add(time.Duration(second) * time.Second)}
		return conn
	}
	a, b, c, d := made("a", 1), made("b", 1), made("c", 0), made("d", 2)
	for i, step := range []struct {
		do     func() bool
		served string // of a, b, c and d, those that exist or not
		woken  []string
	}{
		{func() bool { return events.Create(event.CreateEvent{Object: b}) }, "[true true true true]", nil},
		{func() bool { return events.Create(event.CreateEvent{Object: d}) }, "[true true true true]", []string{"d"}},
		{func() bool { return events.Create(event.CreateEvent{Object: a}) }, "[true true true false]", []string{"b", "d"}},
		{func() bool { return events.Create(event.CreateEvent{Object: c}) }, "[true false true false]", []string{"a", "b"}},
		{func() bool { return events.Update(event.UpdateEvent{ObjectOld: c, ObjectNew: c}) }, "[true false true false]", nil},
		{func() bool {
			old := c
			c = made("c", 3) // deleted and created again
			return events.Update(event.UpdateEvent{ObjectOld: old, ObjectNew: c})
		}, "[true true false false]", []string{"b", "d", "b", "d"}},
		{func() bool { return events.Delete(event.DeleteEvent{Object: a}) }, "[true true false true]", []string{"d", "c"}},
	} {
		woken.names = nil
		if !step.do() {
			t.Errorf("step %d: the event does not pass", i)
		}
		served := fmt.Sprint([]bool{registry.serves(a), registry.serves(b), registry.serves(c), registry.serves(d)})
		if served != step.served || !slices.Equal(woken.names, step.woken) {
			t.Errorf("step %d: served %s, want %s; woken %q, want %q", i, served, step.served, woken.names, step.woken)
		}
	}
	if shared := (&v1alpha1.ClusterGrafanaConnection{}); !registry.serves(shared) || !registry.serves(connectionIn("team-b")) {
		t.Error("the bound is not one of the namespace alone")
	}
	if registry.MaxPerNamespace = 0; !registry.serves(d) || !registry.serves(c) {
		t.Error("without a bound not all are served")
	}
}
