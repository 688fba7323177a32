// Package securevalue reconciles GrafanaSecureValues: it keeps each secure value in Grafana in sync with its Secret.
//
// There is one flow. desired (spec and Secret) and observed (status and Grafana) feed decide, a pure function; ensure carries out what
// it says; release does the same for targets that the object no longer wants; report alone writes status, events and log lines.
package securevalue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const (
	// reconcileTimeout bounds one reconcile, its calls to Grafana and to Kubernetes included.
	reconcileTimeout = 10 * time.Minute
	// requeueSoon is the delay of a reconcile that met an object or a connection that had changed.
	requeueSoon = 100 * time.Millisecond
	// takenDelay is how long an object waits at most for another one that works at the same secure value.
	takenDelay = 2 * time.Second
	// lagDelay and maxLag are how often, and for how long at most, a reconcile waits for a cache that lags behind our own write.
	lagDelay = 20 * time.Millisecond
	maxLag   = 5 * time.Second
)

// errChanged says that the object is not as it was when the reconcile began, so that the next one must decide.
var errChanged = errors.New("object changed meanwhile")

// Reconciler reconciles GrafanaSecureValues.
type Reconciler struct {
	client      client.Client // reads from the cache
	live        client.Reader // reads Secrets, and what must be certain
	connections *connection.Registry
	keys        keyStore
	recorder    events.EventRecorder
	clusterID   string
	served      connection.Served
	now         func() time.Time
	leadingFrom func() time.Time // when this process began to lead
	memory      memory
	retries     workqueue.TypedRateLimiter[types.NamespacedName] // of what time may heal
	rechecks    workqueue.TypedRateLimiter[types.NamespacedName] // of what a person must fix elsewhere

	rotationPeriod time.Duration
}

// keyStore has the key of fingerprints, as fingerprint.Store does.
type keyStore interface {
	Key(ctx context.Context) (fingerprint.Key, error)
}

// Reconcile brings Grafana in line with the object, then reports how that went. A reconcile that has begun is not cut off when the
// process is told to stop, so that what was written is also recorded.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
	defer cancel()
	r.connections.Begin(req.NamespacedName)
	defer r.connections.End(req.NamespacedName)

	sv, result, err := r.read(ctx, req.NamespacedName)
	if sv == nil {
		return result, err
	}
	if err != nil {
		return r.report(ctx, sv, recordOf(sv), err)
	}
	if sv.Status.ObservedGeneration != sv.Generation { // an edit is no further attempt
		r.retries.Forget(req.NamespacedName)
		r.rechecks.Forget(req.NamespacedName)
	}
	rec := recordOf(sv)
	err = r.sync(ctx, sv, rec)
	return r.report(ctx, sv, rec, err)
}

// read returns the object with all its finalizers, at least as new as our own last write to it; nil where it is gone, or the cache must
// show that write first. Where Kubernetes refuses a live read, it returns what the cache shows, to report that.
func (r *Reconciler) read(ctx context.Context, key types.NamespacedName) (*v1alpha1.GrafanaSecureValue, ctrl.Result, error) {
	sv := &v1alpha1.GrafanaSecureValue{}
	err := r.client.Get(ctx, key, sv)
	if err == nil {
		switch lag, behind := r.memory.behind(sv, r.now()); {
		case !behind && len(sv.Finalizers) < status.MaxCachedFinalizers:
			return sv, ctrl.Result{}, nil
		case behind && lag < maxLag:
			return nil, ctrl.Result{RequeueAfter: lagDelay}, nil
		}
		cached := sv
		sv = &v1alpha1.GrafanaSecureValue{}
		if err = r.live.Get(ctx, key, sv); status.Of(err) != nil {
			return cached, ctrl.Result{}, err
		}
	}
	switch {
	case apierrors.IsNotFound(err):
		r.memory.forget(key)
		r.connections.Forget(key)
		r.retries.Forget(key)
		r.rechecks.Forget(key)
		return nil, ctrl.Result{}, nil
	case err != nil:
		return nil, ctrl.Result{}, err
	}
	return sv, ctrl.Result{}, nil
}

// sync writes the target that spec names first, and then releases the others. An object that is being deleted releases them all.
func (r *Reconciler) sync(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record) error {
	if !sv.DeletionTimestamp.IsZero() {
		if ownership.IsReleased(sv) { // or a person has decided so
			rec.targets, rec.released = nil, rec.all()
			return errReleased
		}
		if err := r.release(ctx, sv, rec, rec.all(), nil); err != nil {
			return err
		}
		return r.removeFinalizer(ctx, sv)
	}
	if sv.Spec.Suspend {
		return errSuspended
	}
	want, err := r.desired(ctx, sv)
	if err != nil {
		return err
	}
	if err := r.holdBack(sv, want); err != nil {
		return err
	}
	if r.isWritten(ctx, sv, want) {
		if isReady(sv) && sv.Status.ObservedGeneration == sv.Generation && len(rec.all()) == 1 {
			r.memory.arrived(keyOf(sv))
			return nil
		}
		// The last reconcile wrote it, and had to wait for its turn at another connection, or for another object.
		if err := r.release(ctx, sv, rec, rec.others(want.target), want); err != nil {
			return err
		}
	}
	if !rec.has(want.target) && len(rec.all()) >= v1alpha1.MaxTargets { // status cannot list one more: old ones go first
		if err := r.release(ctx, sv, rec, rec.all()[1:], want); err != nil {
			return err
		}
		return errChanged
	}
	if err := r.ensure(ctx, sv, want, rec); err != nil {
		return err
	}
	return r.release(ctx, sv, rec, rec.others(want.target), want)
}

