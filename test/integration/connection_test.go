package integration

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

var _ = Describe("A connection", func() {
	DescribeTable("says what is wrong, and what to do",
		func(ctx SpecContext, options []grafanatest.Option, prepare func(*world, *v1alpha1.ConnectionSpec), reason, part string) {
			w := newWorld(ctx, options...)
			conn := w.connection(connectionRef)
			prepare(w, conn.GetSpec())
			w.create(conn)
			conn = w.eventuallyConnection(connectionRef, reason)
			Expect(message(conn.Status.Conditions)).To(ContainSubstring(part))
			Expect(message(conn.Status.Conditions)).NotTo(ContainSubstring("canary"))

			// An object with something to write says that it waits; it makes no call.
			w.grafana.ResetCalls()
			w.secret("source", map[string]string{"key": "canary-1"})
			sv := w.value("api-key")
			w.create(sv)
			waits := v1alpha1.ReasonConnectionNotReady
			if reason == v1alpha1.ReasonUnreachable || reason == v1alpha1.ReasonInvalidResponse || reason == v1alpha1.ReasonRateLimited {
				waits = v1alpha1.ReasonGrafanaUnavailable
			}
			w.eventually(sv, waits)
			Expect(w.calls()).To(BeEmpty())
		},
		Entry("wrong token", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.secret("grafana", map[string]string{"token": "glsa_canary-wrong"})
		}, v1alpha1.ReasonUnauthorized, "HTTP 401"),
		Entry("Cloud access policy token", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.secret("grafana", map[string]string{"token": "glc_canary"})
		}, v1alpha1.ReasonCredentialsInvalid, "service account token (glsa_...)"),
		Entry("blank token", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.secret("grafana", map[string]string{"token": " \n"})
		}, v1alpha1.ReasonCredentialsInvalid, "is empty"),
		Entry("a token of two lines", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.secret("grafana", map[string]string{"token": "glsa_canary\nsecond"})
		}, v1alpha1.ReasonCredentialsInvalid, "characters that are not allowed in a token"),
		Entry("Secret missing", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.deleteSecret("grafana")
		}, v1alpha1.ReasonCredentialsNotFound, `Secret "grafana" does not exist`),
		Entry("key missing", nil, func(_ *world, spec *v1alpha1.ConnectionSpec) {
			spec.Credentials.TokenSecretRef.Key = "other"
		}, v1alpha1.ReasonCredentialsNotFound, `has no key "other"`),
		Entry("wrong namespace", nil, func(_ *world, spec *v1alpha1.ConnectionSpec) {
			spec.Namespace = "stacks-1"
		}, v1alpha1.ReasonNamespaceRejected, "another organization or stack"),
		Entry("missing permission", nil, func(w *world, _ *v1alpha1.ConnectionSpec) {
			w.grafana.AddToken(goodToken, grafanatest.Permission{Action: grafanatest.ActionCreate, Namespace: "*"})
		}, v1alpha1.ReasonForbidden, "secret.securevalues:read"),
		Entry("API not served", []grafanatest.Option{grafanatest.WithAPINotServed()}, func(*world, *v1alpha1.ConnectionSpec) {},
			v1alpha1.ReasonAPINotServed, "Grafana Cloud or Grafana Enterprise"),
		Entry("API version not served", nil, func(_ *world, spec *v1alpha1.ConnectionSpec) {
			spec.APIVersion = "v2"
		}, v1alpha1.ReasonAPINotServed, "spec.apiVersion"),
		Entry("redirect", nil, answering(http.StatusFound, "", "canary"), v1alpha1.ReasonRedirectRefused, "HTTP 302"),
		Entry("HTML with 200", nil, answering(http.StatusOK, "text/html", "<html>canary</html>"), v1alpha1.ReasonInvalidResponse, "HTTP 200"),
		Entry("rate limited", nil, answering(http.StatusTooManyRequests, "text/plain", "canary"), v1alpha1.ReasonRateLimited, "HTTP 429"),
		Entry("server error", nil, answering(http.StatusBadGateway, "text/html", "canary"), v1alpha1.ReasonUnreachable, "HTTP 502"),
		Entry("a front's 401", nil, answering(http.StatusUnauthorized, "text/html", "canary"), v1alpha1.ReasonUnreachable, "what is in front of it"),
		Entry("a front's 403", nil, answering(http.StatusForbidden, "text/html", "canary"), v1alpha1.ReasonUnreachable, "what is in front of it"),
		Entry("a front's 404", nil, answering(http.StatusNotFound, "text/html", "canary"), v1alpha1.ReasonUnreachable, "what is in front of it"),
		Entry("unknown certificate", nil, func(_ *world, spec *v1alpha1.ConnectionSpec) {
			spec.URL = secureServer().URL
		}, v1alpha1.ReasonTLSError, "spec.tls.caSecretRef"),
		Entry("a CA that is none", nil, func(w *world, spec *v1alpha1.ConnectionSpec) {
			w.secret("ca", map[string]string{"ca.crt": "canary"})
			spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
		}, v1alpha1.ReasonTLSError, "spec.tls.caSecretRef"),
		Entry("unreachable", nil, func(_ *world, spec *v1alpha1.ConnectionSpec) {
			spec.URL = "http://127.0.0.1:1"
		}, v1alpha1.ReasonUnreachable, "the connection was refused"),
	)

	It("trusts a private CA, and may be under a sub-path", func(ctx SpecContext) {
		server := grafanatest.New(grafanatest.WithBasePath("/sub/grafana"))
		server.AddToken(goodToken)
		running, err := server.StartTLS()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(running.Close)

		w := newWorld(ctx)
		w.secret("ca", map[string]string{"ca.crt": string(running.CA)})
		conn := w.connection(connectionRef)
		conn.Spec.URL = running.URL + "/"
		conn.Spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.synced("api-key", "canary-1")
		Expect(server.Values(grafanaNS)).To(HaveKey("api-key"))
		edit(w, conn, func(c *v1alpha1.GrafanaConnection) { c.Spec.TLS.ServerName = "other.test" })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonTLSError)
	})

	It("uses a new token at once, and objects that waited go on", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.secret("grafana", map[string]string{"token": "glsa_canary-wrong"})
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotReady)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("(Unauthorized)"))
		Expect(message(sv.Status.Conditions)).To(HaveSuffix("Check the connection: `kubectl describe gconn " + connectionRef + " -n " + w.namespace + "`."))

		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.eventuallySynced(sv)
	})

	It("is not used any more after the first 401, and objects in sync stay Ready", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		resting := w.synced("resting", "canary-1")
		w.secret("other", map[string]string{"key": "canary-1"})
		rotated := w.value("rotated")
		rotated.Spec.ValueFrom.SecretKeyRef.Name = "other"
		w.create(rotated)
		w.eventuallySynced(rotated)
		w.reset()

		w.grafana.RevokeToken(goodToken)
		w.secret("other", map[string]string{"key": "canary-2"})
		w.eventually(rotated, v1alpha1.ReasonConnectionNotReady)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnauthorized)
		w.secret("other", map[string]string{"key": "canary-3"})
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get rotated"}))
		Expect(w.lists()).To(BeZero())
		w.eventuallySynced(resting)

		w.grafana.AddToken("glsa_canary-new")
		w.secret("grafana", map[string]string{"token": "glsa_canary-new"})
		w.eventuallyStored("rotated", "canary-3")
		w.eventuallySynced(rotated)
	})

	It("is Ready again after an outage", func(ctx SpecContext) {
		w := newWorld(ctx)
		remove := w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable})
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonUnreachable)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonGrafanaUnavailable)
		remove()
		w.eventuallySynced(sv)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	})

	It("is checked again and again, and counts the objects that use it", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.ResyncPeriod = "5s"
		w.create(conn)
		w.synced("one", "canary-1")
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
			g.Expect(conn.Status.SecureValues).To(HaveValue(Equal(int32(1))))
		}).Should(Succeed())
		Eventually(w.lists).Should(BeNumerically(">=", 2))
	})

	It("reports a missing right to write on the object", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.grafana.AddToken(goodToken, grafanatest.Permission{Action: grafanatest.ActionRead, Namespace: "*"})
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonForbidden)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("secret.securevalues:create"))
	})

	It("says what keeps an object from being deleted, and lets Retain end it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.grafana.AddToken(goodToken,
			grafanatest.Permission{Action: grafanatest.ActionRead, Namespace: "*"},
			grafanatest.Permission{Action: grafanatest.ActionCreate, Namespace: "*"})
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("secret.securevalues:delete"))
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(`"deletionPolicy":"Retain"`))
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.eventuallyGone(sv)
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
	})
})

