package securevalue

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	// ownershipHistoriesInTests is how many histories of ownership the tests play, as historiesInTests.
	ownershipHistoriesInTests = "150"

	// requestTimeout is that of the connections. The core need not expect a late POST after it.
	requestTimeout = 30 * time.Second

	// nowhere is a connection that does not exist.
	nowhere = "nowhere"
)

var (
	ownershipNames       = []string{"one", "two", "three"}
	ownershipConnections = []string{"prod", "second"}
)

// Objects of two namespaces want few names in one Grafana, each over two connections. No history may end the claim of an object that
// names its value, delete a value while an object can have it, or leave a value behind.
func TestOwnershipHistories(t *testing.T) {
	given := playedInTests(t, ownershipHistoriesInTests)
	f := newFront(t)
	played, steps := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		grafana := grafanatest.New()
		inBubble(t, func() {
			h := newContest(r, f, grafana)
			defer func() { h.process.dead.Store(true) }()
			for range 2 { // the end of a history costs more than its steps
				r.Repeat(h.actions())
			}
			h.converge()
			h.clear()
			steps += h.steps
		})
		if played++; given && played%100 == 0 {
			fmt.Fprintf(os.Stderr, "%d histories, %d steps\n", played, steps)
		}
	})
	t.Attr("histories", fmt.Sprintf("%d random histories of ownership, %d steps", played, steps))
}

// contest is a world in which objects want the same names.
type contest struct {
	*world

	r        *rapid.T
	steps    int
	contents int // of Secrets, so far
	replaced int // values of ours that somebody has replaced by hand
	journal  []journalEntry
	keys     []client.ObjectKey

	versions map[client.ObjectKey][]*v1alpha1.GrafanaSecureValue // that the API server has stored; nil stands for a deletion
	sources  map[client.ObjectKey]bool                           // whose Secret exists
	edited   map[client.ObjectKey]time.Time
	left     map[string]leave // values that may stay in Grafana, until somebody writes them
	lateLeft map[string]bool  // targets where Retain leaves what a late POST creates

	began snapshot // when the current reconcile began
}

// leave is why a value may stay in Grafana.
type leave string

const (
	byRetain  leave = "Retain"
	byHandOff leave = "a hand-over that was cut off"
)

// snapshot is the state of the API server and of the cache at one time.
type snapshot struct {
	now, shown map[client.ObjectKey]*v1alpha1.GrafanaSecureValue
	sources    map[client.ObjectKey]bool
	calls      int
}

func newContest(r *rapid.T, f *front, grafana *grafanatest.Server) *contest {
	h := &contest{
		world: newWorld(r, f, grafana), r: r,
		versions: map[client.ObjectKey][]*v1alpha1.GrafanaSecureValue{}, sources: map[client.ObjectKey]bool{},
		edited: map[client.ObjectKey]time.Time{}, left: map[string]leave{}, lateLeft: map[string]bool{},
	}
	const a, b = worldNamespace, "team-b"
	h.secret(b, "grafana", "token", worldToken)
	for _, in := range []client.ObjectKey{{Namespace: a, Name: "second"}, {Namespace: b, Name: "prod"}, {Namespace: b, Name: "second"}} {
		conn := h.connection(in.Name, "default")
		conn.Namespace = in.Namespace
		h.world.create(conn)
	}
	// A ring within one namespace needs three objects there.
	h.keys = rapid.SampledFrom([][]client.ObjectKey{
		{{Namespace: a, Name: "x"}, {Namespace: a, Name: "y"}, {Namespace: b, Name: "x"}, {Namespace: b, Name: "y"}},
		{{Namespace: a, Name: "x"}, {Namespace: a, Name: "y"}, {Namespace: a, Name: "z"}, {Namespace: b, Name: "x"}},
	}).Draw(r, "objects")
	h.stored, h.before, h.wrote, h.begins = h.noteVersion, h.guard, h.noteWrite, h.begin
	for _, key := range h.keys {
		h.rotate(key)
	}
	h.restart()
	if rapid.IntRange(0, 3).Draw(r, "in sync") > 0 { // otherwise the connections are not ready either
		for range rapid.IntRange(2, len(h.keys)).Draw(r, "objects") {
			h.create()
		}
		h.run()
	}
	return h
}

