package securevalue

import (
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
)

func TestPlaceInAnAnnotation(t *testing.T) {
	if got, ok := parsePlace(testPlace.String()); !ok || got != testPlace {
		t.Errorf("parsePlace(%q) = %v, %t", testPlace, got, ok)
	}
	for _, bad := range []string{
		"", "x", "GrafanaConnection/prod/default", "GrafanaConnection/prod/default/", "GrafanaConnection//default/x",
		"Secret/prod/default/x", "GrafanaConnection/prod/default/x/y", "GrafanaConnection/Prod/default/x",
		"GrafanaConnection/prod/default/X", "GrafanaConnection/prod/default/..", "GrafanaConnection/prod/stacks-/x",
		"GrafanaConnection/prod/org-01/x", "GrafanaConnection/prod/kube-system/x",
		"GrafanaConnection/" + strings.Repeat("x", 254) + "/default/x",
	} {
		if p, ok := parsePlace(bad); ok {
			t.Errorf("parsePlace(%q) = %v", bad, p)
		}
	}
}

func TestIntentInAnAnnotation(t *testing.T) {
	for _, want := range []intent{{place: testPlace}, {place: testPlace, from: "db-old"}, {}} {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Annotations = map[string]string{v1alpha1.AnnotationIntent: want.String()}
		if got := intentOf(sv); got != want {
			t.Errorf("intent %q was read as %v", want, got)
		}
	}
	for _, bad := range []string{
		"", "x", "GrafanaConnection/prod/default", testPlace.String() + "/a/b", testPlace.String() + "/A",
		"Secret/prod/default/x",
	} {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Annotations = map[string]string{v1alpha1.AnnotationIntent: bad}
		if got := intentOf(sv); got != (intent{}) {
			t.Errorf("intent %q was read as %v", bad, got)
		}
	}
}

func TestHeldPlaces(t *testing.T) {
	other := place{connection: testRef, namespace: "default", name: "other"}
	sv := &v1alpha1.GrafanaSecureValue{}
	if held := heldPlaces(sv); len(held) != 0 {
		t.Errorf("a new object holds %v", held)
	}
	sv.Annotations = map[string]string{v1alpha1.AnnotationIntent: testPlace.String()}
	if held := heldPlaces(sv); len(held) != 1 || held[0] != testPlace {
		t.Errorf("an intent alone holds %v", held)
	}
	sv.Status.Targets = []v1alpha1.TargetStatus{*recorded()}
	if held := heldPlaces(sv); len(held) != 1 {
		t.Errorf("an intent that status tells of too holds %v", held)
	}
	sv.Annotations[v1alpha1.AnnotationIntent] = other.String()
	if held := heldPlaces(sv); len(held) != 2 {
		t.Errorf("a move holds %v", held)
	}
	if p, stray := strayIntent(sv, testPlace); !stray || p != other {
		t.Errorf("an intent that is left is not noted: %v %t", p, stray)
	}
	if _, stray := strayIntent(sv, other); stray {
		t.Error("the wanted place is no stray")
	}
}

func TestStatusTrusted(t *testing.T) {
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
		"Ready":                              {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), here, true},
		"Ready for an earlier generation":    {1, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), here, false},
		"Ready, written for an earlier one":  {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), record("db", 1), false},
		"Ready elsewhere":                    {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), elsewhere, false},
		"an old place blocked":               {2, blocked, here, true},
		"an old place blocked, and an edit":  {2, blocked, record("db", 1), false},
		"an old place blocked, and not here": {2, blocked, elsewhere, false},
		"nothing recorded":                   {2, ready(metav1.ConditionTrue, v1alpha1.ReasonSynced), nil, false},
		"not Ready":                          {2, ready(metav1.ConditionFalse, v1alpha1.ReasonForbidden), here, false},
		"drifted":                            {2, ready(metav1.ConditionFalse, v1alpha1.ReasonDrifted), here, false},
	} {
		t.Run(name, func(t *testing.T) {
			sv := &v1alpha1.GrafanaSecureValue{}
			sv.Generation, sv.Status.ObservedGeneration, sv.Status.Conditions = 2, row.observed, row.conditions
			if row.first != nil {
				sv.Status.Targets = []v1alpha1.TargetStatus{*row.first}
			}
			if got := isTrusted(sv, testPlace); got != row.want {
				t.Errorf("isTrusted = %t, want %t", got, row.want)
			}
		})
	}
}

