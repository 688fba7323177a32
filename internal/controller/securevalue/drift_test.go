package securevalue

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

func TestSuspicion(t *testing.T) {
	begun := testTime.Add(time.Hour)
	for name, row := range map[string]struct {
		object func(*v1alpha1.GrafanaSecureValue)
		listed func(*grafana.Listed)
		absent bool
		want   bool
	}{
		"as it was written":        {},
		"not listed":               {absent: true, want: true},
		"another version":          {listed: func(sv *grafana.Listed) { sv.Version++ }, want: true},
		"an earlier version":       {listed: func(sv *grafana.Listed) { sv.Version-- }, want: true},
		"created anew":             {listed: func(sv *grafana.Listed) { sv.CreatedAt = begun }, want: true},
		"another mark":             {listed: func(sv *grafana.Listed) { sv.Labels[labelOwner] = "x" }, want: true},
		"no mark":                  {listed: func(sv *grafana.Listed) { sv.Labels = nil }, want: true},
		"another description":      {listed: func(sv *grafana.Listed) { sv.Spec = grafana.DigestOf("theirs", []string{"a", "b"}) }, want: true},
		"one more decrypter":       {listed: func(sv *grafana.Listed) { sv.Spec = grafana.DigestOf("text", []string{"a", "b", "c"}) }, want: true},
		"no version is served":     {listed: func(sv *grafana.Listed) { sv.Version = 0 }},
		"a label of somebody else": {listed: func(sv *grafana.Listed) { sv.Labels["x"] = "y" }},
		"being deleted": {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) {
			sv.DeletionTimestamp = &metav1.Time{Time: testTime}
		}},
		"suspended":        {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true }},
		"edited meanwhile": {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Generation++ }},
		"holds nothing":    {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Status.Targets = nil }},
		"only tried":       {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Status.Targets[0].Source = nil }},
		"written after the LIST was begun": {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Status.Targets[0].LastWriteTime = &metav1.Time{Time: begun}
		}},
		"written in the second of the LIST": {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Status.Targets[0].LastWriteTime = &metav1.Time{Time: begun.Add(-time.Second)}
		}},
		"drifted, and put back": {want: true, object: func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonDrifted}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			sv := &v1alpha1.GrafanaSecureValue{}
			sv.Generation, sv.Status.ObservedGeneration = 2, 2
			sv.Spec.Description, sv.Spec.Decrypters = "text", []string{"a", "b"}
			record := recorded()
			record.Generation, record.LastWriteTime = 2, &metav1.Time{Time: testTime}
			sv.Status.Targets = []v1alpha1.TargetStatus{*record}
			if row.object != nil {
				row.object(sv)
			}
			whole := shown()
			listed := &grafana.Listed{
				Name: whole.Name, Labels: whole.Labels, Annotations: whole.Annotations, CreatedAt: whole.CreatedAt, Version: whole.Version,
				Spec: grafana.DigestOf(whole.Description, whole.Decrypters),
			}
			if row.listed != nil {
				row.listed(listed)
			}
			if row.absent {
				listed = nil
			}
			if got := suspicion(sv, testMarks, listed, begun); (got != "") != row.want {
				t.Errorf("suspicion = %q, want one: %t", got, row.want)
			}
		})
	}
}

func TestSuspicionsAreRaisedUntilTheyAreAnswered(t *testing.T) {
	key := types.NamespacedName{Namespace: "ns", Name: "x"}
	var s suspicions
	for range 2 {
		if !s.raise(key, "deleted") || !s.has(key) {
			t.Error("one that nobody has looked at is not raised")
		}
	}
	s.confirm(key)
	if s.has(key) || s.raise(key, "deleted") {
		t.Error("one that was left alone is raised again")
	}
	if !s.raise(key, "version 4 of 7") || !s.has(key) {
		t.Error("another one is not raised")
	}
	s.settle(key)
	if s.has(key) || !s.raise(key, "deleted") {
		t.Error("one that was settled is not raised when it comes again")
	}
	s.forget(key)
	if s.has(key) {
		t.Error("an object that is gone is suspected")
	}
}

func TestCorrectionsAreCounted(t *testing.T) {
	key, other := types.NamespacedName{Namespace: "ns", Name: "x"}, types.NamespacedName{Namespace: "ns", Name: "y"}
	var s suspicions
	for i := range maxCorrections {
		if s.contested(key, testTime) {
			t.Fatalf("contested after %d corrections", i)
		}
		s.correct(key, testTime.Add(time.Duration(i)*time.Minute))
	}
	if !s.contested(key, testTime.Add(59*time.Minute)) || s.contested(other, testTime) {
		t.Error("not contested, or another object is")
	}
	if s.contested(key, testTime.Add(time.Hour)) {
		t.Error("what was more than an hour ago counts")
	}
	s.intend(key)
	if s.contested(key, testTime.Add(2*time.Minute)) {
		t.Error("our own intent does not end it")
	}
}

// surveyed is the connection of survey.
var surveyed = connection.ID{Kind: v1alpha1.KindGrafanaConnection, Namespace: worldNamespace, Name: "prod"}

// survey tests a survey that is begun with one object in step.
func survey(t *testing.T, test func(t *testing.T, w *world, surveyor connection.Surveyor)) {
	t.Helper()
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1")
		w.create(w.value("api-key"))
		w.restart()
		w.settle()
		surveyor, err := w.process.values.survey(t.Context(), surveyed)
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, surveyor)
	})
}

// Whoever answers may list whatever they like, our own marks among it.
func TestASurveyKeepsNothingOfWhatOthersList(t *testing.T) {
	survey(t, func(t *testing.T, _ *world, surveyor connection.Surveyor) {
		marks := marksOf(worldCluster, types.NamespacedName{Namespace: worldNamespace, Name: "api-key"}, surveyed)
		for i := range 1000 {
			sv := &grafana.SecureValue{}
			marks.put(sv)
			surveyor.See(grafana.Listed{Name: fmt.Sprint("stray-", i), Labels: sv.Labels, Annotations: sv.Annotations})
		}
		if _, asked := surveyor.Values["api-key"]; !asked || len(surveyor.Values) != 1 {
			t.Errorf("%d values are kept, want that of the object", len(surveyor.Values))
		}
		if got := surveyor.Result(); got != (connection.Survey{Recorded: 1, Unowned: 1000, Marked: true}) {
			t.Errorf("the survey came to %+v", got)
		}
		surveyor.See(grafana.Listed{Name: "api-key", Version: 7, Labels: map[string]string{labelOwner: marks.owner}})
		if v := surveyor.Values["api-key"]; v == nil || v.Version != 7 || surveyor.Result().Present != 1 {
			t.Errorf("the object's own is %v, and %d are present", v, surveyor.Result().Present)
		}
	})
}

// A value that was given up while a LIST went on is not one that another Grafana lacks.
func TestASurveyDoesNotMissWhatWasGivenUpMeanwhile(t *testing.T) {
	survey(t, func(t *testing.T, w *world, surveyor connection.Surveyor) {
		expect := func(recorded int) {
			t.Helper()
			if got := surveyor.Result(); got != (connection.Survey{Recorded: recorded}) {
				t.Errorf("the survey came to %+v, want %d recorded", got, recorded)
			}
		}
		w.create(w.value("later"))
		w.settle()
		expect(1) // what was written meanwhile need not be listed
		w.remove(w.get(worldNamespace, "api-key"))
		w.settle()
		expect(0)
	})
}