var _ = Describe("A ClusterGrafanaConnection", func() {
	It("serves the namespaces that it allows, as their labels say at the time", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.secretIn(operatorNamespace, "grafana-"+w.namespace, map[string]string{"token": goodToken})
		conn := &v1alpha1.ClusterGrafanaConnection{
			ObjectMeta: metav1.ObjectMeta{Name: "shared-" + w.namespace},
			Spec: v1alpha1.ClusterGrafanaConnectionSpec{
				ConnectionSpec: w.connectionSpec("grafana-" + w.namespace),
				AllowedNamespaces: v1alpha1.AllowedNamespaces{
					From:     v1alpha1.NamespacesFromSelector,
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"grafana": "yes"}},
				},
			},
		}
		w.create(conn)
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, conn)).To(Succeed()) })
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := w.value("api-key")
		sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: conn.Name}
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
		Expect(w.calls()).To(BeEmpty())

		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
		edit(w, ns, func(ns *corev1.Namespace) { ns.Labels["grafana"] = "yes" })
		w.eventuallySynced(sv)

		edit(w, ns, func(ns *corev1.Namespace) { delete(ns.Labels, "grafana") })
		w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
		w.grafana.ResetCalls()
		w.secret("source", map[string]string{"key": "canary-2"})
		w.settled()
		Expect(w.calls()).To(BeEmpty())
		Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

		edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) {
			c.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		})
		w.eventuallyStored("api-key", "canary-2")
		w.eventuallySynced(sv)

		// What a namespace owns may be deleted after the right was taken away.
		edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) {
			c.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{
				From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"grafana": "yes"}},
			}
		})
		w.eventually(sv, v1alpha1.ReasonConnectionNotAllowed)
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
	})

	It("never reads the operator's own key", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := &v1alpha1.ClusterGrafanaConnection{
			ObjectMeta: metav1.ObjectMeta{Name: "key-" + w.namespace},
			Spec: v1alpha1.ClusterGrafanaConnectionSpec{
				ConnectionSpec:    w.connectionSpec("grafana-secure-value-operator-fingerprint"),
				AllowedNamespaces: v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll},
			},
		}
		conn.Spec.Credentials.TokenSecretRef.Key = "key"
		w.create(conn)
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, conn)).To(Succeed()) })
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(conn), conn)).To(Succeed())
			g.Expect(describe(conn.Status.ObservedGeneration, conn.Status.Conditions)).
				To(Equal(describeWanted(1, v1alpha1.ReasonCredentialsInvalid)))
		}).Should(Succeed())
		Expect(w.grafana.Calls()).To(BeEmpty())
	})

	It("is named where a GrafanaConnection of its name is missing", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := &v1alpha1.ClusterGrafanaConnection{
			ObjectMeta: metav1.ObjectMeta{Name: "other-" + w.namespace},
			Spec: v1alpha1.ClusterGrafanaConnectionSpec{
				ConnectionSpec:    w.connectionSpec("grafana"),
				AllowedNamespaces: v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll},
			},
		}
		w.create(conn)
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, conn)).To(Succeed()) })
		w.eventuallySays(conn, v1alpha1.ReasonCredentialsNotFound) // the manager knows of it
		sv := w.value("api-key")
		sv.Spec.ConnectionRef.Name = conn.Name
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonConnectionNotFound)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("A ClusterGrafanaConnection of that name exists"))
	})
})

// answering makes Grafana answer every call so.
func answering(code int, contentType, body string) func(*world, *v1alpha1.ConnectionSpec) {
	return func(w *world, _ *v1alpha1.ConnectionSpec) {
		w.grafana.Inject(grafanatest.Fault{
			Code: code, ContentType: contentType, Body: body,
			Header: http.Header{"Location": {"https://canary.invalid/"}, "X-Canary": {"canary"}},
		})
	}
}

// secureServer has a certificate of an unknown authority.
func secureServer() *grafanatest.Running {
	running, err := grafanatest.New().StartTLS()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(running.Close)
	return running
}
