package main

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// suffixSecret is the second Secret of each template.
const suffixSecret = "suffix"

// templates measures rotations as rotation does, and then those of the same objects with a template of two Secrets.
func templates(ctx context.Context, w *world, n int, record func(measurement)) error {
	plain, err := w.rotateMeasured(ctx, n)
	if err != nil {
		return err
	}
	for i := range namespaces {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: suffixSecret}, Data: map[string][]byte{"text": []byte("end")}}
		if err := client.IgnoreAlreadyExists(w.k8s.Create(ctx, secret)); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("{{ .value.%s | urlquery }}-{{ .%s.text }}", valueKey, suffixSecret)
	if err := w.readFrom(ctx, n, func(i int) v1alpha1.ValueSource {
		return v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{
			Text: text, SecretRefs: []v1alpha1.TemplateSecretReference{{Name: nameOf(i), As: "value"}, {Name: suffixSecret}},
		}}
	}); err != nil {
		return err
	}
	templated, err := w.rotateMeasured(ctx, n)
	if err != nil {
		return err
	}
	median := func(took []float64) float64 { return quantile(took, 0.5) }
	record(measurement{Measure: "plain, Secret to Grafana, median", Unit: unitMilliseconds, Values: []float64{median(plain)}})
	record(measurement{Measure: "template, Secret to Grafana, median", Unit: unitMilliseconds, Values: []float64{median(templated)}})
	record(measurement{Measure: "template, Secret to Grafana, p99", Unit: unitMilliseconds, Values: []float64{quantile(templated, 0.99)}})
	record(measurement{Measure: "template to plain, ratio of medians", Unit: unitRatio, Target: atMost(1.2), Values: []float64{median(templated) / median(plain)}})
	return w.readFrom(ctx, n, func(i int) v1alpha1.ValueSource { return objectOf(nameOf(i), i, defaultConnection).Spec.ValueFrom })
}

// rotateMeasured changes Secrets one after the other, and returns how long each took to Grafana.
func (w *world) rotateMeasured(ctx context.Context, n int) ([]float64, error) {
	if _, err := reset(ctx, w); err != nil {
		return nil, err
	}
	took, err := w.rotateSlowly(ctx, n)
	if err != nil {
		return nil, err
	}
	return took, w.settled(ctx)
}

// readFrom gives the objects whose Secrets rotate another source, and waits until they are in sync.
func (w *world) readFrom(ctx context.Context, n int, source func(i int) v1alpha1.ValueSource) error {
	count, step := spread(n, rotations)
	err := w.each(ctx, "objects changed", 0, count, func(ctx context.Context, i int) error {
		sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i * step), Name: nameOf(i * step)}}
		patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/valueFrom", "value": source(i * step)}})
		if err != nil {
			return err
		}
		return w.k8s.Patch(ctx, sv, client.RawPatch(types.JSONPatchType, patch))
	})
	if err != nil {
		return err
	}
	if err := w.synced(ctx); err != nil {
		return err
	}
	return w.settled(ctx)
}