func TestGraves(t *testing.T) {
	vanished := func(name, uid string) *v1alpha1.GrafanaSecureValue {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Namespace, sv.Name, sv.UID = "ns", name, types.UID(uid)
		sv.Annotations = map[string]string{v1alpha1.AnnotationIntent: testPlace.String(), "other": "x"}
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		return sv
	}
	key := types.NamespacedName{Namespace: "ns", Name: "x"}
	var m memory
	m.bury(vanished("x", "1"))
	grave := m.exhume(key)
	if grave == nil || grave.UID != "1" || grave.Spec.DeletionPolicy != v1alpha1.DeletionPolicyRetain || len(heldPlaces(grave)) != 1 {
		t.Fatalf("what is needed to give up its places is lost: %+v", grave)
	}
	if len(grave.Annotations) != 1 {
		t.Errorf("more is kept than is needed: %v", grave.Annotations)
	}
	if m.unbury(vanished("x", "2")); m.exhume(key) == nil {
		t.Error("it ends with another object of that name")
	}
	if m.unbury(vanished("x", "1")); m.exhume(key) != nil {
		t.Error("it does not end")
	}
	for i := range maxBuried {
		if !m.bury(vanished(strconv.Itoa(i), "1")) {
			t.Fatalf("only %d are kept", i)
		}
	}
	if m.bury(vanished("one-more", "1")) {
		t.Error("there is no bound")
	}
}

func TestMarks(t *testing.T) {
	// Marks in Grafana must be recognised by every later version.
	if got, want := testMarks.owner, "5f9467b5b0c7bf95bdce1b2a37adb4b417405ea1"; got != want {
		t.Errorf("owner mark = %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for _, m := range []marks{
		testMarks,
		marksOf("cluster-2", testObject, testID),
		marksOf("cluster-1", types.NamespacedName{Namespace: "team-b", Name: "db"}, testID),
		marksOf("cluster-1", types.NamespacedName{Namespace: "team-a", Name: "dc"}, testID),
		marksOf("cluster-1", types.NamespacedName{Namespace: "team-ad", Name: "b"}, testID),
	} {
		if seen[m.owner] {
			t.Errorf("two objects share the mark of %s", m.object)
		}
		seen[m.owner] = true
		for _, label := range []string{m.owner, m.connection} {
			if len(label) != 40 || len(validation.IsValidLabelValue(label)) > 0 {
				t.Errorf("%q is not 40 digits of a label value", label)
			}
		}
	}
	cluster := connection.ID{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "prod"}
	if marksOf("cluster-1", testObject, cluster).connection == testMarks.connection {
		t.Error("connections of two kinds share a mark")
	}
}

func TestMemoryKeepsTheEnd(t *testing.T) {
	deleting := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "x", ResourceVersion: "100", UID: "uid", Finalizers: []string{v1alpha1.Finalizer},
	}}
	deleting.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	answer := deleting.DeepCopy() // the API server removes the object, and says the version that it had
	answer.Finalizers = nil
	var m memory
	m.remember(answer)
	if got := m.newest(deleting); len(got.Finalizers) != 0 {
		t.Error("the cache is believed that shows the finalizer still, which was removed")
	}
	anew := deleting.DeepCopy()
	anew.UID, anew.ResourceVersion = "another", "101"
	if got := m.newest(anew); got.UID != "another" {
		t.Error("the end of an object is taken for that of a new one of its name")
	}
}

