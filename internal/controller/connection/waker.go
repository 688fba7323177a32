package connection

import (
	"context"
	"sync"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/gate"
)

// Waker hands objects back to their controller's queue. It is a source.Source of that controller. What is handed back
// before the controller has started is kept for it.
type Waker struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	early []reconcile.Request
}

// Start is called by the controller with its queue.
func (w *Waker) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.queue = queue
	for _, req := range w.early {
		queue.Add(req)
	}
	w.early = nil
	return nil
}

// Wake puts the object into the queue. It does not block.
func (w *Waker) Wake(key gate.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()

	req := reconcile.Request{NamespacedName: key}
	if w.queue == nil {
		w.early = append(w.early, req)
		return
	}
	w.queue.Add(req)
}
