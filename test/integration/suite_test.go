// Package integration holds the behaviour of the whole manager against a real kube-apiserver and etcd, and the stand-in for
// Grafana.
package integration

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	managerUser       = "suite-manager"
	operatorNamespace = "operator-system"
	clusterID         = "suite-cluster"
)

var (
	plane         *controlplane.ControlPlane
	k8s           client.Client // the specs' own, which reads live
	managerConfig *rest.Config
	stopManager   func()
)

func TestIntegration(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	RunSpecs(t, "integration")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(GinkgoLogr)
	plane, k8s = startPlane(ctx)
	DeferCleanup(func() { Expect(plane.Stop()).To(Succeed()) })
	var err error
	managerConfig, err = plane.AddUser(managerUser, "system:masters")
	Expect(err).NotTo(HaveOccurred())

	startManager()
	DeferCleanup(func() { stopManager() })
})

// startPlane starts a control plane with our kinds and the operator's namespace, and returns a client of its administrator, which
// reads live. The caller must stop it.
func startPlane(ctx context.Context) (*controlplane.ControlPlane, client.Client) {
	GinkgoHelper()
	started, err := controlplane.Start(controlplane.Options{
		CRDDirectories: []string{filepath.Join("..", "..", "config", "crd", "bases")},
	})
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(started.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	return started, c
}

// startManager starts the manager as the suite's user. stopManager ends it.
func startManager() {
	GinkgoHelper()
	stopManager = runManager(managerConfig, func(*operator.Options) {})
}

// runManager starts a manager, with the suite's options as change leaves them. It returns what ends it, which may be called again.
func runManager(config *rest.Config, change func(*operator.Options)) (stop func()) {
	GinkgoHelper()
	options := operator.Options{
		MetricsBindAddress:      "0",
		HealthProbeBindAddress:  "0",
		MaxConcurrentReconciles: 16,
		OperatorNamespace:       operatorNamespace,
		ClusterID:               clusterID,
		NamespacedConnections:   true,
		Version:                 "test",
		SkipNameValidation:      true,
	}
	change(&options)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it outlives the spec that starts it
	mgr, err := operator.New(ctx, config, options)
	if err != nil {
		cancel()
	}
	Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		Expect(<-ended).To(Succeed())
	})
}
