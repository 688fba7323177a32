// Package plugin is kubectl gsv: it shows the state of secure values, plans and imports them, and finds out what is wrong.
//
// It reads Kubernetes and Grafana with the rights of whoever runs it, writes nothing to Kubernetes, and prints no value and no token. The
// rules of the operator are in the packages of the operator: this one only asks them.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/discovery"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // whatever a kubeconfig may use
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// The exit statuses, for scripts.
const (
	exitOK     = 0
	exitFailed = 1 // an error, or something is not as it should be
	exitChange = 2 // of plan: something would change
)

// exitStatus is an error that has been shown, or is none: only the exit status is left.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// DefaultOperatorNamespace is where the installations of this project put the operator.
const DefaultOperatorNamespace = "grafana-secure-value-operator-system"

// tool is what the commands share.
type tool struct {
	genericiooptions.IOStreams

	flags             *genericclioptions.ConfigFlags
	version           string
	operatorNamespace string
	output            string
	allNamespaces     bool
}

// Run executes the plugin with these arguments, and returns its exit status.
func Run(ctx context.Context, args []string, streams genericiooptions.IOStreams, version string) int {
	klog.SetLogger(logr.Discard()) // libraries would write warnings between the lines
	logf.SetLogger(logr.Discard())
	t := &tool{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true), version: version}
	root := t.command()
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	err := root.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case meta.IsNoMatchError(err):
		err = errors.New("the API server does not have the kinds of grafana.securevalues.io: install the operator, or name another cluster with --context")
	}
	fmt.Fprintln(streams.ErrOut, "error: "+strings.TrimSpace(err.Error()))
	return exitFailed
}

// command returns the root command.
func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-gsv",
		Short: "Find out what is wrong with secure values in Grafana, plan changes, and import values",
		Long: "Find out what is wrong with secure values in Grafana, plan changes, and import values.\n\n" +
			"It reads Kubernetes and Grafana with your rights, and prints no value and no token.",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl gsv"},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	t.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&t.operatorNamespace, "operator-namespace", DefaultOperatorNamespace,
		"Namespace of the operator, which has the Secrets of ClusterGrafanaConnections and the fingerprint key.")
	root.AddCommand(t.statusCommand(), t.doctorCommand(), t.planCommand(), t.importCommand(), t.orphansCommand(), t.versionCommand())
	_ = root.RegisterFlagCompletionFunc("namespace", t.completeNamespaces)
	return root
}

// addOutput adds the flag -o with these formats.
func (t *tool) addOutput(cmd *cobra.Command, formats ...string) {
	cmd.Flags().StringVarP(&t.output, "output", "o", "", "Output format. One of: ("+strings.Join(formats, ", ")+").")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if t.output == "" || slices.Contains(formats, t.output) {
			return nil
		}
		return fmt.Errorf("--output is %q: use %s", t.output, strings.Join(formats, ", "))
	}
}

// addAllNamespaces adds the flag -A.
func (t *tool) addAllNamespaces(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&t.allNamespaces, "all-namespaces", "A", false, "All namespaces, whatever --namespace says.")
}

// userAgent names the plugin to the servers that it asks.
func (t *tool) userAgent() string { return "kubectl-gsv/" + t.version }

// config returns how to reach the cluster. The API server limits requests itself.
func (t *tool) config() (*rest.Config, error) {
	config, err := t.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.UserAgent = -1, t.userAgent()
	return config, nil
}

// cluster is what the commands read.
type cluster struct {
	client.Reader

	tool      *tool
	namespace string // that the user means; empty is all
	discovery discovery.DiscoveryInterface
}

// cluster returns the cluster of the user's kubeconfig.
func (t *tool) cluster() (*cluster, error) {
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	namespace, _, err := t.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	if t.allNamespaces {
		namespace = ""
	}
	c, err := client.New(config, client.Options{Scheme: scheme()})
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &cluster{Reader: reader{c}, tool: t, namespace: namespace, discovery: d}, nil
}
