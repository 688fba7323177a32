package securevalue

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// Schedules that need fake time, late caches or several leaders. docs/internals/ownership-schedules.md lists all of them.

// inWorld calls f with a world in fake time, in which f has to start the first process.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	front := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, front, grafanatest.New(grafanatest.WithNamespaces("default", "org-2")))
		w.source("canary-1")
		f(w)
		w.process.dead.Store(true)
	})
}

// expectNoFaults settles, and requires that Grafana has what the specs say.
func (w *world) expectNoFaults(t *testing.T) {
	t.Helper()
	w.settle()
	for _, fault := range w.faults(nil, nil) {
		t.Error(fault)
	}
}

// whileStalled does something for so long, in which no watch event reaches the cache and each object is reconciled every second.
func (w *world) whileStalled(d time.Duration) {
	w.t.Helper()
	w.stalled = true
	for range int(d / time.Second) {
		for key := range w.process.cache.objects {
			if key.kind != kindSecret {
				w.process.add(key)
			}
		}
		w.pass(time.Second)
	}
	w.stalled = false
}

// whileStopped stops the process in the middle of a reconcile, and lets another one lead meanwhile.
func (w *world) whileStopped(f func()) {
	w.t.Helper()
	stopped := w.process
	w.restart()
	f()
	w.process.dead.Store(true)
	stopped.dead.Store(false)
	w.process = stopped
}

// An owner that is deleted waits for a successor that has not claimed its value, as long as that can do so, and not for more than a minute
// after the successor's last edit.
func TestAnOwnerWaitsForASuccessor(t *testing.T) {
	edit := func(change func(*v1alpha1.GrafanaSecureValue)) func(*world) {
		return func(w *world) { w.edit("successor", change) }
	}
	nothing := func(*world) {}
	for name, row := range map[string]struct {
		after time.Duration // since the successor was created
		when  func(*world)
		waits bool   // the owner still waits, 2 s later
		value string // what Grafana has 2 s later, unless it waits
	}{
		"nothing":                 {after: 50 * time.Second, when: nothing, waits: true},
		"a minute is over":        {after: 59 * time.Second, when: nothing},
		"it is edited":            {after: 59 * time.Second, when: edit(func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" }), waits: true},
		"its connection is ready": {after: 30 * time.Second, when: func(w *world) { w.secret(worldNamespace, "late", "token", worldToken) }, value: "canary-2"},
		"it is suspended":         {after: 30 * time.Second, when: edit(func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })},
		"it names another value":  {after: 30 * time.Second, when: edit(func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" })},
		"it names no connection":  {after: 30 * time.Second, when: edit(func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "typo" })},
		"it is deleted":           {after: 30 * time.Second, when: func(w *world) { w.remove(w.get(worldNamespace, "successor")) }},
		"its Secret is missing":   {after: 30 * time.Second, when: func(w *world) { w.removeSecret("successor") }, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				late := w.connection("late", "default")
				late.Spec.Credentials.TokenSecretRef.Name = "late"
				w.create(late)
				w.create(w.value("api-key"))
				w.restart()
				w.pass(time.Minute) // a process that has just begun believes no 404
				w.secret(worldNamespace, "successor", "key", "canary-2")
				successor := w.value("successor")
				successor.Spec.Name, successor.Spec.ConnectionRef.Name, successor.Spec.ValueFrom.SecretKeyRef.Name = "api-key", "late", "successor"
				w.create(successor)
				w.pass(time.Second)
				w.remove(w.value("api-key"))
				before := w.callCount()
				w.pass(row.after - time.Second)
				if owner := w.get(worldNamespace, "api-key"); owner == nil || status.Reason(owner.Status.Conditions) != v1alpha1.ReasonSynced {
					t.Fatalf("the owner does not wait quietly: %+v", owner)
				}
				if n := len(w.callsIn(before, isOfGrafana)); n > 5 {
					t.Errorf("%d calls while it waits", n)
				}
				row.when(w)
				w.pass(2 * time.Second)
				if owner := w.get(worldNamespace, "api-key"); (owner != nil) != row.waits {
					t.Fatalf("the owner is still there: %t", owner != nil)
				}
				want := row.value
				if row.waits {
					want = "canary-1"
				}
				if stored, _ := w.grafana.Value("default", "api-key"); string(stored.Value) != want {
					t.Errorf("Grafana has %q, want %q", stored.Value, want)
				}
			})
		})
	}
}

