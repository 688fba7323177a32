// Package integration holds the behaviour of the whole manager against a real kube-apiserver and etcd, and the stand-in for
// Grafana.
package integration

import (
	"context"
	"path/filepath"
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
	var err error
	plane, err = controlplane.Start(controlplane.Options{
		CRDDirectories: []string{filepath.Join("..", "..", "config", "crd", "bases")},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(plane.Stop()).To(Succeed()) })

	k8s, err = client.New(plane.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	managerConfig, err = plane.AddUser(managerUser, "system:masters")
	Expect(err).NotTo(HaveOccurred())

	startManager()
	DeferCleanup(func() { stopManager() })
})

// startManager starts the manager as the suite's user. stopManager ends it.
func startManager() {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it outlives the spec that starts it
	config := rest.CopyConfig(managerConfig)
	config.QPS = -1
	mgr, err := operator.New(ctx, config, operator.Options{
		MetricsBindAddress:      "0",
		HealthProbeBindAddress:  "0",
		MaxConcurrentReconciles: 16,
		OperatorNamespace:       operatorNamespace,
		ClusterID:               clusterID,
		NamespacedConnections:   true,
		Version:                 "test",
		SkipNameValidation:      true,
	})
	Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopManager = func() {
		cancel()
		Expect(<-ended).To(Succeed())
		stopManager = func() {}
	}
}
