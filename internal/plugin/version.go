package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// nameLabel is on the Deployment of the operator in each way to install it.
var nameLabel = client.MatchingLabels{"app.kubernetes.io/name": "grafana-secure-value-operator"}

// managerContainer is the name of the container of the operator.
const managerContainer = "manager"

// versions are what is installed.
type versions struct {
	Plugin     string              `json:"plugin"`
	Operator   []deployedOperator  `json:"operator"`
	CRDs       map[string][]string `json:"crds"` // the kinds that the API server has, by version of the API
	Kubernetes string              `json:"kubernetes,omitempty"`
	Problems   []string            `json:"problems,omitempty"` // what could not be read
}

// deployedOperator is a Deployment of the operator.
type deployedOperator struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Image     string `json:"image"`
	Version   string `json:"version"` // the tag of the image
	Ready     int32  `json:"ready"`
	Replicas  int32  `json:"replicas"`
}

// tagOf returns the tag of an image, or its digest; a port is no tag.
func tagOf(image string) string {
	name, digest, _ := strings.Cut(image, "@")
	last := name[strings.LastIndex(name, "/")+1:]
	if _, tag, found := strings.Cut(last, ":"); found {
		return tag
	}
	if digest != "" {
		return digest
	}
	return "latest"
}

// deployments returns the Deployments of the operator in its namespace.
func (c *cluster) deployments(ctx context.Context) ([]deployedOperator, error) {
	list := &appsv1.DeploymentList{}
	if err := c.List(ctx, list, client.InNamespace(c.tool.operatorNamespace), nameLabel); err != nil {
		return nil, err
	}
	found := []deployedOperator{}
	for _, d := range list.Items {
		for _, container := range d.Spec.Template.Spec.Containers {
			if container.Name != managerContainer {
				continue
			}
			o := deployedOperator{
				Namespace: d.Namespace, Name: d.Name, Image: container.Image, Version: tagOf(container.Image), Ready: d.Status.ReadyReplicas, Replicas: 1,
			}
			if d.Spec.Replicas != nil {
				o.Replicas = *d.Spec.Replicas
			}
			found = append(found, o)
		}
	}
	return found, nil
}

// kinds returns the kinds of this project that the API server has, by version of the API. Every user may ask that.
func (c *cluster) kinds() (map[string][]string, error) {
	found := map[string][]string{}
	groups, err := c.discovery.ServerGroups()
	if err != nil {
		return nil, err
	}
	for _, group := range groups.Groups {
		if group.Name != v1alpha1.GroupName {
			continue
		}
		for _, v := range group.Versions {
			list, err := c.discovery.ServerResourcesForGroupVersion(v.GroupVersion)
			if err != nil && !apierrors.IsNotFound(err) {
				return nil, err
			}
			found[v.Version] = []string{}
			for _, resource := range list.APIResources {
				if !strings.Contains(resource.Name, "/") {
					found[v.Version] = append(found[v.Version], resource.Kind)
				}
			}
			slices.Sort(found[v.Version])
		}
	}
	return found, nil
}

func (t *tool) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of the plugin, the operator and the CRDs",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return t.showVersion(cmd.Context()) },
	}
	t.addOutput(cmd, "json", "yaml", "wide")
	return cmd
}

// readVersions reads what it can: the version of the plugin is of use without a cluster, too.
func (t *tool) readVersions(ctx context.Context) versions {
	v := versions{Plugin: t.version, Operator: []deployedOperator{}, CRDs: map[string][]string{}}
	problem := func(what string, err error) {
		if err != nil {
			v.Problems = append(v.Problems, what+": "+err.Error())
		}
	}
	c, err := t.cluster()
	if err != nil {
		problem("cluster", err)
		return v
	}
	var server *version.Info
	if server, err = c.discovery.ServerVersion(); err != nil {
		problem("cluster", err)
		return v
	}
	v.Kubernetes = server.GitVersion
	if kinds, err := c.kinds(); err != nil {
		problem("CRDs", err)
	} else if v.CRDs = kinds; len(kinds) == 0 {
		v.Problems = append(v.Problems, "CRDs: not installed in this cluster")
	}
	if deployed, err := c.deployments(ctx); err != nil {
		problem("operator", err)
	} else if v.Operator = deployed; len(deployed) == 0 {
		v.Problems = append(v.Problems, fmt.Sprintf("operator: no Deployment of it in namespace %q: name its namespace with --operator-namespace", t.operatorNamespace))
	}
	return v
}

func (t *tool) showVersion(ctx context.Context) error {
	v := t.readVersions(ctx)
	written, err := t.write(v)
	if err != nil {
		return err
	}
	if !written {
		rows := [][]string{{"Plugin:", v.Plugin}}
		for _, o := range v.Operator {
			rows = append(rows, []string{"Operator:", fmt.Sprintf("%s (Deployment %s/%s, %d of %d ready)", plain(o.Version), o.Namespace, o.Name, o.Ready, o.Replicas)})
		}
		for _, api := range sortedKeys(v.CRDs) {
			rows = append(rows, []string{"CRDs:", fmt.Sprintf("%s (%s)", plain(api), plain(strings.Join(v.CRDs[api], ", ")))})
		}
		if v.Kubernetes != "" {
			rows = append(rows, []string{"Kubernetes:", plain(v.Kubernetes)})
		}
		if err := table(t.Out, rows...); err != nil {
			return err
		}
	}
	for _, problem := range v.Problems {
		fmt.Fprintln(t.ErrOut, problem)
	}
	if len(v.Problems) > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}