func isOfGrafana(call string) bool { return strings.HasPrefix(call, "Grafana ") }

func (w *world) removeSecret(name string) {
	w.t.Helper()
	w.must(w.api.Delete(context.Background(), //nolint:forbidigo // the API server ends with the world
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: name}}))
}

// Grafana may carry out a POST after its sender has given up, and after the object is deleted. Until it cannot come any more a 404 proves
// nothing.
func TestAPostThatIsCarriedOutLate(t *testing.T) {
	for name, row := range map[string]struct{ carriedOut, restarted, retried bool }{
		"it is": {carriedOut: true},
		"it is, and another process leads by then": {carriedOut: true, restarted: true},
		"it is, after the value was written again": {carriedOut: true, retried: true},
		"it is not": {},
		"it is not, and another process leads by now": {restarted: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.value("another")) // whose first reconcile is the start of the process
				w.restart()
				w.pass(time.Minute)
				w.strike = func(call string, _ int) hit {
					if call == "Grafana POST " {
						w.strike = nil
						return comesLate
					}
					return none
				}
				w.create(w.value("api-key"))
				w.deliver()
				w.stepUntil(func() bool { return len(w.late) > 0 })
				if row.retried {
					w.pass(2 * time.Second)
					if _, there := w.grafana.Value("default", "api-key"); !there {
						t.Fatal("it was not written again")
					}
				}
				w.remove(w.get(worldNamespace, "api-key"))
				if row.restarted {
					w.restart()
				}
				w.pass(20 * time.Second)
				if w.get(worldNamespace, "api-key") == nil {
					t.Fatal("a 404 was believed")
				}
				w.endLatePost(row.carriedOut)
				w.pass(time.Minute)
				w.expectNoFaults(t)
			})
		})
	}
}

// A leader that stops between its GET and its DELETE, while another one leads, deletes nothing of what it saw then.
func TestALeaderThatStopsBeforeItsDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		for _, name := range []string{"first", "second"} { // the owner reads both live
			sv := w.value(name)
			sv.Spec.Name, sv.Spec.Suspend = "api-key", true
			w.create(sv)
		}
		w.restart()
		w.pass(time.Minute)
		w.always = isAt("default/api-key")
		stopped := false
		w.beforeCall("live GET second *v1alpha1.GrafanaSecureValue", func() {
			stopped = true
			w.whileStopped(func() {
				w.edit("first", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
				w.pass(20 * time.Second)
				if reason := status.Reason(w.get(worldNamespace, "first").Status.Conditions); reason != v1alpha1.ReasonSynced {
					t.Fatalf("the other leader left the successor %s", reason)
				}
			})
		})
		w.remove(w.value("api-key"))
		w.pass(time.Minute)
		if !stopped {
			t.Fatal("the leader was never stopped")
		}
		if stored, _ := w.grafana.Value("default", "api-key"); stored.Version != 2 {
			t.Errorf("the value is of version %d", stored.Version)
		}
		w.remove(w.value("second"))
		w.expectNoFaults(t)
	})
}

// What Grafana showed more than five seconds ago is asked again before it is overwritten.
func TestAWriteThatComesLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		gone := w.get(worldNamespace, "api-key")
		gone.Finalizers = nil
		w.must(w.api.Update(context.Background(), gone)) //nolint:forbidigo // the API server ends with the world
		w.remove(gone)
		w.pass(time.Minute)
		before := w.callCount()
		w.beforeCall("live LIST ", func() { time.Sleep(maxAge + time.Second) }) //nolint:forbidigo // of fake time
		second := w.value("second")
		second.Spec.Name = "api-key"
		w.create(second)
		w.expectNoFaults(t)
		if n := len(w.callsIn(before, func(call string) bool { return call == "Grafana GET /api-key" })); n != 2 {
			t.Errorf("it was read %d times before it was taken over", n)
		}
	})
}

