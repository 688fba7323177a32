package securevalue

import (
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

var (
	testObject = types.NamespacedName{Namespace: "team-a", Name: "db"}
	testRef    = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	testTarget = ownership.Target{Connection: testRef, Namespace: "default", Name: "db"}
	testLabels = ownership.Labels{Cluster: "cluster-1", Object: testObject, Connection: ownership.ConnectionOf(testRef, testObject.Namespace)}
	testSource = v1alpha1.SourceStatus{Name: "s", Key: "k", UID: "u", ResourceVersion: "7"}
	testTime   = time.Unix(1_700_000_000, 0)
)

func wanted() *desired {
	return &desired{
		target: testTarget, labels: testLabels, description: "text", decrypters: []string{"a", "b"},
		source: sourceStatus{key: new(testSource)}, fingerprint: "v1:k:new",
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
	testLabels.Put(sv)
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
		err    string
	}{
		"first sync": {
			reason: "a target that was never written is written without a question",
			seen:   observed{}, step: create,
		},
		"in sync": {
			reason: "the same value of the same generation needs no question",
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()}, step: keep,
		},
		"secret edited, our key unchanged": {
			reason: "an equal fingerprint is the same value, whatever version the Secret has",
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion = "6" }, step: keep,
		},
		"fingerprint key lost, secret unchanged": {
			reason: "an unchanged source is the same value, whatever key made the fingerprint",
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Fingerprint = "v1:lost:xyz" }, step: keep,
		},
		"rotated": {
			reason: "a PUT follows a fresh GET",
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.ResourceVersion, t.Fingerprint = "6", "v1:k:old" }, step: observe,
		},
		"another key of the same secret": {
			reason: "the same version of a Secret holds other values under other keys",
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) { t.Source.Key, t.Fingerprint = "other", "v1:k:old" }, step: observe,
		},
		"transforms edited": {
			reason: "the same version of a Secret makes another value in another way",
			want:   func(d *desired) { d.generation, d.source.recipe, d.fingerprint = 2, "other", "v1:k:newer" },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"template in place of a key, of the same value": {
			reason: "an equal fingerprint is the same value, wherever it comes from",
			want: func(d *desired) {
				d.generation, d.source = 2, sourceStatus{secrets: []v1alpha1.SecretStatus{{Name: "s", UID: "u", ResourceVersion: "7"}}}
			},
			seen: observed{known: true, record: recorded(), asked: true, found: shown()}, step: keep,
		},
		"fingerprint key lost, Secrets of a template unchanged": {
			reason: "an unchanged source is the same value, whatever key made the fingerprint",
			want: func(d *desired) {
				d.source = sourceStatus{secrets: []v1alpha1.SecretStatus{{Name: "s", UID: "u", ResourceVersion: "7"}}}
			},
			seen: observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) {
				t.Source, t.Sources, t.Fingerprint = nil, []v1alpha1.SecretStatus{{Name: "s", UID: "u", ResourceVersion: "7"}}, "v1:lost:xyz"
			},
			step: keep,
		},
		"a Secret of a template rotated": {
			reason: "a PUT follows a fresh GET",
			want: func(d *desired) {
				d.source = sourceStatus{secrets: []v1alpha1.SecretStatus{{Name: "r"}, {Name: "s", UID: "u", ResourceVersion: "8"}}}
			},
			seen: observed{known: true, settled: true, trusted: true, record: recorded()},
			record: func(t *v1alpha1.TargetStatus) {
				t.Source, t.Sources, t.Fingerprint = nil, []v1alpha1.SecretStatus{{Name: "r"}, {Name: "s", UID: "u", ResourceVersion: "7"}}, "v1:k:old"
			},
			step: observe,
		},
		"spec edited": {
			reason: "Grafana shows what it has of the spec",
			seen:   observed{known: true, record: recorded()}, step: observe,
		},
		"crash after the write": {
			reason: "a pending target without a record says that something may be there",
			seen:   observed{known: true}, step: observe,
		},
		"gone": {
			reason: "what was deleted in Grafana is made again",
			seen:   observed{known: true, record: recorded(), asked: true}, step: create,
		},
		"spec edited in a way that Grafana does not show": {
			reason: "nothing is written when nothing changed",
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: keep,
		},
		"description edited": {
			reason: "what differs is written",
			want:   func(d *desired) { d.description = "other" },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"decrypters edited": {
			reason: "what differs is written",
			want:   func(d *desired) { d.decrypters = nil },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"rotated, and asked": {
			reason: "a new value is written",
			want:   func(d *desired) { d.source.key.ResourceVersion, d.fingerprint = "8", "v1:k:newer" },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"crash after the write, and asked": {
			reason: "which value is there is not known without a record",
			seen:   observed{known: true, asked: true, found: shown()}, step: update,
		},
		"another writer wrote a version": {
			reason: "nothing is known of the value under another version",
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version = 2 }, step: update,
		},
		"deleted and made again by another writer": {
			reason: "the same version number with another creation time is another value",
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.CreatedAt = testTime.Add(time.Hour) }, step: update,
		},
		"version not served": {
			reason: "what is not served cannot differ",
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version, sv.CreatedAt = 0, time.Time{} }, step: keep,
		},
		"candidate": {
			reason: "a LIST is a hint, which Grafana is asked about",
			seen:   observed{known: true, settled: true, trusted: true, candidate: true, record: recorded()}, step: observe,
		},
		"candidate, and nothing is wrong": {
			reason: "a hint alone is no reason to write",
			seen:   observed{known: true, settled: true, candidate: true, record: recorded(), asked: true, found: shown()}, step: keep,
		},
		"drifted": {
			reason: "Correct writes it again",
			seen:   observed{known: true, settled: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"deleted by another writer": {
			reason: "Correct creates it again",
			seen:   observed{known: true, settled: true, record: recorded(), asked: true}, step: create,
		},
		"drifted, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, settled: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, err: v1alpha1.ReasonDrifted,
		},
		"deleted by another writer, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, settled: true, record: recorded(), asked: true}, err: v1alpha1.ReasonDrifted,
		},
		"created anew with our labels, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, settled: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.CreatedAt = testTime.Add(time.Hour) }, err: v1alpha1.ReasonDrifted,
		},
		"edited where no version is served, with Report": {
			reason: "the policy leaves it alone",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, settled: true, record: recorded(), asked: true, found: shown()},
			found: func(sv *grafana.SecureValue) {
				sv.Version, sv.Description = 0, "theirs"
			}, err: v1alpha1.ReasonDrifted,
		},
		"drifted, and corrected too often": {
			reason: "another writer is active: two would write for ever",
			seen:   observed{known: true, settled: true, limit: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, err: v1alpha1.ReasonDrifted,
		},
		"drifted, and that was reported": {
			reason: "time alone does not begin the war again",
			seen:   observed{known: true, settled: true, reported: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, err: v1alpha1.ReasonDrifted,
		},
		"drifted, and put back": {
			reason: "that ends it",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, settled: true, reported: true, record: recorded(), asked: true, found: shown()}, step: keep,
		},
		"drifted, and not asked again": {
			reason: "that it is still so is not known",
			seen:   observed{known: true, settled: true, reported: true, record: recorded()}, step: observe,
		},
		"drifted with Report, then rotated": {
			reason: "a rotation is written under either policy",
			want:   func(d *desired) { d.report, d.source.key.ResourceVersion, d.fingerprint = true, "8", "v1:k:newer" },
			seen:   observed{known: true, settled: true, reported: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"drifted with Report, then edited": {
			reason: "an edit is written under either policy, a change of driftPolicy among them",
			want:   func(d *desired) { d.report = true },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"drifted with Report, then sync-now": {
			reason: "sync-now is written under either policy",
			want:   func(d *desired) { d.report, d.again = true, true },
			seen:   observed{known: true, settled: true, reported: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Version++ }, step: update,
		},
		"to be written again": {
			reason: "sync-now writes once more, even if nothing changed",
			want:   func(d *desired) { d.again = true },
			seen:   observed{known: true, settled: true, trusted: true, record: recorded()}, step: observe,
		},
		"to be written again, and asked": {
			reason: "sync-now writes once more, even if nothing changed",
			want:   func(d *desired) { d.again = true },
			seen:   observed{known: true, settled: true, trusted: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"a label is missing": {
			reason: "labels are part of what is desired",
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { delete(sv.Labels, ownership.LabelConnection) }, step: update,
		},
		"deletionPolicy became Retain": {
			reason: "the retain label is part of what is desired",
			want:   func(d *desired) { d.labels.Retain = true },
			seen:   observed{known: true, record: recorded(), asked: true, found: shown()}, step: update,
		},
		"the annotation is missing": {
			reason: "other writers drop annotations, and nothing is decided by them",
			seen:   observed{known: true, settled: true, record: recorded(), asked: true, found: shown()},
			found:  func(sv *grafana.SecureValue) { sv.Annotations = nil }, step: keep,
		},
		"claimable": {
			reason: "what an object of the namespace left is taken over, whatever adoptionPolicy says",
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Sibling, class: claimable}, step: takeOver,
		},
		"another object's": {
			reason: "what another object owns is never taken",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Sibling, class: foreign, by: "other"}, err: v1alpha1.ReasonNameConflict,
		},
		"another object's, with Report": {
			reason: "that is no drift, but a conflict",
			want:   func(d *desired) { d.report = true },
			seen: observed{
				known: true, settled: true, record: recorded(), asked: true, found: shown(), owner: ownership.Sibling, class: foreign,
			}, err: v1alpha1.ReasonNameConflict,
		},
		"of another namespace or cluster": {
			reason: "its owner cannot be asked",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Foreign, class: foreign}, err: v1alpha1.ReasonNameConflict,
		},
		"managed by another tool": {
			reason: "never, whatever adoptionPolicy says",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Managed, class: foreign}, err: v1alpha1.ReasonAlreadyExists,
		},
		"nobody's": {
			reason: "what was made in Grafana is left alone",
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Nobody, class: adoptable}, err: v1alpha1.ReasonAlreadyExists,
		},
		"nobody's, with Adopt": {
			reason: "unless the object says otherwise",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.Nobody, class: adoptable}, step: takeOver,
		},
		"of this object in another cluster": {
			reason: "the other cluster owns it",
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable}, err: v1alpha1.ReasonAlreadyExists,
		},
		"of this object in another cluster, with Adopt": {
			reason: "this is how values move to another cluster",
			want:   func(d *desired) { d.adopt = true },
			seen:   observed{known: true, asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable}, step: takeOver,
		},
		"lost to another cluster, with Adopt": {
			reason: "or two clusters would take it from each other for ever",
			want:   func(d *desired) { d.adopt = true },
			seen: observed{
				known: true, record: recorded(), asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable,
			}, err: v1alpha1.ReasonNameConflict,
		},
		"lost to another cluster, and the record is gone": {
			reason: "the conflict that status reports says so",
			want:   func(d *desired) { d.adopt = true },
			seen: observed{
				known: true, conflict: true, asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable,
			}, err: v1alpha1.ReasonNameConflict,
		},
		"lost to another cluster, with Adopt and sync-now": {
			reason: "sync-now takes it back",
			want:   func(d *desired) { d.adopt, d.again = true, true },
			seen: observed{
				known: true, record: recorded(), asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable,
			}, step: takeOver,
		},
		"lost to another cluster, with sync-now alone": {
			reason: "adoptionPolicy decides",
			want:   func(d *desired) { d.again = true },
			seen: observed{
				known: true, record: recorded(), asked: true, found: shown(), owner: ownership.OtherCluster, class: adoptable,
			}, err: v1alpha1.ReasonAlreadyExists,
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := wanted()
			if row.want != nil {
				row.want(want)
			}
			if row.record != nil {
				row.record(row.seen.record)
			}
			if row.found != nil {
				row.found(row.seen.found)
			}
			if row.seen.found != nil && row.seen.class == "" {
				row.seen.owner, row.seen.class = ownership.Self, ours
			}
			step, err := decide(want, row.seen)
			e, _ := errors.AsType[*status.Error](err)
			if (e != nil) != (row.err != "") || e != nil && e.Reason != row.err {
				t.Fatalf("error = %v, want reason %q: %s", err, row.err, row.reason)
			}
			if step != row.step {
				t.Errorf("step = %q, want %q: %s", step, row.step, row.reason)
			}
		})
	}
}

