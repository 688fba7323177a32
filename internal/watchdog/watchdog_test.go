package watchdog

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
)

const (
	workers = 4
	objects = 20
)

// bench is a controller that is watched, with its queue.
type bench struct {
	*Watchdog

	elected chan struct{}
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	ctrl    controller.Controller
	logged  []string // by the watchdog
}

func newBench(t *testing.T, look reconcile.Func) *bench {
	t.Helper()
	b := &bench{elected: make(chan struct{})}
	b.Watchdog = New(funcr.New(func(_, args string) { b.logged = append(b.logged, args) }, funcr.Options{}), b.elected)
	var err error
	b.ctrl, err = controller.NewUnmanaged("bench", controller.Options{
		Reconciler: b.Reconciler(look), MaxConcurrentReconciles: workers, SkipNameValidation: new(true),
		NewQueue: func(
			name string, limiter workqueue.TypedRateLimiter[reconcile.Request],
		) workqueue.TypedRateLimitingInterface[reconcile.Request] {
			b.queue = b.Queue(name, limiter)
			return b.queue
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lead starts the controller, as a manager does that was elected.
func (b *bench) lead(t *testing.T) {
	t.Helper()
	close(b.elected)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- b.ctrl.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

func (b *bench) add(keys ...client.ObjectKey) {
	for _, key := range keys {
		b.queue.Add(reconcile.Request{NamespacedName: key})
	}
}

// passes lets time pass, and asks every ten seconds, as the kubelet does. It reports the first failure, and after what time it came.
func (b *bench) passes(d time.Duration) (time.Duration, error) {
	begin := time.Now()
	for time.Since(begin) < d {
		time.Sleep(10 * time.Second) //nolint:forbidigo // of fake time
		synctest.Wait()
		if err := b.Check(nil); err != nil {
			return time.Since(begin), err
		}
	}
	return d, nil
}

func (b *bench) mustStayAlive(t *testing.T, d time.Duration) {
	t.Helper()
	if at, err := b.passes(d); err != nil {
		t.Errorf("failed after %s: %v", at, err)
	}
}

func keys() []client.ObjectKey {
	var keys []client.ObjectKey
	for i := range objects {
		keys = append(keys, client.ObjectKey{Namespace: "team-a", Name: fmt.Sprint("value-", i)})
	}
	return keys
}

func TestGrafanaDownForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		g := gate.New(2, func(key client.ObjectKey) { b.add(key) })
		g.Open()
		b = newBench(t, func(_ context.Context, req reconcile.Request) (reconcile.Result, error) {
			defer g.Leave(req.NamespacedName)
			if g.Admit(req.NamespacedName, gate.Hold) {
				g.Done(req.NamespacedName, gate.Hold, true)
			}
			return reconcile.Result{}, nil
		})
		b.lead(t)
		b.add(keys()...)
		b.mustStayAlive(t, 30*time.Minute)
		g.Close() // the connection has found out, and nobody is handed back any more
		b.mustStayAlive(t, 30*time.Minute)
	})
}

// Each look lasts nearly as long as it may, and there are more objects than workers.
func TestGrafanaThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := make(chan struct{}, 1000)
		b := newBench(t, func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit-time.Minute)
			defer cancel()
			<-ctx.Done()
			looks <- struct{}{}
			return reconcile.Result{RequeueAfter: time.Second}, nil
		})
		b.lead(t)
		b.add(keys()...)
		b.mustStayAlive(t, time.Hour)
		if got, want := len(looks), workers*15; got != want {
			t.Errorf("%d looks in an hour, want %d", got, want)
		}
	})
}

func TestStandbyForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil })
		b.queue = b.Queue("warm", nil) // filled before the process leads
		defer b.queue.ShutDown()
		b.add(keys()...)
		b.mustStayAlive(t, 10*time.Minute)

		b.add(keys()...)
		close(b.elected)
		b.mustStayAlive(t, Limit-10*time.Second)
	})
}

func TestIdleForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil })
		b.lead(t)
		b.add(keys()...)
		time.Sleep(time.Hour) //nolint:forbidigo // of fake time; nobody asks meanwhile
		b.add(keys()...)
		if err := b.Check(nil); err != nil {
			t.Errorf("failed at once when work came after an idle hour: %v", err)
		}
		b.mustStayAlive(t, time.Hour)
	})
}

// One worker that hangs is found, even while the others work.
func TestStuckWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := newBench(t, func(_ context.Context, req reconcile.Request) (reconcile.Result, error) {
			if req.Name == "value-7" {
				<-stuck
			}
			return reconcile.Result{RequeueAfter: time.Second}, nil
		})
		b.lead(t)
		b.add(keys()...)
		b.mustStayAlive(t, Limit)
		if at, err := b.passes(time.Minute); err == nil || at > 10*time.Second {
			t.Errorf("after Limit: %v after %s, want a failure at once", err, at)
		}
		close(stuck)
		b.mustStayAlive(t, time.Hour)
	})
}

// A queue that hands nothing out is found, and what is only delayed is not waited for.
func TestStuckQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil })
		b.lead(t)
		queue := b.Queue("stuck", nil)
		defer queue.ShutDown()
		queue.AddAfter(reconcile.Request{NamespacedName: keys()[0]}, time.Hour)
		b.mustStayAlive(t, time.Hour-10*time.Second)
		b.mustStayAlive(t, Limit)
		if at, err := b.passes(time.Minute); err == nil || at > 20*time.Second {
			t.Errorf("after Limit: %v after %s, want a failure at once", err, at)
		}
	})
}

// The log has each time that work stands still once, with the cause, however often the kubelet asks.
func TestStandstillIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := newBench(t, func(context.Context, reconcile.Request) (reconcile.Result, error) {
			<-stuck
			return reconcile.Result{}, nil
		})
		b.lead(t)
		for before, free := range []func(){func() { stuck <- struct{}{} }, func() { close(stuck) }} {
			b.add(keys()[0])
			b.mustStayAlive(t, Limit)
			if len(b.logged) != before {
				t.Errorf("logged %q while work goes on", b.logged)
			}
			for range 10 {
				if _, err := b.passes(10 * time.Second); err == nil {
					t.Error("did not fail")
				}
			}
			if len(b.logged) != before+1 || !strings.Contains(b.logged[before], "a look at an object has not returned") {
				t.Errorf("logged %q, want the cause once for each time", b.logged)
			}
			free()
			b.mustStayAlive(t, 10*time.Second)
		}
	})
}
