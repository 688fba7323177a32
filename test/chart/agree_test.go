package chart

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
)

// TestAgreesWithKustomize: the chart installs by default what config/default does, though under other names.
func TestAgreesWithKustomize(t *testing.T) {
	chart := render(t, chartDir(t))
	config := objects(t, kustomize(t))

	t.Run("CustomResourceDefinitions", func(t *testing.T) {
		got, want := crds(chart), crds(config)
		if names := slices.Sorted(maps.Keys(want)); len(names) != 4 || !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
			t.Fatalf("the chart has %v, config/default %v", slices.Sorted(maps.Keys(got)), names)
		}
		for name := range want {
			if !reflect.DeepEqual(got[name], want[name]) {
				t.Errorf("the chart has another spec of %s: run `make manifests`", name)
			}
		}
	})

	t.Run("rights of the manager", func(t *testing.T) {
		got, want := rights(t, chart), rights(t, config)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("the chart grants\n%s\nconfig/default\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})

	t.Run("the manager writes no Secret but the fingerprint key", func(t *testing.T) {
		for what, objects := range map[string][]object{"the chart": chart, "config/default": config} {
			key := only(t, objects, "Secret")
			if name(key) != fingerprint.SecretName || key["type"] != string(fingerprint.SecretType) {
				t.Errorf("%s has Secret %s of type %v", what, name(key), key["type"])
			}
			for _, field := range []string{"data", "stringData", "immutable"} { // whoever applies it would take these from the manager
				if key[field] != nil {
					t.Errorf("%s sets %s of the key", what, field)
				}
			}
			for _, right := range rights(t, objects) {
				verb, of, _ := strings.Cut(strings.TrimPrefix(right, "own namespace: "), " secrets /")
				if of != "" && !slices.Contains([]string{"cluster: get", "cluster: list", "cluster: watch"}, verb) && of != fingerprint.SecretName {
					t.Errorf("%s grants %s", what, right)
				}
			}
		}
	})

	t.Run("user roles", func(t *testing.T) {
		got, want := unbound(chart), unbound(config)
		if len(want) != 13 || !slices.Equal(got, want) {
			t.Errorf("the chart has\n%s\nconfig/default\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})

	t.Run("Deployment", func(t *testing.T) {
		got, want := only(t, chart, "Deployment"), only(t, config, "Deployment")
		for _, path := range [][]any{
			{"spec", "replicas"},
			{"spec", "revisionHistoryLimit"},
			{"spec", "strategy"},
			{"spec", "template", "metadata", "annotations"},
		} {
			same(t, got, want, path)
		}
		pod, wantPod := at(got, "spec", "template", "spec").(map[string]any), at(want, "spec", "template", "spec").(map[string]any)
		for _, key := range keysOf(pod, wantPod) {
			if key != "serviceAccountName" && key != "containers" {
				same(t, pod, wantPod, []any{key})
			}
		}
		container, wantContainer := at(pod, "containers", 0).(map[string]any), at(wantPod, "containers", 0).(map[string]any)
		for _, key := range keysOf(container, wantContainer) {
			if key != "image" && key != "imagePullPolicy" {
				same(t, container, wantContainer, []any{key})
			}
		}
		if at(container, "args") == nil || at(container, "securityContext") == nil || at(pod, "securityContext") == nil {
			t.Errorf("no flags or security context in\n%s", encode(t, got))
		}
	})

	t.Run("Service of the metrics", func(t *testing.T) {
		same(t, only(t, chart, "Service"), only(t, config, "Service"), []any{"spec", "ports"})
	})

	t.Run("NetworkPolicy", func(t *testing.T) {
		got, want := only(t, chart, "NetworkPolicy"), only(t, config, "NetworkPolicy")
		for _, key := range keysOf(at(got, "spec").(map[string]any), at(want, "spec").(map[string]any)) {
			if key != "podSelector" {
				same(t, got, want, []any{"spec", key})
			}
		}
		for what, objects := range map[string][]object{"the chart": chart, "config/default": config} {
			selected := at(only(t, objects, "NetworkPolicy"), "spec", "podSelector", "matchLabels")
			if pods := at(only(t, objects, "Deployment"), "spec", "selector", "matchLabels"); !reflect.DeepEqual(selected, pods) {
				t.Errorf("%s: the policy is for %v, the pods of the Deployment are %v", what, selected, pods)
			}
		}
	})

	t.Run("kinds", func(t *testing.T) {
		count := func(objects []object) map[string]int {
			kinds := map[string]int{}
			for _, o := range objects {
				kinds[fmt.Sprint(o["kind"])]++
			}
			delete(kinds, "Namespace") // helm has --create-namespace
			for kind := range kinds {
				if strings.HasSuffix(kind, "Binding") || kind == "Role" {
					delete(kinds, kind) // compared above, by what they grant
				}
			}
			return kinds
		}
		if got, want := count(chart), count(config); !maps.Equal(got, want) {
			t.Errorf("the chart has %v, config/default %v", got, want)
		}
	})
}

// TestNamespacedRights: with watch.namespaces the manager has in each of them the rights of its ClusterRole on what is in a namespace, and
// nothing in the cluster.
func TestNamespacedRights(t *testing.T) {
	whole := rights(t, render(t, chartDir(t), "--set", "metrics.enabled=false"))
	var want []string
	for _, right := range whole {
		everywhere, found := strings.CutPrefix(right, "cluster: ")
		switch {
		case !found:
			want = append(want, right)
		case !strings.Contains(everywhere, " namespaces ") && !strings.Contains(everywhere, " clustergrafanaconnections"):
			want = append(want, "namespace team-a: "+everywhere, "namespace team-b: "+everywhere)
		}
	}
	slices.Sort(want)
	watched := render(t, chartDir(t), "--set", "watch.namespaces={team-a,team-b},clusterID=one,metrics.enabled=false")
	if got := rights(t, watched); len(want) == len(whole) || !slices.Equal(got, want) {
		t.Errorf("the chart grants\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func crds(objects []object) map[string]any {
	specs := map[string]any{}
	for _, o := range ofKind(objects, "CustomResourceDefinition") {
		specs[name(o)] = o["spec"]
	}
	return specs
}

// rights returns all that the ServiceAccount of the Deployment may do, one verb on one resource at a time.
func rights(t *testing.T, objects []object) []string {
	t.Helper()
	deployment := only(t, objects, "Deployment")
	own := at(deployment, "metadata", "namespace")
	subject := object{"kind": "ServiceAccount", "name": at(deployment, "spec", "template", "spec", "serviceAccountName"), "namespace": own}
	var found []string
	for _, binding := range append(ofKind(objects, "ClusterRoleBinding"), ofKind(objects, "RoleBinding")...) {
		subjects, _ := binding["subjects"].([]any)
		if !slices.ContainsFunc(subjects, func(s any) bool { return reflect.DeepEqual(s, subject) }) {
			t.Errorf("%s %s binds %v, and not the ServiceAccount of the Deployment", binding["kind"], name(binding), subjects)
			continue
		}
		namespace := at(binding, "metadata", "namespace")
		scope := "cluster"
		switch namespace {
		case nil:
		case own:
			scope = "own namespace"
		default:
			scope = fmt.Sprintf("namespace %v", namespace)
		}
		for _, role := range ofKind(objects, fmt.Sprint(at(binding, "roleRef", "kind"))) {
			if name(role) == at(binding, "roleRef", "name") && at(role, "metadata", "namespace") == namespace {
				for _, right := range verbs(role) {
					found = append(found, scope+": "+right)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// unbound returns the ClusterRoles that nobody has by the installation alone: what each grants, and which roles it is aggregated to.
func unbound(objects []object) []string {
	var bound []string
	for _, binding := range ofKind(objects, "ClusterRoleBinding") {
		bound = append(bound, fmt.Sprint(at(binding, "roleRef", "name")))
	}
	var found []string
	for _, role := range ofKind(objects, "ClusterRole") {
		if slices.Contains(bound, name(role)) {
			continue
		}
		labels, _ := at(role, "metadata", "labels").(map[string]any)
		var aggregated []string
		for label := range labels {
			if to, found := strings.CutPrefix(label, "rbac.authorization.k8s.io/aggregate-to-"); found {
				aggregated = append(aggregated, to)
			}
		}
		found = append(found, fmt.Sprintf("%v to %v", verbs(role), aggregated))
	}
	slices.Sort(found)
	return found
}

// verbs returns the rules of a role, one verb on one resource at a time.
func verbs(role object) []string {
	var found []string
	rules, _ := role["rules"].([]any)
	for _, rule := range rules {
		names := strs(at(rule, "resourceNames"))
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, verb := range strs(at(rule, "verbs")) {
			for _, path := range strs(at(rule, "nonResourceURLs")) {
				found = append(found, verb+" "+path)
			}
			for _, group := range strs(at(rule, "apiGroups")) {
				for _, resource := range strs(at(rule, "resources")) {
					for _, name := range names {
						found = append(found, fmt.Sprintf("%s %s %s/%s", verb, resource, group, name))
					}
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func strs(v any) []string {
	list, _ := v.([]any)
	var found []string
	for _, s := range list {
		found = append(found, fmt.Sprint(s))
	}
	return found
}

func same(t *testing.T, got, want any, path []any) {
	t.Helper()
	if got, want := at(got, path...), at(want, path...); !reflect.DeepEqual(got, want) {
		t.Errorf("%v is in the chart\n%s\nand in config/default\n%s", path, encode(t, got), encode(t, want))
	}
}

func keysOf(maps ...map[string]any) []string {
	var keys []string
	for _, m := range maps {
		for key := range m {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