// A cache that is behind by minutes makes no version and no call of its own, and in the end nothing is left behind.
func TestACacheThatIsBehindByMinutes(t *testing.T) {
	change := map[string]func(*world){
		"a move": func(w *world) { w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" }) },
		"a hand-over": func(w *world) {
			w.edit("successor", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "api-key" })
			w.remove(w.value("api-key"))
		},
	}
	for name, change := range change {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.value("api-key"))
				w.create(w.value("successor"))
				w.restart()
				w.pass(time.Minute)
				change(w)
				w.deliver()
				written := w.written()
				w.whileStalled(5 * time.Minute)
				if n := w.written() - written; n != 1 {
					t.Errorf("%d versions were written", n)
				}
				w.expectNoFaults(t)
				if n := w.written() - written; n != 1 {
					t.Errorf("%d versions were written in the end", n)
				}
			})
		})
	}
}

// An object whose last finalizer the operator has removed is gone, whatever the cache shows for minutes.
func TestTheLastFinalizer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		w.remove(w.value("api-key"))
		w.deliver()
		w.stepUntil(func() bool { return w.get(worldNamespace, "api-key") == nil })
		before := w.callCount()
		w.whileStalled(5 * time.Minute)
		calls := w.callsIn(before, func(call string) bool { return isWrite(call) || strings.HasPrefix(call, "Grafana GET /") })
		if len(calls) > 0 {
			t.Errorf("calls for an object that is gone: %q", calls)
		}
		if n := len(w.callsIn(before, func(call string) bool { return strings.HasPrefix(call, "live GET api-key") })); n > 150 {
			t.Errorf("it was read %d times", n)
		}
		w.create(w.value("api-key"))
		w.expectNoFaults(t)
	})
}

// After a restore of etcd resourceVersions are older than those that the process remembers. Objects and connections go on all the same.
func TestARestoredEtcd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.create(w.value("deleted"))
		w.restart()
		w.pass(time.Minute)
		backup := w.backup()
		w.source("canary-2")
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Edited" })
		w.remove(w.value("deleted"))
		w.pass(listPeriod) // the connection counts its objects with each LIST
		w.restore(backup)
		w.expectNoFaults(t)
		if stored, _ := w.grafana.Value("default", "api-key"); string(stored.Value) != "canary-1" {
			t.Errorf("Grafana has %q", stored.Value)
		}
		w.source("canary-3")
		w.expectNoFaults(t)
	})
}

// beforeCall calls f once, before the first call to the API server that has the prefix.
func (w *world) beforeCall(prefix string, f func()) {
	w.meanwhile = func(count int) {
		if strings.HasPrefix(w.calls[count-1], prefix) {
			w.meanwhile = nil
			f()
		}
	}
}

// Where the object changes after a release and before that is recorded, the release is decided again, and Ready is not True before.
func TestAReleaseThatMeetsAConflict(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		w.stored = func(e watchEvent) {
			sv, isValue := e.now.(*v1alpha1.GrafanaSecureValue)
			if isValue && isSynced(sv) && len(sv.Status.Targets) > 1 {
				t.Errorf("it is Synced, and owns %v", claimsIn(sv))
			}
		}
		w.beforeCall("PATCH status *v1alpha1.GrafanaSecureValue", func() {
			sv := w.get(worldNamespace, "api-key")
			sv.Labels = map[string]string{"their": "label"}
			w.must(w.api.Update(context.Background(), sv)) //nolint:forbidigo // the API server ends with the world
		})
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.pass(2 * time.Second)
		if faults := w.faults(nil, nil); len(faults) > 0 {
			t.Errorf("2 s later: %s", faults)
		}
	})
}

