package securevalue

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

func TestRotationsAreLimited(t *testing.T) {
	key := types.NamespacedName{Namespace: "ns", Name: "x"}
	var m memory
	for i := range rotationBurst {
		if wait := m.untilRotation(key, testTime); wait != 0 {
			t.Fatalf("after %d rotations it waits %s", i, wait)
		}
		m.rotated(key, rotationPeriod, testTime)
	}
	for _, row := range []struct{ passed, want time.Duration }{
		{0, time.Minute}, {15 * time.Second, 45 * time.Second}, {time.Minute - time.Millisecond, requeueSoon}, {time.Minute, 0}, {time.Hour, 0},
	} {
		wait := m.untilRotation(key, testTime.Add(row.passed))
		if diff := wait - row.want; diff > time.Millisecond || diff < -time.Millisecond {
			t.Errorf("after %s it waits %s, want %s", row.passed, wait, row.want)
		}
	}
	m.forget(key)
	if len(m.objects) != 0 {
		t.Error("an object that is gone is remembered")
	}
	if wait := m.untilRotation(key, testTime); wait != 0 || len(m.objects) != 0 {
		t.Errorf("a new object waits %s", wait)
	}
}

// newFlapping returns an object that has used up its burst.
func (w *world) newFlapping() {
	w.t.Helper()
	w.create(w.value("api-key"))
	w.restart()
	w.pass(time.Second)
	for i := range rotationBurst {
		w.source(fmt.Sprintf("burst-%d", i))
		w.run()
	}
	if n := w.written(); n != 1+rotationBurst {
		w.t.Fatalf("%d versions", n)
	}
}

// isHeldBack makes a value of the Secret that is not written.
func (w *world) isHeldBack(value string) {
	w.t.Helper()
	w.source(value)
	w.run()
	if got := w.reason(); got != v1alpha1.ReasonSourceFlapping {
		w.t.Fatalf("it says %s", got)
	}
}

func (w *world) reason() string {
	w.t.Helper()
	return status.Reason(w.get(worldNamespace, "api-key").Status.Conditions)
}

func (w *world) expectStored(t *testing.T, value string) {
	t.Helper()
	if stored, _ := w.grafana.Value("default", "api-key"); string(stored.Value) != value {
		t.Errorf("Grafana has %s, want %s", stored.Value, value)
	}
}

// Two writers put two values in turn into a Secret, twice a second for five minutes: a burst is written, and then one value a minute.
// While nothing may be written, nothing is read or reported.
func TestAFightOverASecretIsLimited(t *testing.T) {
	inWorld(t, func(w *world) {
		w.newFlapping()
		w.isHeldBack("other")
		from := w.callCount()
		fight := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); w.pass(time.Second) {
				w.source("other")
				w.pass(500 * time.Millisecond)
				w.source(fmt.Sprintf("burst-%d", rotationBurst-1)) // which Grafana has
			}
		}
		fight(58 * time.Second)
		if calls := w.callsIn(from, func(call string) bool { return !strings.HasSuffix(call, "grafana") }); len(calls) > 0 {
			t.Errorf("while nothing may be written: %q", calls)
		}
		before := w.written()
		fight(5 * time.Minute)
		if n := w.written() - before; n < 4 || n > 6 {
			t.Errorf("%d versions in five minutes", n)
		}
		w.source("last")
		w.pass(time.Minute)
		w.expectStored(t, "last")
		w.expectNoFaults(t)
	})
}

// What has settled arrives within a minute, and a rest of an hour restores the burst.
func TestTheLastValueAlwaysArrives(t *testing.T) {
	describe := func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "text" })
	}
	rename := func(w *world, name string) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = name })
	}
	for name, end := range map[string]func(w *world){
		"with a new value":            func(w *world) { w.source("new") },
		"with the value that is here": func(w *world) { w.source("newer"); w.run(); w.source(fmt.Sprintf("burst-%d", rotationBurst-1)) },
		"while Grafana is down":       func(w *world) { w.outage(true); w.source("new"); w.pass(5 * time.Minute); w.outage(false) },
		"after a restart":             func(w *world) { w.source("new"); w.run(); w.restart() },
		"with an edit":                func(w *world) { w.source("new"); describe(w); w.run(); w.source("newer") },
		"with a move":                 func(w *world) { w.source("new"); w.run(); rename(w, "moved"); w.run(); w.source("newer") },
		"with a move, and back": func(w *world) {
			rename(w, "moved")
			w.run()
			w.source("new")
			w.run()
			rename(w, "")
		},
		"of a Secret that was away": func(w *world) { w.removeSecret("source"); w.pass(2 * time.Minute); w.source("new") },
		"after one that is refused": func(w *world) { w.source("\xff"); w.pass(2 * time.Minute); w.source("new") },
		"after a pause": func(w *world) {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })
			w.source("new")
			w.run()
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
		},
		"after drift":              func(w *world) { w.overwrite("api-key"); w.source("new"); w.pass(listPeriod) },
		"where the answer is lost": func(w *world) { w.source("new"); w.strikeOnce("Grafana PUT", answerLost); w.pass(2 * time.Minute) },
		"where status is refused":  func(w *world) { w.source("new"); w.strikeOnce("PATCH status", callFails); w.pass(5 * time.Minute) },
		"through a stalled watch": func(w *world) {
			w.source("new")
			w.run()
			w.stalled = true
			w.source("newer")
			w.pass(2 * time.Minute)
			w.stalled = false
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.newFlapping()
				end(w)
				w.pass(time.Minute)
				w.expectNoFaults(t)
				w.pass(time.Hour)
				before := w.written()
				for i := range rotationBurst + 1 {
					w.source(fmt.Sprintf("again-%d", i))
					w.run()
				}
				if n := w.written() - before; n != rotationBurst {
					t.Errorf("%d versions after a rest, want %d", n, rotationBurst)
				}
				w.expectNoFaults(t)
			})
		})
	}
}

