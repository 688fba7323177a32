package integration

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

const kindValue = "GrafanaSecureValue"

// Every version of every object of every spec is judged by the observers; these are the ways that people ask about.
var _ = Describe("To kstatus, Flux and Argo CD", func() {
	var (
		unseen    = opinion{"", status.InProgressStatus, progressing}
		isSynced  = opinion{v1alpha1.ReasonSynced, status.CurrentStatus, healthy}
		noSecret  = opinion{v1alpha1.ReasonSecretNotFound, status.InProgressStatus, progressing}
		suspended = func(kstatus status.Status) opinion { return opinion{v1alpha1.ReasonSuspended, kstatus, paused} }
	)

	DescribeTable("an object that was never reconciled is in progress, whatever status it is made with",
		func(ctx SpecContext, made map[string]any) {
			w := newConnectedWorld(ctx)
			w.secret("source", map[string]string{"key": "canary-1"})
			stopManager()
			sv := w.value("api-key")
			u := asUnstructured(sv)
			if made != nil {
				u.Object["status"] = made
			}
			w.create(u)
			Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(unseen))

			startManager()
			w.eventuallySynced(sv)
			Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(unseen, isSynced))
			stopManager()
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
			stale := opinion{v1alpha1.ReasonSynced, status.InProgressStatus, progressing}
			Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(unseen, isSynced, stale))
			startManager()
			w.eventuallySynced(sv)
			Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(unseen, isSynced, stale, isSynced))
		},
		Entry("none", nil),
		Entry("an empty one", map[string]any{}),
		Entry("that of a copy, or of a backup", map[string]any{
			"observedGeneration": int64(1),
			"conditions": []any{map[string]any{
				"type": "Ready", "status": "True", "reason": "Synced", "message": "in sync", "observedGeneration": int64(1),
				"lastTransitionTime": "2026-01-01T00:00:00Z",
			}},
		}),
	)

	It("a Secret that comes late, empty at first, is no failure", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.value("api-key")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		w.secret("source", map[string]string{"other": "canary-1"})
		w.eventually(sv, v1alpha1.ReasonSecretKeyNotFound)
		w.secret("source", map[string]string{"key": ""})
		w.eventually(sv, v1alpha1.ReasonValueEmpty)
		w.secret("source", map[string]string{"key": "canary-1"})
		w.eventuallySynced(sv)
		Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(
			unseen, noSecret,
			opinion{v1alpha1.ReasonSecretKeyNotFound, status.InProgressStatus, progressing},
			opinion{v1alpha1.ReasonValueEmpty, status.InProgressStatus, progressing},
			isSynced,
		))
		Expect(w.calls()).To(Equal([]string{"create api-key"}))
	})

	It("a Secret that is deleted and made again with the same content is no failure, and nothing is written", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		w.reset()
		w.deleteSecret("source")
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		w.secret("source", map[string]string{"key": "canary-1"})
		w.eventuallySynced(sv)
		w.settled()
		Expect(w.calls()).To(HaveEach("get api-key"))
		Expect(w.stored("api-key").Version).To(Equal(int64(1)))
		Expect(opinions(ctx, kindValue, sv)).To(HaveExactElements(unseen, isSynced, noSecret, isSynced))
	})

	It("the Secret of a connection that comes late is no failure", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.deleteSecret("grafana")
		conn := w.connection(connectionRef)
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonCredentialsNotFound)
		w.secret("grafana", map[string]string{"token": goodToken})
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		Expect(opinions(ctx, "GrafanaConnection", conn)).To(HaveExactElements(
			unseen,
			opinion{v1alpha1.ReasonCredentialsNotFound, status.InProgressStatus, progressing},
			opinion{v1alpha1.ReasonConnected, status.CurrentStatus, healthy},
		))
	})

	It("a suspended object is as it was, and paused in Argo CD", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })
		eventuallySays(w, sv, suspended(status.CurrentStatus))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		eventuallySays(w, sv, suspended(status.CurrentStatus))
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
		w.eventuallySynced(sv)

		never := w.value("never")
		never.Spec.Suspend = true
		w.create(never)
		eventuallySays(w, never, suspended(status.InProgressStatus))
		Expect(opinions(ctx, kindValue, never)).To(HaveExactElements(unseen, suspended(status.InProgressStatus)))

		second := w.value("second")
		second.Spec.Name = "api-key"
		w.create(second)
		w.eventually(second, v1alpha1.ReasonNameConflict)
		edit(w, second, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true })
		eventuallySays(w, second, suspended(status.InProgressStatus))
	})
})

