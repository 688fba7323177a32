package main

import (
	"context"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// teardownObjects is how many objects are deleted at most.
const teardownObjects = 5000

// teardown deletes objects, and their Secrets after them, as the end of a namespace does. It is the last scenario, since it makes the world
// smaller.
func teardown(ctx context.Context, w *world, n int, record func(measurement)) error {
	// A manager believes no 404 before it has led for one requestTimeout: a write of the leader before it may still take effect.
	if err := pause(ctx, v1alpha1.DefaultRequestTimeout); err != nil {
		return err
	}
	count := min(n, teardownObjects)
	from := w.made - count
	since, err := reset(ctx, w)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := w.each(ctx, "objects deleted", from, count, w.deleteObject); err != nil {
		return err
	}
	all := w.made
	err = w.until(ctx, "gone", count, func() (int, error) { return all - w.manager.metric(ctx, "gsv_secure_values", ""), nil })
	if err != nil {
		return err
	}
	took, err := w.lastRequest(since, begun, "patch grafanasecurevalues")
	if err != nil {
		return err
	}
	record(measurement{Measure: "all gone", Unit: unitSeconds, Values: seconds(took)})
	overFloor(took, w.floor.teardown, record)
	w.made = from
	if err := w.reallySynced(ctx); err != nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	// The object is read before its value is deleted. A GET of the value comes before each DELETE, and after it: only a 404 proves it.
	return counted(ctx, w, since, expected{
		"get grafanasecurevalues": count, "Grafana get": 2 * count, "Grafana delete": count, "patch grafanasecurevalues": count,
	}, record)
}
