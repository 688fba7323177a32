package integration

import (
	"encoding/json"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

var _ = Describe("The action sync-now of Argo CD", func() {
	const path = "actions/sync-now/action.lua"

	It("has the value written once for each time that it is called", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		for range 3 {
			live := w.live(sv)
			patch := action(live, path)
			token := tokenIn(patch)
			Expect(patch).To(MatchJSON(`{"metadata": {"annotations": {"grafana.securevalues.io/sync-now": "`+token+`"}}}`),
				"it changes more than the annotation")
			Expect(k8s.Patch(ctx, live, client.RawPatch(types.MergePatchType, patch))).To(Succeed())
			w.eventuallyAnswered(sv, token)
		}
		w.settled()
		Expect(w.calls()).To(Equal([]string{"get api-key", "update api-key", "get api-key", "update api-key", "get api-key", "update api-key"}))
		Expect(w.stored("api-key").Version).To(Equal(int64(4)))
	})

	It("makes a new token each time, whether or not the last one is answered", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		live := w.live(w.synced("api-key", "canary-1"))
		for _, answers := range []bool{false, false, true, true, false, true, false, false} {
			last := live.GetAnnotations()[v1alpha1.AnnotationSyncNow]
			answered, _, err := unstructured.NestedString(live.Object, "status", "lastSyncNow")
			Expect(err).NotTo(HaveOccurred())
			token := tokenIn(action(live, path))
			Expect(token).NotTo(Or(BeEmpty(), Equal(last), Equal(answered)))
			Expect(unstructured.SetNestedField(live.Object, token, "metadata", "annotations", v1alpha1.AnnotationSyncNow)).To(Succeed())
			if answers {
				Expect(unstructured.SetNestedField(live.Object, token, "status", "lastSyncNow")).To(Succeed())
			}
		}
	})

	It("works on an object without annotations", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		never := w.value("never")
		w.create(never)
		w.eventually(never, v1alpha1.ReasonSecretNotFound)
		Expect(never.Annotations).To(BeEmpty())
		patch := action(w.live(never), path)
		Expect(string(patch)).To(HavePrefix(`{"metadata":{"annotations":{"grafana.securevalues.io/sync-now":"`))
	})

	It("is offered while it can be answered", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		Expect(offered(w.live(sv))).To(BeTrue())
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })
		w.eventuallySuspended(sv, metav1.ConditionTrue)
		Expect(offered(w.live(sv))).To(BeFalse())
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
		w.eventuallySynced(sv)

		w.grafana.RevokeToken(goodToken)
		w.delete(sv)
		w.eventually(sv, v1alpha1.ReasonDeletionBlocked)
		Expect(offered(w.live(sv))).To(BeFalse())
	})
})

var _ = Describe("The ConfigMap argocd-cm", func() {
	It("has the scripts of the files, and leaves alone what is in it", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.create(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "argocd-cm"},
			Data:       map[string]string{"url": "https://argocd.example.com"},
		})
		out, err := w.kubectl("apply", "--server-side", "--field-manager=grafana-secure-value-operator",
			"--filename", filepath.Join(argoCD, "argocd-cm.yaml"))
		Expect(err).NotTo(HaveOccurred(), out)
		settings := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "argocd-cm"}, settings)).To(Succeed())

		want := map[string]string{"url": "https://argocd.example.com"}
		for kind := range ours {
			want["resource.customizations.health.grafana.securevalues.io_"+kind] = source(kind, "health.lua")
			Expect(source(kind, "health.lua")).To(Equal(source(kindValue, "health.lua")), "the kinds have the same conditions")
		}
		const actionsOf = "resource.customizations.actions.grafana.securevalues.io_" + kindValue
		want[actionsOf] = settings.Data[actionsOf]
		Expect(settings.Data).To(Equal(want))

		var actions struct {
			Discovery   string `json:"discovery.lua"`
			Definitions []struct {
				Name   string `json:"name"`
				Action string `json:"action.lua"`
			} `json:"definitions"`
		}
		Expect(yaml.UnmarshalStrict([]byte(settings.Data[actionsOf]), &actions)).To(Succeed())
		Expect(actions.Discovery).To(Equal(source(kindValue, "actions/discovery.lua")))
		Expect(actions.Definitions).To(HaveLen(1))
		Expect(actions.Definitions[0].Name).To(Equal("sync-now"))
		Expect(actions.Definitions[0].Action).To(Equal(source(kindValue, "actions/sync-now/action.lua")))
	})
})

