package securevalue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// These tests prove that nothing is forgotten on the way: each object comes to an end, with no more requests than it needs.

func TestAGrafanaThatAnswersSlowlyIsWrittenAndReleased(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1")
		w.create(w.value("a"))
		w.restart()
		w.settle()
		var mu sync.Mutex
		var later time.Duration
		w.process.values.now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(later)
		}
		w.strike = func(call string, _ int) hit {
			if strings.HasPrefix(call, "Grafana GET /") {
				mu.Lock()
				defer mu.Unlock()
				later += maxAge + time.Second
			}
			return none
		}
		w.edit("a", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "new text" })
		w.settle()
		if stored, _ := w.grafana.Value("default", "a"); stored.Description != "new text" {
			t.Errorf("Grafana has the description %q", stored.Description)
		}
		w.remove(w.get(worldNamespace, "a"))
		w.pass(3 * time.Minute)
		if sv := w.get(worldNamespace, "a"); sv != nil {
			t.Errorf("the object is still there: %s", status.Reason(sv.Status.Conditions))
		}
	})
}

// A process that has led for longer than a request takes believes a 404 at once, also where it had no object to reconcile before.
func TestALeaderWithoutObjectsCountsItsTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		w.pass(time.Minute)
		w.create(w.value("api-key"))
		w.pass(time.Second)
		before := w.callCount()
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.pass(time.Minute)
		want := []string{"Grafana POST ", "Grafana GET /api-key", "Grafana DELETE /api-key", "Grafana GET /api-key"}
		if got := w.callsIn(before, func(call string) bool { return strings.HasPrefix(call, "Grafana ") }); !slices.Equal(got, want) {
			t.Errorf("a move calls %q", got)
		}
		if got := w.callsIn(before, func(call string) bool { return strings.HasPrefix(call, "PATCH ") }); len(got) != 2 {
			t.Errorf("a move writes %q", got)
		}
		w.expectNoFaults(t)
	})
}

func TestAnObjectThatWaitedForAnotherConnectionIsRetriedAfterAFailure(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1")
		broken := w.connection("broken", "org-2")
		broken.Spec.Credentials.TokenSecretRef.Name = "missing"
		w.create(broken)
		a := w.value("a")
		a.Spec.ConnectionRef.Name = "broken"
		w.create(a)
		w.restart()
		w.settle()
		w.edit("a", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "prod" })
		w.settle()
		w.pass(time.Minute)
		failed := false
		w.strike = func(call string, _ int) hit {
			if strings.HasPrefix(call, "Grafana PUT /") && !failed {
				failed = true
				return callFails
			}
			return none
		}
		w.source("canary-2")
		w.pass(5 * time.Second) // the first retry comes after one
		if stored, _ := w.grafana.Value("default", "a"); string(stored.Value) != "canary-2" {
			t.Error("the rotation has not arrived")
		}
	})
}

func TestEachCallThatMetARevokedTokenComesBackWithTheNewOne(t *testing.T) {
	w := newWorld(t, newFront(t), grafanatest.New())
	w.source("canary-1")
	w.create(w.value("a"))
	w.create(w.value("b"))
	w.restart()
	w.run()
	w.source("canary-2")
	for w.deliverNext(0) {
	}
	w.process.queue = nil
	w.grafana.RevokeToken(worldToken)
	inCall, otherDone := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.strike = func(call string, _ int) hit {
		if call == "Grafana GET /a" {
			w.mu.Unlock()
			once.Do(func() { close(inCall) })
			<-otherDone
			w.mu.Lock()
		}
		return none
	}
	reconcileNow := func(name string) {
		key := client.ObjectKey{Namespace: worldNamespace, Name: name}
		result, err := w.process.controllers[kindValue].Reconcile(ctrl.LoggerInto(t.Context(), logr.Discard()), reconcile.Request{NamespacedName: key})
		if err != nil || result.RequeueAfter == 0 {
			t.Errorf("%s is not reconciled again: %v %v", name, result, err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		reconcileNow("a")
	}()
	<-inCall
	reconcileNow("b")
	close(otherDone)
	<-done
}

func TestAMoveNeedsAWorkerOfOneConnectionAtATime(t *testing.T) {
	f := newFront(t)
	for _, workers := range []int{1, 4, 64} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, f, grafanatest.New(grafanatest.WithNamespaces("default", "org-2")))
				w.workers = workers
				w.source("canary-1")
				w.create(w.connection("other", "org-2"))
				const n = 40
				for i := range n {
					w.create(w.value(fmt.Sprintf("a%d", i)))
				}
				w.restart()
				w.settle()
				w.pass(time.Minute)
				from := w.callCount()
				for i := range n {
					w.edit(fmt.Sprintf("a%d", i), func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "other" })
				}
				w.pass(time.Minute)
				for i := range n {
					sv := w.get(worldNamespace, fmt.Sprintf("a%d", i))
					if status.Reason(sv.Status.Conditions) != v1alpha1.ReasonSynced || sv.Status.ObservedGeneration != 2 || len(sv.Status.Targets) != 1 {
						t.Fatalf("%s: %s of generation %d with %d targets", sv.Name, status.Reason(sv.Status.Conditions), sv.Status.ObservedGeneration, len(sv.Status.Targets))
					}
				}
				// One POST, and GET, DELETE and GET of the old one; the connections may be checked meanwhile.
				requests := w.callsIn(from, func(c string) bool { return strings.HasPrefix(c, "Grafana") && strings.Contains(c, "/a") })
				if len(requests) > 4*n {
					t.Errorf("%d requests to Grafana", len(requests))
				}
			})
		})
	}
}

