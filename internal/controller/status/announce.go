package status

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// MaxNoteBytes is what the API server takes as the note of an event.
const MaxNoteBytes = 1024

// Announce emits one event, and a line in the log, where Ready's reason changes for the worse, or a pause begins or ends. An end that
// finds something else wrong is in the event about that. old is the reason before.
func Announce(ctx context.Context, recorder events.EventRecorder, o runtime.Object, old string, condition Condition) {
	if old == condition.Reason {
		return
	}
	switch condition.Class {
	case None:
		if old == v1alpha1.ReasonSuspended {
			recorder.Eventf(o, nil, corev1.EventTypeNormal, "Resumed", "Sync", "Resumed, because spec.suspend is no longer true")
		}
		return
	case Over:
		return
	case Paused:
		recorder.Eventf(o, nil, corev1.EventTypeNormal, condition.Reason, "Sync", "Suspended, because %s", condition.Message)
	case Time, Watch, Here, Elsewhere:
		recorder.Eventf(o, nil, corev1.EventTypeWarning, condition.Reason, "Sync", "%s", NoteOf(condition.Message))
	}
	log.FromContext(ctx).Info("Reason of Ready changed", "reason", condition.Reason, "message", condition.Message)
}

// NoteOf returns a message as the note of an event, which ends earlier where it would be too long.
func NoteOf(message string) string {
	if len(message) <= MaxNoteBytes {
		return message
	}
	const more = "..."
	return strings.ToValidUTF8(message[:MaxNoteBytes-len(more)], "") + more
}
