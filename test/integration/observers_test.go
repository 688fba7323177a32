package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// Health codes of Argo CD.
const (
	healthy     = "Healthy"
	progressing = "Progressing"
	degraded    = "Degraded"
	paused      = "Suspended"
)

// outcome is what the tools of a GitOps pipeline are to make of a reason of Ready.
type outcome string

const (
	done    outcome = "done"
	waits   outcome = "waits"   // for time, or for what is missing
	fails   outcome = "fails"   // until a person acts
	resting outcome = "resting" // as its Ready was before
)

// outcomes has every reason of the closed set.
var outcomes = map[string]outcome{
	v1alpha1.ReasonSynced:    done,
	v1alpha1.ReasonConnected: done,
	v1alpha1.ReasonSuspended: resting,

	v1alpha1.ReasonGrafanaUnavailable:  waits,
	v1alpha1.ReasonSecretNotFound:      waits,
	v1alpha1.ReasonSecretKeyNotFound:   waits,
	v1alpha1.ReasonValueEmpty:          waits,
	v1alpha1.ReasonConnectionNotFound:  waits,
	v1alpha1.ReasonConnectionNotReady:  waits,
	v1alpha1.ReasonDeletionBlocked:     waits,
	v1alpha1.ReasonCredentialsNotFound: waits,
	v1alpha1.ReasonGrafanaNotFound:     waits,
	v1alpha1.ReasonUnreachable:         waits,
	v1alpha1.ReasonInvalidResponse:     waits,
	v1alpha1.ReasonRateLimited:         waits,
	v1alpha1.ReasonInUse:               waits,
	v1alpha1.ReasonReleased:            waits, // of an object that is being deleted, which kstatus calls Terminating
	v1alpha1.ReasonKubernetesRefused:   waits,
	v1alpha1.ReasonSourceFlapping:      waits,
	v1alpha1.ReasonProgressing:         waits,
	v1alpha1.ReasonNothingSelected:     waits,
	// fails where it is Stalled, as each GrafanaSecureValue that is not Ready is.
	v1alpha1.ReasonSecureValuesNotReady: waits,

	v1alpha1.ReasonValueTooLarge:        fails,
	v1alpha1.ReasonSourceNotAllowed:     fails,
	v1alpha1.ReasonValueNotUTF8:         fails,
	v1alpha1.ReasonTemplateInvalid:      fails,
	v1alpha1.ReasonTransformFailed:      fails,
	v1alpha1.ReasonInvalidSpec:          fails,
	v1alpha1.ReasonRejectedByGrafana:    fails,
	v1alpha1.ReasonDrifted:              fails,
	v1alpha1.ReasonNameNotAllowed:       fails,
	v1alpha1.ReasonDecrypterNotAllowed:  fails,
	v1alpha1.ReasonNameConflict:         fails,
	v1alpha1.ReasonAlreadyExists:        fails,
	v1alpha1.ReasonAdoptionNotAllowed:   fails,
	v1alpha1.ReasonForbidden:            fails,
	v1alpha1.ReasonConnectionNotAllowed: fails,
	v1alpha1.ReasonCredentialsInvalid:   fails,
	v1alpha1.ReasonGrafanaNotSupported:  fails,
	v1alpha1.ReasonUnauthorized:         fails,
	v1alpha1.ReasonNamespaceRejected:    fails,
	v1alpha1.ReasonAPINotServed:         fails,
	v1alpha1.ReasonLabelsNotKept:        fails,
	v1alpha1.ReasonValuesMissing:        fails,
	v1alpha1.ReasonTLSError:             fails,
	v1alpha1.ReasonRedirectRefused:      fails,
	v1alpha1.ReasonNameCollision:        fails,
	v1alpha1.ReasonChildConflict:        fails,
	v1alpha1.ReasonTooManySecureValues:  fails,
}

// opinion is what kstatus, and with it Flux, and Argo CD with our script make of one version of an object.
type opinion struct {
	Reason  string // of Ready, "" before the first reconcile
	KStatus status.Status
	Health  string
}

// ours are the four kinds with their resources.
var ours = map[string]string{
	"GrafanaSecureValue": "grafanasecurevalues", "GrafanaSecureValueSet": "grafanasecurevaluesets",
	"GrafanaConnection": "grafanaconnections", "ClusterGrafanaConnection": "clustergrafanaconnections",
}

