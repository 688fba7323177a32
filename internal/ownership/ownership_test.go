package ownership

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

var (
	testObject = types.NamespacedName{Namespace: "team-a", Name: "db"}
	testRef    = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	testTarget = Target{Connection: testRef, Namespace: "default", Name: "db"}
	testLabels = Labels{Cluster: "cluster-1", Object: testObject, Connection: ConnectionOf(testRef, "team-a")}
)

func TestLabelsAreStable(t *testing.T) {
	// Labels in Grafana must be recognised by every later version.
	sv := &grafana.SecureValue{Labels: map[string]string{LabelRetain: "true", "their": "label"}}
	testLabels.Put(sv)
	for key, want := range map[string]string{
		"securevalues.io.cluster":    "cluster-1",
		"securevalues.io.owner":      "a69756f7f7489539a4bd3855.5f9467b5b0c7bf95bdce1b2a",
		"securevalues.io.connection": "ac7bd919f78ad8cd12ff7681a68cd76d46e15384",
		"their":                      "label",
	} {
		if sv.Labels[key] != want {
			t.Errorf("%s = %s, want %s", key, sv.Labels[key], want)
		}
	}
	if _, retain := sv.Labels["securevalues.io.retain"]; retain || sv.Annotations["grafana.securevalues.io/resource"] != "team-a/db" {
		t.Errorf("labels %v, annotations %v", sv.Labels, sv.Annotations)
	}
}

// The form of Grafana's Synthetic Monitoring app takes nothing else.
func TestLabelsArePassableInGrafana(t *testing.T) {
	sv := &grafana.SecureValue{}
	labels := testLabels
	labels.Retain = true
	labels.Put(sv)
	for key, content := range sv.Labels {
		if strings.Contains(key, "/") || len(key) > 63 || len(validation.IsValidLabelValue(content)) > 0 {
			t.Errorf("%s=%s", key, content)
		}
	}
	if !labels.Match(sv.Labels) || testLabels.Match(sv.Labels) {
		t.Error("the retain label makes no difference")
	}
}

func TestOwnerLabelsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range []struct{ cluster, namespace, name string }{
		{"cluster-1", "team-a", "db"},
		{"cluster-2", "team-a", "db"},
		{"cluster-1", "team-b", "db"},
		{"cluster-1", "team-a", "dc"},
		{"cluster-1", "team-ad", "b"},
	} {
		label := OwnerLabel(o.cluster, types.NamespacedName{Namespace: o.namespace, Name: o.name})
		if seen[label] {
			t.Errorf("two objects share the label of %v", o)
		}
		seen[label] = true
	}
	shared := Connection{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "prod"}
	if shared.Label() == testLabels.Connection.Label() {
		t.Error("connections of two kinds share a label")
	}
}

func TestOwnerOf(t *testing.T) {
	put := func(cluster, namespace, name string) func(*grafana.SecureValue) {
		return Labels{Cluster: cluster, Object: types.NamespacedName{Namespace: namespace, Name: name}, Connection: testLabels.Connection}.Put
	}
	for name, row := range map[string]struct {
		change func(*grafana.SecureValue)
		want   Owner
	}{
		"ours":                         {func(*grafana.SecureValue) {}, Self},
		"ours, without the annotation": {func(sv *grafana.SecureValue) { sv.Annotations = nil }, Self},
		"ours, the annotation of another": {func(sv *grafana.SecureValue) {
			sv.Annotations[AnnotationResource] = "team-a/other"
		}, Self},
		"no labels":                {func(sv *grafana.SecureValue) { sv.Labels = nil }, Nobody},
		"other labels":             {func(sv *grafana.SecureValue) { sv.Labels = map[string]string{"a": "b"} }, Nobody},
		"a resource of Grafana's":  {func(sv *grafana.SecureValue) { sv.Owned = true }, Managed},
		"another tool's":           {func(sv *grafana.SecureValue) { sv.Annotations[annotationManagedBy] = "terraform" }, Managed},
		"of the same namespace":    {put("cluster-1", "team-a", "other"), Sibling},
		"of another namespace":     {put("cluster-1", "team-b", "db"), Foreign},
		"of another cluster":       {put("cluster-2", "team-a", "other"), Foreign},
		"the same object there":    {put("cluster-2", "team-a", "db"), OtherCluster},
		"an owner of no cluster":   {func(sv *grafana.SecureValue) { sv.Labels = map[string]string{LabelOwner: "x"} }, Foreign},
		"a cluster without owner":  {func(sv *grafana.SecureValue) { delete(sv.Labels, LabelOwner) }, Foreign},
		"half of a sibling's":      {func(sv *grafana.SecureValue) { sv.Labels[LabelOwner] = NamespaceLabel("cluster-1", "team-a") + "." }, Foreign},
		"the old form of an owner": {func(sv *grafana.SecureValue) { sv.Labels[LabelOwner] = NamespaceLabel("cluster-1", "team-a") }, Foreign},
	} {
		t.Run(name, func(t *testing.T) {
			found := &grafana.SecureValue{}
			testLabels.Put(found)
			row.change(found)
			if got := testLabels.OwnerOf(found); got != row.want {
				t.Errorf("owner = %s, want %s", got, row.want)
			}
		})
	}
}

