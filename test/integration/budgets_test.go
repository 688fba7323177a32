package integration

import (
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// What one event may cost. Calls to Grafana are counted at the fake Grafana, those to Kubernetes in the audit log of the API server.
// Calls of the connection are not the object's: its Secrets are the ones named "grafana".
var _ = Describe("The cost", func() {
	const (
		getSource   = "get secrets source"
		getObject   = "get grafanasecurevalues api-key"
		patchObject = "patch grafanasecurevalues api-key"
		patchStatus = "patch grafanasecurevalues/status api-key"
	)

	// For one requestTimeout, which is 10 s here, a manager that has begun to lead asks once more before it believes that a value is gone.
	BeforeEach(func() {
		Eventually(time.Since).WithArguments(managerLeads).Should(BeNumerically(">", 15*time.Second))
	})

	It("of a new connection is 2 writes and 1 LIST", func(ctx SpecContext) {
		var worlds []*world
		for range 20 { // each in its own namespace: whether a reconcile comes before the cache shows the last write is chance
			worlds = append(worlds, newWorld(ctx))
		}
		worlds[0].settled() // the manager knows of their Secrets: it would read twice what it read before that
		for _, w := range worlds {
			mark := plane.Mark()
			w.create(w.connection(connectionRef))
			w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
			w.settled()
			Expect(w.requests(mark)).To(Equal([]string{
				"patch grafanaconnections prod", "get secrets grafana", "patch grafanaconnections/status prod",
			}))
			Expect(w.lists()).To(Equal(1))
		}
	})

	It("of a first sync is 1 POST, 1 GET of the Secret, and 2 writes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		mark := w.reset()
		w.synced("api-key", "canary-1")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchObject, patchStatus}))
	})

	It("of a rotation is 1 GET, 1 PUT, 1 GET of the Secret, and 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.synced("api-key", "canary-1")
		mark := w.reset()
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
	})

	It("of a template of 8 Secrets is that of a plain value, with a GET of each Secret", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.value("api-key")
		sv.Spec.ValueFrom = v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{Text: "{{ range . }}{{ .key }}{{ end }}"}}
		var gets []string
		for i := range 8 {
			name := fmt.Sprintf("source%d", i)
			w.secret(name, map[string]string{"key": fmt.Sprintf("canary%d ", i)})
			sv.Spec.ValueFrom.Template.SecretRefs = append(sv.Spec.ValueFrom.Template.SecretRefs, v1alpha1.TemplateSecretReference{Name: name})
			gets = append(gets, "get secrets "+name)
		}
		w.settled()
		mark := w.reset()
		w.create(sv)
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key"}))
		Expect(w.requests(mark)).To(Equal(append(slices.Clone(gets), patchObject, patchStatus)))

		mark = w.reset()
		w.secret("source7", map[string]string{"key": "canary-new"})
		w.eventuallyStored("api-key", "canary0 canary1 canary2 canary3 canary4 canary5 canary6 canary-new")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		Expect(w.requests(mark)).To(Equal(append(slices.Clone(gets), patchStatus)))
	})

	It("of an edit is 1 GET, 1 PUT, 1 GET of the Secret, and 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
	})

	It("of an edit of deletionPolicy is 1 GET, 1 PUT, 1 GET of the Secret, and 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		for _, policy := range []v1alpha1.DeletionPolicy{v1alpha1.DeletionPolicyRetain, v1alpha1.DeletionPolicyDelete} {
			mark := w.reset()
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = policy })
			w.eventuallySynced(sv)
			w.settled()
			Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
			Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
		}
	})

	It("of an edit that is not written to Grafana is no version", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport })
		w.eventuallySynced(sv)
		Expect(w.calls()).To(Equal([]string{"get api-key"}))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
	})

	It("of an edit of another key of the Secret is nothing in Grafana, 1 GET of the Secret, and at most 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		w.secret("source", map[string]string{"key": "canary-1", "other": "canary-2"})
		w.eventuallySourceIs(sv, "source")
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
	})

	It("of a deletion is 1 GET, 1 DELETE, the GET that proves it, and 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		w.delete(sv)
		w.eventuallyGone(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "delete api-key", "get api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getObject, patchObject}))
	})

	It("of a move is 1 POST, 2 GETs, 1 DELETE, and 2 writes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "new-name" })
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create new-name", "get api-key", "delete api-key", "get api-key"}))
		Expect(w.writes(mark)).To(Equal([]string{patchObject, patchStatus}))
	})

	It("of a move to another connection is 1 POST there, 2 GETs, 1 DELETE, and 2 writes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		elsewhere := w.anotherGrafana()
		elsewhere.connected("other")
		sv := w.synced("api-key", "canary-1")
		elsewhere.grafana.ResetCalls()
		mark := w.reset()
		w.reconnect(sv, "other")
		w.eventuallySynced(sv)
		w.settled()
		Expect(elsewhere.calls()).To(Equal([]string{"create api-key"}))
		Expect(w.calls()).To(Equal([]string{"get api-key", "delete api-key", "get api-key"}))
		Expect(w.writes(mark)).To(Equal([]string{patchObject, patchStatus}))
	})

	It("of a move to another connection to the same Grafana is 1 GET, 1 PUT, and 2 writes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.connected("other")
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		w.reconnect(sv, "other")
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		Expect(w.writes(mark)).To(Equal([]string{patchObject, patchStatus}))
	})

	It("of sync-now is 1 GET, 1 PUT, 1 GET of the Secret, and 1 write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
	})

	It("of suspend, and of resume where nothing changed, is 1 write each, and no version", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		mark := w.reset()
		suspend(w, sv)
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.requests(mark)).To(Equal([]string{patchStatus}))

		mark = w.reset()
		resume(w, sv)
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key"}))
		Expect(w.requests(mark)).To(Equal([]string{getSource, patchStatus}))
	})

	It("of a hand-over is 2 GETs, 1 PUT, and 3 writes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner := w.synced("api-key", "canary-1")
		successor := w.valueFrom("successor", "successor-source", "canary-2")
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.eventually(successor, v1alpha1.ReasonNameConflict)
		mark := w.reset()
		w.delete(owner)
		w.eventuallyGone(owner)
		w.eventuallySynced(successor)
		w.settled()
		Expect(w.calls()).To(ConsistOf("get api-key", "get api-key", "update api-key"))
		Expect(w.writes(mark)).To(ConsistOf(patchObject, "patch grafanasecurevalues successor", "patch grafanasecurevalues/status successor"))
	})

	It("of an answer without a version is one GET", func(ctx SpecContext) {
		w := newConnectedWorld(ctx, grafanatest.WithoutStatus())
		w.synced("api-key", "canary-1")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"create api-key", "get api-key"}))
	})

	It("of a restart is 1 LIST, no write, and no GET of a source", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		const objects = 20
		for i := range objects {
			name := fmt.Sprintf("source-%d", i)
			w.secret(name, map[string]string{"key": "canary"})
			sv := w.value(fmt.Sprintf("value-%d", i))
			sv.Spec.ValueFrom.SecretKeyRef.Name = name
			w.create(sv)
		}
		var values v1alpha1.GrafanaSecureValueList
		Eventually(func(g Gomega) {
			g.Expect(k8s.List(ctx, &values, client.InNamespace(w.namespace))).To(Succeed())
			for _, sv := range values.Items {
				g.Expect(describe(sv.Status.ObservedGeneration, sv.Status.Conditions)).To(Equal(describeWanted(1, v1alpha1.ReasonSynced)))
			}
		}).Should(Succeed())
		w.settled()

		stopManager()
		w.grafana.ResetCalls()
		mark := plane.Mark()
		startManager()
		// Once the manager follows a new rotation it has reconciled everything else.
		w.secret("source-7", map[string]string{"key": "canary-2"})
		w.eventuallyStored("value-7", "canary-2")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get value-7", "update value-7"}))
		Expect(w.lists()).To(Equal(1))
		Expect(w.requests(mark)).To(ConsistOf(
			"get secrets grafana", "get secrets source-7", "patch grafanasecurevalues/status value-7"))
	})
})

