package v1alpha1

// GroupName is the name of the API group, and the prefix of every finalizer, annotation and label of this project.
const GroupName = "grafana.securevalues.io"

const (
	// Finalizer keeps a GrafanaSecureValue until it owns nothing in Grafana, and a connection until no object needs it.
	Finalizer = GroupName + "/finalizer"

	// AnnotationPendingTargets on a GrafanaSecureValue lists the targets that the operator is about to write, so that a crash between a
	// write and the status that records it leaves no orphan. It belongs to the operator and must not be edited.
	AnnotationPendingTargets = GroupName + "/pending-targets"

	// AnnotationSyncNow on a GrafanaSecureValue requests one more write for each new content, even if nothing changed.
	// status.lastSyncNow has the content that was last answered.
	AnnotationSyncNow = GroupName + "/sync-now"

	// LabelSet on a GrafanaSecureValue has the name of the GrafanaSecureValueSet that made it.
	LabelSet = GroupName + "/set"
)