func withPending(s string) *v1alpha1.GrafanaSecureValue {
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "db"}}
	sv.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: s}
	sv.Spec.ConnectionRef = testRef
	return sv
}

func TestPendingTargets(t *testing.T) {
	other := testTarget
	other.Name = "other"
	sv := withPending(FormatPending([]Target{testTarget, other}))
	if got := Pending(sv); len(got) != 2 || got[0] != testTarget || got[1] != other {
		t.Errorf("pending %v", got)
	}
	for _, bad := range []string{
		"", "x", "GrafanaConnection/prod/default", "GrafanaConnection/prod/default/", "GrafanaConnection//default/x",
		"Secret/prod/default/x", "GrafanaConnection/prod/default/x/y", "GrafanaConnection/Prod/default/x",
		"GrafanaConnection/prod/default/X", "GrafanaConnection/prod/default/..", "GrafanaConnection/prod/stacks-/x",
		"GrafanaConnection/prod/org-01/x", "GrafanaConnection/prod/kube-system/x",
		"GrafanaConnection/" + strings.Repeat("x", 254) + "/default/x",
	} {
		if got := Pending(withPending(bad + "," + testTarget.String())); len(got) != 1 {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
	many := strings.Repeat(testTarget.String()+",", 3) + strings.Repeat("x,", v1alpha1.MaxTargets-4) + other.String() + ",GrafanaConnection/prod/default/late"
	if got := Pending(withPending(many)); len(got) != 2 || got[1] != other {
		t.Errorf("of the first %d entries %v are read", v1alpha1.MaxTargets, got)
	}
}

func TestTargets(t *testing.T) {
	sv := withPending("GrafanaConnection/prod/default/next,GrafanaConnection/prod/default/db")
	sv.Spec.Name = "wanted"
	sv.Status.Targets = []v1alpha1.TargetStatus{
		{Connection: testRef, Namespace: "default", Name: "db", Source: &v1alpha1.SourceStatus{}},
		{Connection: v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "old"}, Namespace: "default", Name: "db"},
	}
	if got := Targets(sv); len(got) != 3 || got[0] != testTarget || got[2].Name != "next" {
		t.Errorf("targets %v", got)
	}
	if got := strings.Join(Names(sv), " "); got != "wanted db next" {
		t.Errorf("names %s", got)
	}
	if got := Connections(sv); len(got) != 2 || got[0] != testLabels.Connection || got[1].Namespace != "" {
		t.Errorf("connections %v", got)
	}
	if got := WrittenThrough(testLabels.Connection, sv); len(got) != 1 || got[0] != "db" {
		t.Errorf("written through it: %v", got)
	}
	if Record(sv.Status.Targets, testTarget) != &sv.Status.Targets[0] || Record(nil, testTarget) != nil {
		t.Error("the record is not found")
	}
}
