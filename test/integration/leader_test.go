package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// managerEnv makes this program a manager and no test: its value is "<path of a kubeconfig> <address of the probes>".
const managerEnv = "SUITE_MANAGER"

// TestMain runs the tests, or a manager in a process of its own.
func TestMain(m *testing.M) {
	kubeconfig, probes, isManager := strings.Cut(os.Getenv(managerEnv), " ")
	if !isManager {
		os.Exit(m.Run())
	}
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err == nil {
		config.QPS = -1 // as that of ctrl.GetConfig
		err = operator.Run(ctrl.SetupSignalHandler(), config, operator.Options{
			MetricsBindAddress: "0", HealthProbeBindAddress: probes, LeaderElect: true, MaxConcurrentReconciles: 64,
			OperatorNamespace: operatorNamespace, ClusterID: clusterID, NamespacedConnections: true, Version: "test",
			RotationPeriod: time.Nanosecond, // they rotate as fast as they can
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// managerProcess is a manager in a process of its own, which takes part in the election of a leader.
type managerProcess struct {
	cmd    *exec.Cmd
	out    *bytes.Buffer
	probes string
	ended  chan struct{}
	err    error // once ended
}

func startProcess() *managerProcess {
	GinkgoHelper()
	p := &managerProcess{out: &bytes.Buffer{}, ended: make(chan struct{}), probes: freeAddress()}
	p.cmd = exec.Command(os.Args[0]) //nolint:noctx // it ends with the spec, by its clean-up
	p.cmd.Env = append(os.Environ(), managerEnv+"="+plane.KubeconfigPath()+" "+p.probes)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	Expect(p.cmd.Start()).To(Succeed())
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	DeferCleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *managerProcess) signal(s syscall.Signal) {
	GinkgoHelper()
	Expect(p.cmd.Process.Signal(s)).To(Succeed())
}

// ready reports whether the readiness probe of the process succeeds.
func (p *managerProcess) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.probes+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode == http.StatusOK
}

// held is a write that has arrived at Grafana and has neither effect nor answer until it is released.
type held struct {
	arrived chan struct{}
	release func()
	done    chan struct{} // it has had its effect
	left    string        // the value in Grafana then
}

// hold holds the next write of that name.
func (f *front) hold(name string) *held {
	released := make(chan struct{})
	h := &held{arrived: make(chan struct{}), done: make(chan struct{}), release: sync.OnceFunc(func() { close(released) })}
	DeferCleanup(h.release)
	f.meet(name, func(rw http.ResponseWriter, _ *http.Request, effect func() *httptest.ResponseRecorder) {
		close(h.arrived)
		<-released
		answer := effect()
		stored, _ := f.grafana.Value(grafanaNS, name)
		h.left = string(stored.Value)
		close(h.done)
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes()) // the caller may be gone
	})
	return h
}

var _ = Describe("A leader", long, func() {
	It("that is paused, stopped or killed in the middle of a write leaves every value right", func(ctx SpecContext) {
		w := newWorld(ctx)
		stopManager()
		DeferCleanup(startManager)       // and then the world is cleaned up
		const failover = 2 * time.Minute // a lease lasts 15 s
		f := newFront(w)
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = "5s"
		w.create(conn)
		sv := w.value("api-key")
		rests := func(value string) {
			GinkgoHelper()
			Eventually(func(g Gomega) {
				stored, there := w.grafana.Value(grafanaNS, "api-key")
				g.Expect(there).To(BeTrue())
				g.Expect(string(stored.Value)).To(Equal(value))
				g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
				g.Expect(describe(sv.Status.ObservedGeneration, sv.Status.Conditions)).To(ContainSubstring("True"))
				g.Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
			}).WithTimeout(failover).Should(Succeed())
		}
		rotate := func(value string) { w.secret("source", map[string]string{"key": value}) }

		first := startProcess()
		rotate("canary-1")
		w.create(sv)
		rests("canary-1")

		By("being paused, and losing the lease meanwhile: the late write is found and corrected")
		second := startProcess()
		late := f.hold("api-key")
		rotate("canary-2")
		Eventually(late.arrived).Should(BeClosed())
		first.signal(syscall.SIGSTOP)
		rotate("canary-3")
		rests("canary-3")
		late.release()
		Eventually(late.done).Should(BeClosed())
		Expect(late.left).To(Equal("canary-2"), "the write was not late")
		rests("canary-3")
		first.signal(syscall.SIGCONT)
		Eventually(first.ended).WithTimeout(failover).Should(BeClosed())
		Expect(first.err).To(HaveOccurred(), "it goes on without the lease")

		By("stopping: the write and its status are finished, and nothing is written again")
		third := startProcess()
		last := f.hold("api-key")
		rotate("canary-4")
		Eventually(last.arrived).Should(BeClosed())
		w.grafana.ResetCalls()
		second.signal(syscall.SIGTERM)
		Consistently(second.ended).WithTimeout(time.Second).ShouldNot(BeClosed(), "it did not wait for the write")
		last.release()
		Eventually(second.ended).WithTimeout(failover).Should(BeClosed())
		Expect(second.err).NotTo(HaveOccurred(), second.out.String())
		rests("canary-4")
		Expect(w.writesTo("api-key")).To(Equal(1))

		By("being killed: the next one finds out what happened to the write")
		killed := f.hold("api-key")
		rotate("canary-5")
		Eventually(killed.arrived).WithTimeout(failover).Should(BeClosed())
		third.signal(syscall.SIGKILL)
		Eventually(third.ended).Should(BeClosed())
		w.grafana.ResetCalls()
		killed.release()
		Eventually(killed.done).Should(BeClosed())
		startProcess()
		rests("canary-5")
		Expect(w.writesTo("api-key")).To(BeNumerically("<=", 2))
	})
})
