package securevalueset

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// FieldManager is the name under which the operator applies the GrafanaSecureValues of sets.
const FieldManager = "grafana-secure-value-operator-set"

const (
	// maxWrites bounds what one reconcile writes, so that a large set does not hold up the others, and an edit of it is seen.
	maxWrites = 100
	// maxConcurrentWrites bounds its requests at a time.
	maxConcurrentWrites = 8
)

// carryOut applies and prunes what the plan says, and counts what is left. One GrafanaSecureValue that Kubernetes refuses does not hold up the
// others. Nothing is pruned before all is applied.
func (r *Reconciler) carryOut(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, p *plan, m *memory) error {
	if p.adopts || len(p.prune) > 0 { // the cache may show a set that is gone, or an edit that is to come
		if err := r.isUnchanged(ctx, set); err != nil {
			return err
		}
	}
	wasRefused := func(child *v1alpha1.GrafanaSecureValue) bool { return m.refused[child.Name] }
	again := slices.DeleteFunc(slices.Clone(p.apply), func(child *v1alpha1.GrafanaSecureValue) bool { return !wasRefused(child) })
	fresh := slices.DeleteFunc(p.apply, wasRefused)
	batch := append(fresh, again...)
	batch = batch[:min(len(batch), maxWrites)]
	answers, errs := make([]*v1alpha1.GrafanaSecureValue, len(batch)), make([]error, len(batch))
	workqueue.ParallelizeUntil(ctx, maxConcurrentWrites, len(batch), func(i int) { answers[i], errs[i] = r.apply(ctx, batch[i]) })
	p.left = max(0, len(fresh)-len(batch)) // what was refused is not waited for
	var refused, failed error
	changed := false
	for i, err := range errs {
		delete(m.refused, batch[i].Name)
		switch {
		case answers[i] != nil:
			m.wrote(answers[i], r.now())
			p.asWanted = append(p.asWanted, answers[i])
		case status.Of(err) != nil:
			refused = cmp.Or(refused, err)
			m.refuses(batch[i].Name)
		case errors.Is(err, errChanged):
			changed = true
		default:
			failed = cmp.Or(failed, err, ctx.Err()) // none is that it was not tried
		}
	}
	switch {
	case failed != nil:
		return failed
	case changed:
		return errChanged
	case refused != nil || p.left > 0:
		return refused
	}
	return r.prune(ctx, set, p)
}

// prune deletes what the plan says. The caches of Secrets and connections may be older than that of the set: what they show is read once more.
func (r *Reconciler) prune(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, p *plan) error {
	batch := p.prune[:min(len(p.prune), maxWrites)]
	current := map[any]bool{}
	for _, child := range batch {
		from := sourceOf(child)
		for key, get := range map[any]func(client.Reader) (client.Object, error){
			from.secret: func(reader client.Reader) (client.Object, error) {
				return secretVersion(ctx, reader, set.Namespace, from.secret)
			},
			from.connection: func(reader client.Reader) (client.Object, error) {
				return connection.Get(ctx, reader, r.served, from.connection, set.Namespace)
			},
		} {
			if current[key] {
				continue
			}
			if err := r.isCurrent(get); err != nil {
				return err
			}
			current[key] = true
		}
	}
	var refused error
	pruned := 0
	defer func() {
		if pruned > 0 {
			r.recorder.Eventf(set, nil, corev1.EventTypeNormal, "Pruned", "Prune", "Pruned %d GrafanaSecureValues that are no longer selected", pruned)
		}
	}()
	for _, child := range batch {
		err := r.client.Delete(ctx, child.DeepCopy(), client.Preconditions{UID: &child.UID, ResourceVersion: &child.ResourceVersion})
		switch {
		case client.IgnoreNotFound(err) == nil:
			pruned++
		case status.Of(err) != nil:
			refused = cmp.Or(refused, err)
		case apierrors.IsConflict(err):
			return errChanged
		default:
			return err
		}
	}
	p.left = len(p.prune) - len(batch)
	return refused
}

// isCurrent asks the API server whether the cache shows an object as it is. The error is errChanged where it does not.
func (r *Reconciler) isCurrent(get func(client.Reader) (client.Object, error)) error {
	cached, cachedErr := get(r.client)
	live, liveErr := get(r.live)
	if err := cmp.Or(client.IgnoreNotFound(cachedErr), client.IgnoreNotFound(liveErr)); err != nil {
		return err
	}
	gone := apierrors.IsNotFound(cachedErr)
	if gone != apierrors.IsNotFound(liveErr) || !gone && cached.GetResourceVersion() != live.GetResourceVersion() {
		return errChanged
	}
	return nil
}

// apply creates a GrafanaSecureValue, or changes the one of its UID and resourceVersion. Of one that another writer has just created the API server
// refuses to change what that has set, as it is created without force. The error is then errChanged.
func (r *Reconciler) apply(ctx context.Context, child *v1alpha1.GrafanaSecureValue) (*v1alpha1.GrafanaSecureValue, error) {
	data, err := json.Marshal(child)
	if err != nil {
		return nil, err
	}
	opts := []client.PatchOption{client.FieldOwner(FieldManager)}
	if child.UID != "" {
		opts = append(opts, client.ForceOwnership)
	}
	answer, err := r.patch(ctx, child, client.RawPatch(types.ApplyPatchType, data), opts...)
	if err != nil || equality.Semantic.DeepEqual(answer.Spec, child.Spec) {
		return answer, err
	}
	// Another writer has set a field that the set leaves out, which an apply does not remove.
	patch, err := status.Replacement(answer, "/spec", child.Spec)
	if err != nil {
		return nil, err
	}
	return r.patch(ctx, child, patch, client.FieldOwner(FieldManager))
}

// patch sends a patch of a GrafanaSecureValue and returns the answer.
func (r *Reconciler) patch(
	ctx context.Context, child *v1alpha1.GrafanaSecureValue, patch client.Patch, opts ...client.PatchOption,
) (*v1alpha1.GrafanaSecureValue, error) {
	answer := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: child.Namespace, Name: child.Name}}
	err := r.client.Patch(ctx, answer, patch, opts...)
	if status.Of(err) == nil && (apierrors.IsConflict(err) || apierrors.IsInvalid(err)) {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}
