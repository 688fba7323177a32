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
			seen:   observed{held: true, settled: true, record: recorded()}, step: keep,
		},
		"secret edited, our key unchanged": {
			reason: "an equal fingerprint is the same value, whatever version the Secret has",
			seen:   observed{held: true, settled: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion = "6" }, step: keep,
		},
		"fingerprint key lost, secret unchanged": {
			reason: "an unchanged source is the same value, whatever key made the fingerprint",
			seen:   observed{held: true, settled: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Fingerprint = "v1:lost:xyz" }, step: keep,
		},
		"rotated": {
			reason: "a PUT follows a fresh GET",
			seen:   observed{held: true, settled: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion, t.Fingerprint = "6", "v1:k:old" }, step: look,
		},
		"another key of the same secret": {
			reason: "the same version of a Secret holds other values under other keys",
			seen:   observed{held: true, settled: true, record: recorded()},
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
		"not marked": {
			reason: "what nobody marked is not ours, even where our record says that we wrote there",
			seen:   observed{held: true, record: recorded(), looked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Labels = nil }, fault: v1alpha1.ReasonAlreadyExists,
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
		"delete, retained": {
			reason: "what is retained is left alone without a question",
			want:   func(d *desired) { d.absent, d.retain = true, true },
			seen:   observed{held: true, record: recorded()}, step: drop,
		},
		"delete": {
			reason: "a DELETE follows a fresh GET",
			want:   func(d *desired) { d.absent = true },
			seen:   observed{held: true, settled: true, record: recorded()}, step: look,
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
	if !testMarks.complete(body) {
		t.Errorf("marks missing: %v %v", body.Labels, body.Annotations)
	}
}
