package securevalue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const (
	worldToken     = "glsa_canary-token"
	worldOperator  = "operator-system"
	worldCluster   = "world-cluster"
	worldNamespace = "team-a"
)

var worldScheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
})

// world is an API server and a Grafana, which outlive the processes of the operator, of which one at a time is at work. It lives in
// fake time, and does one thing after the other.
type world struct {
	t       failer
	url     string
	api     client.WithWatch // as users have it
	etcd    clienttesting.ObjectTracker
	grafana *grafanatest.Server
	process *process
	order   func(n int) int // which of n queued objects is next
	workers int             // that connections share, although one works at a time
	stalled bool            // no watch event reaches the cache

	mu      sync.Mutex
	changed []watchEvent // that the cache of the process has not seen yet
	calls   []string     // that were counted so far
	// strike says what befalls a call, given its text in calls and its number.
	strike     func(call string, count int) hit
	meanwhile  func(count int)           // is called before a call to the API server, for what others do in the middle of a reconcile
	admission  func(client.Object) error // changes what a patch has stored, and its answer
	late       []latePost                // that Grafana has not carried out yet
	down       func(string) bool         // whether Grafana fails a call of that method; nil is none
	writes     map[string]int            // accepted writes to Grafana, by target
	foreign    map[string]bool           // targets whose value no object may write
	violations []string
	uids       int

	always func(*world) string                           // what is wrong where it must never be
	begins func()                                        // is called before each reconcile
	before func(grafanaWrite, grafanatest.Stored) string // returns what is wrong with a write over what is stored
	wrote  func(grafanaWrite)                            // is called after each write that Grafana has accepted
	stored func(watchEvent)                              // is called after each write to the API server
}

// grafanaWrite is a request to change a value in Grafana, on behalf of the object that is worked on.
type grafanaWrite struct {
	method string
	at     string // namespace and name
	writer client.ObjectKey
}

// latePost is a POST whose sender has given up on it, and which Grafana may still carry out.
type latePost struct {
	grafanaWrite

	request *http.Request
	content []byte
	sent    time.Time // of fake time
}

// failer is what a test and a property have in common.
type failer interface {
	Fatalf(format string, args ...any)
	Helper()
}

// hit is what befalls one call.
type hit string

const (
	none        hit = "none"
	crashBefore hit = "crash before"
	crashAfter  hit = "crash after"
	answerLost  hit = "answer lost"
	requestLost hit = "request lost"
	callFails   hit = "error"
	comesLate   hit = "carried out late" // a POST alone
)

// crashed ends a process.
type crashed struct{}

// front is the address at which the Grafana of each world in turn answers. It runs outside of the bubbles of fake time.
type front struct {
	URL   string
	world atomic.Pointer[world]
}

// alias is a path under which the same Grafana answers.
const alias = "/alias"

func newFront(t testing.TB) *front {
	f := &front{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.TrimPrefix(r.URL.Path, alias)
		rw.Header().Set("Connection", "close") // a connection that is kept would keep fake time from passing
		f.world.Load().serve(rw, r)
	}))
	t.Cleanup(server.Close)
	f.URL = server.URL
	return f
}

// newWorld returns a world with a connection to its Grafana, and no process.
func newWorld(t failer, f *front, grafana *grafanatest.Server) *world {
	w := &world{
		t: t, url: f.URL, grafana: grafana,
		order: func(int) int { return 0 }, workers: 64,
		writes: map[string]int{}, foreign: map[string]bool{},
	}
	f.world.Store(w)
	grafana.AddToken(worldToken)
	w.etcd = clienttesting.NewObjectTracker(worldScheme(), serializer.NewCodecFactory(worldScheme()).UniversalDecoder())
	w.api = fake.NewClientBuilder().WithScheme(worldScheme()).WithGlobalResourceVersionCounter().WithReturnManagedFields().WithObjectTracker(w.etcd).
		WithStatusSubresource(&v1alpha1.GrafanaSecureValue{}, &v1alpha1.GrafanaConnection{}).
		WithInterceptorFuncs(w.noteChanges()).Build()
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldOperator, Name: fingerprint.SecretName}, Type: fingerprint.SecretType})
	w.secret(worldNamespace, "grafana", "token", worldToken)
	w.create(w.connection("prod", "default"))
	return w
}

