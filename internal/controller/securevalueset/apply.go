package securevalueset

import (
	"context"
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// FieldManager is the name under which the operator applies the GrafanaSecureValues of sets.
const FieldManager = "grafana-secure-value-operator-set"

// carryOut applies and prunes what the plan says. One GrafanaSecureValue that Kubernetes refuses does not hold up the others, but a set of
// which it refuses many is retried as a whole.
func (r *Reconciler) carryOut(ctx context.Context, p *plan, m *memory) error {
	var refused []error
	changed := false
	for _, child := range p.apply {
		switch answer, err := r.apply(ctx, child, m); {
		case err == nil:
			p.asWanted = append(p.asWanted, answer)
		case status.Of(err) != nil:
			refused = append(refused, err)
		case errors.Is(err, errChanged):
			changed = true
		default:
			return err
		}
		if len(refused) == v1alpha1.MaxFailures {
			break
		}
	}
	for _, child := range p.prune {
		err := r.client.Delete(ctx, child.DeepCopy(), client.Preconditions{UID: &child.UID})
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		case status.Of(err) != nil:
			refused = append(refused, err)
		default:
			return err
		}
	}
	if len(refused) > 0 {
		return refused[0]
	}
	if changed {
		return errChanged
	}
	return nil
}

// apply creates a GrafanaSecureValue, or changes the one of its UID. One that somebody else has just created is left alone: without force
// the API server refuses to change what others have set. The error is then errChanged.
func (r *Reconciler) apply(ctx context.Context, child *v1alpha1.GrafanaSecureValue, m *memory) (*v1alpha1.GrafanaSecureValue, error) {
	data, err := json.Marshal(child)
	if err != nil {
		return nil, err
	}
	opts := []client.PatchOption{client.FieldOwner(FieldManager)}
	if child.UID != "" {
		opts = append(opts, client.ForceOwnership)
	}
	answer, err := r.patch(ctx, child, client.RawPatch(types.ApplyPatchType, data), m, opts...)
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
	return r.patch(ctx, child, client.RawPatch(types.JSONPatchType, data), m, client.FieldOwner(FieldManager))
}

// patch sends a patch of a GrafanaSecureValue and returns the answer.
func (r *Reconciler) patch(
	ctx context.Context, child *v1alpha1.GrafanaSecureValue, patch client.Patch, m *memory, opts ...client.PatchOption,
) (*v1alpha1.GrafanaSecureValue, error) {
	answer := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: child.Namespace, Name: child.Name}}
	err := r.client.Patch(ctx, answer, patch, opts...)
	if status.Of(err) == nil && (apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err)) {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	m.wrote(answer, r.now())
	return answer, nil
}
