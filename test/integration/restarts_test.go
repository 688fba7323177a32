package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// ledger stands before a Grafana, and has each value that it took, by name, in the order in which they were. A write has its effect at
// once, and its answer a while later, so that there is always one under way.
type ledger struct {
	grafana *grafanatest.Server

	mu    sync.Mutex
	taken map[string][]string
}

// answerTime is how long the answer to a write takes.
const answerTime = 50 * time.Millisecond

// newLedger starts one, before w's own Grafana.
func newLedger(w *world) *ledger {
	GinkgoHelper()
	l := &ledger{grafana: w.grafana, taken: map[string][]string{}}
	server := httptest.NewServer(l)
	DeferCleanup(server.Close)
	w.url = server.URL
	return l
}

func (l *ledger) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		l.grafana.ServeHTTP(rw, r)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	var body struct {
		Metadata struct{ Name string }
		Spec     struct{ Value string }
	}
	if err := json.Unmarshal(content, &body); err != nil {
		panic(http.ErrAbortHandler)
	}
	answer := httptest.NewRecorder()
	l.mu.Lock() // or the order would not be that of their effects
	l.grafana.ServeHTTP(answer, r)
	if answer.Code < http.StatusBadRequest {
		l.taken[body.Metadata.Name] = append(l.taken[body.Metadata.Name], body.Spec.Value)
	}
	l.mu.Unlock()
	select {
	case <-time.After(answerTime):
	case <-r.Context().Done():
	}
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes()) // the caller may be gone
}

// of returns the values taken under a name.
func (l *ledger) of(name string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.taken[name])
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, taken := range l.taken {
		n += len(taken)
	}
	return n
}

// rotator changes a Secret again and again. Its values are numbered.
type rotator struct {
	*world

	name   string // of the object, of the Secret, and in Grafana
	given  int    // values so far
	newest string // version of the Secret
}

func (r *rotator) value(n int) string { return fmt.Sprintf("canary of %s, number %04d", r.name, n) }

// rotate gives the Secret its next value.
func (r *rotator) rotate() {
	GinkgoHelper()
	r.given++
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: r.name}}
	_, err := controllerutil.CreateOrUpdate(r.ctx, k8s, secret, func() error {
		secret.Data = map[string][]byte{"key": []byte(r.value(r.given))}
		return nil
	})
	Expect(err).NotTo(HaveOccurred())
	r.newest = secret.ResourceVersion
}

// inSync reports whether status says that the latest value is in Grafana.
func (r *rotator) inSync() bool {
	sv := r.world.value(r.name)
	err := k8s.Get(r.ctx, client.ObjectKeyFromObject(sv), sv)
	return err == nil && len(sv.Status.Targets) > 0 && sv.Status.Targets[0].Source.ResourceVersion == r.newest
}

// restarts is how often the manager is restarted: RESTARTS, or ten times. `make soak-restarts` does it fifty times.
func restarts() int {
	GinkgoHelper()
	given := os.Getenv("RESTARTS")
	if given == "" {
		return 10
	}
	n, err := strconv.Atoi(given)
	Expect(err).NotTo(HaveOccurred(), "RESTARTS")
	return n
}

var _ = Describe("Rolling restarts", long, func() {
	// As a Deployment does it: the next manager is ready before the leader is stopped.
	It("under rotations lose none and repeat none", func(ctx SpecContext) {
		const takeover = time.Minute
		w := newWorld(ctx)
		stopManager()
		DeferCleanup(startManager) // and then the world is cleaned up
		l := newLedger(w)
		w.create(w.connection(connectionRef))

		// Some wait for status to show a value before they change it again, so each of theirs must be written, and once. The others do not
		// wait: of their values some are never seen, and the rest must be written in order, and once.
		var waiting, hasty []*rotator
		for i := range 8 {
			r := &rotator{world: w, name: fmt.Sprintf("value-%d", i)}
			if i < 6 {
				waiting = append(waiting, r)
			} else {
				hasty = append(hasty, r)
			}
		}
		all := slices.Concat(waiting, hasty)
		leader := startProcess()
		for _, r := range all {
			r.rotate()
			sv := w.value(r.name)
			sv.Spec.ValueFrom.SecretKeyRef.Name = r.name
			w.create(sv)
		}
		for _, r := range all {
			Eventually(r.inSync).WithTimeout(takeover).Should(BeTrue())
		}

		loadCtx, stopLoad := context.WithCancel(ctx)
		var load sync.WaitGroup
		run := func(step func()) {
			load.Go(func() {
				defer GinkgoRecover()
				for loadCtx.Err() == nil {
					step()
				}
			})
		}
		DeferCleanup(func() { stopLoad(); load.Wait() })
		for _, r := range waiting {
			run(func() {
				r.rotate()
				Eventually(r.inSync).WithTimeout(takeover).Should(BeTrue())
			})
		}
		for _, r := range hasty {
			run(func() { r.rotate() })
		}

		for range restarts() {
			next := startProcess()
			Eventually(next.ready).WithArguments(ctx).WithTimeout(takeover).Should(BeTrue())
			leader.signal(syscall.SIGTERM)
			Eventually(leader.ended).WithTimeout(takeover).Should(BeClosed())
			Expect(leader.err).NotTo(HaveOccurred(), leader.out.String())
			leader = next
			before := l.count() // the load goes on once there is another leader
			Eventually(l.count).WithTimeout(takeover).Should(BeNumerically(">=", before+len(all)))
		}
		stopLoad()
		load.Wait()

		for _, r := range all {
			Eventually(r.inSync).WithTimeout(takeover).Should(BeTrue())
			sv := w.value(r.name)
			w.eventuallySynced(sv)
			stored := w.stored(r.name)
			Expect(string(stored.Value)).To(Equal(r.value(r.given)))
			Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
			Expect(stored.Version).To(Equal(int64(len(l.of(r.name)))))
		}
		for _, r := range waiting {
			var want []string
			for n := range r.given {
				want = append(want, r.value(n+1))
			}
			Expect(l.of(r.name)).To(Equal(want))
		}
		for _, r := range hasty {
			taken := l.of(r.name)
			Expect(slices.IsSortedFunc(taken, strings.Compare)).To(BeTrue(), "an older value after a newer one: %v", taken)
			Expect(slices.Compact(slices.Clone(taken))).To(Equal(taken), "a value twice")
		}
	})
})
