// Package securevalueset reconciles GrafanaSecureValueSets: for each selected key of a Secret, and each selected connection, it keeps a
// GrafanaSecureValue. Nothing here talks to Grafana.
//
// selected reads what the spec selects; plan, a pure function, says which GrafanaSecureValues that makes and which are to go; carryOut
// applies and deletes; report alone writes status and events.
package securevalueset

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

const (
	// requeueSoon is the delay of a reconcile that met an object that had changed.
	requeueSoon = 100 * time.Millisecond
	// lagDelay and maxLag are how often, and for how long at most, a reconcile waits for a cache that lags behind our own writes.
	lagDelay = 20 * time.Millisecond
	maxLag   = 5 * time.Second
)

// errChanged says that an object is not as it was when the reconcile began, so that the next one must decide.
var errChanged = errors.New("object changed meanwhile")

var errSuspended = &status.Error{Condition: status.Condition{
	Class: status.Paused, Reason: v1alpha1.ReasonSuspended,
	Message: "spec.suspend is true: no GrafanaSecureValue is created, changed or pruned until it is false. Those that exist keep syncing.",
}}

// Reconciler reconciles GrafanaSecureValueSets.
type Reconciler struct {
	client   client.Client // reads from the cache
	live     client.Reader // reads Secrets
	served   connection.Served
	recorder events.EventRecorder
	now      func() time.Time
	memories sync.Map                                         // of types.NamespacedName to *memory
	retries  workqueue.TypedRateLimiter[types.NamespacedName] // of what time may heal
}

// Reconcile makes the GrafanaSecureValues of the namespace what the set says, then reports how they are. Kubernetes deletes them with the
// set, which is why one that is being deleted makes none.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	set := &v1alpha1.GrafanaSecureValueSet{}
	err := r.client.Get(ctx, req.NamespacedName, set)
	if apierrors.IsNotFound(err) || err == nil && !set.DeletionTimestamp.IsZero() {
		r.memories.Delete(req.NamespacedName)
		r.retries.Forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	m := r.memoryOf(set)
	children, err := r.children(ctx, set)
	if err != nil {
		return ctrl.Result{}, err
	}
	if m.isAhead(children, r.now()) {
		return ctrl.Result{RequeueAfter: lagDelay}, nil
	}
	found, err := r.sync(ctx, set, children, m)
	return r.report(ctx, set, found, m, err)
}

// sync creates, changes and prunes GrafanaSecureValues, and returns how those of the set are.
func (r *Reconciler) sync(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, children []v1alpha1.GrafanaSecureValue, m *memory) (*summary, error) {
	if set.Spec.Suspend {
		return nil, errSuspended
	}
	if err := validate(&set.Spec); err != nil {
		return nil, err
	}
	selected, err := r.selected(ctx, set, children, m)
	if err != nil {
		return nil, err
	}
	wanted, err := wantedBy(ctx, set, selected)
	if err != nil {
		return nil, err
	}
	of := byName(children)
	others, err := r.others(ctx, set, wanted, of)
	if err != nil {
		return nil, err
	}
	p := planFor(set, wanted, of, others, selected, !m.hasApplied(set))
	err = r.carryOut(ctx, set, p, m)
	if err == nil && p.left == 0 {
		m.applied = set.Generation
	}
	return summaryOf(p, len(wanted), selected.nothing), err
}

// isUnchanged asks the API server whether the set is the one of the cache. The error is errChanged where it is not.
func (r *Reconciler) isUnchanged(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet) error {
	now := &v1alpha1.GrafanaSecureValueSet{}
	err := r.live.Get(ctx, client.ObjectKeyFromObject(set), now)
	if apierrors.IsNotFound(err) || err == nil && (now.UID != set.UID || now.Generation != set.Generation || !now.DeletionTimestamp.IsZero()) {
		return errChanged
	}
	return err
}

// children returns the GrafanaSecureValues of a set, as the cache shows them. They are the cache's own and must not be changed.
func (r *Reconciler) children(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := r.client.List(ctx, list, client.InNamespace(set.Namespace), client.MatchingFields{setIndex: set.Name}, client.UnsafeDisableDeepCopy)
	return slices.DeleteFunc(list.Items, func(child v1alpha1.GrafanaSecureValue) bool { return !isOf(set, &child) }), err
}

// others returns those that have a wanted name and are not of the set.
func (r *Reconciler) others(
	ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, wanted, of map[string]*v1alpha1.GrafanaSecureValue,
) (map[string]*v1alpha1.GrafanaSecureValue, error) {
	others := map[string]*v1alpha1.GrafanaSecureValue{}
	for name := range wanted {
		if of[name] != nil {
			continue
		}
		other := &v1alpha1.GrafanaSecureValue{}
		err := r.client.Get(ctx, client.ObjectKey{Namespace: set.Namespace, Name: name}, other)
		switch {
		case err == nil:
			others[name] = other
		case !apierrors.IsNotFound(err):
			return nil, err
		}
	}
	return others, nil
}

func byName(children []v1alpha1.GrafanaSecureValue) map[string]*v1alpha1.GrafanaSecureValue {
	named := make(map[string]*v1alpha1.GrafanaSecureValue, len(children))
	for i := range children {
		named[children[i].Name] = &children[i]
	}
	return named
}

// memoryOf returns what is remembered of a set. Nobody else has it: a set is reconciled by one worker at a time.
func (r *Reconciler) memoryOf(set *v1alpha1.GrafanaSecureValueSet) *memory {
	m, _ := r.memories.LoadOrStore(client.ObjectKeyFromObject(set), &memory{})
	found, _ := m.(*memory) // there is nothing else in it
	if found.uid != set.UID {
		*found = memory{uid: set.UID}
	}
	return found
}
