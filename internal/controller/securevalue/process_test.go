package securevalue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	runtimecache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// process is one life of the operator: its caches, its queue, and all that it remembers. It is set up as the product sets itself up,
// with a manager that starts nothing: objects are handed to the controllers one at a time.
type process struct {
	manager.Manager // what is not needed panics

	world       *world
	number      int
	dead        atomic.Bool
	cache       *cache
	client      client.Client
	live        client.Client
	controllers []reconcile.Reconciler // in the order in which they were added: connections first
	values      *Reconciler

	at    item      // what is worked on
	began time.Time // when that began
	stop  func()    // tells the manager to stop in the middle of that

	mu      sync.Mutex
	queue   []item
	delayed map[item]time.Time
}

// kind is that of an object; those of controllers are first, in the order of process.controllers.
type kind int

const (
	kindConnection kind = iota
	kindValue
	kindSecret
)

// restart ends the process, and starts another one with a cache that shows everything.
func (w *world) restart() {
	w.t.Helper()
	w.startProcess(func(p *process) {
		w.mu.Lock()
		w.changed = nil
		w.mu.Unlock()
		for _, list := range []client.ObjectList{&corev1.SecretList{}, &v1alpha1.GrafanaConnectionList{}, &v1alpha1.GrafanaSecureValueList{}} {
			w.must(w.api.List(context.Background(), list)) //nolint:forbidigo // a process ends by its death
			w.must(meta.EachListItem(list, func(o runtime.Object) error {
				p.show(itemOf(o.(client.Object)), o.(client.Object)) // as each item of a list of objects
				return nil
			}))
		}
	})
}

// restartBehind ends the process, and starts another one with a cache that is as late as the last one's: an API server may answer the
// first LIST from a cache of its own.
func (w *world) restartBehind() {
	w.t.Helper()
	last := w.process
	w.startProcess(func(p *process) {
		for _, key := range slices.SortedFunc(maps.Keys(last.cache.objects), item.compare) {
			p.show(key, last.cache.objects[key])
		}
	})
}

// startProcess starts a process in the place of the last one, and lets its cache be filled.
func (w *world) startProcess(fill func(*process)) {
	w.t.Helper()
	number := 1
	if w.process != nil {
		w.process.dead.Store(true)
		number = w.process.number + 1
	}
	p := &process{world: w, number: number, cache: &cache{objects: map[item]client.Object{}, indexed: map[string]map[item]client.Object{}}, delayed: map[item]time.Time{}}
	p.live = interceptor.NewClient(w.api, p.counted())
	p.client = &cachedClient{Client: p.live, cache: p.cache}
	w.mu.Lock()
	w.process = p
	unknown := slices.Clone(w.changed)
	w.mu.Unlock()
	p.start(context.Background()) //nolint:forbidigo // a process ends by its death
	w.mu.Lock()
	w.changed = unknown // without the fingerprint key
	w.mu.Unlock()
	fill(p)
}

func (p *process) agent() string { return fmt.Sprintf("process-%d", p.number) }