// What the API server stores, and what may stay in Grafana.

// now returns the stored version of an object, or nil.
func (h *contest) now(key client.ObjectKey) *v1alpha1.GrafanaSecureValue {
	if all := h.versions[key]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (h *contest) valueAt(at string) (grafanatest.Stored, bool) {
	namespace, name, _ := strings.Cut(at, "/")
	return h.grafana.Value(namespace, name)
}

// begin takes the snapshot of a reconcile.
func (h *contest) begin() {
	h.began = snapshot{
		now: map[client.ObjectKey]*v1alpha1.GrafanaSecureValue{}, shown: map[client.ObjectKey]*v1alpha1.GrafanaSecureValue{},
		sources: maps.Clone(h.sources), calls: h.callCount(),
	}
	if at := h.process.at; at.kind == kindValue {
		h.note("  reconcile %s", at.key)
	}
	for _, key := range h.keys {
		h.began.now[key] = h.now(key)
		h.began.shown[key], _ = h.process.cache.objects[item{kindValue, key}].(*v1alpha1.GrafanaSecureValue)
	}
}

func isAlive(sv *v1alpha1.GrafanaSecureValue) bool { return sv != nil && sv.DeletionTimestamp.IsZero() }

func retains(sv *v1alpha1.GrafanaSecureValue) bool {
	return sv != nil && sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain
}

func resolves(sv *v1alpha1.GrafanaSecureValue) bool { return sv.Spec.ConnectionRef.Name != nowhere }

// names reports whether an object that is not being deleted names a target. A connection that does not exist may resolve to any.
func names(sv *v1alpha1.GrafanaSecureValue, at string) bool {
	return isAlive(sv) && "default/"+sv.SecureValueName() == at
}

// noteVersion keeps a version of an object, and notes the targets that it releases.
func (h *contest) noteVersion(e watchEvent) {
	switch e.kind {
	case kindSecret:
		h.sources[e.key] = e.now != nil
	case kindValue:
		before := h.now(e.key)
		after, _ := e.now.(*v1alpha1.GrafanaSecureValue)
		h.versions[e.key] = append(h.versions[e.key], after)
		if after != nil {
			h.note("  %s is of version %s, claims %s, says %s", e.key, after.ResourceVersion, claimsIn(after), status.Reason(after.Status.Conditions))
		}
		if before == nil {
			return
		}
		for _, at := range claimsIn(before) {
			if after == nil || !slices.Contains(claimsIn(after), at) {
				h.noteRelease(before, at)
			}
		}
	case kindConnection:
	}
}

// isToDelete reports whether the value at a target is for this object to delete.
func (h *contest) isToDelete(sv *v1alpha1.GrafanaSecureValue, at string) bool {
	stored, there := h.valueAt(at)
	return there && isLabelled(stored) && isResponsible(sv, at, stored)
}

// noteRelease notes whether the value at a target may stay once an object has released that, and is for no other object to delete.
func (h *contest) noteRelease(sv *v1alpha1.GrafanaSecureValue, at string) {
	key, retained := client.ObjectKeyFromObject(sv), retains(sv)
	for _, post := range h.late {
		h.lateLeft[at] = h.lateLeft[at] || retained && post.at == at && post.writer == key
	}
	if !h.isToDelete(sv, at) {
		return
	}
	for _, other := range h.keys {
		if now := h.now(other); other != key && now != nil && h.isToDelete(now, at) {
			return
		}
	}
	stored, _ := h.valueAt(at)
	switch {
	case retained:
		h.left[at] = byRetain
	case h.mayComeBack(*h.ownerOf(stored), at):
		h.left[at] = byHandOff
	}
}

// mayComeBack reports whether an object names a target that it has released, and cannot claim it yet: a value there must stay.
func (h *contest) mayComeBack(key client.ObjectKey, at string) bool {
	for _, sv := range []*v1alpha1.GrafanaSecureValue{h.began.now[key], h.now(key)} {
		if names(sv, at) && !slices.Contains(claimsIn(sv), at) &&
			(sv.Spec.Suspend || !resolves(sv) || h.hasWaited(key)) {
			return true
		}
	}
	return false
}

// What must be true of each write.

// guard returns what is wrong with a write to a value that exists, before its effect.
func (h *contest) guard(is grafanaWrite, stored grafanatest.Stored) string {
	owner := h.ownerOf(stored)
	switch {
	case owner == nil:
		return fmt.Sprintf("%s of a foreign value at %s by %s", is.method, is.at, is.writer)
	case owner.Namespace != is.writer.Namespace:
		return fmt.Sprintf("%s of a value of another namespace at %s by %s", is.method, is.at, is.writer)
	case *owner != is.writer && names(h.now(*owner), is.at) && names(h.began.now[*owner], is.at):
		return fmt.Sprintf("%s by %s at %s, which %s owns and names", is.method, is.writer, is.at, owner)
	case is.method != "DELETE":
		return ""
	case *owner == is.writer && retains(h.now(*owner)) && retains(h.began.now[*owner]):
		return fmt.Sprintf("%s deleted %s in spite of Retain", is.writer, is.at)
	case *owner != is.writer && h.left[is.at] == byRetain && isRetained(stored):
		return fmt.Sprintf("%s deleted at %s what %s had left under Retain", is.writer, is.at, owner)
	}
	for _, key := range h.keys {
		if key.Namespace == is.writer.Namespace && h.couldHave(key, is.at) {
			return fmt.Sprintf("%s deleted %s, which %s names", is.writer, is.at, key)
		}
	}
	return ""
}

// ownerOf returns the object whose labels a value carries, or nil.
func (h *contest) ownerOf(stored grafanatest.Stored) *client.ObjectKey {
	i := slices.IndexFunc(h.keys, func(key client.ObjectKey) bool { return isLabelledFor(stored, key) })
	if i < 0 {
		return nil
	}
	return &h.keys[i]
}

// couldHave reports whether an object names a target and can own it now, and the cache showed so when the reconcile began.
func (h *contest) couldHave(key client.ObjectKey, at string) bool {
	for _, sv := range []*v1alpha1.GrafanaSecureValue{h.now(key), h.began.now[key], h.began.shown[key]} {
		if !names(sv, at) || !resolves(sv) || sv.Spec.Suspend {
			return false
		}
	}
	waited := h.hasWaited(key) && !slices.Contains(claimsIn(h.now(key)), at)
	return h.sources[key] && h.began.sources[key] && !waited
}

// hasWaited reports whether an object has had its time to claim what it names.
func (h *contest) hasWaited(key client.ObjectKey) bool {
	return time.Since(h.edited[key]) >= successorTimeout
}

// noteWrite notes that the value at a target is not the one that may stay.
func (h *contest) noteWrite(is grafanaWrite) { delete(h.left, is.at) }

// What happens.

func (h *contest) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"create": func(*rapid.T) { h.create() },
		"swap": func(*rapid.T) {
			a := h.pick("object", isAlive)
			b := h.pick("other object", func(sv *v1alpha1.GrafanaSecureValue) bool {
				return isAlive(sv) && sv.Namespace == a.Namespace && sv.Name != a.Name
			})
			h.rotateNames([]client.ObjectKey{a, b})
		},
		"hand over": func(*rapid.T) {
			a := h.pick("object", isAlive)
			b := h.pick("successor", func(sv *v1alpha1.GrafanaSecureValue) bool {
				return isAlive(sv) && sv.Namespace == a.Namespace && sv.Name != a.Name
			})
			at, elsewhere := h.now(a).SecureValueName(), h.nameFor(a)
			follow := func() { h.rename(b, at) }
			leave := func() { h.rename(a, elsewhere) }
			if rapid.Bool().Draw(h.r, "delete") {
				leave = func() { h.delete(a) }
			}
			if rapid.Bool().Draw(h.r, "successor first") {
				follow()
				leave()
			} else {
				leave()
				follow()
			}
		},
		"ring": func(*rapid.T) {
			var all []client.ObjectKey // across namespaces it comes to rest in conflicts
			for _, key := range h.keys {
				if isAlive(h.now(key)) {
					all = append(all, key)
				}
			}
			if len(all) < 3 {
				h.r.Skip()
			}
			h.rotateNames(all)
		},
		"edit": func(*rapid.T) { h.drawEdit()() },
		"edit in the middle": func(*rapid.T) {
			// Before the first call of a reconcile is before the reconcile.
			call, edit := rapid.IntRange(2, 6).Draw(h.r, "call"), h.drawEdit()
			h.meanwhile = func(count int) {
				if h.process.at.kind == kindValue && count >= h.began.calls+call {
					h.meanwhile = nil
					h.note("in the middle:")
					edit()
				}
			}
		},
		"rotate": func(*rapid.T) { h.rotate(rapid.SampledFrom(h.keys).Draw(h.r, "object")) },
		"foreign value": func(*rapid.T) {
			if !h.rarely() {
				return
			}
			name := rapid.SampledFrom(ownershipNames).Draw(h.r, "name")
			switch stored, there := h.grafana.Value("default", name); {
			case !there:
				h.note("a foreign value at %s", name)
				h.grafana.Put("default", foreignValue(name))
			case !isLabelled(stored):
				h.note("no foreign value at %s any more", name)
				h.grafana.Remove("default", name)
			case h.replaced < 2: // more of them would reach the correction limit
				h.note("a foreign value replaces ours at %s", name)
				h.replaced++
				h.grafana.Remove("default", name)
				h.grafana.Put("default", foreignValue(name))
				delete(h.left, "default/"+name)
			default:
				h.r.Skip()
			}
		},
		"crash": func(*rapid.T) {
			if h.rarely() {
				h.crash()
			}
		},
		"fault": func(*rapid.T) {
			befalls := rapid.SampledFrom([]hit{crashBefore, crashAfter, answerLost, requestLost, callFails}).Draw(h.r, "hit")
			what := rapid.SampledFrom([]string{
				"", "PATCH *v1alpha1.GrafanaSecureValue", "PATCH status *v1alpha1.GrafanaSecureValue",
				"Grafana POST", "Grafana PUT", "Grafana DELETE",
			}).Draw(h.r, "call")
			at := h.callCount() + rapid.IntRange(1, 6).Draw(h.r, "count")
			done := false
			h.hit(func(call string, count int) hit {
				if done || what == "" && count < at || !strings.HasPrefix(call, what) {
					return none
				}
				done = true
				h.noteAt(count, "%s:", befalls)
				return befalls
			})
		},
		"time": func(*rapid.T) {
			d := time.Duration(rapid.SampledFrom([]int{1, 5, 29, 61, 900}).Draw(h.r, "seconds")) * time.Second
			h.note("%s", d)
			h.endLateBefore(d)
			time.Sleep(d) //nolint:forbidigo // of fake time
		},
		"work": func(*rapid.T) {
			d := time.Duration(rapid.SampledFrom([]int{0, 2, 29, 61}).Draw(h.r, "seconds")) * time.Second
			h.note("work for %s", d)
			h.endLateBefore(d)
			h.pass(d)
		},
	}
	actions["late POST"] = func(*rapid.T) {
		h.hit(func(call string, count int) hit {
			if len(h.late) == 0 && strings.HasPrefix(call, "Grafana POST") {
				h.noteAt(count, "%s:", comesLate)
				return comesLate
			}
			return none
		})
	}
	actions["end of a late POST"] = func(*rapid.T) {
		if len(h.late) == 0 {
			h.r.Skip()
		}
		h.endLate()
	}
	for i := range 8 { // most of the time
		actions[fmt.Sprint("reconcile ", i)] = func(*rapid.T) { h.reconcile() }
	}
	actions["another fault"], actions["another edit in the middle"] = actions["fault"], actions["edit in the middle"]
	for i := range 3 {
		actions[fmt.Sprint("edit ", i)], actions[fmt.Sprint("hand over ", i)] = actions["edit"], actions["hand over"]
	}
	for name, action := range actions {
		actions[name] = func(r *rapid.T) {
			h.r = r
			action(r)
			h.steps++
			if len(h.violations) > 0 {
				h.fail(h.violations)
			}
		}
	}
	return actions
}

