package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("An object without connectionRef", func() {
	// unnamed is a world whose ClusterGrafanaConnection "default" leads to its Grafana, and an object that names no connection.
	unnamed := func(ctx SpecContext) (*world, *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		DeferCleanup(func(ctx context.Context) { // last of all: the next spec makes connections of the same names
			for _, name := range []string{v1alpha1.DefaultConnection, connectionRef} {
				Eventually(func() bool {
					return apierrors.IsNotFound(k8s.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.ClusterGrafanaConnection{}))
				}).Should(BeTrue())
			}
		})
		w := newConnectedWorld(ctx)
		shared := w.shared()
		shared.Name, shared.Spec.AllowedNamespaces = v1alpha1.DefaultConnection, v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		w.createShared(shared)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{}
		return w, sv
	}

	It("uses the ClusterGrafanaConnection default, and says so in status alone", func(ctx SpecContext) {
		w, sv := unnamed(ctx)
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(sv.Spec.ConnectionRef).To(BeZero())
		Expect(sv.Status.Desired).To(HaveValue(Equal(v1alpha1.DesiredStatus{
			Connection: v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "default"}, Name: "api-key",
		})))
		Expect(targetsOf(sv)).To(Equal([]string{"ClusterGrafanaConnection/default/default/api-key"}))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	DescribeTable("goes to the connection of its namespace when a manifest names that, although a shared one has the name too",
		func(ctx SpecContext, change ...string) {
			w, sv := unnamed(ctx)
			other, url := anotherGrafana()
			shared := w.shared()
			shared.Name, shared.Spec.URL = connectionRef, url
			shared.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
			w.createShared(shared)
			w.eventuallySays(shared, v1alpha1.ReasonConnected)
			other.ResetCalls()

			manifest := func(ref string) string {
				file := filepath.Join(GinkgoT().TempDir(), "object.yaml")
				Expect(os.WriteFile(file, fmt.Appendf(nil, "apiVersion: grafana.securevalues.io/v1alpha1\nkind: GrafanaSecureValue\nmetadata: {name: api-key}\n"+
					"spec: {%svalueFrom: {secretKeyRef: {name: source, key: key}}}\n", ref), 0o600)).To(Succeed())
				return file
			}
			run := func(ref string, command ...string) {
				GinkgoHelper()
				out, err := w.kubectl(strings.Split(strings.ReplaceAll(strings.Join(command, " "), "FILE", manifest(ref)), " ")...)
				Expect(err).NotTo(HaveOccurred(), out)
			}
			apply := change
			if apply[0] == "patch" {
				apply = []string{"apply", "-f", "FILE"}
			}
			run("", apply...)
			w.eventuallySynced(sv)
			run("connectionRef: {name: prod}, ", change...)
			w.eventuallySynced(sv)
			Expect(targetsOf(sv)).To(Equal([]string{"GrafanaConnection/prod/default/api-key"}))
			Expect(sv.Status.Desired.Connection.Kind).To(Equal(v1alpha1.KindGrafanaConnection))
			Expect(other.Values(grafanaNS)).To(BeEmpty())
		},
		Entry("by client-side apply", "apply", "-f", "FILE"),
		Entry("by server-side apply", "apply", "--server-side", "-f", "FILE"),
		Entry("by a patch", "patch", "gsv", "api-key", "--type=merge", `-p={"spec":{"connectionRef":{"name":"prod"}}}`),
	)
})

var _ = Describe("A description that spec does not give", func() {
	It("is that of Grafana where the value was adopted, until spec gives one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "api-key", Description: "theirs", Value: []byte("their value")})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(sv.Spec.Description).To(BeEmpty())
		Expect(w.stored("api-key").Description).To(Equal("theirs"))

		w.secret("source", map[string]string{"key": "canary-2"})
		Expect(w.eventuallyStored("api-key", "canary-2").Description).To(Equal("theirs"))

		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Ours" })
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Description).To(Equal("Ours"))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "" })
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Description).To(Equal("Synced from Kubernetes"))
	})

	It("is kept where the answer to the adoption was lost", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "api-key", Description: "theirs", Value: []byte("their value")})
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Times: 1, AfterEffect: true})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Description).To(Equal("theirs"))
	})
})
