package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A GrafanaSecureValue", func() {
	It("is created in Grafana and becomes Ready", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")

		stored := w.stored("api-key")
		Expect(string(stored.Value)).To(Equal("canary-1"))
		Expect(stored.Description).To(Equal("Synced from Kubernetes"))
		Expect(stored.Decrypters).To(Equal([]string{"synthetic-monitoring"}))
		Expect(stored.Labels).To(HaveKeyWithValue(labelCluster, clusterID))
		Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
		Expect(stored.Labels).To(HaveKeyWithValue(labelConnection, hash(40, string(v1alpha1.KindGrafanaConnection), w.namespace, connectionRef)))
		Expect(stored.Annotations).To(HaveKeyWithValue(annotationResource, w.namespace+"/api-key"))

		Expect(sv.Finalizers).To(ContainElement(v1alpha1.Finalizer))
		Expect(sv.Status.Targets).To(HaveLen(1))
		target := sv.Status.Targets[0]
		Expect(target.Name).To(Equal("api-key"))
		Expect(target.Namespace).To(Equal(grafanaNS))
		Expect(target.Version).To(Equal(stored.Version))
		Expect(target.Source.Key).To(Equal("key"))
		Expect(target.Fingerprint).To(HavePrefix("v1:"))
		Expect(target.LastWriteTime).NotTo(BeNil())
	})

	It("arrives byte for byte", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		value := "\"quotes\" and 'more', \\ <tag> & \u2028 🔑 tab\t\u0000\u007f "
		value += strings.Repeat("x", 24576-len(value)-1) + "\n"
		Expect(value).To(HaveLen(24576))
		sv := w.synced("exact", value)
		Expect(string(w.stored("exact").Value)).To(Equal(value))
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("The value ends with a newline."))
	})

	It("follows a rotation of its Secret", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.secret("source", map[string]string{"key": "canary-2"})
		stored := w.eventuallyStored("api-key", "canary-2")
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
			g.Expect(sv.Status.Targets[0].Version).To(Equal(stored.Version))
		}).Should(Succeed())
	})

	It("follows an edit of its spec, and keeps what others put on the value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		stored := w.stored("api-key")
		stored.Labels["their"] = "label"
		w.grafana.Put(grafanaNS, stored)

		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.Description = "Another text"
			sv.Spec.Decrypters = []string{"k6-cloud", "provisioning.grafana.app"}
		})
		w.eventuallySynced(sv)
		stored = w.stored("api-key")
		Expect(stored.Description).To(Equal("Another text"))
		Expect(stored.Decrypters).To(ConsistOf("k6-cloud", "provisioning.grafana.app"))
		Expect(stored.Labels).To(HaveKeyWithValue("their", "label"))
		Expect(string(stored.Value)).To(Equal("canary-1"))
	})

	It("writes the value of the other key when the key is changed", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1", "other": "canary-2"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventuallySynced(sv)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ValueFrom.SecretKeyRef.Key = "other" })
		w.eventuallySynced(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
		Expect(sv.Status.Targets[0].Source.Key).To(Equal("other"))
	})

	It("is deleted from Grafana before it goes", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.delete(sv)
		w.eventuallyGone(sv)
		_, found := w.grafana.Value(grafanaNS, "api-key")
		Expect(found).To(BeFalse())
	})

	It("leaves the value in Grafana with deletionPolicy Retain, without a call", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Labels).To(HaveKeyWithValue(labelRetain, "true"))
		w.grafana.ResetCalls()
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		Expect(w.calls()).To(BeEmpty())
	})

	It("moves to another name, and leaves nothing behind", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "new-name" })
		w.eventuallySynced(sv)
		Expect(string(w.stored("new-name").Value)).To(Equal("canary-1"))
		_, found := w.grafana.Value(grafanaNS, "api-key")
		Expect(found).To(BeFalse())
		Expect(sv.Status.Targets).To(HaveLen(1))
		Expect(sv.Status.Targets[0].Name).To(Equal("new-name"))
	})

	It("is retried with the new value when a PUT fails with 503", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbUpdate, Code: http.StatusServiceUnavailable, Times: 2})
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)
	})

	It("observes again when another writer changed the value between its GET and its PUT", func(ctx SpecContext) {
		w := newConnectedWorld(ctx, grafanatest.WithResourceVersionEnforced())
		w.synced("api-key", "canary-1")
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbUpdate, Code: http.StatusConflict, ContentType: "application/json", Times: 1,
			Body: `{"kind":"Status","reason":"Conflict","code":409}`,
		})
		w.reset()
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key", "get api-key", "update api-key"}))
	})

	It("heals when the answer to its first write is lost", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, AfterEffect: true, Times: 1})
		sv := w.synced("api-key", "canary-1")
		stored := w.stored("api-key")
		Expect(string(stored.Value)).To(Equal("canary-1"))
		Expect(stored.Version).To(BeNumerically("<=", 2), "more than one extra version")
		w.delete(sv)
		w.eventuallyGone(sv)
		_, found := w.grafana.Value(grafanaNS, "api-key")
		Expect(found).To(BeFalse())
	})

	It("leaves nothing in Grafana when it vanishes during its first write", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		release := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, Hang: true})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
			g.Expect(sv.Finalizers).NotTo(BeEmpty())
		}).Should(Succeed())
		// The API server does this where the finalizer comes while it is removing the object.
		w.delete(sv)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Finalizers = nil })
		w.eventuallyGone(sv)
		release()
		Eventually(w.calls).Should(ContainElement("delete api-key")) // a GET follows, unless the manager has just begun to lead
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("deletes nothing for a pending target in another namespace of Grafana", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Annotations[v1alpha1.AnnotationPendingTargets] = "GrafanaConnection/prod/org-77/api-key"
			sv.Spec.Description = "Another text"
		})
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(w.stored("api-key").Description).To(Equal("Another text"))
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key"}))
	})

	It("follows a Secret that comes late", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		mark := w.reset()
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		w.settled()
		Expect(w.requests(mark)).To(Equal([]string{"get secrets source", "patch grafanasecurevalues/status api-key"}))
		Expect(sv.Finalizers).To(BeEmpty(), "an object that wrote nothing owns nothing")
		w.secret("source", map[string]string{"key": "canary-1"})
		w.eventuallySynced(sv)
	})

	It("follows a connection that comes late", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		w.create(w.connection(connectionRef))
		w.eventuallySynced(sv)
	})

	It("names what will not work although it is Ready", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.Decrypters = []string{"synthetic-monitorin"}
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(`Unknown decrypter "synthetic-monitorin" (known: k6-cloud,`))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = nil })
		w.eventuallySynced(sv)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("No decrypters: no service can read the value."))

		By("naming all of it in the one event of the write")
		w.secret("source", map[string]string{"key": "canary-2\n"})
		w.eventuallyStored("api-key", "canary-2\n")
		Eventually(func(g Gomega) {
			events := &eventsv1.EventList{}
			g.Expect(k8s.List(ctx, events, client.InNamespace(w.namespace))).To(Succeed())
			var notes []string
			for i := range events.Items {
				notes = append(notes, events.Items[i].Note)
			}
			g.Expect(notes).To(ContainElement(And(HavePrefix("Rotated secure value"), ContainSubstring("newline"), ContainSubstring("No decrypters"))))
		}).Should(Succeed())
	})

	DescribeTable("refuses a bad source, and leaves the last good value alone",
		func(ctx SpecContext, data map[string]string, reason, part string) {
			w := newConnectedWorld(ctx)
			sv := w.synced("api-key", "canary-1")
			w.grafana.ResetCalls()
			w.secret("source", data)
			w.eventually(sv, reason)
			Expect(message(sv.Status.Conditions)).To(ContainSubstring(part))
			Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
			Expect(w.calls()).To(BeEmpty())

			w.secret("source", map[string]string{"key": "canary-2"})
			w.eventuallyStored("api-key", "canary-2")
			w.eventuallySynced(sv)
		},
		Entry("key missing", map[string]string{"other": "canary"}, v1alpha1.ReasonSecretKeyNotFound, `no key "key"`),
		Entry("empty value", map[string]string{"key": ""}, v1alpha1.ReasonValueEmpty, "is empty"),
		Entry("24,577 bytes", map[string]string{"key": strings.Repeat("x", 24577)}, v1alpha1.ReasonValueTooLarge, "24577 bytes"),
		Entry("not UTF-8", map[string]string{"key": "canary\xff\xfe"}, v1alpha1.ReasonValueNotUTF8, "not UTF-8"),
	)

	It("leaves the last good value alone when the Secret is deleted", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.grafana.ResetCalls()
		w.deleteSecret("source")
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		// Made again with the same content, it is recognised by its fingerprint.
		w.secret("source", map[string]string{"key": "canary-1"})
		w.eventuallySynced(sv)
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
	})
})

