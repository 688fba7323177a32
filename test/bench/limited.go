package main

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// defaultRate is the requests per second of a connection that says nothing of them.
const defaultRate = 50

// limited makes new objects while the connection has the default rate limit.
func limited(ctx context.Context, w *world, n int, record func(measurement)) error {
	count := min(n, 1000)
	if err := w.limit(ctx, nil); err != nil {
		return err
	}
	if _, err := w.coldStart(ctx, count, atMost(max(6, 1.05*float64(count)/defaultRate)), record); err != nil {
		return err
	}
	return w.limit(ctx, &v1alpha1.RateLimit{RequestsPerSecond: new(int32(0))})
}

// limit sets the rate limit of the connection that everybody uses.
func (w *world) limit(ctx context.Context, to *v1alpha1.RateLimit) error {
	conn := &v1alpha1.ClusterGrafanaConnection{}
	if err := w.k8s.Get(ctx, client.ObjectKey{Name: defaultConnection}, conn); err != nil {
		return err
	}
	conn.Spec.RateLimit = to
	if err := w.k8s.Update(ctx, conn); err != nil {
		return err
	}
	return w.settled(ctx)
}
