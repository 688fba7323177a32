package securevalueset

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// A set has settled where each of its GrafanaSecureValues has reported, and either all are Ready and no other is there, or nothing has changed
// for settleDelay. Status
// is written then, so that many changes make one write; a set that has not settled is reported after firstReport, and then once in nextReport.
const (
	settleDelay = time.Second
	firstReport = 5 * time.Second
	nextReport  = time.Minute
)

// summary is how the GrafanaSecureValues of a set are.
type summary struct {
	counts   v1alpha1.SecureValueCounts
	failures []v1alpha1.SecureValueFailure
	stalled  bool     // each that fails needs a person
	waiting  int      // wanted, and have not reported yet
	left     int      // to be applied or pruned by the next reconcile
	taken    []string // names that others have
	nothing  []string // what selects nothing, in sentences
	stale    string   // one that is no longer selected
	paused   int      // of those that are ready
}

// summaryOf counts the GrafanaSecureValues of a plan that was carried out.
func summaryOf(p *plan, desired int, nothing []string) *summary {
	s := &summary{waiting: p.waiting, left: p.left, taken: p.taken, nothing: nothing, stalled: true, stale: p.oneStale}
	for _, name := range p.taken {
		s.failures = append(s.failures, v1alpha1.SecureValueFailure{Name: name, Reason: v1alpha1.ReasonChildConflict})
	}
	ready := 0
	for _, child := range append(p.asWanted, p.leaving...) {
		condition := meta.FindStatusCondition(child.Status.Conditions, v1alpha1.ConditionReady)
		isReady := condition != nil && condition.Status == metav1.ConditionTrue
		switch {
		case condition == nil, child.Status.ObservedGeneration != child.Generation, isReady && !child.DeletionTimestamp.IsZero():
			s.waiting++
		case isReady:
			ready++
			if condition.Reason == v1alpha1.ReasonSuspended {
				s.paused++
			}
		default:
			s.failures = append(s.failures, v1alpha1.SecureValueFailure{Name: child.Name, Reason: condition.Reason})
			s.stalled = s.stalled && meta.IsStatusConditionTrue(child.Status.Conditions, v1alpha1.ConditionStalled)
		}
	}
	s.counts = v1alpha1.SecureValueCounts{ //nolint:gosec // a set has at most 1,000, and a namespace few more
		Desired: int32(desired), Ready: int32(ready), Failed: int32(len(s.failures)), Stale: int32(p.stale),
	}
	slices.SortFunc(s.failures, func(a, b v1alpha1.SecureValueFailure) int { return strings.Compare(a.Name, b.Name) })
	s.failures = s.failures[:min(len(s.failures), v1alpha1.MaxFailures)]
	return s
}

// condition is what Ready says of a set whose GrafanaSecureValues are so.
func (s *summary) condition(set *v1alpha1.GrafanaSecureValueSet) status.Condition {
	list := fmt.Sprintf("List them: `kubectl get gsv -n %s -l %s=%s`.", set.Namespace, v1alpha1.LabelSet, set.Name)
	counts := fmt.Sprintf("%d of %d GrafanaSecureValues are ready.", s.counts.Ready, s.counts.Desired)
	var more string
	if s.counts.Stale > 0 {
		more = fmt.Sprintf(" %d others are no longer selected, for example %s.", s.counts.Stale, s.stale)
	}
	if s.paused > 0 {
		more += fmt.Sprintf(" %d are suspended: Grafana may hold outdated values.", s.paused)
	}
	progressing := func() status.Condition {
		return status.Condition{Class: status.Watch, Reason: v1alpha1.ReasonProgressing, Message: fmt.Sprintf(
			"%s %d have not reported yet. %s%s", counts, s.waiting+s.left, list, more)}
	}
	switch {
	case s.left > 0: // not all is applied
		return progressing()
	case len(s.taken) > 0:
		return status.Condition{Class: status.Here, Reason: v1alpha1.ReasonChildConflict, Message: fmt.Sprintf(
			"GrafanaSecureValue %q exists and is not of this set. Delete it. If nothing controls it, the label %s=%s has the set take it over instead. %s%s",
			s.taken[0], v1alpha1.LabelSet, set.Name, counts, more)}
	case len(s.nothing) > 0:
		return status.Condition{Class: status.Watch, Reason: v1alpha1.ReasonNothingSelected, Message: fmt.Sprintf(
			"%s Correct spec, or create what is missing.%s", strings.Join(s.nothing, " "), more)}
	case s.waiting > 0:
		return progressing()
	case s.counts.Failed > 0:
		first := s.failures[0]
		c := status.Condition{Class: status.Watch, Reason: v1alpha1.ReasonSecureValuesNotReady, Message: fmt.Sprintf(
			"%s %s says %s. %s%s", counts, first.Name, first.Reason, list, more)}
		if s.stalled {
			c.Class = status.Here
		}
		return c
	default:
		return status.Condition{Class: status.None, Reason: v1alpha1.ReasonSynced, Message: fmt.Sprintf(
			"All %d GrafanaSecureValues are ready.%s", s.counts.Desired, more)}
	}
}

