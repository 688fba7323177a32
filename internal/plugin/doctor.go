package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
)

// The results of a check.
const (
	checkOK      = "ok"
	checkFailed  = "failed"
	checkUnknown = "unknown" // it could not be made
	checkSkipped = "-"       // it does not apply, or something before it failed
)

// check is one question, and its answer.
type check struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// diagnosis is what is known of a connection.
type diagnosis struct {
	Kind      v1alpha1.ConnectionKind `json:"kind"`
	Namespace string                  `json:"namespace,omitempty"`
	Name      string                  `json:"name"`
	Operator  state                   `json:"operator"` // as the operator sees it
	Checks    []check                 `json:"fromThisMachine"`
}

// examination is the result of doctor.
type examination struct {
	Connection *diagnosis `json:"connection,omitempty"`
	Operator   []check    `json:"operator,omitempty"`
}

func (e *examination) isHealthy() bool {
	if e.Connection != nil && (!e.Connection.Operator.isReady() || !areFine(e.Connection.Checks)) {
		return false
	}
	return areFine(e.Operator)
}

func areFine(checks []check) bool {
	for _, c := range checks {
		if c.Result == checkFailed || c.Result == checkUnknown {
			return false
		}
	}
	return true
}

func (t *tool) doctorCommand() *cobra.Command {
	name, operator := "", false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with a connection or with the operator, and what to do",
		Long: "Find out what is wrong with a connection or with the operator, and what to do.\n\n" +
			"The condition of the connection comes first, as the operator sees it. All other checks are made from this machine, whose network\n" +
			"may differ. The four actions are tried on a probe value of its own name in Grafana, which is deleted at the end.\n" +
			"The exit status is 1 if something is not as it should be.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" && !operator {
				return errors.New("name a connection with --connection, or use --operator: `kubectl get gconn,cgconn -A` lists the connections")
			}
			return t.doctor(cmd.Context(), name, operator)
		},
	}
	t.addOutput(cmd, "json", "yaml", "wide")
	t.addConnection(cmd, &name, "Connection to check.")
	cmd.Flags().BoolVar(&operator, "operator", false, "Check the installation of the operator: CRDs, Deployment, leader, and objects that wait for it.")
	return cmd
}

func (t *tool) doctor(ctx context.Context, name string, operator bool) error {
	c, err := t.cluster()
	if err != nil {
		return err
	}
	found := &examination{}
	if name != "" {
		conn, err := c.connection(ctx, name)
		if err != nil {
			return err
		}
		id, st := connection.IDFor(conn), conn.GetStatus()
		found.Connection = &diagnosis{
			Kind: id.Kind, Namespace: id.Namespace, Name: id.Name,
			Operator: stateOf(conn, st.ObservedGeneration, st.Conditions, ""),
			Checks:   c.examine(ctx, conn),
		}
	}
	if operator {
		found.Operator = c.examineOperator(ctx)
	}
	written, err := t.write(found)
	if err != nil {
		return err
	}
	if !written {
		if err := t.printExamination(found); err != nil {
			return err
		}
	}
	if !found.isHealthy() {
		return exitStatus(exitFailed)
	}
	return nil
}

func (t *tool) printExamination(found *examination) error {
	if d := found.Connection; d != nil {
		fmt.Fprintf(t.Out, "%s %s, as the operator sees it: %s\n  %s\n\nFrom this machine:\n",
			d.Kind, d.Name, t.reason(d.Operator, ""), plain(d.Operator.Message))
		if err := t.printChecks(d.Checks); err != nil {
			return err
		}
	}
	if found.Operator == nil {
		return nil
	}
	if found.Connection != nil {
		fmt.Fprintln(t.Out)
	}
	fmt.Fprintln(t.Out, "The operator:")
	return t.printChecks(found.Operator)
}

func (t *tool) printChecks(checks []check) error {
	wide := 0
	for _, c := range checks {
		wide = max(wide, width(c.Name))
	}
	colours := map[string]string{checkOK: green, checkFailed: red, checkUnknown: yellow}
	for _, c := range checks {
		result := fmt.Sprintf("%-7s", c.Result)
		if code := colours[c.Result]; code != "" {
			result = t.colour(code, result)
		}
		line := strings.TrimRight(fmt.Sprintf("  %-*s  %s  %s", wide, c.Name, result, plain(c.Detail)), " ")
		if _, err := fmt.Fprintln(t.Out, line); err != nil {
			return err
		}
	}
	return nil
}
