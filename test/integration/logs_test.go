package integration

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// recorded are the lines that the managers of this process log by default, while recordLog has them kept.
var recorded lines

type lines struct {
	mu   sync.Mutex
	on   bool
	kept []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.on {
		l.kept = append(l.kept, line)
	}
}

// varies is what differs in the lines of two reconciles of an object, and what says again which object that is.
var varies = regexp.MustCompile(` "controllerGroup"="[^"]*" "controllerKind"="[^"]*"|( "namespace"="[^"]*" "name"="[^"]*")? "reconcileID"="[^"]*"`)

// recordLog returns a function that returns the lines since then, without what varies.
func recordLog() func() []string {
	recorded.mu.Lock()
	defer recorded.mu.Unlock()
	recorded.on, recorded.kept = true, nil
	DeferCleanup(func() {
		recorded.mu.Lock()
		defer recorded.mu.Unlock()
		recorded.on = false
	})
	return func() []string {
		recorded.mu.Lock()
		defer recorded.mu.Unlock()
		found := []string{}
		for _, line := range recorded.kept {
			found = append(found, varies.ReplaceAllString(line, ""))
		}
		return found
	}
}

var _ = Describe("The log", func() {
	// line is what is logged about an object of the world.
	line := func(w *world, name, message, rest string) string {
		return `"level"=0 "msg"="` + message + `" "controller"="grafanasecurevalue" "GrafanaSecureValue"={"name"="` + name +
			`" "namespace"="` + w.namespace + `"} ` + rest
	}

	DescribeTable("has one line for each write to Grafana, with the object, the target, the cause and the version",
		func(ctx SpecContext, act func(*world, *v1alpha1.GrafanaSecureValue), want ...string) {
			w := newConnectedWorld(ctx)
			sv := w.synced("api-key", "canary-1")
			w.settled()
			logged := recordLog()
			act(w, sv)
			w.settled()
			ours := slices.DeleteFunc(logged(), func(l string) bool { return !strings.Contains(l, ` secure value" `) })
			var lines []string
			for i := 0; i < len(want); i += 3 {
				lines = append(lines, line(w, want[i], want[i+1],
					`"connectionKind"="GrafanaConnection" "connection"="prod" "grafanaNamespace"="default" `+want[i+2]))
			}
			Expect(ours).To(Equal(lines))
		},
		Entry("created", func(w *world, _ *v1alpha1.GrafanaSecureValue) { w.syncedFrom("another", "canary-2") },
			"another", "Created secure value", `"secureValue"="another" "cause"="created" "version"=1`),
		Entry("rotated", rotate,
			"api-key", "Rotated secure value", `"secureValue"="api-key" "cause"="rotated" "version"=2`),
		Entry("edited", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = []string{"k6-cloud"} })
			w.eventuallySynced(sv)
		}, "api-key", "Updated secure value", `"secureValue"="api-key" "cause"="edited" "version"=2`),
		Entry("written again by sync-now", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.syncNow(sv, "token")
			w.eventuallyAnswered(sv, "token")
		}, "api-key", "Updated secure value", `"secureValue"="api-key" "cause"="sync_now" "version"=2`),
		Entry("corrected", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "api-key", Description: "theirs", Value: []byte("x"), Labels: w.stored("api-key").Labels})
			w.list(sv)
			w.eventuallyStored("api-key", "canary-1")
			w.eventuallySynced(sv)
		}, "api-key", "DriftCorrected secure value", `"secureValue"="api-key" "cause"="drift" "version"=3`),
		Entry("moved", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.rename(sv, "new-name")
			w.eventuallySynced(sv)
		},
			"api-key", "Moved secure value", `"secureValue"="new-name" "cause"="moved" "version"=1`,
			"api-key", "Deleted secure value", `"secureValue"="api-key" "cause"="moved"`),
		Entry("deleted", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.delete(sv)
			w.eventuallyGone(sv)
		}, "api-key", "Deleted secure value", `"secureValue"="api-key" "cause"="deleted"`),
		Entry("retained", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.eventuallySynced(sv)
			w.delete(sv)
			w.eventuallyGone(sv)
		},
			"api-key", "Updated secure value", `"secureValue"="api-key" "cause"="edited" "version"=2`,
			"api-key", "Retained secure value", `"secureValue"="api-key" "cause"="deleted"`),
		Entry("created without its labels, and deleted again", func(w *world, _ *v1alpha1.GrafanaSecureValue) {
			w.dropLabels(grafanatest.VerbCreate)
			another := w.valueWithSecret("another", "canary-2")
			w.create(another)
			w.eventually(another, v1alpha1.ReasonLabelsNotKept)
		},
			"another", "Created secure value", `"secureValue"="another" "cause"="created" "version"=1`,
			"another", "Deleted secure value", `"secureValue"="another" "cause"="labels_not_kept"`),
		Entry("rotated without its labels", func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.dropLabels(grafanatest.VerbUpdate)
			w.secret("source", map[string]string{"key": "canary-2"})
			w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
		}, "api-key", "Rotated secure value", `"secureValue"="api-key" "cause"="rotated" "version"=2`),
	)

	It("has nothing at rest, and a reason once, however often it is found", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.settled() // its line comes after its status
		logged := recordLog()
		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
		stalled := w.valueWithSecret("theirs", "canary-3")
		w.create(stalled)
		w.eventually(stalled, v1alpha1.ReasonAlreadyExists)
		w.settled()
		lines := slices.DeleteFunc(logged(), func(l string) bool { return !strings.Contains(l, w.namespace) })
		Expect(lines).To(HaveLen(1))
		Expect(lines[0]).To(HavePrefix(line(w, "theirs", "Reason of Ready changed", `"reason"="AlreadyExists" "message"="`)))

		paused := w.syncedFrom("paused", "canary-4")
		suspend(w, paused)
		w.eventuallySuspended(paused, metav1.ConditionTrue)
		w.settled()
		logged = recordLog()
		w.list(sv)
		w.list(sv)
		lines = slices.DeleteFunc(logged(), func(l string) bool { return strings.Contains(l, `"name"="marker"`) }) // see settled
		Expect(lines).To(BeEmpty())
	})

	It("has each error of the API server", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		stopManager()
		DeferCleanup(startManager) // and then the world is cleaned up
		config := rest.CopyConfig(managerConfig)
		var works atomic.Bool
		var failed atomic.Int32
		source := "/api/v1/namespaces/" + w.namespace + "/secrets/source"
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if !works.Load() && r.URL.Path == source {
					failed.Add(1)
					return nil, errors.New("no way to the API server")
				}
				return next.RoundTrip(r)
			})
		})
		logged := recordLog()
		DeferCleanup(runManager(config, func(*operator.Options) {}))
		sv := w.value("api-key")
		w.secret("source", map[string]string{"key": "canary-1"})
		w.create(sv)
		Eventually(failed.Load).Should(BeNumerically(">=", 3))
		works.Store(true)
		w.eventuallySynced(sv)
		errorLines := slices.DeleteFunc(logged(), func(l string) bool { return !strings.Contains(l, "no way to the API server") })
		Expect(errorLines).To(HaveLen(int(failed.Load())))
		Expect(errorLines).To(HaveEach(HavePrefix(`"msg"="Reconciler error" "error"="Get `)))
	})
})

// roundTrip is a way for requests.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
