package securevalue

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// What the tests play: so many histories, and the same in each run. A flag of rapid, as make soak gives one, has more and others played.
const historiesInTests, seedInTests = "60", "1"

// Whatever people do in Kubernetes and in Grafana, whatever calls and processes meet, and however late caches are: once that ends,
// Grafana holds what the specs say, and nothing of ours besides.
func TestHistories(t *testing.T) {
	given := playedInTests(t, historiesInTests)
	f := newFront(t)
	played, steps := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		grafana := grafanatest.New(grafanatest.WithNamespaces("default", "org-2"))
		inBubble(t, func() {
			h := newHistory(r, f, grafana)
			defer func() { h.process.dead.Store(true) }()
			r.Repeat(h.actions())
			h.converge()
			steps += h.steps
		})
		if played++; given && played%100 == 0 {
			fmt.Fprintf(os.Stderr, "%d histories, %d steps\n", played, steps)
		}
	})
	t.Attr("histories", fmt.Sprintf("%d random histories, %d steps", played, steps))
}

// playedInTests sets how many histories the tests play, and from where they start, unless a flag of rapid was given, which it reports.
func playedInTests(t *testing.T, checks string) (given bool) {
	t.Helper()
	if flagsGiven() {
		return true
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.seed": seedInTests} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return false
}

// flagsGiven reports whether a flag of rapid was given, and not only set by a test.
var flagsGiven = sync.OnceValue(func() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || strings.HasPrefix(f.Name, "rapid.") })
	return given
})

// inBubble calls f in a bubble of fake time, and panics as f does.
func inBubble(t *testing.T, f func()) {
	var panicked any
	synctest.Test(t, func(*testing.T) {
		defer func() { panicked = recover() }()
		f()
	})
	if panicked != nil {
		panic(panicked)
	}
}

// history is a world that a property plays with.
type history struct {
	*world

	r        *rapid.T
	steps    int
	contents int
	names    []string        // of objects; those of values are the same
	stays    map[string]bool // targets that an object with deletionPolicy Retain may have left
	adopted  map[string]bool // targets that an object with adoptionPolicy Adopt may have taken
	disputed bool            // another writer has written to Grafana
}

func newHistory(r *rapid.T, f *front, grafana *grafanatest.Server) *history {
	h := &history{
		world: newWorld(r, f, grafana), r: r, names: []string{"x", "y", "z"}, stays: map[string]bool{}, adopted: map[string]bool{},
	}
	h.create(h.connection("other", "org-2"))
	h.rotate()
	h.before = h.guard
	h.restart()
	return h
}

func (h *history) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"create": func(*rapid.T) {
			name := h.pick("object", h.names)
			if h.get(worldNamespace, name) != nil {
				h.r.Skip()
			}
			sv := h.value(name)
			h.change(sv)
			h.create(sv)
			h.note(sv)
		},
		"edit": func(*rapid.T) {
			h.edit(h.living(), func(sv *v1alpha1.GrafanaSecureValue) {
				h.note(sv)
				h.change(sv)
				h.note(sv)
			})
		},
		"delete": func(*rapid.T) { h.remove(h.get(worldNamespace, h.living())) },
		"sync now": func(*rapid.T) {
			sv := h.get(worldNamespace, h.living())
			h.contents++
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, fmt.Sprint(h.contents))
			h.must(h.api.Update(context.Background(), sv)) //nolint:forbidigo // that of the property is of no bubble
		},
		"rotate":      func(*rapid.T) { h.rotate() },
		"lose secret": func(*rapid.T) { h.loseSecret() },
		"write in Grafana": func(*rapid.T) {
			h.disputed = true
			namespace, name := h.pick("namespace", []string{"default", "org-2"}), h.pick("value", h.names)
			stored, there := h.grafana.Value(namespace, name)
			if !there {
				stored = foreignValue(name)
			}
			stored.Value = []byte("canary-foreign")
			h.grafana.Put(namespace, stored)
		},
		"delete in Grafana": func(*rapid.T) {
			h.disputed = true
			h.grafana.Remove(h.pick("namespace", []string{"default", "org-2"}), h.pick("value", h.names))
		},
		"crash":  func(*rapid.T) { h.restart() },
		"outage": func(*rapid.T) { h.outage(rapid.Bool().Draw(h.r, "down")) },
		"fault": func(*rapid.T) {
			at := h.callCount() + rapid.IntRange(1, 6).Draw(h.r, "call")
			befalls := rapid.SampledFrom([]hit{crashBefore, crashAfter, answerLost, callFails}).Draw(h.r, "hit")
			h.mu.Lock()
			defer h.mu.Unlock()
			h.strike = hits(at, befalls)
		},
		"time": func(*rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 900).Draw(h.r, "seconds")) * time.Second) //nolint:forbidigo // of fake time
		},
		"work": func(*rapid.T) { h.run() },
	}
	// The caches learn of things one by one, and late.
	step := func(*rapid.T) {
		if h.process.dead.Load() {
			h.restart()
		}
		for range rapid.IntRange(0, 3).Draw(h.r, "news") {
			h.deliverNext(0)
		}
		h.process.work()
	}
	for i := range 4 { // most of the time
		actions[fmt.Sprint("step ", i)] = step
	}
	for name, action := range actions {
		actions[name] = func(r *rapid.T) {
			h.r = r
			action(r)
			h.steps++
			if len(h.violations) > 0 {
				r.Fatalf("%s", strings.Join(h.violations, "\n"))
			}
		}
	}
	return actions
}

func (h *history) pick(what string, from []string) string {
	return rapid.SampledFrom(from).Draw(h.r, what)
}