// noteChanges notes which objects are written, so that caches learn of them.
func (w *world) noteChanges() interceptor.Funcs {
	note := func(ctx context.Context, c client.Reader, o client.Object, err error) error {
		if err == nil {
			is := watchEvent{item: itemOf(o), now: kindOf(o).object()}
			if err := c.Get(ctx, is.key, is.now); apierrors.IsNotFound(err) {
				is.now = nil
			} else if err != nil {
				return err
			}
			w.mu.Lock()
			w.changed = append(w.changed, is)
			w.mu.Unlock()
			if w.stored != nil {
				w.stored(is)
			}
		}
		return err
	}
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return note(ctx, c, o, c.Create(ctx, o, opts...))
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return note(ctx, c, o, c.Update(ctx, o, opts...))
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return note(ctx, c, o, c.Delete(ctx, o, opts...))
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return note(ctx, c, o, c.Patch(ctx, o, p, opts...))
		},
		SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption,
		) error {
			return note(ctx, c, o, c.SubResource(sub).Patch(ctx, o, p, opts...))
		},
	}
}

// watchEvent is a version of an object that a watch delivers; nil stands for its deletion.
type watchEvent struct {
	item

	now client.Object
}

// enter counts a call and says what befalls it.
func (w *world) enter(call string) hit {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call)
	if w.strike == nil {
		return none
	}
	return w.strike(call, len(w.calls))
}

// hits returns a strike at one call.
func hits(at int, befalls hit) func(string, int) hit {
	return func(_ string, count int) hit {
		if count == at {
			return befalls
		}
		return none
	}
}

func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}

// serve answers a call to Grafana, or lets happen to it what is to happen.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	caller := w.process
	if caller.dead.Load() || r.UserAgent() != caller.agent() {
		panic(http.ErrAbortHandler)
	}
	befalls := w.enter("Grafana " + r.Method + " " + strings.SplitAfter(r.URL.Path, "/securevalues")[1])
	w.mu.Lock()
	down := w.down != nil && w.down(r.Method)
	w.mu.Unlock()
	switch {
	case befalls == crashBefore:
		caller.dead.Store(true)
		panic(http.ErrAbortHandler)
	case befalls == callFails, down:
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	case befalls == requestLost:
		panic(http.ErrAbortHandler)
	}
	content, _ := io.ReadAll(r.Body) // Grafana refuses what is not whole
	is := w.writeOf(r, content)
	if befalls == comesLate && r.Method == http.MethodPost {
		w.checkProtected(is)
		w.mu.Lock()
		w.late = append(w.late, latePost{grafanaWrite: is, request: r.Clone(context.WithoutCancel(r.Context())), content: content, sent: caller.began})
		w.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	answer := w.act(r, content, is)
	switch befalls {
	case crashAfter:
		caller.dead.Store(true)
		panic(http.ErrAbortHandler)
	case answerLost:
		panic(http.ErrAbortHandler)
	case none, crashBefore, requestLost, callFails, comesLate:
	}
	maps.Copy(rw.Header(), answer.Header())
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes())
}

