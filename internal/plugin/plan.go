package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// actionUnknown is the action of an object that could not be planned.
const actionUnknown = "unknown"

// plannedEffect is what would happen at one target of an object.
type plannedEffect struct {
	Namespace        string                       `json:"namespace"`
	Name             string                       `json:"name"`
	Action           string                       `json:"action"`
	May              bool                         `json:"may,omitempty"` // it depends on whether the value changed, which is not known
	Connection       v1alpha1.ConnectionReference `json:"connection"`
	GrafanaNamespace string                       `json:"grafanaNamespace,omitempty"`
	SecureValue      string                       `json:"secureValue"`
	From             string                       `json:"from,omitempty"`
	Fields           []string                     `json:"fields,omitempty"`
	Reason           string                       `json:"reason,omitempty"`
	Message          string                       `json:"message,omitempty"`

	effect securevalue.Effect
}

func (t *tool) planCommand() *cobra.Command {
	files := &genericclioptions.FileNameFlags{
		Usage: "Manifests to plan: files, directories, URLs, or - for standard input.", Filenames: &[]string{}, Kustomize: new(""), Recursive: new(false),
	}
	deletion := false
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what applying manifests would do in Grafana",
		Long: "Show what applying manifests would do in Grafana: create, update, rotate, move, adopt, conflict, delete or nothing.\n\n" +
			"It decides as the operator does, and writes nothing. Connections and Secrets among the manifests count as applied.\n" +
			"The exit status is 1 if an object could not be planned, else 2 if something would change in Grafana, else 1 if an object would\n" +
			"not become Ready.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.plan(cmd.Context(), files, deletion) },
	}
	files.AddFlags(cmd.Flags())
	t.addOutput(cmd, "json", "yaml", "wide")
	cmd.Flags().BoolVar(&deletion, "delete", false, "Show what deleting these objects would do instead.")
	return cmd
}

func (t *tool) plan(ctx context.Context, files *genericclioptions.FileNameFlags, deletion bool) error {
	c, err := t.cluster()
	if err != nil {
		return err
	}
	view := securevalue.NewView(c)
	m, err := c.readManifests(ctx, files, view)
	if err != nil {
		return err
	}
	if deletion {
		m.delete(view)
	} else if err := m.addReaders(ctx, view); err != nil {
		return err
	}
	planner, remarks, err := c.planner(ctx, view, m)
	if err != nil {
		return err
	}
	effects := []plannedEffect{}
	progress := t.progress("Planned")
	for i, sv := range m.values {
		effects = append(effects, planOne(ctx, planner, sv)...)
		progress.show(i + 1)
	}
	progress.end()
	if err := t.printPlan(effects); err != nil {
		return err
	}
	for _, remark := range append(remarks, m.remarks(ctx, view)...) {
		fmt.Fprintln(t.ErrOut, remark)
	}
	return planStatus(effects)
}

// planStatus returns the exit status of a plan.
func planStatus(effects []plannedEffect) error {
	status := exitOK
	for _, e := range effects {
		switch {
		case e.Action == actionUnknown:
			return exitStatus(exitFailed)
		case e.effect.IsChange():
			status = exitChange
		case e.effect != securevalue.EffectNothing && status == exitOK:
			status = exitFailed
		}
	}
	if status == exitOK {
		return nil
	}
	return exitStatus(status)
}

