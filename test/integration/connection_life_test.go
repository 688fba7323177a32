package integration

import (
	"fmt"
	"net/http"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("The life of a connection", func() {
	It("begins with its finalizer, before the first call", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		key := client.ObjectKeyFromObject(conn)
		var calls, withFinalizer atomic.Int32
		conn.Spec.URL = w.anotherAddress(func(*http.Request) {
			seen := &v1alpha1.GrafanaConnection{}
			if k8s.Get(ctx, key, seen) == nil && len(seen.Finalizers) == 1 {
				withFinalizer.Add(1)
			}
			calls.Add(1)
		})
		w.create(conn)
		w.eventuallySays(conn, v1alpha1.ReasonConnected)
		Expect(conn.Finalizers).To(Equal([]string{v1alpha1.Finalizer}))
		Expect(calls.Load()).To(BeNumerically(">", 0))
		Expect(withFinalizer.Load()).To(Equal(calls.Load()), "calls of a connection without a finalizer")
	})

	It("ends at once if no object names it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.settled()
		w.grafana.ResetCalls()
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.eventuallyNone(conn)
		Expect(w.grafana.Calls()).To(BeEmpty())
	})

	It("ends at once even if it never worked", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.deleteSecret("grafana")
		conn := w.connection(connectionRef)
		w.create(conn)
		w.eventuallySays(conn, v1alpha1.ReasonCredentialsNotFound)
		w.delete(conn)
		w.eventuallyNone(conn)
	})
})

var _ = Describe("A connection that is deleted while objects name it", func() {
	// deleted deletes the connection, and waits until it says that it is in use.
	deleted := func(w *world) *v1alpha1.GrafanaConnection {
		GinkgoHelper()
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		Expect(meta.IsStatusConditionTrue(conn.Status.Conditions, v1alpha1.ConditionReconciling)).To(BeTrue())
		return conn
	}

	It("serves what is owned there, takes nothing new, and goes with the last object", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		owner, other := w.syncedFrom("owned", "canary-1"), w.syncedFrom("other", "canary-1")
		conn := deleted(w)
		w.eventuallySynced(owner)

		w.secret("owned", map[string]string{"key": "canary-2"})
		w.eventuallyStored("owned", "canary-2")
		w.eventuallySynced(owner)
		edit(w, owner, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.eventuallySynced(owner)
		Expect(w.stored("owned").Description).To(Equal("Another text"))

		w.delete(other)
		w.eventuallyGone(other)
		Expect(w.grafana.Values(grafanaNS)).NotTo(HaveKey("other"))

		w.reset()
		late := w.valueWithSecret("late", "canary-1")
		w.create(late)
		w.eventually(late, v1alpha1.ReasonConnectionNotReady)
		edit(w, owner, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" })
		w.eventually(owner, v1alpha1.ReasonConnectionNotReady)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(string(w.stored("owned").Value)).To(Equal("canary-2"))

		edit(w, owner, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "" })
		w.eventuallySynced(owner)
		w.delete(late)
		w.eventuallyGone(late)
		w.settled()
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		w.delete(owner)
		w.eventuallyGone(owner)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("goes once the last object has moved to another one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		conn := deleted(w)
		next := w.connection("next")
		server, url := anotherGrafana()
		next.Spec.URL = url
		w.create(next)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "next" })
		w.eventuallySynced(sv)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
		Expect(string(server.Values(grafanaNS)["api-key"].Value)).To(Equal("canary-1"))
		w.delete(sv)
		w.eventuallyGone(sv)
	})

	It("is kept by an object that only names it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		conn := deleted(w)
		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
	})

	It("is kept by a target that an object still owns there", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "missing" })
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		conn := deleted(w)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("is kept by a write of unknown outcome", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		// The value gets there, and no answer comes back, so that only the pending target lists it.
		remove := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbCreate, AfterEffect: true})
		get := w.grafana.Inject(grafanatest.Fault{Verb: grafanatest.VerbGet, Code: http.StatusServiceUnavailable})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "missing" })
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		remove()
		get()
		conn := deleted(w)
		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("takes nothing from an object that lists a forged pending target there", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.syncedFrom("owned", "canary-1")
		deleted(w)
		w.reset()
		late := w.valueWithSecret("late", "canary-1")
		late.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: pending("late")}
		w.create(late)
		w.eventually(late, v1alpha1.ReasonConnectionNotReady)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
	})

	It("still serves after a restart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		sv := w.synced("api-key", "canary-1")
		conn := deleted(w)
		stopManager()
		startManager()
		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		w.delete(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})
})

