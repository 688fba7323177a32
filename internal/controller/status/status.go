// Package status turns what a reconcile found into the conditions of an object, and holds the one error type of the controllers.
package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// Class says who can fix what keeps an object from being Ready, and so when it is reconciled again.
type Class int

const (
	// None: nothing is wrong.
	None Class = iota
	// Paused: nothing is done, on purpose. Ready keeps its status, which is False before the first reconcile.
	Paused
	// Time: the operator retries with backoff.
	Time
	// Watch: something that is watched is missing or not ready. Its change triggers the next reconcile.
	Watch
	// Here: a person must edit the object or what it names.
	Here
	// Elsewhere: a person must change something that is not watched. The operator checks again now and then.
	Elsewhere
	// Over: the operator has nothing to do any more. Ready is False, and nothing is awaited.
	Over
)

// Condition is what Ready says of an object.
type Condition struct {
	Class   Class
	Reason  string // a reason of api/v1alpha1
	Message string // what is true and what to do next; no secret in it, and stable while nothing changes

	About string    // words of the message for which, while the class is Time, another message with the same words is no news
	Until time.Time // no request is made before; zero is not known. The message ends with it
}

// untilWords begin what a message says of Condition.Until.
const untilWords = " No request is made before "

// Error is an error whose condition is known where it is made.
type Error struct {
	Condition
	Retry Class // who can fix it, where that is not Class: for example a blocked deletion waits for its cause
	Cause error // for errors.Is; may be nil
}

// Errorf returns an error with the message that format and args make.
func Errorf(class Class, reason, format string, args ...any) *Error {
	return &Error{Condition: Condition{Class: class, Reason: reason, Message: fmt.Sprintf(format, args...)}, Retry: class}
}

// Because returns the error with its cause.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

// Of returns the error in err whose condition is known, or nil.
func Of(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// IsReason reports whether err is one of that reason.
func IsReason(err error, reason string) bool {
	e := Of(err)
	return e != nil && e.Reason == reason
}

func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Apply writes the condition of an object of the given generation into its conditions. For Time the message of the first attempt
// stays while reason, generation and About do: the latest attempt says the same in other words. A refusal names who refuses, which is news.
func (c Condition) Apply(conditions *[]metav1.Condition, generation int64) {
	old := meta.FindStatusCondition(*conditions, v1alpha1.ConditionReady)
	ready := metav1.ConditionFalse
	if c.Class == None || c.Class == Paused && old != nil && old.Status == metav1.ConditionTrue {
		ready = metav1.ConditionTrue
	}
	message := c.Message
	reconciling := c.Class == Time || c.Class == Watch
	if c.Class == Time && c.Reason != v1alpha1.ReasonKubernetesRefused && old != nil && old.Status == ready && old.Reason == c.Reason &&
		old.ObservedGeneration == generation && strings.Contains(old.Message, c.About) {
		message, _, _ = strings.Cut(old.Message, untilWords)
	}
	if !c.Until.IsZero() {
		message += untilWords + c.Until.UTC().Format(time.RFC3339) + "."
	}
	set := func(conditionType string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: conditionType, Status: status, Reason: c.Reason, Message: message, ObservedGeneration: generation,
		})
	}

	set(v1alpha1.ConditionReady, ready)
	if reconciling {
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue)
	} else {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	}
	if c.Class == Here || c.Class == Elsewhere {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue)
	} else {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
	}
}

// Replacement returns a JSON patch that replaces a part of an object, for example /status. It first tests UID and resourceVersion, so that the
// API server refuses it with Invalid or Conflict where the object has changed.
func Replacement(o metav1.Object, path string, changed any) (client.Patch, error) {
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": o.GetUID()},
		{"op": "test", "path": "/metadata/resourceVersion", "value": o.GetResourceVersion()},
		{"op": "add", "path": path, "value": changed},
	})
	return client.RawPatch(types.JSONPatchType, patch), err
}

// Reason returns the reason of Ready, or "" before the first reconcile.
func Reason(conditions []metav1.Condition) string {
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// MaxCachedFinalizers bounds the finalizers that the cache keeps of an object. One that shows so many must be read live before its
// finalizers are changed.
const MaxCachedFinalizers = 16

// FinalizerRemoval returns a JSON patch that removes the operator's finalizer and no other: it first tests that the finalizer is still
// where it was read, and the resourceVersion, unless that is empty. It returns nil if the list has none.
func FinalizerRemoval(finalizers []string, resourceVersion string) client.Patch {
	i := slices.Index(finalizers, v1alpha1.Finalizer)
	if i < 0 {
		return nil
	}
	path := "/metadata/finalizers/" + strconv.Itoa(i)
	steps := []map[string]string{{"op": "test", "path": path, "value": v1alpha1.Finalizer}, {"op": "remove", "path": path}}
	if resourceVersion != "" {
		steps = append(steps[:1], map[string]string{"op": "test", "path": "/metadata/resourceVersion", "value": resourceVersion}, steps[1])
	}
	patch, _ := json.Marshal(steps) // strings always can be marshalled
	return client.RawPatch(types.JSONPatchType, patch)
}