// planOne plans one object.
func planOne(ctx context.Context, planner *securevalue.Planner, sv *v1alpha1.GrafanaSecureValue) []plannedEffect {
	planned, err := planner.Plan(ctx, sv)
	if err != nil {
		return []plannedEffect{{
			Namespace: sv.Namespace, Name: sv.Name, Action: actionUnknown, Connection: sv.ConnectionOrDefault(), SecureValue: sv.SecureValueName(),
			Message: sentence(err),
		}}
	}
	var effects []plannedEffect
	for _, p := range planned {
		e := plannedEffect{
			Namespace: sv.Namespace, Name: sv.Name, Action: string(p.Effect), May: p.May, Connection: p.Target.Connection,
			GrafanaNamespace: p.Target.Namespace, SecureValue: p.Target.Name, Fields: p.Fields, Reason: p.Reason, Message: p.Message, effect: p.Effect,
		}
		if p.From != nil {
			e.From = p.From.Name
			if p.From.Connection != p.Target.Connection || p.From.Namespace != p.Target.Namespace {
				e.From = fmt.Sprintf("%s of %s %s (%s)", p.From.Name, p.From.Connection.Kind, p.From.Connection.Name, p.From.Namespace)
			}
		}
		effects = append(effects, e)
	}
	return effects
}

// delete has the objects of manifests be deleted, as far as they exist.
func (m *manifests) delete(view *securevalue.View) {
	m.values = slices.DeleteFunc(m.values, func(sv *v1alpha1.GrafanaSecureValue) bool { return sv.UID == "" })
	for _, sv := range m.values {
		sv.DeletionTimestamp = new(metav1.NewTime(time.Now()))
		view.Put(sv)
	}
}

// addReaders adds the objects of the cluster whose Secret or connection is among the manifests.
func (m *manifests) addReaders(ctx context.Context, view *securevalue.View) error {
	planned := map[client.ObjectKey]bool{}
	for _, sv := range m.values {
		planned[client.ObjectKeyFromObject(sv)] = true
	}
	for _, o := range m.others {
		if o.GetNamespace() == "" {
			continue
		}
		list := &v1alpha1.GrafanaSecureValueList{}
		if err := view.List(ctx, list, client.InNamespace(o.GetNamespace())); err != nil {
			return err
		}
		for i := range list.Items {
			sv := &list.Items[i]
			if key := client.ObjectKeyFromObject(sv); !planned[key] && uses(sv, o) {
				planned[key] = true
				m.values = append(m.values, sv)
			}
		}
	}
	return nil
}

// uses reports whether an object reads a Secret, or names a connection.
func uses(sv *v1alpha1.GrafanaSecureValue, o client.Object) bool {
	if _, isSecret := o.(*corev1.Secret); isSecret {
		return slices.Contains(sv.Spec.ValueFrom.Secrets(), o.GetName())
	}
	return sv.ConnectionOrDefault() == v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: o.GetName()}
}

// remarks are what a reader of the plan must know.
func (m *manifests) remarks(ctx context.Context, view *securevalue.View) []string {
	var remarks []string
	for _, kind := range sortedKeys(m.skipped) {
		remarks = append(remarks, fmt.Sprintf("Not planned: %s.", plural(m.skipped[kind], kind)))
	}
	seen := map[ownership.Connection]bool{}
	for _, sv := range m.values {
		id := ownership.ConnectionOf(sv.ConnectionOrDefault(), sv.Namespace)
		if seen[id] {
			continue
		}
		seen[id] = true
		conn, err := connectionOf(ctx, view, sv)
		if err != nil {
			continue // the plan of the object says so
		}
		if s := connectionStateOf(conn).state; s.Reason != "" && !s.isReady() {
			remarks = append(remarks, fmt.Sprintf("%s is not Ready (%s): the operator writes nothing through it until it is.", titleOf(id), s.Reason))
		}
	}
	return remarks
}

// connectionOf returns the connection that an object names.
func connectionOf(ctx context.Context, reader client.Reader, sv *v1alpha1.GrafanaSecureValue) (v1alpha1.Connection, error) {
	return connection.Get(ctx, reader, connection.Served{Namespaced: true, Cluster: true}, sv.ConnectionOrDefault(), sv.Namespace)
}