// isWritten reports whether status alone proves that there is nothing to write: this generation is in Grafana, from the versions of the
// Secrets that the cache shows. Nobody is asked.
func (r *Reconciler) isWritten(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) bool {
	if !isTrusted(sv, want.target) || want.again || r.connections.MayHaveDrifted(keyOf(sv)) {
		return false
	}
	var secrets []v1alpha1.SecretStatus
	for _, name := range sv.Spec.ValueFrom.Secrets() {
		secret := &metav1.PartialObjectMetadata{}
		secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: name}, secret); err != nil {
			return false
		}
		secrets = append(secrets, secretStatusOf(secret))
	}
	return sourceOf(sv, secrets).isOf(&sv.Status.Targets[0])
}

// claim records the wanted target as pending, and makes sure of our finalizer.
func (r *Reconciler) claim(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record, target ownership.Target) error {
	pending := slices.DeleteFunc(slices.Clone(rec.pending), func(t ownership.Target) bool {
		return t == target || ownership.Record(sv.Status.Targets, t) != nil
	})
	err := r.patchPending(ctx, sv, append(pending, target))
	if err == nil {
		rec.pending, rec.claimed = append(pending, target), true
	}
	return err
}

// dropPending removes released targets from those that are pending.
func (r *Reconciler) dropPending(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, rec *record) error {
	pending := ownership.Pending(sv)
	rest := slices.DeleteFunc(slices.Clone(pending), func(t ownership.Target) bool { return slices.Contains(rec.released, t) })
	if len(rest) == len(pending) {
		return nil
	}
	return r.patchPending(ctx, sv, rest)
}

// patchPending writes the pending targets, and our finalizer, in one patch which the API server refuses if the object has changed. One that
// changes nothing proves that it has not.
func (r *Reconciler) patchPending(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, pending []ownership.Target) error {
	changed := sv.DeepCopy()
	if !ownership.IsReleased(sv) {
		controllerutil.AddFinalizer(changed, v1alpha1.Finalizer)
	}
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, v1alpha1.AnnotationPendingTargets, ownership.FormatPending(pending))
	if len(pending) == 0 {
		delete(changed.Annotations, v1alpha1.AnnotationPendingTargets)
	}
	data, err := client.MergeFromWithOptions(sv, client.MergeFromWithOptimisticLock{}).Data(changed)
	if err == nil {
		err = r.patch(ctx, sv, changed, client.RawPatch(types.MergePatchType, data), false)
	}
	if status.Of(err) == nil && (apierrors.IsConflict(err) || apierrors.IsNotFound(err)) { // an admission webhook may use these codes
		return errChanged
	}
	return err
}

// removeFinalizer lets an object go that owns nothing any more, unless it has changed since that was decided. The error is errReleased where
// it stays for the finalizers of others.
func (r *Reconciler) removeFinalizer(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) error {
	err := r.patch(ctx, sv, sv.DeepCopy(), status.FinalizerRemoval(sv.Finalizers, sv.ResourceVersion), false)
	switch {
	case apierrors.IsInvalid(err), apierrors.IsConflict(err): // a test of a JSON patch that fails is Invalid
		return cmp.Or(r.isUnchanged(ctx, sv), err)
	case err == nil && len(sv.Finalizers) > 0:
		return errReleased
	case client.IgnoreNotFound(err) == nil:
		r.memory.wrote(sv, true, r.now())
	}
	return client.IgnoreNotFound(err)
}

// patch sends a patch of the object, or of its status, that the API server refuses where the object has changed. It makes sv the changed object.
// Only metadata is asked for in the answer, which spares decoding the rest as JSON. Where admission has changed the spec with the patch, which
// the generation tells, the error is errChanged.
func (r *Reconciler) patch(ctx context.Context, sv, changed *v1alpha1.GrafanaSecureValue, patch client.Patch, ofStatus bool) error {
	answer := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: sv.Namespace, Name: sv.Name}}
	answer.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("GrafanaSecureValue"))
	var err error
	if ofStatus {
		err = r.client.Status().Patch(ctx, answer, patch)
	} else {
		err = r.client.Patch(ctx, answer, patch)
	}
	if err != nil {
		return err
	}
	generation := sv.Generation // of the spec that is known
	*sv = *changed
	sv.ObjectMeta, sv.Generation = answer.ObjectMeta, generation
	r.memory.wrote(sv, false, r.now())
	if answer.Generation != generation {
		return errChanged
	}
	return nil
}

func keyOf(sv *v1alpha1.GrafanaSecureValue) types.NamespacedName {
	return types.NamespacedName{Namespace: sv.Namespace, Name: sv.Name}
}
