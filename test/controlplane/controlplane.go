// Package controlplane starts a real kube-apiserver and etcd for tests and the demo, and reads the audit log of what was asked.
package controlplane

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Version is the Kubernetes version that the control plane is of. hack/controlplane gets or builds it.
const Version = "1.37.2"

// auditPolicy records who did what to which object, and no bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// Options is what a control plane is started with.
type Options struct {
	// CRDDirectories hold the CustomResourceDefinitions to install. A missing one is an error.
	CRDDirectories []string
}

// ControlPlane is a running kube-apiserver and etcd.
type ControlPlane struct {
	environment *envtest.Environment
	dir         string // of the audit policy and log
	config      *rest.Config
}

// Start starts a control plane. It takes some four seconds. Stop must follow.
func Start(opts Options) (*ControlPlane, error) {
	assets, err := assetsDirectory()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gsv-controlplane-")
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{dir: dir, environment: &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     opts.CRDDirectories,
		ErrorIfCRDPathMissing: true,
	}}
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.environment.ControlPlane.GetAPIServer().Configure().
		Set("authorization-mode", "RBAC").
		Set("audit-policy-file", policy).
		Set("audit-log-path", c.auditLog()).
		Set("audit-log-mode", "blocking") // what was answered is in the log
	c.config, err = c.environment.Start()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start kube-apiserver and etcd: %w", err), c.Stop())
	}
	return c, nil
}

// Stop ends the control plane and removes what it has written.
func (c *ControlPlane) Stop() error {
	return errors.Join(c.environment.Stop(), os.RemoveAll(c.dir))
}

// Config returns the configuration of a client that may do everything.
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the same for kubectl.
func (c *ControlPlane) Kubeconfig() []byte { return c.environment.KubeConfig }

// AddUser returns the configuration of a client that is known to the API server, and to its audit log, under that name.
func (c *ControlPlane) AddUser(name string, groups ...string) (*rest.Config, error) {
	user, err := c.environment.AddUser(envtest.User{Name: name, Groups: groups}, rest.CopyConfig(c.config))
	if err != nil {
		return nil, err
	}
	return user.Config(), nil
}

// KubectlPath returns the kubectl that belongs to the control plane.
func (c *ControlPlane) KubectlPath() string {
	return filepath.Join(c.environment.BinaryAssetsDirectory, "kubectl")
}

// Mark is a point in the audit log.
type Mark int64

// Mark returns the present end of the audit log.
func (c *ControlPlane) Mark() Mark {
	info, err := os.Stat(c.auditLog())
	if err != nil {
		return 0
	}
	return Mark(info.Size())
}

// AuditEvent is a request that was answered.
type AuditEvent struct {
	User        string
	Verb        string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	Code        int
	UserAgent   string
	Time        time.Time
}

// Audit returns the requests that were answered since mark, in order.
func (c *ControlPlane) Audit(since Mark) ([]AuditEvent, error) {
	f, err := os.Open(c.auditLog())
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(int64(since), 0); err != nil {
		return nil, err
	}
	var events []AuditEvent
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var line struct {
			Verb, Stage string
			UserAgent   string
			User        struct{ Username string }
			ObjectRef   struct {
				Resource, Subresource, Namespace, Name string
			}
			ResponseStatus struct{ Code int }
			StageTimestamp time.Time
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		if line.Stage != "ResponseComplete" {
			continue
		}
		events = append(events, AuditEvent{
			User: line.User.Username, Verb: line.Verb, Resource: line.ObjectRef.Resource, Subresource: line.ObjectRef.Subresource,
			Namespace: line.ObjectRef.Namespace, Name: line.ObjectRef.Name, Code: line.ResponseStatus.Code,
			UserAgent: line.UserAgent, Time: line.StageTimestamp,
		})
	}
	return events, lines.Err()
}

func (c *ControlPlane) auditLog() string { return filepath.Join(c.dir, "audit.log") }