// rarely reports whether a rare step is to happen. If not, it has reconciled instead.
func (h *contest) rarely() bool {
	if rapid.IntRange(0, 2).Draw(h.r, "rarely") == 0 {
		return true
	}
	h.reconcile()
	return false
}

// reconcile delivers some events to the cache, in any order of their kinds, and reconciles some objects, in any order.
func (h *contest) reconcile() {
	for range rapid.IntRange(1, 3).Draw(h.r, "reconciles") {
		if h.process.dead.Load() {
			h.crash()
		}
		for range rapid.IntRange(0, 3).Draw(h.r, "events") {
			if n := len(h.changed); n > 0 {
				h.deliverNext(rapid.IntRange(0, n-1).Draw(h.r, "event"))
			}
		}
		h.order = func(n int) int { return rapid.IntRange(0, n-1).Draw(h.r, "of the queue") }
		h.process.work()
		h.order = func(int) int { return 0 }
	}
}

// crash starts another process, whose cache may be late.
func (h *contest) crash() {
	if rapid.Bool().Draw(h.r, "behind") {
		h.note("crash, and a cache that is behind")
		h.restartBehind()
		return
	}
	h.note("crash")
	h.restart()
}

// pick draws an object whose stored version passes.
func (h *contest) pick(what string, passes func(*v1alpha1.GrafanaSecureValue) bool) client.ObjectKey {
	var found []client.ObjectKey
	for _, key := range h.keys {
		if passes(h.now(key)) {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		h.r.Skip()
	}
	return rapid.SampledFrom(found).Draw(h.r, what)
}

// nameFor draws a name. Namespaces prefer different ones: nearly every conflict would otherwise be with a foreign owner.
func (h *contest) nameFor(key client.ObjectKey) string {
	names := []string{"one", "two", "one", "two", "three"}
	if key.Namespace != worldNamespace {
		names = []string{"three", "three", "three", "one", "two"}
	}
	return rapid.SampledFrom(names).Draw(h.r, "name")
}

// rotateNames gives each of the objects the name of the next one.
func (h *contest) rotateNames(keys []client.ObjectKey) {
	var turned []string
	for i := range keys {
		turned = append(turned, h.now(keys[(i+1)%len(keys)]).SecureValueName())
	}
	for i, key := range keys {
		h.rename(key, turned[i])
	}
}

// create makes an object that is not there.
func (h *contest) create() {
	key := h.pick("object", func(sv *v1alpha1.GrafanaSecureValue) bool { return sv == nil })
	sv := h.value(key.Name)
	sv.Namespace, sv.Spec.ValueFrom.SecretKeyRef.Name = key.Namespace, key.Name
	sv.Spec.Name = h.nameFor(key)
	sv.Spec.ConnectionRef.Name = rapid.SampledFrom(ownershipConnections).Draw(h.r, "connection")
	if rapid.IntRange(0, 3).Draw(h.r, "retain") == 0 {
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
	}
	h.note("create %s as %s over %s, %s", key, sv.Spec.Name, sv.Spec.ConnectionRef.Name, sv.Spec.DeletionPolicy)
	h.edited[key] = time.Now()
	h.world.create(sv)
}

func (h *contest) rename(key client.ObjectKey, name string) {
	h.change(key, "rename to "+name, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = name })
}

