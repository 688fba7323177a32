// Package errorlog has an error that stays logged once. By itself controller-runtime logs it with each look that ends with it.
package errorlog

import (
	"context"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Log is the log of one controller. Of each object it has an error again only after another one, or after a look without.
type Log struct {
	log  logr.Logger
	kind string

	mu   sync.Mutex
	said map[reconcile.Request]string // the last error of each object that has one
}

// New returns a log for the controller of that kind.
func New(log logr.Logger, kind string) *Log {
	return &Log{log: log.WithValues("controller", strings.ToLower(kind)), kind: kind, said: map[reconcile.Request]string{}}
}

// Of returns the logger for looks at an object, or for the controller itself. It is a controller.Options.LogConstructor.
func (l *Log) Of(req *reconcile.Request) logr.Logger {
	if req == nil {
		return l.log
	}
	log := l.log.WithValues(l.kind, klog.KRef(req.Namespace, req.Name))
	return log.WithSink(sink{LogSink: log.GetSink(), log: l, of: *req})
}

// Reconciler returns the reconciler r, whose looks without an error end that of the object.
func (l *Log) Reconciler(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		result, err := r.Reconcile(ctx, req)
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.said, req)
		}
		return result, err
	})
}

// isNew reports whether an error is another one than the object's last, and remembers it.
func (l *Log) isNew(req reconcile.Request, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said[req] == err.Error() {
		return false
	}
	l.said[req] = err.Error()
	return true
}

// sink drops errors that were logged already.
type sink struct {
	logr.LogSink

	log *Log
	of  reconcile.Request
}

func (s sink) Error(err error, msg string, keysAndValues ...any) {
	if err == nil || s.log.isNew(s.of, err) {
		s.LogSink.Error(err, msg, keysAndValues...)
	}
}

func (s sink) WithName(name string) logr.LogSink {
	s.LogSink = s.LogSink.WithName(name)
	return s
}

func (s sink) WithValues(keysAndValues ...any) logr.LogSink {
	s.LogSink = s.LogSink.WithValues(keysAndValues...)
	return s
}
