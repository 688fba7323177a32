package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

var _ = Describe("YAML that is applied again", func() {
	const text = `
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaConnection
metadata:
  name: prod
spec:
  url: %[1]s
  credentials:
    tokenSecretRef: {name: grafana, key: token}
---
apiVersion: grafana.securevalues.io/v1alpha1
kind: ClusterGrafanaConnection
metadata:
  name: %[2]s
spec:
  url: %[1]s
  resyncPeriod: 600s
  credentials:
    tokenSecretRef: {name: %[2]s, key: token}
  allowedNamespaces: {from: All}
---
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaSecureValue
metadata:
  name: api-key
spec:
  connectionRef: {name: prod}
  decrypters: [synthetic-monitoring]
  valueFrom:
    secretKeyRef: {name: source, key: key}
---
apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaSecureValue
metadata:
  name: through-the-shared-one
spec:
  connectionRef: {kind: ClusterGrafanaConnection, name: %[2]s}
  description: Read by nobody
  decrypters: []
  valueFrom:
    secretKeyRef: {name: source, key: key}
`
	// applied is a world in which the YAML was applied with these flags, and is in sync.
	applied := func(ctx context.Context, flags ...string) (w *world, apply func(...string), versions func() []string) {
		GinkgoHelper()
		w = newWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		shared := w.shared()
		file := filepath.Join(GinkgoT().TempDir(), "objects.yaml")
		Expect(os.WriteFile(file, fmt.Appendf(nil, text, w.url, shared.Name), 0o600)).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			w.cleanUp(ctx)
			w.ctx = ctx
			w.delete(shared)
		})
		apply = func(flags ...string) {
			GinkgoHelper()
			out, err := w.kubectl(append([]string{"apply", "--filename", file}, flags...)...)
			Expect(err).NotTo(HaveOccurred(), out)
		}
		values := []*v1alpha1.GrafanaSecureValue{w.value("api-key"), w.value("through-the-shared-one")}
		versions = func() []string {
			GinkgoHelper()
			var found []string
			for _, o := range []client.Object{w.connection(connectionRef), shared, values[0], values[1]} {
				w.refresh(o)
				found = append(found, fmt.Sprintf("%s generation %d version %s", o.GetName(), o.GetGeneration(), o.GetResourceVersion()))
			}
			return found
		}
		apply(flags...)
		for _, sv := range values {
			w.eventuallySynced(sv)
		}
		w.settled()
		return w, apply, versions
	}

	DescribeTable("changes nothing", func(ctx SpecContext, flags []string) {
		w, apply, versions := applied(ctx, flags...)
		mark, before := w.reset(), versions()
		apply(flags...)
		apply(flags...)
		w.settled()
		Expect(versions()).To(Equal(before))
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(BeEmpty())
	},
		Entry("client-side", nil),
		Entry("server-side", []string{"--server-side"}),
		Entry("server-side, as another manager of fields", []string{"--server-side", "--field-manager=kustomize-controller", "--force-conflicts"}),
	)

	It("changes no spec when another tool takes over", func(ctx SpecContext) {
		w, apply, versions := applied(ctx)
		mark, before := w.reset(), generations(versions())
		apply("--server-side", "--field-manager=kustomize-controller", "--force-conflicts")
		taken := versions()
		apply("--server-side", "--field-manager=kustomize-controller", "--force-conflicts")
		w.settled()
		Expect(versions()).To(Equal(taken))
		Expect(generations(taken)).To(Equal(before))
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(BeEmpty())
	})
})

// generations returns what versions says, without the versions.
func generations(versions []string) []string {
	var without []string
	for _, v := range versions {
		before, _, _ := strings.Cut(v, " version ")
		without = append(without, before)
	}
	return without
}

// kubeconfig returns the path of a kubeconfig whose namespace is that of the world.
func (w *world) kubeconfig() string {
	GinkgoHelper()
	config, err := clientcmd.LoadFromFile(plane.KubeconfigPath())
	Expect(err).NotTo(HaveOccurred())
	config.Contexts[config.CurrentContext].Namespace = w.namespace
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(*config, path)).To(Succeed())
	return path
}

// kubectl runs the real one in the namespace of the world, and returns all that it prints.
func (w *world) kubectl(args ...string) (string, error) {
	GinkgoHelper()
	return w.run(exec.CommandContext(w.ctx, plane.KubectlPath(), args...))
}

// run runs a command that finds kubectl, and the namespace of the world.
func (w *world) run(cmd *exec.Cmd) (string, error) {
	GinkgoHelper()
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+w.kubeconfig(), "PATH="+filepath.Dir(plane.KubectlPath())+string(os.PathListSeparator)+os.Getenv("PATH"))
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	return out.String(), err
}
