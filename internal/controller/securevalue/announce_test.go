package securevalue

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/tools/events"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// TestReasonsMakeOneEventAtMost: type, reason and note as a person reads them.
func TestReasonsMakeOneEventAtMost(t *testing.T) {
	inSync := status.Condition{Class: status.None, Reason: v1alpha1.ReasonSynced, Message: "In Grafana."}
	missing := status.Condition{Class: status.Watch, Reason: v1alpha1.ReasonSecretNotFound, Message: "No Secret."}
	blocked := status.Condition{Class: status.Time, Reason: v1alpha1.ReasonDeletionBlocked, Message: "Grafana is away."}
	for name, row := range map[string]struct {
		old  string
		now  status.Condition
		want string // "" for none
	}{
		"a first sync, which is a write":        {"", inSync, ""},
		"the end of what was wrong":             {v1alpha1.ReasonSecretNotFound, inSync, ""},
		"the same as before":                    {v1alpha1.ReasonSecretNotFound, missing, ""},
		"what is wrong":                         {v1alpha1.ReasonSynced, missing, "Warning SecretNotFound No Secret."},
		"something else that is wrong":          {v1alpha1.ReasonValueEmpty, missing, "Warning SecretNotFound No Secret."},
		"the end of the operator's part":        {v1alpha1.ReasonSynced, errReleased.Condition, ""},
		"a pause":                               {v1alpha1.ReasonSynced, errSuspended.Condition, "Normal Suspended Suspended, because spec.suspend is true: "},
		"the end of a pause":                    {v1alpha1.ReasonSuspended, inSync, "Normal Resumed Resumed, because "},
		"the end of a pause, and what is wrong": {v1alpha1.ReasonSuspended, missing, "Warning SecretNotFound No Secret."},
		"a deletion that is blocked in a pause": {v1alpha1.ReasonSuspended, blocked, "Warning DeletionBlocked Grafana is away."},
		"a deletion in a pause":                 {v1alpha1.ReasonSuspended, errReleased.Condition, ""},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := events.NewFakeRecorder(8)
			status.Announce(t.Context(), recorder, &v1alpha1.GrafanaSecureValue{}, row.old, row.now)
			close(recorder.Events)
			got := slices.Collect(func(yield func(string) bool) {
				for event := range recorder.Events {
					if !yield(event) {
						return
					}
				}
			})
			if row.want == "" && len(got) == 0 {
				return
			}
			if row.want == "" || len(got) != 1 || !strings.HasPrefix(got[0], row.want) {
				t.Errorf("got the events %q, want %q", got, row.want)
			}
		})
	}
}

// TestNotesBeginWithTheVerb: what an event says of a write.
func TestNotesBeginWithTheVerb(t *testing.T) {
	target := func(connection, name string) ownership.Target {
		ref := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: connection}
		return ownership.Target{Connection: ref, Namespace: "default", Name: name}
	}
	here, before, elsewhere := target("eu", "key"), target("eu", "old"), target("us", "key")
	for want, c := range map[string]change{
		"Created secure value key at version 1 in default":    {kind: created, target: here, version: 1},
		"Rotated secure value key to version 2 in default":    {kind: rotated, target: here, version: 2},
		"Updated secure value key to version 3 in default":    {kind: updated, target: here, version: 3},
		"Adopted secure value key at version 4 in default":    {kind: adopted, target: here, version: 4},
		"Rotated secure value key in default":                 {kind: rotated, target: here},
		"Moved secure value old in default to key in default": {kind: moved, target: here, version: 1, from: &before},
		"Moved secure value key in default of GrafanaConnection us to key in default of GrafanaConnection eu": {
			kind: moved, target: here, version: 1, from: &elsewhere,
		},
		"Corrected secure value key to version 5 in default, which was deleted by another writer": {
			kind: driftCorrected, target: here, version: 5, drift: "deleted",
		},
		"Deleted secure value key in default":                                          {kind: deleted, target: here},
		"Retained secure value key in default":                                         {kind: retained, target: here},
		"Deleted secure value key in default, because Grafana did not keep its labels": {kind: deleted, cause: causeLabels, target: here},
	} {
		if got := c.note(nil); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
