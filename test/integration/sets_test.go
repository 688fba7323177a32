package integration

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// set returns a set of all keys of Secret "sm".
func (w *world) set() *v1alpha1.GrafanaSecureValueSet {
	return &v1alpha1.GrafanaSecureValueSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "monitoring"},
		Spec: v1alpha1.GrafanaSecureValueSetSpec{
			Secrets:        v1alpha1.SecretSelection{Names: []string{"sm"}},
			ConnectionRefs: []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindGrafanaConnection, Name: connectionRef}},
			Template:       v1alpha1.SecureValueTemplate{Spec: v1alpha1.SecureValueSettings{Decrypters: []string{"synthetic-monitoring"}}},
		},
	}
}

// eventuallySet waits until the set says the reason for its latest generation, and the counts: desired, ready, failed, stale.
func (w *world) eventuallySet(set *v1alpha1.GrafanaSecureValueSet, reason string, counts ...int32) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
		g.Expect(describe(set.Status.ObservedGeneration, set.Status.Conditions)).To(Equal(describeWanted(set.Generation, reason)), "%+v", set.Status)
		if len(counts) > 0 {
			got := set.Status.SecureValues
			g.Expect([]int32{got.Desired, got.Ready, got.Failed, got.Stale}).To(Equal(counts), "%+v", set.Status)
		}
	}).Should(Succeed())
	checkStatus(set, set.Status.ObservedGeneration, set.Status.Conditions)
}

// children returns the objects of the set by "secret/key/connection".
func (w *world) children(set *v1alpha1.GrafanaSecureValueSet) map[string]*v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	list := &v1alpha1.GrafanaSecureValueList{}
	Expect(k8s.List(w.ctx, list, client.InNamespace(w.namespace), client.MatchingLabels{v1alpha1.LabelSet: set.Name})).To(Succeed())
	children := map[string]*v1alpha1.GrafanaSecureValue{}
	for i := range list.Items {
		ref := list.Items[i].Spec.ValueFrom.SecretKeyRef
		children[ref.Name+"/"+ref.Key+"/"+list.Items[i].Spec.ConnectionRef.Name] = &list.Items[i]
	}
	return children
}