// planner returns the operator's rules for this cluster.
func (c *cluster) planner(ctx context.Context, view *securevalue.View, m *manifests) (planner *securevalue.Planner, remarks []string, err error) {
	id, err := c.clusterID(ctx, view, m)
	if err != nil {
		return nil, nil, err
	}
	var known *fingerprint.Key
	key, err := fingerprint.Read(ctx, c, c.tool.operatorNamespace)
	if err == nil {
		known = &key
	} else {
		remarks = append(remarks, fmt.Sprintf("Where a Secret changed, the value may be the same: the fingerprint key was not read (%s).", err))
	}
	return securevalue.NewPlanner(view, id, known, c.asker(view)), remarks, nil
}

// clusterID returns the id in the owner labels of this cluster, as the operator reports it on connections. Before it has reported on any, the
// default counts.
func (c *cluster) clusterID(ctx context.Context, view *securevalue.View, m *manifests) (string, error) {
	for _, sv := range m.values {
		conn, err := connectionOf(ctx, view, sv)
		if err == nil && conn.GetStatus().ClusterID != "" {
			return conn.GetStatus().ClusterID, nil
		}
	}
	connections, _, err := c.connections(ctx, c.namespace)
	for _, conn := range connections {
		if id := conn.GetStatus().ClusterID; id != "" {
			return id, nil
		}
	}
	if err != nil && !isMissingRight(err) {
		return "", err
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err = c.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, namespace)
	return string(namespace.UID), err
}

// printPlan prints the effects, and how many there are of each.
func (t *tool) printPlan(effects []plannedEffect) error {
	if written, err := t.write(map[string]any{"plan": effects}); written || err != nil {
		return err
	}
	if len(effects) == 0 {
		fmt.Fprintln(t.ErrOut, "No GrafanaSecureValue to plan.")
		return nil
	}
	rows, counts := [][]string{{t.colour(standard, "ACTION"), "OBJECT", "SECURE VALUE", "DETAIL"}}, map[string]int{}
	for _, e := range effects {
		action := e.words()
		counts[action]++
		rows = append(rows, []string{t.colour(colourOf(e), action), e.Namespace + "/" + e.Name, e.SecureValue, plain(e.detail())})
	}
	if t.output == "wide" {
		rows[0] = slices.Insert(rows[0], 3, "CONNECTION", "GRAFANA NAMESPACE")
		for i, e := range effects {
			rows[i+1] = slices.Insert(rows[i+1], 3, string(e.Connection.Kind)+"/"+e.Connection.Name, cmp.Or(e.GrafanaNamespace, "-"))
		}
	}
	if err := table(t.Out, rows...); err != nil {
		return err
	}
	var sums []string
	for _, action := range sortedKeys(counts) {
		sums = append(sums, fmt.Sprintf("%s %d", action, counts[action]))
	}
	fmt.Fprintf(t.Out, "\nPlan: %s. Nothing was written.\n", strings.Join(sums, ", "))
	return nil
}

// words returns the action as the table has it.
func (e plannedEffect) words() string {
	switch {
	case e.May && len(e.Fields) == 0:
		return "may rotate"
	case e.effect == securevalue.EffectNotReady:
		return "not ready"
	default:
		return e.Action
	}
}

// detail says more of an effect.
func (e plannedEffect) detail() string {
	var parts []string
	if e.From != "" {
		parts = append(parts, "from "+e.From)
	}
	if e.effect == securevalue.EffectDelete {
		parts = append(parts, fmt.Sprintf("of %s %s (%s)", e.Connection.Kind, e.Connection.Name, e.GrafanaNamespace))
	}
	parts = append(parts, e.Fields...)
	text := strings.Join(parts, ", ")
	message := strings.TrimPrefix(cmp.Or(e.Reason, "")+": "+e.Message, ": ")
	if e.Message == "" {
		message = ""
	}
	return strings.TrimSpace(text + " " + message)
}

func colourOf(e plannedEffect) string {
	switch {
	case e.effect == securevalue.EffectNothing:
		return standard
	case e.effect.IsChange() && e.Action != actionUnknown:
		return yellow
	default:
		return red
	}
}
