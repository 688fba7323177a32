package connection

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// pageSize is how many objects are read at a time where the API server itself is asked.
const pageSize = 500

// byConnection finds the objects that name a connection, own a value through it or have one pending, in the cache. They are the cache's own
// and must not be changed.
func byConnection(id ownership.Connection) client.ListOption {
	return &client.ListOptions{
		Namespace: id.Namespace, FieldSelector: fields.OneTermEqualSelector(ConnectionIndex, id.Key()), UnsafeDisableDeepCopy: new(true),
	}
}

func (r *Reconciler) using(ctx context.Context, id ownership.Connection) ([]v1alpha1.GrafanaSecureValue, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	err := r.client.List(ctx, list, byConnection(id))
	return list.Items, err
}

// users counts the objects that need the connection: status says that they wrote a value through it, or spec or pending targets name it and
// the connection allows the namespace. The cache shows what it can find by its index; the API server is asked page by page.
func (r *Reconciler) users(ctx context.Context, conn v1alpha1.Connection, reader client.Reader, opts ...client.ListOption) (int, error) {
	id, allowed := IDFor(conn), map[string]bool{}
	list, n := &v1alpha1.GrafanaSecureValueList{}, 0
	for {
		err := reader.List(ctx, list, append(opts, client.Continue(list.Continue))...)
		if err != nil {
			return 0, err
		}
		for i := range list.Items {
			sv := &list.Items[i]
			wrote := len(ownership.WrittenThrough(id, sv)) > 0
			if _, known := allowed[sv.Namespace]; !known && !wrote {
				if allowed[sv.Namespace], err = Allows(ctx, reader, conn, sv.Namespace); err != nil {
					return 0, err
				}
			}
			if wrote || slices.Contains(ownership.Connections(sv), id) && allowed[sv.Namespace] {
				n++
			}
		}
		if list.Continue == "" || reader != r.live { // a cache shows all at once, and yet sets a token, which it does not take
			return n, nil
		}
	}
}

// Get returns the connection that objects of a namespace mean by ref. One of a kind that is not served is not found.
func Get(ctx context.Context, reader client.Reader, served Served, ref v1alpha1.ConnectionReference, namespace string) (v1alpha1.Connection, error) {
	if !served.Has(ref.Kind) {
		return nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource(string(ref.Kind)).GroupResource(), ref.Name)
	}
	var conn v1alpha1.Connection = &v1alpha1.GrafanaConnection{}
	if ref.Kind == v1alpha1.KindClusterGrafanaConnection {
		conn = &v1alpha1.ClusterGrafanaConnection{}
	}
	return conn, reader.Get(ctx, ownership.ConnectionOf(ref, namespace).Object(), conn)
}

// Allows reports whether a connection may be used by the objects of a namespace. A namespace that is not found is allowed nothing by a
// selector, and an unknown value allows no namespace.
func Allows(ctx context.Context, reader client.Reader, conn v1alpha1.Connection, namespace string) (bool, error) {
	shared, isShared := conn.(*v1alpha1.ClusterGrafanaConnection)
	if !isShared || shared.Spec.AllowedNamespaces.From == v1alpha1.NamespacesFromAll {
		return true, nil
	}
	allowed := shared.Spec.AllowedNamespaces
	selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
	if allowed.From != v1alpha1.NamespacesFromSelector || err != nil {
		return false, nil //nolint:nilerr // the schema refuses it; older objects get no right from it
	}
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := reader.Get(ctx, client.ObjectKey{Name: namespace}, meta); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return selector.Matches(labels.Set(meta.Labels)), nil
}

// comparison compares a LIST with what objects record. It keeps of the LIST what is about those objects alone: whoever answers may list
// anything.
type comparison struct {
	r        *Reconciler
	ctx      context.Context //nolint:containedctx // a comparison lives as long as one check
	id       ownership.Connection
	begun    time.Time
	intact   map[types.NamespacedName]bool // objects whose value is listed as they wrote it
	present  bool                          // a value that an object wrote through this connection is listed
	orphaned int                           // listed with an owner label of this cluster, and of no object
}

func (r *Reconciler) compare(ctx context.Context, id ownership.Connection) *comparison {
	return &comparison{r: r, ctx: ctx, id: id, begun: r.now(), intact: map[types.NamespacedName]bool{}}
}

