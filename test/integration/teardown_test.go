package integration

import (
	"context"
	"fmt"
	"math/rand/v2"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// The suite plays the namespace controller here, which deletes what is in a namespace in no order that anybody may rely on.
var _ = Describe("The teardown of a namespace", func() {
	const objects = 6

	// furnished returns a world with objects on two connections, all of them Ready.
	furnished := func(ctx context.Context) *world {
		GinkgoHelper()
		w := newConnectedWorld(ctx)
		w.secret("grafana-2", map[string]string{"token": goodToken})
		second := w.connection("second")
		second.Spec.Credentials.TokenSecretRef.Name = "grafana-2"
		w.create(second)
		var values []*v1alpha1.GrafanaSecureValue
		for i := range objects {
			sv := w.valueWithSecret(fmt.Sprintf("value-%d", i), "canary-1")
			if i%2 == 1 {
				through(sv, second)
			}
			w.create(sv)
			values = append(values, sv)
		}
		for _, sv := range values {
			w.eventuallySynced(sv)
		}
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(objects))
		return w
	}

	It("ends without help, in whatever order things are deleted", func(ctx SpecContext) {
		for i := range 10 {
			seed := GinkgoRandomSeed() + int64(i)
			By(fmt.Sprintf("order %d, of -ginkgo.seed=%d", i, seed))
			w := furnished(ctx)
			all := w.everything()
			shuffle(seed, all)
			for _, o := range all {
				w.delete(o)
			}
			w.eventuallyEmpty()
			Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
		}
	})

	It("ends by the command of the message, where the manager was restarted after the credentials had gone", func(ctx SpecContext) {
		w := furnished(ctx)
		values, others := w.values(), []client.Object{}
		for _, o := range w.everything() {
			if _, isValue := o.(*v1alpha1.GrafanaSecureValue); !isValue {
				others = append(others, o)
			}
		}
		shuffle(GinkgoRandomSeed(), others)
		shuffle(GinkgoRandomSeed(), values)
		for _, o := range others {
			w.delete(o)
		}
		early, late := values[:objects/2], values[objects/2:]
		for _, sv := range early {
			w.delete(sv)
		}
		for _, sv := range early {
			w.eventuallyGone(sv)
		}
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(len(late)))

		stopManager()
		for _, sv := range late {
			w.delete(sv)
		}
		startManager()
		w.grafana.ResetCalls()
		for _, sv := range late {
			w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		}
		for _, sv := range late {
			w.runPrinted(sv)
			w.eventuallyGone(sv)
		}
		w.eventuallyEmpty()
		Expect(w.grafana.Calls()).To(BeEmpty())
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(len(late)), "left there, as the command says")
	})
})

// everything returns the Secrets, connections and objects of the namespace.
func (w *world) everything() []client.Object {
	GinkgoHelper()
	all := []client.Object{}
	for _, sv := range w.values() {
		all = append(all, sv)
	}
	connections := &v1alpha1.GrafanaConnectionList{}
	Expect(k8s.List(w.ctx, connections, client.InNamespace(w.namespace))).To(Succeed())
	for i := range connections.Items {
		all = append(all, &connections.Items[i])
	}
	secrets := &corev1.SecretList{}
	Expect(k8s.List(w.ctx, secrets, client.InNamespace(w.namespace))).To(Succeed())
	for i := range secrets.Items {
		all = append(all, &secrets.Items[i])
	}
	return all
}

func (w *world) values() []*v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	list := &v1alpha1.GrafanaSecureValueList{}
	Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
	values := make([]*v1alpha1.GrafanaSecureValue, len(list.Items))
	for i := range list.Items {
		values[i] = &list.Items[i]
	}
	return values
}

// eventuallyEmpty waits until nothing is left in the namespace.
func (w *world) eventuallyEmpty() {
	GinkgoHelper()
	Eventually(func() []string {
		left := []string{}
		for _, o := range w.everything() {
			says := ""
			switch o := o.(type) {
			case *v1alpha1.GrafanaSecureValue:
				says = describe(o.Status.ObservedGeneration, o.Status.Conditions)
			case v1alpha1.Connection:
				says = describe(o.GetStatus().ObservedGeneration, o.GetStatus().Conditions)
			}
			left = append(left, fmt.Sprintf("%T %s %s", o, o.GetName(), says))
		}
		return left
	}).Should(BeEmpty())
}

func shuffle[T any](seed int64, items []T) {
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
}
