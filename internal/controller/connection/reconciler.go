package connection

import (
	"context"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
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

	// listed is told of each connection whose LIST succeeded just now.
	listed func(context.Context, ID)
}

// Reconcile checks the connection if that is due, then reports how that went.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	conn := r.newObject()
	if err := r.client.Get(ctx, req.NamespacedName, conn); err != nil {
		if apierrors.IsNotFound(err) {
			r.registry.Remove(ID{Kind: r.kind, Namespace: req.Namespace, Name: req.Name})
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	found, err := r.check(ctx, conn)
	if err != nil {
		return ctrl.Result{}, err
	}
	if found.fresh && found.Class == status.None {
		r.listed(ctx, idOf(conn))
	}
	return r.report(ctx, conn, found)
}

// report writes what was found into the status, if that changes it, and says when to look again. The number of users is counted
// with each check. A restart alone is no reason to write it.
func (r *Reconciler) report(ctx context.Context, conn v1alpha1.Connection, found finding) (ctrl.Result, error) {
	old, _ := conn.DeepCopyObject().(v1alpha1.Connection) // a copy has the type of its original
	st := conn.GetStatus()
	found.Apply(&st.Conditions, conn.GetGeneration())
	st.ObservedGeneration = conn.GetGeneration()
	changed := !equality.Semantic.DeepEqual(old.GetStatus(), st)
	if found.fresh && (changed || !found.first) {
		n, err := r.users(ctx, idOf(conn))
		if err != nil {
			return ctrl.Result{}, err
		}
		st.SecureValues = new(int32(min(n, math.MaxInt32))) //nolint:gosec // bounded
		changed = !equality.Semantic.DeepEqual(old.GetStatus(), st)
	}
	if changed {
		if err := r.client.Status().Patch(ctx, conn, client.MergeFrom(old)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		r.announce(old, conn, found.Verdict)
	}
	return ctrl.Result{RequeueAfter: r.registry.entry(idOf(conn)).untilNext(r.now())}, nil
}

// announce emits one event where the reason of Ready has changed.
func (r *Reconciler) announce(old, conn v1alpha1.Connection, verdict status.Verdict) {
	if status.Reason(old.GetStatus().Conditions) == verdict.Reason {
		return
	}
	eventType := corev1.EventTypeNormal
	if verdict.Class != status.None {
		eventType = corev1.EventTypeWarning
	}
	r.recorder.Eventf(conn, nil, eventType, verdict.Reason, "Check", "%s", verdict.Message)
}
