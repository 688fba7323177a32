package v1alpha1

// Condition types. They follow kstatus, so kubectl wait, Flux and other tools read the objects as they are.
const (
	// ConditionReady is True while Grafana has what the spec and the Secret say; on a connection, while the last check of Grafana
	// succeeded. It is present after the first reconcile. Its reason is a constant of this file, and its message says what to do.
	ConditionReady = "Ready"

	// ConditionReconciling is True while the operator works, retries, or waits for something that it watches. It is absent otherwise.
	ConditionReconciling = "Reconciling"

	// ConditionStalled is True while a person has to act. It is absent otherwise, and never present together with Reconciling.
	ConditionStalled = "Stalled"

	// ConditionFresh, on a GrafanaSecureValue with spec.freshness, is True while its value is fresh. Ready does not depend on it.
	ConditionFresh = "Fresh"
)

// Reasons of Ready on a GrafanaSecureValue. What to do about each: docs/reference/reasons.md.
const (
	// ReasonSynced, with Ready=True: Grafana has the value of the Secret, with the description and the decrypters of the spec. The
	// message names what syncs and still may not work.
	ReasonSynced = "Synced"

	// ReasonSuspended: spec.suspend is true. Nothing is read or written until it is false again, except to delete the object. Ready
	// keeps the status that it had.
	ReasonSuspended = "Suspended"

	// ReasonGrafanaUnavailable: there is something to write or to delete, and Grafana did not answer, failed or asked to wait. Grafana
	// may hold an outdated value. The operator retries automatically.
	ReasonGrafanaUnavailable = "GrafanaUnavailable"

	// ReasonKubernetesRefused, on a connection too: the API server, an admission policy, a quota or a missing right of the operator refuses
	// a read or write of the operator. The message says which. The operator retries automatically.
	ReasonKubernetesRefused = "KubernetesRefused"

	// ReasonSourceFlapping: the Secret changed so often that the operator writes at most one changed value a minute, always the newest.
	// Grafana may hold an outdated value until then.
	ReasonSourceFlapping = "SourceFlapping"

	// ReasonSecretNotFound: a Secret that valueFrom names does not exist in the object's namespace. Grafana keeps the last good value.
	ReasonSecretNotFound = "SecretNotFound"

	// ReasonSecretKeyNotFound: the Secret exists and has no key that secretKeyRef or the template names. Grafana keeps the last good value.
	ReasonSecretKeyNotFound = "SecretKeyNotFound"

	// ReasonValueEmpty: the key exists and is empty, or the template and the transforms leave nothing, which Grafana does not accept.
	// Grafana keeps the last good value.
	ReasonValueEmpty = "ValueEmpty"

	// ReasonConnectionNotFound: the connection that connectionRef names does not exist, or this installation does not serve its kind.
	// The message says if the other kind has a connection of that name.
	ReasonConnectionNotFound = "ConnectionNotFound"

	// ReasonConnectionNotReady: there is something to write or to delete, and a person must fix the connection, or it is being deleted. The
	// connection's own message says why.
	ReasonConnectionNotReady = "ConnectionNotReady"

	// ReasonValueTooLarge: the value has more than 24,576 bytes, after template and transforms. Nothing was sent, and Grafana keeps the
	// last good value.
	ReasonValueTooLarge = "ValueTooLarge"

	// ReasonValueNotUTF8: the value is not UTF-8 text, after template and transforms, and Grafana accepts nothing else. The transform
	// Base64Encode makes text of it. Nothing was sent, and Grafana keeps the last good value.
	ReasonValueNotUTF8 = "ValueNotUTF8"

	// ReasonTemplateInvalid: the template cannot be parsed, or fails with what the Secrets hold. The message names the line, and never a
	// value. Nothing was sent, and Grafana keeps the last good value. On a GrafanaSecureValueSet it is nameTemplate, and the message may
	// name the key of a Secret.
	ReasonTemplateInvalid = "TemplateInvalid"

	// ReasonTransformFailed: the value cannot be transformed as spec.transforms says, for example because it is not Base64. The message
	// names the transform. Nothing was sent, and Grafana keeps the last good value.
	ReasonTransformFailed = "TransformFailed"

	// ReasonSourceNotAllowed: a Secret of valueFrom is the token of a ServiceAccount, a release of Helm or the operator's fingerprint key, which never
	// leave the cluster. Nothing was sent, and Grafana keeps the last good value.
	ReasonSourceNotAllowed = "SourceNotAllowed"

	// ReasonNameNotAllowed: the ClusterGrafanaConnection requires that the name in Grafana begins with the object's namespace and a dot
	// (requireNamePrefix). Nothing was written. What the object owns in Grafana stays, and can still be deleted.
	ReasonNameNotAllowed = "NameNotAllowed"

	// ReasonDecrypterNotAllowed: the ClusterGrafanaConnection does not allow a decrypter that the object names (allowedDecrypters).
	// Nothing was written. What the object owns in Grafana stays, and can still be deleted.
	ReasonDecrypterNotAllowed = "DecrypterNotAllowed"

	// ReasonInvalidSpec, on a connection too: the spec cannot be used although the schema accepted it, for example because the object
	// is older than the schema. The message names the field.
	ReasonInvalidSpec = "InvalidSpec"

	// ReasonRejectedByGrafana: Grafana refused the secure value as invalid. The message names the fields. The request is not sent again
	// before an edit of the object or its Secret.
	ReasonRejectedByGrafana = "RejectedByGrafana"

	// ReasonNameConflict: the secure value of that name in Grafana belongs to another GrafanaSecureValue, of this cluster or of another
	// one. Nothing was written. The message names the other object if it is in the same namespace.
	ReasonNameConflict = "NameConflict"

	// ReasonAlreadyExists: Grafana has a secure value of that name, and adoptionPolicy does not allow this object to take it over. No
	// GrafanaSecureValue owns it, or the one of this namespace and name in another cluster does. Or Grafana itself or another tool manages
	// it, which adoptionPolicy cannot change. Nothing was written.
	ReasonAlreadyExists = "AlreadyExists"

	// ReasonAdoptionNotAllowed: Grafana has a secure value of that name which adoptionPolicy would take over, and the ClusterGrafanaConnection
	// forbids adoption. Nothing was written.
	ReasonAdoptionNotAllowed = "AdoptionNotAllowed"

	// ReasonLabelsNotKept: Grafana accepted the secure value without its owner labels, by which the operator knows its owner. A value that
	// was created was deleted again.
	ReasonLabelsNotKept = "LabelsNotKept"

	// ReasonForbidden: the token lacks an action, which the message names. On a connection that is reading; on a GrafanaSecureValue it is
	// any of the four.
	ReasonForbidden = "Forbidden"

	// ReasonConnectionNotAllowed: the ClusterGrafanaConnection does not allow the object's namespace (allowedNamespaces). What the
	// namespace owns there stays, and can still be deleted.
	//
	// On a connection: this installation does not call what it names, and nothing was sent. Its kind is not served
	// (--namespaced-connections=false); or the namespace has older connections, as many as --max-connections-per-namespace allows; or
	// --allowed-hosts does not list the host of url; or url resolves to an address that is never called, for example a link-local one; or url
	// is plain http and the proxy of the operator's environment would see the token.
	ReasonConnectionNotAllowed = "ConnectionNotAllowed"

	// ReasonDrifted: another writer changed or deleted the secure value in Grafana, and driftPolicy: Report, or three corrections within an
	// hour, keep the operator from writing it again.
	ReasonDrifted = "Drifted"

	// ReasonReleased: the object is being deleted, and the operator's part of that is done. It owns nothing in Grafana any more, and exists
	// until the finalizers of others are removed.
	ReasonReleased = "Released"

	// ReasonDeletionBlocked: a secure value that the object no longer wants could not be deleted from Grafana yet. The message says why,
	// and for an object that is being deleted since when. deletionPolicy: Retain releases the object and leaves the value.
	ReasonDeletionBlocked = "DeletionBlocked"
)