// judge returns what the tools make of an object, and the complaint if that is not right. health is our script for its kind.
func judge(health script, u *unstructured.Unstructured) (opinion, error) {
	o := &v1alpha1.GrafanaSecureValue{} // whose conditions are as those of the others
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o); err != nil {
		return opinion{}, err
	}
	result, err := status.Compute(u)
	if err != nil {
		return opinion{}, err
	}
	returned, err := health.run(u)
	if err != nil {
		return opinion{}, err
	}
	shown, _ := returned.(map[string]any)
	seen := opinion{KStatus: result.Status, Health: fmt.Sprint(shown["status"])}
	ready := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	if ready != nil {
		seen.Reason = ready.Reason
	}

	want := expected(o, ready)
	if want.Health == "" {
		want.Health = seen.Health
	}
	switch {
	case seen != want:
		return seen, fmt.Errorf("it is taken for %+v, and is %+v", seen, want)
	case ready != nil && o.Status.ObservedGeneration == o.Generation && shown["message"] != ready.Message:
		return seen, fmt.Errorf("it shows %q in Argo CD", shown["message"])
	case u.GetKind() == kindValue && seen.Reason == v1alpha1.ReasonSynced && seen.KStatus == status.CurrentStatus:
		return seen, isDone(o)
	}
	return seen, nil
}

// expected returns what the tools are to make of an object. Argo CD itself takes an object that is being deleted for
// Progressing, and asks no script: its health is left open.
func expected(o *v1alpha1.GrafanaSecureValue, ready *metav1.Condition) opinion {
	if ready == nil {
		ready = &metav1.Condition{}
	}
	want := opinion{Reason: ready.Reason}
	switch {
	case !o.DeletionTimestamp.IsZero():
		want.KStatus = status.TerminatingStatus
		return want
	case o.Status.ObservedGeneration != o.Generation || ready.ObservedGeneration != o.Generation:
		want.KStatus, want.Health = status.InProgressStatus, progressing
		return want
	}
	means := outcomes[ready.Reason]
	if ready.Reason == v1alpha1.ReasonSecureValuesNotReady && meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionStalled) {
		means = fails
	}
	switch means {
	case done:
		want.KStatus, want.Health = status.CurrentStatus, healthy
	case waits:
		want.KStatus, want.Health = status.InProgressStatus, progressing
	case fails:
		want.KStatus, want.Health = status.FailedStatus, degraded
	case resting:
		want.KStatus, want.Health = status.InProgressStatus, paused
		if ready.Status == metav1.ConditionTrue {
			want.KStatus = status.CurrentStatus
		}
	}
	return want
}

// isDone complains if status does not match spec.
func isDone(sv *v1alpha1.GrafanaSecureValue) error {
	if len(sv.Status.Targets) != 1 {
		return fmt.Errorf("it is done, and owns %d targets", len(sv.Status.Targets))
	}
	target := sv.Status.Targets[0]
	var secrets []string
	for _, s := range target.Sources {
		secrets = append(secrets, s.Name)
	}
	if sv.Spec.ValueFrom.Template == nil && target.Source != nil && target.Source.Key == sv.Spec.ValueFrom.SecretKeyRef.Key {
		secrets = append(secrets, target.Source.Name)
	}
	if target.Name != sv.SecureValueName() || target.Connection != sv.ConnectionOrDefault() || !slices.Equal(secrets, sv.Spec.ValueFrom.Secrets()) {
		return fmt.Errorf("it is done, and owns %+v for %+v", target, sv.Spec)
	}
	return nil
}

// observer sees every version of every object of the four kinds that an API server shows, and judges it. It costs one watch for each
// kind, and keeps nothing but opinions that differ from the one before.
type observer struct {
	client  dynamic.Interface
	scripts map[string]script // by kind
	cancel  context.CancelFunc

	mu       sync.Mutex
	newest   map[types.UID]string // resourceVersion
	opinions map[string][]opinion // by kind, namespace and name
	reasons  map[string]bool      // that were met
	staged   bool                 // what comes is a spec's own and no manager's
	wrong    []string
}

// observers are those of the control planes that run.
var observers = map[*controlplane.ControlPlane]*observer{}