var _ = Describe("A Grafana that keeps no labels", func() {
	It("is left as it was, and the object says so, and the connection does not", func(ctx SpecContext) {
		w := newConnectedWorld(ctx, grafanatest.WithLabelsDropped())
		sv := w.valueWithSecret("api-key", "canary-1")
		w.settled() // the manager knows of the Secret
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
		Expect(meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
		Expect(w.calls()).To(Equal([]string{"create api-key", "delete api-key", "get api-key"}))
		Expect(w.contents()).To(BeEmpty())
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)

		By("editing, which is a reason to try again")
		w.reset()
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
		again := []string{"get api-key", "create api-key", "delete api-key", "get api-key"} // it is pending, so something may be there
		Expect(w.calls()).To(Equal(again))
		w.secret("grafana", map[string]string{"token": goodToken, "touched": "yes"})
		Eventually(w.lists).Should(BeNumerically(">", 0))
		w.settled()
		Expect(w.calls()).To(Equal(again), "with a LIST of the connection")
		Expect(w.contents()).To(BeEmpty())
		w.delete(sv)
		w.eventuallyGone(sv)
	})

	It("is used again once it keeps them", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.dropLabels(grafanatest.VerbCreate)
		sv := w.valueWithSecret("api-key", "canary-1")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
		Expect(w.contents()).To(BeEmpty())
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.eventuallySynced(sv)
		Expect(w.contents()).To(Equal([]string{"api-key=canary-1"}))
	})

	It("keeps a value that was there before, which is written and labelled again once it keeps them", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.noGap("api-key")
		w.dropLabels(grafanatest.VerbUpdate)
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventually(sv, v1alpha1.ReasonLabelsNotKept)
		w.syncNow(sv, "token")
		w.eventuallyAnswered(sv, "token")
		w.eventuallySynced(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-2"))
		Expect(w.stored("api-key").Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
	})
})

