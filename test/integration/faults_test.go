package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// front stands before a Grafana and lets the writes of one name meet something. Whatever it meets comes with what the Grafana would
// have answered.
type front struct {
	grafana *grafanatest.Server

	mu    sync.Mutex
	meets map[string]meeting // by name; each once
	met   []string
}

type meeting func(rw http.ResponseWriter, r *http.Request, effect func() *httptest.ResponseRecorder)

// newFront starts one, before w's own Grafana.
func newFront(w *world) *front {
	GinkgoHelper()
	f := &front{grafana: w.grafana, meets: map[string]meeting{}}
	server := httptest.NewServer(f)
	DeferCleanup(server.Close)
	w.url = server.URL
	return f
}

// meet has the next write of that name meet something.
func (f *front) meet(name string, m meeting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meets[name] = m
}

func (f *front) meetings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.met
}

func (f *front) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	f.mu.Lock()
	var m meeting
	for name, candidate := range f.meets {
		if r.Method == http.MethodPut && path.Base(r.URL.Path) == name ||
			r.Method == http.MethodPost && bytes.Contains(content, fmt.Appendf(nil, "%q:%q", "name", name)) {
			m = candidate
			f.met = append(f.met, name)
			delete(f.meets, name)
			break
		}
	}
	f.mu.Unlock()
	if m == nil {
		f.grafana.ServeHTTP(rw, r)
		return
	}
	m(rw, r, func() *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		f.grafana.ServeHTTP(answer, r)
		return answer
	})
}

// reset cuts the connection, with a reset where that is asked for, after it has sent what is given.
func reset(rw http.ResponseWriter, sent []byte, hard bool) {
	conn, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = conn.Write(sent) // the caller may be gone
	if tcp, ok := conn.(*net.TCPConn); ok && hard {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// raw is an answer as it goes over the wire.
func raw(answer *httptest.ResponseRecorder) []byte {
	var buf bytes.Buffer
	response := answer.Result()
	response.ContentLength = int64(answer.Body.Len())
	if err := response.Write(&buf); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// says answers in place of the Grafana, which has done what was asked if effect is set.
func says(code int, contentType, body string, effect bool, header ...string) meeting {
	return func(rw http.ResponseWriter, _ *http.Request, do func() *httptest.ResponseRecorder) {
		if effect {
			do()
		}
		rw.Header().Set("Content-Type", contentType)
		for i := 0; i < len(header); i += 2 {
			rw.Header().Set(header[i], header[i+1])
		}
		rw.WriteHeader(code)
		_, _ = rw.Write([]byte(body))
	}
}

// faultsOfAnswers are the ways in which a write may end badly, by the name of the value that meets each.
func faultsOfAnswers(elsewhere string) map[string]meeting {
	const html, json = "text/html", "application/json"
	faults := map[string]meeting{
		"reset-before-effect": func(rw http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) {
			reset(rw, nil, true)
		},
		"closed-before-effect": func(rw http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) {
			reset(rw, nil, false)
		},
		"slow-headers": func(_ http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
			do()
			<-r.Context().Done()
		},
		"dripping-body": func(rw http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
			answer := do()
			rw.Header().Set("Content-Type", json)
			rw.WriteHeader(answer.Code)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for _, b := range answer.Body.Bytes() {
				_, _ = rw.Write([]byte{b})
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
				}
			}
		},
		"huge-body": func(rw http.ResponseWriter, _ *http.Request, do func() *httptest.ResponseRecorder) {
			answer := do()
			rw.WriteHeader(answer.Code)
			_, _ = rw.Write(bytes.Repeat([]byte(" "), 2<<20))
			_, _ = rw.Write(answer.Body.Bytes())
		},
		"html-200":          says(http.StatusOK, html, "<title>canary</title>", false),
		"html-200-effect":   says(http.StatusOK, html, "<title>canary</title>", true),
		"empty-200":         says(http.StatusOK, json, "", false),
		"wrong-kind":        says(http.StatusOK, json, `{"kind":"Dashboard","metadata":{"name":"wrong-kind"}}`, false),
		"wrong-name":        says(http.StatusCreated, json, `{"kind":"SecureValue","metadata":{"name":"another"},"status":{"version":9}}`, true),
		"429":               says(http.StatusTooManyRequests, json, `{"message":"canary"}`, false, "Retry-After", "1"),
		"500":               says(http.StatusInternalServerError, "text/plain", "canary", false),
		"500-effect":        says(http.StatusInternalServerError, json, `{"kind":"Status","message":"canary"}`, true),
		"502":               says(http.StatusBadGateway, html, "<title>canary</title>", false),
		"503":               says(http.StatusServiceUnavailable, json, "", false),
		"504-effect":        says(http.StatusGatewayTimeout, html, "canary", true),
		"redirect-301":      says(http.StatusMovedPermanently, html, "", false, "Location", elsewhere),
		"redirect-302-seen": says(http.StatusFound, html, "", true, "Location", elsewhere),
		"redirect-307":      says(http.StatusTemporaryRedirect, html, "", false, "Location", elsewhere),
		"redirect-308":      says(http.StatusPermanentRedirect, html, "", false, "Location", elsewhere),
	}
	const cuts = 6
	for i := range cuts {
		faults[fmt.Sprintf("cut-at-%d-of-%d", i, cuts)] = func(rw http.ResponseWriter, _ *http.Request, do func() *httptest.ResponseRecorder) {
			whole := raw(do())
			reset(rw, whole[:len(whole)*i/cuts], i%2 == 0)
		}
	}
	return faults
}

var _ = Describe("A write that ends badly", func() {
	It("is made again, at the price of at most one more version, and follows no redirect", func(ctx SpecContext) {
		var followed sync.Map
		elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { followed.Store(r.Method, true) }))
		DeferCleanup(elsewhere.Close)

		w := newWorld(ctx)
		f := newFront(w)
		conn := w.connection(connectionRef)
		conn.Spec.RequestTimeout = "5s"
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.secret("source", map[string]string{"key": "canary-1"})
		faults := faultsOfAnswers(elsewhere.URL)
		for name, fault := range faults {
			f.meet(name, fault)
			w.create(w.value(name))
		}
		for name := range faults {
			sv := w.value(name)
			Eventually(func(g Gomega) {
				g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
				g.Expect(statusReason(sv)).To(Equal(v1alpha1.ReasonSynced))
			}).WithTimeout(3*time.Minute).Should(Succeed(), name)
			stored := w.stored(name)
			Expect(string(stored.Value)).To(Equal("canary-1"), name)
			Expect(stored.Version).To(BeNumerically("<=", 2), name)
			Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version), name)
		}
		Expect(f.meetings()).To(HaveLen(len(faults)), "some write met nothing")
		followed.Range(func(method, _ any) bool {
			Fail(fmt.Sprintf("a redirect was followed by %s", method))
			return false
		})
	})
})