var _ = Describe("A set", func() {
	It("makes a value of each key in each Grafana, and costs no more than its values", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		us := w.anotherGrafana()
		us.connected("us")
		w.secret("sm", map[string]string{"SM_TOKEN": "canary-1\n", "SM_USER": "canary-2", "SM_OLD": "canary-3", "OTHER": "canary-4"})
		w.settled()
		set := w.set()
		set.Spec.Keys = v1alpha1.KeySelection{Include: []string{"SM_*"}, Exclude: []string{"*_OLD"}}
		set.Spec.ConnectionRefs = append(set.Spec.ConnectionRefs, v1alpha1.ConnectionSelection{Kind: v1alpha1.KindGrafanaConnection, Name: "us"})
		set.Spec.Template.Metadata.Labels = map[string]v1alpha1.LabelValue{"team": "a"}
		set.Spec.Template.Spec.Transforms = []v1alpha1.ValueTransform{v1alpha1.TransformTrimTrailingNewline}
		mark := w.reset()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced, 4, 4, 0, 0)

		Expect(w.contents()).To(Equal([]string{"sm-sm-token=canary-1", "sm-sm-user=canary-2"}))
		Expect(us.contents()).To(Equal([]string{"sm-sm-token=canary-1", "sm-sm-user=canary-2"}))
		children := w.children(set)
		Expect(children).To(HaveLen(4))
		for _, child := range children {
			Expect(child.Name).To(MatchRegexp(`^monitoring-[0-9a-f]{10}$`))
			Expect(child.Labels).To(HaveKeyWithValue("team", "a"))
			Expect(metav1.IsControlledBy(child, set)).To(BeTrue())
			Expect(child.ManagedFields).To(ContainElement(And(
				HaveField("Manager", "grafana-secure-value-operator-set"), HaveField("Operation", metav1.ManagedFieldsOperationApply))))
		}
		w.settled()
		counted := func() map[string]int {
			counts := map[string]int{}
			for _, request := range w.requests(mark) {
				verb, what, _ := strings.Cut(request, " ")
				resource, _, _ := strings.Cut(what, " ")
				counts[verb+" "+resource]++
			}
			return counts
		}
		// For each value: it is created, claimed and reported. The set reads its Secret once, and reports once.
		Expect(counted()).To(Equal(map[string]int{
			"patch grafanasecurevalues": 8, "patch grafanasecurevalues/status": 4, "get secrets": 5, "patch grafanasecurevaluesets/status": 1,
		}), "%q", w.requests(mark))

		mark = w.reset()
		w.secret("sm", map[string]string{"SM_TOKEN": "canary-5", "SM_USER": "canary-2", "SM_OLD": "canary-3", "OTHER": "canary-4"})
		w.eventuallyStored("sm-sm-token", "canary-5")
		for _, child := range children {
			w.eventuallySourceIs(child, "sm")
		}
		w.settled()
		// Each value has read its Secret, and reports its version.
		Expect(counted()).To(Equal(map[string]int{"get secrets": 5, "patch grafanasecurevalues/status": 4}), "%q", w.requests(mark))
	})

	It("puts back what is edited, makes again what is deleted, and leaves the labels of others", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"a": "canary-1"})
		set := w.set()
		set.Spec.Template.Metadata.Annotations = map[string]v1alpha1.AnnotationValue{"note": "kept"}
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced, 1, 1, 0, 0)
		child := w.children(set)["sm/a/prod"]
		want := child.Spec.DeepCopy()
		edit(w, child, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.Suspend, sv.Spec.Description, sv.Spec.Name, sv.Spec.Decrypters = true, "By hand", "by-hand", nil
			sv.Spec.ValueFrom = v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{
				Text: "x", SecretRefs: []v1alpha1.TemplateSecretReference{{Name: "sm"}},
			}}
			sv.Labels, sv.Annotations["note"], sv.OwnerReferences = map[string]string{"by": "hand", v1alpha1.LabelSet: set.Name}, "edited", nil
		})
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(child), child)).To(Succeed())
			g.Expect(child.Spec).To(Equal(*want))
			g.Expect(child.Labels).To(Equal(map[string]string{"by": "hand", v1alpha1.LabelSet: set.Name}))
			g.Expect(child.Annotations).To(HaveKeyWithValue("note", "kept"))
			g.Expect(metav1.IsControlledBy(child, set)).To(BeTrue())
		}).Should(Succeed())
		w.eventuallySynced(child)

		uid := child.UID
		w.delete(child)
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(child), child)).To(Succeed())
			g.Expect(child.UID).NotTo(Equal(uid))
		}).Should(Succeed())
		w.eventuallySynced(child)
		w.eventuallySet(set, v1alpha1.ReasonSynced, 1, 1, 0, 0)
		Expect(w.contents()).To(Equal([]string{"sm-a=canary-1"}))

		By("an edit of the template, which removes what is no longer there")
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.Template = v1alpha1.SecureValueTemplate{Spec: v1alpha1.SecureValueSettings{Description: "New"}}
		})
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(child), child)).To(Succeed())
			g.Expect(child.Annotations).NotTo(HaveKey("note"))
			g.Expect(child.Spec.Description).To(Equal("New"))
			g.Expect(child.Spec.Decrypters).To(BeEmpty())
		}).Should(Succeed())
		w.eventuallySet(set, v1alpha1.ReasonSynced, 1, 1, 0, 0)
	})

	It("moves its values with a new nameTemplate, and Grafana is never without one", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"a": "canary-1"})
		set := w.set()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced)
		uid := w.children(set)["sm/a/prod"].UID
		w.reset()
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.NameTemplate = "{{ .Namespace }}.{{ .Connection }}.{{ .Key }}"
		})
		w.eventuallySet(set, v1alpha1.ReasonSynced, 1, 1, 0, 0)
		name := w.namespace + ".prod.a"
		Expect(w.contents()).To(Equal([]string{name + "=canary-1"}))
		Expect(w.children(set)["sm/a/prod"].UID).To(Equal(uid))
		calls := w.calls()
		Expect(slices.Index(calls, "create "+name)).To(And(BeNumerically(">=", 0), BeNumerically("<", slices.Index(calls, "delete sm-a"))), "%q", calls)
	})

	It("refuses as a whole what cannot be, and what exists goes on", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"a": "canary-1"})
		set := w.set()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced)
		refused := func(reason string, words ...string) {
			GinkgoHelper()
			w.eventuallySet(set, reason, 1, 1, 0, 0)
			Expect(meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
			for _, word := range words {
				Expect(message(set.Status.Conditions)).To(ContainSubstring(word))
			}
			Expect(w.children(set)).To(HaveLen(1))
		}
		By("two keys with one name")
		w.secret("sm", map[string]string{"a": "canary-2", "b_c": "canary", "b-c": "canary"})
		refused(v1alpha1.ReasonNameCollision, `Key "b-c" of Secret "sm"`, `Key "b_c" of Secret "sm"`, `"sm-b-c"`)
		w.eventuallyStored("sm-a", "canary-2")

		By("two connections to one Grafana")
		w.secret("sm", map[string]string{"a": "canary-2"})
		again := w.connection("again")
		again.Spec.URL = w.url + "/"
		w.create(again)
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.ConnectionRefs = append(set.Spec.ConnectionRefs, v1alpha1.ConnectionSelection{Kind: v1alpha1.KindGrafanaConnection, Name: "again"})
		})
		refused(v1alpha1.ReasonNameCollision, `GrafanaConnection "again"`, `GrafanaConnection "prod"`)

		By("a name that Grafana does not take, and a template that is none")
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.ConnectionRefs, set.Spec.NameTemplate = set.Spec.ConnectionRefs[:1], "{{ .Key | upper }}"
		})
		refused(v1alpha1.ReasonTemplateInvalid, `"A"`, "dnsName")
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.NameTemplate = "{{ .Value }}" })
		refused(v1alpha1.ReasonTemplateInvalid, "none of Connection, Key, Namespace, Secret")

		By("more than 1,000 keys")
		many := map[string]string{}
		for i := range v1alpha1.MaxSecureValues + 1 {
			many[fmt.Sprintf("key%d", i)] = "canary"
		}
		w.secret("many", many)
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.NameTemplate, set.Spec.Secrets.Names, set.Spec.PrunePolicy = v1alpha1.DefaultNameTemplate, []string{"many"}, v1alpha1.PrunePolicyDelete
		})
		refused(v1alpha1.ReasonTooManySecureValues, "more than 1000")
		Expect(w.contents()).To(Equal([]string{"sm-a=canary-2"}))
	})

	// What is no longer selected, and why.
	narrowed := func(w *world, set *v1alpha1.GrafanaSecureValueSet) {
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.Keys.Exclude = []string{"b"} })
	}
	keyGone := func(w *world, _ *v1alpha1.GrafanaSecureValueSet) { w.secret("sm", map[string]string{"a": "canary-a"}) }
	dropped := func(w *world, set *v1alpha1.GrafanaSecureValueSet) {
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.Secrets.Names = []string{"sm"} })
	}
	labelLost := func(w *world, _ *v1alpha1.GrafanaSecureValueSet) {
		edit(w, w.connection("eu"), func(conn *v1alpha1.GrafanaConnection) { conn.Labels = nil })
	}
	secretGone := func(w *world, _ *v1alpha1.GrafanaSecureValueSet) { w.deleteSecret("extra") }
	noMatch := func(w *world, set *v1alpha1.GrafanaSecureValueSet) {
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.ConnectionRefs[0].Selector.MatchLabels["env"] = "none"
		})
	}
	noSecrets := func(w *world, set *v1alpha1.GrafanaSecureValueSet) {
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) {
			set.Spec.Secrets = v1alpha1.SecretSelection{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"no": "such"}}}
		})
	}
	// The set selects keys a and b of sm, and key c of extra, for connections prod and eu, of which eu goes to another Grafana.
	DescribeTable("prunes what is no longer selected, and nothing that is only missing",
		func(ctx SpecContext, change func(*world, *v1alpha1.GrafanaSecureValueSet), retain, prune string, left int) {
			w := newWorld(ctx)
			eu := w.anotherGrafana()
			for name, of := range map[string]*world{connectionRef: w, "eu": eu} {
				conn := of.connection(name)
				conn.Labels = map[string]string{"env": "prod"}
				w.create(conn)
				w.eventuallyConnection(name, v1alpha1.ReasonConnected)
			}
			w.secret("sm", map[string]string{"a": "canary-a", "b": "canary-b"})
			w.secret("extra", map[string]string{"c": "canary-c"})
			set := w.set()
			set.Spec.Secrets.Names = []string{"sm", "extra"}
			set.Spec.ConnectionRefs = []v1alpha1.ConnectionSelection{{
				Kind: v1alpha1.KindGrafanaConnection, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"env": "prod"}},
			}}
			w.create(set)
			w.eventuallySet(set, v1alpha1.ReasonSynced, 6, 6, 0, 0)

			change(w, set)
			says := func() string {
				Expect(k8s.Get(ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
				n := set.Status.SecureValues
				if set.Status.ObservedGeneration != set.Generation {
					return "an edit was not observed"
				}
				return fmt.Sprintf("%s %d %d %d %d", meta.FindStatusCondition(set.Status.Conditions, "Ready").Reason, n.Desired, n.Ready, n.Failed, n.Stale)
			}
			Eventually(says).Should(Equal(retain))
			Expect(w.children(set)).To(HaveLen(6))
			Expect(append(w.contents(), eu.contents()...)).To(HaveLen(6))

			edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.PrunePolicy = v1alpha1.PrunePolicyDelete })
			Eventually(says).Should(Equal(prune))
			Expect(w.children(set)).To(HaveLen(left))
			Expect(append(w.contents(), eu.contents()...)).To(HaveLen(left))
		},
		Entry("a narrowed glob", narrowed, "Synced 4 4 0 2", "Synced 4 4 0 0", 4),
		Entry("a key that is gone", keyGone, "Synced 4 4 0 2", "Synced 4 4 0 0", 4),
		Entry("a dropped Secret", dropped, "Synced 4 4 0 2", "Synced 4 4 0 0", 4),
		Entry("a connection without its label", labelLost, "Synced 3 3 0 3", "Synced 3 3 0 0", 3),
		Entry("a missing Secret", secretGone, "SecureValuesNotReady 6 4 2 0", "SecureValuesNotReady 6 4 2 0", 6),
		Entry("connections that do not match", noMatch, "NothingSelected 0 0 0 6", "NothingSelected 0 0 0 6", 6),
		Entry("Secrets that do not match", noSecrets, "NothingSelected 0 0 0 6", "NothingSelected 0 0 0 6", 6),
	)

	It("leaves an object of a child's name alone, until it gets the set's label", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"a": "canary-a", "b": "canary-b"})
		set := w.set()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced)
		a := w.children(set)["sm/a/prod"]
		By("the set is deleted and orphans its values, as the garbage collector does it")
		Expect(k8s.Delete(ctx, set, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
		for _, child := range w.children(set) {
			edit(w, child, func(sv *v1alpha1.GrafanaSecureValue) {
				sv.OwnerReferences = nil
				if sv.Name == a.Name {
					sv.Labels = nil
				}
			})
		}
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Finalizers = nil })
		again := w.set()
		w.create(again)
		w.eventuallySet(again, v1alpha1.ReasonChildConflict, 2, 1, 1, 0)
		Expect(message(again.Status.Conditions)).To(ContainSubstring(a.Name))
		Expect(again.Status.Failures).To(Equal([]v1alpha1.SecureValueFailure{{Name: a.Name, Reason: v1alpha1.ReasonChildConflict}}))
		Expect(w.children(again)).To(HaveLen(1), "b is taken over")
		edit(w, a, func(sv *v1alpha1.GrafanaSecureValue) { sv.Labels = map[string]string{v1alpha1.LabelSet: again.Name} })
		w.eventuallySet(again, v1alpha1.ReasonSynced, 2, 2, 0, 0)
		Expect(a.UID).To(Equal(w.children(again)["sm/a/prod"].UID))
		Expect(w.contents()).To(Equal([]string{"sm-a=canary-a", "sm-b=canary-b"}))
	})

	It("makes nothing while it is deleted or suspended", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"a": "canary-a"})
		set := w.set()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSynced)
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.Suspend = true })
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
			g.Expect(describe(set.Status.ObservedGeneration, set.Status.Conditions)).To(Equal("2/2 True Suspended"))
		}).Should(Succeed())
		w.secret("sm", map[string]string{"a": "canary-new", "b": "canary-b"})
		w.eventuallyStored("sm-a", "canary-new")
		w.settled()
		Expect(w.children(set)).To(HaveLen(1))
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Spec.Suspend = false })
		w.eventuallySet(set, v1alpha1.ReasonSynced, 2, 2, 0, 0)

		By("a deletion in the foreground: the garbage collector deletes the values, and the set is there until they are gone")
		Expect(k8s.Delete(ctx, set, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		for _, child := range w.children(set) {
			w.delete(child)
			w.eventuallyGone(child)
		}
		w.settled()
		Expect(w.children(set)).To(BeEmpty())
		Expect(w.contents()).To(BeEmpty())
		edit(w, set, func(set *v1alpha1.GrafanaSecureValueSet) { set.Finalizers = nil })
	})

	It("reports its failures in one write, and one Grafana that is away does not hold up the others", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		us := w.anotherGrafana()
		us.connected("us")
		w.grafana.Inject(grafanatest.Fault{Code: http.StatusServiceUnavailable})
		data := map[string]string{}
		for i := range 20 {
			data[fmt.Sprintf("key%02d", i)] = "canary"
		}
		w.secret("sm", data)
		set := w.set()
		set.Spec.ConnectionRefs = append(set.Spec.ConnectionRefs, v1alpha1.ConnectionSelection{Kind: v1alpha1.KindGrafanaConnection, Name: "us"})
		mark := plane.Mark()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSecureValuesNotReady, 40, 20, 20, 0)
		Expect(us.contents()).To(HaveLen(20))
		Expect(set.Status.Failures).To(HaveLen(v1alpha1.MaxFailures))
		Expect(set.Status.Failures[0].Reason).To(Equal(v1alpha1.ReasonGrafanaUnavailable))
		Expect(slices.IsSortedFunc(set.Status.Failures, func(a, b v1alpha1.SecureValueFailure) int { return strings.Compare(a.Name, b.Name) })).To(BeTrue())
		Expect(meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionReconciling)).To(BeTrue())
		writes := slices.DeleteFunc(w.requests(mark), func(r string) bool { return r != "patch grafanasecurevaluesets/status monitoring" })
		Expect(len(writes)).To(BeNumerically("<=", 3), "one, and now and then one while it has not settled")
	})

	It("is stalled where each value that fails needs a person", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("sm", map[string]string{"bad": "canary\xff", "empty": "", "good": "canary"})
		set := w.set()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonSecureValuesNotReady, 3, 1, 2, 0)
		Expect(meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionReconciling)).To(BeTrue(), "an edit of the Secret ends ValueEmpty")
		w.secret("sm", map[string]string{"bad": "canary\xff", "empty": "canary", "good": "canary"})
		w.eventuallySet(set, v1alpha1.ReasonSecureValuesNotReady, 3, 2, 1, 0)
		Expect(meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
	})

	It("selects Secrets and shared connections by labels, those that allow its namespace", func(ctx SpecContext) {
		w := newWorld(ctx)
		shared := w.shared()
		shared.Labels = map[string]string{"env": w.namespace}
		w.createShared(shared)
		for name, labels := range map[string]map[string]string{"yes": {"grafana": "yes"}, "no": nil, "token": {"grafana": "yes"}} {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Labels: labels}, StringData: map[string]string{"k": "canary"}}
			if name == "token" {
				secret.Type = "helm.sh/release.v1"
			}
			w.create(secret)
		}
		set := w.set()
		set.Spec.Secrets = v1alpha1.SecretSelection{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"grafana": "yes"}}}
		set.Spec.ConnectionRefs = []v1alpha1.ConnectionSelection{{
			Kind: v1alpha1.KindClusterGrafanaConnection, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"env": w.namespace}},
		}}
		mark := plane.Mark()
		w.create(set)
		w.eventuallySet(set, v1alpha1.ReasonNothingSelected, 0, 0, 0, 0)
		Expect(message(set.Status.Conditions)).To(ContainSubstring("spec.connectionRefs[0].selector matches nothing."))
		edit(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, func(ns *corev1.Namespace) { ns.Labels["grafana"] = "yes" })
		w.eventuallySet(set, v1alpha1.ReasonSynced, 1, 1, 0, 0)
		Expect(slices.Collect(maps.Keys(w.children(set)))).To(Equal([]string{"yes/k/" + shared.Name}))
		edit(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "no"}}, func(secret *corev1.Secret) {
			secret.Labels = map[string]string{"grafana": "yes"}
		})
		w.eventuallySet(set, v1alpha1.ReasonSynced, 2, 2, 0, 0)
		Expect(w.requests(mark)).To(ContainElement("get secrets token"))
		reads := slices.DeleteFunc(w.requests(mark), func(r string) bool { return r != "get secrets token" })
		Expect(reads).To(HaveLen(1), "the type of a Secret is read once")
		Expect(set.Finalizers).To(BeEmpty())
	})
})
