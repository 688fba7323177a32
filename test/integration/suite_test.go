// Package integration specifies the behaviour of the whole manager against a real kube-apiserver and etcd, and the fake
// Grafana.
package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	operatorNamespace = "grafana-secure-value-operator-system"
	managerAccount    = "grafana-secure-value-operator-controller-manager"
	managerUser       = "system:serviceaccount:" + operatorNamespace + ":" + managerAccount
	clusterID         = "suite-cluster"

	// long has a container begin before others, so that no process is left with it at the end.
	long = SpecPriority(1)
)

var (
	plane         *controlplane.ControlPlane
	k8s           client.Client // the specs' own, which reads live
	managerConfig *rest.Config
	stopManager   func()
)

func TestIntegration(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(2 * time.Minute)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	if suite, _ := GinkgoConfiguration(); suite.ParallelTotal > 1 {
		t.Chdir(os.Getenv(directoryEnv))
		RunSpecs(t, "integration")
		return
	}
	table := filepath.Join(t.TempDir(), "rights")
	t.Setenv(rightsTableEnv, table)
	if n := os.Getenv(processesEnv); n != "" {
		inProcesses(t, n)
	} else {
		RunSpecs(t, "integration")
	}
	lines, err := os.ReadFile(table)
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(lines)) {
		t.Attr("rights", strings.TrimSuffix(line, "\n"))
	}
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(watchedLog())
	klog.SetLogger(watchedLog())
	plane, k8s = startPlane(ctx)
	DeferCleanup(func() { stopPlane(plane) })
	managerConfig = managerOf(ctx, plane)

	startManager()
	DeferCleanup(func() { stopManager() })
})

// startPlane starts a control plane with our kinds, the operator's namespace, the roles of the manager and an observer, and returns a
// client of its administrator, which reads live. stopPlane must follow.
func startPlane(ctx context.Context) (*controlplane.ControlPlane, client.Client) {
	GinkgoHelper()
	started, err := controlplane.Start(controlplane.Options{
		CRDDirectories: []string{filepath.Join("..", "..", "config", "crd", "bases")},
	})
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(started.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	for _, o := range renderedRights(ctx, started) {
		Expect(c.Create(ctx, o)).To(Succeed())
	}
	observe(ctx, started)
	return started, c
}

func stopPlane(started *controlplane.ControlPlane) {
	GinkgoHelper()
	defer func() { Expect(started.Stop()).To(Succeed()) }()
	used, denied := countRights(started)
	tally{Used: used, Denied: denied, Reasons: stopObserving(started)}.hand()
	scanObjects(started)
	Expect(leaked()).To(BeEmpty())
}

// startManager starts the manager as its ServiceAccount. stopManager ends it.
func startManager() {
	GinkgoHelper()
	var elected <-chan struct{}
	elected, stopManager = electManager(managerConfig, func(*operator.Options) {})
	Eventually(elected).Should(BeClosed())
	managerLeads = time.Now()
}

// managerLeads is when the manager of this process began to lead.
var managerLeads time.Time

// runManager starts a manager, with the suite's options as change leaves them. It returns what ends it, which may be called again.
func runManager(config *rest.Config, change func(*operator.Options)) (stop func()) {
	GinkgoHelper()
	_, stop = electManager(config, change)
	return stop
}

// electManager is runManager, and returns what is closed once the manager leads.
func electManager(config *rest.Config, change func(*operator.Options)) (elected <-chan struct{}, stop func()) {
	GinkgoHelper()
	options := operator.Options{
		MetricsBindAddress:      "0",
		HealthProbeBindAddress:  "0",
		MaxConcurrentReconciles: 64,
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
	return mgr.Elected(), sync.OnceFunc(func() {
		cancel()
		Expect(<-ended).To(Succeed())
	})
}
