package v1alpha1

// Conditions.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
)

// Reasons of Ready on a GrafanaSecureValue.
const (
	ReasonSynced               = "Synced"
	ReasonGrafanaUnavailable   = "GrafanaUnavailable"
	ReasonSecretNotFound       = "SecretNotFound"
	ReasonSecretKeyNotFound    = "SecretKeyNotFound"
	ReasonValueEmpty           = "ValueEmpty"
	ReasonConnectionNotFound   = "ConnectionNotFound"
	ReasonConnectionNotReady   = "ConnectionNotReady"
	ReasonValueTooLarge        = "ValueTooLarge"
	ReasonValueNotUTF8         = "ValueNotUTF8"
	ReasonNameNotAllowed       = "NameNotAllowed"
	ReasonInvalidSpec          = "InvalidSpec"
	ReasonRejectedByGrafana    = "RejectedByGrafana"
	ReasonNameConflict         = "NameConflict"
	ReasonAlreadyExists        = "AlreadyExists"
	ReasonForbidden            = "Forbidden"
	ReasonConnectionNotAllowed = "ConnectionNotAllowed"
	ReasonDeletionBlocked      = "DeletionBlocked"
)

// Reasons of Ready on a connection (ReasonForbidden is shared).
const (
	ReasonConnected           = "Connected"
	ReasonCredentialsInvalid  = "CredentialsInvalid"
	ReasonUnauthorized        = "Unauthorized"
	ReasonNamespaceRejected   = "NamespaceRejected"
	ReasonAPINotServed        = "APINotServed"
	ReasonTLSError            = "TLSError"
	ReasonRedirectRefused     = "RedirectRefused"
	ReasonCredentialsNotFound = "CredentialsNotFound"
	ReasonUnreachable         = "Unreachable"
	ReasonInvalidResponse     = "InvalidResponse"
	ReasonRateLimited         = "RateLimited"
)
