package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// limited makes the world's shared connection one that every namespace may use, within limits.
func (w *world) limited(limit func(*v1alpha1.ClusterGrafanaConnectionSpec)) *v1alpha1.ClusterGrafanaConnection {
	GinkgoHelper()
	conn := w.shared()
	conn.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
	limit(&conn.Spec)
	w.createShared(conn)
	w.eventuallySays(conn, v1alpha1.ReasonConnected)
	w.settled()
	w.grafana.ResetCalls()
	return conn
}

func requirePrefix(spec *v1alpha1.ClusterGrafanaConnectionSpec) { spec.RequireNamePrefix = true }

func allowDecrypters(names ...string) func(*v1alpha1.ClusterGrafanaConnectionSpec) {
	return func(spec *v1alpha1.ClusterGrafanaConnectionSpec) { spec.AllowedDecrypters = names }
}

func allowAll(spec *v1alpha1.ClusterGrafanaConnectionSpec) {
	spec.RequireNamePrefix, spec.AllowedDecrypters = false, nil
}

var _ = Describe("The limits of a ClusterGrafanaConnection", func() {
	DescribeTable("refuse an object before any request, and serve it when they are lifted",
		func(ctx SpecContext, limit func(*v1alpha1.ClusterGrafanaConnectionSpec), change func(*v1alpha1.GrafanaSecureValue), reason, part string) {
			w := newWorld(ctx)
			conn := w.limited(limit)
			w.secret("source", map[string]string{"key": "canary-1"})
			sv := through(w.value("api-key"), conn)
			change(sv)
			w.create(sv)
			w.eventually(sv, reason)
			Expect(message(sv.Status.Conditions)).To(ContainSubstring(strings.ReplaceAll(part, "NAMESPACE", w.namespace)))
			Expect(sv.Annotations).NotTo(HaveKey(v1alpha1.AnnotationPendingTargets))
			w.settled()
			Expect(w.grafana.Calls()).To(BeEmpty())

			edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { allowAll(&c.Spec) })
			w.eventuallySynced(sv)
		},
		Entry("a name without a prefix", requirePrefix, func(*v1alpha1.GrafanaSecureValue) {},
			v1alpha1.ReasonNameNotAllowed, `Set spec.name to "NAMESPACE.api-key"`),
		Entry("the namespace without its dot", requirePrefix, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = sv.Namespace + "-api-key" },
			v1alpha1.ReasonNameNotAllowed, `begins with "NAMESPACE."`),
		Entry("the namespace alone", requirePrefix, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = sv.Namespace },
			v1alpha1.ReasonNameNotAllowed, `begins with "NAMESPACE."`),
		Entry("a namespace that begins as this one does", requirePrefix,
			func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = sv.Namespace + "-a.api-key" },
			v1alpha1.ReasonNameNotAllowed, `begins with "NAMESPACE."`),
		Entry("a namespace that ends as this one does", requirePrefix,
			func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "a." + sv.Namespace + ".api-key" },
			v1alpha1.ReasonNameNotAllowed, `begins with "NAMESPACE."`),
		Entry("a decrypter that is not allowed", allowDecrypters("synthetic-monitoring"),
			func(sv *v1alpha1.GrafanaSecureValue) {
				sv.Spec.Decrypters = []string{"synthetic-monitoring", "k6-cloud"}
			},
			v1alpha1.ReasonDecrypterNotAllowed, `does not allow decrypter "k6-cloud"`),
		Entry("a decrypter in other letters", allowDecrypters("synthetic-monitoring"),
			func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Decrypters = []string{"Synthetic-Monitoring"} },
			v1alpha1.ReasonDecrypterNotAllowed, `does not allow decrypter "Synthetic-Monitoring"`),
	)

	It("forbid adoption, and nothing else", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.limited(func(spec *v1alpha1.ClusterGrafanaConnectionSpec) { spec.Adoption = v1alpha1.AdoptionForbidden })
		w.secret("source", map[string]string{"key": "canary-1"})
		named := func(name, target string) *v1alpha1.GrafanaSecureValue {
			sv := through(w.value(name), conn)
			sv.Spec.Name, sv.Spec.AdoptionPolicy = target, v1alpha1.AdoptionPolicyAdopt
			w.create(sv)
			return sv
		}
		w.eventuallySynced(named("new", "new"))
		for name, stored := range map[string]grafanatest.Stored{
			"nobodys": {Name: "nobodys", Description: "theirs", Value: []byte("their value")},
			"blue":    labelled("blue", "another-cluster", w.namespace, "blue"),
		} {
			w.grafana.Put(grafanaNS, stored)
			sv := named(name, name)
			w.eventually(sv, v1alpha1.ReasonAdoptionNotAllowed)
			Expect(message(sv.Status.Conditions)).To(ContainSubstring(`forbids adoption (spec.adoption)`))
			Expect(w.stored(name)).To(HaveField("Value", stored.Value))
		}
		left := labelled("left", clusterID, w.namespace, "gone")
		w.grafana.Put(grafanaNS, left)
		w.eventuallySynced(named("successor", "left"))

		edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { c.Spec.Adoption = v1alpha1.AdoptionAllowed })
		w.eventuallySynced(w.value("nobodys"))
		w.eventuallySynced(w.value("blue"))
	})

	It("allow what keeps to them", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.limited(func(spec *v1alpha1.ClusterGrafanaConnectionSpec) {
			requirePrefix(spec)
			allowDecrypters("synthetic-monitoring", "k6-cloud")(spec)
		})
		w.secret("source", map[string]string{"key": "canary-1"})
		for name, decrypters := range map[string][]string{
			"one": {"k6-cloud"}, "both": {"k6-cloud", "synthetic-monitoring"}, "none": nil,
		} {
			sv := through(w.value(name), conn)
			sv.Spec.Name, sv.Spec.Decrypters = w.namespace+"."+name, decrypters
			w.create(sv)
			w.eventuallySynced(sv)
			Expect(w.stored(sv.Spec.Name).Decrypters).To(ConsistOf(decrypters))
		}
	})

	DescribeTable("stop the writes of an object that was synced, and never its deletion",
		func(ctx SpecContext, limit func(*v1alpha1.ClusterGrafanaConnectionSpec), reason string) {
			w := newWorld(ctx)
			conn := w.limited(allowAll)
			w.secret("source", map[string]string{"key": "canary-1"})
			sv := through(w.value("api-key"), conn)
			w.create(sv)
			w.eventuallySynced(sv)

			edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { limit(&c.Spec) })
			w.eventually(sv, reason)
			w.grafana.ResetCalls()
			w.secret("source", map[string]string{"key": "canary-2"})
			w.settled()
			Expect(w.calls()).To(BeEmpty())
			Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))

			w.delete(sv)
			w.eventuallyGone(sv)
			Expect(w.grafana.Values(grafanaNS)).To(BeEmpty())
		},
		Entry("of names", requirePrefix, v1alpha1.ReasonNameNotAllowed),
		Entry("of decrypters", allowDecrypters("k6-cloud"), v1alpha1.ReasonDecrypterNotAllowed),
	)

	It("let an object leave a name that is not allowed any more", func(ctx SpecContext) {
		w := newWorld(ctx)
		conn := w.limited(allowAll)
		w.secret("source", map[string]string{"key": "canary-1"})
		sv := through(w.value("api-key"), conn)
		w.create(sv)
		w.eventuallySynced(sv)
		edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { c.Spec.RequireNamePrefix = true })
		w.eventually(sv, v1alpha1.ReasonNameNotAllowed)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = w.namespace + ".api-key" })
		w.eventuallySynced(sv)
		Expect(w.grafana.Values(grafanaNS)).To(HaveLen(1))
		Expect(string(w.stored(w.namespace + ".api-key").Value)).To(Equal("canary-1"))
	})

	DescribeTable("stop a write whose request is under way when they are set",
		func(ctx SpecContext, take func(*world, *v1alpha1.ClusterGrafanaConnection), reason string) {
			w := newWorld(ctx)
			var armed atomic.Bool
			entered, release := make(chan struct{}), make(chan struct{})
			url := w.anotherAddress(func(r *http.Request) {
				if r.Method == http.MethodGet && path.Base(r.URL.Path) == "api-key" && armed.CompareAndSwap(true, false) {
					close(entered)
					<-release
				}
			})
			conn := w.limited(func(spec *v1alpha1.ClusterGrafanaConnectionSpec) { spec.URL = url })
			w.secret("source", map[string]string{"key": "canary-1"})
			sv := through(w.value("api-key"), conn)
			w.create(sv)
			w.eventuallySynced(sv)
			w.grafana.ResetCalls()

			// The GET that comes before the PUT waits until the right is gone, and the manager knows of it.
			witness := through(w.value("witness"), conn)
			witness.Spec.ValueFrom.SecretKeyRef.Name = "none"
			w.create(witness)
			w.eventually(witness, v1alpha1.ReasonSecretNotFound)
			armed.Store(true)
			w.secret("source", map[string]string{"key": "canary-2"})
			Eventually(entered).Should(BeClosed())
			take(w, conn)
			w.eventually(witness, reason)
			close(release)

			w.eventually(sv, reason)
			w.settled()
			Expect(w.calls()).To(Equal([]string{"get api-key"}))
			Expect(string(w.stored("api-key").Value)).To(Equal("canary-1"))
		},
		Entry("the namespace", func(w *world, conn *v1alpha1.ClusterGrafanaConnection) {
			edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) {
				c.Spec.AllowedNamespaces = w.shared().Spec.AllowedNamespaces
			})
		}, v1alpha1.ReasonConnectionNotAllowed),
		Entry("the name", func(w *world, conn *v1alpha1.ClusterGrafanaConnection) {
			edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { c.Spec.RequireNamePrefix = true })
		}, v1alpha1.ReasonNameNotAllowed),
		Entry("the decrypters", func(w *world, conn *v1alpha1.ClusterGrafanaConnection) {
			edit(w, conn, func(c *v1alpha1.ClusterGrafanaConnection) { c.Spec.AllowedDecrypters = []string{"k6-cloud"} })
		}, v1alpha1.ReasonDecrypterNotAllowed),
	)
})

