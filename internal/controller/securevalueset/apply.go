package securevalueset

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
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
	batch := p.apply[:min(len(p.apply), maxWrites)]
	answers, errs := make([]*v1alpha1.GrafanaSecureValue, len(batch)), make([]error, len(batch))
	workqueue.ParallelizeUntil(ctx, maxConcurrentWrites, len(batch), func(i int) { answers[i], errs[i] = r.apply(ctx, batch[i]) })
	var refused error
	changed := false
	for i, err := range errs {
		switch {
		case answers[i] != nil:
			m.wrote(answers[i], r.now())
			p.asWanted = append(p.asWanted, answers[i])
		case status.Of(err) != nil:
			refused = cmp.Or(refused, err)
		case errors.Is(err, errChanged):
			changed = true
		default:
			return cmp.Or(err, ctx.Err()) // none is that it was not tried
		}
	}
	p.left = len(p.apply) - len(batch)
	switch {
	case changed:
		return errChanged
	case refused != nil:
		return refused
	case p.left > 0:
		return nil
	}
	for _, child := range p.prune[:min(len(p.prune), maxWrites)] {
		err := r.client.Delete(ctx, child.DeepCopy(), client.Preconditions{UID: &child.UID, ResourceVersion: &child.ResourceVersion})
		if status.Of(err) == nil && apierrors.IsConflict(err) {
			return errChanged
		}
		if client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	p.left = max(0, len(p.prune)-maxWrites)
	return nil
}

// apply creates a GrafanaSecureValue, or changes the one of its UID and resourceVersion. Of one that somebody else has just created the API server
// refuses to change what they have set, as it is created without force. The error is then errChanged.
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
	// Somebody else has set a field that the set leaves out, which an apply does not remove.
	data, err = json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": answer.UID},
		{"op": "test", "path": "/metadata/resourceVersion", "value": answer.ResourceVersion},
		{"op": "replace", "path": "/spec", "value": child.Spec},
	})
	if err != nil {
		return nil, err
	}
	return r.patch(ctx, child, client.RawPatch(types.JSONPatchType, data), client.FieldOwner(FieldManager))
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
