package securevalue

import (
	"cmp"
	"context"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// ownerOf tells whose found is, as the object of these marks sees it. A resident that the API server does not show to hold the
// place has left it. What cannot be proved is taken as held.
func (r *Reconciler) ownerOf(ctx context.Context, at gate.Place, m marks, found *grafana.SecureValue) owner {
	whose, object := m.ownerOf(found)
	if whose != resident {
		return whose
	}
	sv := &v1alpha1.GrafanaSecureValue{}
	err := r.live.Get(ctx, object, sv)
	switch {
	case client.IgnoreNotFound(err) != nil:
		ctrl.LoggerFrom(ctx).V(1).Info("Holder of a secure value not read, so it counts as held", "secureValue", at.Name, "error", err.Error())
		return resident
	case err == nil && sv.DeletionTimestamp.IsZero() && r.wants(ctx, sv, at, found):
		return resident
	case err == nil && sv.DeletionTimestamp.IsZero() && r.holds(ctx, sv, at, found):
		return leaver
	case object.Namespace == m.object.Namespace:
		return vacated
	default:
		return abandoned
	}
}

// wants reports whether the spec of an object may name the place at which something with its mark was found.
func (r *Reconciler) wants(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, at gate.Place, found *grafana.SecureValue) bool {
	return sv.SecureValueName() == at.Name && r.leadsTo(ctx, sv, sv.Spec.ConnectionRef, at, found)
}

// holds reports whether the intent or the targets of an object may name the place at which something with its mark was found.
func (r *Reconciler) holds(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, at gate.Place, found *grafana.SecureValue) bool {
	return slices.ContainsFunc(heldPlaces(sv), func(p place) bool {
		return p.name == at.Name && p.namespace == at.Namespace && r.leadsTo(ctx, sv, p.connection, at, found)
	})
}

// leadsTo reports whether a connection of an object may lead to where something with its mark was found: it is the one that the mark
// names, or one to the same Grafana, or not known.
func (r *Reconciler) leadsTo(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, ref v1alpha1.ConnectionReference, at gate.Place, found *grafana.SecureValue,
) bool {
	if connectionMark(connection.IDOf(ref, sv.Namespace)) == found.Labels[labelConnection] {
		return true
	}
	server, namespace, known := r.reach(ctx, ref, sv.Namespace)
	return !known || server == at.Server && namespace == at.Namespace
}

// reach returns where a connection leads, if it is known.
func (r *Reconciler) reach(ctx context.Context, ref v1alpha1.ConnectionReference, namespace string) (server, grafanaNamespace string, known bool) {
	conn, err := r.getConnection(ctx, ref, namespace)
	if err != nil {
		return "", "", false
	}
	return connection.ServerOf(conn.GetSpec().URL), conn.GetSpec().Namespace, true
}

// heirOf returns another object of the namespace that is to have the value at the place p, which sv leaves and whose owner is known:
// the oldest that follows there, as the API server shows it; nil if there is none. One that has an earlier intent to finish is
// passed over; if all have, it is a fault.
func (r *Reconciler) heirOf(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, p place, whose owner) (*v1alpha1.GrafanaSecureValue, error) {
	candidates, err := r.followers(ctx, sv, p)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(candidates, func(a, b v1alpha1.GrafanaSecureValue) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var occupied error
	for i := range candidates {
		heir := &v1alpha1.GrafanaSecureValue{}
		err := r.live.Get(ctx, keyOf(&candidates[i]), heir)
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		_, stray := strayIntent(heir, seenBy(heir, p))
		switch {
		case err != nil:
		case whose == own && r.inherits(ctx, sv, heir, p):
			return heir, nil
		case !r.follows(ctx, sv, heir, p):
		case stray:
			occupied = cmp.Or(occupied, busy(heir.Name))
		default:
			return heir, nil
		}
	}
	return nil, occupied
}

// followers returns the objects that the cache shows to follow sv at the place p, or to inherit from it there. They are the cache's
// own and must not be changed.
func (r *Reconciler) followers(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, p place) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := r.client.List(ctx, list, client.InNamespace(sv.Namespace), client.MatchingFields{nameIndex: bucket(p.name)}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, err
	}
	var found []v1alpha1.GrafanaSecureValue
	for i := range list.Items {
		if other := &list.Items[i]; r.follows(ctx, sv, other, p) || r.inherits(ctx, sv, other, p) {
			found = append(found, *other)
		}
	}
	return found, nil
}

// follows reports whether another object than sv names the place p in its spec and is not being deleted.
func (r *Reconciler) follows(ctx context.Context, sv, other *v1alpha1.GrafanaSecureValue, p place) bool {
	return other.Name != sv.Name && other.DeletionTimestamp.IsZero() && other.SecureValueName() == p.name &&
		r.isSame(ctx, sv.Namespace, p.connection, other.Spec.ConnectionRef)
}

// inherits reports whether sv has left the value at p to another object before, which a crash kept it from recording.
func (r *Reconciler) inherits(ctx context.Context, sv, other *v1alpha1.GrafanaSecureValue, p place) bool {
	about := intentOf(other)
	return about.from == sv.Name && other.Name != sv.Name && other.DeletionTimestamp.IsZero() && about.place.name == p.name &&
		r.isSame(ctx, sv.Namespace, p.connection, about.place.connection)
}

// isSame reports whether two connections of a namespace are one, or known to lead to the same place.
func (r *Reconciler) isSame(ctx context.Context, namespace string, a, b v1alpha1.ConnectionReference) bool {
	if a == b {
		return true
	}
	server, at, known := r.reach(ctx, a, namespace)
	otherServer, otherAt, otherKnown := r.reach(ctx, b, namespace)
	return known && otherKnown && server == otherServer && at == otherAt
}

// seenBy returns the place p as an object that follows there reaches it.
func seenBy(heir *v1alpha1.GrafanaSecureValue, p place) place {
	p.connection = heir.Spec.ConnectionRef
	return p
}

// bequeath records on the heir that the value at p is its own to delete, should it never come to write there. It is one patch,
// refused by the API server if the heir has changed meanwhile.
func (r *Reconciler) bequeath(ctx context.Context, sv, heir *v1alpha1.GrafanaSecureValue, p place, found *grafana.SecureValue) error {
	resident, _ := residentOf(found.Labels, found.Annotations)
	about := intent{place: seenBy(heir, p), from: resident.Name}
	if resident.Name == sv.Name && r.inherits(ctx, sv, heir, p) {
		about.place = intentOf(heir).place // which it may have left by now
	}
	return r.intend(ctx, heir, about)
}
