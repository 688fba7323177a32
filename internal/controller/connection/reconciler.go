package connection

import (
	"context"
	"errors"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/finalizer"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// Reconciler keeps the connections of one kind.
type Reconciler struct {
	client            client.Client // reads from the cache
	live              client.Reader // reads Secrets
	registry          *Registry
	recorder          events.EventRecorder
	newObject         func() v1alpha1.Connection
	kind              v1alpha1.ConnectionKind
	operatorNamespace string
	userAgent         string
	now               func() time.Time

	objects Objects
	served  Served
	policy  Policy
}

// Reconcile lets the connection go if it is being deleted and nobody needs it; else it makes sure that it stays while somebody
// does, checks it if that is due, and reports how that went.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	conn := r.newObject()
	if err := r.client.Get(ctx, req.NamespacedName, conn); err != nil {
		if apierrors.IsNotFound(err) {
			r.registry.Remove(ID{Kind: r.kind, Namespace: req.Namespace, Name: req.Name})
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	e := r.registry.entry(IDFor(conn))
	defer e.turn.Leave(req.NamespacedName)
	if e.isBehind(conn) {
		return ctrl.Result{}, nil // or what was written would be written again
	}
	if gone, err := r.letGo(ctx, conn); gone || err != nil {
		return ctrl.Result{}, err
	}
	if !r.served.Has(r.kind) {
		return r.report(ctx, conn, finding{Verdict: notServed(r.served, r.kind)})
	}
	if err := r.keep(ctx, conn); apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: status.StaleDelay}, nil
	} else if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	found, err := r.check(ctx, conn)
	if errors.Is(err, ErrParked) {
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if found.survey != nil && found.Class == status.None {
		r.objects.Listed(ctx, IDFor(conn), found.listing)
	}
	return r.report(ctx, conn, found)
}

// keep makes sure that the connection carries our finalizer before it is used.
func (r *Reconciler) keep(ctx context.Context, conn v1alpha1.Connection) error {
	if !conn.GetDeletionTimestamp().IsZero() || controllerutil.ContainsFinalizer(conn, v1alpha1.Finalizer) {
		return nil
	}
	old, _ := conn.DeepCopyObject().(v1alpha1.Connection) // a copy has the type of its original
	controllerutil.AddFinalizer(conn, v1alpha1.Finalizer)
	err := r.client.Patch(ctx, conn, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if err == nil {
		r.registry.entry(IDFor(conn)).wrote(conn)
	}
	return err
}

// letGo takes our finalizer off a connection that is being deleted and that no object needs any more, which the API server
// itself must say. It reports whether the connection is none of ours now.
func (r *Reconciler) letGo(ctx context.Context, conn v1alpha1.Connection) (gone bool, err error) {
	if conn.GetDeletionTimestamp().IsZero() {
		return false, nil
	}
	id := IDFor(conn)
	patch, ours, err := finalizer.Removal(conn.GetFinalizers())
	if err != nil {
		return false, err
	}
	if !ours {
		r.registry.Remove(id)
		return true, nil
	}
	if n, err := r.objects.Users(ctx, conn); n > 0 || err != nil {
		return false, err
	}
	if inUse, err := r.objects.InUse(ctx, conn); inUse || err != nil {
		return false, err
	}
	if err := r.client.Patch(ctx, conn, patch); client.IgnoreNotFound(err) != nil {
		return false, err
	}
	r.registry.Remove(id)
	return true, nil
}

// report writes what was found into the status, if that changes it, and says when to look again. The number of users is counted
// with each check. A restart alone is no reason to write it.
func (r *Reconciler) report(ctx context.Context, conn v1alpha1.Connection, found finding) (ctrl.Result, error) {
	e := r.registry.entry(IDFor(conn))
	old, _ := conn.DeepCopyObject().(v1alpha1.Connection) // a copy has the type of its original
	st := conn.GetStatus()
	if found.Class == status.None {
		st.URL = conn.GetSpec().URL
	}
	leaving := !conn.GetDeletionTimestamp().IsZero()
	e.leaves(leaving)
	if leaving {
		found.Verdict = inUse(e.id)
	}
	found.Apply(&st.Conditions, conn.GetGeneration())
	st.ObservedGeneration = conn.GetGeneration()
	changed := !equality.Semantic.DeepEqual(old.GetStatus(), st)
	if found.fresh && (changed || !found.first) {
		n, err := r.objects.Users(ctx, conn)
		if err != nil {
			return ctrl.Result{}, err
		}
		st.SecureValues = new(int32(min(n, math.MaxInt32))) //nolint:gosec // bounded
		if found.survey != nil {
			st.UnownedValues = new(int32(min(found.survey.Unowned, math.MaxInt32))) //nolint:gosec // bounded
		}
		changed = !equality.Semantic.DeepEqual(old.GetStatus(), st)
	}
	if changed {
		if err := r.client.Status().Patch(ctx, conn, client.MergeFrom(old)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		e.wrote(conn)
		r.announce(ctx, old, conn, found.Verdict)
	}
	return ctrl.Result{RequeueAfter: e.untilNext(r.now())}, nil
}

// announce emits one event, and a line in the log, where the reason of Ready has changed.
func (r *Reconciler) announce(ctx context.Context, old, conn v1alpha1.Connection, verdict status.Verdict) {
	if status.Reason(old.GetStatus().Conditions) == verdict.Reason {
		return
	}
	ctrl.LoggerFrom(ctx).Info("Reason of Ready changed", "reason", verdict.Reason, "message", verdict.Message)
	eventType := corev1.EventTypeNormal
	if verdict.Class != status.None {
		eventType = corev1.EventTypeWarning
	}
	r.recorder.Eventf(conn, nil, eventType, verdict.Reason, "Check", "%s", verdict.Message)
}