// The labels that another writer dropped do not make the value on record foreign.
func TestIsStripped(t *testing.T) {
	for name, row := range map[string]struct {
		seen observed
		want bool
	}{
		"the value on record":      {observed{record: recorded(), found: shown()}, true},
		"created anew since":       {observed{record: recorded(), found: &grafana.SecureValue{CreatedAt: testTime.Add(time.Hour)}}, false},
		"no creation time":         {observed{record: recorded(), found: &grafana.SecureValue{}}, false},
		"never written":            {observed{found: shown()}, false},
		"a record without a write": {observed{record: &v1alpha1.TargetStatus{CreatedAt: &metav1.Time{Time: testTime}}, found: shown()}, false},
	} {
		if got := isStripped(row.seen); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}

func TestSecureValueKeepsWhatIsNotOurs(t *testing.T) {
	found := shown()
	found.Annotations["their"] = "annotation"
	found.ResourceVersion = "42"
	body := wanted().secureValue(found)
	if body.Labels["their"] != "label" || body.Annotations["their"] != "annotation" || body.ResourceVersion != "42" {
		t.Errorf("labels, annotations or resourceVersion of another lost: %v %v %s", body.Labels, body.Annotations, body.ResourceVersion)
	}
	if !testLabels.Match(body.Labels) || body.Annotations[ownership.AnnotationResource] != "team-a/db" {
		t.Errorf("owner labels or annotation missing: %v %v", body.Labels, body.Annotations)
	}
}

func TestIsTrusted(t *testing.T) {
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason}}
	}
	record := func(name string, generation int64) *v1alpha1.TargetStatus {
		r := recorded()
		r.Name, r.Generation = name, generation
		return r
	}
	here, elsewhere := record("db", 2), record("other", 2)
	blocked := ready(metav1.ConditionFalse, v1alpha1.ReasonDeletionBlocked)
	for name, row := range map[string]struct {
		observed   int64
		conditions []metav1.Condition
		first      *v1alpha1.TargetStatus
		want       bool
	}{
		"Ready":                               {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), here, true},
		"written, and not yet reported":       {1, ready(metav1.ConditionFalse, v1alpha1.ReasonForbidden), here, true},
		"Ready, written for an earlier one":   {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), record("db", 1), false},
		"Ready elsewhere":                     {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), elsewhere, false},
		"an old target blocked":               {2, blocked, here, true},
		"an old target blocked, and an edit":  {2, blocked, record("db", 1), false},
		"an old target blocked, and not here": {2, blocked, elsewhere, false},
		"nothing recorded":                    {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), nil, false},
		"not Ready":                           {2, ready(metav1.ConditionFalse, v1alpha1.ReasonForbidden), here, false},
		"drifted":                             {2, ready(metav1.ConditionFalse, v1alpha1.ReasonDrifted), here, false},
	} {
		t.Run(name, func(t *testing.T) {
			sv := &v1alpha1.GrafanaSecureValue{}
			sv.Generation, sv.Status.ObservedGeneration, sv.Status.Conditions = 2, row.observed, row.conditions
			if row.first != nil {
				sv.Status.Targets = []v1alpha1.TargetStatus{*row.first}
			}
			if got := isTrusted(sv, testTarget); got != row.want {
				t.Errorf("isTrusted = %t, want %t", got, row.want)
			}
		})
	}
}

