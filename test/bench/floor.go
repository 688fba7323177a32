package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// floorRatio is how many times as long as the floor the operator may take.
const floorRatio = 1.15

// floorObjects is with how many objects the floor is measured at most: more take too long.
const floorObjects = 10_000

// bareHands is how many objects the bare client works at: as many as a connection lets the operator write at a time.
const bareHands = v1alpha1.DefaultMaxInFlight

// floor is how long the requests take that the operator must send, sent by a client that does nothing else. It has no cache and decides
// nothing: it knows all names beforehand, and reads of an answer only what the next request needs.
type floor struct {
	coldStart, burst, teardown time.Duration
}

// overFloor measures how many times as long as the floor something took.
func overFloor(took, floor time.Duration, record func(measurement)) {
	if floor > 0 {
		record(measurement{Measure: "the bare client", Unit: unitSeconds, Values: seconds(floor)})
		record(measurement{
			Measure: "to the bare client", Unit: unitRatio, Target: atMost(floorRatio), Values: []float64{took.Seconds() / floor.Seconds()},
		})
	}
}

// measureFloor sends the requests of a cold start of n objects, a burst of rotations and a teardown, while no manager runs. It leaves
// nothing behind but events. Before that it does the same with a few objects: a new API server is slow.
func measureFloor(ctx context.Context, w *world, n int) (floor, error) {
	b, err := newBare(w, n)
	if err != nil {
		return floor{}, err
	}
	if _, err := b.measure(ctx, min(n, 200)); err != nil {
		return floor{}, err
	}
	return b.measure(ctx, n)
}

func (b *bare) measure(ctx context.Context, n int) (f floor, err error) {
	if err = b.w.makeSecrets(ctx, 0, n); err != nil {
		return f, err
	}
	if f.coldStart, err = b.timed(ctx, n, 0, b.makeObject, b.sync, "patch grafanasecurevalues/status"); err != nil {
		return f, err
	}
	if f.burst, err = b.timed(ctx, min(n, burstObjects), 0, b.w.rotate, b.rotation, "patch grafanasecurevalues/status"); err != nil {
		return f, err
	}
	count := min(n, teardownObjects)
	if f.teardown, err = b.timed(ctx, count, 0, b.w.deleteObject, b.remove, "patch grafanasecurevalues"); err != nil {
		return f, err
	}
	_, err = b.timed(ctx, n-count, count, b.w.deleteObject, b.remove, "patch grafanasecurevalues") // leaves nothing behind
	return f, err
}

// timed has the load do something for n numbers from first on, has the bare client follow it, and returns how long it took until the last
// such request to the API server.
func (b *bare) timed(
	ctx context.Context, n, first int, load, follow func(context.Context, int) error, last string,
) (time.Duration, error) {
	since, err := reset(ctx, b.w)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	ready := make(chan int, n)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(ready)
		return b.w.each(groupCtx, "bare client", first, n, func(ctx context.Context, i int) error {
			err := load(ctx, i)
			ready <- i
			return err
		})
	})
	for range bareHands {
		group.Go(func() error {
			for i := range ready {
				if err := follow(groupCtx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, fmt.Errorf("the bare client: %w", err)
	}
	return b.w.lastRequest(since, begun, last)
}

// deleteObject deletes object i, and its Secret.
func (w *world) deleteObject(ctx context.Context, i int) error {
	if err := w.k8s.Delete(ctx, objectOf(nameOf(i), i, defaultConnection)); err != nil {
		return err
	}
	return w.k8s.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: nameOf(i)}})
}

// lastRequest returns when the last request of a kind arrived, for example "patch grafanasecurevalues/status", whoever sent it.
func (w *world) lastRequest(since controlplane.Mark, begun time.Time, kind string) (time.Duration, error) {
	events, err := w.plane.Audit(since)
	if err != nil {
		return 0, err
	}
	var last time.Time
	for _, e := range events {
		if kindOf(e) == kind && e.Time.After(last) {
			last = e.Time
		}
	}
	return last.Sub(begun), nil
}

// lastUpdate returns when Grafana answered the last update.
func (w *world) lastUpdate(ctx context.Context, begun time.Time) (time.Duration, error) {
	calls, err := w.grafana.calls(ctx)
	if err != nil {
		return 0, err
	}
	var last time.Time
	for _, c := range calls {
		if c.Verb == grafanatest.VerbUpdate && c.End.After(last) {
			last = c.End
		}
	}
	return last.Sub(begun), nil
}

// bareInformerCommand makes this program a client that fills the caches that the manager has, and ends.
const bareInformerCommand = "bare-informer"

func runBareInformer(ctx context.Context, args []string) error {
	config, err := clientcmd.BuildConfigFromFlags("", args[1])
	if err != nil {
		return err
	}
	config.QPS = -1 // as the manager has it
	informers, err := cache.New(config, cache.Options{Scheme: operator.Scheme()})
	if err != nil {
		return err
	}
	secret, namespace := &metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	for _, kind := range []client.Object{
		&v1alpha1.GrafanaSecureValue{}, &v1alpha1.GrafanaSecureValueSet{}, &v1alpha1.GrafanaConnection{}, &v1alpha1.ClusterGrafanaConnection{}, secret, namespace,
	} {
		if _, err := informers.GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = informers.Start(ctx) }()
	if !informers.WaitForCacheSync(ctx) {
		return errors.New("the caches were not filled")
	}
	return nil
}

// bareInformer returns how long that takes, from the start of a process to its end: the median of three.
func (w *world) bareInformer(ctx context.Context) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var took [3]time.Duration
	for i := range took {
		begun := time.Now()
		out, err := exec.CommandContext(ctx, self, bareInformerCommand, w.kubeconfig).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("the bare informer: %w\n%s", err, out)
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took[:])
	return took[1], nil
}