func (h *contest) delete(key client.ObjectKey) {
	if isAlive(h.now(key)) {
		h.note("delete %s", key)
		h.edited[key] = time.Now()
		h.remove(h.now(key).DeepCopy())
	}
}

// drawEdit draws an edit of an object or its Secret. It has no effect if the object is gone when it is called.
func (h *contest) drawEdit() func() {
	key := h.pick("object", func(sv *v1alpha1.GrafanaSecureValue) bool { return sv != nil })
	name := h.nameFor(key)
	edit := func(what string, do func(*v1alpha1.GrafanaSecureValue)) func() {
		return func() { h.change(key, what, do) }
	}
	edits := map[string]func(){
		"delete": func() { h.delete(key) },
		"rename": func() { h.rename(key, name) },
		"move": edit("move to the other connection", func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.ConnectionRef.Name = ownershipConnections[(slices.Index(ownershipConnections, sv.Spec.ConnectionRef.Name)+1)%2]
		}),
		"mistype": edit("mistype its connection", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = nowhere }),
		"retain":  edit("Retain", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain }),
		"release": edit("Delete", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete }),
		"suspend": edit("suspend", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true }),
		"resume":  edit("resume", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false }),
		"secret": func() {
			if !h.sources[key] {
				h.rotate(key)
				return
			}
			h.note("no Secret of %s", key)
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
			h.must(h.api.Delete(context.Background(), secret)) //nolint:forbidigo // that of the property is of no bubble
		},
	}
	edits["rename again"], edits["delete again"] = edits["rename"], edits["delete"] // more often
	return edits[rapid.SampledFrom(slices.Sorted(maps.Keys(edits))).Draw(h.r, "edit")]
}

