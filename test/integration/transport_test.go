package integration

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
)

// withOptions runs the suite's manager with other options until the spec ends.
func withOptions(change func(*operator.Options)) {
	GinkgoHelper()
	stopManager()
	stopManager = runManager(managerConfig, change)
	DeferCleanup(func() {
		stopManager()
		startManager()
	})
}

// secureTo makes the connection lead to a Grafana over TLS, whose CA it knows.
func (w *world) secureTo(conn *v1alpha1.GrafanaConnection, running *grafanatest.Running) {
	GinkgoHelper()
	w.secret("ca", map[string]string{"ca.crt": string(running.CA)})
	conn.Spec.URL = running.URL
	conn.Spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
}

// eventuallyMessage waits until the connection says the reason, with these words.
func (w *world) eventuallyMessage(name, reason, part string) {
	GinkgoHelper()
	Eventually(func() string { return message(w.eventuallyConnection(name, reason).Status.Conditions) }).Should(ContainSubstring(part))
}

var _ = Describe("A client certificate", func() {
	It("is shown to Grafana, and used at once when its Secret changes", func(ctx SpecContext) {
		cert, key, err := grafanatest.ClientCertificate()
		Expect(err).NotTo(HaveOccurred())
		otherCert, otherKey, err := grafanatest.ClientCertificate()
		Expect(err).NotTo(HaveOccurred())
		server := grafanatest.New()
		server.AddToken(goodToken)
		running, err := server.StartMutualTLS(cert)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(running.Close)

		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		w.secureTo(conn, running)
		w.create(conn)
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "spec.tls.clientCertSecretRef")

		pair := func(cert, key []byte) map[string]string {
			return map[string]string{"tls.crt": string(cert), "tls.key": string(key)}
		}
		w.secret("client", map[string]string{"tls.crt": string(cert)})
		edit(w, conn, func(c *v1alpha1.GrafanaConnection) {
			c.Spec.TLS.ClientCertSecretRef = &v1alpha1.SecretReference{Name: "client"}
		})
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonCredentialsNotFound, `has no key "tls.key"`)
		w.secret("client", pair(cert, []byte("canary")))
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "not a certificate and its key")
		w.secret("client", pair(nil, nil))
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "not a certificate and its key")
		w.secret("client", pair(otherCert, otherKey))
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "TLS failed")
		Expect(server.Calls()).To(BeEmpty())

		w.secret("client", pair(cert, key))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.synced("api-key", "canary-1")
		Expect(server.Values(grafanaNS)).To(HaveKey("api-key"))

		w.secret("client", pair(otherCert, otherKey))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonTLSError)
	})

	It("is not replaced by the system's trust where the CA is empty", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.secret("ca", map[string]string{"ca.crt": ""})
		conn := w.connection(connectionRef)
		conn.Spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
		w.create(conn)
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "holds no certificate in PEM")
		Expect(w.grafana.Calls()).To(BeEmpty())
	})
})

var _ = Describe("insecureSkipVerify", func() {
	It("is refused without its flag, and seen in Ready with it", func(ctx SpecContext) {
		server := grafanatest.New()
		server.AddToken(goodToken)
		running, err := server.StartTLS()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(running.Close)
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.URL, conn.Spec.TLS = running.URL, &v1alpha1.TLSConfig{InsecureSkipVerify: true}
		w.create(conn)
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonTLSError, "--allow-insecure-tls")
		w.settled()
		Expect(server.Calls()).To(BeEmpty())

		withOptions(func(o *operator.Options) { o.AllowInsecureTLS = true })
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonConnected, "not checked (spec.tls.insecureSkipVerify)")
		w.synced("api-key", "canary-1")

		w.secret("ca", map[string]string{"ca.crt": string(running.CA)})
		edit(w, conn, func(c *v1alpha1.GrafanaConnection) { w.secureTo(c, running) })
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(message(w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected).Status.Conditions)).NotTo(ContainSubstring("not checked"))
	})
})

var _ = Describe("--allowed-hosts", func() {
	It("keeps connections from every other host, before any call", func(ctx SpecContext) {
		w, other := newWorld(ctx), newWorld(ctx)
		withOptions(func(o *operator.Options) {
			o.AllowedHosts = []string{"*.grafana.net", strings.TrimPrefix(w.url, "http://")}
		})
		w.create(w.connection(connectionRef))
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.synced("api-key", "canary-1")

		other.create(other.connection(connectionRef))
		other.eventuallyMessage(connectionRef, v1alpha1.ReasonConnectionNotAllowed, "--allowed-hosts")
		other.secret("source", map[string]string{"key": "canary-1"})
		sv := other.value("api-key")
		other.create(sv)
		other.eventually(sv, v1alpha1.ReasonConnectionNotReady)
		Expect(other.grafana.Calls()).To(BeEmpty())

		other.setURL(w.url)
		other.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		w.setURL(other.url)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnectionNotAllowed)
		Expect(other.grafana.Calls()).To(BeEmpty())
	})
})

var _ = Describe("A connection to where no Grafana can be", func() {
	DescribeTable("is refused", func(ctx SpecContext, url string) {
		w := newWorld(ctx)
		conn := w.connection(connectionRef)
		conn.Spec.URL = url
		w.create(conn)
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonConnectionNotAllowed, "never called")
	},
		Entry("metadata over IPv6", "http://[fd00:ec2::254]"),
		Entry("metadata by another address", "http://100.100.100.200"),
		Entry("metadata through NAT64", "http://[64:ff9b::a9fe:a9fe]"),
		Entry("metadata through 6to4", "http://[2002:a9fe:a9fe::]"),
	)
})

