package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// scenario is what is measured in one world.
type scenario struct {
	name  string
	about string
	// fresh has it run whether or not n objects are at rest.
	fresh bool
	// floor is whether it is compared with the bare client.
	floor bool
	run   func(ctx context.Context, w *world, n int, record func(measurement)) error
}

// scenarios are in the order in which they run. Each leaves all objects in sync.
var scenarios = []scenario{
	{name: "start", about: "the manager is started, before there are objects", fresh: true, run: start},
	{name: "cold-start", about: "n new objects are made, whose Secrets are there", fresh: true, floor: true, run: coldStart},
	{name: "memory", about: "the manager with n objects, started again and at rest", run: memory},
	{name: "restart", about: "the manager is started again, with n objects in sync", run: restart},
	{name: "idle", about: "nothing happens for 30 s", run: idle},
	{name: "rotation", about: "200 Secrets change one after the other, with n objects at rest", run: rotation},
	{name: "templates", about: "200 Secrets change, and again once their objects have a template of two", run: templates},
	{name: "sets", about: "n new objects are made, then a set of n keys, then n/5 sets of 5 keys", fresh: true, run: sets},
	{name: "burst", about: "1,000 Secrets change at once", floor: true, run: burst},
	{name: "outage", about: "n Secrets change while Grafana answers 503, and it comes back", run: outage},
	{name: "busy-rotation", about: "200 Secrets change while n more objects are new", run: busyRotation},
	{name: "hanging", about: "200 Secrets change while another Grafana accepts calls and answers none", run: hanging},
	{name: "limited", about: "1,000 new objects are made, with the default rate limit", run: limited},
	{name: "foreign-secrets", about: "5,000 Secrets of 32 KB that nobody reads", run: foreignSecrets(5000, 32<<10, 10)},
	{name: "foreign-large", about: "300 Secrets of 1 MB that nobody reads", run: foreignSecrets(300, 1000<<10, 5)},
	{name: "foreign-small", about: "30,000 Secrets of 1 KB that nobody reads", run: foreignSecrets(30_000, 1<<10, 25)},
	{name: "writes", about: "the manager does not run, and forms of its requests are compared, 500 of each", run: writes},
	{name: "failover", about: "the leader is killed or stopped, with a standby beside it", run: failover},
	{name: "teardown", about: "5,000 objects are deleted, each with its Secret", floor: true, run: teardown},
}

// expected is what n objects may cost in calls.
type expected map[string]int

// counted measures how many calls there were of each kind since the mark and the last reset of the fake Grafana.
func counted(ctx context.Context, w *world, since controlplane.Mark, want expected, record func(measurement)) error {
	requests, err := w.requests(since)
	if err != nil {
		return err
	}
	calls, err := w.grafana.count(ctx)
	if err != nil {
		return err
	}
	for verb, n := range calls {
		requests["Grafana "+string(verb)] = n
	}
	for call := range requests {
		if _, known := want[call]; !known {
			want[call] = 0
		}
	}
	kinds := make([]string, 0, len(want))
	for call := range want {
		kinds = append(kinds, call)
	}
	slices.Sort(kinds)
	for _, call := range kinds {
		record(measurement{Measure: call, Unit: unitCount, Target: exactly(float64(want[call])), Values: []float64{float64(requests[call])}})
	}
	return nil
}

// reset returns the mark from which on calls are counted.
func reset(ctx context.Context, w *world) (controlplane.Mark, error) {
	err := w.grafana.reset(ctx)
	return w.plane.Mark(), err
}

// measured is reset, and the CPU used up to then.
func (w *world) measured(ctx context.Context) (since controlplane.Mark, before cpu, err error) {
	if since, err = reset(ctx, w); err != nil {
		return since, before, err
	}
	before, err = w.cpu()
	return since, before, err
}

func seconds(d time.Duration) []float64 { return []float64{d.Seconds()} }

