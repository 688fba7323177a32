package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

// TestRenderingsAreValid has the API server judge each rendering, and that of config/default, without keeping any of it.
func TestRenderingsAreValid(t *testing.T) {
	server := startServer(t, "release", "team-a", "grafana-secure-value-operator-system")
	for name, file := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			server.run(t, run(t, "template", "release", chartDir(t), "--namespace", "release", "--values", file),
				"apply", "--server-side", "--dry-run=server", "-f", "-")
		})
	}

	t.Run("config/default", func(t *testing.T) {
		server.run(t, kustomize(t), "apply", "--server-side", "--dry-run=server", "-f", "-")
	})

	t.Run("config/prometheus", func(t *testing.T) {
		server.run(t, "", "apply", "--server-side", "--dry-run=server", "--namespace", "release", "-k", filepath.Join(rootDir(t), "config", "prometheus"))
	})

	t.Run("alerts and dashboards", func(t *testing.T) {
		rendering := run(t, "template", "release", chartDir(t), "--namespace", "release",
			"--set", "metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.prometheus=main",
			"--set", "metrics.dashboard.enabled=true,metrics.dashboard.labels.sidecar=yes,metrics.dashboard.annotations.folder=Operators")
		server.run(t, rendering, "apply", "--server-side", "--dry-run=server", "-f", "-")

		rule := only(t, objects(t, rendering), "PrometheusRule")
		var alerts object
		readYAML(t, filepath.Join(chartDir(t), "files", "alerts.yaml"), &alerts)
		if got := at(rule, "spec"); !reflect.DeepEqual(got, alerts) {
			t.Errorf("the PrometheusRule is not what files/alerts.yaml says:\n%s", encode(t, rule))
		}
		if got := at(rule, "metadata", "labels", "prometheus"); got != "main" {
			t.Errorf("label of the PrometheusRule = %v, want main", got)
		}
		dashboards := only(t, objects(t, rendering), "ConfigMap")
		const file = "grafana-secure-value-operator.json"
		want, err := os.ReadFile(filepath.Join(chartDir(t), "files", "dashboards", file))
		if err != nil {
			t.Fatal(err)
		}
		if got := dashboards["data"]; !reflect.DeepEqual(got, map[string]any{file: string(want)}) {
			t.Errorf("the dashboards are not what files/dashboards holds: %v", got)
		}
		for _, label := range []string{"sidecar", "grafana_dashboard"} {
			if at(dashboards, "metadata", "labels", label) == nil {
				t.Errorf("the dashboards lack the label %s", label)
			}
		}
		if got := at(dashboards, "metadata", "annotations", "folder"); got != "Operators" {
			t.Errorf("annotation of the dashboards = %v, want Operators", got)
		}
	})

	t.Run("the pods are let into a namespace that enforces the restricted Pod Security Standard", func(t *testing.T) {
		for from, rendering := range map[string]string{
			"chart":          run(t, "template", "release", chartDir(t), "--namespace", "release"),
			"config/default": kustomize(t),
		} {
			template := at(only(t, objects(t, rendering), "Deployment"), "spec", "template", "spec")
			pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "pod", "namespace": "release"}, "spec": template}
			server.run(t, encode(t, pod), "create", "--dry-run=server", "-f", "-")

			at(template, "containers", 0).(map[string]any)["securityContext"] = object{}
			out, err := server.try(t, encode(t, pod), "create", "--dry-run=server", "-f", "-")
			if err == nil || !strings.Contains(out, "violates PodSecurity") {
				t.Errorf("%s: the namespace enforces nothing: %v\n%s", from, err, out)
			}
		}
	})
}

// server is a running API server, as kubectl sees it.
type server struct {
	kubectl, kubeconfig string
}

// startServer starts an API server that has the kinds of the Prometheus operator and the given namespaces, which enforce the restricted
// Pod Security Standard.
func startServer(t *testing.T, namespaces ...string) server {
	t.Helper()
	plane, err := controlplane.Start(controlplane.Options{CRDDirectories: []string{filepath.Join("testdata", "crds")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	k8s, err := client.New(plane.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range namespaces {
		err := k8s.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, kubeconfig, string(plane.Kubeconfig()))
	return server{kubectl: plane.KubectlPath(), kubeconfig: kubeconfig}
}

// run runs kubectl with the given input, and fails the test if that fails.
func (s server) run(t *testing.T, input string, args ...string) {
	t.Helper()
	if out, err := s.try(t, input, args...); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (s server) try(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.kubectl, append(args, "--kubeconfig", s.kubeconfig)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kustomize returns what config/default renders to. It renders a copy, so that go test sees which files the test depends on.
func kustomize(t *testing.T) string {
	t.Helper()
	binaries, err := assets.Find()
	if err != nil {
		t.Fatal(err)
	}
	config := t.TempDir()
	if err := os.CopyFS(config, os.DirFS(filepath.Join(rootDir(t), "config"))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "kubectl"), "kustomize", filepath.Join(config, "default"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl kustomize: %v\n%s", err, out)
	}
	return string(out)
}

// TestContainerIsConfined: beyond the restricted Pod Security Standard, nothing can be written, and nothing of the node is there.
func TestContainerIsConfined(t *testing.T) {
	for from, rendering := range map[string]string{
		"chart":          run(t, "template", "release", chartDir(t), "--namespace", "release"),
		"config/default": kustomize(t),
	} {
		pod := at(only(t, objects(t, rendering), "Deployment"), "spec", "template", "spec")
		container := at(pod, "containers", 0)
		for what, is := range map[string][2]any{
			"runAsNonRoot":             {at(pod, "securityContext", "runAsNonRoot"), true},
			"seccompProfile":           {at(pod, "securityContext", "seccompProfile", "type"), "RuntimeDefault"},
			"readOnlyRootFilesystem":   {at(container, "securityContext", "readOnlyRootFilesystem"), true},
			"allowPrivilegeEscalation": {at(container, "securityContext", "allowPrivilegeEscalation"), false},
			"capabilities":             {at(container, "securityContext", "capabilities"), object{"drop": []any{"ALL"}}},
			"the limit of memory":      {at(container, "resources", "limits", "memory"), "256Mi"},
			"privileged":               {at(container, "securityContext", "privileged"), nil},
			"volumes":                  {at(pod, "volumes"), nil},
			"hostNetwork":              {at(pod, "hostNetwork"), nil},
			"hostPID":                  {at(pod, "hostPID"), nil},
			"initContainers":           {at(pod, "initContainers"), nil},
			"a second container":       {at(pod, "containers", 1), nil},
		} {
			if !reflect.DeepEqual(is[0], is[1]) {
				t.Errorf("%s: %s is %v, want %v", from, what, is[0], is[1])
			}
		}
	}
}