// writeOf returns what a request with this content changes.
func (w *world) writeOf(r *http.Request, content []byte) grafanaWrite {
	var sent struct{ Metadata struct{ Name string } }
	_ = json.Unmarshal(content, &sent) // Grafana refuses what cannot be read
	segments := strings.Split(r.URL.Path, "/")
	at := strings.Join(segments[5:], "/") // namespace, "securevalues" and name
	if r.Method == http.MethodPost {
		at += "/" + sent.Metadata.Name
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return grafanaWrite{method: r.Method, at: strings.Replace(at, "/securevalues/", "/", 1), writer: w.process.at.key}
}

// act makes Grafana answer, and checks the write.
func (w *world) act(r *http.Request, content []byte, is grafanaWrite) *httptest.ResponseRecorder {
	r.Body = io.NopCloser(bytes.NewReader(content))
	problem := ""
	namespace, name, _ := strings.Cut(is.at, "/")
	if stored, there := w.grafana.Value(namespace, name); there && w.before != nil && r.Method != http.MethodGet {
		problem = w.before(is, stored)
	}
	answer := httptest.NewRecorder()
	w.grafana.ServeHTTP(answer, r)
	if problem != "" && answer.Code <= 299 {
		w.violate("%s", problem)
	}
	if r.Method == http.MethodGet || answer.Code > 299 {
		return answer
	}
	w.accepted(is)
	if r.Method != http.MethodDelete {
		w.checkProtected(is)
	}
	return answer
}

// accepted counts a write that Grafana has accepted.
func (w *world) accepted(is grafanaWrite) {
	w.mu.Lock()
	if w.foreign[is.at] {
		w.violations = append(w.violations, fmt.Sprintf("foreign value touched: %s %s", is.method, is.at))
	}
	if is.method != http.MethodDelete {
		w.writes[is.at]++
	}
	w.mu.Unlock()
	if w.wrote != nil {
		w.wrote(is)
	}
}

// endLatePost makes Grafana carry out the first late POST, or forget it, and reports whether that has created a value.
func (w *world) endLatePost(carriedOut bool) bool {
	w.mu.Lock()
	first := w.late[0]
	w.late = w.late[1:]
	w.mu.Unlock()
	if !carriedOut {
		return false
	}
	first.request.Body = io.NopCloser(bytes.NewReader(first.content))
	answer := httptest.NewRecorder()
	w.grafana.ServeHTTP(answer, first.request)
	if answer.Code > 299 {
		return false
	}
	w.accepted(first.grafanaWrite)
	return true
}

// checkProtected makes sure that the object had our finalizer and had claimed the target before the write.
func (w *world) checkProtected(is grafanaWrite) {
	sv := w.get(is.writer.Namespace, is.writer.Name)
	if sv == nil || !slices.Contains(sv.Finalizers, v1alpha1.Finalizer) || !slices.Contains(claimsIn(sv), is.at) {
		w.violate("%s was written for %s, which has no finalizer or has not claimed it", is.at, is.writer)
	}
}

// What users do.

func (w *world) connection(name, grafanaNamespace string) *v1alpha1.GrafanaConnection {
	return &v1alpha1.GrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: name},
		Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{
			URL: w.url, Namespace: grafanaNamespace, APIVersion: "v1beta1",
			Credentials: v1alpha1.Credentials{TokenSecretRef: v1alpha1.SecretKeyReference{Name: "grafana", Key: "token"}},
		}},
		Status: v1alpha1.ConnectionStatus{ObservedGeneration: -1},
	}
}

// value returns an object that reads key "key" of Secret "source", as the API server would have completed it.
func (w *world) value(name string) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: name},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef: v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"},
			ValueFrom:     v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "source", Key: "key"}},
			SecureValueSettings: v1alpha1.SecureValueSettings{
				Decrypters:     []string{"synthetic-monitoring"},
				DeletionPolicy: v1alpha1.DeletionPolicyDelete,
				AdoptionPolicy: v1alpha1.AdoptionPolicyRefuse,
				DriftPolicy:    v1alpha1.DriftPolicyCorrect,
			},
		},
		Status: v1alpha1.GrafanaSecureValueStatus{ObservedGeneration: -1},
	}
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	w.uids++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", w.uids)))
	o.SetGeneration(1)
	o.SetCreationTimestamp(metav1.Now())
	w.must(w.api.Create(context.Background(), o)) //nolint:forbidigo // the API server ends with the world
}

// secret makes the Secret, or gives it another content.
func (w *world) secret(namespace, name, key, content string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := w.api.Get(context.Background(), client.ObjectKeyFromObject(secret), secret) //nolint:forbidigo // as above
	secret.Data = map[string][]byte{key: []byte(content)}
	if apierrors.IsNotFound(err) {
		w.create(secret)
		return
	}
	w.must(err)
	w.must(w.api.Update(context.Background(), secret)) //nolint:forbidigo // as above
}

// source gives the Secret that objects read another content.
func (w *world) source(content string) {
	w.t.Helper()
	w.secret(worldNamespace, "source", "key", content)
}