func TestMemoryKeepsTheNewer(t *testing.T) {
	object := func(version, uid string) *v1alpha1.GrafanaSecureValue {
		return &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "x", ResourceVersion: version, UID: types.UID(uid),
		}}
	}
	var m memory
	m.remember(object("100", "ours"))
	if got := m.newest(object("99", "cached")); got.UID != "ours" {
		t.Error("a cache that lags was believed")
	}
	if m.shown(object("99", "cached")); len(m.objects) != 1 {
		t.Error("the memory ends before the cache shows it")
	}
	if got := m.newest(object("100", "cached")); got.UID != "cached" {
		t.Error("the memory is believed although the cache is as new")
	}
	if m.shown(object("100", "cached")); len(m.objects) != 0 {
		t.Error("the memory does not end once the cache shows it")
	}
	m.remember(object("100", "ours"))
	m.remember(object("98", "late"))
	if got := m.newest(object("97", "cached")); got.UID != "ours" {
		t.Error("an answer that comes late replaces a newer one")
	}
	m.forget(types.NamespacedName{Namespace: "ns", Name: "x"})
	if len(m.objects) != 0 {
		t.Error("an object that is gone is remembered")
	}
}

func TestAllows(t *testing.T) {
	team := map[string]string{"team": "a"}
	for name, row := range map[string]struct {
		allowed v1alpha1.AllowedNamespaces
		labels  map[string]string
		want    bool
	}{
		"all":                        {v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}, nil, true},
		"selector that matches":      {selecting("team", "a"), team, true},
		"selector that does not":     {selecting("team", "b"), team, false},
		"selector, no labels":        {selecting("team", "a"), nil, false},
		"empty selector":             {v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{}}, nil, true},
		"selector missing":           {v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSelector}, team, false},
		"nothing said":               {v1alpha1.AllowedNamespaces{}, team, false},
		"a word that is not known":   {v1alpha1.AllowedNamespaces{From: "Same"}, team, false},
		"selector that is not valid": {selecting("not a key!", "a"), team, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := allows(row.allowed, row.labels); got != row.want {
				t.Errorf("allows = %t", got)
			}
		})
	}
}

func selecting(key, value string) v1alpha1.AllowedNamespaces {
	return v1alpha1.AllowedNamespaces{
		From:     v1alpha1.NamespacesFromSelector,
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}},
	}
}

func TestValidateRepeatsTheSchema(t *testing.T) {
	many := make([]string, maxDecrypters+1)
	for i := range many {
		many[i] = strings.Repeat("x", i%60+1)
	}
	for name, edit := range map[string]func(*desired){
		"upper-case name":       func(d *desired) { d.place.name = "Db" },
		"name with a slash":     func(d *desired) { d.place.name = "a/b" },
		"unknown kind":          func(d *desired) { d.place.connection.Kind = "" },
		"no description":        func(d *desired) { d.description = "" },
		"description of 26":     func(d *desired) { d.description = strings.Repeat("é", 26) },
		"65 decrypters":         func(d *desired) { d.decrypters = many },
		"blank decrypter":       func(d *desired) { d.decrypters = []string{""} },
		"decrypter with spaces": func(d *desired) { d.decrypters = []string{" k6-cloud"} },
		"decrypter twice":       func(d *desired) { d.decrypters = []string{"a", "a"} },
	} {
		t.Run(name, func(t *testing.T) {
			d := wantPresent()
			if err := d.validate(); err != nil {
				t.Fatal(err)
			}
			edit(d)
			verdict, _ := classify(d.validate())
			if verdict.Reason != v1alpha1.ReasonInvalidSpec {
				t.Errorf("verdict = %+v", verdict)
			}
		})
	}
	d := wantPresent()
	d.description = strings.Repeat("é", 25)
	if err := d.validate(); err != nil {
		t.Errorf("25 characters: %v", err)
	}
}
