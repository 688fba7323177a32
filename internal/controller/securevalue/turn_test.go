package securevalue

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// TestARefusalElsewhereCostsNoTurn: an object that may not delete what it holds on one connection has its turn on a busy one as others do.
func TestARefusalElsewhereCostsNoTurn(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.workers = 8 // or there would be none for whoever has its turn instead
		busy := w.connection("busy", "default")
		busy.Spec.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: new(int32(1))}
		w.create(busy)
		const before, after = 5, 10
		value := func(name, secret, connection string) {
			sv := w.value(name)
			sv.Spec.ValueFrom.SecretKeyRef.Name, sv.Spec.ConnectionRef.Name = secret, connection
			w.create(sv)
		}
		rotate := func(secret, content string) { w.secret(worldNamespace, secret, "key", content) }
		rotate("early", "canary-1")
		rotate("late", "canary-1")
		value("leaves", "early", "busy")
		for i := range before {
			value(fmt.Sprint("early-", i), "early", "busy")
		}
		for i := range after {
			value(fmt.Sprint("late-", i), "late", "busy")
		}
		w.restart()
		w.settle()

		refuse := func(name string) func() {
			return w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbDelete, Name: name, Code: http.StatusForbidden})
		}
		grant := refuse("leaves")
		refuse("moved")
		w.edit("leaves", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name, sv.Spec.Name = "prod", "moved" })
		w.settle()
		if held := heldPlaces(w.get(worldNamespace, "leaves")); len(held) != 2 || held[0].name != "moved" {
			t.Fatalf("it holds %v", held)
		}
		grant()
		rotate("early", "canary-2")
		w.run()
		w.remove(w.get(worldNamespace, "leaves"))
		w.run()
		rotate("late", "canary-2")
		w.run()
		waits := func() (n int) {
			for i := range after {
				if v, _ := w.grafana.Value("default", fmt.Sprint("late-", i)); string(v.Value) != "canary-2" {
					n++
				}
			}
			return n
		}
		if n := waits(); n != after {
			t.Fatalf("%d of %d wait behind it", n, after)
		}
		for there := true; there; _, there = w.grafana.Value("default", "leaves") {
			w.pass(time.Second)
		}
		if waits() == 0 {
			t.Error("all who came later have had their turn before it")
		}
		w.process.dead.Store(true)
	})
}