// change edits an object, if it exists and the edit changes it.
func (h *contest) change(key client.ObjectKey, what string, do func(*v1alpha1.GrafanaSecureValue)) {
	now := h.now(key)
	if now == nil {
		return
	}
	edited := now.DeepCopy()
	if do(edited); equality.Semantic.DeepEqual(edited.Spec, now.Spec) {
		return
	}
	h.note("%s: %s", key, what)
	h.edited[key] = time.Now()
	h.editIn(key.Namespace, key.Name, do)
}

// rotate creates the Secret of an object, or changes its content.
func (h *contest) rotate(key client.ObjectKey) {
	h.contents++
	h.note("rotate the Secret of %s", key)
	h.secret(key.Namespace, key.Name, "key", fmt.Sprintf("canary-%d", h.contents))
}

func (h *contest) hit(strike func(string, int) hit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.strike = strike
}

// endLate has Grafana carry out a late POST, or not.
func (h *contest) endLate() {
	carriedOut := time.Since(h.late[0].sent) < requestTimeout && rapid.Bool().Draw(h.r, "carried out")
	at := h.late[0].at
	h.note("late %s of %s by %s: %t", h.late[0].method, at, h.late[0].writer, carriedOut)
	if h.endLatePost(carriedOut) && h.lateLeft[at] {
		h.left[at] = byRetain
	}
	delete(h.lateLeft, at)
}

