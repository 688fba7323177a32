// Package status turns a verdict into the conditions of an object: Ready, and kstatus's Reconciling or Stalled.
package status

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// StaleDelay is how long to wait for the cache after the API server refused a patch of an older version. The cache's event usually
// comes first.
const StaleDelay = time.Second

// Class says who heals what keeps an object from being Ready, and with that when it is looked at again.
type Class int

const (
	// None: nothing is wrong.
	None Class = iota
	// Paused: nothing is done, on purpose. Ready keeps its status, which is False where nothing is known yet.
	Paused
	// Time heals it: the connection's gate brings the object back.
	Time
	// Watch: something that is watched is missing or not ready; its change brings the object back.
	Watch
	// Here: a person must edit the object or what it names.
	Here
	// Elsewhere: a person must change something that is not watched, so that it is looked at now and then.
	Elsewhere
)

// Verdict is what is to be said of an object.
type Verdict struct {
	Class   Class
	Reason  string // a reason of api/v1alpha1
	Message string // what is true and what to do next; no secret in it, and stable while nothing changes
}

// Fault is an error whose verdict is known where it is found.
type Fault struct{ Verdict }

// NewFault returns a fault with the message that format and args make.
func NewFault(class Class, reason, format string, args ...any) error {
	return &Fault{Verdict{Class: class, Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func (f *Fault) Error() string { return f.Reason + ": " + f.Message }

// Apply writes the verdict on an object of the given generation into its conditions. A verdict that time or a watch heals
// is written once for a reason and generation: a message that only tells the latest attempt is no news.
func (v Verdict) Apply(conditions *[]metav1.Condition, generation int64) {
	old := meta.FindStatusCondition(*conditions, v1alpha1.ConditionReady)
	ready := metav1.ConditionFalse
	if v.Class == None || v.Class == Paused && old != nil && old.Status == metav1.ConditionTrue {
		ready = metav1.ConditionTrue
	}
	message := v.Message
	if v.Class == Time || v.Class == Watch {
		if old != nil && old.Status == ready && old.Reason == v.Reason && old.ObservedGeneration == generation {
			message = old.Message
		}
	}
	set := func(conditionType string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: conditionType, Status: status, Reason: v.Reason, Message: message, ObservedGeneration: generation,
		})
	}

	set(v1alpha1.ConditionReady, ready)
	if v.Class == Time || v.Class == Watch {
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue)
	} else {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	}
	if v.Class == Here || v.Class == Elsewhere {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue)
	} else {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
	}
}

// Reason returns the reason of Ready, or "" where the object was not looked at yet.
func Reason(conditions []metav1.Condition) string {
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}
