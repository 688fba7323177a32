package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

func TestTagOf(t *testing.T) {
	for image, want := range map[string]string{
		"ghcr.io/x/manager:1.2.3":               "1.2.3",
		"ghcr.io/x/manager:1.2.3@sha256:abc":    "1.2.3",
		"registry:5000/manager":                 "latest",
		"registry:5000/manager@sha256:abc":      "sha256:abc",
		"grafana-secure-value-operator:dev":     "dev",
		"registry.internal:5000/a/b:v2-rc.1":    "v2-rc.1",
		"localhost/manager@sha256:0123:ignored": "sha256:0123:ignored",
	} {
		if got := tagOf(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func valueWith(generation, observed int64, ready metav1.ConditionStatus, reason, message string) *v1alpha1.GrafanaSecureValue {
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "x", Generation: generation}}
	sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	sv.Status.ObservedGeneration = observed
	if reason != "" {
		sv.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: reason, Message: message}}
	}
	return sv
}

// What was true before the last edit is not shown as if it were true now.
func TestStateOf(t *testing.T) {
	for name, row := range map[string]struct {
		sv   *v1alpha1.GrafanaSecureValue
		want string
	}{
		"new":      {valueWith(1, -1, "", "", ""), "Unknown  kubectl gsv doctor --operator"},
		"synced":   {valueWith(2, 2, metav1.ConditionTrue, "Synced", "All is well."), "True Synced "},
		"edited":   {valueWith(3, 2, metav1.ConditionTrue, "Synced", "All is well."), "Unknown Synced kubectl gsv doctor --operator"},
		"a reason": {valueWith(2, 2, metav1.ConditionFalse, "SecretNotFound", "No Secret."), "False SecretNotFound kubectl describe gsv x -n team-a"},
		"a command": {
			valueWith(2, 2, metav1.ConditionFalse, "Drifted", "To write it again: `kubectl annotate gsv x`. Or not: `false`."),
			"False Drifted kubectl annotate gsv x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := valueStateOf(row.sv)
			if got := v.Ready + " " + v.Reason + " " + v.Next; got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
}

// An object whose connection is not there is shown, and counts.
func TestStatusOf(t *testing.T) {
	synced, lost := valueWith(1, 1, metav1.ConditionTrue, "Synced", ""), valueWith(1, 1, metav1.ConditionFalse, "ConnectionNotFound", "")
	lost.Name, lost.Spec.ConnectionRef = "lost", v1alpha1.ConnectionReference{}
	conn := &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "prod", Generation: 1}}
	conn.Status.ObservedGeneration = 1
	conn.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Connected"}}
	unused := &v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Name: "unused"}}
	states := statusOf([]v1alpha1.Connection{conn, unused}, []v1alpha1.GrafanaSecureValue{*synced, *lost}, false, false)
	if len(states) != 2 || states[0].Name != "default" || states[0].Kind != v1alpha1.KindClusterGrafanaConnection || states[1].Name != "prod" {
		t.Fatalf("%+v", states)
	}
	if values, ready, notReady := count(states); values != 2 || ready != 1 || notReady != 1 {
		t.Errorf("%d values, %d ready, %d connections not ready", values, ready, notReady)
	}
	if all := statusOf([]v1alpha1.Connection{conn, unused}, nil, true, false); len(all) != 2 {
		t.Errorf("%+v", all)
	}
	if _, _, notReady := count(statusOf([]v1alpha1.Connection{conn}, []v1alpha1.GrafanaSecureValue{*synced, *lost}, false, true)); notReady != 0 {
		t.Errorf("%d connections not ready that nobody may see", notReady)
	}
	if left := withoutReady(states); len(left) != 1 || left[0].Name != "default" {
		t.Errorf("%+v", left)
	}
}

