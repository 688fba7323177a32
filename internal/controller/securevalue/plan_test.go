package securevalue

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

var (
	testObject = types.NamespacedName{Namespace: "team-a", Name: "db"}
	testRef    = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	testPlace  = place{connection: testRef, namespace: "default", name: "db"}
	testID     = connection.IDOf(testRef, testObject.Namespace)
	testMarks  = marksOf("cluster-1", testObject, testID)
	testSource = v1alpha1.SourceStatus{Name: "s", Key: "k", UID: "u", ResourceVersion: "7"}
	testTime   = time.Unix(1_700_000_000, 0)
)

func wantPresent() *desired {
	return &desired{
		place: testPlace, id: testID, marks: testMarks,
		description: "text", decrypters: []string{"a", "b"},
		source: testSource, fingerprint: "v1:k:new",
	}
}

// recorded is a record of the desired value.
func recorded() *v1alpha1.TargetStatus {
	return &v1alpha1.TargetStatus{
		Connection: testRef, Namespace: "default", Name: "db", Version: 3, CreatedAt: &metav1.Time{Time: testTime},
		Source: new(testSource), Fingerprint: "v1:k:new",
	}
}

// shown is what Grafana shows where everything is as desired.
func shown() *grafana.SecureValue {
	sv := &grafana.SecureValue{
		Name: "db", Version: 3, CreatedAt: testTime, Description: "text", Decrypters: []string{"b", "a"},
		Labels: map[string]string{"their": "label"},
	}
	testMarks.put(sv)
	return sv
}

// shownOf is the same with the marks of another object of the namespace.
func shownOf(object string) *grafana.SecureValue {
	sv := shown()
	marksOf("cluster-1", types.NamespacedName{Namespace: testObject.Namespace, Name: object}, testID).put(sv)
	return sv
}

