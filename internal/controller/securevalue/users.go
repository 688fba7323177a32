package securevalue

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
)

// Objects tells the connections of the objects that use them.
func (c *Controller) Objects() connection.Objects {
	return connection.Objects{
		Users: c.users, InUse: c.inUse, Survey: c.survey, Listed: c.listed,
		Marks: []string{labelCluster, labelOwner, labelConnection, annotationResource},
	}
}

// States counts the objects by connection and reason, as the cache shows them.
func (c *Controller) States() map[metrics.ValueState]int {
	objects, err := c.list(context.Background())
	if err != nil {
		return nil // the cache has not begun
	}
	counts := map[metrics.ValueState]int{}
	for i := range objects {
		counts[metrics.ValueState{
			Connection: connection.IDOf(objects[i].Spec.ConnectionRef, objects[i].Namespace).Labels(),
			Reason:     status.Reason(objects[i].Status.Conditions),
		}]++
	}
	return counts
}

// Leads says that this process begins to work.
func (c *Controller) Leads() { c.changes.restart(time.Now()) }

// OldestUnseen returns the age of the oldest change of an object or its Secret of which nothing has come yet, or 0.
func (c *Controller) OldestUnseen() time.Duration { return c.changes.oldest(time.Now()) }

// elsewhere are the reasons that somebody may end outside of Kubernetes: they are looked at again with each LIST.
var elsewhere = []string{
	v1alpha1.ReasonNameConflict, v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonForbidden,
	v1alpha1.ReasonConnectionNotAllowed, v1alpha1.ReasonDeletionBlocked,
}

// listed hands back the objects of a connection that wait for somebody outside of Kubernetes, or vanished before all was given up, and
// those whose value is not listed as it was written.
func (c *Controller) listed(ctx context.Context, id connection.ID, listing connection.Listing) {
	objects, err := c.using(ctx, id)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects of a connection not found in the cache")
	}
	for i := range objects {
		if slices.Contains(elsewhere, status.Reason(objects[i].Status.Conditions)) {
			c.waker.Wake(client.ObjectKeyFromObject(&objects[i]))
		}
	}
	c.compare(objects, id, listing)
	for _, gone := range c.memory.graves() {
		if slices.Contains(connectionsOf(gone), id) {
			c.waker.Wake(keyOf(gone))
		}
	}
}

// users counts the objects that need the connection, as the cache shows them.
func (c *Controller) users(ctx context.Context, conn v1alpha1.Connection) (int, error) {
	objects, err := c.using(ctx, connection.IDFor(conn))
	if err != nil {
		return 0, err
	}
	n, needs := 0, needing(ctx, conn, c.client)
	for i := range objects {
		found, err := needs(&objects[i])
		if err != nil {
			return 0, err
		}
		if found {
			n++
		}
	}
	return n, nil
}

// needing returns what reports whether an object needs the connection: status says that it wrote a value through it, or spec or intent
// names it and the connection allows the namespace. The reader is asked once for each namespace.
func needing(ctx context.Context, conn v1alpha1.Connection, reader client.Reader) func(*v1alpha1.GrafanaSecureValue) (bool, error) {
	id, allowed := connection.IDFor(conn), map[string]bool{}
	shared, isShared := conn.(*v1alpha1.ClusterGrafanaConnection)
	return func(sv *v1alpha1.GrafanaSecureValue) (bool, error) {
		wrote := len(writtenThrough(id, sv)) > 0
		if wrote || !isShared || !slices.Contains(connectionsOf(sv), id) {
			return wrote || slices.Contains(connectionsOf(sv), id), nil
		}
		if _, known := allowed[sv.Namespace]; !known {
			labels, err := namespaceLabels(ctx, reader, sv.Namespace)
			if err != nil {
				return false, err
			}
			allowed[sv.Namespace] = allows(shared.Spec.AllowedNamespaces, labels)
		}
		return allowed[sv.Namespace], nil
	}
}