// endLateBefore ends the late POSTs that the core need not expect any more after that time.
func (h *contest) endLateBefore(d time.Duration) {
	for len(h.late) > 0 && time.Since(h.late[0].sent)+d >= requestTimeout {
		h.endLate()
	}
}

// note adds a line to the journal, which a failure prints.
func (h *contest) note(format string, args ...any) { h.noteAt(h.callCount()+1, format, args...) }

// noteAt adds a line to the journal before a call. Unlike note it may be called with the lock of the world.
func (h *contest) noteAt(call int, format string, args ...any) {
	h.journal = append(h.journal, journalEntry{call, fmt.Sprintf(format, args...)})
}

// journalEntry is what happened before a call.
type journalEntry struct {
	call int
	what string
}

// fail ends the history and prints it.
func (h *contest) fail(problems []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var told []string
	for i, call := range h.calls {
		for len(h.journal) > 0 && h.journal[0].call <= i+1 {
			told, h.journal = append(told, h.journal[0].what), h.journal[1:]
		}
		told = append(told, fmt.Sprintf("%9d %s", i+1, call))
	}
	for _, e := range h.journal {
		told = append(told, e.what)
	}
	h.r.Fatalf("%s\n%s", strings.Join(problems, "\n"), strings.Join(told, "\n"))
}

// What must be true in the end.

// converge ends all faults, and compares Grafana with the specs.
func (h *contest) converge() {
	h.hit(nil)
	h.meanwhile = nil
	for len(h.late) > 0 {
		h.endLate()
	}
	h.note("no more faults")
	for _, key := range h.keys {
		h.rotate(key)
		h.change(key, "resume", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
		if now := h.now(key); isAlive(now) && !resolves(now) {
			h.change(key, "name a connection", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "prod" })
		}
	}
	h.settle()
	h.require(func() (problems []string) {
		for _, key := range h.keys {
			problems = append(problems, h.problemOf(key)...)
		}
		for _, name := range ownershipNames {
			problems = append(problems, h.problemAt("default/"+name)...)
		}
		return problems
	})
}