// edit changes the spec of an object, which raises its generation.
func (w *world) edit(name string, change func(*v1alpha1.GrafanaSecureValue)) {
	w.t.Helper()
	w.editIn(worldNamespace, name, change)
}

func (w *world) editIn(namespace, name string, change func(*v1alpha1.GrafanaSecureValue)) {
	w.t.Helper()
	sv := w.get(namespace, name)
	if sv == nil {
		w.t.Fatalf("no object %s to edit", name)
	}
	change(sv)
	sv.Generation++
	sv.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, Time: new(metav1.Now())}}
	w.must(w.api.Update(context.Background(), sv)) //nolint:forbidigo // as above
}

// remove deletes an object, which raises the generation of one that carries a finalizer.
func (w *world) remove(o client.Object) {
	w.t.Helper()
	ctx := context.Background() //nolint:forbidigo // as above
	w.must(w.api.Delete(ctx, o))
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
		w.must(err)
		o.SetGeneration(o.GetGeneration() + 1)
		w.must(w.api.Update(ctx, o))
	}
}

// get returns an object as the API server has it, or nil.
func (w *world) get(namespace, name string) *v1alpha1.GrafanaSecureValue {
	w.t.Helper()
	sv := &v1alpha1.GrafanaSecureValue{}
	err := w.api.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, sv) //nolint:forbidigo // as above
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.must(err)
	return sv
}

// values returns all objects.
func (w *world) values() []v1alpha1.GrafanaSecureValue {
	w.t.Helper()
	list := &v1alpha1.GrafanaSecureValueList{}
	w.must(w.api.List(context.Background(), list)) //nolint:forbidigo // as above
	return list.Items
}

// outage makes Grafana fail, or ends that.
func (w *world) outage(down bool) {
	w.fail(func(string) bool { return down })
}

// fail makes Grafana fail the calls of some methods; nil ends that.
func (w *world) fail(down func(method string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}

// What time does.

// longestRetry is longer than any wait after a failure, and listPeriod than the time from one LIST to the next.
const (
	longestRetry = 40 * time.Second
	listPeriod   = 12 * time.Minute
)

// run works until nothing is queued.
func (w *world) run() {
	w.t.Helper()
	for steps := 0; w.step(); steps++ {
		if steps > 20_000 {
			w.t.Fatalf("the queue never gets empty; last calls: %s", strings.Join(w.calls[max(0, len(w.calls)-10):], ", "))
		}
	}
}

// stepUntil steps until done reports true, or nothing is queued.
func (w *world) stepUntil(done func() bool) {
	for !done() {
		if !w.step() {
			return
		}
	}
}

// step reconciles one object, and starts another process in place of one that has crashed. It reports false where nothing is queued.
func (w *world) step() bool {
	if w.process.dead.Load() {
		w.restart()
	}
	if !w.stalled {
		w.deliver()
	}
	worked := w.process.work()
	if w.always != nil {
		if problem := w.always(w); problem != "" {
			w.violate("%s", problem)
		}
	}
	return worked
}

func (w *world) callCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// pass works for the given time.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := time.Now().Add(d)
	for w.run(); time.Now().Before(end); w.run() {
		next := end
		if due, ok := w.process.nextDue(); ok && due.Before(next) {
			next = due
		}
		time.Sleep(min(max(time.Until(next), time.Millisecond), 20*time.Second)) //nolint:forbidigo // of fake time
	}
}

// settle works until nothing happens any more but the LISTs of the connections, and at least until one of those.
func (w *world) settle() {
	w.t.Helper()
	w.pass(longestRetry)
	w.pass(listPeriod)
	for tries := 0; ; tries++ {
		before := w.callCount()
		w.pass(longestRetry)
		if w.callCount() == before {
			return
		}
		if tries > 30 {
			w.t.Fatalf("never comes to rest; last calls: %s", strings.Join(w.calls[max(0, len(w.calls)-10):], ", "))
		}
	}
}

// What must be true.

