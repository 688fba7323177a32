package operator

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	client "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/reference"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/recorder"
)

const (
	eventQueue   = 1000 // events that wait at most; further ones are dropped, as in every Kubernetes component
	eventSenders = 16   // requests at a time
	// maxEventObject bounds the name of the object in the name of an event, which may have 253 characters.
	maxEventObject = 230
	// maxEventInstance is what the API server takes as the name of who sends an event.
	maxEventInstance = 128
)

// eventBackoff is how an event is tried again where the API server does not answer, for a minute. No wait is long, since senders that wait
// send nothing once it answers again.
var eventBackoff = wait.Backoff{Duration: 5 * time.Second, Factor: 1, Jitter: 0.2, Steps: 12}

// announcing is a manager whose controllers send each event once, as protobuf. The recorder of client-go sends JSON, which costs the API server
// more, and keeps every event for six minutes to count repetitions: with many new objects, that is much of the memory.
type announcing struct {
	ctrl.Manager

	client  client.EventsV1Interface
	log     logr.Logger
	host    string
	queue   chan *eventsv1.Event
	ended   chan struct{}
	senders sync.WaitGroup
}

func newAnnouncing(restConfig *rest.Config, opts ctrl.Options) (*announcing, error) {
	mgr, err := ctrl.NewManager(restConfig, opts)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	config := rest.CopyConfig(mgr.GetConfig())
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	events, err := client.NewForConfigAndClient(config, mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	return &announcing{
		Manager: mgr, client: events, host: host, log: mgr.GetLogger().WithName("events"),
		queue: make(chan *eventsv1.Event, eventQueue), ended: make(chan struct{}),
	}, nil
}

// Start implements manager.Manager. It returns once the events that wait are sent, or a second has passed; where the manager ends with an
// error, at once, since another one may lead.
func (a *announcing) Start(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx)) // reconciles end later than ctx
	defer stop()
	for range eventSenders {
		a.senders.Go(func() { a.send(sending) })
	}
	err := a.Manager.Start(ctx)
	close(a.ended)
	if err != nil {
		stop()
	}
	time.AfterFunc(time.Second, stop)
	a.senders.Wait()
	return err
}

// send sends what is in the queue, until the manager has ended and the queue is empty.
func (a *announcing) send(ctx context.Context) {
	for {
		select {
		case event := <-a.queue:
			a.create(ctx, event)
		case <-a.ended:
			select {
			case event := <-a.queue:
				a.create(ctx, event)
			default:
				return
			}
		}
	}
}

// create sends an event. One that the API server refuses is dropped.
func (a *announcing) create(ctx context.Context, event *eventsv1.Event) {
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, eventBackoff, func(ctx context.Context) (bool, error) {
		_, err := a.client.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			return true, nil
		}
		if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown && !apierrors.IsTooManyRequests(err) {
			return false, err
		}
		last = err
		return false, nil
	})
	switch {
	case err == nil:
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause): // its objects are deleted, and nobody will read of it
	default:
		a.log.Error(cmp.Or(last, err), "Event not sent", "namespace", event.Namespace, "object", event.Regarding.Name, "reason", event.Reason)
	}
}

// GetEventRecorder implements recorder.Provider.
func (a *announcing) GetEventRecorder(name string) recorder.EventRecorder {
	return eventRecorder{a, name}
}

// eventRecorder puts events of one controller into the queue.
type eventRecorder struct {
	*announcing

	controller string
}

// Eventf implements events.EventRecorder.
func (r eventRecorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	r.AnnotatedEventf(regarding, related, nil, eventType, reason, action, note, args...)
}

// AnnotatedEventf implements events.AnnotatedEventRecorder. No event names a related object.
func (r eventRecorder) AnnotatedEventf(regarding, _ runtime.Object, annotations map[string]string, eventType, reason, action, note string, args ...any) {
	about, err := reference.GetReference(r.GetScheme(), regarding)
	if err != nil {
		r.log.Error(err, "Event not sent", "reason", reason)
		return
	}
	now, instance := metav1.NowMicro(), r.controller+"-"+r.host
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where the events of objects without a namespace are
	}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Annotations: annotations,
			// A cut name may not end with a separator.
			Name: fmt.Sprintf("%s.%x", strings.TrimRight(about.Name[:min(len(about.Name), maxEventObject)], "-."), now.UnixNano()),
		},
		EventTime: now, Type: eventType, Reason: reason, Action: action, Note: fmt.Sprintf(note, args...),
		Regarding: *about, ReportingController: r.controller, ReportingInstance: instance[:min(len(instance), maxEventInstance)],
	}
	select {
	case r.queue <- event:
	default:
		r.log.Info("Event dropped, because too many wait", "namespace", namespace, "object", about.Name, "reason", reason)
	}
}
