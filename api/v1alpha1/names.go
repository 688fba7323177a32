package v1alpha1

// GroupName is the name of the API group, and the prefix of every finalizer, annotation and label of this project.
const GroupName = "grafana.securevalues.io"

const (
	// Finalizer keeps an object until nothing of it is left in Grafana.
	Finalizer = GroupName + "/finalizer"

	// AnnotationIntent on a GrafanaSecureValue is the place that the operator is about to write to, so that a crash between
	// the write and the status that tells of it leaves a trace. It also names the object, if any, from which the value there
	// was inherited. It is the operator's own and not to be edited.
	AnnotationIntent = GroupName + "/intent"

	// AnnotationSyncNow on a GrafanaSecureValue has the value written again, once for each new content, even if nothing
	// changed. status.lastSyncNow tells which content was answered.
	AnnotationSyncNow = GroupName + "/sync-now"
)