// visit takes a listed secure value. On a connection of one namespace nothing is looked up of others.
func (c *comparison) visit(found *grafana.SecureValue) {
	owner := found.Labels[ownership.LabelOwner]
	if !c.id.Concerns(c.r.ClusterID, found) {
		return
	}
	owners, err := OwnerIndex(c.r.ClusterID).Find(c.ctx, c.r.client, "", owner)
	switch {
	case err != nil:
	case len(owners) == 0 || !ownership.Uses(&owners[0], found.Name):
		c.orphaned++
	case slices.Contains(ownership.WrittenThrough(c.id, &owners[0]), found.Name):
		c.present = true
		if sv := &owners[0]; c.isFirst(sv) && sv.Status.Targets[0].Name == found.Name {
			c.intact[client.ObjectKeyFromObject(sv)] = c.isIntact(sv, found)
		}
	}
}

// isFirst reports whether the object has the value that it wants on this connection, as far as status says.
func (c *comparison) isFirst(sv *v1alpha1.GrafanaSecureValue) bool {
	return len(sv.Status.Targets) > 0 && ownership.ConnectionOf(sv.Status.Targets[0].Connection, sv.Namespace) == c.id
}

// isIntact compares version and creation time, and all that is listed where Grafana does not serve a version.
func (c *comparison) isIntact(sv *v1alpha1.GrafanaSecureValue, found *grafana.SecureValue) bool {
	record := &sv.Status.Targets[0]
	if found.Version != 0 {
		return found.Version == record.Version && ownership.SameAge(found, record)
	}
	want, description := ownership.LabelsOf(c.r.ClusterID, sv, sv.ConnectionOrDefault()), sv.DescriptionOrDefault()
	if record.DescriptionKept {
		description = found.Description
	}
	return want.Intact(found, record, description, sv.Spec.Decrypters)
}

// valuesMissing reports whether the server has changed and none of the recorded values is at the new address. What was released meanwhile
// does not count.
func (c *comparison) valuesMissing(conn v1alpha1.Connection, server string) (bool, error) {
	if c.present || !moved(conn, server) {
		return false, nil
	}
	objects, err := c.r.using(c.ctx, c.id)
	return slices.ContainsFunc(objects, func(sv v1alpha1.GrafanaSecureValue) bool {
		return len(ownership.WrittenThrough(c.id, &sv)) > 0
	}), err
}

// elsewhere are the reasons that a person may fix outside of Kubernetes. An object that Grafana keeps no labels for is not among them: each
// attempt makes a version, so it has its own backoff alone.
var elsewhere = []string{
	v1alpha1.ReasonNameConflict, v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonForbidden,
	v1alpha1.ReasonConnectionNotAllowed, v1alpha1.ReasonAdoptionNotAllowed, v1alpha1.ReasonDeletionBlocked,
}

// wake triggers a reconcile of the objects that wait for a fix outside of Kubernetes, and of those whose secure value is not listed
// as they wrote it.
func (c *comparison) wake() error {
	objects, err := c.r.using(c.ctx, c.id)
	for i := range objects {
		sv := &objects[i]
		key := client.ObjectKeyFromObject(sv)
		drifted := c.isFirst(sv) && mayHaveDrifted(sv, c.intact[key], c.begun)
		if drifted {
			c.r.registry.candidates.Store(key, true)
		}
		if drifted || isUnfinished(sv) || slices.Contains(elsewhere, status.Reason(sv.Status.Conditions)) {
			c.r.registry.Objects.Wake(key)
		}
	}
	return err
}

// isUnfinished reports whether status leaves open what happened to the latest generation: it was not observed, or its write had no answer.
func isUnfinished(sv *v1alpha1.GrafanaSecureValue) bool {
	if !sv.DeletionTimestamp.IsZero() || sv.Status.ObservedGeneration != sv.Generation {
		return sv.DeletionTimestamp.IsZero()
	}
	written := len(sv.Status.Targets) > 0 && sv.Status.Targets[0].Generation == sv.Generation
	return !written && status.Reason(sv.Status.Conditions) == v1alpha1.ReasonGrafanaUnavailable
}

// mayHaveDrifted reports whether a LIST gives reason to ask Grafana for the value of that object alone: it is not intact, or it is again after
// drift that was left alone. A LIST that began before our own last write proves nothing.
func mayHaveDrifted(sv *v1alpha1.GrafanaSecureValue, intact bool, begun time.Time) bool {
	record := &sv.Status.Targets[0]
	if !sv.DeletionTimestamp.IsZero() || sv.Spec.Suspend || !record.IsWritten() || record.Generation != sv.Generation {
		return false // nothing is corrected, or it is to be written anyway
	}
	if last := record.LastWriteTime; last != nil && !begun.After(last.Add(time.Second)) { // the record counts seconds
		return false
	}
	return (status.Reason(sv.Status.Conditions) == v1alpha1.ReasonDrifted) == intact
}
