package chart

import (
	"os"
	"os/exec"
	"path/filepath"
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
			args := []string{"template", "release", chartDir(t), "--namespace", "release", "--values", file}
			if name == "bare" {
				args = append(args, "--skip-tests") // without a security context the pod is not let in
			}
			server.run(t, run(t, args...), "apply", "--server-side", "--dry-run=server", "-f", "-")
		})
	}

	t.Run("config/default", func(t *testing.T) {
		server.run(t, kustomize(t), "apply", "--server-side", "--dry-run=server", "-f", "-")
	})

	t.Run("config/prometheus", func(t *testing.T) {
		server.run(t, "", "apply", "--server-side", "--dry-run=server", "--namespace", "release", "-k", filepath.Join(rootDir(t), "config", "prometheus"))
	})

	t.Run("the pods are let into a namespace that enforces the restricted Pod Security Standard", func(t *testing.T) {
		for from, rendering := range map[string]string{
			"chart":          manifests(t, chartDir(t)),
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
	plane := controlplane.StartForTest(t, controlplane.Options{CRDDirectories: []string{filepath.Join("testdata", "crds")}})
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
	return server{kubectl: plane.KubectlPath(), kubeconfig: plane.KubeconfigPath()}
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
