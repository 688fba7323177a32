package main

import (
	"context"
	"fmt"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// leaseDuration is how long a leader that does not renew its lease is waited for: the default of controller-runtime.
const leaseDuration = 15 * time.Second

// failoverRounds is how often a leader goes in each way.
const failoverRounds = 5

// failover has a leader go while a standby is there, and changes a Secret once it is gone. It measures from the signal to the arrival of the
// PUT.
func failover(ctx context.Context, w *world, _ int, record func(measurement)) error {
	if err := w.manager.stop(); err != nil {
		return err
	}
	var err error
	if w.manager, err = w.elect(); err != nil {
		return err
	}
	if err := w.leads(ctx); err != nil {
		return err
	}
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	ways := []struct {
		measure string
		limit   time.Duration
		end     func(*manager) error
	}{
		{"killed until the first PUT", leaseDuration + 2500*time.Millisecond, (*manager).kill},
		{"stopped until the first PUT", 1500 * time.Millisecond, (*manager).stop},
	}
	rounds := 0
	for _, way := range ways {
		for range failoverRounds {
			took, err := w.failOver(ctx, rounds%w.made, way.end)
			if err != nil {
				return err
			}
			rounds++
			record(measurement{Measure: way.measure, Unit: unitSeconds, Target: atMost(way.limit.Seconds()), Values: seconds(took)})
		}
	}
	return counted(ctx, w, since, expected{
		"Grafana list": rounds, "Grafana get": rounds, "Grafana update": rounds, "get secrets": rounds, "patch grafanasecurevalues/status": rounds,
	}, record)
}

// elect starts a manager that takes part in the election of a leader.
func (w *world) elect() (*manager, error) {
	return startManager(w.binary, w.kubeconfig, w.log, w.profiles != "", leaderElect)
}

// leads waits until the manager leads, and has reconciled everything.
func (w *world) leads(ctx context.Context) error {
	if err := w.until(ctx, "reconciled", w.made, func() (int, error) { return w.reconciles(ctx), nil }); err != nil {
		return err
	}
	return w.settled(ctx)
}

// failOver puts a standby beside the leader, ends the leader, changes Secret i, and returns when its PUT arrived at Grafana.
func (w *world) failOver(ctx context.Context, i int, end func(*manager) error) (time.Duration, error) {
	standby, err := w.elect()
	if err != nil {
		return 0, err
	}
	leader := w.manager
	err = w.until(ctx, "known to the standby", w.made, func() (int, error) {
		return standby.metric(ctx, "workqueue_depth", `name="grafanasecurevalue"`), nil
	})
	if err != nil {
		_ = standby.kill()
		return 0, err
	}
	w.manager = standby
	begun := time.Now()
	if err := end(leader); err != nil {
		return 0, err
	}
	if err := w.rotate(ctx, i); err != nil {
		return 0, err
	}
	var arrived time.Time
	err = w.until(ctx, "reached Grafana", 1, func() (int, error) {
		calls, err := w.grafana.calls(ctx)
		for _, c := range calls {
			if c.Verb == grafanatest.VerbUpdate && c.Name == nameOf(i) && c.Start.After(begun) {
				arrived = c.Start
				return 1, err
			}
		}
		return 0, err
	})
	if err != nil {
		return 0, fmt.Errorf("after the failover: %w", err)
	}
	return arrived.Sub(begun), w.leads(ctx)
}
