package plugin

import (
	"context"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// completions returns what a shell offers, read from the cluster. Without rights it offers nothing.
func (t *tool) completions(read func(ctx context.Context, c *cluster) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, err := t.cluster()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names, err := read(cmd.Context(), c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (t *tool) completeNamespaces(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return t.completions(func(ctx context.Context, c *cluster) (names []string, err error) {
		list := &corev1.NamespaceList{}
		err = c.List(ctx, list)
		for _, namespace := range list.Items {
			names = append(names, namespace.Name)
		}
		return names, err
	})(cmd, args, begun)
}

// addConnection adds the flag --connection.
func (t *tool) addConnection(cmd *cobra.Command, name *string, usage string) {
	cmd.Flags().StringVar(name, "connection", "", usage+" NAME, or gconn/NAME or cgconn/NAME where both kinds have it.")
	_ = cmd.RegisterFlagCompletionFunc("connection", t.completions(func(ctx context.Context, c *cluster) (names []string, err error) {
		connections, _, err := c.connections(ctx, c.namespace)
		for _, conn := range connections {
			names = append(names, conn.GetName())
		}
		return names, err
	}))
}
