package securevalue

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

func TestDeparture(t *testing.T) {
	one := []*v1alpha1.GrafanaSecureValue{{}}
	for name, row := range map[string]struct {
		reason string
		is     departure
		want   step
	}{
		"gone": {
			"nothing is there to be deleted",
			departure{},
			forget,
		},
		"ours": {
			"the last object that leaves it deletes it",
			departure{found: true, label: ownership.Self},
			remove,
		},
		"ours, with the retain label of an earlier policy": {
			"the policy of now decides",
			departure{found: true, label: ownership.Self, retained: true},
			remove,
		},
		"ours, by another address of the wanted one": {
			"it is the value that the move has written",
			departure{found: true, label: ownership.Self, moved: true},
			forget,
		},
		"ours, claimed by a successor": {
			"Grafana is never without a value in a hand-over",
			departure{found: true, label: ownership.Self, claimed: true, unclaimed: one},
			forget,
		},
		"ours, named by a successor": {
			"it is given time to claim",
			departure{found: true, label: ownership.Self, unclaimed: one},
			waitForSuccessor,
		},
		"ours, named by a successor that had its time": {
			"it cannot keep the value for ever",
			departure{found: true, label: ownership.Self, unclaimed: one, late: true},
			remove,
		},
		"of one that is gone": {
			"it was left to this object, which never wrote it",
			departure{found: true, label: ownership.Sibling},
			remove,
		},
		"of one that is gone, claimed by a successor": {
			"as ours",
			departure{found: true, label: ownership.Sibling, claimed: true},
			forget,
		},
		"of one that is gone, retained": {
			"what was retained is deleted by nobody that never wrote it",
			departure{found: true, label: ownership.Sibling, retained: true},
			forget,
		},
		"of one that names and owns it": {
			"what another object owns is never deleted",
			departure{found: true, label: ownership.Sibling, ownerNames: true, ownerLists: true, unclaimed: one},
			forget,
		},
		"of one that names it again": {
			"it must claim it again, or it would delete nothing later",
			departure{found: true, label: ownership.Sibling, ownerNames: true},
			waitForOwner,
		},
		"of one that names it again, and had its time": {
			"what another object names is never deleted",
			departure{found: true, label: ownership.Sibling, ownerNames: true, ownerLate: true},
			forget,
		},
		"of one that leaves it": {
			"it deletes it itself, after its own move",
			departure{found: true, label: ownership.Sibling, ownerLists: true},
			waitForOwner,
		},
		"of one that leaves it, and had its time": {
			"it still lists it, and will delete it",
			departure{found: true, label: ownership.Sibling, ownerLists: true, ownerLate: true},
			forget,
		},
		"of one that leaves it, retained": {
			"it will not delete it either",
			departure{found: true, label: ownership.Sibling, ownerLists: true, retained: true},
			forget,
		},
		"nobody's":                     {"what is not ours is never deleted", departure{found: true, label: ownership.Nobody}, forget},
		"of another cluster":           {"what is not ours is never deleted", departure{found: true, label: ownership.OtherCluster}, forget},
		"of another namespace":         {"what is not ours is never deleted", departure{found: true, label: ownership.Foreign}, forget},
		"managed by Grafana or a tool": {"deleting it would break that", departure{found: true, label: ownership.Managed}, forget},
	} {
		t.Run(name, func(t *testing.T) {
			if got := row.is.decide(); got != row.want {
				t.Errorf("%s, want %s: %s", got, row.want, row.reason)
			}
		})
	}
}

