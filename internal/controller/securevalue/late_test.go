package securevalue

import (
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// TestALateCacheWritesNothingTwice: an object that is looked at again before the cache shows what was written of it is in step.
func TestALateCacheWritesNothingTwice(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("first")
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Second)
		w.source("second")
		w.deliver()
		for range 3 { // nothing more is delivered
			w.process.add(item{kindValue, types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}})
			for w.process.work() {
			}
		}
		if n := w.written(); n != 2 {
			t.Errorf("%d versions were written of two values", n)
		}
		w.process.dead.Store(true)
	})
}
