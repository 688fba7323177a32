package securevalue

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// BenchmarkReconcileInStep is a look at an object where there is nothing to do, as at each object after a restart.
func BenchmarkReconcileInStep(b *testing.B) {
	w := newWorld(b, newFront(b), grafanatest.New())
	w.source("canary")
	w.create(w.value("api-key"))
	w.restart()
	w.run()
	if got := status.Reason(w.get(worldNamespace, "api-key").Status.Conditions); got != v1alpha1.ReasonSynced {
		b.Fatalf("the object is %s", got)
	}
	req := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}}
	calls := w.callCount()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.process.controllers[kindValue].Reconcile(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
	if made := w.callCount() - calls; made > 0 {
		b.Fatalf("%d calls were made although there was nothing to do", made)
	}
}

// BenchmarkDecide is the decision about a place that was asked.
func BenchmarkDecide(b *testing.B) {
	want := wantPresent()
	seen := observed{held: true, record: recorded(), looked: true, found: shown(), owner: own}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decide(want, seen); err != nil {
			b.Fatal(err)
		}
	}
}