func coldStart(ctx context.Context, w *world, n int, record func(measurement)) error {
	started, err := w.coldStart(ctx, n, nil, record)
	if err != nil {
		return err
	}
	overFloor(started.took, w.floor.coldStart, record)
	used, err := w.manager.usage() // of its whole life, which is this
	if err != nil {
		return err
	}
	record(measurement{
		Measure: "CPU of the manager for each object", Unit: unitMilliseconds, Target: atMost(2), Values: []float64{started.cpu.Seconds() * 1000 / float64(n)},
	})
	record(measurement{Measure: "memory, peak", Unit: unitMiB, Target: atMost(peakBudget(n)), Values: []float64{used.peak}})
	return nil
}

// spent is the time that something took, and what the manager used of the CPU for it.
type spent struct{ took, cpu time.Duration }

// coldStart makes n new objects, and returns what it took until the last one was Ready.
func (w *world) coldStart(ctx context.Context, n int, goal *target, record func(measurement)) (s spent, err error) {
	from := w.made
	if err := w.makeSecrets(ctx, from, n); err != nil {
		return s, err
	}
	if err := w.settled(ctx); err != nil {
		return s, err
	}
	since, before, err := w.measured(ctx)
	if err != nil {
		return s, err
	}
	begun := time.Now()
	err = w.profiled(ctx, func() error {
		if err := w.makeObjects(ctx, from, n); err != nil {
			return err
		}
		return w.synced(ctx)
	})
	if err != nil {
		return s, err
	}
	if err := w.reallySynced(ctx); err != nil {
		return s, err
	}
	s.took, err = w.lastRequest(since, begun, "patch grafanasecurevalues/status")
	if err != nil {
		return s, err
	}
	record(measurement{Measure: "all Ready", Unit: unitSeconds, Target: goal, Values: seconds(s.took)})
	if s.cpu, err = w.spentSince(before, record); err != nil {
		return s, err
	}
	if err := w.settled(ctx); err != nil {
		return s, err
	}
	events, err := w.events(since)
	if err != nil {
		return s, err
	}
	record(measurement{Measure: "create events", Unit: unitCount, Target: exactly(float64(n)), Values: []float64{float64(events)}})
	return s, counted(ctx, w, since, expected{
		"Grafana create": n, "get secrets": n, "patch grafanasecurevalues": n, "patch grafanasecurevalues/status": n,
	}, record)
}

// cpu is what has been used of it until now.
type cpu struct{ manager, controlPlane time.Duration }

func (w *world) cpu() (cpu, error) {
	manager, err := w.manager.usage()
	if err != nil {
		return cpu{}, err
	}
	controlPlane, err := controlPlaneCPU()
	return cpu{manager.cpu, controlPlane}, err
}

// spentSince measures the CPU used since then, and returns the manager's.
func (w *world) spentSince(then cpu, record func(measurement)) (manager time.Duration, err error) {
	now, err := w.cpu()
	if err != nil {
		return 0, err
	}
	record(measurement{Measure: "CPU of the manager", Unit: unitSeconds, Values: seconds(now.manager - then.manager)})
	record(measurement{
		Measure: "CPU of kube-apiserver and etcd", Unit: unitSeconds, Values: seconds(now.controlPlane - then.controlPlane),
	})
	return now.manager - then.manager, nil
}

// memoryBudget is what the process may take at rest with n objects, in MiB.
func memoryBudget(n int) float64 {
	switch {
	case n <= 1000:
		return 72
	case n <= 10_000:
		return 110
	default:
		return 300
	}
}

// peakBudget is what it may take at its peak.
func peakBudget(n int) float64 { return 1.25 * memoryBudget(n) }

// reconciledAll starts the manager again, and waits until it has reconciled all objects.
func reconciledAll(ctx context.Context, w *world) (time.Duration, error) {
	if err := w.restart(); err != nil {
		return 0, err
	}
	var took time.Duration
	err := w.profiled(ctx, func() error {
		err := w.untilEvery(ctx, fine, "reconciled", w.made, func() (int, error) { return w.reconciles(ctx), nil })
		took = time.Since(w.manager.started)
		return err
	})
	return took, err
}