var _ = Describe("Finalizers of other controllers", func() {
	It("stay, however many an object or a connection has", func(ctx SpecContext) {
		var others []string
		for i := range 20 { // more than are cached
			others = append(others, fmt.Sprintf("example.com/finalizer-%d", i))
		}
		w := newWorld(ctx)
		shared := w.shared()
		shared.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		shared.Finalizers = others
		conn := w.connection(connectionRef)
		conn.Finalizers = others
		w.createShared(shared)
		w.create(conn)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv, through := w.value("api-key"), through(w.value("shared-key"), shared)
		sv.Finalizers, through.Finalizers = others, others
		objects, connections := []client.Object{sv, through}, []client.Object{conn, shared}
		finalizersAre := func(of []client.Object, want []string) {
			GinkgoHelper()
			for _, o := range of {
				Eventually(func(g Gomega) {
					g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
					g.Expect(o.GetFinalizers()).To(Equal(want), "%T", o)
				}).Should(Succeed())
			}
		}
		w.create(sv)
		w.create(through)
		w.eventuallySynced(sv)
		w.eventuallySynced(through)
		ours := append(slices.Clone(others), v1alpha1.Finalizer)
		finalizersAre(objects, ours)
		finalizersAre(connections, ours)

		for _, kind := range [][]client.Object{objects, connections} {
			for _, o := range kind {
				w.delete(o)
			}
			finalizersAre(kind, others)
			for _, o := range kind {
				Expect(k8s.Patch(ctx, o, client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`)))).To(Succeed())
			}
		}
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})
})