func TestABlockedDeletionSaysWhatBlocksItNow(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1")
		w.create(w.value("a"))
		w.restart()
		w.settle()
		w.outage(true)
		w.remove(w.get(worldNamespace, "a"))
		w.pass(5 * time.Minute)
		if message := w.get(worldNamespace, "a").Status.Conditions[0].Message; !strings.Contains(message, "("+v1alpha1.ReasonGrafanaUnavailable+")") {
			t.Errorf("in the outage: %s", message)
		}
		var granted []grafanatest.Permission
		for _, p := range grafanatest.AllPermissions() {
			if p.Action != grafanatest.ActionDelete {
				granted = append(granted, p)
			}
		}
		w.grafana.RevokeToken(worldToken)
		w.grafana.AddToken(worldToken, granted...)
		w.outage(false)
		w.pass(30 * time.Minute)
		if message := w.get(worldNamespace, "a").Status.Conditions[0].Message; !strings.Contains(message, "("+v1alpha1.ReasonForbidden+")") {
			t.Errorf("without the right: %s", message)
		}
	})
}

// A connection is edited after the session was lent and the Secret was read.
func TestAValueIsNotSentToAnAddressThatTheConnectionNoLongerNames(t *testing.T) {
	for name, row := range map[string]struct {
		act  func(*world)
		call string
	}{
		"a rotation": {func(w *world) { w.source("canary-2") }, "PUT"},
		"a deletion": {func(w *world) { w.remove(w.get(worldNamespace, "a")) }, "DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newFront(t), grafanatest.New())
			w.source("canary-1")
			w.create(w.value("a"))
			w.restart()
			w.run()
			from, edited := w.callCount(), false
			w.strike = func(call string, _ int) hit {
				if strings.HasPrefix(call, "Grafana GET /a") && !edited {
					edited = true
					w.mu.Unlock()
					defer w.mu.Lock()
					conn := &v1alpha1.GrafanaConnection{}
					w.must(w.api.Get(context.Background(), client.ObjectKey{Namespace: worldNamespace, Name: "prod"}, conn)) //nolint:forbidigo // the API server ends with the world
					conn.Spec.URL, conn.Generation = "https://new.example.com", 2
					w.must(w.api.Update(context.Background(), conn)) //nolint:forbidigo // as above
					w.deliver()
				}
				return none
			}
			row.act(w)
			w.run()
			if sent := w.callsIn(from, func(c string) bool { return strings.HasPrefix(c, "Grafana "+row.call) }); !edited || len(sent) > 0 {
				t.Errorf("after the edit (%t): %q", edited, sent)
			}
		})
	}
}

// Many suspended objects that have the same name pending cost a release one LIST, and not a GET each.
func TestAReleaseReadsManyOtherObjectsAtOnce(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1")
		w.create(w.value("a"))
		for i := range 5 * maxGets {
			other := w.value(fmt.Sprintf("other%d", i))
			other.Spec.Suspend = true
			other.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: "GrafanaConnection/prod/default/a"}
			w.create(other)
		}
		w.restart()
		w.settle()
		w.pass(time.Minute)
		from := w.callCount()
		w.remove(w.get(worldNamespace, "a"))
		w.settle()
		gets := w.callsIn(from, func(c string) bool { return strings.Contains(c, "live GET") })
		if _, stored := w.grafana.Value("default", "a"); stored || len(gets) > maxGets {
			t.Errorf("stored %t after %d GETs: %q", stored, len(gets), gets)
		}
	})
}
