package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	setOf        = 5  // keys of each small set
	setRotations = 10 // of keys of the large set
	setStatus    = "patch grafanasecurevaluesets/status"
	allReady     = "all Ready"
	managerCPU   = "CPU of the manager"
)

// sets makes n plain objects, one set of as many keys, and many sets of five, and compares them. The keys of the large set are in two Secrets.
func sets(ctx context.Context, w *world, n int, record func(measurement)) error {
	n = min(n, v1alpha1.MaxSecureValues)
	found := map[string]float64{}
	// as records measures with a word before them, and remembers them. The reports of sets that have not settled depend on the time.
	as := func(what string) func(measurement) {
		return func(m measurement) {
			if m.Measure == setStatus {
				m.Target = atMost(2 * m.Target.Limit)
			}
			m.Measure = what + ", " + m.Measure
			found[m.Measure] = m.Values[0]
			record(m)
		}
	}
	_, err := w.coldStart(ctx, n, nil, func(m measurement) {
		if m.Measure == allReady || m.Measure == managerCPU {
			m.Target = nil // the scenario cold-start has it
			as("plain")(m)
		}
	})
	if err != nil {
		return err
	}
	took, err := w.rotateMeasured(ctx, n)
	if err != nil {
		return err
	}
	record(measurement{Measure: "plain, Secret to Grafana, median", Unit: unitMilliseconds, Values: []float64{quantile(took, 0.5)}})
	record(measurement{Measure: "plain, Secret to Grafana, p99", Unit: unitMilliseconds, Values: []float64{quantile(took, 0.99)}})
	large := setOver("large", 0, "large-1", "large-2")
	err = w.coldSets(ctx, []*v1alpha1.GrafanaSecureValueSet{large}, n, as("one set"))
	if err != nil {
		return err
	}
	if err := w.rotateInSet(ctx, large, n, record); err != nil {
		return err
	}
	if err := w.deleteSets(ctx); err != nil {
		return err
	}
	var small []*v1alpha1.GrafanaSecureValueSet
	for i := range max(1, n/setOf) {
		name := fmt.Sprintf("small-%d", i)
		small = append(small, setOver(name, i, name))
	}
	if err := w.coldSets(ctx, small, setOf*len(small), as("sets of 5")); err != nil {
		return err
	}
	for _, kind := range []string{"one set", "sets of 5"} {
		for measure, limit := range map[string]float64{allReady: 1.5, managerCPU: 1.5} {
			ratio := found[kind+", "+measure] / found["plain, "+measure]
			record(measurement{Measure: kind + " to plain, " + measure, Unit: unitRatio, Target: atMost(limit), Values: []float64{ratio}})
		}
	}
	return w.deleteSets(ctx)
}

// setOver returns a set of all keys of Secrets.
func setOver(name string, i int, secrets ...string) *v1alpha1.GrafanaSecureValueSet {
	set := &v1alpha1.GrafanaSecureValueSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: name}}
	set.Spec.Secrets.Names = secrets
	set.Spec.Template.Spec.Decrypters = []string{"synthetic-monitoring"}
	set.Spec.ConnectionRefs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindClusterGrafanaConnection, Name: defaultConnection}}
	return set
}