func TestPlanStatus(t *testing.T) {
	effect := func(e securevalue.Effect) plannedEffect { return plannedEffect{Action: string(e), effect: e} }
	nothing, change, conflict := effect(securevalue.EffectNothing), effect(securevalue.EffectRotate), effect(securevalue.EffectConflict)
	unknown := plannedEffect{Action: actionUnknown}
	for name, row := range map[string]struct {
		effects []plannedEffect
		want    int
	}{
		"none":                  {nil, 0},
		"nothing":               {[]plannedEffect{nothing, nothing}, 0},
		"a change":              {[]plannedEffect{nothing, change}, 2},
		"a conflict":            {[]plannedEffect{conflict, nothing}, 1},
		"a change and conflict": {[]plannedEffect{conflict, change, conflict}, 2},
		"not known":             {[]plannedEffect{change, unknown}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := exitOK
			if err := planStatus(row.effects); err != nil {
				var status exitStatus
				errors.As(err, &status)
				got = int(status)
			}
			if got != row.want {
				t.Errorf("exit status %d, want %d", got, row.want)
			}
		})
	}
}

// Only an edit of spec raises the generation, and a default that is written out is none.
func TestAsApplied(t *testing.T) {
	old := valueWith(4, 4, metav1.ConditionTrue, "Synced", "")
	same := old.DeepCopy()
	same.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
	if sv := asApplied(same, old); sv.Generation != 4 {
		t.Errorf("generation %d", sv.Generation)
	}
	edited := old.DeepCopy()
	edited.Spec.Suspend = true
	if sv := asApplied(edited, old); sv.Generation != 5 {
		t.Errorf("generation %d", sv.Generation)
	}
	if sv := asApplied(&v1alpha1.GrafanaSecureValue{}, nil); sv.Generation != 1 || sv.Status.ObservedGeneration != -1 || time.Since(sv.CreationTimestamp.Time) > time.Minute {
		t.Errorf("%+v", sv)
	}
}