// reset forgets the calls to Grafana, and returns the present end of the audit log.
func (w *world) reset() controlplane.Mark {
	w.settled()
	w.grafana.ResetCalls()
	return plane.Mark()
}

// writes returns the requests since mark that write. How often an object is read live depends on how late the caches are.
func (w *world) writes(mark controlplane.Mark) []string {
	GinkgoHelper()
	return slices.DeleteFunc(w.requests(mark), func(request string) bool {
		return strings.HasPrefix(request, "get ") || strings.HasPrefix(request, "list ")
	})
}

// settled waits until the manager has seen all that was done in this world so far: it makes one more object and waits until
// that has gone through the same queue, and its last write has come back.
func (w *world) settled() {
	GinkgoHelper()
	for range 2 {
		marker := w.value("marker")
		marker.Namespace, marker.Spec.ConnectionRef.Name = markerNamespace, "none"
		w.create(marker)
		w.eventually(marker, v1alpha1.ReasonConnectionNotFound)
		w.delete(marker)
		w.eventuallyGone(marker)
	}
}

// markerNamespace is where settled puts its objects, so that no spec counts them.
const markerNamespace = "default"

func (w *world) lists() int {
	n := 0
	for _, c := range w.grafana.Calls() {
		if c.Verb == grafanatest.VerbList {
			n++
		}
	}
	return n
}

// eventuallySourceIs waits until status names the present version of the Secret.
func (w *world) eventuallySourceIs(sv *v1alpha1.GrafanaSecureValue, secretName string) {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(k8s.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: secretName}, secret)).To(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(sv.Status.Targets[0].Source.ResourceVersion).To(Equal(secret.ResourceVersion))
	}).Should(Succeed())
}
