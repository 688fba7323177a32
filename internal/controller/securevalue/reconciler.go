// Package securevalue keeps GrafanaSecureValues: it brings each secure value in Grafana in step with its Secret.
//
// There is one flow. desire (spec and Secret) and remembered or look (status and Grafana) feed decide, a pure function;
// settle takes the steps that it names; report alone writes status, events and log lines. Deletion and moves are the same flow
// for a place that shall hold nothing.
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
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/watchdog"
)

// lookTimeout bounds one look at one object, its calls to Grafana and to Kubernetes included. A look is not cut off when the
// process is told to stop, so that a write that has begun is also recorded.
const lookTimeout = watchdog.Limit - time.Minute

// Reconciler keeps GrafanaSecureValues.
type Reconciler struct {
	client      client.Client // reads from the cache
	live        client.Reader // reads Secrets, and other objects where it must be certain
	connections *connection.Registry
	keeper      *fingerprint.Keeper
	recorder    events.EventRecorder
	clusterID   string
	served      connection.Served
	now         func() time.Time
	memory      *memory
	suspicions  *suspicions
	changes     *changes
}

// Reconcile brings Grafana in line with the object, then reports how that went.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	defer r.connections.Leave(req.NamespacedName)

	sv := &v1alpha1.GrafanaSecureValue{}
	if err := r.client.Get(ctx, req.NamespacedName, sv); err != nil {
		if apierrors.IsNotFound(err) {
			return r.forget(ctx, req.NamespacedName)
		}
		return ctrl.Result{}, err
	}
	sv = r.memory.newest(sv)
	if gone := r.memory.exhume(req.NamespacedName); gone != nil && gone.UID != sv.UID {
		if result, err := r.giveUpVanished(ctx, gone, sv); err != nil || !result.IsZero() {
			return result, err
		}
	}

	done, err := r.sync(ctx, sv)
	return r.report(ctx, sv, done, err)
}

// forget ends whatever is remembered of an object that is gone, once all that it held is given up.
func (r *Reconciler) forget(ctx context.Context, key types.NamespacedName) (ctrl.Result, error) {
	result, err := r.giveUpVanished(ctx, r.memory.exhume(key), nil)
	r.memory.forget(key)
	r.suspicions.forget(key)
	r.changes.forget(key)
	if r.memory.exhume(key) == nil {
		r.connections.Forget(key)
	}
	return result, err
}

// sync brings the place that spec names in line first, and then gives up the places that the object has left. An object that
// is being deleted has left them all.
func (r *Reconciler) sync(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (*progress, error) {
	done := progressOf(sv)
	if !sv.DeletionTimestamp.IsZero() {
		if !controllerutil.ContainsFinalizer(sv, v1alpha1.Finalizer) { // all is given up, or somebody has decided otherwise
			return done, nil
		}
		if err := r.giveUp(ctx, sv, heldPlaces(sv), false, done); err != nil {
			return done, err
		}
		return done, r.letGo(ctx, sv)
	}
	if sv.Spec.Suspend {
		return done, errSuspended
	}
	want, err := r.desire(ctx, sv)
	if err != nil {
		return done, err
	}
	if r.inStep(ctx, sv, want.place) {
		r.changes.arrived(keyOf(sv))
		return done, nil
	}
	trace := r.keepTrace(ctx, sv, want.place, done)
	want.keepIntent = trace != nil
	if want.keepIntent && (!isOfOldPlace(trace) || findTarget(sv.Status.Targets, want.place) == nil) {
		return done, trace
	}
	if err := r.makeRoom(ctx, sv, want.place, done); err != nil {
		return done, err
	}
	held := r.hold(ctx, sv, want, done)
	if held != nil && !isTaken(held) {
		return done, held
	}
	left := slices.DeleteFunc(heldPlaces(sv), func(p place) bool { return p == want.place || done.hasTried(p) })
	if err := cmp.Or(r.giveUp(ctx, sv, left, held != nil, done), trace); err != nil {
		if _, known := classify(err); held == nil || !known {
			return done, err
		}
	}
	return done, held
}

// inStep reports whether status alone proves that there is nothing to do: this generation is in Grafana, from the version of
// the Secret that the cache shows, and no other place is held. Nobody is asked.
func (r *Reconciler) inStep(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, wanted place) bool {
	held := heldPlaces(sv)
	if !isTrusted(sv, wanted) || !isReady(sv) || syncNow(sv) != "" || len(held) != 1 || r.suspicions.has(keyOf(sv)) {
		return false
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	ref, source := sv.Spec.ValueFrom.SecretKeyRef, *sv.Status.Targets[0].Source
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: ref.Name}, secret); err != nil {
		return false
	}
	return source == v1alpha1.SourceStatus{
		Name: ref.Name, Key: ref.Key, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
	}
}

