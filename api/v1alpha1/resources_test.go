package v1alpha1_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// category is the category of every kind of this project.
const category = "secure-values"

// neighbours are operators that run in the same clusters: what kubectl takes for their resources, by the API group.
var neighbours = []struct {
	group      string
	resources  string // plurals; each singular is that of Kubernetes
	shortNames string
	categories string
}{
	{
		group: "grafana.integreatly.org", categories: "all grafana-operator",
		resources: "grafanas grafanaalertrulegroups grafanacontactpoints grafanadashboards grafanadatasources grafanafolders " +
			"grafanalibrarypanels grafanamanifests grafanamutetimings grafananotificationpolicies grafananotificationpolicyroutes " +
			"grafananotificationtemplates grafanaserviceaccounts",
	},
	{
		group: "external-secrets.io", categories: "external-secrets", shortNames: "ces css es ps ss",
		resources: "clusterexternalsecrets clusterpushsecrets clustersecretstores externalsecrets pushsecrets secretstores",
	},
	{
		group: "generators.external-secrets.io", categories: "external-secrets external-secrets-generators", shortNames: "gs",
		resources: "acraccesstokens clustergenerators ecrauthorizationtokens fakes gcraccesstokens generatorstates githubaccesstokens " +
			"grafanas mfas passwords quayaccesstokens sshkeys stssessiontokens uuids vaultdynamicsecrets webhooks",
	},
	{group: "bitnami.com", resources: "sealedsecrets"},
	{group: "secrets-store.csi.x-k8s.io", resources: "secretproviderclasses secretproviderclasspodstatuses"},
	{
		group: "cert-manager.io", categories: "cert-manager", shortNames: "cert certs cr crs",
		resources: "certificates certificaterequests clusterissuers issuers",
	},
}

// singular is the name of one object, as Kubernetes makes it of the plural.
func singular(plural string) string {
	for _, ending := range []struct{ plural, singular string }{{"ies", "y"}, {"sses", "ss"}, {"uses", "us"}, {"s", ""}} {
		if name, found := strings.CutSuffix(plural, ending.plural); found {
			return name + ending.singular
		}
	}
	return plural
}

// served returns the resources that the API server has, those of this project apart from others.
func served(t *testing.T) (ours, others []metav1.APIResource) {
	t.Helper()
	_, config := newClient(t)
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := api.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		if gv == v1alpha1.GroupVersion {
			ours = append(ours, list.APIResources...)
		} else {
			others = append(others, list.APIResources...)
		}
	}
	if len(ours) == 0 || len(others) == 0 {
		t.Fatalf("the API server has %d resources of ours, and %d others", len(ours), len(others))
	}
	return ours, others
}

func TestKindsAreFoundByTheirShortNames(t *testing.T) {
	got := map[string]string{}
	ours, _ := served(t)
	for _, resource := range ours {
		if !slices.Equal(resource.Categories, []string{category}) {
			t.Errorf("%s has the categories %q, want %s", resource.Kind, resource.Categories, category)
		}
		got[resource.Kind] = strings.Join(resource.ShortNames, ",")
	}
	for kind, want := range map[string]string{secureValueKind: "gsv", setKind: "gsvset", connectionKind: "gconn", clusterConnectionKind: "cgconn"} {
		if got[kind] != want {
			t.Errorf("%s has the short names %q, want %q", kind, got[kind], want)
		}
	}
}

// TestNoNameIsThatOfANeighbour: kubectl expands a category before it looks for a resource of that name, so a word for our objects that means
// those of another operator too would show, or delete, the wrong ones.
func TestNoNameIsThatOfANeighbour(t *testing.T) {
	taken := map[string]string{}
	ours, builtin := served(t)
	for _, resource := range builtin {
		words := append(append([]string{resource.Name, resource.SingularName}, resource.ShortNames...), resource.Categories...)
		for _, word := range words {
			taken[word] = "Kubernetes"
		}
	}
	for _, neighbour := range neighbours {
		for plural := range strings.FieldsSeq(neighbour.resources) {
			taken[plural], taken[singular(plural)] = neighbour.group, neighbour.group
		}
		for word := range strings.FieldsSeq(neighbour.shortNames + " " + neighbour.categories) {
			taken[word] = neighbour.group
		}
	}
	for _, word := range []string{"pods", "pod", "po", "all", "grafana", "grafanas", "es", "secretproviderclass", "grafananotificationpolicy"} {
		if taken[word] == "" {
			t.Errorf("%q is not known as a word of others", word)
		}
	}
	for _, resource := range ours {
		for _, word := range append([]string{resource.Name, resource.SingularName}, resource.ShortNames...) {
			if other, found := taken[word]; found {
				t.Errorf("%q stands for %s, and for objects of %s", word, resource.Kind, other)
			}
		}
		for _, word := range resource.Categories {
			if other, found := taken[word]; found {
				t.Errorf("the category %q of %s stands for objects of %s too", word, resource.Kind, other)
			}
		}
		for _, word := range append([]string{resource.Name, resource.SingularName}, resource.ShortNames...) {
			taken[word] = resource.Kind
		}
	}
}

// TestKubectlTellsNeighboursApart: what grafana-operator's users type shows none of our objects, with its kind installed.
func TestKubectlTellsNeighboursApart(t *testing.T) {
	c, _ := newClient(t)
	for _, kind := range []string{secureValueKind, setKind, connectionKind, clusterConnectionKind} {
		create(t, c, newObject(t, kind), newObject(t, kind))
	}
	cache := t.TempDir()
	try := func(input string, args ...string) (string, error) {
		args = append(args, "--kubeconfig", plane.KubeconfigPath(), "--cache-dir", cache)
		command := exec.CommandContext(context.WithoutCancel(t.Context()), plane.KubectlPath(), args...)
		command.Stdin = strings.NewReader(input)
		out, err := command.Output()
		return string(out), err
	}
	kubectl := func(input string, args ...string) string {
		out, err := try(input, args...)
		if err != nil {
			t.Fatalf("kubectl %q: %v", args, err)
		}
		return out
	}
	const neighbour = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: grafanas.grafana.integreatly.org
spec:
  group: grafana.integreatly.org
  names: {kind: Grafana, plural: grafanas, singular: grafana, categories: [all, grafana-operator]}
  scope: Namespaced
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`
	kubectl(neighbour, "apply", "-f", "-")
	t.Cleanup(func() { kubectl(neighbour, "delete", "-f", "-") })
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		_, err := try("", "get", "grafanas.grafana.integreatly.org", "-A")
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("the neighbour's kind is not served: %v", err)
	}
	for _, word := range []string{"grafana", "grafanas", "grafana-operator", "all"} {
		if out := kubectl("", "get", word, "-A", "-o", "name"); strings.Contains(out, v1alpha1.GroupName) {
			t.Errorf("kubectl get %s shows\n%s", word, out)
		}
	}
	if out := kubectl("", "get", category, "-A", "-o", "name"); strings.Count(out, v1alpha1.GroupName+"/") != 4 {
		t.Errorf("kubectl get %s shows\n%s\nwant one object of each kind", category, out)
	}
}
