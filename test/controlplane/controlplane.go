// Package controlplane runs a real kube-apiserver and etcd for tests and the demo, and tells from the audit log who asked
// the API server for what.
package controlplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	dir     string // of the audit policy and log
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
	if err != nil { // somebody may have taken one of its ports before it could
		var again error
		if c, again = start(options, binaries); again != nil {
			return nil, errors.Join(err, again)
		}
	}
	return c, nil
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
		Set("audit-log-maxsize", "0"). // else it begins anew after 100 MB, and marks mean nothing
		Set("audit-log-mode", "blocking")
	_, err := c.env.Start()
	return err
}

// Stop ends the processes and removes their data.
func (c *ControlPlane) Stop() error {
	return errors.Join(c.env.Stop(), os.RemoveAll(c.dir))
}

// Config returns what a client of a cluster administrator needs. The caller may change it.
func (c *ControlPlane) Config() *rest.Config {
	return rest.CopyConfig(c.env.Config)
}

// Kubeconfig returns the contents of a kubeconfig file of a cluster administrator.
func (c *ControlPlane) Kubeconfig() []byte {
	return c.env.KubeConfig
}

// KubectlPath returns the kubectl that belongs to this API server.
func (c *ControlPlane) KubectlPath() string {
	return c.kubectl
}

// AddUser returns what a client needs to act as a user of that name, by which Audit tells its requests from those of others.
// The user may do what RBAC grants to it and its groups: everything, as one of system:masters. Its client has no rate limit.
func (c *ControlPlane) AddUser(name string, groups ...string) (*rest.Config, error) {
	user, err := c.env.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, fmt.Errorf("add user %q: %w", name, err)
	}
	return user.Config(), nil
}