func TestValidateRepeatsTheSchema(t *testing.T) {
	many := make([]string, grafana.MaxDecrypters+1)
	for i := range many {
		many[i] = strings.Repeat("x", i%60+1)
	}
	for name, edit := range map[string]func(*desired){
		"upper-case name":       func(d *desired) { d.target.Name = "Db" },
		"name with a slash":     func(d *desired) { d.target.Name = "a/b" },
		"unknown kind":          func(d *desired) { d.target.Connection.Kind = "" },
		"description of 26":     func(d *desired) { d.description = strings.Repeat("é", 26) },
		"65 decrypters":         func(d *desired) { d.decrypters = many },
		"blank decrypter":       func(d *desired) { d.decrypters = []string{""} },
		"decrypter with spaces": func(d *desired) { d.decrypters = []string{" k6-cloud"} },
		"decrypter twice":       func(d *desired) { d.decrypters = []string{"a", "a"} },
	} {
		t.Run(name, func(t *testing.T) {
			d := wanted()
			if err := d.validate(); err != nil {
				t.Fatal(err)
			}
			edit(d)
			if e := status.Of(d.validate()); e == nil || e.Reason != v1alpha1.ReasonInvalidSpec {
				t.Errorf("error = %v", e)
			}
		})
	}
	d := wanted()
	d.description = strings.Repeat("é", 25)
	if err := d.validate(); err != nil {
		t.Errorf("25 characters: %v", err)
	}
}