// A server-side apply removes what it owns, and nothing of others.
func TestLastApplied(t *testing.T) {
	sv := &v1alpha1.GrafanaSecureValue{}
	entry := func(operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		e := metav1.ManagedFieldsEntry{Operation: operation, FieldsV1: &metav1.FieldsV1{}}
		e.FieldsV1.SetRawBytes([]byte(fields))
		return e
	}
	sv.ManagedFields = []metav1.ManagedFieldsEntry{
		entry(metav1.ManagedFieldsOperationApply, `{"f:spec":{"f:suspend":{},"f:valueFrom":{"f:secretKeyRef":{}},"f:decrypters":{"v:\"k6-cloud\"":{}}}}`),
		entry(metav1.ManagedFieldsOperationUpdate, `{"f:spec":{"f:description":{}}}`),
	}
	want := `{"spec":{"decrypters":{},"suspend":{},"valueFrom":{"secretKeyRef":{}}}}`
	if got := string(lastApplied(sv)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	sv.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"a":1}`}
	if got := string(lastApplied(sv)); got != `{"a":1}` {
		t.Errorf("%s", got)
	}
}

// A value is an orphan by the operator's rule, and never if another tool manages it.
func TestIsOrphan(t *testing.T) {
	owner := valueWith(1, 1, metav1.ConditionTrue, "Synced", "")
	id := ownership.Connection{Kind: v1alpha1.KindGrafanaConnection, Namespace: "team-a", Name: "prod"}
	labelled := func(cluster, namespace, name string) *grafana.SecureValue {
		return &grafana.SecureValue{Name: name, Labels: map[string]string{
			ownership.LabelCluster: cluster, ownership.LabelOwner: ownership.OwnerLabel(cluster, types.NamespacedName{Namespace: namespace, Name: "x"}),
		}}
	}
	managed := labelled("c", "team-a", "old")
	managed.Annotations = map[string]string{"grafana.app/managedBy": "terraform"}
	for name, row := range map[string]struct {
		found *grafana.SecureValue
		owner *v1alpha1.GrafanaSecureValue
		want  bool
	}{
		"owner gone":         {labelled("c", "team-a", "x"), nil, true},
		"owner uses it":      {labelled("c", "team-a", "x"), owner, false},
		"owner left it":      {labelled("c", "team-a", "old"), owner, true},
		"another cluster":    {labelled("d", "team-a", "old"), nil, false},
		"another namespace":  {labelled("c", "team-b", "old"), nil, false},
		"managed":            {managed, nil, false},
		"not a name":         {labelled("c", "team-a", "\x1b[31m"), nil, false},
		"without any labels": {&grafana.SecureValue{Name: "x"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isOrphan(id, "c", row.owner, row.found); got != row.want {
				t.Errorf("%t, want %t", got, row.want)
			}
		})
	}
}

func TestStageOf(t *testing.T) {
	for err, want := range map[error]int{
		nil: stages, grafana.ErrUnresolved: stageDNS, grafana.ErrAddress: stageDNS, grafana.ErrProxy: stageProxy, grafana.ErrConnectTimeout: stageTCP,
		grafana.ErrServerName: stageAPI, grafana.ErrTLS: stageTLS, grafana.ErrAPINotServed: stageAPI, grafana.ErrUnauthorized: stageToken,
		grafana.ErrNamespaceRejected: stageNamespace, grafana.ErrForbidden: stageRead, errors.New("anything"): stageAPI,
	} {
		if err != nil {
			err = fmt.Errorf("list: %w", err)
		}
		if got := stageOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// Descriptions and decrypters that a GrafanaSecureValue cannot have are not written down, and not lost either.
func TestManifest(t *testing.T) {
	im := &importer{conn: &v1alpha1.GrafanaConnection{ObjectMeta: metav1.ObjectMeta{Name: "prod"}}, namespace: "team-a"}
	for name, row := range map[string]struct {
		found                *grafana.SecureValue
		description, remarks string
		why                  string
	}{
		"25 characters": {&grafana.SecureValue{Name: "x", Description: strings.Repeat("ü", 25), Decrypters: []string{"k6-cloud"}}, strings.Repeat("ü", 25), "", ""},
		"26 characters": {&grafana.SecureValue{Name: "x", Description: strings.Repeat("ü", 26), Decrypters: []string{"k6-cloud"}}, "", "has 26 characters", ""},
		"a tab":         {&grafana.SecureValue{Name: "x", Description: "a\tb", Decrypters: []string{"k6-cloud"}}, "", "control characters", ""},
		"no decrypters": {&grafana.SecureValue{Name: "x", Description: "a"}, "a", "no decrypters", ""},
		"a space":       {&grafana.SecureValue{Name: "x", Decrypters: []string{" k6-cloud"}}, "", "", "adoption would remove them"},
		"a name":        {&grafana.SecureValue{Name: "X"}, "", "", "no object of Kubernetes"},
	} {
		t.Run(name, func(t *testing.T) {
			m, why := im.manifest(row.found)
			if (why != "") != (row.why != "") || !strings.Contains(why, row.why) {
				t.Fatalf("left out: %q", why)
			}
			if why != "" {
				return
			}
			if remarks := strings.Join(m.remarks, " "); m.object.Spec.Description != row.description || (remarks != "") != (row.remarks != "") || !strings.Contains(remarks, row.remarks) {
				t.Errorf("%q, %q", m.object.Spec.Description, remarks)
			}
			if content, err := json.Marshal(m.object); err != nil || !m.object.Spec.Suspend || strings.Contains(string(content), "creationTimestamp") {
				t.Errorf("%s, %v", content, err)
			}
		})
	}
}

// TestStageDetail: a connection that references a Grafana has no url in its spec. Where the operator reached it is in status.
func TestStageDetail(t *testing.T) {
	for name, conn := range map[string]*v1alpha1.GrafanaConnection{
		"url":        {Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{URL: "http://127.0.0.1:3000"}}},
		"grafanaRef": {Status: v1alpha1.ConnectionStatus{URL: "http://127.0.0.1:3000"}},
	} {
		if _, got := stageDetail(t.Context(), conn, stageDNS); got != "127.0.0.1 is 127.0.0.1." {
			t.Errorf("%s: DNS says %q", name, got)
		}
		if _, got := stageDetail(t.Context(), conn, stageTLS); !strings.Contains(got, "plain http") {
			t.Errorf("%s: TLS says %q", name, got)
		}
	}
}
