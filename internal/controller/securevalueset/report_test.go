package securevalueset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// saying returns a child whose Ready says so.
func saying(name string, class status.Class, reason string) *v1alpha1.GrafanaSecureValue {
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 2}}
	if reason != "" {
		sv.Status.ObservedGeneration = 2
		status.Condition{Class: class, Reason: reason, Message: "x"}.Apply(&sv.Status.Conditions, 2)
	}
	return sv
}

func TestSummary(t *testing.T) {
	ready, fails, stuck := saying("ready", status.None, v1alpha1.ReasonSynced), saying("fails", status.Time, v1alpha1.ReasonGrafanaUnavailable), saying("stuck", status.Here, v1alpha1.ReasonValueTooLarge)
	silent, behind := saying("new", status.None, ""), saying("behind", status.None, v1alpha1.ReasonSynced)
	behind.Generation = 3
	suspended := saying("suspended", status.None, v1alpha1.ReasonSuspended)
	now := metav1.Now()
	going, blocked := saying("going", status.None, v1alpha1.ReasonSynced), saying("blocked", status.Time, v1alpha1.ReasonDeletionBlocked)
	going.DeletionTimestamp, blocked.DeletionTimestamp = &now, &now
	for name, row := range map[string]struct {
		p       plan
		nothing []string
		want    string // desired ready failed stale, reason and class
		words   string
	}{
		"nothing":                         {plan{}, nil, "0 0 0 0 Synced 0", "All 0 "},
		"all ready":                       {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready, ready}}, nil, "2 2 0 0 Synced 0", "All 2 "},
		"and stale ones":                  {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready}, stale: 3, oneStale: "old"}, nil, "1 1 0 3 Synced 0", "3 others are no longer selected, for example old"},
		"a suspended one":                 {plan{asWanted: []*v1alpha1.GrafanaSecureValue{suspended}}, nil, "1 1 0 0 Synced 0", "1 are suspended"},
		"a new one":                       {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready, silent}}, nil, "2 1 0 0 Progressing 3", "1 of 2"},
		"one that has moved":              {plan{asWanted: []*v1alpha1.GrafanaSecureValue{behind, stuck}}, nil, "2 0 1 0 Progressing 3", "0 of 2"},
		"some for later":                  {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready}, left: 1}, nil, "1 1 0 0 Progressing 3", "1 have not reported"},
		"a name is taken, some for later": {plan{taken: []string{"taken"}, left: 1}, nil, "1 0 1 0 Progressing 3", "0 of 1"},
		"one in the way":                  {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready}, waiting: 1}, nil, "2 1 0 0 Progressing 3", "1 have not reported"},
		"one that goes":                   {plan{leaving: []*v1alpha1.GrafanaSecureValue{going}}, nil, "1 0 0 0 Progressing 3", "0 of 1"},
		"one that cannot go":              {plan{leaving: []*v1alpha1.GrafanaSecureValue{blocked}}, nil, "1 0 1 0 SecureValuesNotReady 3", "blocked says DeletionBlocked"},
		"one that fails":                  {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready, fails, stuck}}, nil, "3 1 2 0 SecureValuesNotReady 3", "fails says GrafanaUnavailable"},
		"all that fail stuck":             {plan{asWanted: []*v1alpha1.GrafanaSecureValue{ready, stuck}}, nil, "2 1 1 0 SecureValuesNotReady 4", "stuck says ValueTooLarge"},
		"a name is taken":                 {plan{asWanted: []*v1alpha1.GrafanaSecureValue{fails}, taken: []string{"taken"}}, nil, "2 0 2 0 ChildConflict 4", `"taken" exists`},
		"nothing matches":                 {plan{stale: 2}, []string{"spec.secrets.selector matches nothing."}, "0 0 0 2 NothingSelected 3", "spec.secrets.selector matches nothing."},
	} {
		t.Run(name, func(t *testing.T) {
			s := summaryOf(&row.p, len(row.p.asWanted)+len(row.p.leaving)+row.p.waiting+len(row.p.taken), row.nothing)
			c := s.condition(newSet())
			got := fmt.Sprintf("%d %d %d %d %s %d", s.counts.Desired, s.counts.Ready, s.counts.Failed, s.counts.Stale, c.Reason, c.Class)
			if got != row.want || !strings.Contains(c.Message, row.words) {
				t.Errorf("got %s, want %s: %s", got, row.want, c.Message)
			}
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	p := plan{}
	for i := range 20 {
		p.asWanted = append(p.asWanted, saying(fmt.Sprintf("value%02d", 19-i), status.Here, v1alpha1.ReasonValueTooLarge))
	}
	s := summaryOf(&p, 20, nil)
	if len(s.failures) != v1alpha1.MaxFailures || s.failures[0].Name != "value00" || s.counts.Failed != 20 {
		t.Errorf("got %d failures of %d from %v, want 16 of 20 from value00", len(s.failures), s.counts.Failed, s.failures[0])
	}
}

// TestSettling: when status is written while values report one after the other.
func TestSettling(t *testing.T) {
	begin := time.Now()
	state := func(desired, ready, failed, waiting int) *summary {
		return &summary{counts: v1alpha1.SecureValueCounts{Desired: int32(desired), Ready: int32(ready), Failed: int32(failed)}, waiting: waiting} //nolint:gosec // few
	}
	type step struct {
		after time.Duration
		state *summary
		want  string // "write", or when to ask again
	}
	for name, steps := range map[string][]step{
		"all ready at once":   {{0, state(3, 3, 0, 0), "write"}},
		"one after the other": {{0, state(3, 0, 0, 3), "5s"}, {time.Second, state(3, 1, 0, 2), "4s"}, {2 * time.Second, state(3, 3, 0, 0), "write"}},
		"failures settle":     {{0, state(3, 1, 2, 0), "1s"}, {time.Second, state(3, 1, 2, 0), "write"}, {2 * time.Second, state(3, 1, 2, 0), "write"}},
		"failures that go on": {{0, state(3, 2, 1, 0), "1s"}, {time.Second, state(3, 1, 2, 0), "1s"}, {2 * time.Second, state(3, 0, 3, 0), "1s"}, {3 * time.Second, state(3, 0, 3, 0), "write"}},
		"stale ones that go":  {{0, &summary{counts: v1alpha1.SecureValueCounts{Stale: 2}}, "1s"}, {time.Second / 2, &summary{counts: v1alpha1.SecureValueCounts{Stale: 1}}, "1s"}, {time.Second, state(0, 0, 0, 0), "write"}},
		"a long way":          {{0, state(3, 0, 0, 3), "5s"}, {5 * time.Second, state(3, 1, 0, 2), "write"}, {6 * time.Second, state(3, 2, 0, 1), "59s"}, {65 * time.Second, state(3, 2, 0, 1), "write"}},
		"a second way, which is as long": {
			{0, state(3, 0, 0, 3), "5s"}, {time.Second, state(3, 3, 0, 0), "write"}, {10 * time.Second, state(3, 2, 0, 1), "5s"}, {15 * time.Second, state(3, 2, 0, 1), "write"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			for i, step := range steps {
				wait, settled := m.settled(step.state, begin.Add(step.after))
				got := wait.String()
				if settled {
					got = "write"
				}
				if got != step.want {
					t.Errorf("step %d: got %s, want %s", i, got, step.want)
				}
			}
		})
	}
}

// TestTheCacheIsWaitedFor: for our own writes, until it shows them, and not for ever.
func TestTheCacheIsWaitedFor(t *testing.T) {
	now := time.Now()
	shows := func(version string) []v1alpha1.GrafanaSecureValue {
		return []v1alpha1.GrafanaSecureValue{{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: version}}}
	}
	for name, row := range map[string]struct {
		cached []v1alpha1.GrafanaSecureValue
		after  time.Duration
		want   bool
	}{
		"nothing":         {nil, 0, true},
		"what was before": {shows("9"), 0, true},
		"the write":       {shows("10"), 0, false},
		"a later one":     {shows("11"), 0, false},
		"too late":        {shows("9"), maxLag, false},
	} {
		m := &memory{}
		m.wrote(&shows("10")[0], now)
		if got := m.isAhead(row.cached, now.Add(row.after)); got != row.want {
			t.Errorf("the cache shows %s: ahead is %t, want %t", name, got, row.want)
		}
	}
	if (&memory{}).isAhead(shows("9"), now) {
		t.Error("nothing was written, and it waits")
	}
}

// TestWhatWasApplied: after a restart, only a reason that follows from an apply shows that this generation was applied.
func TestWhatWasApplied(t *testing.T) {
	for name, row := range map[string]struct {
		observed, applied int64
		reason            string
		want              bool
	}{
		"nothing":                    {-1, 0, "", false},
		"status shows it":            {1, 0, v1alpha1.ReasonSynced, true},
		"status of an earlier one":   {0, 0, v1alpha1.ReasonSynced, false},
		"it was refused":             {1, 0, v1alpha1.ReasonNameCollision, false},
		"Kubernetes refused a part":  {1, 0, v1alpha1.ReasonKubernetesRefused, false},
		"this process did it":        {0, 1, v1alpha1.ReasonSynced, true},
		"this process, then refused": {1, 1, v1alpha1.ReasonNameCollision, true},
	} {
		set := newSet()
		set.Status.ObservedGeneration = row.observed
		if row.reason != "" {
			status.Condition{Class: status.Here, Reason: row.reason, Message: "x"}.Apply(&set.Status.Conditions, row.observed)
		}
		if got := (&memory{applied: row.applied}).hasApplied(set); got != row.want {
			t.Errorf("%s: got %t, want %t", name, got, row.want)
		}
	}
}