// keepTrace makes sure that a place which only the intent tells of is not forgotten when another intent takes its place. One that
// the object was to inherit holds nothing of its own, and is given up at once. Where that fails, the intent must stay, which it
// can while the wanted place is one that status lists.
func (r *Reconciler) keepTrace(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, wanted place, done *progress) error {
	p, stray := strayIntent(sv, wanted)
	switch {
	case !stray:
		return nil
	case intentOf(sv).from != "":
		return r.giveUp(ctx, sv, []place{p}, false, done)
	default:
		done.note(p)
		return errNoted
	}
}

// makeRoom gives up old places before a new one is held, if status could not list one more. The newest of them, where the
// value is, stays.
func (r *Reconciler) makeRoom(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, wanted place, done *progress) error {
	held := heldPlaces(sv)
	// One is left free for a place that an intent tells of.
	if findTarget(sv.Status.Targets, wanted) != nil || len(sv.Status.Targets) < v1alpha1.MaxTargets-1 {
		return nil
	}
	return r.giveUp(ctx, sv, slices.DeleteFunc(held[1:], func(p place) bool { return p == wanted }), false, done)
}

// hold makes the wanted place hold the value. The Secret is read only once it is this object's turn, and even where the
// connection is in trouble, so that an object that has nothing to write does not complain.
func (r *Reconciler) hold(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired, done *progress) (err error) {
	purpose := gate.Hold
	if record := findTarget(sv.Status.Targets, want.place); record == nil || record.Source == nil {
		purpose = gate.Start
	}
	session, trouble := r.admit(sv, want, purpose)
	if errors.Is(trouble, connection.ErrParked) {
		return trouble
	}
	defer func() {
		err = metThrough(want.id, err)
		closeSession(session, err)
	}()

	if err := r.readSource(ctx, sv, want); err != nil {
		return err
	}
	seen := remembered(sv, want.place)
	seen.suspect, seen.contested = r.suspicions.has(keyOf(sv)), r.suspicions.contested(keyOf(sv), r.now())
	if step, _ := decide(want, seen); step != keep && trouble != nil {
		if seen.settled && sameValue(want, seen.record) && !want.again && (isReady(sv) || seen.drifted) {
			return connection.ErrParked // there is nothing to write: only whether somebody else wrote is asked
		}
		if t, ok := errors.AsType[*connection.Trouble](trouble); ok && t.Probed {
			done.doubt(want.place) // with the one report: when it comes to try, and what came of it is not known, nothing is left to say
		}
		return trouble
	}
	if err := r.prepare(ctx, sv, want); err != nil {
		return err
	}
	result, err := r.settle(ctx, session, sv, want, seen)
	if result.isWrite() && isUnknownOutcome(err) {
		done.doubt(want.place)
	}
	done.concluded = func() { r.conclude(keyOf(sv), result, err) }
	if err != nil {
		done.fail(want, result)
		return err
	}
	done.hold(want, result, r.now())
	if seen, changed := r.changes.arrived(keyOf(sv)); changed && result.isWrite() {
		metrics.Propagated(r.now().Sub(seen))
	}
	if want.again {
		done.answered = syncNow(sv)
	}
	return nil
}

// conclude remembers what came of a suspicion, once status says it.
func (r *Reconciler) conclude(key types.NamespacedName, result outcome, err error) {
	drifted, left := errors.AsType[*driftedError](err)
	switch {
	case left:
		if r.suspicions.confirm(key) {
			metrics.Drift(string(drifted.kind))
		}
		return
	case err != nil && !isTaken(err):
		return
	}
	r.suspicions.settle(key)
	switch {
	case result.drift != "":
		r.suspicions.correct(key, r.now())
	case result.isWrite():
		r.suspicions.intend(key)
	}
}