func TestPatienceIsCountedFromTheLastEditOfAPerson(t *testing.T) {
	r := &Reconciler{now: func() time.Time { return testTime }}
	field := func(manager string, ago time.Duration) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &metav1.Time{Time: testTime.Add(-ago)}}
	}
	for name, row := range map[string]struct {
		created time.Duration // ago
		fields  []metav1.ManagedFieldsEntry
		want    time.Duration
	}{
		"new":                     {want: successorTimeout},
		"made a while ago":        {created: 20 * time.Second, want: 40 * time.Second},
		"edited since":            {created: time.Hour, fields: []metav1.ManagedFieldsEntry{field("kubectl", 50*time.Second)}, want: 10 * time.Second},
		"patched by us":           {created: time.Hour, fields: []metav1.ManagedFieldsEntry{field(FieldManager, 0)}, want: successorTimeout - time.Hour},
		"edited by a clock ahead": {created: -time.Hour, want: successorTimeout},
	} {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.CreationTimestamp, sv.ManagedFields = metav1.Time{Time: testTime.Add(-row.created)}, row.fields
		if got := r.untilTimeout(sv); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestUsageChanged(t *testing.T) {
	object := func(name string, change ...func(*v1alpha1.GrafanaSecureValue)) *v1alpha1.GrafanaSecureValue {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Namespace, sv.Name, sv.Spec.ConnectionRef, sv.Spec.Name = testObject.Namespace, testObject.Name, testRef, name
		for _, c := range change {
			c(sv)
		}
		return sv
	}
	owns := func(name string) func(*v1alpha1.GrafanaSecureValue) {
		return func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Status.Targets = append(sv.Status.Targets, v1alpha1.TargetStatus{Connection: testRef, Namespace: "default", Name: name})
		}
	}
	pends := func(name string) func(*v1alpha1.GrafanaSecureValue) {
		return func(sv *v1alpha1.GrafanaSecureValue) {
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationPendingTargets,
				ownership.Target{Connection: testRef, Namespace: "default", Name: name}.String())
		}
	}
	deleting := func(sv *v1alpha1.GrafanaSecureValue) { sv.DeletionTimestamp = &metav1.Time{Time: testTime} }
	suspended := func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true }
	elsewhere := func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "other" }

	for name, row := range map[string]struct {
		before, after *v1alpha1.GrafanaSecureValue
		changed       bool
	}{
		"nothing":                       {object("x", owns("x")), object("x", owns("x")), false},
		"names another, owns the old":   {object("x", owns("x")), object("y", owns("x")), true},
		"released the old one":          {object("y", owns("x")), object("y", owns("y")), true},
		"another connection, same name": {object("x", owns("x")), object("x", owns("x"), elsewhere), true},
		"claimed it":                    {object("x"), object("x", pends("x")), true},
		"wrote what was pending":        {object("x", pends("x")), object("x", pends("x"), owns("x")), false},
		"begins to be deleted":          {object("y", owns("x")), object("y", owns("x"), deleting), true},
		"goes on being deleted":         {object("x", owns("x"), deleting), object("x", owns("x"), deleting), false},
		"is suspended":                  {object("x"), object("x", suspended), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Reconciler{now: time.Now}
			if got := r.usageChanged(event.UpdateEvent{ObjectOld: row.before, ObjectNew: row.after}); got != row.changed {
				t.Errorf("changed: %t, want %t", got, row.changed)
			}
		})
	}
}

// TestBlockedSaysWhatIsKnown: what the object never wrote is not said to be undeleted, and each command is a sentence of its own.
func TestBlockedSaysWhatIsKnown(t *testing.T) {
	now := metav1.Now()
	for name, row := range map[string]struct {
		deleted, wrote bool
		want           string
	}{
		"deleted, wrote":       {true, true, `could not be deleted from Grafana`},
		"deleted, never wrote": {true, false, `operator cannot check whether Grafana has secure value "db"`},
		"moved, wrote":         {false, true, `could not be deleted from Grafana`},
		"moved, never wrote":   {false, false, `operator cannot check whether Grafana has secure value "db"`},
	} {
		t.Run(name, func(t *testing.T) {
			sv, rec := &v1alpha1.GrafanaSecureValue{}, &record{pending: []ownership.Target{testTarget}}
			sv.Namespace, sv.Name = testObject.Namespace, testObject.Name
			if row.deleted {
				sv.DeletionTimestamp = &now
			}
			if row.wrote {
				rec.targets = []v1alpha1.TargetStatus{{Connection: testRef, Namespace: testTarget.Namespace, Name: testTarget.Name, Source: &v1alpha1.SourceStatus{}}}
			}
			message := status.Of(blocked(sv, rec, testTarget, watch(v1alpha1.ReasonConnectionNotReady, "Check it: `kubectl describe`."))).Message
			if !strings.Contains(message, row.want) || strings.Contains(message, "could not be deleted") != row.wrote {
				t.Errorf("says %q, want %q", message, row.want)
			}
			for _, rest := range strings.Split(message, "`")[1:] {
				if !strings.HasPrefix(rest, "kubectl ") && !strings.HasPrefix(rest, ".") {
					t.Errorf("a command runs into the next sentence: %q", message)
				}
			}
		})
	}
}