// eventuallySays waits until the tools make that of the present generation.
func eventuallySays(w *world, sv *v1alpha1.GrafanaSecureValue, want opinion) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(sv.Status.ObservedGeneration).To(Equal(sv.Generation))
		seen := opinions(w.ctx, kindValue, sv)
		g.Expect(seen[len(seen)-1]).To(Equal(want))
	}).Should(Succeed())
}

var _ = Describe("Each reason", func() {
	It("is taken by kstatus and Argo CD for what it is", func(ctx SpecContext) {
		w := newWorld(ctx)
		stopManager()
		DeferCleanup(startManager)
		stage(ctx, true)
		DeferCleanup(stage, false)
		reasons := declaredReasons()
		Expect(len(reasons)).To(BeNumerically(">", 25), "the reasons were not found")
		Expect(outcomes).To(HaveLen(len(reasons)))
		for i, reason := range reasons {
			Expect(outcomes).To(HaveKey(reason), "nobody said what the tools are to make of this reason")
			for kind, o := range map[string]client.Object{
				v1alpha1.KindGrafanaSecureValueSet: &v1alpha1.GrafanaSecureValueSet{
					ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: fmt.Sprintf("reason-%d", i)},
					Spec:       v1alpha1.GrafanaSecureValueSetSpec{Secrets: v1alpha1.SecretSelection{Names: []string{"source"}}},
				},
				kindValue:                  w.value(fmt.Sprintf("reason-%d", i)),
				"GrafanaConnection":        w.connection(fmt.Sprintf("reason-%d", i)),
				"ClusterGrafanaConnection": w.shared(),
			} {
				w.create(o)
				want := map[outcome]opinion{
					done:    {reason, status.CurrentStatus, healthy},
					waits:   {reason, status.InProgressStatus, progressing},
					fails:   {reason, status.FailedStatus, degraded},
					resting: {reason, status.InProgressStatus, paused},
				}[outcomes[reason]]
				patch := statusPatch(o, reason, outcomes[reason])
				Expect(k8s.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))).To(Succeed())
				seen := opinions(ctx, kind, o)
				Expect(seen[len(seen)-1]).To(Equal(want))
				w.delete(o)
			}
		}
	})
})

// statusPatch sets the conditions that conditions.go promises for a reason.
func statusPatch(o client.Object, reason string, means outcome) []byte {
	GinkgoHelper()
	generation := o.GetGeneration()
	condition := func(conditionType string, value metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{
			Type: conditionType, Status: value, Reason: reason, Message: "What is true and what to do.",
			ObservedGeneration: generation, LastTransitionTime: metav1.Now(),
		}
	}
	conditions := []metav1.Condition{condition(v1alpha1.ConditionReady, metav1.ConditionFalse)}
	switch means {
	case done:
		conditions[0].Status = metav1.ConditionTrue
	case waits:
		conditions = append(conditions, condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue))
	case fails:
		conditions = append(conditions, condition(v1alpha1.ConditionStalled, metav1.ConditionTrue))
	case resting:
	}
	content := map[string]any{"observedGeneration": generation, "conditions": conditions}
	if sv, ok := o.(*v1alpha1.GrafanaSecureValue); ok {
		ref := sv.Spec.ValueFrom.SecretKeyRef
		content["targets"] = []v1alpha1.TargetStatus{{
			Connection: sv.Spec.ConnectionRef, Namespace: grafanaNS, Name: sv.Name,
			Source: &v1alpha1.SourceStatus{Name: ref.Name, Key: ref.Key, UID: "uid", ResourceVersion: "1"},
		}}
	}
	patch, err := json.Marshal(map[string]any{"status": content})
	Expect(err).NotTo(HaveOccurred())
	return patch
}

// declaredReasons returns the values of the constants Reason... of conditions.go.
func declaredReasons() []string {
	GinkgoHelper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "api", "v1alpha1", "conditions.go"), nil,
		parser.SkipObjectResolution)
	Expect(err).NotTo(HaveOccurred())
	var reasons []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			literal, _ := spec.Values[0].(*ast.BasicLit) // a string constant
			reason, err := strconv.Unquote(literal.Value)
			Expect(err).NotTo(HaveOccurred())
			reasons = append(reasons, reason)
		}
		return true
	})
	return reasons
}