var _ = Describe("The Secrets of a connection", func() {
	It("are never one of the operator's namespace that holds no credentials", func(ctx SpecContext) {
		w := newWorld(ctx)
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		DeferCleanup(server.Close)
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "account-" + w.namespace}}
		w.create(account)
		secret := func(name string, secretType corev1.SecretType, annotations map[string]string) {
			w.create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name, Annotations: annotations},
				Type:       secretType, StringData: map[string]string{"token": "glsa_canary", "release": "canary", "tls.crt": "canary", "tls.key": "canary"},
			})
		}
		secret("account-"+w.namespace, corev1.SecretTypeServiceAccountToken, map[string]string{corev1.ServiceAccountNameKey: account.Name})
		secret("release-"+w.namespace, "helm.sh/release.v1", nil)
		secret("sh.helm.release.v1."+w.namespace+".v1", corev1.SecretTypeOpaque, nil)

		start := plane.Mark()
		i := 0
		for name, what := range map[string]string{
			"account-" + w.namespace:                     "ServiceAccount",
			"release-" + w.namespace:                     "Helm",
			"sh.helm.release.v1." + w.namespace + ".v1":  "Helm",
			"sh.helm.release.v1." + w.namespace + ".v99": "Helm", // whether it exists is not revealed
			"grafana-secure-value-operator-fingerprint":  "operator's own",
		} {
			for _, use := range []func(*v1alpha1.ConnectionSpec){
				func(spec *v1alpha1.ConnectionSpec) { spec.Credentials.TokenSecretRef.Name = name },
				func(spec *v1alpha1.ConnectionSpec) {
					spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: name, Key: "token"}}
				},
				func(spec *v1alpha1.ConnectionSpec) {
					spec.TLS = &v1alpha1.TLSConfig{ClientCertSecretRef: &v1alpha1.SecretReference{Name: name}}
				},
			} {
				i++
				conn := w.shared()
				conn.Name += "-" + string(rune('a'+i))
				conn.Spec.URL = server.URL
				use(&conn.Spec.ConnectionSpec)
				w.createShared(conn)
				w.eventuallySays(conn, v1alpha1.ReasonCredentialsInvalid)
				Expect(message(conn.Status.Conditions)).To(ContainSubstring(what))
				Expect(message(conn.Status.Conditions)).To(ContainSubstring("Name another one"))
			}
			i++
			conn := w.connection("steals-" + string(rune('a'+i)) + w.namespace)
			conn.Namespace, conn.Spec.URL, conn.Spec.Credentials.TokenSecretRef.Name = operatorNamespace, server.URL, name
			w.create(conn)
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, conn)).To(Succeed()) })
			w.eventuallySays(conn, v1alpha1.ReasonCredentialsInvalid)
			Expect(message(conn.Status.Conditions)).To(ContainSubstring(what))
		}
		Expect(asked.Load()).To(BeZero())
		events, err := plane.Audit(start)
		Expect(err).NotTo(HaveOccurred())
		for _, e := range events {
			if e.User == managerUser && e.Resource == "secrets" && e.Verb == "get" {
				Expect(e.Name).NotTo(HavePrefix("sh.helm.release."))
			}
		}
	})

	It("are those of its own namespace, whatever the operator's has under that name", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.secretIn(operatorNamespace, "only-there-"+w.namespace, map[string]string{"token": goodToken})
		conn := w.connection(connectionRef)
		conn.Spec.Credentials.TokenSecretRef.Name = "only-there-" + w.namespace
		w.create(conn)
		w.eventuallyMessage(connectionRef, v1alpha1.ReasonCredentialsNotFound, w.namespace)
		Expect(w.grafana.Calls()).To(BeEmpty())
	})
})

var _ = Describe("The fingerprint key", func() {
	It("is no source of a secure value", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.limited(allowAll)
		sv := through(w.value("api-key"), conn)
		sv.Namespace = operatorNamespace
		sv.Name = "steals-" + w.namespace
		sv.Spec.ValueFrom.SecretKeyRef = v1alpha1.SecretKeyReference{Name: "grafana-secure-value-operator-fingerprint", Key: "key"}
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSourceNotAllowed)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring("the operator's own"))
		w.delete(sv)
		w.eventuallyGone(sv)
		Expect(w.calls()).To(BeEmpty())
	})
})

var _ = Describe("A Secret that never leaves the cluster", func() {
	It("is no source of a secure value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "account"}})
		for name, secretType := range map[string]corev1.SecretType{
			"account-token": corev1.SecretTypeServiceAccountToken, "release": "helm.sh/release.v1", "sh.helm.release.v1.x.v1": corev1.SecretTypeOpaque,
		} {
			w.create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: "account"}},
				Type:       secretType, Data: map[string][]byte{"key": []byte("canary-1")},
			})
			sv := w.value("of-" + name)
			sv.Spec.ValueFrom.SecretKeyRef.Name = name
			w.create(sv)
			w.eventually(sv, v1alpha1.ReasonSourceNotAllowed)
			Expect(message(sv.Status.Conditions)).To(ContainSubstring("never leaves the cluster"))
		}
		Expect(w.calls()).To(BeEmpty())
	})
})
