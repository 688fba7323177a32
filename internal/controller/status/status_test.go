package status

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestApply(t *testing.T) {
	for name, row := range map[string]struct {
		class                        Class
		ready                        metav1.ConditionStatus
		wantReconciling, wantStalled bool
	}{
		"none":      {class: None, ready: metav1.ConditionTrue},
		"time":      {class: Time, ready: metav1.ConditionFalse, wantReconciling: true},
		"watch":     {class: Watch, ready: metav1.ConditionFalse, wantReconciling: true},
		"here":      {class: Here, ready: metav1.ConditionFalse, wantStalled: true},
		"elsewhere": {class: Elsewhere, ready: metav1.ConditionFalse, wantStalled: true},
	} {
		t.Run(name, func(t *testing.T) {
			// Whatever was true before must not stay.
			for _, before := range []Class{None, Paused, Time, Watch, Here, Elsewhere} {
				var conditions []metav1.Condition
				Condition{Class: before, Reason: "Before", Message: "before"}.Apply(&conditions, 1)
				Condition{Class: row.class, Reason: "Why", Message: "why"}.Apply(&conditions, 2)

				ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
				if ready == nil || ready.Status != row.ready || ready.Reason != "Why" || ready.Message != "why" || ready.ObservedGeneration != 2 {
					t.Errorf("Ready = %+v", ready)
				}
				if got := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReconciling); got != row.wantReconciling {
					t.Errorf("Reconciling = %t", got)
				}
				if got := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled); got != row.wantStalled {
					t.Errorf("Stalled = %t", got)
				}
				if Reason(conditions) != "Why" {
					t.Errorf("Reason = %q", Reason(conditions))
				}
			}
		})
	}
}

func TestApplyPausedKeepsTheStatusOfReady(t *testing.T) {
	paused := Condition{Class: Paused, Reason: "Paused", Message: "on purpose"}
	for name, row := range map[string]struct {
		before *Condition
		want   metav1.ConditionStatus
	}{
		"never reconciled": {nil, metav1.ConditionFalse},
		"was ready":        {&Condition{Class: None, Reason: "Before", Message: "x"}, metav1.ConditionTrue},
		"waited":           {&Condition{Class: Time, Reason: "Before", Message: "x"}, metav1.ConditionFalse},
		"was stuck":        {&Condition{Class: Here, Reason: "Before", Message: "x"}, metav1.ConditionFalse},
	} {
		t.Run(name, func(t *testing.T) {
			var conditions []metav1.Condition
			if row.before != nil {
				row.before.Apply(&conditions, 1)
			}
			paused.Apply(&conditions, 2)
			if len(conditions) != 1 || conditions[0].Status != row.want || conditions[0].Reason != "Paused" || conditions[0].ObservedGeneration != 2 {
				t.Errorf("conditions = %+v", conditions)
			}
		})
	}
}

func TestApplyKeepsTheMessageOfTheFirstAttempt(t *testing.T) {
	for name, row := range map[string]struct {
		class      Class
		reason     string
		generation int64
		want       string
	}{
		"same reason, time heals":      {Time, "Down", 1, "HTTP 503"},
		"another reason":               {Time, "Slow", 1, "HTTP 502"},
		"another generation":           {Time, "Down", 2, "HTTP 502"},
		"a person heals: news is news": {Here, "Down", 1, "HTTP 502"},
	} {
		t.Run(name, func(t *testing.T) {
			var conditions []metav1.Condition
			Condition{Class: Time, Reason: "Down", Message: "HTTP 503"}.Apply(&conditions, 1)
			Condition{Class: row.class, Reason: row.reason, Message: "HTTP 502"}.Apply(&conditions, row.generation)
			if got := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady).Message; got != row.want {
				t.Errorf("message = %q, want %q", got, row.want)
			}
		})
	}
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	for _, class := range []Class{None, Paused, Time, Watch, Here, Elsewhere} {
		var conditions []metav1.Condition
		v := Condition{Class: class, Reason: "Why", Message: "why"}
		v.Apply(&conditions, 1)
		for i := range conditions {
			conditions[i].LastTransitionTime = metav1.Unix(1, 0)
		}
		v.Apply(&conditions, 1)
		for _, c := range conditions {
			if !c.LastTransitionTime.Equal(new(metav1.Unix(1, 0))) {
				t.Errorf("class %d: %s was written again", class, c.Type)
			}
		}
	}
}

func TestFinalizerRemoval(t *testing.T) {
	const test, remove = `[{"op":"test","path":"/metadata/finalizers/1","value":"grafana.securevalues.io/finalizer"},`,
		`{"op":"remove","path":"/metadata/finalizers/1"}]`
	for version, guard := range map[string]string{"": "", "7": `{"op":"test","path":"/metadata/resourceVersion","value":"7"},`} {
		patch := FinalizerRemoval([]string{"foregroundDeletion", v1alpha1.Finalizer}, version)
		if data, err := patch.Data(nil); err != nil || string(data) != test+guard+remove {
			t.Errorf("patch = %s, %v", data, err)
		}
	}
	if FinalizerRemoval([]string{"foregroundDeletion"}, "") != nil {
		t.Error("found a finalizer that is not there")
	}
}

func TestApplySaysUntilWhenNoRequestIsMade(t *testing.T) {
	var conditions []metav1.Condition
	for i, row := range []struct {
		message string
		minute  int // 0: not known
		want    string
	}{
		{"HTTP 429", 15, "HTTP 429 No request is made before 2027-01-01T12:15:00Z."},
		{"HTTP 503", 30, "HTTP 429 No request is made before 2027-01-01T12:30:00Z."},
		{"HTTP 503", 0, "HTTP 429"},
		{"HTTP 503", 45, "HTTP 429 No request is made before 2027-01-01T12:45:00Z."},
	} {
		c := Condition{Class: Time, Reason: "Down", Message: row.message}
		if row.minute != 0 {
			c.Until = time.Date(2027, 1, 1, 12, row.minute, 0, 1, time.UTC)
		}
		c.Apply(&conditions, 1)
		for _, got := range conditions {
			if got.Message != row.want {
				t.Errorf("%d: %s says %q, want %q", i, got.Type, got.Message, row.want)
			}
		}
	}
}

// The message of an attempt that fails as the first one did stays. What fails for another cause, and a refusal, is news.
func TestApplyTellsAnotherCause(t *testing.T) {
	blocked := func(cause, message string) Condition {
		return Condition{Class: Time, Reason: v1alpha1.ReasonDeletionBlocked, Message: "(" + cause + ") " + message, About: "(" + cause + ")"}
	}
	refused := func(message string) Condition {
		return Condition{Class: Time, Reason: v1alpha1.ReasonKubernetesRefused, Message: message}
	}
	for name, row := range map[string]struct {
		first, second Condition
		news          bool
	}{
		"the same cause in other words": {blocked("A", "HTTP 503"), blocked("A", "HTTP 502"), false},
		"another cause":                 {blocked("A", "HTTP 503"), blocked("B", "HTTP 503"), true},
		"another refusal":               {refused("get secrets"), refused("patch"), true},
	} {
		t.Run(name, func(t *testing.T) {
			var conditions []metav1.Condition
			row.first.Apply(&conditions, 1)
			row.second.Apply(&conditions, 1)
			if got := conditions[0].Message == row.second.Message; got != row.news {
				t.Errorf("after %q and %q it says %q", row.first.Message, row.second.Message, conditions[0].Message)
			}
		})
	}
}