// living returns the name of an object that is not being deleted.
func (h *history) living() string {
	var names []string
	for _, sv := range h.values() {
		if sv.DeletionTimestamp.IsZero() {
			names = append(names, sv.Name)
		}
	}
	if len(names) == 0 {
		h.r.Skip()
	}
	return h.pick("object", names)
}

// change draws what an object wants.
func (h *history) change(sv *v1alpha1.GrafanaSecureValue) {
	sv.Spec.Name = h.pick("name", h.names)
	sv.Spec.ConnectionRef.Name = h.pick("connection", []string{"prod", "prod", "other"})
	sv.Spec.Description = h.pick("description", []string{"", "Another text"})
	sv.Spec.DeletionPolicy = rapid.SampledFrom([]v1alpha1.DeletionPolicy{"Delete", "Delete", "Retain"}).Draw(h.r, "deletionPolicy")
	sv.Spec.AdoptionPolicy = rapid.SampledFrom([]v1alpha1.AdoptionPolicy{"Refuse", "Refuse", "Adopt"}).Draw(h.r, "adoptionPolicy")
}

// note remembers what an object may leave behind, and what it may take.
func (h *history) note(sv *v1alpha1.GrafanaSecureValue) {
	if sv.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyAdopt {
		h.adopted[wantedAt(sv)] = true
	}
	if sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		h.stays[wantedAt(sv)] = true
		for _, at := range claimsIn(sv) {
			h.stays[at] = true
		}
	}
}

// wantedAt is the target that an object names.
func wantedAt(sv *v1alpha1.GrafanaSecureValue) string {
	if sv.Spec.ConnectionRef.Name == "other" {
		return "org-2/" + sv.SecureValueName()
	}
	return "default/" + sv.SecureValueName()
}

func (h *history) rotate() {
	h.contents++
	h.source(fmt.Sprintf("canary-%d", h.contents))
}

func (h *history) loseSecret() {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: "source"}}
	if err := h.api.Delete(context.Background(), secret); err != nil { //nolint:forbidigo // likewise
		h.r.Skip()
	}
}

// guard says what is wrong with a write, before it has its effect.
func (h *history) guard(is grafanaWrite, stored grafanatest.Stored) string {
	if !isLabelled(stored) && !h.adopted[is.at] {
		return "what is nobody's was touched at " + is.at
	}
	for _, sv := range h.values() {
		owner := client.ObjectKeyFromObject(&sv)
		if isLabelledFor(stored, owner) && owner != is.writer && sv.DeletionTimestamp.IsZero() && wantedAt(&sv) == is.at {
			return fmt.Sprintf("%s took from %s what that holds at %s", is.writer, owner, is.at)
		}
	}
	return ""
}

// converge ends all that may go wrong, and compares Grafana with the specs.
func (h *history) converge() {
	h.mu.Lock()
	h.strike, h.down = nil, nil
	h.mu.Unlock()
	h.rotate()
	h.settle()
	h.settle()

	problems := slices.Clone(h.violations)
	fail := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	held, wanted, adopting := map[string]string{}, map[string][]string{}, map[string]bool{}
	kept := map[string]bool{} // by an object that cannot have what it wants yet
	for _, sv := range h.values() {
		at, reason := wantedAt(&sv), status.Reason(sv.Status.Conditions)
		if !sv.DeletionTimestamp.IsZero() {
			fail("%s is still there: %s", sv.Name, reason)
			continue
		}
		for _, at := range claimsIn(&sv) {
			kept[at+" of "+worldNamespace+"/"+sv.Name] = true
		}
		wanted[at] = append(wanted[at], sv.Name+" says "+reason)
		adopting[at] = adopting[at] || sv.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyAdopt
		switch {
		case reason == v1alpha1.ReasonSynced && held[at] != "":
			fail("%s and %s both hold %s", sv.Name, held[at], at)
		case reason == v1alpha1.ReasonSynced:
			held[at] = sv.Name
			if problem := h.differenceAt(&sv, sv.Status.Targets[0]); problem != "" {
				fail("%s at %s: %s", sv.Name, at, problem)
			}
		case reason == v1alpha1.ReasonDrifted && h.disputed:
			held[at] = sv.Name
		case reason != v1alpha1.ReasonNameConflict && reason != v1alpha1.ReasonAlreadyExists:
			fail("%s says %s", sv.Name, reason)
		}
	}
	for at, names := range wanted {
		namespace, name, _ := strings.Cut(at, "/")
		stored, there := h.grafana.Value(namespace, name)
		foreign := there && !isLabelled(stored)
		if held[at] == "" && (!foreign || adopting[at]) {
			fail("nobody holds %s: %s", at, strings.Join(names, ", "))
		}
	}
	for _, namespace := range []string{"default", "org-2"} {
		for name, stored := range h.grafana.Values(namespace) {
			at := namespace + "/" + name
			if held[at] == "" && !kept[at+" of "+stored.Annotations[ownership.AnnotationResource]] && isLabelled(stored) && !h.stays[at] {
				fail("orphan: %s of %s", at, stored.Annotations[ownership.AnnotationResource])
			}
		}
	}
	rested := h.callCount()
	h.restart()
	h.settle()
	for _, call := range h.callsIn(rested, isWrite) {
		if !strings.HasPrefix(call, "PATCH status *v1alpha1.GrafanaConnection") {
			fail("at rest, after a restart: %s", call)
		}
	}
	if len(problems) > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.r.Fatalf("%s\nlast calls:\n%s", strings.Join(problems, "\n"), strings.Join(h.calls[max(0, rested-40):rested], "\n"))
	}
}