var _ = Describe("The last good credentials", func() {
	It("serve deletions, and nothing else", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		kept, gone := w.syncedFrom("kept", "canary-1"), w.syncedFrom("gone", "canary-1")
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		w.reset()

		w.secret("kept", map[string]string{"key": "canary-2"})
		w.eventually(kept, v1alpha1.ReasonConnectionNotReady)
		w.settled()
		Expect(w.calls()).To(BeEmpty())

		w.delete(gone)
		w.eventuallyGone(gone)
		Expect(w.grafana.Values(grafanaNS)).NotTo(HaveKey("gone"))
		Expect(w.calls()).To(Equal([]string{"get gone", "delete gone", "get gone"}))
		Expect(string(w.stored("kept").Value)).To(Equal("canary-1"))

		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyStored("kept", "canary-2")
		w.eventuallySynced(kept)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	})

	It("serve deletions after the connection is deleted, too", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		values := []*v1alpha1.GrafanaSecureValue{w.syncedFrom("first", "canary-1"), w.syncedFrom("second", "canary-2")}
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.settled()
		for _, sv := range values {
			w.delete(sv)
		}
		for _, sv := range values {
			w.eventuallyGone(sv)
		}
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("end with the process, and then the command that the message prints ends the deletion", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		stopManager()
		startManager()
		w.grafana.ResetCalls()
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(v1alpha1.ReasonCredentialsNotFound))
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("Since "))
		conn := w.connection(connectionRef)
		w.delete(conn)
		w.settled()
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed(), "an object still owns a value there")

		w.runPrinted(sv)
		w.eventuallyGone(sv)
		w.eventuallyNone(conn)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		Expect(w.grafana.Calls()).To(BeEmpty())
	})

	It("are not needed once the Secret is back", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.shortTimeout()
		sv := w.synced("api-key", "canary-1")
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		stopManager()
		startManager()
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})
})

var _ = Describe("A change of url", func() {
	ignore := func(*http.Request) {}

	It("to another address of the same Grafana writes nothing", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(conn.Status.URL).To(Equal(w.url))
		Expect(conn.Status.ClusterID).To(Equal(clusterID))
		w.reset()

		url := w.anotherAddress(ignore)
		w.setURL(url)
		conn = w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(conn.Status.URL).To(Equal(url))
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(w.lists()).To(Equal(1))

		w.secret("source", map[string]string{"key": "canary-2"})
		w.eventuallyStored("api-key", "canary-2")
	})

	It("to another Grafana neither writes nor deletes, and ends with the old address", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		kept, gone := w.syncedFrom("kept", "canary-1"), w.syncedFrom("gone", "canary-1")
		other, url := anotherGrafana()
		foreign := other.Put(grafanaNS, grafanatest.Stored{Name: "kept", Description: "theirs", Value: []byte("their value")})
		w.reset()

		w.setURL(url)
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonValuesMissing)
		Expect(meta.IsStatusConditionTrue(conn.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
		Expect(conn.Status.URL).To(Equal(w.url))
		w.eventuallySynced(kept) // what is in sync stays Ready: the connection alone says so

		w.secret("kept", map[string]string{"key": "canary-2"})
		w.eventually(kept, v1alpha1.ReasonConnectionNotReady)
		late := w.valueWithSecret("late", "canary-1")
		w.create(late)
		w.eventually(late, v1alpha1.ReasonConnectionNotReady)
		w.delete(gone)
		w.eventually(gone, v1alpha1.ReasonDeletionBlocked)
		Expect(message(gone.Status.Conditions)).To(ContainSubstring(v1alpha1.ReasonValuesMissing))
		w.settled()
		Expect(w.grafana.Calls()).To(BeEmpty())
		for _, c := range other.Calls() {
			Expect(c.Verb).To(Equal(grafanatest.VerbList))
		}
		Expect(other.Values(grafanaNS)).To(Equal(map[string]grafanatest.Stored{"kept": foreign}))

		edit(w, gone, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.eventuallyGone(gone)
		Expect(string(w.stored("gone").Value)).To(Equal("canary-1"))

		w.setURL(w.url)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.eventuallySynced(kept)
		w.eventuallySynced(late)
		Expect(string(w.stored("kept").Value)).To(Equal("canary-2"))
		Expect(other.Values(grafanaNS)).To(Equal(map[string]grafanatest.Stored{"kept": foreign}))
	})

	It("to another Grafana stays without effect when the credentials go too", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		other, url := anotherGrafana()
		edit(w, w.connection(connectionRef), func(c *v1alpha1.GrafanaConnection) { c.Spec.URL = url })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonValuesMissing)
		w.deleteSecret("grafana")
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		for _, c := range other.Calls() {
			Expect(c.Verb).To(Equal(grafanatest.VerbList))
		}
	})

	It("to another Grafana is noticed even if the operator was away when it was made, and after each restart", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		other, url := anotherGrafana()
		w.reset()
		stopManager()
		w.setURL(url)
		w.secret("source", map[string]string{"key": "canary-2"})
		for range 2 {
			startManager()
			w.eventuallyConnection(connectionRef, v1alpha1.ReasonValuesMissing)
			w.eventually(sv, v1alpha1.ReasonConnectionNotReady)
			w.settled()
			stopManager()
		}
		startManager()
		Expect(w.calls()).To(BeEmpty())
		Expect(other.Values(grafanaNS)).To(BeEmpty())

		w.setURL(w.url)
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)
	})

	It("is free while nothing is recorded on the connection", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		waiting := w.value("api-key") // names it, and owns nothing
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonSecretNotFound)
		other, url := anotherGrafana()
		w.setURL(url)
		conn := w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(conn.Status.URL).To(Equal(url))

		w.secret("source", map[string]string{"key": "canary-1"})
		w.eventuallySynced(waiting)
		Expect(other.Values(grafanaNS)).To(HaveKey("api-key"))
		Expect(w.calls()).To(BeEmpty())
		w.delete(waiting)
		w.eventuallyGone(waiting)
		Expect(other.Values(grafanaNS)).To(BeEmpty())
	})
})

