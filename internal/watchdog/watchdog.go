// Package watchdog finds out that the operator has stopped to work although there is work.
package watchdog

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Limit is how long work may stand still. Whatever one look at an object waits for must end earlier.
const Limit = 5 * time.Minute

// Watchdog watches the queues and workers of controllers, while this process leads. Objects that are parked, at a gate or for a delay,
// are in no queue and do not count. A nil Watchdog watches nothing.
type Watchdog struct {
	log     logr.Logger
	elected <-chan struct{}

	mu       sync.Mutex
	queues   []interface{ Len() int }
	underway map[*time.Time]struct{} // when each look that has not returned was begun
	waiting  time.Time               // since when objects were seen in a queue, and no look has begun or returned; zero if not so
	failing  bool                    // the last Check failed
}

// New returns a watchdog that begins to watch when elected is closed.
func New(log logr.Logger, elected <-chan struct{}) *Watchdog {
	return &Watchdog{log: log, elected: elected, underway: map[*time.Time]struct{}{}}
}

// Queue makes the queue of a controller. It is a controller.Options.NewQueue.
func (w *Watchdog) Queue(
	name string, limiter workqueue.TypedRateLimiter[reconcile.Request],
) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	queue := priorityqueue.New(name, func(o *priorityqueue.Opts[reconcile.Request]) { o.RateLimiter = limiter })
	if w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.queues = append(w.queues, queue)
	}
	return queue
}

// Reconciler returns the reconciler r, watched.
func (w *Watchdog) Reconciler(r reconcile.Reconciler) reconcile.Reconciler {
	if w == nil {
		return r
	}
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		defer w.begin()()
		return r.Reconcile(ctx, req)
	})
}

// begin notes that a look has begun, and returns what notes that it has returned.
func (w *Watchdog) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Now()
	w.underway[&at] = struct{}{}
	w.waiting = time.Time{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.underway, &at)
		w.waiting = time.Time{}
	}
}

// Check reports that a look has not returned within Limit, or that none has begun or returned within Limit although objects are
// queued. It is a healthz.Checker, and must be asked more often than that. Who asks is not told why it fails, so the log is, once.
func (w *Watchdog) Check(*http.Request) error {
	select {
	case <-w.elected:
	default:
		return nil
	}
	w.mu.Lock()
	err := w.standstill(time.Now())
	begins := err != nil && !w.failing
	w.failing = err != nil
	w.mu.Unlock()
	if begins {
		w.log.Error(err, "Work stands still")
	}
	return err
}

// standstill says what has stood still for longer than Limit; nil if nothing has. w.mu is held.
func (w *Watchdog) standstill(now time.Time) error {
	for at := range w.underway {
		if d := now.Sub(*at); d > Limit {
			return fmt.Errorf("a look at an object has not returned for %s", d.Round(time.Second))
		}
	}
	queued := 0
	for _, queue := range w.queues {
		queued += queue.Len()
	}
	switch {
	case queued == 0:
		w.waiting = time.Time{}
	case w.waiting.IsZero():
		w.waiting = now
	case now.Sub(w.waiting) > Limit:
		return fmt.Errorf("%d objects are queued, and none was looked at for %s", queued, now.Sub(w.waiting).Round(time.Second))
	}
	return nil
}
