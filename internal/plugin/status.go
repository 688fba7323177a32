package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// state is what Ready says of an object.
type state struct {
	Ready   string `json:"ready"` // True, False, or Unknown where its last generation was not observed yet
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Next    string `json:"next,omitempty"` // the next command, where it is not Ready
}

func (s state) isReady() bool { return s.Ready == string(metav1.ConditionTrue) }

// connectionState is a connection, and the secure values that name it.
type connectionState struct {
	Kind         v1alpha1.ConnectionKind `json:"kind"`
	Namespace    string                  `json:"namespace,omitempty"`
	Name         string                  `json:"name"`
	URL          string                  `json:"url,omitempty"`
	SecureValues []valueState            `json:"secureValues"`

	hidden bool // the user may not see it, so that nothing is known of it

	state `json:",inline"`
}

// valueState is a GrafanaSecureValue.
type valueState struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	SecureValue string       `json:"secureValue"` // in Grafana
	Version     int64        `json:"version,omitempty"`
	LastWrite   *metav1.Time `json:"lastWriteTime,omitempty"`
	Stale       string       `json:"stale,omitempty"` // the reason of Fresh=False

	state `json:",inline"`
}

// stateOf reads Ready. What was not observed yet is not known, whatever was true before.
func stateOf(o metav1.Object, observed int64, conditions []metav1.Condition, describe string) state {
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return state{
			Ready: string(metav1.ConditionUnknown), Next: "kubectl gsv doctor --operator",
			Message: "The operator has not reported on it yet.",
		}
	case observed != o.GetGeneration():
		return state{
			Ready: string(metav1.ConditionUnknown), Reason: ready.Reason, Next: "kubectl gsv doctor --operator",
			Message: "The operator has not reported on the last edit yet. Before it said: " + ready.Message,
		}
	}
	s := state{Ready: string(ready.Status), Reason: ready.Reason, Message: ready.Message}
	if !s.isReady() {
		s.Next = nextOf(ready.Message, describe)
	}
	return s
}

func connectionStateOf(conn v1alpha1.Connection) *connectionState {
	id := connection.IDFor(conn)
	st := conn.GetStatus()
	return &connectionState{
		Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, URL: cmp.Or(st.URL, conn.GetSpec().URL), SecureValues: []valueState{},
		state: stateOf(conn, st.ObservedGeneration, st.Conditions, doctorCommandFor(id)),
	}
}

// doctorCommandFor is the command that finds out what is wrong with a connection.
func doctorCommandFor(id ownership.Connection) string {
	if id.Kind == v1alpha1.KindClusterGrafanaConnection {
		return "kubectl gsv doctor --connection cgconn/" + id.Name
	}
	return fmt.Sprintf("kubectl gsv doctor --connection gconn/%s -n %s", id.Name, id.Namespace)
}

func valueStateOf(sv *v1alpha1.GrafanaSecureValue) valueState {
	v := valueState{
		Namespace: sv.Namespace, Name: sv.Name, SecureValue: sv.SecureValueName(),
		state: stateOf(sv, sv.Status.ObservedGeneration, sv.Status.Conditions, fmt.Sprintf("kubectl describe gsv %s -n %s", sv.Name, sv.Namespace)),
	}
	if len(sv.Status.Targets) > 0 {
		v.Version, v.LastWrite = sv.Status.Targets[0].Version, sv.Status.Targets[0].LastWriteTime
	}
	if fresh := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionFresh); fresh != nil && fresh.Status == metav1.ConditionFalse {
		v.Stale = fresh.Reason
	}
	return v
}

// statusOf groups secure values by the connection that they name. ClusterGrafanaConnections that none of them names are left out, unless
// all namespaces are asked for. Without the right to list those, nothing is known of them.
func statusOf(connections []v1alpha1.Connection, values []v1alpha1.GrafanaSecureValue, all, sharedHidden bool) []*connectionState {
	byID := map[ownership.Connection]*connectionState{}
	for _, conn := range connections {
		byID[connection.IDFor(conn)] = connectionStateOf(conn)
	}
	for i := range values {
		id := ownership.ConnectionOf(values[i].ConnectionOrDefault(), values[i].Namespace)
		if byID[id] == nil {
			byID[id] = &connectionState{
				Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, SecureValues: []valueState{}, hidden: sharedHidden && id.Namespace == "",
				state: state{Ready: string(metav1.ConditionUnknown), Message: "It does not exist.", Next: "kubectl get gconn,cgconn -A"},
			}
			if byID[id].hidden {
				byID[id].Message = "You may not see it."
			}
		}
		byID[id].SecureValues = append(byID[id].SecureValues, valueStateOf(&values[i]))
	}
	states := []*connectionState{}
	for id, s := range byID {
		if id.Namespace == "" && len(s.SecureValues) == 0 && !all {
			continue
		}
		slices.SortFunc(s.SecureValues, func(a, b valueState) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b *connectionState) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return states
}

// count returns how many secure values there are, how many of them are Ready, and how many connections are not.
func count(states []*connectionState) (values, ready, connectionsNotReady int) {
	for _, s := range states {
		if !s.isReady() && !s.hidden {
			connectionsNotReady++
		}
		values += len(s.SecureValues)
		for _, v := range s.SecureValues {
			if v.isReady() {
				ready++
			}
		}
	}
	return values, ready, connectionsNotReady
}

func (t *tool) statusCommand() *cobra.Command {
	selector, notReady := "", false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show connections with their secure values: what is synced, what is not, why, and the next command",
		Long: "Show connections with their secure values: what is synced, what is not, why, and the next command.\n\n" +
			"The exit status is 1 if a connection or a secure value is not Ready.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.status(cmd.Context(), selector, notReady) },
	}
	t.addOutput(cmd, "json", "yaml", "wide")
	t.addAllNamespaces(cmd)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "Label selector of the GrafanaSecureValues.")
	cmd.Flags().BoolVar(&notReady, "not-ready", false, "Show only what is not Ready.")
	return cmd
}

func (t *tool) status(ctx context.Context, selector string, notReady bool) error {
	c, err := t.cluster()
	if err != nil {
		return err
	}
	connections, shared, err := c.connections(ctx, c.namespace)
	if err != nil {
		return err
	}
	values, err := c.secureValues(ctx, c.namespace, selector)
	if err != nil {
		return err
	}
	states := statusOf(connections, values, t.allNamespaces, shared != nil)
	total, ready, connectionsNotReady := count(states)
	all := len(states)
	if notReady {
		states = withoutReady(states)
	}
	written, err := t.write(map[string]any{"connections": states})
	if err != nil {
		return err
	}
	if !written {
		t.printStatus(states)
		if all == 0 {
			fmt.Fprintln(t.ErrOut, "No connections and no secure values found.")
		} else {
			fmt.Fprintf(t.Out, "%d of %s Ready, %d of %s Ready.\n", ready, plural(total, "secure value"), all-connectionsNotReady, plural(all, "connection"))
		}
	}
	if shared != nil {
		fmt.Fprintln(t.ErrOut, "ClusterGrafanaConnections are not shown: "+shared.Error()+".")
	}
	if ready < total || connectionsNotReady > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}

// withoutReady leaves what is not Ready, and the connections of that.
func withoutReady(states []*connectionState) []*connectionState {
	left := []*connectionState{}
	for _, s := range states {
		s.SecureValues = slices.DeleteFunc(s.SecureValues, func(v valueState) bool { return v.isReady() })
		if !s.isReady() && !s.hidden || len(s.SecureValues) > 0 {
			left = append(left, s)
		}
	}
	return left
}