// coldSets makes the Secrets of sets, with so many keys in all, and then the sets, and measures until all values are in sync.
func (w *world) coldSets(ctx context.Context, wanted []*v1alpha1.GrafanaSecureValueSet, keys int, record func(measurement)) error {
	secrets := 0
	for _, set := range wanted {
		secrets += len(set.Spec.Secrets.Names)
	}
	for _, set := range wanted {
		for _, name := range set.Spec.Secrets.Names {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: name}, Data: map[string][]byte{}}
			for i := range keys / secrets {
				secret.Data[fmt.Sprintf("key-%04d", i)] = fmt.Appendf(nil, "first value of %d, as long as a token is", i)
			}
			if err := w.k8s.Create(ctx, secret); err != nil {
				return err
			}
		}
	}
	n := keys / secrets * secrets
	if err := w.settled(ctx); err != nil {
		return err
	}
	since, before, err := w.measured(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	var took time.Duration
	err = w.profiled(ctx, func() error {
		if err := w.each(ctx, "sets made", 0, len(wanted), func(ctx context.Context, i int) error { return w.k8s.Create(ctx, wanted[i]) }); err != nil {
			return err
		}
		err := w.syncedBesides(ctx, n)
		took = time.Since(begun)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.until(ctx, "sets in sync", len(wanted), func() (int, error) { return w.syncedSets(ctx) }); err != nil {
		return err
	}
	record(measurement{Measure: allReady, Unit: unitSeconds, Values: seconds(took)})
	if _, err := w.spentSince(before, record); err != nil {
		return err
	}
	if err := w.setsSettled(ctx); err != nil {
		return err
	}
	// Each value is created by its set, claimed and reported. A set reads each of its Secrets once, and reports once it has settled.
	return counted(ctx, w, since, expected{
		"Grafana create": n, "get secrets": n + secrets, "patch grafanasecurevalues": 2 * n, "patch grafanasecurevalues/status": n, setStatus: len(wanted),
	}, record)
}

// syncedBesides waits until n values of sets are in sync, and all others.
func (w *world) syncedBesides(ctx context.Context, n int) error {
	return w.until(ctx, "in sync", w.made+n, func() (int, error) {
		return w.manager.metric(ctx, "gsv_secure_values", `reason="Synced"`), nil
	})
}

// syncedSets counts the sets that say that they are in sync.
func (w *world) syncedSets(ctx context.Context) (n int, err error) {
	list := &v1alpha1.GrafanaSecureValueSetList{}
	err = w.k8s.List(ctx, list)
	for _, set := range list.Items {
		if meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionReady) {
			n++
		}
	}
	return n, err
}

// setsSettled waits until sets have nothing to do, too: they wait a second for further reports.
func (w *world) setsSettled(ctx context.Context) error {
	if err := w.settled(ctx); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	return w.settled(ctx)
}

// rotateInSet changes keys of a set one after the other, each once nothing is left to do.
func (w *world) rotateInSet(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, n int, record func(measurement)) error {
	since, before, err := w.measured(ctx)
	if err != nil {
		return err
	}
	names := set.Spec.Secrets.Names
	keys := n / len(names)
	rotated := min(keys, setRotations)
	var took, rested []float64
	for i := range rotated {
		first, all, err := w.rotateKey(ctx, set.Namespace, names[i%len(names)], fmt.Sprintf("key-%04d", i*keys/rotated), i+1)
		if err != nil {
			return err
		}
		took, rested = append(took, first), append(rested, all)
	}
	record(measurement{Measure: "one key, Secret to Grafana, median", Unit: unitMilliseconds, Values: []float64{quantile(took, 0.5)}})
	record(measurement{Measure: "one key, Secret to Grafana, p99", Unit: unitMilliseconds, Values: []float64{quantile(took, 0.99)}})
	record(measurement{Measure: "one key, until all have read the Secret", Unit: unitSeconds, Values: []float64{quantile(rested, 0.5)}})
	now, err := w.cpu()
	if err != nil {
		return err
	}
	record(measurement{Measure: "one key, CPU of the manager", Unit: unitMilliseconds, Values: []float64{
		float64((now.manager - before.manager).Milliseconds()) / float64(rotated),
	}})
	if err := w.setsSettled(ctx); err != nil {
		return err
	}
	// Each value of the Secret reads it, and reports its version. The set reads it once.
	return counted(ctx, w, since, expected{
		"Grafana get": rotated, "Grafana update": rotated, "get secrets": rotated * (keys + 1),
		"patch grafanasecurevalues": 0, "patch grafanasecurevalues/status": rotated * keys, setStatus: 0,
	}, func(m measurement) {
		m.Measure = fmt.Sprintf("%d rotations, %s", rotated, m.Measure)
		record(m)
	})
}

// rotateKey changes a key, the given number since the last reset, and waits until nothing is left to do. It returns the milliseconds until the
// PUT arrived, and the seconds until all values of the Secret had read it.
func (w *world) rotateKey(ctx context.Context, namespace, name, key string, number int) (first, all float64, err error) {
	sent := time.Now()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	patch := fmt.Appendf(nil, `{"stringData":{%q:"value of %d"}}`, key, sent.UnixNano())
	if err := w.k8s.Patch(ctx, secret, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		return 0, 0, err
	}
	if err := w.written(ctx, number); err != nil {
		return 0, 0, err
	}
	if err := w.settled(ctx); err != nil {
		return 0, 0, err
	}
	all = time.Since(sent).Seconds() - 1 // that is how long settled waits to be sure
	calls, err := w.grafana.calls(ctx)
	for _, c := range calls {
		if c.Verb == grafanatest.VerbUpdate && c.Start.After(sent) && strings.HasSuffix(c.Name, key) {
			return float64(c.Start.Sub(sent).Microseconds()) / 1000, all, err
		}
	}
	return 0, 0, cmp.Or(err, fmt.Errorf("key %s of Secret %s did not reach Grafana", key, name))
}

// deleteSets deletes all sets with what they have made, as the garbage collector does, and waits until that is gone.
func (w *world) deleteSets(ctx context.Context) error {
	all := client.HasLabels{v1alpha1.LabelSet}
	for i := range namespaces {
		in := client.InNamespace(namespaceOf(i))
		if err := w.k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValueSet{}, in); err != nil {
			return err
		}
		if err := w.k8s.DeleteAllOf(ctx, &v1alpha1.GrafanaSecureValue{}, in, all); err != nil {
			return err
		}
	}
	err := w.until(ctx, "values of sets gone", 1, func() (int, error) {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("GrafanaSecureValueList"))
		err := w.k8s.List(ctx, list, all, client.Limit(1))
		return 1 - len(list.Items), err
	})
	if err != nil {
		return err
	}
	return w.settled(ctx)
}