// The deletionPolicy of the last moment counts.
func TestADeletionPolicyThatChangesLate(t *testing.T) {
	for _, row := range []struct {
		before, after v1alpha1.DeletionPolicy
		call          string
		stays         bool
	}{
		{v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyRetain, "live GET api-key", true},
		{v1alpha1.DeletionPolicyRetain, v1alpha1.DeletionPolicyDelete, "PATCH *v1alpha1.GrafanaSecureValue api-key", false},
	} {
		t.Run("to "+string(row.after), func(t *testing.T) {
			inWorld(t, func(w *world) {
				sv := w.value("api-key")
				sv.Spec.DeletionPolicy = row.before
				w.create(sv)
				w.restart()
				w.pass(time.Minute)
				w.beforeCall(row.call, func() {
					w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = row.after })
				})
				w.remove(w.value("api-key"))
				w.pass(time.Minute)
				if w.get(worldNamespace, "api-key") != nil {
					t.Error("the object stays")
				}
				if _, stays := w.grafana.Value("default", "api-key"); stays != row.stays {
					t.Errorf("the value stays: %t", stays)
				}
			})
		})
	}
}

// An object may be removed at the moment at which our finalizer is put on it, and made again. What was written for it is deleted, unless the
// new object names it.
func TestAnObjectThatVanishesDuringItsFirstWrite(t *testing.T) {
	for name, again := range map[string]func(*v1alpha1.GrafanaSecureValue){
		"it is not made again":                    nil,
		"it is made again":                        func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" },
		"it is made again as it was":              func(*v1alpha1.GrafanaSecureValue) {},
		"it is made again for another connection": func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.connection("other", "org-2"))
				w.restart()
				w.pass(time.Minute)
				w.create(w.value("api-key"))
				vanished := false
				w.beforeCall("PATCH status *v1alpha1.GrafanaSecureValue", func() {
					sv := w.get(worldNamespace, "api-key")
					sv.Finalizers = nil
					w.must(w.api.Update(context.Background(), sv)) //nolint:forbidigo // the API server ends with the world
					w.remove(sv)
					if again != nil {
						next := w.value("api-key")
						again(next)
						w.create(next)
					}
					vanished = true
				})
				w.stepUntil(func() bool { return vanished })
				if next := w.get(worldNamespace, "api-key"); next != nil && next.Status.ObservedGeneration != -1 {
					t.Errorf("the new object has the status of the old one: %+v", next.Status)
				}
				w.expectNoFaults(t)
			})
		})
	}
}

// The owner of a value counts until the API server proves that it is gone or names another value, whatever the cache shows. Another object
// neither overwrites the value nor deletes it before.
func TestAnOwnerCountsUntilItIsProvedGone(t *testing.T) {
	owner := item{kindValue, client.ObjectKey{Namespace: worldNamespace, Name: "api-key"}}
	for name, hide := range map[string]func(*world){
		"it is there": func(*world) {},
		"the cache does not show it": func(w *world) {
			w.process.show(owner, nil)
		},
		"the cache shows that it names another value": func(w *world) {
			old := w.get(worldNamespace, "api-key")
			old.ResourceVersion, old.Spec.Name = "1", "old"
			w.process.show(owner, old)
		},
		"it cannot be read": func(w *world) {
			w.failCalls("live GET api-key ")
		},
		"the cache does not show it, and no LIST is answered": func(w *world) {
			w.process.show(owner, nil)
			w.failCalls("live LIST ")
		},
		"its connection does not exist": func(w *world) {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "typo" })
		},
		"the server of its connection is not known": func(w *world) {
			conn := w.connection("referencing", "default")
			conn.Spec.URL, conn.Spec.GrafanaRef = "", &v1alpha1.GrafanaReference{Name: "none"}
			w.create(conn)
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "referencing" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.value("api-key"))
				w.restart()
				w.pass(time.Minute)
				hide(w)
				second := w.value("second")
				second.Spec.Name = "api-key"
				w.create(second)
				w.pass(time.Minute)
				want := v1alpha1.ReasonNameConflict
				if w.strike != nil { // nothing is known while the API server fails
					want = ""
				}
				if reason := status.Reason(w.get(worldNamespace, "second").Status.Conditions); reason != want {
					t.Errorf("the other one says %q, want %q", reason, want)
				}
				w.remove(w.get(worldNamespace, "second"))
				w.pass(5 * time.Minute)
				if stored, _ := w.grafana.Value("default", "api-key"); stored.Version != 1 {
					t.Errorf("the value is of version %d", stored.Version)
				}
			})
		})
	}
}

