package integration

import (
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

var _ = Describe("A deleted object that a finalizer of somebody else keeps", func() {
	const theirs = "example.com/theirs"
	hold := func(w *world, sv *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Finalizers = append(sv.Finalizers, theirs) })
		DeferCleanup(func(ctx SpecContext) {
			w.ctx = ctx
			letGo(w, sv, theirs)
		})
	}

	// released waits until the object claims nothing, and the spec's connection can go although it still exists.
	released := func(w *world, sv *v1alpha1.GrafanaSecureValue) {
		GinkgoHelper()
		w.eventually(sv, v1alpha1.ReasonReleased)
		Expect(targetsOf(sv)).To(BeEmpty())
		Expect(sv.Finalizers).NotTo(ContainElement(v1alpha1.Finalizer))
		Expect(sv.Status.Conditions).To(HaveLen(1))
		w.settled()
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.eventuallyNone(conn)
		Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
	}

	It("says Released and owns nothing, and the others' finalizer ends it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		hold(w, sv)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonReleased)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
		released(w, sv)
		letGo(w, sv, theirs)
		w.eventuallyGone(sv)
	})

	It("says Released by a deletion in the foreground", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		foreground := metav1.DeletePropagationForeground // whose controller does not run here
		Expect(k8s.Delete(ctx, sv, &client.DeleteOptions{PropagationPolicy: &foreground})).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			w.ctx = ctx
			letGo(w, sv, metav1.FinalizerDeleteDependents)
		})
		released(w, sv)
	})

	It("leaves the name to another object, and the value that it retains too", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.eventuallySynced(sv)
		hold(w, sv)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonReleased)
		next := w.valueWithSecret("next", "canary-2")
		next.Spec.Name = "api-key"
		w.create(next)
		w.eventuallySynced(next)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-2"}))
	})

	It("says Released where nothing was written, or a person removed our finalizer", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		never := w.value("never")
		never.Spec.ValueFrom.SecretKeyRef.Name = "missing"
		never.Finalizers = []string{theirs}
		w.create(never)
		w.eventually(never, v1alpha1.ReasonSecretNotFound)
		hold(w, never)
		w.delete(never)
		w.eventually(never, v1alpha1.ReasonReleased)

		sv := w.synced("api-key", "canary-1")
		hold(w, sv)
		stopManager()
		w.delete(sv)
		letGo(w, sv, v1alpha1.Finalizer)
		startManager()
		released(w, sv)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})
})

// letGo removes a finalizer of an object, if both exist.
func letGo(w *world, sv *v1alpha1.GrafanaSecureValue, finalizer string) {
	GinkgoHelper()
	if client.IgnoreNotFound(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)) != nil || !slices.Contains(sv.Finalizers, finalizer) {
		return
	}
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
		sv.Finalizers = slices.DeleteFunc(sv.Finalizers, func(f string) bool { return f == finalizer })
	})
}