func restart(ctx context.Context, w *world, _ int, record func(measurement)) error {
	bare, err := w.bareInformer(ctx) // the manager is at rest
	if err != nil {
		return err
	}
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	took, err := reconciledAll(ctx, w)
	if err != nil {
		return err
	}
	used, err := w.manager.usage()
	if err != nil {
		return err
	}
	record(measurement{Measure: "all reconciled", Unit: unitSeconds, Target: atMost(3), Values: seconds(took)})
	overFloor(took, bare, record)
	record(measurement{Measure: "CPU of the manager", Unit: unitSeconds, Values: seconds(used.cpu)})
	if err := w.settled(ctx); err != nil {
		return err
	}
	return counted(ctx, w, since, expected{
		"Grafana list": 1, "get secrets": 0, "patch grafanasecurevalues": 0, "patch grafanasecurevalues/status": 0,
	}, record)
}

// atRest is how long a process is left alone before its memory is read. Go's runtime collects what a start has left once two minutes
// have passed, and gives it back.
const atRest = 150 * time.Second

// restUsage is what a manager used that was started with so many objects, and nothing else, and then left alone.
type restUsage struct {
	objects int
	used    usage
}

// atRestAlone returns what a manager uses that is started again with the objects that there are, and left alone. It measures it once.
func atRestAlone(ctx context.Context, w *world) (usage, error) {
	if w.alone.objects == w.made {
		return w.alone.used, nil
	}
	used, err := atRestAgain(ctx, w)
	if err == nil {
		w.alone = restUsage{objects: w.made, used: used}
	}
	return used, err
}

// atRestAgain returns what a manager uses that was started again and then left alone.
func atRestAgain(ctx context.Context, w *world) (usage, error) {
	if _, err := reconciledAll(ctx, w); err != nil {
		return usage{}, err
	}
	if err := w.connected(ctx, defaultConnection); err != nil {
		return usage{}, err
	}
	if err := pause(ctx, atRest); err != nil {
		return usage{}, err
	}
	return w.manager.usage()
}

func memory(ctx context.Context, w *world, n int, record func(measurement)) error {
	used, err := atRestAlone(ctx, w)
	if err != nil {
		return err
	}
	record(measurement{Measure: "at rest", Unit: unitMiB, Target: atMost(memoryBudget(n)), Values: []float64{used.rss}})
	record(measurement{Measure: "peak at the start", Unit: unitMiB, Target: atMost(peakBudget(n)), Values: []float64{used.peak}})
	return nil
}

// foreignSecrets returns a scenario that measures what so many Secrets of that size add to the memory.
func foreignSecrets(secrets, size int, limit float64) func(context.Context, *world, int, func(measurement)) error {
	return func(ctx context.Context, w *world, _ int, record func(measurement)) error {
		before, err := atRestAlone(ctx, w)
		if err != nil {
			return err
		}
		if err := w.makeForeign(ctx, secrets, size); err != nil {
			return err
		}
		after, err := atRestAgain(ctx, w)
		if err != nil {
			return err
		}
		record(measurement{Measure: "more at rest", Unit: unitMiB, Target: atMost(limit), Values: []float64{after.rss - before.rss}})
		record(measurement{Measure: "more at the peak", Unit: unitMiB, Target: atMost(40), Values: []float64{after.peak - before.peak}})
		return w.each(ctx, "foreign Secrets deleted", 0, secrets, func(ctx context.Context, i int) error {
			return w.k8s.Delete(ctx, foreignSecret(i))
		})
	}
}