// require fails where there are problems that time does not solve.
func (h *contest) require(problems func() []string) {
	found := problems()
	if len(found) > 0 {
		h.settle()
		found = problems()
	}
	if found = append(found, h.violations...); len(found) > 0 {
		h.fail(found)
	}
}

// isInConflict reports whether an object says that another owner has what it names.
func isInConflict(sv *v1alpha1.GrafanaSecureValue) bool {
	reason := status.Reason(sv.Status.Conditions)
	return reason == v1alpha1.ReasonNameConflict || reason == v1alpha1.ReasonAlreadyExists
}

func isSynced(sv *v1alpha1.GrafanaSecureValue) bool {
	return status.Reason(sv.Status.Conditions) == v1alpha1.ReasonSynced && sv.Status.ObservedGeneration == sv.Generation
}

// problemOf returns what is wrong with an object at rest.
func (h *contest) problemOf(key client.ObjectKey) []string {
	sv := h.now(key)
	switch {
	case sv == nil, isAlive(sv) && isInConflict(sv):
		return nil
	case !isAlive(sv):
		return []string{fmt.Sprintf("%s is stuck: %s", key, status.Reason(sv.Status.Conditions))}
	case !isSynced(sv):
		return []string{fmt.Sprintf("%s is not in sync: %s", key, status.Reason(sv.Status.Conditions))}
	}
	if problem := h.differenceAt(sv, sv.Status.Targets[0]); problem != "" {
		return []string{fmt.Sprintf("%s: %s", key, problem)}
	}
	return nil
}

// problemAt returns what is wrong at a target at rest.
func (h *contest) problemAt(at string) []string {
	stored, there := h.valueAt(at)
	owner := h.ownerOf(stored)
	var wanted []string
	isOwned, isClaimable := false, false // by an object that names it
	for _, key := range h.keys {
		sv := h.now(key)
		if !names(sv, at) {
			continue
		}
		wanted = append(wanted, fmt.Sprintf("%s says %s", key, status.Reason(sv.Status.Conditions)))
		isOwned = isOwned || isSynced(sv) // problemOf compares the labels
		isClaimable = isClaimable || owner != nil && owner.Namespace == key.Namespace
	}
	switch {
	case len(wanted) > 0 && !isOwned && (!there || isClaimable):
		return []string{fmt.Sprintf("nobody owns %s: %s", at, strings.Join(wanted, ", "))}
	case isOwned, owner == nil, h.left[at] != "":
		return nil
	}
	for _, key := range h.keys { // an object in conflict keeps its old target
		if sv := h.now(key); isAlive(sv) && isInConflict(sv) && h.isToDelete(sv, at) {
			return nil
		}
	}
	return []string{fmt.Sprintf("orphan: %s of %s", at, owner)}
}

// clear deletes all objects, and looks for what they leave in Grafana.
func (h *contest) clear() {
	kept := map[string]bool{}
	h.note("delete all")
	for _, key := range h.keys {
		if sv := h.now(key); sv != nil {
			at := "default/" + sv.SecureValueName()
			if isSynced(sv) && retains(sv) {
				kept[at] = true
			}
			h.remove(sv.DeepCopy())
		}
	}
	h.pass(longestRetry)
	h.require(func() (problems []string) {
		for _, key := range h.keys {
			if sv := h.now(key); sv != nil {
				problems = append(problems, fmt.Sprintf("%s is stuck: %s", key, status.Reason(sv.Status.Conditions)))
			}
		}
		for _, name := range ownershipNames {
			at := "default/" + name
			stored, there := h.valueAt(at)
			switch isOurs := there && isLabelled(stored); {
			case isOurs && h.left[at] == "":
				problems = append(problems, fmt.Sprintf("orphan: %s of %s", at, h.ownerOf(stored)))
			case !isOurs && kept[at]:
				problems = append(problems, at+" is gone in spite of Retain")
			}
		}
		return problems
	})
}