// Reasons of Ready on a connection, beside ReasonForbidden, ReasonInvalidSpec, ReasonConnectionNotAllowed and ReasonKubernetesRefused.
const (
	// ReasonConnected, with Ready=True: Grafana listed its secure values, so address, token and namespace are right. It proves reading
	// only; a missing right to write shows on the GrafanaSecureValue as Forbidden.
	ReasonConnected = "Connected"

	// ReasonCredentialsNotFound: a Secret that the connection names, or its key, does not exist. It is looked for in the connection's
	// namespace, for a ClusterGrafanaConnection in the operator's.
	ReasonCredentialsNotFound = "CredentialsNotFound"

	// ReasonCredentialsInvalid: the token is empty, contains characters that are not allowed in a token, has more than 8 KiB, or is a Cloud
	// access policy token (glc_...); or the CA, or the client certificate with its key, has more than 64 KiB. Or the Secret is one that
	// holds no credentials of Grafana: the operator's own, and in the operator's namespace the token of a ServiceAccount or a release of
	// Helm. Nothing was sent.
	ReasonCredentialsInvalid = "CredentialsInvalid"

	// ReasonGrafanaNotFound: the Grafana of grafana-operator that spec.grafanaRef names does not exist in the namespace of the connection, or
	// its kind is not installed. Both are noticed once they are there.
	ReasonGrafanaNotFound = "GrafanaNotFound"

	// ReasonGrafanaNotSupported: the Grafana that spec.grafanaRef names cannot be used: it is one that grafana-operator runs itself, it has no
	// credentials, or its certificates are in another namespace.
	ReasonGrafanaNotSupported = "GrafanaNotSupported"

	// ReasonUnauthorized: Grafana refused the token (401): it is wrong, expired, revoked or of another Grafana. Objects make no call with
	// it any more.
	ReasonUnauthorized = "Unauthorized"

	// ReasonNamespaceRejected: Grafana refused spec.namespace for this token, which belongs to another organization or stack.
	ReasonNamespaceRejected = "NamespaceRejected"

	// ReasonAPINotServed: Grafana does not serve the Secrets Management API at this address in this version. It needs Grafana Cloud or
	// Grafana Enterprise.
	ReasonAPINotServed = "APINotServed"

	// ReasonValuesMissing: spec.url, or the URL of the Grafana that spec.grafanaRef names, was changed, and none of the secure values that are
	// recorded on this connection is at the new address: it looks like another Grafana. Nothing is written or deleted.
	ReasonValuesMissing = "ValuesMissing"

	// ReasonTLSError: the certificate of Grafana could not be verified, or Grafana refused the client certificate. Or nothing was sent,
	// because a Secret of tls holds no certificate, or because tls.insecureSkipVerify is true and the operator runs without
	// --allow-insecure-tls.
	ReasonTLSError = "TLSError"

	// ReasonRedirectRefused: Grafana answered with a redirect. Redirects are never followed, so that the token goes nowhere else.
	ReasonRedirectRefused = "RedirectRefused"

	// ReasonUnreachable: Grafana did not answer or failed, or what is in front of it answered with an error, for example a 401 that is not
	// Grafana's. The operator retries automatically.
	ReasonUnreachable = "Unreachable"

	// ReasonInvalidResponse: the answer is not one of Grafana's API, for example a login page or the page of a proxy, or it is
	// compressed. The operator retries automatically.
	ReasonInvalidResponse = "InvalidResponse"

	// ReasonRateLimited: Grafana asked for fewer requests (429). The operator waits as long as Grafana asked, at most 15 minutes.
	ReasonRateLimited = "RateLimited"

	// ReasonInUse: the connection is being deleted, and GrafanaSecureValues name it or own secure values through it. It serves those that
	// own a value, and takes no new ones.
	ReasonInUse = "InUse"
)

