package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// stuckConnection leads to the Grafana that hangs.
const stuckConnection = "stuck"

// hanging measures rotations as rotation does, while half as many objects wait for another Grafana, which accepts calls and answers none.
func hanging(ctx context.Context, w *world, n int, record func(measurement)) (err error) {
	stuck, err := startFakeGrafana(0, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stuck.close()) }()
	if err := w.connect(ctx, stuckConnection, stuck); err != nil {
		return err
	}
	if err := w.connected(ctx, stuckConnection); err != nil {
		return err
	}
	if err := stuck.down(ctx, 0); err != nil {
		return err
	}
	waiting := max(1, n/2)
	object := func(i int) *v1alpha1.GrafanaSecureValue {
		return objectOf(fmt.Sprintf("stuck-%06d", i), i, stuckConnection)
	}
	err = w.each(ctx, "objects made", 0, waiting, func(ctx context.Context, i int) error { return w.k8s.Create(ctx, object(i)) })
	if err != nil {
		return err
	}
	labels := fmt.Sprintf("connection=%q", stuckConnection)
	err = w.until(ctx, "wait for the Grafana that hangs", waiting*9/10, func() (int, error) { // some of them are calling
		return w.manager.metric(ctx, "gsv_queued", labels), nil
	})
	if err != nil {
		return err
	}
	if _, err := reset(ctx, w); err != nil {
		return err
	}
	took, err := w.rotateSlowly(ctx, n)
	if err != nil {
		return err
	}
	record(measurement{Measure: "Secret to Grafana, p99", Unit: unitMilliseconds, Target: atMost(90), Values: []float64{quantile(took, 0.99)}})

	if err := stuck.up(ctx); err != nil {
		return err
	}
	err = w.until(ctx, "in sync once it answers", waiting, func() (int, error) {
		return w.manager.metric(ctx, "gsv_secure_values", labels, `reason="Synced"`), nil
	})
	if err != nil {
		return err
	}
	err = w.each(ctx, "objects deleted", 0, waiting, func(ctx context.Context, i int) error { return w.k8s.Delete(ctx, object(i)) })
	if err != nil {
		return err
	}
	conn := &v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Name: stuckConnection}}
	if err := w.k8s.Delete(ctx, conn); err != nil { // it waits for the objects
		return err
	}
	err = w.until(ctx, "gone", waiting, func() (int, error) {
		return waiting - w.manager.metric(ctx, "gsv_secure_values", labels), nil
	})
	if err != nil {
		return err
	}
	return w.k8s.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "grafana-" + stuckConnection}})
}