// makeForeign makes Secrets that no object reads.
func (w *world) makeForeign(ctx context.Context, n, size int) error {
	const hands = 4 // etcd has others wait while it takes large ones
	content := map[string][]byte{"content": make([]byte, size)}
	return eachBy(ctx, hands, "foreign Secrets made", 0, n, func(ctx context.Context, i int) error {
		secret := foreignSecret(i)
		secret.Data = content
		return w.k8s.Create(ctx, secret)
	})
}

func foreignSecret(i int) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: foreignNamespace, Name: fmt.Sprintf("foreign-%d", i)}}
}

func idle(ctx context.Context, w *world, _ int, record func(measurement)) error {
	if err := w.settled(ctx); err != nil {
		return err
	}
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	before, err := w.manager.usage()
	if err != nil {
		return err
	}
	const length = 30 * time.Second
	if err := pause(ctx, length); err != nil {
		return err
	}
	after, err := w.manager.usage()
	if err != nil {
		return err
	}
	millicores := (after.cpu - before.cpu).Seconds() / length.Seconds() * 1000
	record(measurement{Measure: "CPU of the manager", Unit: unitMillicores, Target: atMost(3), Values: []float64{millicores}})
	return counted(ctx, w, since, expected{"Grafana list": 0, "patch grafanasecurevalues/status": 0, "get secrets": 0}, record)
}

// rotations is how many Secrets change one after the other.
const rotations = 200

// spread returns how many of n numbers are taken, at most want, and how far they are apart.
func spread(n, want int) (count, step int) {
	count = min(n, want)
	return count, n / count
}

func rotation(ctx context.Context, w *world, n int, record func(measurement)) error {
	count, _ := spread(n, rotations)
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	var took []float64
	if err := w.profiled(ctx, func() error { took, err = w.rotateSlowly(ctx, n); return err }); err != nil {
		return err
	}
	record(measurement{Measure: "Secret to Grafana, median", Unit: unitMilliseconds, Values: []float64{quantile(took, 0.5)}})
	record(measurement{Measure: "Secret to Grafana, p99", Unit: unitMilliseconds, Target: atMost(40), Values: []float64{quantile(took, 0.99)}})
	if err := w.settled(ctx); err != nil {
		return err
	}
	return counted(ctx, w, since, expected{
		"Grafana get": count, "Grafana update": count, "get secrets": count, "patch grafanasecurevalues/status": count,
	}, record)
}