// The tests that the repository of Argo CD wants beside each script, and runs. Here each object is held to our types and to kstatus too.
var _ = Describe("resource_customizations", func() {
	DescribeTable("have tests for each health script, which pass", func(kind string) {
		var tests struct {
			Tests []struct {
				HealthStatus struct {
					Status  string `json:"status"`
					Message string `json:"message"`
				} `json:"healthStatus"`
				InputPath string `json:"inputPath"`
			} `json:"tests"`
		}
		Expect(yaml.UnmarshalStrict([]byte(source(kind, "health_test.yaml")), &tests)).To(Succeed())
		health, err := readScript(kind, "health.lua")
		Expect(err).NotTo(HaveOccurred())
		statuses, files := map[string]bool{}, []string{}
		for _, test := range tests.Tests {
			object := example(kind, test.InputPath)
			Expect(health.run(object)).To(Equal(map[string]any{"status": test.HealthStatus.Status, "message": test.HealthStatus.Message}), test.InputPath)
			_, err := judge(health, object)
			Expect(err).NotTo(HaveOccurred(), test.InputPath)
			statuses[test.HealthStatus.Status] = true
			files = append(files, filepath.Base(test.InputPath))
		}
		Expect(statuses).To(And(HaveKey(healthy), HaveKey(progressing), HaveKey(degraded)))
		kept, err := os.ReadDir(filepath.Join(customizations, kind, "testdata"))
		Expect(err).NotTo(HaveOccurred())
		for _, file := range kept {
			Expect(files).To(ContainElement(file.Name()), "no test reads it")
		}
	},
		Entry("of a GrafanaSecureValue", kindValue),
		Entry("of a GrafanaSecureValueSet", v1alpha1.KindGrafanaSecureValueSet),
		Entry("of a GrafanaConnection", string(v1alpha1.KindGrafanaConnection)),
		Entry("of a ClusterGrafanaConnection", kindShared),
	)

	It("have a test of when the action is offered", func() {
		var tests struct {
			DiscoveryTests []struct {
				InputPath string `json:"inputPath"`
				Result    []struct {
					Name     string `json:"name"`
					Disabled bool   `json:"disabled"`
				} `json:"result"`
			} `json:"discoveryTests"`
		}
		Expect(yaml.UnmarshalStrict([]byte(source(kindValue, "actions/action_test.yaml")), &tests)).To(Succeed())
		Expect(tests.DiscoveryTests).To(HaveLen(2))
		for _, test := range tests.DiscoveryTests {
			Expect(test.Result).To(HaveLen(1))
			Expect(test.Result[0].Name).To(Equal("sync-now"))
			Expect(offered(example(kindValue, "actions/"+test.InputPath))).NotTo(Equal(test.Result[0].Disabled), test.InputPath)
		}
	})
})

// example returns an object of a test of the customizations, which has to be one of our types.
func example(kind, file string) *unstructured.Unstructured {
	GinkgoHelper()
	asJSON, err := yaml.YAMLToJSONStrict([]byte(source(kind, file)))
	Expect(err).NotTo(HaveOccurred())
	u := &unstructured.Unstructured{}
	Expect(u.UnmarshalJSON(asJSON)).To(Succeed())
	Expect(u.GetKind()).To(Equal(kind))
	typed := map[string]client.Object{
		kindValue: &v1alpha1.GrafanaSecureValue{}, kindShared: &v1alpha1.ClusterGrafanaConnection{},
		string(v1alpha1.KindGrafanaConnection): &v1alpha1.GrafanaConnection{},
		v1alpha1.KindGrafanaSecureValueSet:     &v1alpha1.GrafanaSecureValueSet{},
	}
	become(u, typed[kind])
	return u
}

// source returns the text of a script.
func source(kind, file string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(customizations, kind, file))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// action returns the patch that Argo CD makes of what the script does to the object.
func action(object *unstructured.Unstructured, path string) []byte {
	GinkgoHelper()
	program, err := readScript(kindValue, path)
	Expect(err).NotTo(HaveOccurred())
	returned, err := program.run(object)
	Expect(err).NotTo(HaveOccurred())
	before, err := json.Marshal(object.Object)
	Expect(err).NotTo(HaveOccurred())
	after, err := json.Marshal(mended(returned, object.Object))
	Expect(err).NotTo(HaveOccurred())
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(before, after, before)
	Expect(err).NotTo(HaveOccurred())
	return patch
}

// tokenIn returns the token of sync-now in a patch.
func tokenIn(patch []byte) string {
	GinkgoHelper()
	var changes struct {
		Metadata struct{ Annotations map[string]string }
	}
	Expect(json.Unmarshal(patch, &changes)).To(Succeed())
	return changes.Metadata.Annotations[v1alpha1.AnnotationSyncNow]
}

// mended returns what a script returned with each empty map as it was. Lua cannot distinguish it from an empty list; Argo CD does the same.
func mended(after, before any) any {
	switch now := after.(type) {
	case map[string]any:
		was, _ := before.(map[string]any)
		for key, value := range now {
			now[key] = mended(value, was[key])
		}
	case []any:
		if was, empty := before.(map[string]any); empty && len(now) == 0 {
			return was
		}
		was, _ := before.([]any)
		for i := range min(len(now), len(was)) {
			now[i] = mended(now[i], was[i])
		}
	}
	return after
}

// offered says whether Argo CD offers the action on the object.
func offered(object *unstructured.Unstructured) bool {
	GinkgoHelper()
	program, err := readScript(kindValue, "actions/discovery.lua")
	Expect(err).NotTo(HaveOccurred())
	returned, err := program.run(object)
	Expect(err).NotTo(HaveOccurred())
	Expect(returned).To(Or(
		Equal(map[string]any{"sync-now": map[string]any{"disabled": false}}),
		Equal(map[string]any{"sync-now": map[string]any{"disabled": true}}),
	))
	disabled, _, err := unstructured.NestedBool(map[string]any{"actions": returned}, "actions", "sync-now", "disabled")
	Expect(err).NotTo(HaveOccurred())
	return !disabled
}

// live returns the object as the API server has it.
func (w *world) live(sv *v1alpha1.GrafanaSecureValue) *unstructured.Unstructured {
	GinkgoHelper()
	u := asUnstructured(sv)
	Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), u)).To(Succeed())
	return u
}

// asUnstructured returns the object as YAML would hold it, without status.
func asUnstructured(sv *v1alpha1.GrafanaSecureValue) *unstructured.Unstructured {
	GinkgoHelper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(sv)
	Expect(err).NotTo(HaveOccurred())
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kindValue))
	delete(u.Object, "status")
	return u
}