// giveUp makes places hold nothing of ours, or forgets them. With heirsOnly set it does so only where another object follows. A
// place that cannot be given up does not keep the others; its error is returned, the first of several in the order of the places. Where
// it is the object's turn comes first: a place at which each look fails would cost it that turn otherwise.
func (r *Reconciler) giveUp(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, places []place, heirsOnly bool, done *progress) error {
	waits := func(p place) int {
		if r.connections.HasTurn(connection.IDOf(p.connection, sv.Namespace), keyOf(sv)) {
			return 0
		}
		return 1
	}
	byTurn := slices.SortedStableFunc(slices.Values(places), func(a, b place) int { return waits(a) - waits(b) })
	errs := map[place]error{}
	for _, p := range byTurn {
		err := r.leavePlace(ctx, sv, p, heirsOnly, done)
		if err != nil && !errors.Is(err, connection.ErrParked) {
			err = blockedAt(sv, p, err)
		}
		errs[p] = err
		done.tried = append(done.tried, p)
	}
	var first error
	for _, p := range places {
		if first == nil || errors.Is(first, connection.ErrParked) {
			first = cmp.Or(errs[p], first)
		}
	}
	return first
}

// isOfOldPlace reports whether an error of giveUp says nothing but that a place is not given up yet.
func isOfOldPlace(err error) bool {
	_, known := classify(err)
	return known || errors.Is(err, connection.ErrParked)
}

func (r *Reconciler) leavePlace(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, p place, heirsOnly bool, done *progress,
) (err error) {
	want := r.leave(sv, p)
	record := findTarget(sv.Status.Targets, p)
	if want.heirsOnly = heirsOnly; heirsOnly && record != nil && record.Source != nil { // else nothing may be there, and it is looked at
		if heirs, err := r.followers(ctx, sv, p); len(heirs) == 0 || err != nil {
			return err
		}
	}
	if want.retain {
		done.drop(want, outcome{did: drop})
		return nil
	}
	if !r.served.Has(p.connection.Kind) {
		return waiting(v1alpha1.ReasonConnectionNotFound, "%s is not served. %s", want.id, r.served.WhyNot(p.connection.Kind))
	}
	conn, err := r.getConnection(ctx, p.connection, sv.Namespace)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil || !conn.GetDeletionTimestamp().IsZero() && !controllerutil.ContainsFinalizer(conn, v1alpha1.Finalizer) {
		return waiting(v1alpha1.ReasonConnectionNotFound, "%s does not exist any more.", want.id)
	}
	if conn.GetSpec().Namespace != p.namespace { // made anew: a call would meet another value of that name
		return waiting(v1alpha1.ReasonConnectionNotReady, "%s leads to another namespace of Grafana than the place was in.", want.id)
	}
	if shared, ok := conn.(*v1alpha1.ClusterGrafanaConnection); ok && (record == nil || record.Source == nil) {
		// Anybody may write an intent: it alone is no right to ask through a connection that does not allow the namespace.
		if err := r.checkAllowed(ctx, shared, sv.Namespace); isRefused(err) {
			done.drop(want, outcome{did: drop})
			return nil
		} else if err != nil {
			return err
		}
	}
	session, err := r.admit(sv, want, gate.GiveUp)
	defer func() {
		err = metThrough(want.id, err)
		closeSession(session, err)
	}()
	if err != nil {
		return err
	}

	result, err := r.settle(ctx, session, sv, want, remembered(sv, p))
	if err != nil {
		return err
	}
	done.drop(want, result)
	return nil
}

func (r *Reconciler) admit(sv *v1alpha1.GrafanaSecureValue, want *desired, purpose gate.Purpose) (*connection.Session, error) {
	return r.connections.Admit(want.id, want.place.namespace, want.place.name, keyOf(sv), purpose)
}

// closeSession gives the connection back, and has the object handed back where the work failed in a way that time, or the
// connection's recovery, may heal. A nil session is none.
func closeSession(session *connection.Session, err error) {
	if session == nil {
		return
	}
	verdict, known := classify(err)
	if known && (verdict.Class == status.Time || verdict.Reason == v1alpha1.ReasonConnectionNotReady) {
		session.Retry()
	}
	session.Close()
}
