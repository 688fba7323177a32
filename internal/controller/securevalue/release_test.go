package securevalue

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestReleasedNames(t *testing.T) {
	object := func(name string, change ...func(*v1alpha1.GrafanaSecureValue)) *v1alpha1.GrafanaSecureValue {
		sv := &v1alpha1.GrafanaSecureValue{}
		sv.Namespace, sv.Name, sv.Spec.ConnectionRef, sv.Spec.Name = testObject.Namespace, testObject.Name, testRef, name
		for _, c := range change {
			c(sv)
		}
		return sv
	}
	holding := func(name string) func(*v1alpha1.GrafanaSecureValue) {
		return func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Status.Targets = append(sv.Status.Targets, v1alpha1.TargetStatus{Connection: testRef, Namespace: "default", Name: name})
		}
	}
	intending := func(name string) func(*v1alpha1.GrafanaSecureValue) {
		return func(sv *v1alpha1.GrafanaSecureValue) {
			p := place{connection: testRef, namespace: "default", name: name}
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationIntent, p.String())
		}
	}
	deleting := func(sv *v1alpha1.GrafanaSecureValue) { sv.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	lost := func(sv *v1alpha1.GrafanaSecureValue) {
		sv.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonNameConflict}}
	}
	inheriting := func(name string) func(*v1alpha1.GrafanaSecureValue) {
		return func(sv *v1alpha1.GrafanaSecureValue) {
			about := intent{place: place{connection: testRef, namespace: "default", name: name}, from: "former"}
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationIntent, about.String())
		}
	}
	elsewhere := func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = "other" }

	for name, row := range map[string]struct {
		before, after *v1alpha1.GrafanaSecureValue
		want          []string
	}{
		"nothing":                           {object("x", holding("x")), object("x", holding("x")), nil},
		"wants another name, holds the old": {object("x", holding("x")), object("y", holding("x")), nil},
		"lets go of the old name":           {object("y", holding("x")), object("y", holding("y")), []string{"x"}},
		"another connection, same name":     {object("x", holding("x")), object("x", elsewhere), []string{"x"}},
		"never came to write":               {object("x"), nil, nil},
		"an intent is replaced":             {object("y", intending("x")), object("y", intending("y")), []string{"x"}},
		"begins to be deleted":              {object("y", holding("x")), object("y", holding("x"), deleting), []string{"x"}},
		"goes on being deleted":             {object("x", holding("x"), deleting), object("x", holding("x"), deleting), nil},
		"finds it taken":                    {object("x", intending("x")), object("x", intending("x"), lost), nil},
		"goes, and had found it taken":      {object("x", intending("x"), lost), nil, nil},
		"goes, and was left it":             {object("x", inheriting("x"), lost), nil, []string{"x"}},
		"goes, and has lost it":             {object("x", holding("x"), lost), nil, []string{"x"}},
		"is gone":                           {object("x", holding("x"), intending("z"), deleting), nil, []string{"x", "z"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := releasedNames(row.before, row.after); !slices.Equal(got, row.want) {
				t.Errorf("released %q, want %q", got, row.want)
			}
		})
	}
}

func TestMayClaim(t *testing.T) {
	lost := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNameConflict}}
	waits := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonSecretNotFound}}
	for name, row := range map[string]struct {
		observed   int64
		conditions []metav1.Condition
		recorded   bool
		token      string
		want       bool
	}{
		"never looked at":                  {observed: -1, want: true},
		"was waiting for its Secret":       {observed: 1, conditions: waits, want: true},
		"found it taken":                   {observed: 1, conditions: lost, want: false},
		"found it taken, and was edited":   {observed: 0, conditions: lost, want: true},
		"holds it":                         {observed: 1, recorded: true, want: false},
		"lost it":                          {observed: 1, conditions: lost, recorded: true, want: false},
		"lost it, then lost its Secret":    {observed: 1, conditions: waits, recorded: true, want: false},
		"lost it, and was edited":          {observed: 0, conditions: lost, recorded: true, want: true},
		"lost it, and is to sync now":      {observed: 1, conditions: lost, recorded: true, token: "1", want: true},
		"lost it, and has answered before": {observed: 1, conditions: lost, recorded: true, token: "answered", want: false},
	} {
		t.Run(name, func(t *testing.T) {
			sv := &v1alpha1.GrafanaSecureValue{}
			sv.Generation, sv.Status.ObservedGeneration, sv.Status.Conditions = 1, row.observed, row.conditions
			sv.Status.LastSyncNow = "answered"
			if row.recorded {
				sv.Status.Targets = []v1alpha1.TargetStatus{*recorded()}
			}
			if row.token != "" {
				metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, row.token)
			}
			if got := remembered(sv, testPlace).mayClaim; got != row.want {
				t.Errorf("mayClaim = %t, want %t", got, row.want)
			}
		})
	}
}