// failCalls makes each call that has the prefix fail.
func (w *world) failCalls(prefix string) {
	w.strike = func(call string, _ int) hit {
		if strings.HasPrefix(call, prefix) {
			return callFails
		}
		return none
	}
}

// An object that is edited before its claim writes nothing to the target that it no longer names.
func TestAClaimThatMeetsAnEdit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		w.pass(time.Minute)
		w.beforeCall("PATCH *v1alpha1.GrafanaSecureValue", func() {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		})
		w.create(w.value("api-key"))
		w.expectNoFaults(t)
		if n := w.writes["default/api-key"]; n > 0 {
			t.Errorf("the old target was written %d times", n)
		}
	})
}

// An object that names its old target again, after it has written the new one, keeps its value there.
func TestATargetThatIsNamedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		w.always = isAt("default/api-key")
		w.wrote = func(is grafanaWrite) {
			if is.at == "default/moved" && is.method == "POST" {
				w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "api-key" })
			}
		}
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.expectNoFaults(t)
	})
}

// A reconcile that has begun is finished, and recorded, although the manager is told to stop.
func TestAReconcileThatHasBegunIsFinished(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		w.pass(time.Minute)
		stopped := false
		w.beforeCall("live GET source ", func() {
			stopped = true
			w.process.stop()
		})
		w.create(w.value("api-key"))
		w.stepUntil(func() bool { return stopped })
		if sv := w.get(worldNamespace, "api-key"); !stopped || !isSynced(sv) || w.written() != 1 {
			t.Errorf("stopped %t, %d versions, and it says %s", stopped, w.written(), status.Reason(sv.Status.Conditions))
		}
	})
}

// backup returns all that etcd has.
func (w *world) backup() []client.Object {
	w.t.Helper()
	var objects []client.Object
	for _, list := range []client.ObjectList{&corev1.SecretList{}, &v1alpha1.GrafanaConnectionList{}, &v1alpha1.GrafanaSecureValueList{}} {
		w.must(w.api.List(context.Background(), list)) //nolint:forbidigo // the API server ends with the world
		w.must(meta.EachListItem(list, func(o runtime.Object) error {
			objects = append(objects, o.DeepCopyObject().(client.Object)) // as each item of a list of objects
			return nil
		}))
	}
	return objects
}

// restore puts objects back as they were, with the resourceVersions of then.
func (w *world) restore(backup []client.Object) {
	w.t.Helper()
	for _, o := range backup {
		gvk, err := apiutil.GVKForObject(o, worldScheme())
		w.must(err)
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		if err := w.etcd.Update(resource, o, o.GetNamespace()); err != nil {
			w.must(w.etcd.Create(resource, o, o.GetNamespace()))
		}
		w.mu.Lock()
		w.changed = append(w.changed, watchEvent{item: itemOf(o), now: o})
		w.mu.Unlock()
	}
}

// An admission policy may change the spec with any write, and our own may be the first one. What it asks for holds from then on.
func TestAnAdmissionThatChangesTheSpec(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		w.admission = func(answer client.Object) error {
			w.admission = nil
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			now := w.get(worldNamespace, "api-key")
			answer.SetResourceVersion(now.ResourceVersion)
			answer.SetGeneration(now.Generation)
			return nil
		}
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" }) // whose claim is the next write
		w.pass(time.Minute)
		for _, name := range []string{"api-key", "moved"} {
			if _, found := w.grafana.Value("default", name); !found {
				t.Errorf("Grafana does not have %s, although the deletionPolicy is Retain", name)
			}
		}
		if sv := w.get(worldNamespace, "api-key"); !isSynced(sv) || sv.Status.ObservedGeneration != sv.Generation {
			t.Errorf("status is of generation %d, want %d, Synced", sv.Status.ObservedGeneration, sv.Generation)
		}
	})
}