// counted counts the calls to the API server: writes, and reads past the cache.
func (p *process) counted() interceptor.Funcs {
	call := func(what string, o client.Object, do func() error) error {
		if p.dead.Load() {
			panic(crashed{})
		}
		befalls := p.world.enter(fmt.Sprintf("%s %T %s", what, kindOf(o).object(), o.GetName()))
		if p.world.meanwhile != nil {
			p.world.meanwhile(p.world.callCount())
		}
		switch befalls {
		case crashBefore:
			p.dead.Store(true)
			panic(crashed{})
		case callFails:
			return apierrors.NewInternalError(errInjected)
		case requestLost:
			return apierrors.NewTimeoutError(errInjected.Error(), 0)
		case none, crashAfter, answerLost, comesLate:
		}
		err := do()
		if err != nil && strings.Contains(err.Error(), "test failed") { // as the API server answers where a test of a JSON patch fails
			err = apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
		}
		switch befalls {
		case crashAfter:
			p.dead.Store(true)
			panic(crashed{})
		case answerLost:
			return apierrors.NewTimeoutError(errInjected.Error(), 0)
		case none, crashBefore, requestLost, callFails, comesLate:
		}
		return err
	}
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return call("live GET "+key.Name, o, func() error { return c.Get(ctx, key, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return call("live LIST", &metav1.PartialObjectMetadata{}, func() error { return c.List(ctx, list, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return call("PATCH", o, func() error {
				if err := c.Patch(ctx, o, patch, opts...); err != nil || p.world.admission == nil {
					return err
				}
				return p.world.admission(o)
			})
		},
		SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption,
		) error {
			return call("PATCH "+sub, o, func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
	}
}

// deliver has the process see everything that has changed.
func (w *world) deliver() {
	w.t.Helper()
	for w.deliverNext(0) {
	}
}

// deliverNext delivers one event to the cache of the process, unless there is none. Events of one kind keep their order.
func (w *world) deliverNext(i int) bool {
	w.t.Helper()
	w.mu.Lock()
	if i >= len(w.changed) {
		w.mu.Unlock()
		return false
	}
	i = slices.IndexFunc(w.changed, func(c watchEvent) bool { return c.kind == w.changed[i].kind })
	next := w.changed[i]
	w.changed = slices.Delete(w.changed, i, i+1)
	w.mu.Unlock()
	w.process.show(next.item, next.now)
	return true
}

// show makes the cache show an object, or that it is gone, and wakes the objects that the watches of the controllers would wake.
func (p *process) show(key item, now client.Object) {
	old := p.cache.objects[key]
	if old == nil && now == nil || old != nil && now != nil && old.GetResourceVersion() == now.GetResourceVersion() {
		return
	}
	p.cache.replace(key, old, now)
	p.wake(context.Background(), key, old, now) //nolint:forbidigo // a process ends by its death
}

func (p *process) add(it item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.delayed, it)
	if !slices.Contains(p.queue, it) {
		p.queue = append(p.queue, it)
	}
}

func (p *process) addConnections() {
	for _, key := range slices.SortedFunc(maps.Keys(p.cache.objects), item.compare) {
		if key.kind == kindConnection {
			p.add(key)
		}
	}
}

// work reconciles one object that is queued, or due by now. It reports false where there is none.
func (p *process) work() bool {
	it, ok := p.next()
	if !ok {
		return false
	}
	defer func() {
		if r := recover(); r != nil && r != (crashed{}) {
			panic(r)
		}
	}()
	p.world.mu.Lock() // a call to Grafana of the reconcile before may not have ended there
	p.at, p.began = it, time.Now()
	p.world.mu.Unlock()
	if p.world.begins != nil {
		p.world.begins()
	}
	ctx, cancel := context.WithCancel(ctrl.LoggerInto(context.Background(), logr.Discard())) //nolint:forbidigo // a process ends by its death
	defer cancel()
	p.stop = cancel
	result, err := p.controllers[it.kind].Reconcile(ctx, reconcile.Request{NamespacedName: it.key})
	after := result.RequeueAfter
	if err != nil {
		after = time.Second
	}
	if after > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.delayed[it] = time.Now().Add(after)
	}
	return true
}

func (p *process) next() (item, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []item
	for it, at := range p.delayed {
		if !at.After(time.Now()) && !slices.Contains(p.queue, it) {
			due = append(due, it)
			delete(p.delayed, it)
		}
	}
	slices.SortFunc(due, item.compare)
	p.queue = append(p.queue, due...)
	if len(p.queue) == 0 {
		return item{}, false
	}
	i := p.world.order(len(p.queue))
	it := p.queue[i]
	p.queue = slices.Delete(p.queue, i, i+1)
	return it, true
}

func (p *process) nextDue() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for _, at := range p.delayed {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first, !first.IsZero()
}

// wakes is the queue of a controller.
type wakes struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request] // what is not needed panics

	process *process
	kind    kind
}

func (q wakes) Add(req reconcile.Request) { q.process.add(item{q.kind, req.NamespacedName}) }

// The manager, as far as the controllers ask for it.

func (p *process) GetClient() client.Client                       { return p.client }
func (p *process) GetAPIReader() client.Reader                    { return p.live }
func (p *process) GetFieldIndexer() client.FieldIndexer           { return p.cache }
func (p *process) GetEventRecorder(string) recorder.EventRecorder { return silent{} }
func (p *process) GetScheme() *runtime.Scheme                     { return worldScheme() }
func (p *process) GetCache() runtimecache.Cache                   { return nil }
func (p *process) GetLogger() logr.Logger                         { return logr.Discard() }
func (p *process) GetControllerOptions() config.Controller {
	return config.Controller{SkipNameValidation: new(true), RecoverPanic: new(false)}
}

// Add keeps a controller, and starts nothing.
func (p *process) Add(r manager.Runnable) error {
	if c, ok := r.(reconcile.Reconciler); ok {
		p.controllers = append(p.controllers, c)
	}
	return nil
}

// silent records no event: they are best effort.
type silent struct {
	recorder.EventRecorder // what is not needed panics
}

func (silent) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// cache shows the objects as the last delivered events have them.
type cache struct {
	objects map[item]client.Object
	indexes map[kind]map[string]client.IndexerFunc // by field
	indexed map[string]map[item]client.Object      // by kind, field and what is found in it
}

// replace puts an object in the place of another one; nil is none.
func (c *cache) replace(key item, old, now client.Object) {
	for field, keys := range c.indexes[key.kind] {
		if old != nil {
			for _, found := range keys(old) {
				delete(c.indexed[fmt.Sprint(key.kind, field, found)], key)
			}
		}
		if now != nil {
			for _, found := range keys(now) {
				at := fmt.Sprint(key.kind, field, found)
				if c.indexed[at] == nil {
					c.indexed[at] = map[item]client.Object{}
				}
				c.indexed[at][key] = now
			}
		}
	}
	if c.objects[key] = now; now == nil {
		delete(c.objects, key)
	}
}

// item is an object in a cache, or in the queue of its controller.
type item struct {
	kind kind
	key  client.ObjectKey
}

func (it item) compare(other item) int {
	return cmp.Or(cmp.Compare(it.kind, other.kind), strings.Compare(it.key.String(), other.key.String()))
}

func itemOf(o client.Object) item { return item{kindOf(o), client.ObjectKeyFromObject(o)} }

// kindOf returns the kind of an object, of its metadata, or of a list.
func kindOf(o runtime.Object) kind {
	switch o := o.(type) {
	case *v1alpha1.GrafanaConnection, *v1alpha1.GrafanaConnectionList:
		return kindConnection
	case *v1alpha1.GrafanaSecureValue, *v1alpha1.GrafanaSecureValueList:
		return kindValue
	case *corev1.Secret:
		return kindSecret
	case *metav1.PartialObjectMetadata:
		if o.Kind == "Secret" {
			return kindSecret
		}
		return kindValue // what a patch answers with
	}
	panic(fmt.Sprintf("no cache of %T", o))
}

func (k kind) object() client.Object {
	switch k {
	case kindConnection:
		return &v1alpha1.GrafanaConnection{}
	case kindValue:
		return &v1alpha1.GrafanaSecureValue{}
	case kindSecret:
	}
	return &corev1.Secret{}
}

func (c *cache) IndexField(_ context.Context, o client.Object, field string, keys client.IndexerFunc) error {
	k := kindOf(o)
	if c.indexes == nil {
		c.indexes = map[kind]map[string]client.IndexerFunc{}
	}
	if c.indexes[k] == nil {
		c.indexes[k] = map[string]client.IndexerFunc{}
	}
	c.indexes[k][field] = keys
	return nil
}

func (c *cache) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	o, found := c.objects[item{kindOf(into), key}]
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	if secret, ok := o.(*corev1.Secret); ok {
		partial, _ := into.(*metav1.PartialObjectMetadata) // contents are not cached
		secret.ObjectMeta.DeepCopyInto(&partial.ObjectMeta)
		return nil
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
	return nil
}

func (c *cache) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	if options.Continue != "" {
		return errors.New("continue list option is not supported by the cache")
	}
	list.SetContinue("continue-not-supported") // as that of controller-runtime
	var found []runtime.Object
	objects := c.objects
	if options.FieldSelector != nil {
		only := options.FieldSelector.Requirements()[0] // as every field selector of ours
		objects = c.indexed[fmt.Sprint(kindOf(list), only.Field, only.Value)]
	}
	for key, o := range objects {
		if key.kind != kindOf(list) || options.Namespace != "" && options.Namespace != key.key.Namespace {
			continue
		}
		if options.UnsafeDisableDeepCopy != nil && *options.UnsafeDisableDeepCopy {
			found = append(found, o)
		} else {
			found = append(found, o.DeepCopyObject())
		}
	}
	slices.SortFunc(found, func(a, b runtime.Object) int {
		one, _ := a.(client.Object) // as all in the cache
		two, _ := b.(client.Object)
		return strings.Compare(client.ObjectKeyFromObject(one).String(), client.ObjectKeyFromObject(two).String())
	})
	return meta.SetList(list, found)
}

// cachedClient reads from the cache and writes to the API server.
type cachedClient struct {
	client.Client

	cache *cache
}

func (c *cachedClient) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return c.cache.Get(ctx, key, o, opts...)
}

func (c *cachedClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.cache.List(ctx, list, opts...)
}
