package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// orphan is a secure value with an owner label of this cluster that no object owns.
type orphan struct {
	Connection string `json:"connection"`
	Namespace  string `json:"grafanaNamespace"`
	Name       string `json:"secureValue"`
	Version    int64  `json:"version,omitempty"`
	LastOwner  string `json:"lastOwner,omitempty"` // as an annotation says, which anybody may write
	Retained   bool   `json:"retained"`            // it was left there on purpose, by deletionPolicy Retain

	client *grafana.Client
	conn   v1alpha1.Connection
	owner  string // the owner label
}

func (t *tool) orphansCommand() *cobra.Command {
	name, remove, yes := "", false, false
	cmd := &cobra.Command{
		Use:   "orphans [NAME...]",
		Short: "List secure values in Grafana that have an owner label of this cluster, and that no object owns",
		Long: "List secure values in Grafana that have an owner label of this cluster, and that no object owns.\n\n" +
			"Without --connection it asks each connection of the namespace, and each ClusterGrafanaConnection with -A.\n" +
			"With --delete it deletes those that are listed, after a question. Those that deletionPolicy Retain has left are deleted only by name.",
		RunE: func(cmd *cobra.Command, names []string) error {
			if yes && !remove {
				return errors.New("--yes answers the question of --delete: use both, or none")
			}
			return t.orphans(cmd.Context(), name, names, remove, yes)
		},
	}
	t.addOutput(cmd, "json", "yaml", "wide")
	t.addAllNamespaces(cmd)
	t.addConnection(cmd, &name, "Connection to ask.")
	cmd.Flags().BoolVar(&remove, "delete", false, "Delete what is listed, after a question.")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask before deletion.")
	return cmd
}

func (t *tool) orphans(ctx context.Context, name string, names []string, remove, yes bool) error {
	c, err := t.cluster()
	if err != nil {
		return err
	}
	connections, err := c.asked(ctx, name)
	if err != nil {
		return err
	}
	found, failed := []orphan{}, false
	for _, conn := range connections {
		orphans, err := c.orphansOf(ctx, conn)
		if err != nil {
			fmt.Fprintln(t.ErrOut, "error: "+explained(conn, err).Error())
			failed = true
		}
		found = append(found, orphans...)
	}
	if len(names) > 0 {
		found = slices.DeleteFunc(found, func(o orphan) bool { return !slices.Contains(names, o.Name) })
	}
	if err := t.printOrphans(found); err != nil {
		return err
	}
	if remove && len(found) > 0 {
		if err := c.removeOrphans(ctx, found, len(names) > 0, yes); err != nil {
			return err
		}
	}
	if failed {
		return exitStatus(exitFailed)
	}
	return nil
}

// asked returns the connections that a command is about: the named one, or those of the namespace, or all.
func (c *cluster) asked(ctx context.Context, name string) ([]v1alpha1.Connection, error) {
	if name != "" {
		conn, err := c.connection(ctx, name)
		return []v1alpha1.Connection{conn}, err
	}
	connections, _, err := c.connections(ctx, c.namespace)
	if c.namespace != "" {
		connections = slices.DeleteFunc(connections, func(conn v1alpha1.Connection) bool { return conn.GetNamespace() == "" })
	}
	if err == nil && len(connections) == 0 {
		err = errors.New("no connection found: name one with --connection, or use -A")
	}
	return connections, err
}

// errNoCluster says that the owner labels of this cluster are not known.
var errNoCluster = errors.New("the operator has not reported on this connection yet, so the id of this cluster (status.clusterID) is not known")

// orphansOf asks one connection, by the operator's own rule.
func (c *cluster) orphansOf(ctx context.Context, conn v1alpha1.Connection) ([]orphan, error) {
	id, cluster := connection.IDFor(conn), conn.GetStatus().ClusterID
	if cluster == "" {
		return nil, errNoCluster
	}
	grafanaClient, err := c.caller().Dial(ctx, conn)
	if err != nil {
		return nil, err
	}
	objects, err := c.secureValues(ctx, id.Namespace, "")
	if err != nil {
		return nil, err
	}
	owners := ownersOf(cluster, objects)
	progress := c.tool.progress("Reading from Grafana")
	defer progress.end()
	var found []orphan
	read := 0
	err = grafanaClient.List(ctx, ownership.LabelCluster+"="+cluster, func(sv *grafana.SecureValue) {
		read++
		progress.show(read)
		if isOrphan(id, cluster, owners[sv.Labels[ownership.LabelOwner]], sv) {
			found = append(found, orphanOf(conn, grafanaClient, sv))
		}
	})
	slices.SortFunc(found, func(a, b orphan) int { return cmp.Compare(a.Name, b.Name) })
	return found, err
}

// ownersOf returns objects by their owner label.
func ownersOf(cluster string, objects []v1alpha1.GrafanaSecureValue) map[string]*v1alpha1.GrafanaSecureValue {
	owners := map[string]*v1alpha1.GrafanaSecureValue{}
	for i := range objects {
		owners[ownership.OwnerLabel(cluster, client.ObjectKeyFromObject(&objects[i]))] = &objects[i]
	}
	return owners
}

// isOrphan reports whether a value has an owner label that the connection may know of, and its owner is gone or does not use it. What is
// managed by Grafana itself, or by another tool, is left out.
func isOrphan(id ownership.Connection, cluster string, owner *v1alpha1.GrafanaSecureValue, found *grafana.SecureValue) bool {
	return id.Concerns(cluster, found) && (owner == nil || !ownership.Uses(owner, found.Name)) &&
		(ownership.Labels{}).OwnerOf(found) != ownership.Managed && isName(found.Name)
}

func orphanOf(conn v1alpha1.Connection, grafanaClient *grafana.Client, found *grafana.SecureValue) orphan {
	o := orphan{
		Connection: titleOf(connection.IDFor(conn)), Namespace: conn.GetSpec().Namespace, Name: found.Name, Version: found.Version,
		client: grafanaClient, conn: conn, owner: found.Labels[ownership.LabelOwner],
	}
	_, o.Retained = found.Labels[ownership.LabelRetain]
	if namespace, name, ok := strings.Cut(found.Annotations[ownership.AnnotationResource], "/"); ok && isName(namespace) && isName(name) {
		o.LastOwner = namespace + "/" + name
	}
	return o
}

// isName reports whether what Grafana shows is a name, and not something else to be printed.
func isName(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

func (t *tool) printOrphans(found []orphan) error {
	if written, err := t.write(map[string]any{"orphans": found}); written || err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(t.ErrOut, "No orphans found.")
		return nil
	}
	rows := [][]string{{"SECURE VALUE", "GRAFANA NAMESPACE", "VERSION", "LAST OWNER", "RETAINED", "CONNECTION"}}
	for _, o := range found {
		retained := "no"
		if o.Retained {
			retained = "yes"
		}
		rows = append(rows, []string{o.Name, o.Namespace, fmt.Sprint(o.Version), cmp.Or(o.LastOwner, "-"), retained, o.Connection})
	}
	return table(t.Out, rows...)
}
