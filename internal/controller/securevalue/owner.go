package securevalue

import (
	"cmp"
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// maxGets is how many objects are read one by one; of more, one LIST of the namespace reads all.
const maxGets = 10

// successorTimeout is how long an object that leaves a target waits for another one to claim it, from the last edit of that one.
const successorTimeout = time.Minute

// owner returns the object of the namespace that has the owner label, as the API server has it now; nil where there is none. It is found
// by the index, and where that shows none, by a LIST of metadata: the cache may be behind.
func (r *Reconciler) owner(ctx context.Context, namespace, label string) (*v1alpha1.GrafanaSecureValue, error) {
	owners, err := connection.OwnerIndex(r.clusterID).Find(ctx, r.client, namespace, label)
	if err == nil && len(owners) > 0 {
		return r.get(ctx, keyOf(&owners[0]))
	}
	all := &metav1.PartialObjectMetadataList{}
	all.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("GrafanaSecureValueList"))
	if err == nil {
		err = r.live.List(ctx, all, client.InNamespace(namespace))
	}
	for i := range all.Items {
		if key := client.ObjectKeyFromObject(&all.Items[i]); ownership.OwnerLabel(r.clusterID, key) == label {
			return r.get(ctx, key)
		}
	}
	return nil, err
}

// get returns an object as the API server has it now; nil where it is gone.
func (r *Reconciler) get(ctx context.Context, key client.ObjectKey) (*v1alpha1.GrafanaSecureValue, error) {
	sv := &v1alpha1.GrafanaSecureValue{}
	if err := r.live.Get(ctx, key, sv); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return sv, nil
}

// names reports whether an object is not being deleted and its spec names the place.
func (r *Reconciler) names(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, place ownership.Place, found *grafana.SecureValue) bool {
	spec := ownership.Target{Connection: sv.ConnectionOrDefault(), Name: sv.SecureValueName()}
	return sv.DeletionTimestamp.IsZero() && r.resolvesTo(ctx, sv, spec, place, found)
}

// lists reports whether an object owns the place or has it pending.
func (r *Reconciler) lists(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, place ownership.Place, found *grafana.SecureValue) bool {
	return slices.ContainsFunc(ownership.Targets(sv), func(t ownership.Target) bool { return r.resolvesTo(ctx, sv, t, place, found) })
}

// resolvesTo reports whether a target of an object is the place: by its address, because the value found there names its connection, or
// because its connection is not known. What status does not record anybody may have written, and counts only where the connection allows
// the namespace.
func (r *Reconciler) resolvesTo(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, t ownership.Target, place ownership.Place, found *grafana.SecureValue,
) bool {
	if t.Name != place.Name {
		return false
	}
	conn, err := r.getConnection(ctx, t.Connection, sv.Namespace)
	if err != nil {
		return true
	}
	if ownership.Record(sv.Status.Targets, t) == nil {
		if allowed, err := connection.Allows(ctx, r.client, conn, sv.Namespace); err == nil && !allowed {
			return false
		}
	}
	if found != nil && ownership.ConnectionOf(t.Connection, sv.Namespace).Label() == found.Labels[ownership.LabelConnection] {
		return true
	}
	return mayBe(place, r.placeOf(conn, t))
}

// placeOf returns where a target is through its connection. A target without a namespace of Grafana has that of the connection.
func (r *Reconciler) placeOf(conn v1alpha1.Connection, t ownership.Target) ownership.Place {
	return ownership.Place{Server: r.connections.Server(conn), Namespace: cmp.Or(t.Namespace, conn.GetSpec().Namespace), Name: t.Name}
}

// mayBe reports whether two places are the same, as far as their servers are known.
func mayBe(a, b ownership.Place) bool {
	if a.Server == "" || b.Server == "" {
		a.Server, b.Server = "", ""
	}
	return a == b
}

// isContended reports whether the wanted place may have a value already: another object of the namespace names it, owns it or has it
// pending, or this one owns it through another connection.
func (r *Reconciler) isContended(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) (bool, error) {
	others, err := r.named(ctx, sv, want.target.Name)
	if err != nil {
		return false, err
	}
	for i := range others {
		if r.names(ctx, &others[i], want.place, nil) || r.lists(ctx, &others[i], want.place, nil) {
			return true, nil
		}
	}
	return slices.ContainsFunc(ownership.Targets(sv), func(t ownership.Target) bool {
		return t != want.target && r.resolvesTo(ctx, sv, t, want.place, nil)
	}), nil
}

// named returns the other objects of the namespace that name, own or have pending a secure value of that name, as the cache shows them.
// They are the cache's own and must not be changed.
func (r *Reconciler) named(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, name string) ([]v1alpha1.GrafanaSecureValue, error) {
	objects, err := nameIndex.Find(ctx, r.client, sv.Namespace, name)
	return slices.DeleteFunc(objects, func(other v1alpha1.GrafanaSecureValue) bool { return other.Name == sv.Name }), err
}

// successors returns what other objects of the namespace, as the API server has them now, name the place and may write there: whether any has
// claimed it, and those that have not.
func (r *Reconciler) successors(
	ctx context.Context, sv *v1alpha1.GrafanaSecureValue, place ownership.Place, found *grafana.SecureValue,
) (claimed bool, unclaimed []*v1alpha1.GrafanaSecureValue, err error) {
	others, err := r.named(ctx, sv, place.Name)
	get := r.get
	if len(others) > maxGets {
		list := &v1alpha1.GrafanaSecureValueList{}
		if err := r.live.List(ctx, list, client.InNamespace(sv.Namespace)); err != nil {
			return false, nil, err
		}
		live := map[client.ObjectKey]*v1alpha1.GrafanaSecureValue{}
		for i := range list.Items {
			live[keyOf(&list.Items[i])] = &list.Items[i]
		}
		get = func(_ context.Context, key client.ObjectKey) (*v1alpha1.GrafanaSecureValue, error) {
			return live[key], nil
		}
	}
	for i := range others {
		other, err := get(ctx, keyOf(&others[i]))
		if err != nil {
			return false, nil, err
		}
		if other == nil || other.Spec.Suspend || !r.names(ctx, other, place, found) {
			continue
		}
		switch _, err = r.desired(ctx, other); {
		case status.Of(err) != nil: // it may not write there
		case err != nil:
			return false, nil, err
		case r.lists(ctx, other, place, found):
			claimed = true
		default:
			unclaimed = append(unclaimed, other)
		}
	}
	return claimed, unclaimed, err
}

// untilTimeout returns how long to wait for an object, from its last edit.
func (r *Reconciler) untilTimeout(sv *v1alpha1.GrafanaSecureValue) time.Duration {
	return min(successorTimeout-r.now().Sub(LastEdit(sv)), successorTimeout)
}

// LastEdit returns when an object was last edited by another writer than the operator.
func LastEdit(sv *v1alpha1.GrafanaSecureValue) time.Time {
	last := sv.CreationTimestamp.Time
	for _, entry := range sv.ManagedFields {
		if entry.Manager != FieldManager && entry.Time != nil && entry.Time.After(last) {
			last = entry.Time.Time
		}
	}
	return last
}
