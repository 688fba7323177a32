package securevalue

import (
	"context"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Objects tells the connections of the objects that use them.
func (c *Controller) Objects() connection.Objects {
	return connection.Objects{Users: c.users, InUse: c.inUse, Survey: c.survey, Listed: c.listed}
}

// elsewhere are the reasons that somebody may end outside of Kubernetes: they are looked at again with each LIST.
var elsewhere = []string{
	v1alpha1.ReasonNameConflict, v1alpha1.ReasonAlreadyExists, v1alpha1.ReasonForbidden,
	v1alpha1.ReasonConnectionNotAllowed, v1alpha1.ReasonDeletionBlocked,
}

// listed hands back the objects of a connection that wait for somebody outside of Kubernetes.
func (c *Controller) listed(ctx context.Context, id connection.ID) {
	objects, err := c.using(ctx, id)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects of a connection not found in the cache")
	}
	for i := range objects {
		if slices.Contains(elsewhere, status.Reason(objects[i].Status.Conditions)) {
			c.waker.Wake(client.ObjectKeyFromObject(&objects[i]))
		}
	}
}

func (c *Controller) users(ctx context.Context, id connection.ID) (int, error) {
	objects, err := c.using(ctx, id)
	return len(objects), err
}

// using returns the objects that name a connection or hold places on it. They are the cache's own and must not be changed.
func (c *Controller) using(ctx context.Context, id connection.ID) ([]v1alpha1.GrafanaSecureValue, error) {
	return c.list(ctx, client.InNamespace(id.Namespace), client.MatchingFields{connection.SecureValuesIndex: id.IndexKey()})
}

// pageSize is how many objects are asked for at a time where the API server itself is asked.
const pageSize = 500

// inUse asks the API server whether any object names a connection or holds places on it.
func (c *Controller) inUse(ctx context.Context, id connection.ID) (bool, error) {
	list := &v1alpha1.GrafanaSecureValueList{}
	for {
		if err := c.live.List(ctx, list, client.InNamespace(id.Namespace), client.Limit(pageSize), client.Continue(list.Continue)); err != nil {
			return false, err
		}
		for i := range list.Items {
			if slices.Contains(connectionsOf(&list.Items[i]), id) {
				return true, nil
			}
		}
		if list.Continue == "" {
			return false, nil
		}
	}
}

// survey compares what a connection lists with what objects say to have written through it.
func (c *Controller) survey(ctx context.Context, id connection.ID, values []grafana.SecureValue) (connection.Survey, error) {
	objects, err := c.using(ctx, id)
	if err != nil {
		return connection.Survey{}, err
	}
	var survey connection.Survey
	owners := make(map[string]string, len(values))
	for i := range values {
		owners[values[i].Name] = values[i].Labels[labelOwner]
		survey.Marked = survey.Marked || values[i].Labels[labelCluster] == c.opts.ClusterID
	}
	for i := range objects {
		sv := &objects[i]
		for _, t := range sv.Status.Targets {
			if t.Source == nil || connection.IDOf(t.Connection, sv.Namespace) != id {
				continue
			}
			survey.Recorded++
			if owners[t.Name] == mark(c.opts.ClusterID, sv.Namespace, sv.Name) {
				survey.Present++
			}
		}
	}
	return survey, nil
}