// writtenThrough returns the names of the values that status says the object has written through the connection.
func writtenThrough(id connection.ID, sv *v1alpha1.GrafanaSecureValue) []string {
	var names []string
	for _, t := range sv.Status.Targets {
		if t.Source != nil && connection.IDOf(t.Connection, sv.Namespace) == id {
			names = append(names, t.Name)
		}
	}
	return names
}

// using returns the objects that name a connection or hold places on it. They are the cache's own and must not be changed.
func (c *Controller) using(ctx context.Context, id connection.ID) ([]v1alpha1.GrafanaSecureValue, error) {
	return c.list(ctx, client.InNamespace(id.Namespace), client.MatchingFields{connection.SecureValuesIndex: id.IndexKey()})
}

// pageSize is how many objects are asked for at a time where the API server itself is asked.
const pageSize = 500

// inUse asks the API server whether any object needs the connection.
func (c *Controller) inUse(ctx context.Context, conn v1alpha1.Connection) (bool, error) {
	list, needs := &v1alpha1.GrafanaSecureValueList{}, needing(ctx, conn, c.live)
	for {
		err := c.live.List(ctx, list, client.InNamespace(conn.GetNamespace()), client.Limit(pageSize), client.Continue(list.Continue))
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			if found, err := needs(&list.Items[i]); found || err != nil {
				return found, err
			}
		}
		if list.Continue == "" {
			return false, nil
		}
	}
}

// survey begins to compare what a connection lists with what objects say to have written through it, and to count what carries the mark of
// this cluster and is neither named nor held by a living object, as the cache shows it. Where only some namespaces are served, the
// values of the others do not count.
func (c *Controller) survey(ctx context.Context, id connection.ID) (connection.Surveyor, error) {
	objects, err := c.using(ctx, id)
	if err != nil {
		return connection.Surveyor{}, err
	}
	var survey connection.Survey
	recorded := map[record]bool{}
	values := make(map[string]*grafana.Listed, len(objects))
	claimed, missing := make(map[owned]bool, len(objects)), make(map[owned]int, len(objects))
	for i := range objects {
		sv := &objects[i]
		owner := mark(c.opts.ClusterID, sv.Namespace, sv.Name)
		for _, had := range claimsOf(sv) {
			claimed[owned{owner, had.name}], values[had.name] = true, nil
		}
		for _, name := range writtenThrough(id, sv) {
			survey.Recorded++
			recorded[record{sv.UID, name}] = true
			missing[owned{owner, name}]++
		}
	}
	see := func(v grafana.Listed) {
		if _, asked := values[v.Name]; asked {
			values[v.Name] = &v
		}
		found := owned{v.Labels[labelOwner], v.Name}
		survey.Present += missing[found]
		delete(missing, found)
		if v.Labels[labelCluster] == c.opts.ClusterID {
			survey.Marked = true
			if !claimed[found] && c.isUnowned(ctx, v) {
				survey.Unowned++
			}
		}
	}
	result := func() connection.Survey {
		if survey.Recorded > 0 && survey.Present == 0 {
			if n, err := c.stillRecorded(ctx, id, recorded); err == nil {
				survey.Recorded = n
			}
		}
		return survey
	}
	return connection.Surveyor{See: see, Values: values, Result: result}, nil
}

// stillRecorded counts those of the records that are there still: what was given up meanwhile is not missing.
func (c *Controller) stillRecorded(ctx context.Context, id connection.ID, recorded map[record]bool) (n int, err error) {
	objects, err := c.using(ctx, id)
	if err != nil {
		return 0, err
	}
	for i := range objects {
		for _, name := range writtenThrough(id, &objects[i]) {
			if recorded[record{objects[i].UID, name}] {
				n++
			}
		}
	}
	return n, nil
}

// record is a name in Grafana that an object says to have written.
type record struct {
	object types.UID
	name   string
}

// owned is a name in Grafana and the mark of its owner.
type owned struct{ owner, name string }
