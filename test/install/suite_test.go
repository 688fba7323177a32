// Package install tests that what is installed works: by the real helm and kubectl into a real kube-apiserver, where the real manager
// then runs as the installed ServiceAccount, with the flags of the installed Deployment.
package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

var (
	root        string // a copy of what the specs install
	helmPath    string
	helm3Path   string
	managerPath string
)

func TestInstall(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(5 * time.Minute) // which a busy machine needs for 1,000 objects
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "install")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(GinkgoLogr)
	var err error
	helmPath, err = helm.Helm()
	Expect(err).NotTo(HaveOccurred())
	helm3Path, err = helm.Helm3()
	Expect(err).NotTo(HaveOccurred())
	project, err := helm.Root()
	Expect(err).NotTo(HaveOccurred())

	managerPath = filepath.Join(GinkgoT().TempDir(), "manager")
	build := exec.CommandContext(ctx, "go", "build", "-o", managerPath, "./cmd")
	build.Dir, build.Env = project, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", out)

	// By the copies go test sees which files the specs depend on.
	root = GinkgoT().TempDir()
	for _, path := range []string{"charts", "config", "hack/helm-unittest", "api", "cmd", "internal"} {
		Expect(os.CopyFS(filepath.Join(root, path), os.DirFS(filepath.Join(project, path)))).To(Succeed())
	}
	for _, path := range []string{"Makefile", "README.md", "SECURITY.md"} {
		copyFile(filepath.Join(project, path), filepath.Join(root, path))
	}
})

func copyFile(from, to string) {
	GinkgoHelper()
	content, err := os.ReadFile(from)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(to, content, 0o644)).To(Succeed())
}