// strikeOnce has one call fail, the first that begins so.
func (w *world) strikeOnce(prefix string, how hit) {
	done := false
	w.strike = func(call string, _ int) hit {
		if done || !strings.HasPrefix(call, prefix) {
			return none
		}
		done = true
		return how
	}
}

// A write that fails, and is made again, counts as one.
func TestAFightIsLimitedWhereWritesFail(t *testing.T) {
	inWorld(t, func(w *world) {
		w.newFlapping()
		before, fails := w.written(), false
		w.fail(func(method string) bool {
			fails = fails != (method == http.MethodPut)
			return method == http.MethodPut && fails
		})
		for i := range 120 {
			w.source(fmt.Sprint("v", i))
			w.pass(time.Second)
		}
		if n := w.written() - before; n > 2 {
			t.Errorf("%d versions in two minutes, want at most 2", n)
		}
	})
}

// Only a changed Secret is limited, and counts.
func TestOnlyRotationsAreLimited(t *testing.T) {
	edit := func(w *world, change func(*v1alpha1.GrafanaSecureValue)) { w.edit("api-key", change); w.run() }
	acts := map[string]func(w *world, i int){
		"an edit": func(w *world, i int) {
			edit(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = fmt.Sprint(i) })
		},
		"another Secret": func(w *world, i int) {
			w.secret(worldNamespace, fmt.Sprint("s-", i), "key", fmt.Sprint("other-", i))
			edit(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ValueFrom.SecretKeyRef.Name = fmt.Sprint("s-", i) })
		},
		"a move": func(w *world, i int) {
			edit(w, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = fmt.Sprint("name-", i) })
			w.pass(time.Second)
		},
		"sync-now": func(w *world, i int) { // which raises no generation
			sv := w.get(worldNamespace, "api-key")
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, fmt.Sprint(i))
			w.must(w.api.Update(context.Background(), sv)) //nolint:forbidigo // the API server ends with the world
			w.run()
		},
		"drift": func(w *world, _ int) { w.overwrite("api-key"); w.pass(listPeriod) },
	}
	for name, act := range acts {
		t.Run(name+" does not count", func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.value("api-key"))
				w.restart()
				w.pass(time.Second)
				times := rotationBurst + 2
				if name == "drift" {
					times = maxCorrections
				}
				for i := range times {
					before := w.written()
					act(w, i)
					if w.written() == before {
						t.Fatalf("number %d is not written: %s", i+1, w.reason())
					}
				}
				if o := w.process.values.memory.objects[testKey]; o != nil && o.rotations != nil {
					t.Error("it counts")
				}
			})
		})
		if name == "drift" { // a rotation is written in its place
			continue
		}
		t.Run(name+" is served at once", func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.newFlapping()
				w.isHeldBack("new")
				before := w.written()
				act(w, 1)
				if n := w.written() - before; n != 1 {
					t.Errorf("%d versions", n)
				}
				w.expectNoFaults(t)
			})
		})
	}
}

// While changes are held back, one Warning event says so, and the write that ends it is an event, too.
func TestFlappingIsToldOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.newFlapping()
		events := &notes{}
		w.process.values.recorder = events
		for i := range 20 {
			w.source(fmt.Sprintf("more-%d", i))
			w.pass(time.Second)
			if !w.process.values.memory.arrived(testKey).IsZero() {
				t.Fatal("what is held back counts as late")
			}
		}
		w.pass(time.Minute)
		if want := []string{"Warning SourceFlapping", "Normal Rotated"}; !slices.Equal(events.events, want) {
			t.Errorf("events are %q, want %q", events.events, want)
		}
		w.expectStored(t, "more-19")
	})
}

var testKey = types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}