// tenant makes a namespace of the given name with a Grafana of its own, and a Secret with its token.
func tenant(ctx context.Context, name string) *world {
	GinkgoHelper()
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	server, url := anotherGrafana()
	w := &world{ctx: ctx, namespace: name, grafana: server, url: url}
	DeferCleanup(func(ctx context.Context) {
		w.checkInvariants(ctx)
		w.cleanUp(ctx)
	})
	w.secret("grafana", map[string]string{"token": goodToken})
	return w
}

var _ = Describe("Tenants", func() {
	It("use what they are granted, and nothing of each other's", func(ctx SpecContext) {
		start := plane.Mark()
		platform := newWorld(ctx)
		// One name is the beginning of another.
		suffix := strings.TrimPrefix(platform.namespace, "spec-")
		team, teamA := tenant(ctx, "team-"+suffix), tenant(ctx, "team-"+suffix+"-a")
		other, outsider := tenant(ctx, "other-"+suffix), tenant(ctx, "outsider-"+suffix)
		tenants := []*world{team, teamA, other, outsider}
		team.label(true)
		teamA.label(true)
		for _, w := range []*world{team, other} {
			w.create(w.connection(connectionRef))
		}

		// Each shared connection has a Grafana of its own.
		grafanas := map[string]*grafanatest.Server{}
		sharedWith := func(name string, change func(*v1alpha1.ClusterGrafanaConnectionSpec)) *v1alpha1.ClusterGrafanaConnection {
			server, url := anotherGrafana()
			conn := platform.shared()
			conn.Name = name + "-" + suffix
			conn.Spec.URL = url
			change(&conn.Spec)
			platform.createShared(conn)
			grafanas[conn.Name] = server
			return conn
		}
		everyone := v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		open := sharedWith("open", func(spec *v1alpha1.ClusterGrafanaConnectionSpec) { spec.AllowedNamespaces = everyone })
		labelled := sharedWith("labelled", func(*v1alpha1.ClusterGrafanaConnectionSpec) {})
		limited := sharedWith("limited", func(spec *v1alpha1.ClusterGrafanaConnectionSpec) {
			spec.AllowedNamespaces = everyone
			requirePrefix(spec)
			allowDecrypters("synthetic-monitoring")(spec)
		})
		both := sharedWith("both", requirePrefix)

		granted := map[*world]map[v1alpha1.Connection]string{
			team:     {open: v1alpha1.ReasonSynced, labelled: v1alpha1.ReasonSynced, limited: v1alpha1.ReasonSynced, both: v1alpha1.ReasonSynced},
			teamA:    {open: v1alpha1.ReasonSynced, labelled: v1alpha1.ReasonSynced, limited: v1alpha1.ReasonSynced, both: v1alpha1.ReasonSynced},
			other:    {open: v1alpha1.ReasonSynced, labelled: v1alpha1.ReasonConnectionNotAllowed, limited: v1alpha1.ReasonSynced, both: v1alpha1.ReasonConnectionNotAllowed},
			outsider: {open: v1alpha1.ReasonSynced, labelled: v1alpha1.ReasonConnectionNotAllowed, limited: v1alpha1.ReasonSynced, both: v1alpha1.ReasonConnectionNotAllowed},
		}
		local := map[*world]string{
			team: v1alpha1.ReasonSynced, other: v1alpha1.ReasonSynced,
			teamA: v1alpha1.ReasonConnectionNotFound, outsider: v1alpha1.ReasonConnectionNotFound,
		}

		canary := func(w *world) string { return "canary-of-" + w.namespace }
		expected := map[*grafanatest.Server]map[string]string{} // by Grafana and name: the value
		type attempt struct {
			by     *world
			sv     *v1alpha1.GrafanaSecureValue
			reason string
		}
		var attempts []attempt
		try := func(w *world, object, name string, conn v1alpha1.Connection, server *grafanatest.Server, reason string) {
			sv := through(w.value(object), conn)
			sv.Spec.Name = name
			w.create(sv)
			attempts = append(attempts, attempt{w, sv, reason})
			if expected[server] == nil {
				expected[server] = map[string]string{}
			}
			if reason == v1alpha1.ReasonSynced {
				expected[server][name] = canary(w)
			}
		}
		for _, w := range tenants {
			w.secret("source", map[string]string{"key": canary(w)})
			w.secret("only-in-"+w.namespace, map[string]string{"key": canary(w)})
			try(w, "local", w.namespace+".local", w.connection(connectionRef), w.grafana, local[w])
			for conn, reason := range granted[w] {
				try(w, "through-"+conn.GetName(), w.namespace+".shared", conn, grafanas[conn.GetName()], reason)
			}
			for i, neighbour := range tenants {
				if neighbour == w {
					continue
				}
				// The neighbour's name where names are limited, the neighbour's connection, and the neighbour's Secret.
				try(w, fmt.Sprintf("squats-%d", i), neighbour.namespace+".taken", limited, grafanas[limited.Name], v1alpha1.ReasonNameNotAllowed)
				peeks := through(w.value(fmt.Sprintf("peeks-%d", i)), open)
				peeks.Spec.ValueFrom.SecretKeyRef.Name = "only-in-" + neighbour.namespace
				w.create(peeks)
				attempts = append(attempts, attempt{w, peeks, v1alpha1.ReasonSecretNotFound})
			}
			decrypts := through(w.value("decrypts"), limited)
			decrypts.Spec.Name, decrypts.Spec.Decrypters = w.namespace+".decrypts", []string{"k6-cloud"}
			w.create(decrypts)
			attempts = append(attempts, attempt{w, decrypts, v1alpha1.ReasonDecrypterNotAllowed})
		}
		for _, a := range attempts {
			By(a.by.namespace + " " + a.sv.Name)
			a.by.eventually(a.sv, a.reason)
		}
		for server, want := range expected {
			got := map[string]string{}
			for name, stored := range server.Values(grafanaNS) {
				got[name] = string(stored.Value)
			}
			Expect(got).To(Equal(want))
		}
		// What a tenant can read of its own objects shows nothing of the others: neither their values nor that they exist.
		for _, a := range attempts {
			out, err := json.Marshal(a.sv.Status)
			Expect(err).NotTo(HaveOccurred())
			for _, neighbour := range tenants {
				if neighbour == a.by || strings.Contains(a.by.namespace, neighbour.namespace) || a.reason == v1alpha1.ReasonNameNotAllowed ||
					a.reason == v1alpha1.ReasonSecretNotFound { // those repeat the name that the tenant itself wrote
					continue
				}
				Expect(string(out)).NotTo(ContainSubstring(neighbour.namespace), a.sv.Name)
			}
		}
		for _, w := range tenants {
			Expect(w.requests(start)).To(ContainElement("get secrets source"))
			Expect(w.requests(start)).NotTo(ContainElement("get secrets only-in-"+w.namespace), "a neighbour's reference was followed")
		}
	})

	It("do not get a neighbour's value by a forged annotation", func(ctx SpecContext) {
		platform := newWorld(ctx)
		conn := platform.limited(allowAll)
		victim, thief := newWorld(ctx), newWorld(ctx)
		owner := through(victim.value("api-key"), conn)
		victim.secret("source", map[string]string{"key": "canary-victim"})
		victim.create(owner)
		victim.eventuallySynced(owner)

		// Whoever may write in Grafana can change the annotation. The labels decide.
		stored := platform.stored("api-key")
		stored.Annotations[annotationResource] = thief.namespace + "/api-key"
		platform.grafana.Put(grafanaNS, stored)
		sv := through(thief.value("api-key"), conn)
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		thief.secret("source", map[string]string{"key": "canary-thief"})
		thief.create(sv)
		thief.eventually(sv, v1alpha1.ReasonNameConflict)
		Expect(message(sv.Status.Conditions)).NotTo(ContainSubstring(victim.namespace))
		thief.delete(sv)
		thief.eventuallyGone(sv)
		Expect(string(platform.stored("api-key").Value)).To(Equal("canary-victim"))
	})
})