var _ = Describe("What is in front of Grafana", func() {
	DescribeTable("answers in its place, which is retried like an outage", func(ctx SpecContext, code int) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		remove := w.grafana.Inject(grafanatest.Fault{Code: code, ContentType: "text/html", Body: "<title>canary</title>"})
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(fmt.Sprintf("HTTP %d", code)))
		remove()
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	},
		Entry("with 400", http.StatusBadRequest),
		Entry("with 401", http.StatusUnauthorized),
		Entry("with 403", http.StatusForbidden),
		Entry("with 404", http.StatusNotFound),
		Entry("with 413", http.StatusRequestEntityTooLarge),
	)
})

var _ = Describe("A Grafana whose clock is an hour ahead", func() {
	It("is asked again when it says so, by its own clock", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		now := time.Now().UTC().Add(time.Hour)
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbCreate, Times: 1, Code: http.StatusTooManyRequests,
			Header: http.Header{"Date": {now.Format(http.TimeFormat)}, "Retry-After": {now.Add(time.Second).Format(http.TimeFormat)}},
		})
		w.synced("api-key", "canary-1")
		Expect(w.writesTo("api-key")).To(Equal(1))
	})
})

// gap is a way to the API server that can be closed.
type gap struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newGap(target string) *gap {
	GinkgoHelper()
	g := &gap{address: "127.0.0.1:0", target: target}
	g.open()
	DeferCleanup(g.close)
	return g
}

func (g *gap) open() {
	GinkgoHelper()
	var listener net.Listener
	Eventually(func() (err error) { // another client may have the port for a while
		listener, err = net.Listen("tcp", g.address) //nolint:noctx // it ends with close
		return err
	}).Should(Succeed())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener, g.address = listener, listener.Addr().String()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", g.target) //nolint:noctx // it ends with close
			if err != nil {
				_ = near.Close()
				continue
			}
			if !g.keep(listener, near, far) {
				return
			}
			go pipe(near, far)
			go pipe(far, near)
		}
	}()
}

func pipe(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
}

// keep has close end the connections, or ends them if the listener that took them is closed by now.
func (g *gap) keep(listener net.Listener, conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != listener {
		for _, conn := range conns {
			_ = conn.Close()
		}
		return false
	}
	g.conns = append(g.conns, conns...)
	return true
}

// close cuts every connection and takes no more.
func (g *gap) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	g.listener = nil
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

var _ = Describe("An API server that is away", func() {
	It("is waited for, without a call to Grafana, and what changed meanwhile is caught up with", func(ctx SpecContext) {
		w := newWorld(ctx)
		stopManager()
		DeferCleanup(startManager) // and then the world is cleaned up
		server, err := url.Parse(managerConfig.Host)
		Expect(err).NotTo(HaveOccurred())
		g := newGap(server.Host)
		config := rest.CopyConfig(managerConfig)
		config.Host = "https://" + g.address
		DeferCleanup(runManager(config, func(*operator.Options) {}))

		w.create(w.connection(connectionRef))
		w.synced("api-key", "canary-1")
		w.synced("goes", "canary-1")
		w.grafana.ResetCalls()
		g.close()
		w.secret("source", map[string]string{"key": "canary-2"})
		w.create(w.value("late"))
		w.delete(w.value("goes"))
		Consistently(w.calls).WithTimeout(2 * time.Second).Should(BeEmpty())
		g.open()
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallyStored("late", "canary-2")
		w.eventuallyGone(w.value("goes"))
		w.eventuallySynced(w.value("api-key"))
		w.eventuallySynced(w.value("late"))
		w.settled()
		Expect(w.writesTo("api-key")).To(Equal(1))
	})
})