// observe has an observer see what the control plane shows. stopObserving must follow: an API server does not end while it is watched.
func observe(ctx context.Context, at *controlplane.ControlPlane) {
	GinkgoHelper()
	c, err := dynamic.NewForConfig(at.Config())
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o := &observer{
		client: c, scripts: map[string]script{}, cancel: cancel,
		newest: map[types.UID]string{}, opinions: map[string][]opinion{}, reasons: map[string]bool{},
	}
	observers[at] = o
	for kind, resource := range ours {
		o.scripts[kind], err = readScript(kind, "health.lua")
		Expect(err).NotTo(HaveOccurred())
		source := c.Resource(v1alpha1.GroupVersion.WithResource(resource))
		list, err := source.List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		watcher, err := watchtools.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), &cache.ListWatch{
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return source.Watch(ctx, options)
			},
		})
		Expect(err).NotTo(HaveOccurred())
		go func() {
			for event := range watcher.ResultChan() {
				if object, ok := event.Object.(*unstructured.Unstructured); ok {
					o.see(event.Type, object)
				}
			}
		}()
	}
}

// stopObserving ends the observer of a control plane, which must have had nothing to complain of, and returns the reasons that a manager gave.
func stopObserving(at *controlplane.ControlPlane) []string {
	GinkgoHelper()
	o := observers[at]
	o.cancel()
	delete(observers, at)
	Expect(o.complaints()).To(BeEmpty())
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.reasons))
}

func (o *observer) see(event watch.EventType, object *unstructured.Unstructured) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.newest[object.GetUID()] = object.GetResourceVersion()
	if event == watch.Deleted {
		return
	}
	out, _ := object.MarshalJSON()
	scan(object.GetKind(), string(out))
	seen, err := judge(o.scripts[object.GetKind()], object)
	if err != nil {
		o.wrong = append(o.wrong, fmt.Sprintf("%s %s: %v\n%s", object.GetKind(), client.ObjectKeyFromObject(object), err, out))
	}
	if !o.staged {
		o.reasons[seen.Reason] = true
	}
	key := object.GetKind() + " " + client.ObjectKeyFromObject(object).String()
	if before := o.opinions[key]; len(before) == 0 || before[len(before)-1] != seen {
		o.opinions[key] = append(before, seen)
	}
}

// complaints returns the wrong judgements that were not returned yet.
func (o *observer) complaints() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	wrong := o.wrong
	o.wrong = nil
	return wrong
}

// upToDate waits until the observer has seen what the API server has now.
func (o *observer) upToDate(ctx context.Context) {
	GinkgoHelper()
	for _, resource := range ours {
		list, err := o.client.Resource(v1alpha1.GroupVersion.WithResource(resource)).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) {
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, item := range list.Items {
				newest := o.newest[item.GetUID()]
				g.Expect(newest).NotTo(BeEmpty(), "%s was not seen", client.ObjectKeyFromObject(&item))
				order, err := resourceversion.CompareResourceVersion(newest, item.GetResourceVersion())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(order).To(BeNumerically(">=", 0), "the newest version of %s was not seen", client.ObjectKeyFromObject(&item))
			}
		}).WithContext(ctx).Should(Succeed())
	}
}

// After each spec all that it showed was judged rightly.
var _ = AfterEach(func(ctx SpecContext) {
	for _, o := range observers {
		o.upToDate(ctx)
		Expect(o.complaints()).To(BeEmpty())
	}
})

// Where all specs were run, they have met every reason.
var _ = ReportAfterSuite("every reason was judged", func(report Report) {
	if !allPassed(report) {
		return
	}
	met := total(report).Reasons
	for reason := range outcomes {
		Expect(met).To(ContainElement(reason))
	}
})

// opinions returns what the tools made of each version of an object so far, without repetitions.
func opinions(ctx context.Context, kind string, object client.Object) []opinion {
	GinkgoHelper()
	o := observers[plane]
	o.upToDate(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.opinions[kind+" "+client.ObjectKeyFromObject(object).String()])
}

// stage says whether what comes is staged by a spec, which is not what a manager would do.
func stage(ctx context.Context, staged bool) {
	GinkgoHelper()
	o := observers[plane]
	o.upToDate(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.staged = staged
}