// rotateSlowly changes Secrets one after the other, and returns the milliseconds from each request to the arrival of its PUT.
func (w *world) rotateSlowly(ctx context.Context, n int) ([]float64, error) {
	count, step := spread(n, rotations)
	sent := map[string]time.Time{}
	for i := range count {
		sent[nameOf(i*step)] = time.Now()
		if err := w.rotate(ctx, i*step); err != nil {
			return nil, err
		}
		if err := pause(ctx, 40*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := w.written(ctx, count); err != nil {
		return nil, err
	}
	calls, err := w.grafana.calls(ctx)
	if err != nil {
		return nil, err
	}
	var took []float64
	for _, c := range calls {
		if at, ours := sent[c.Name]; ours && c.Verb == grafanatest.VerbUpdate && c.Start.After(at) {
			took = append(took, float64(c.Start.Sub(at).Microseconds())/1000)
			delete(sent, c.Name)
		}
	}
	if len(sent) > 0 {
		return nil, fmt.Errorf("%d rotations did not reach Grafana", len(sent))
	}
	return took, nil
}

// written waits until Grafana has answered that many updates.
func (w *world) written(ctx context.Context, n int) error {
	return w.until(ctx, "reached Grafana", n, func() (int, error) {
		counts, err := w.grafana.count(ctx)
		return counts[grafanatest.VerbUpdate], err
	})
}

// burstObjects is how many Secrets change at once.
const burstObjects = 1000

func burst(ctx context.Context, w *world, n int, record func(measurement)) error {
	count := min(n, burstObjects)
	since, before, err := w.measured(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	err = w.profiled(ctx, func() error {
		err := w.each(ctx, "Secrets changed", 0, count, w.rotate)
		if err != nil {
			return err
		}
		return w.written(ctx, count)
	})
	if err != nil {
		return err
	}
	took, err := w.lastUpdate(ctx, begun)
	if err != nil {
		return err
	}
	record(measurement{Measure: "last in Grafana", Unit: unitSeconds, Values: seconds(took)})
	if _, err := w.spentSince(before, record); err != nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	if took, err = w.lastRequest(since, begun, "patch grafanasecurevalues/status"); err != nil {
		return err
	}
	record(measurement{Measure: "last in status", Unit: unitSeconds, Values: seconds(took)})
	overFloor(took, w.floor.burst, record)
	return counted(ctx, w, since, expected{
		"Grafana get": count, "Grafana update": count, "get secrets": count, "patch grafanasecurevalues/status": count,
	}, record)
}

func outage(ctx context.Context, w *world, n int, record func(measurement)) error {
	if err := w.grafana.down(ctx, http.StatusServiceUnavailable); err != nil {
		return err
	}
	if err := w.each(ctx, "Secrets changed", 0, n, w.rotate); err != nil {
		return err
	}
	err := w.until(ctx, "report that Grafana fails", n, func() (int, error) {
		return w.manager.metric(ctx, "gsv_secure_values", `reason="GrafanaUnavailable"`), nil
	})
	if err != nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	const length = time.Minute
	if err := pause(ctx, length); err != nil {
		return err
	}
	calls, err := w.grafana.calls(ctx)
	if err != nil {
		return err
	}
	record(measurement{Measure: "requests in a minute", Unit: unitCount, Target: atMost(5), Values: []float64{float64(len(calls))}})
	requests, err := w.requests(since)
	if err != nil {
		return err
	}
	record(measurement{
		Measure: "writes to Kubernetes meanwhile", Unit: unitCount, Target: exactly(0),
		Values: []float64{float64(requests["patch grafanasecurevalues"] + requests["patch grafanasecurevalues/status"])},
	})
	if since, err = reset(ctx, w); err != nil {
		return err
	}
	if err := w.grafana.up(ctx); err != nil {
		return err
	}
	back := time.Now()
	if err := w.written(ctx, 1); err != nil {
		return err
	}
	first := time.Now()
	if err := w.synced(ctx); err != nil {
		return err
	}
	// The connection and an object take turns, each up to 21 s after the other.
	record(measurement{Measure: "back until the first write", Unit: unitSeconds, Target: atMost(45), Values: seconds(first.Sub(back))})
	record(measurement{Measure: "first write until all are Ready", Unit: unitSeconds, Values: seconds(time.Since(first))})
	if err := w.settled(ctx); err != nil {
		return err
	}
	if calls, err = w.grafana.calls(ctx); err != nil {
		return err
	}
	record(measurement{
		Measure: "Grafana update", Unit: unitCount, Target: exactly(float64(n)), Values: []float64{float64(count(calls)[grafanatest.VerbUpdate])},
	})
	if requests, err = w.requests(since); err != nil {
		return err
	}
	record(measurement{
		Measure: "patch grafanasecurevalues/status", Unit: unitCount, Target: exactly(float64(n)),
		Values: []float64{float64(requests["patch grafanasecurevalues/status"])},
	})
	return nil
}

func busyRotation(ctx context.Context, w *world, n int, record func(measurement)) error {
	from := w.made
	if err := w.makeSecrets(ctx, from, n); err != nil {
		return err
	}
	if _, err := reset(ctx, w); err != nil {
		return err
	}
	made := make(chan error, 1)
	go func() { made <- w.makeObjects(ctx, from, n) }()
	took, err := w.rotateSlowly(ctx, n)
	if err := <-made; err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if err := w.synced(ctx); err != nil {
		return err
	}
	record(measurement{Measure: "Secret to Grafana, p99", Unit: unitMilliseconds, Target: atMost(1000), Values: []float64{quantile(took, 0.99)}})
	return nil
}