var _ = Describe("The life of a ClusterGrafanaConnection", func() {
	It("follows the labels of namespaces in both directions, for all their objects at once", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.shared()
		w.createShared(conn)
		var values []*v1alpha1.GrafanaSecureValue
		for i := range 5 {
			values = append(values, through(w.valueWithSecret(fmt.Sprintf("value-%d", i), "canary-1"), conn))
			w.create(values[i])
		}
		for _, sv := range values {
			w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
		}
		Expect(w.calls()).To(BeEmpty())

		for range 2 {
			w.label(true)
			for _, sv := range values {
				w.eventuallySynced(sv)
				Expect(string(w.stored(sv.Name).Value)).To(Equal("canary-1"))
			}
			w.label(false)
			for _, sv := range values {
				w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
			}
		}
		w.reset()
		for _, sv := range values {
			w.secret(sv.Name, map[string]string{"key": "canary-2"})
		}
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		w.label(true)
		for _, sv := range values {
			w.eventuallyStored(sv.Name, "canary-2")
			w.eventuallySynced(sv)
		}
	})

	It("lets an object move away that it allows no longer", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		conn := w.shared()
		server, url := anotherGrafana()
		conn.Spec.URL = url
		w.createShared(conn)
		w.label(true)
		sv := through(w.valueWithSecret("api-key", "canary-1"), conn)
		w.create(sv)
		w.eventuallySynced(sv)
		Expect(server.Values(grafanaNS)).To(HaveKey("api-key"))
		w.label(false)
		w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)

		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { through(sv, w.connection(connectionRef)) })
		w.eventuallySynced(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		Expect(server.Values(grafanaNS)).To(BeEmpty())
		Expect(sv.Status.Targets).To(HaveLen(1))
		w.delete(conn)
		w.eventuallyNone(conn)
	})

	It("is kept by no object that may not use it, and wrote nothing through it", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.shared()
		w.createShared(conn)
		sv := through(w.valueWithSecret("api-key", "canary-1"), conn)
		sv.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: "ClusterGrafanaConnection/" + conn.Name + "/default/other"}
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
		w.delete(conn)
		w.eventuallyNone(conn)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { delete(sv.Annotations, v1alpha1.AnnotationPendingTargets) })
	})

	It("goes once the only namespaces that name it may not use it any more", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.shared()
		w.createShared(conn)
		w.label(true)
		sv := through(w.value("api-key"), conn)
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		w.delete(conn)
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		w.label(false)
		w.eventuallyNone(conn)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
	})

	It("ends once the objects of all namespaces are gone", func(ctx SpecContext) {
		w, other := newWorld(ctx), newWorld(ctx)
		conn := w.shared()
		conn.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		w.createShared(conn)
		ours, theirs := through(w.valueWithSecret("ours", "canary-1"), conn), through(other.valueWithSecret("theirs", "canary-1"), conn)
		w.create(ours)
		w.create(theirs)
		w.eventuallySynced(ours)
		w.eventuallySynced(theirs)
		Expect(conn.GetName()).NotTo(BeEmpty())

		w.delete(conn)
		w.eventuallySays(conn, v1alpha1.ReasonInUse)
		w.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: conn.Name}})
		w.delete(ours)
		w.eventuallyGone(ours)
		w.settled()
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
		Expect(string(w.stored("theirs").Value)).To(Equal("canary-1"))
		w.delete(theirs)
		w.eventuallyGone(theirs)
		w.eventuallyNone(conn)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})
})
