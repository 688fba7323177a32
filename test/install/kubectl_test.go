package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

var _ = Describe("install.yaml", func() {
	It("installs a manager that works, with the image it was made for, and is removed with kubectl", func(ctx SpecContext) {
		c := newCluster(ctx)
		out, err := c.command(c.kubeconfig, "make", "build-installer", "IMG=registry.example.com/operator:v1")
		Expect(err).NotTo(HaveOccurred(), out)
		file := filepath.Join(root, "dist", "install.yaml")
		content, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(content)).To(ContainSubstring("image: registry.example.com/operator:v1\n"))

		c.kubectl("", "apply", "--server-side", "-f", file)
		m := c.run()
		c.lives()
		m.stop()
		Expect(c.requests(m.user, controlplane.Mark{}, denied)).To(BeEmpty())

		By("applying it again, which changes nothing, and the fingerprint key least of all")
		key := c.fingerprintKey()
		Expect(key.Data).To(HaveKeyWithValue("key", HaveLen(fingerprint.KeySize)))
		Expect(key.Immutable).To(HaveValue(BeTrue()))
		Expect(c.kubectl("", "diff", "--server-side", "-f", file)).To(BeEmpty())
		c.kubectl("", "apply", "--server-side", "-f", file)
		Expect(c.fingerprintKey().Data).To(Equal(key.Data))
		empty := filepath.Join(GinkgoT().TempDir(), "key.yaml")
		for document := range strings.SplitSeq(string(content), "\n---\n") {
			if strings.Contains(document, "kind: Secret\n") {
				Expect(os.WriteFile(empty, []byte(document), 0o600)).To(Succeed())
			}
		}
		c.kubectl("", "apply", "-f", empty)
		Expect(c.fingerprintKey().Data).To(Equal(key.Data))
		out, err = c.command(c.kubeconfig, "kubectl", "replace", "-f", empty)
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("field is immutable"))
		Expect(c.fingerprintKey().Data).To(Equal(key.Data))

		c.kubectl("", "delete", "--wait=false", "-f", file)
		Eventually(c.crds).Should(BeEmpty())
	})
})

var _ = Describe("The chart with watch.namespaces", func() {
	It("is installed, runs and is removed by whoever has rights in the namespaces alone", func(ctx SpecContext) {
		c := newCluster(ctx)
		c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})
		c.kubectl("", "apply", "--server-side", "-k", "config/crd")
		installer, err := c.plane.AddUser("installer")
		Expect(err).NotTo(HaveOccurred())
		for _, namespace := range []string{team, operatorNamespace} {
			c.create(&rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "installer"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "installer"}},
			})
		}
		kubeconfig := c.kubeconfigOf(installer)

		out, err := c.tryHelm(kubeconfig, withImage("install", release, chart())...)
		Expect(err).To(HaveOccurred(), "the installer may do too much")
		Expect(out).To(ContainSubstring("forbidden"))
		out, err = c.tryHelm(kubeconfig, "install", release, chart(), "--namespace", operatorNamespace, "--values", rolesAlone())
		Expect(err).NotTo(HaveOccurred(), out)
		clusterRoles := &rbacv1.ClusterRoleList{}
		Expect(c.k8s.List(ctx, clusterRoles)).To(Succeed())
		for _, role := range clusterRoles.Items {
			Expect(role.Name).NotTo(ContainSubstring(release))
		}

		mark := c.plane.Mark()
		m := c.run()
		c.lives()
		stranger := value("stranger")
		stranger.Namespace = "default"
		c.create(stranger)
		c.settled()
		Expect(c.exists(stranger)).To(BeTrue())
		Expect(stranger.Status.Conditions).To(BeEmpty())
		m.stop()
		Expect(c.requests(m.user, mark, denied)).To(BeEmpty())

		out, err = c.tryHelm(kubeconfig, "uninstall", release, "--namespace", operatorNamespace)
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(c.remains()).To(ConsistOf(keySecret, lease, "rolebinding.rbac.authorization.k8s.io/installer"))
	})
})

// rolesAlone returns a file with the values that the README of the chart gives for Roles alone, for the team's namespace.
func rolesAlone() string {
	GinkgoHelper()
	blocks := blocksOf(filepath.Join(chart(), "README.md"), "With Roles alone")
	Expect(blocks).To(HaveLen(2), "the values and the command")
	Expect(blocks[1].code).To(ContainSubstring("-f values.yaml"))
	Expect(blocks[0].code).To(ContainSubstring("[team-a, team-b]"))
	path := filepath.Join(GinkgoT().TempDir(), "values.yaml")
	Expect(os.WriteFile(path, []byte(strings.Replace(blocks[0].code, "[team-a, team-b]", "["+team+"]", 1)), 0o644)).To(Succeed())
	return path
}

var _ = Describe("The README", func() {
	DescribeTable("leads from nothing to a value in Grafana", func(ctx SpecContext, way string) {
		c := newCluster(ctx)
		readme := filepath.Join(root, "README.md")
		c.shell(blocksOf(readme, way)...)
		m := c.run()

		quickstart := blocksOf(readme, "Quickstart")
		c.grafana.AddToken("glsa_...")
		lines := 0
		for _, block := range quickstart {
			if _, objects, found := strings.Cut(block.code, "<<'EOF'\n"); found {
				lines += strings.Count(objects, "\n") - 1
				Expect(objects).To(ContainSubstring("url: https://acme.grafana.net\n"))
				block.code = strings.Replace(block.code, "https://acme.grafana.net", c.grafanaURL, 1)
			}
			c.shell(block)
		}
		Expect(lines).To(And(BeNumerically(">", 0), BeNumerically("<=", 20)), "lines of YAML")
		sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sm-api-key"}}
		c.eventuallySays(sv, v1alpha1.ReasonSynced)
		c.eventuallyStored("sm-api-key", "...")
		m.stop()
	},
		Entry("with helm", "With Helm"),
		Entry("with kubectl", "With kubectl"),
	)
})

// block is a code block of a page.
type block struct {
	language, code string
}

// blocksOf returns the code blocks in the section of that heading.
func blocksOf(path, heading string) []block {
	GinkgoHelper()
	content, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	_, section, found := regexpCut(string(content), `(?m)^#+ `+regexp.QuoteMeta(heading)+`$`)
	Expect(found).To(BeTrue(), "no section %q in %s", heading, path)
	section, _, _ = regexpCut(section, `(?m)^#+ [A-Z]`)
	var blocks []block
	for _, match := range regexp.MustCompile("(?ms)^( *)```([a-z]+)\n(.*?)^ *```$").FindAllStringSubmatch(section, -1) {
		code := strings.ReplaceAll("\n"+match[3], "\n"+match[1], "\n")[1:]
		blocks = append(blocks, block{language: match[2], code: code})
	}
	Expect(blocks).NotTo(BeEmpty(), "no code in section %q of %s", heading, path)
	return blocks
}

func regexpCut(s, pattern string) (before, after string, found bool) {
	at := regexp.MustCompile(pattern).FindStringIndex(s)
	if at == nil {
		return s, "", false
	}
	return s[:at[0]], s[at[1]:], true
}

// shell runs blocks of shell commands in the root of the project. Each command must succeed.
func (c *cluster) shell(blocks ...block) {
	GinkgoHelper()
	for _, block := range blocks {
		Expect(block.language).To(Equal("sh"))
		out, err := c.command(c.kubeconfig, "sh", "-e", "-c", block.code)
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", block.code, out)
	}
}
