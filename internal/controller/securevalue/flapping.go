package securevalue

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// Each object may write rotationBurst changed values at once, and then one in rotationPeriod.
const (
	rotationBurst  = 10
	rotationPeriod = time.Minute
)

// rotated counts a changed value that was written.
func (m *memory) rotated(key types.NamespacedName, period time.Duration, now time.Time) {
	m.with(key, func(o *remembered) {
		if o.rotations == nil {
			o.rotations = rate.NewLimiter(rate.Every(period), rotationBurst)
		}
		o.rotations.AllowN(now, 1)
	})
}

// untilRotation returns how long an object has to wait until it may write one more changed value.
func (m *memory) untilRotation(key types.NamespacedName, now time.Time) (wait time.Duration) {
	m.with(key, func(o *remembered) {
		if o.rotations == nil {
			return
		}
		if missing := 1 - o.rotations.TokensAt(now); missing > 0 {
			wait = max(time.Duration(missing/float64(o.rotations.Limit())*float64(time.Second)), requeueSoon)
		}
	})
	return wait
}

// holdBack returns SourceFlapping while status says that, and no changed value may be written yet. Nobody is asked meanwhile: two writers
// may well put the value back that Grafana has.
func (r *Reconciler) holdBack(sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	if want.again || sv.Status.ObservedGeneration != sv.Generation || status.Reason(sv.Status.Conditions) != v1alpha1.ReasonSourceFlapping {
		return nil
	}
	return r.mayRotate(sv)
}

// mayRotate returns SourceFlapping where the object may not write one more changed value yet.
func (r *Reconciler) mayRotate(sv *v1alpha1.GrafanaSecureValue) error {
	wait := r.memory.untilRotation(keyOf(sv), r.now())
	if wait == 0 {
		return nil
	}
	r.memory.arrived(keyOf(sv)) // what is held back on purpose is not late
	return &waitError{after: wait, what: "the next rotation", says: status.Errorf(status.Time, v1alpha1.ReasonSourceFlapping,
		"The value changed more than %d times in a short time. At most one changed value a minute is written now, always the newest. Find out which writers change %s. To write the current value at once: `kubectl annotate gsv %s -n %s --overwrite %s=$(date +%%s)`.",
		rotationBurst, secretsOf(sv), sv.Name, sv.Namespace, v1alpha1.AnnotationSyncNow)}
}

// secretsOf names the Secrets that the object reads.
func secretsOf(sv *v1alpha1.GrafanaSecureValue) string {
	names := sv.Spec.ValueFrom.Secrets()
	for i, name := range names {
		names[i] = fmt.Sprintf("Secret %q", name)
	}
	return strings.Join(names, " or ")
}