func TestOwnerOf(t *testing.T) {
	other := types.NamespacedName{Namespace: "team-b", Name: "x"}
	for name, row := range map[string]struct {
		change   func(*grafana.SecureValue)
		want     owner
		resident types.NamespacedName
	}{
		"ours":               {func(*grafana.SecureValue) {}, own, types.NamespacedName{}},
		"nobody's":           {func(sv *grafana.SecureValue) { sv.Labels = nil }, unmarked, types.NamespacedName{}},
		"with other labels":  {func(sv *grafana.SecureValue) { sv.Labels = map[string]string{"a": "b"} }, unmarked, types.NamespacedName{}},
		"of Grafana":         {func(sv *grafana.SecureValue) { sv.Owned = true }, managed, types.NamespacedName{}},
		"another tool's":     {func(sv *grafana.SecureValue) { sv.Annotations[annotationManagedBy] = "x" }, managed, types.NamespacedName{}},
		"another object's":   {marksOf("cluster-1", other, testID).put, resident, other},
		"of another cluster": {marksOf("cluster-2", other, testID).put, stranger, types.NamespacedName{}},
		"our twin's":         {marksOf("cluster-2", testObject, testID).put, twin, types.NamespacedName{}},
		"forged annotation": {func(sv *grafana.SecureValue) {
			marksOf("cluster-1", other, testID).put(sv)
			sv.Annotations[annotationResource] = "team-a/gone"
		}, stranger, types.NamespacedName{}},
		"no annotation": {func(sv *grafana.SecureValue) {
			marksOf("cluster-1", other, testID).put(sv)
			delete(sv.Annotations, annotationResource)
		}, stranger, types.NamespacedName{}},
		"owner without cluster": {func(sv *grafana.SecureValue) {
			marksOf("cluster-1", other, testID).put(sv)
			delete(sv.Labels, labelCluster)
		}, stranger, types.NamespacedName{}},
		"cluster without owner": {func(sv *grafana.SecureValue) { delete(sv.Labels, labelOwner) }, stranger, types.NamespacedName{}},
	} {
		t.Run(name, func(t *testing.T) {
			found := shown()
			row.change(found)
			if got, object := testMarks.ownerOf(found); got != row.want || object != row.resident {
				t.Errorf("owner = %s %s, want %s %s", got, object, row.want, row.resident)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		want   func(*desired)
		seen   observed
		record func(*v1alpha1.TargetStatus)
		found  func(*grafana.SecureValue)
		step   action
		fault  string
	}{
		"first sync": {
			reason: "a place that was never written is written without a question",
			seen:   observed{}, step: create,
		},
		"in step": {
			reason: "the same value of the same generation needs no question",
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()}, step: keep,
		},
		"secret edited, our key unchanged": {
			reason: "an equal fingerprint is the same value, whatever version the Secret has",
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion = "6" }, step: keep,
		},
		"fingerprint key lost, secret unchanged": {
			reason: "an unchanged source is the same value, whatever key made the fingerprint",
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Fingerprint = "v1:lost:xyz" }, step: keep,
		},
		"rotated": {
			reason: "a PUT follows a fresh GET",
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion, t.Fingerprint = "6", "v1:k:old" }, step: look,
		},
		"another key of the same secret": {
			reason: "the same version of a Secret holds other values under other keys",
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.Key, t.Fingerprint = "other", "v1:k:old" }, step: look,
		},
		"spec edited": {
			reason: "Grafana shows what of the spec it holds",
			seen:   observed{held: true, record: recorded()}, step: look,
		},
		"crash after the write": {
			reason: "an intent without a record says that something may be there",
			seen:   observed{held: true}, step: look,
		},
		"gone": {
			reason: "what was deleted in Grafana is made again",
			seen:   observed{held: true, record: recorded(), looked: true}, step: create,
		},
		"spec edited in a way that Grafana does not hold": {
			reason: "nothing is written when nothing changed",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: keep,
		},
		"description edited": {
			reason: "what differs is written",
			want:   func(d *desired) { d.description = "other" },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: update,
		},
		"decrypters edited": {
			reason: "what differs is written",
			want:   func(d *desired) { d.decrypters = nil },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: update,
		},
		"rotated, and looked": {
			reason: "a new value is written",
			want:   func(d *desired) { d.source.ResourceVersion, d.fingerprint = "8", "v1:k:newer" },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: update,
		},
		"crash after the write, and looked": {
			reason: "which value is there is not known without a record",
			seen:   observed{held: true, looked: true, found: shown()}, step: update,
		},
		"somebody else wrote a version": {
			reason: "nothing is known of the value under another version",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version = 2 }, step: update,
		},
		"deleted and made again by somebody else": {
			reason: "the same version number with another creation time is another value",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.CreatedAt = testTime.Add(time.Hour) }, step: update,
		},
		"version not served": {
			reason: "what is not served cannot differ",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version, sv.CreatedAt = 0, time.Time{} }, step: keep,
		},
		"a mark is missing": {
			reason: "marks are part of what is desired",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { delete(sv.Labels, labelConnection) }, step: update,
		},
		"marks removed": {
			reason: "the value on record stays ours where somebody's write has dropped its labels",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Labels = nil }, step: update,
		},
		"created anew without marks": {
			reason: "what somebody made there since is not ours, even where our record says that we wrote there",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found: func(sv *grafana.SecureValue) {
				sv.Labels, sv.CreatedAt = nil, testTime.Add(time.Hour)
			}, fault: v1alpha1.ReasonAlreadyExists,
		},
		"not marked, and never known": {
			reason: "a record that tells of no write proves nothing",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			record: func(t *v1alpha1.TargetStatus) { t.Source = nil },
			found:  func(sv *grafana.SecureValue) { sv.Labels = nil }, fault: v1alpha1.ReasonAlreadyExists,
		},
		"suspected": {
			reason: "a LIST is a hint, which Grafana is asked about",
			seen:   observed{held: true, settled: true, trusted: true, suspect: true, record: recorded()}, step: look,
		},
		"suspected, and nothing is wrong": {
			reason: "a hint alone is no reason to write",
			seen:   observed{held: true, settled: true, suspect: true, record: recorded(), looked: true, found: shown()}, step: keep,
		},
		"drifted": {
			reason: "Correct writes it again",
			seen:   observed{held: true, settled: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"deleted by somebody": {
			reason: "Correct creates it again",
			seen:   observed{held: true, settled: true, record: recorded(), looked: true}, step: create,
		},
		"drifted, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, fault: v1alpha1.ReasonDrifted,
		},
		"deleted by somebody, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, record: recorded(), looked: true}, fault: v1alpha1.ReasonDrifted,
		},
		"created anew with our marks, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.CreatedAt = testTime.Add(time.Hour) }, fault: v1alpha1.ReasonDrifted,
		},
		"edited where no version is served, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, record: recorded(), looked: true, found: shown()},
			found: func(sv *grafana.SecureValue) {
				sv.Version, sv.Description = 0, "theirs"
			}, fault: v1alpha1.ReasonDrifted,
		},
		"drifted, and corrected too often": {
			reason: "somebody else writes too: two would write for ever",
			seen:   observed{held: true, settled: true, contested: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, fault: v1alpha1.ReasonDrifted,
		},
		"drifted, and that was said": {
			reason: "time alone does not begin the war again",
			seen:   observed{held: true, settled: true, drifted: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, fault: v1alpha1.ReasonDrifted,
		},
		"drifted, and put back": {
			reason: "that ends it",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, drifted: true, record: recorded(), looked: true, found: shown()}, step: keep,
		},
		"drifted, and not asked again": {
			reason: "that it is still so is not known",
			seen:   observed{held: true, settled: true, drifted: true, record: recorded()}, step: look,
		},
		"drifted with Report, then rotated": {
			reason: "a rotation is our intent",
			want:   func(d *desired) { d.report, d.source.ResourceVersion, d.fingerprint = true, "8", "v1:k:newer" },
			seen:   observed{held: true, settled: true, drifted: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"drifted with Report, then edited": {
			reason: "an edit is our intent, a change of driftPolicy among them",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"drifted with Report, then sync-now": {
			reason: "sync-now is our intent",
			want:   func(d *desired) { d.report, d.again = true, true },
			seen:   observed{held: true, settled: true, drifted: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"taken by another object, with Report": {
			reason: "that is no drift, but a conflict",
			want:   func(d *desired) { d.report = true },
			seen:   observed{held: true, settled: true, record: recorded(), looked: true, found: shownOf("other"), owner: resident},
			fault:  v1alpha1.ReasonNameConflict,
		},
		"marked by another object": {
			reason: "another object's value is never overwritten",
			seen:   observed{held: true, looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Labels[labelOwner] = "other" }, fault: v1alpha1.ReasonNameConflict,
		},
		"owned by a resource of Grafana": {
			reason: "whatever its labels say",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Owned = true }, fault: v1alpha1.ReasonAlreadyExists,
		},
		"managed by another tool": {
			reason: "whatever its labels say",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Annotations[annotationManagedBy] = "terraform" }, fault: v1alpha1.ReasonAlreadyExists,
		},
		"to be written again": {
			reason: "sync-now writes once more, even if nothing changed",
			want:   func(d *desired) { d.again = true },
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()}, step: look,
		},
		"to be written again, and looked": {
			reason: "sync-now writes once more, even if nothing changed",
			want:   func(d *desired) { d.again = true },
			seen:   observed{held: true, settled: true, trusted: true, record: recorded(), looked: true, found: shown()}, step: update,
		},
		"not marked, with Adopt": {
			reason: "what nobody holds is taken by the one who says so",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: unmarked}, step: update,
		},
		"abandoned in another namespace": {
			reason: "it is nobody's, and adoptionPolicy decides",
			seen:   observed{held: true, looked: true, found: shown(), owner: abandoned}, fault: v1alpha1.ReasonAlreadyExists,
		},
		"abandoned in another namespace, with Adopt": {
			reason: "it is nobody's, and adoptionPolicy decides",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: abandoned}, step: update,
		},
		"vacated in our namespace": {
			reason: "it is taken over whatever adoptionPolicy says",
			seen:   observed{held: true, looked: true, found: shown(), owner: vacated}, step: update,
		},
		"held by another object, with Adopt": {
			reason: "what somebody holds is never taken",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: resident}, fault: v1alpha1.ReasonNameConflict,
		},
		"of another cluster, with Adopt": {
			reason: "who holds it there cannot be asked",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: stranger}, fault: v1alpha1.ReasonNameConflict,
		},
		"managed by another tool, with Adopt": {
			reason: "never, whatever adoptionPolicy says",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: managed}, fault: v1alpha1.ReasonAlreadyExists,
		},
		"our twin's": {
			reason: "another cluster holds it",
			seen:   observed{held: true, looked: true, found: shown(), owner: twin, mayClaim: true}, fault: v1alpha1.ReasonNameConflict,
		},
		"our twin's, with Adopt": {
			reason: "this is how values move to another cluster",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: twin, mayClaim: true}, step: update,
		},
		"lost to our twin, with Adopt": {
			reason: "or two clusters would take it from each other for ever",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown(), owner: twin}, fault: v1alpha1.ReasonNameConflict,
		},
		"delete, with an heir": {
			reason: "Grafana is never without a value in a hand-over",
			want:   func(d *desired) { d.absent = true },
			seen: observed{
				held: true, record: recorded(), looked: true, found: shown(), heir: &v1alpha1.GrafanaSecureValue{},
			}, step: bequeath,
		},
		"leave before the new place holds, without an heir": {
			reason: "only another object's claim ends ours before the new place holds",
			want:   func(d *desired) { d.absent, d.heirsOnly = true, true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: keep,
		},
		"delete, inherited": {
			reason: "what was left to us and never written is ours to delete",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, from: "old", looked: true, found: shownOf("old"), owner: vacated}, step: remove,
		},
		"delete, inherited, and its holder is back": {
			reason: "what somebody holds is never deleted",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, from: "old", looked: true, found: shownOf("old"), owner: resident}, step: drop,
		},
		"delete, inherited, and its holder has not let go yet": {
			reason: "it may yet be left to us, after we are gone",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, from: "old", looked: true, found: shownOf("old"), owner: leaver}, step: wait,
		},
		"delete, another one leaves it": {
			reason: "what was not left to us is none of our business",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, looked: true, found: shownOf("old"), owner: leaver}, step: drop,
		},
		"held by one that leaves it, with Adopt": {
			reason: "it is held until it is let go",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{held: true, looked: true, found: shown(), owner: leaver}, fault: v1alpha1.ReasonNameConflict,
		},
		"delete, inherited from another": {
			reason: "what was not left to us is never deleted",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, from: "old", looked: true, found: shownOf("older"), owner: vacated}, step: drop,
		},
		"delete, vacated": {
			reason: "what was retained is never deleted on a guess",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, looked: true, found: shownOf("old"), owner: vacated}, step: drop,
		},
		"delete, retained": {
			reason: "what is retained is left alone without a question",
			want:   func(d *desired) { d.absent, d.retain = true, true },
			seen:   observed{held: true, record: recorded()}, step: drop,
		},
		"delete": {
			reason: "a DELETE follows a fresh GET",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, settled: true, trusted: true, record: recorded()}, step: look,
		},
		"delete, gone already": {
			reason: "nothing is there to be deleted",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, record: recorded(), looked: true}, step: drop,
		},
		"delete, ours": {
			reason: "ours, and written through this connection",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()}, step: remove,
		},
		"delete, written through another connection": {
			reason: "two connections reach one value: the other place holds it",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Labels[labelConnection] = "other" }, step: drop,
		},
		"delete, another object's": {
			reason: "another object's value is never deleted",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Labels[labelOwner] = "other" }, step: drop,
		},
		"delete, owned by a resource of Grafana": {
			reason: "deleting it would break that resource",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Owned = true }, step: drop,
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := wantPresent()
			if row.want != nil {
				row.want(want)
			}
			if row.record != nil {
				row.record(row.seen.record)
			}
			if row.found != nil {
				row.found(row.seen.found)
			}
			if row.seen.found != nil && row.seen.owner == "" {
				row.seen.owner, _ = testMarks.ownerOf(row.seen.found)
			}
			step, err := decide(want, row.seen)
			var fault *status.Fault
			if errors.As(err, &fault) != (row.fault != "") || (fault != nil && fault.Reason != row.fault) {
				t.Fatalf("error = %v, want reason %q: %s", err, row.fault, row.reason)
			}
			if step != row.step {
				t.Errorf("step = %q, want %q: %s", step, row.step, row.reason)
			}
		})
	}
}

func TestSecureValueKeepsWhatIsNotOurs(t *testing.T) {
	found := shown()
	found.Annotations["their"] = "annotation"
	found.ResourceVersion = "42"
	body := wantPresent().secureValue(found)
	if body.Labels["their"] != "label" || body.Annotations["their"] != "annotation" || body.ResourceVersion != "42" {
		t.Errorf("labels, annotations or resourceVersion of another lost: %v %v %s", body.Labels, body.Annotations, body.ResourceVersion)
	}
	if !testMarks.complete(body.Labels, body.Annotations) {
		t.Errorf("marks missing: %v %v", body.Labels, body.Annotations)
	}
}
