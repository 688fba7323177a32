package install

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	crdOfValues = "grafanasecurevalues.grafana.securevalues.io"
	keySecret   = "secret/grafana-secure-value-operator-fingerprint"
	lease       = "lease.coordination.k8s.io/grafana-secure-value-operator"
)

var _ = Describe("The chart", func() {
	It("upgrades, rolls back and loses the fingerprint key with 1,000 objects in sync, and writes nothing", func(ctx SpecContext) {
		const objects = 1000
		c := newCluster(ctx)
		c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "monitoring"}})
		c.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "prometheus"}})
		reader := c.serviceAccount("monitoring", "prometheus")
		readers := []string{"--set", "metrics.readers[0].name=prometheus,metrics.readers[0].namespace=monitoring"}

		By("installing an older release")
		older := olderChart()
		c.helm(append(withImage("install", release, older, "--create-namespace"), readers...)...)
		m := c.run()
		c.connect()
		c.secret("source", "key", "canary-1")
		c.createMany(objects)
		c.eventuallyStoredMany(objects, 1)
		c.eventuallyReconciled(m, reader, objects)
		Expect(c.grafana.Calls()).NotTo(BeEmpty())

		began := c.plane.Mark()
		nothingWritten := func(what string, change func()) {
			GinkgoHelper()
			By(what)
			mark := c.plane.Mark()
			c.grafana.ResetCalls()
			change()
			m.stop()
			m = c.run()
			c.eventuallyReconciled(m, reader, objects)
			Expect(c.writesToGrafana()).To(BeEmpty())
			Expect(c.requests(m.user, mark, statusWrite)).To(BeEmpty())
		}
		Expect(c.crds()[crdOfValues].Spec.Names.ShortNames).To(Equal([]string{"older"}))
		nothingWritten("upgrading", func() {
			c.upgrade(append(readers, "--set", "replicaCount=3,log.level=debug,maxConcurrentReconciles=4")...)
			Expect(c.crds()[crdOfValues].Spec.Names.ShortNames).To(Equal([]string{"gsv"}))
		})
		key := c.fingerprintKey()
		nothingWritten("rolling back", func() {
			c.helm("rollback", release, "1", "--namespace", operatorNamespace)
			Expect(c.crds()[crdOfValues].Spec.Names.ShortNames).To(Equal([]string{"older"}))
		})
		Expect(c.fingerprintKey().Data).To(Equal(key.Data))
		nothingWritten("replacing the fingerprint key", func() {
			c.shell(blocksOf(filepath.Join(root, "SECURITY.md"), "What to do after a leak")...)
		})
		Expect(c.fingerprintKey().Data).NotTo(Equal(key.Data))

		By("rotating, which writes each of them once")
		c.secret("source", "key", "canary-2")
		c.eventuallyStoredMany(objects, 2)
		c.eventuallyReconciled(m, reader, objects)
		for name, stored := range c.grafana.Values(grafanaNS) {
			Expect(stored.Version).To(Equal(int64(2)), name)
		}
		Expect(c.requests(m.user, began, statusWrite)).To(HaveLen(objects))
		Expect(c.requests(m.user, controlplane.Mark{}, denied)).To(BeEmpty())
	})

	It("serves metrics to the readers of its values, and to nobody else", func(ctx SpecContext) {
		c := newCluster(ctx)
		c.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: "prometheus"}})
		c.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: "stranger"}})
		c.install("--set", "metrics.readers[0].name=prometheus,metrics.readers[0].namespace="+team)
		m := c.run()
		for token, want := range map[string]int{
			c.serviceAccount(team, "prometheus").BearerToken: http.StatusOK,
			c.serviceAccount(team, "stranger").BearerToken:   http.StatusForbidden,
			"": http.StatusUnauthorized,
		} {
			Eventually(func() (int, error) {
				code, _, err := m.get("https://"+m.metrics+"/metrics", token)
				return code, err
			}).Should(Equal(want))
		}
	})

	It("has two managers, of which one works and the other takes over", func(ctx SpecContext) {
		c := newCluster(ctx)
		c.install()
		holder := func() string {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: release}}
			if !c.exists(lease) || lease.Spec.HolderIdentity == nil {
				return ""
			}
			return *lease.Spec.HolderIdentity
		}
		first := c.run()
		Eventually(holder).ShouldNot(BeEmpty())
		elected := holder()
		second := c.run()
		c.synced()
		Expect(holder()).To(Equal(elected))
		Expect(c.runTest()).To(Equal("ok: " + elected + " leads\n"))
		Expect(c.requests(first.user, controlplane.Mark{}, denied)).To(BeEmpty())

		first.stop()
		Eventually(holder).ShouldNot(Or(BeEmpty(), Equal(elected)))
		c.grafana.ResetCalls()
		c.secret("source", "key", "canary-2")
		c.eventuallyStored("api-key", "canary-2")
		c.settled()
		Expect(c.writesToGrafana()).To(Equal([]string{"update api-key"}))
		second.stop()
	})

	It("leaves behind what it says, and takes that over again", func(ctx SpecContext) {
		c := newCluster(ctx)
		c.install()
		m := c.run()
		conn := c.connect()
		c.secret("source", "key", "canary-1")
		kept, deleted := value("kept"), value("deleted")
		c.create(kept)
		c.create(deleted)
		c.eventuallySays(kept, v1alpha1.ReasonSynced)
		c.eventuallySays(deleted, v1alpha1.ReasonSynced)
		Expect(c.remains()).To(ContainElements(ContainSubstring("deployment"), ContainSubstring("clusterrole.")))
		m.stop()

		By("uninstalling")
		Expect(c.uninstall()).To(ContainSubstring("kept due to the resource policy"))
		Expect(c.remains()).To(ConsistOf(
			"customresourcedefinition.apiextensions.k8s.io/clustergrafanaconnections.grafana.securevalues.io",
			"customresourcedefinition.apiextensions.k8s.io/grafanaconnections.grafana.securevalues.io",
			"customresourcedefinition.apiextensions.k8s.io/grafanasecurevalues.grafana.securevalues.io",
			"customresourcedefinition.apiextensions.k8s.io/grafanasecurevaluesets.grafana.securevalues.io",
			keySecret, lease))
		for name, crd := range c.crds() {
			Expect(crd.DeletionTimestamp).To(BeNil(), name)
		}
		c.delete(deleted)
		for _, o := range []client.Object{kept, deleted, conn} {
			Expect(c.exists(o)).To(BeTrue())
			Expect(o.GetFinalizers()).To(Equal([]string{"grafana.securevalues.io/finalizer"}))
		}
		Expect(c.grafana.Values(grafanaNS)).To(HaveLen(2))

		By("installing it again")
		out, err := c.tryHelm(c.kubeconfig, withImage("install", "another", chart())...)
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("invalid ownership metadata"))
		key := c.fingerprintKey()
		c.grafana.ResetCalls()
		mark := c.plane.Mark()
		c.helm(withImage("install", "another", chart(), "--take-ownership")...)
		m = c.run()
		c.eventuallyGone(deleted)
		c.settled()
		Expect(c.writesToGrafana()).To(Equal([]string{"delete deleted"}))
		Expect(c.requests(m.user, mark, statusWrite)).NotTo(ContainElement(ContainSubstring(kept.Name)))
		Expect(c.fingerprintKey().UID).To(Equal(key.UID))

		By("leaving the CRDs to another installation")
		c.helm(withImage("upgrade", "another", chart(), "--set", "crds.enabled=false")...)
		Expect(c.crds()).To(HaveLen(4))
		Expect(c.exists(kept)).To(BeTrue())
		Expect(kept.DeletionTimestamp).To(BeNil())

		By("taking all of it away in the right order")
		c.delete(kept)
		c.eventuallyGone(kept)
		c.delete(conn)
		c.eventuallyGone(conn)
		m.stop()
		c.helm("uninstall", "another", "--namespace", operatorNamespace)
		c.kubectl("", "delete", "crd", "--selector", "app.kubernetes.io/name=grafana-secure-value-operator")
		c.kubectl("", "delete", "--namespace", operatorNamespace, keySecret, lease)
		Expect(c.remains()).To(BeEmpty())
		Expect(c.crds()).To(BeEmpty())
		Expect(c.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("is installed, upgraded, rolled back and uninstalled by Helm 3, and upgraded by Helm 4", func(ctx SpecContext) {
		c := newCluster(ctx)
		helm3 := func(args ...string) string {
			GinkgoHelper()
			out, err := c.command(c.kubeconfig, helm3Path, args...)
			Expect(err).NotTo(HaveOccurred(), out)
			return out
		}
		shortNames := func() []string { return c.crds()[crdOfValues].Spec.Names.ShortNames }
		helm3(withImage("install", release, olderChart(), "--create-namespace")...)
		Expect(shortNames()).To(Equal([]string{"older"}))
		m := c.run()
		c.synced()
		m.stop()
		key := c.fingerprintKey()

		c.grafana.ResetCalls()
		helm3(withImage("upgrade", release, chart())...)
		Expect(shortNames()).To(Equal([]string{"gsv"}))
		helm3("rollback", release, "1", "--namespace", operatorNamespace)
		Expect(shortNames()).To(Equal([]string{"older"}))
		c.upgrade()
		Expect(shortNames()).To(Equal([]string{"gsv"}))
		Expect(c.fingerprintKey().Data).To(Equal(key.Data))

		Expect(helm3("uninstall", release, "--namespace", operatorNamespace)).To(ContainSubstring("kept due to the resource policy"))
		Expect(c.remains()).To(HaveLen(6), "CRDs, fingerprint key and lease")
		helm3(withImage("install", "another", chart(), "--take-ownership")...)
		m = c.run()
		c.settled()
		Expect(c.writesToGrafana()).To(BeEmpty())
		Expect(c.requests(m.user, controlplane.Mark{}, denied)).To(BeEmpty())
	})

	It("with crds.keep=false takes all objects with it, which wait for a manager to clean up in Grafana", func(ctx SpecContext) {
		c := newCluster(ctx)
		c.install("--set", "crds.keep=false")
		m := c.run()
		conn, sv := c.synced()
		m.stop()

		c.uninstall()
		Eventually(func(g Gomega) {
			for _, o := range []client.Object{sv, conn} {
				g.Expect(c.exists(o)).To(BeTrue())
				g.Expect(o.GetDeletionTimestamp()).NotTo(BeNil())
			}
		}).Should(Succeed())
		Expect(c.remains()).To(ContainElement(ContainSubstring(crdOfValues)))
		Expect(c.grafana.Values(grafanaNS)).To(HaveLen(1))

		By("installing it again, which ends what waits")
		c.install()
		m = c.run()
		c.eventuallyGone(sv, conn)
		Eventually(c.crds).Should(HaveLen(2), "what was being deleted is still there")
		Expect(c.grafana.Values(grafanaNS)).To(BeEmpty())
		m.stop()

		By("upgrading, which makes the CRDs anew")
		c.upgrade()
		Expect(c.crds()).To(HaveLen(4))
		m = c.run()
		c.lives()
		m.stop()
	})

	DescribeTable("prints one command that applies the four objects needed next, and works as it is",
		func(ctx SpecContext, namespaces []string, args ...string) {
			c := newCluster(ctx)
			for _, namespace := range namespaces {
				c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
			}
			notes := c.install(args...)
			m := c.run()
			command := regexp.MustCompile(`(?s)\nkubectl apply .*?\nEOF\n`).FindString(notes)
			Expect(strings.Count(command, "\napiVersion: ")).To(Equal(4), notes)
			sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sm-api-key"}}
			if len(namespaces) > 0 {
				sv.Namespace = namespaces[0]
			}
			filled := strings.NewReplacer("glsa_...", token, "api-key: ...", "api-key: canary-1", "https://acme.grafana.net", c.grafanaURL)
			c.shell(block{"sh", filled.Replace(command)})
			c.eventuallySays(sv, v1alpha1.ReasonSynced)
			c.eventuallyStored("sm-api-key", "canary-1")
			Expect(c.requests(m.user, controlplane.Mark{}, denied)).To(BeEmpty())
			m.stop()
		},
		Entry("by default", nil),
		Entry("where ClusterGrafanaConnections alone are served", nil, "--set", "namespacedConnections=false"),
		Entry("where some namespaces are served", []string{"team-b"},
			"--set", "watch.namespaces={team-b},clusterID=cluster-1,metrics.enabled=false"),
	)
})