// report writes what a reconcile found into the status, if that changes it and the set has settled, and only then tells it in an event and the
// log. It is the only writer of status.
func (r *Reconciler) report(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, found *summary, m *memory, err error) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(set)
	result := ctrl.Result{}
	var condition status.Condition
	switch known := status.Of(err); {
	case err == nil:
		condition = found.condition(set)
		wait, settled := m.settled(found, r.now())
		result.RequeueAfter = wait
		if found.left > 0 {
			result.RequeueAfter = lagDelay
		}
		if !settled {
			return result, nil
		}
	case errors.Is(err, errChanged):
		return ctrl.Result{RequeueAfter: requeueSoon}, nil
	case known == nil:
		return ctrl.Result{}, err
	default:
		condition = known.Condition
	}
	switch {
	case found != nil && found.left > 0: // others wait behind those that were refused
		result.RequeueAfter = lagDelay
	case condition.Class == status.Time:
		result.RequeueAfter = r.retries.When(key)
	default:
		r.retries.Forget(key)
	}
	next := set.DeepCopy()
	condition.Apply(&next.Status.Conditions, set.Generation)
	next.Status.ObservedGeneration = set.Generation
	if found != nil {
		next.Status.SecureValues, next.Status.Failures = &found.counts, found.failures
	}
	if equality.Semantic.DeepEqual(set.Status, next.Status) {
		return result, nil
	}
	patch, err := status.Replacement(set, "/status", next.Status)
	if err != nil {
		return ctrl.Result{}, err
	}
	old := status.Reason(set.Status.Conditions)
	switch err := r.client.Status().Patch(ctx, next, patch, client.FieldOwner(FieldManager)); {
	case apierrors.IsInvalid(err), apierrors.IsConflict(err): // a test of a JSON patch that fails is Invalid
		m.reportAt = time.Time{}
		return ctrl.Result{RequeueAfter: requeueSoon}, nil
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if condition.Reason == v1alpha1.ReasonProgressing {
		condition.Class = status.None // nothing to be warned of
	}
	status.Announce(ctx, r.recorder, set, old, condition)
	return result, nil
}

// settled reports whether status may be written now, and when to ask again.
func (m *memory) settled(found *summary, now time.Time) (wait time.Duration, settled bool) {
	if m.summary == nil || !reflect.DeepEqual(m.summary, found) {
		m.summary, m.changedAt = found, now
	}
	busy := found.waiting+found.left > 0
	isDone := found.counts.Ready == found.counts.Desired && found.counts.Stale == 0 && len(found.nothing) == 0
	switch {
	case !busy && (isDone || now.Sub(m.changedAt) >= settleDelay):
		m.reportAt = time.Time{}
		return 0, true
	case m.reportAt.IsZero():
		m.reportAt = now.Add(firstReport)
	case !now.Before(m.reportAt):
		m.reportAt = now.Add(nextReport)
		return nextReport, true
	}
	if busy { // an event comes with each that reports
		return m.reportAt.Sub(now), false
	}
	return settleDelay, false
}
