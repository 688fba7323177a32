package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// maxObjectsAge is how old what the API server showed may be when a value is deleted, as in the operator.
const maxObjectsAge = 5 * time.Second

// remover deletes orphans.
type remover struct {
	*cluster

	namespace string // of the objects; empty is all
	objects   []v1alpha1.GrafanaSecureValue
	at        time.Time // when they were read
}

// removeOrphans deletes orphans, after a question.
func (c *cluster) removeOrphans(ctx context.Context, found []orphan, named, yes bool) error {
	if !named {
		all := len(found)
		found = slices.DeleteFunc(found, func(o orphan) bool { return o.Retained })
		if left := all - len(found); left > 0 {
			fmt.Fprintf(c.tool.ErrOut, "%s left there on purpose (deletionPolicy Retain): to delete one, name it.\n", plural(left, "secure value"))
		}
	}
	if len(found) == 0 {
		return nil
	}
	question := fmt.Sprintf("Delete %s from Grafana? What reads them stops working.", plural(len(found), "secure value"))
	if sure, err := c.tool.confirm(question, yes); !sure {
		return err
	}
	failed, removers := false, map[string]*remover{}
	for _, o := range found {
		namespace := o.conn.GetNamespace()
		if removers[namespace] == nil {
			removers[namespace] = &remover{cluster: c, namespace: namespace}
		}
		if err := removers[namespace].remove(ctx, o); err != nil {
			fmt.Fprintf(c.tool.ErrOut, "error: secure value %q was not deleted: %s\n", o.Name, err)
			failed = true
			continue
		}
		fmt.Fprintf(c.tool.ErrOut, "Deleted secure value %q from %s.\n", o.Name, o.Namespace)
	}
	if failed {
		return exitStatus(exitFailed)
	}
	return nil
}

// confirm asks a question at a terminal.
func (t *tool) confirm(question string, yes bool) (bool, error) {
	switch {
	case yes:
		return true, nil
	case !printers.IsTerminal(t.In):
		return false, errors.New("nothing was deleted: there is no terminal to ask at, so use --yes")
	}
	fmt.Fprintf(t.ErrOut, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(t.In).ReadString('\n') // no answer is no
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return true, nil
	}
	return false, errors.New("nothing was deleted")
}

// remove deletes a value that is still the orphan that was listed, as Grafana and the API server show it now.
func (r *remover) remove(ctx context.Context, o orphan) error {
	if time.Since(r.at) > maxObjectsAge {
		at := time.Now()
		objects, err := r.secureValues(ctx, r.namespace, "")
		if err != nil {
			return err
		}
		r.objects, r.at = objects, at
	}
	sv, err := o.client.Get(ctx, o.Name)
	switch {
	case errors.Is(err, grafana.ErrNotFound):
		return nil
	case err != nil:
		return explained(o.conn, err)
	case sv.Version != o.Version || sv.Labels[ownership.LabelOwner] != o.owner:
		return errors.New("it was written meanwhile")
	}
	cluster := o.conn.GetStatus().ClusterID
	if !isOrphan(connection.IDFor(o.conn), cluster, ownersOf(cluster, r.objects)[o.owner], sv) {
		return errors.New("it has an owner by now")
	}
	for i := range r.objects { // what names it may be about to take it over
		if object := &r.objects[i]; object.DeletionTimestamp.IsZero() && ownership.Uses(object, o.Name) {
			return fmt.Errorf("GrafanaSecureValue %s/%s uses a secure value of that name, and may take it over", object.Namespace, object.Name)
		}
	}
	if err := o.client.Delete(ctx, o.Name); err != nil && !errors.Is(err, grafana.ErrNotFound) {
		return explained(o.conn, err)
	}
	if _, err := o.client.Get(ctx, o.Name); !errors.Is(err, grafana.ErrNotFound) {
		return errors.New("whether it is gone is not known: run this again")
	}
	return nil
}