// runTest runs what the pod of helm test runs, and returns what it says.
func (c *cluster) runTest() string {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(yaml.Unmarshal([]byte(c.helm("get", "hooks", release, "--namespace", operatorNamespace)), pod)).To(Succeed())
	Expect(pod.Annotations).To(HaveKeyWithValue("helm.sh/hook", "test"))
	container := pod.Spec.Containers[0]
	Expect(container.Command).To(Equal([]string{"/manager"}))
	kubeconfig := c.kubeconfigOf(c.serviceAccount(pod.Namespace, pod.Spec.ServiceAccountName))
	cmd := exec.CommandContext(c.ctx, managerPath, append(container.Args, "--kubeconfig="+kubeconfig)...)
	cmd.Env = []string{"POD_NAMESPACE=" + pod.Namespace}
	out, err := cmd.Output()
	Expect(err).NotTo(HaveOccurred())
	return string(out)
}

// olderChart returns a copy of the chart that stands for the release before: of another version, with another CRD.
func olderChart() string {
	GinkgoHelper()
	older := filepath.Join(GinkgoT().TempDir(), "older")
	Expect(os.CopyFS(older, os.DirFS(chart()))).To(Succeed())
	replace(filepath.Join(older, "Chart.yaml"), "\nversion: 0.1.0\n", "\nversion: 0.0.9\n")
	replace(filepath.Join(older, "files", "crds", "grafana.securevalues.io_grafanasecurevalues.yaml"), "    - gsv\n", "    - older\n")
	return older
}

