package securevalue

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

func versionOf(version, uid string) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "x", ResourceVersion: version, UID: types.UID(uid),
	}}
}

func TestACacheThatIsBehindIsRecognised(t *testing.T) {
	later := testTime.Add(time.Second)
	for name, row := range map[string]struct {
		cached *v1alpha1.GrafanaSecureValue
		ended  bool
		want   bool
	}{
		"older":                             {cached: versionOf("99", "one"), want: true},
		"as new":                            {cached: versionOf("100", "one")},
		"newer":                             {cached: versionOf("101", "one")},
		"another object of the name":        {cached: versionOf("1", "two")},
		"the version before it was gone":    {cached: versionOf("100", "one"), ended: true, want: true},
		"another object, after it was gone": {cached: versionOf("101", "two"), ended: true},
		"a version that cannot be compared": {cached: versionOf("x", "one")},
	} {
		t.Run(name, func(t *testing.T) {
			var m memory
			m.wrote(versionOf("100", "one"), row.ended, testTime)
			lag, behind := m.behind(row.cached, later)
			if behind != row.want || behind && lag != time.Second {
				t.Errorf("behind = %t since %s, want %t", behind, lag, row.want)
			}
			if _, known := m.objects[keyOf(row.cached)]; known != row.want {
				t.Error("the write is remembered although the cache shows it, or forgotten before")
			}
		})
	}
}

// A reconcile that comes before the cache shows what was written waits for it.
func TestALateCacheWritesNothingTwice(t *testing.T) {
	inWorld(t, func(w *world) {
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
	})
}

// A cache that never shows our own write, as after a restore of etcd, does not keep an object for ever.
func TestALateCacheIsNotWaitedForForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Second)
		key := types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}
		ahead := w.get(worldNamespace, "api-key")
		ahead.ResourceVersion = "1000000"
		w.process.values.memory.wrote(ahead, false, time.Now())
		w.source("second")
		w.pass(maxLag + time.Second)
		if stored, _ := w.grafana.Value("default", key.Name); string(stored.Value) != "second" {
			t.Errorf("Grafana has %s", stored.Value)
		}
	})
}

func TestChangesAreCountedUntilTheyArrive(t *testing.T) {
	key, other := types.NamespacedName{Namespace: "ns", Name: "x"}, types.NamespacedName{Namespace: "ns", Name: "y"}
	at := func(seconds int) time.Time { return testTime.Add(time.Duration(seconds) * time.Second) }
	var m memory
	m.changed(key, false, at(0))
	m.changed(key, true, at(5))
	m.changed(key, true, at(7))
	m.changed(other, false, at(9))
	if got := m.oldest(at(10)); got != 10*time.Second {
		t.Errorf("the oldest is %s", got)
	}
	m.reported(key)
	if got := m.oldest(at(10)); got != time.Second {
		t.Errorf("after a report the oldest is %s", got)
	}
	if seen := m.arrived(key); !seen.Equal(at(5)) {
		t.Errorf("the rotation was seen at %s", seen)
	}
	if !m.arrived(key).IsZero() {
		t.Error("it arrives twice")
	}
	m.leads(at(20))
	if got := m.oldest(at(21)); got != time.Second {
		t.Errorf("what changed before this process led counts: %s", got)
	}
	m.forget(other)
	if len(m.objects) != 0 {
		t.Error("an object that is gone is remembered")
	}
}

func TestCorrectionsAreCounted(t *testing.T) {
	key := types.NamespacedName{Namespace: "ns", Name: "x"}
	var m memory
	for i := range maxCorrections {
		if m.limitReached(key, testTime) {
			t.Fatalf("reached after %d corrections", i)
		}
		m.corrected(key, testTime.Add(time.Duration(i)*time.Minute))
	}
	if !m.limitReached(key, testTime.Add(59*time.Minute)) {
		t.Error("not reached")
	}
	if m.limitReached(key, testTime.Add(time.Hour)) {
		t.Error("what was more than an hour ago counts")
	}
	if m.wroteOwn(key); m.limitReached(key, testTime.Add(2*time.Minute)) {
		t.Error("a write for the object's own sake does not end it")
	}
}

// Another writer that comes after each LIST is overwritten three times, and then reported.
func TestDriftIsCorrectedThreeTimesInAnHour(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.value("api-key"))
		w.restart()
		w.pass(time.Minute)
		for range 4 {
			w.overwrite("api-key")
			w.pass(listPeriod)
		}
		if n := w.written() - 1; n != 3 {
			t.Errorf("it was corrected %d times", n)
		}
		if reason := status.Reason(w.get(worldNamespace, "api-key").Status.Conditions); reason != v1alpha1.ReasonDrifted {
			t.Errorf("it says %s", reason)
		}
	})
}

// BenchmarkReconcileInSync is a reconcile with nothing to do, as that of each object after a restart.
func BenchmarkReconcileInSync(b *testing.B) {
	w := newWorld(b, newFront(b), grafanatest.New())
	w.source("canary")
	w.create(w.value("api-key"))
	w.restart()
	w.run()
	if got := status.Reason(w.get(worldNamespace, "api-key").Status.Conditions); got != v1alpha1.ReasonSynced {
		b.Fatalf("the object is %s", got)
	}
	req := types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}
	calls := w.callCount()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.process.values.Reconcile(b.Context(), ctrl.Request{NamespacedName: req}); err != nil {
			b.Fatal(err)
		}
	}
	if made := w.callCount() - calls; made > 0 {
		b.Fatalf("%d calls were made although there was nothing to do", made)
	}
}

// BenchmarkDecide is the decision about a target that Grafana was asked for.
func BenchmarkDecide(b *testing.B) {
	want := wanted()
	seen := observed{known: true, record: recorded(), asked: true, found: shown(), class: ours}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decide(want, seen); err != nil {
			b.Fatal(err)
		}
	}
}