// Reasons of Ready on a GrafanaSecureValueSet, beside ReasonSynced, ReasonSuspended, ReasonTemplateInvalid, ReasonInvalidSpec and
// ReasonKubernetesRefused.
const (
	// ReasonProgressing: GrafanaSecureValues of the set are new, changed or being deleted, and have not reported yet.
	ReasonProgressing = "Progressing"

	// ReasonNothingSelected: no Secret, no key or no connection is selected. The message says which. Nothing was pruned on account of a
	// selector that matches nothing or of a missing Secret.
	ReasonNothingSelected = "NothingSelected"

	// ReasonSecureValuesNotReady: GrafanaSecureValues of the set are not Ready. status.failures names them. Stalled is True where each of
	// them needs a person.
	ReasonSecureValuesNotReady = "SecureValuesNotReady"

	// ReasonNameCollision: nameTemplate makes one name of two keys in one Grafana. The message names both. Nothing was created or changed.
	ReasonNameCollision = "NameCollision"

	// ReasonChildConflict: a GrafanaSecureValue exists that has the name of one of the set and belongs to another set or to nobody. It was
	// left alone. The others of the set are served.
	ReasonChildConflict = "ChildConflict"

	// ReasonTooManySecureValues: the set selects more than 1,000 keys, each connection counted. Nothing was created, changed or pruned.
	ReasonTooManySecureValues = "TooManySecureValues"
)