func replace(path, old, replacement string) {
	GinkgoHelper()
	content, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	Expect(string(content)).To(ContainSubstring(old))
	Expect(os.WriteFile(path, []byte(strings.Replace(string(content), old, replacement, 1)), 0o644)).To(Succeed())
}

func (c *cluster) createMany(objects int) {
	GinkgoHelper()
	const makers = 8
	var wait sync.WaitGroup
	for maker := range makers {
		wait.Go(func() {
			defer GinkgoRecover()
			for i := maker; i < objects; i += makers {
				c.create(value(fmt.Sprintf("value-%d", i)))
			}
		})
	}
	wait.Wait()
}

// eventuallyStoredMany waits until Grafana has that many values of at least the version.
func (c *cluster) eventuallyStoredMany(objects int, version int64) {
	GinkgoHelper()
	Eventually(func() int {
		n := 0
		for _, stored := range c.grafana.Values(grafanaNS) {
			if stored.Version >= version {
				n++
			}
		}
		return n
	}).Should(Equal(objects))
}

// eventuallyReconciled waits until the manager has reconciled that many objects since its start, and nothing is left to do.
func (c *cluster) eventuallyReconciled(m *manager, reader *rest.Config, objects int) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		of := `controller="grafanasecurevalue"`
		g.Expect(m.metric(reader, "controller_runtime_reconcile_total", of)).To(BeNumerically(">=", objects))
		g.Expect(m.metric(reader, "workqueue_depth", of)).To(BeZero())
		g.Expect(m.metric(reader, "controller_runtime_active_workers", of)).To(BeZero())
	}).Should(Succeed())
	c.settled()
}