// contentFor returns the content of the Secret that an object reads.
func (w *world) contentFor(sv *v1alpha1.GrafanaSecureValue) (*corev1.Secret, string) {
	w.t.Helper()
	secret, ref := &corev1.Secret{}, sv.Spec.ValueFrom.SecretKeyRef
	err := w.api.Get(context.Background(), client.ObjectKey{Namespace: sv.Namespace, Name: ref.Name}, secret) //nolint:forbidigo // as above
	if apierrors.IsNotFound(err) {
		return nil, ""
	}
	w.must(err)
	return secret, string(secret.Data[ref.Key])
}

// faults returns what is wrong at rest. Objects are Synced, apart from those for whom another reason is given by name; Grafana holds
// their values, and beside them the values left there, by target, and nothing else.
func (w *world) faults(reasons, left map[string]string) []string {
	w.t.Helper()
	w.mu.Lock()
	found := slices.Clone(w.violations)
	w.mu.Unlock()
	fail := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	expected := map[string]bool{}
	for _, sv := range w.values() {
		want := cmp.Or(reasons[sv.Name], v1alpha1.ReasonSynced)
		switch got := status.Reason(sv.Status.Conditions); {
		case !sv.DeletionTimestamp.IsZero():
			fail("%s is still there: %s", sv.Name, got)
		case got != want:
			fail("%s says %s instead of %s", sv.Name, got, want)
		case sv.Status.ObservedGeneration != sv.Generation:
			fail("%s says so of generation %d, not %d", sv.Name, sv.Status.ObservedGeneration, sv.Generation)
		case want == v1alpha1.ReasonSynced:
			target := sv.Status.Targets[0]
			at := target.Namespace + "/" + target.Name
			expected[at] = true
			if problem := w.differenceAt(&sv, target); problem != "" {
				fail("%s: %s", at, problem)
			}
		}
	}
	for _, namespace := range []string{"default", "org-2"} {
		for name, stored := range w.grafana.Values(namespace) {
			at := namespace + "/" + name
			if content, ok := left[at]; ok && content == string(stored.Value) {
				expected[at] = true
			}
			if !expected[at] {
				fail("orphan: %s holds %s, for %s", at, stored.Value, stored.Annotations[ownership.AnnotationResource])
			}
		}
	}
	for at, content := range left {
		if !expected[at] {
			fail("foreign value touched: %s should hold %s", at, content)
		}
	}
	return found
}

// differenceAt says where Grafana, the Secret and the status of a Ready object differ.
func (w *world) differenceAt(sv *v1alpha1.GrafanaSecureValue, target v1alpha1.TargetStatus) string {
	w.t.Helper()
	stored, there := w.grafana.Value(target.Namespace, target.Name)
	secret, content := w.contentFor(sv)
	switch {
	case !there:
		return "not in Grafana"
	case target.Name != sv.SecureValueName(), target.Connection != sv.ConnectionOrDefault(), len(sv.Status.Targets) != 1:
		return fmt.Sprintf("targets are %v", sv.Status.Targets)
	case string(stored.Value) != content:
		return fmt.Sprintf("holds %s, not %s", stored.Value, content)
	case stored.Version != target.Version:
		return fmt.Sprintf("is of version %d, and status says %d", stored.Version, target.Version)
	case target.Source.UID != secret.UID || target.Source.ResourceVersion != secret.ResourceVersion:
		return "status names another version of the Secret"
	case target.DescriptionKept && sv.Spec.Description != "", !target.DescriptionKept && stored.Description != sv.DescriptionOrDefault(), !slices.Equal(stored.Decrypters, sv.Spec.Decrypters):
		return "differs from spec"
	case !isLabelledFor(stored, client.ObjectKeyFromObject(sv)):
		return "does not carry the owner label of its object"
	}
	return ""
}

// written returns how many writes Grafana has accepted.
func (w *world) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, writes := range w.writes {
		n += writes
	}
	return n
}

// callsIn returns the calls from one count to another that pass.
func (w *world) callsIn(from int, passes func(string) bool) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []string
	for _, call := range w.calls[from:] {
		if passes(call) {
			found = append(found, call)
		}
	}
	return found
}

var errInjected = errors.New("injected")
