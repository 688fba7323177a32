// Package controlplane runs a real kube-apiserver and etcd for tests and the demo, and reports from the audit log who sent which request.
//
// It is not below test/internal, because tests of api and cmd import it, and the program in hack/envtest imports its assets: Go allows an import
// from test/internal only below test, and what is below internal is the product.
package controlplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

// Options of a control plane. The zero value starts one without custom resources.
type Options struct {
	// CRDDirectories are directories of CustomResourceDefinitions, all of which are served once Start returns.
	CRDDirectories []string
}

// ControlPlane is a running kube-apiserver with its etcd. It runs no controllers: nothing collects garbage, ends namespaces or
// makes service accounts. RBAC is on, admission is the API server's own without ServiceAccount.
type ControlPlane struct {
	env     envtest.Environment
	dir     string // of the audit policy and log, and the kubeconfig
	log     string
	kubectl string
}

// Start starts a control plane with the binaries that assets.Find returns. It takes some four seconds. The caller must call Stop.
func Start(options Options) (*ControlPlane, error) {
	binaries, err := assets.Find()
	if err != nil {
		return nil, err
	}
	c, err := start(options, binaries)
	if err != nil { // another process may have taken one of its ports first
		var again error
		if c, again = start(options, binaries); again != nil {
			return nil, errors.Join(err, again)
		}
	}
	return c, nil
}

// StartForTest starts a control plane that ends with the test.
func StartForTest(t testing.TB, options Options) *ControlPlane {
	t.Helper()
	c, err := Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func start(options Options, binaries string) (*ControlPlane, error) {
	dir, err := os.MkdirTemp("", "controlplane-")
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{
		dir:     dir,
		log:     filepath.Join(dir, "audit.log"),
		kubectl: filepath.Join(binaries, "kubectl"),
		env: envtest.Environment{
			CRDDirectoryPaths:     options.CRDDirectories,
			ErrorIfCRDPathMissing: true,
			BinaryAssetsDirectory: binaries,
			UseExistingCluster:    new(false),
			// On a busy machine it takes longer than the 20 s after which another one would be tried, from the beginning.
			ControlPlaneStartTimeout: 2 * time.Minute,
		},
	}
	if err := c.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the control plane: %w", err), c.Stop())
	}
	return c, nil
}

func (c *ControlPlane) start() error {
	policy := filepath.Join(c.dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	c.env.ControlPlane.GetAPIServer().Configure().
		Set("audit-policy-file", policy).
		Set("audit-log-path", c.log).
		Set("audit-log-maxsize", "0"). // else it begins anew after 100 MB, and a Mark means nothing
		Set("audit-log-mode", "blocking")
	if _, err := c.env.Start(); err != nil {
		return err
	}
	return os.WriteFile(c.KubeconfigPath(), c.env.KubeConfig, 0o600)
}

// Stop ends the processes and removes their data.
func (c *ControlPlane) Stop() error {
	return errors.Join(c.env.Stop(), os.RemoveAll(c.dir))
}

// Config returns what a client of a cluster administrator needs. The caller may change it.
func (c *ControlPlane) Config() *rest.Config {
	return rest.CopyConfig(c.env.Config)
}

// KubeconfigPath returns the kubeconfig file of a cluster administrator. Stop removes it.
func (c *ControlPlane) KubeconfigPath() string {
	return filepath.Join(c.dir, "kubeconfig")
}

// KubectlPath returns the kubectl that belongs to this API server.
func (c *ControlPlane) KubectlPath() string {
	return c.kubectl
}

// AddUser returns what a client needs to act as a user of that name, by which Audit distinguishes its requests.
// The user may do what RBAC grants to it and its groups: everything, as one of system:masters. Its client has no rate limit.
func (c *ControlPlane) AddUser(name string, groups ...string) (*rest.Config, error) {
	user, err := c.env.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, fmt.Errorf("add user %q: %w", name, err)
	}
	return user.Config(), nil
}
