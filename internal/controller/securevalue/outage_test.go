package securevalue

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// What an outage costs, whatever fails: nothing for the objects that are in sync, one report for those that have something to write, a few
// requests each minute, and one write each when it is over.
func TestAnOutageCostsWhatTheBudgetsAllow(t *testing.T) {
	for name, objects := range map[string]struct {
		fails func(method string) bool
		each  int // in sync, and waiting
	}{
		"nothing is answered": {func(string) bool { return true }, 1000},
		"every write fails":   {func(method string) bool { return method != "GET" }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, f, grafanatest.New())
				w.source("canary-1")
				w.secret(worldNamespace, "rotates", "key", "canary-1")
				waits := w.value("waits")
				waits.Spec.ValueFrom.SecretKeyRef.Name = "rotates"
				w.create(waits)
				w.create(w.value("rests"))
				w.restart()
				w.settle()
				w.multiply("waits", objects.each)
				w.multiply("rests", objects.each)
				clear(w.writes)
				w.restart()
				w.settle()
				w.expectRest(t, 0)

				checks := 0
				w.begins = func() {
					if w.process.at.kind == kindConnection {
						checks++
					}
				}
				w.fail(objects.fails)
				w.secret(worldNamespace, "rotates", "key", "canary-2")
				begun := w.callCount()
				for minute := range 15 {
					from := w.callCount()
					w.pass(time.Minute)
					requests := w.callsIn(from, func(call string) bool { return strings.HasPrefix(call, "Grafana ") })
					if minute > 0 && len(requests) > 5 {
						t.Errorf("minute %d: %d requests: %s", minute, len(requests), requests)
					}
					for _, o := range w.process.cache.objects { // it shows all by now
						if sv, ok := o.(*v1alpha1.GrafanaSecureValue); ok && isReady(sv) != strings.HasPrefix(sv.Name, "rests") {
							t.Fatalf("minute %d: Ready of %s is %t", minute, sv.Name, isReady(sv))
						}
					}
				}
				if checks > 100 {
					t.Errorf("the connection was reconciled %d times", checks)
				}
				writes := map[string]int{}
				for _, call := range w.callsIn(begun, func(call string) bool { return strings.HasPrefix(call, "PATCH ") }) {
					writes[call]++
				}
				for call, n := range writes {
					if n > 1 || strings.Contains(call, "rests") {
						t.Errorf("%s: %d times", call, n)
					}
				}
				if len(writes) < objects.each {
					t.Errorf("%d reports, want one of each that waits", len(writes))
				}

				w.fail(nil)
				w.settle()
				w.expectRest(t, objects.each)
			})
		})
	}
}

// multiply makes objects in sync like the one of that name, so that there are as many as given. No process has written them.
func (w *world) multiply(name string, objects int) {
	w.t.Helper()
	like := w.get(worldNamespace, name)
	for i := range objects - 1 {
		sv := like.DeepCopy()
		sv.Name, sv.ResourceVersion = fmt.Sprintf("%s-%d", name, i), ""
		record := &sv.Status.Targets[0]
		value, _ := w.grafana.Value(record.Namespace, name)
		record.Name = sv.Name
		sv.Annotations[v1alpha1.AnnotationPendingTargets] = ownership.TargetOf(*record).String()
		labelled := &grafana.SecureValue{}
		ownership.Labels{
			Cluster: worldCluster, Object: keyOf(sv), Connection: ownership.ConnectionOf(record.Connection, sv.Namespace),
		}.Put(labelled)
		value.Name, value.Labels, value.Annotations = sv.Name, labelled.Labels, labelled.Annotations
		stored := w.grafana.Put(record.Namespace, value)
		record.Version, record.CreatedAt = stored.Version, &metav1.Time{Time: stored.CreatedAt}
		w.create(sv)
	}
}

// expectRest checks that all objects are Ready, and how many writes Grafana has accepted, at most one at each target.
func (w *world) expectRest(t *testing.T, writes int) {
	t.Helper()
	if faults := w.faults(nil, nil); len(faults) > 0 {
		t.Fatalf("%d faults, the first: %s", len(faults), faults[0])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, n := range w.writes {
		if n > 1 {
			t.Errorf("%s was written %d times", at, n)
		}
	}
	if len(w.writes) != writes {
		t.Errorf("%d targets were written, want %d", len(w.writes), writes)
	}
}

// A Grafana that keeps no labels is tried again after 1 minute, then with backoff up to 10 minutes, and not with each LIST: each attempt makes
// a version.
func TestLabelsNotKeptIsRetriedWithBackoff(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New(grafanatest.WithLabelsDropped()))
		w.source("canary-1")
		w.create(w.value("api-key"))
		w.restart()
		began := time.Now()
		for i, minute := range []int{0, 1, 3, 7, 15, 25, 35} { // when an attempt is made
			w.pass(time.Until(began.Add(time.Duration(minute)*time.Minute + 10*time.Second)))
			if n := w.written(); n != i+1 {
				t.Fatalf("minute %d: %d attempts, want %d", minute, n, i+1)
			}
		}
		if reason := status.Reason(w.get(worldNamespace, "api-key").Status.Conditions); reason != v1alpha1.ReasonLabelsNotKept {
			t.Errorf("it says %s", reason)
		}
		if values := w.grafana.Values("default"); len(values) > 0 {
			t.Errorf("orphan: %v", values)
		}
		w.process.dead.Store(true)
	})
}
