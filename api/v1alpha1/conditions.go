package v1alpha1

// Condition types. They follow kstatus, so that kubectl wait, Flux and others read the objects rightly as they are.
const (
	// ConditionReady is True while Grafana holds what the spec and the Secret say; on a connection, while the last look at
	// Grafana succeeded. It is always present after the operator's first look. Its reason is one of the constants of this
	// file, and its message says what to do next.
	ConditionReady = "Ready"

	// ConditionReconciling is True while work goes on, or will go on without anybody's help here: when time has passed, or when
	// what is missing appears. It is absent otherwise.
	ConditionReconciling = "Reconciling"

	// ConditionStalled is True while nothing more will happen until a person acts. It is absent otherwise, and never present
	// together with Reconciling.
	ConditionStalled = "Stalled"
)

// Reasons of Ready on a GrafanaSecureValue. Each belongs to a class, which says who heals it: nobody needs to, time, an event
// that the operator watches for, a person here (the object or its Secret), or a person elsewhere.
const (
	// ReasonSynced, with Ready=True: Grafana holds the value of the Secret, with the description and the decrypters of the
	// spec. Nobody needs to do anything, unless the message names something that syncs and yet will not work.
	ReasonSynced = "Synced"

	// ReasonSuspended, with the status that Ready had before: spec.suspend is true, and nothing is read or written until it is
	// false again, deletion apart. A person here ends it.
	ReasonSuspended = "Suspended"

	// ReasonGrafanaUnavailable: there is something to write or to delete, and Grafana did not answer, answered with an error of
	// its own, or asked to wait. Time heals it: the operator tries again by itself. If it lasts, look at the connection.
	ReasonGrafanaUnavailable = "GrafanaUnavailable"

	// ReasonSecretNotFound: the Secret that valueFrom names is not in the object's namespace. Its appearance heals it: create the
	// Secret, or correct the name. Grafana keeps the last good value.
	ReasonSecretNotFound = "SecretNotFound"

	// ReasonSecretKeyNotFound: the Secret is there and has no such key. A change of the Secret heals it: add the key, or correct
	// secretKeyRef.key. Grafana keeps the last good value.
	ReasonSecretKeyNotFound = "SecretKeyNotFound"

	// ReasonValueEmpty: the key is there and holds nothing, which Grafana does not take. A change of the Secret heals it: put the
	// value in. Grafana keeps the last good value.
	ReasonValueEmpty = "ValueEmpty"

	// ReasonConnectionNotFound: the connection that connectionRef names does not exist. Its creation heals it: create it, or
	// correct connectionRef; the message says if the other kind has a connection of that name.
	ReasonConnectionNotFound = "ConnectionNotFound"

	// ReasonConnectionNotReady: there is something to write or to delete, and the connection is not Ready, or is being deleted.
	// The connection's becoming Ready heals it: read the connection's own Ready message.
	ReasonConnectionNotReady = "ConnectionNotReady"

	// ReasonValueTooLarge: the value has more than 24,576 bytes. A person here heals it: store a shorter value in the Secret.
	// Nothing was sent, and Grafana keeps the last good value.
	ReasonValueTooLarge = "ValueTooLarge"

	// ReasonValueNotUTF8: the value is not valid UTF-8, and a secure value is text. A person here heals it: store the value in
	// an encoding of text, such as base64. Nothing was sent, and Grafana keeps the last good value.
	ReasonValueNotUTF8 = "ValueNotUTF8"

	// ReasonNameNotAllowed: the ClusterGrafanaConnection requires that the name in Grafana begins with the object's namespace and
	// a dot (requireNamePrefix). A person here heals it: set spec.name so, or use another connection. Nothing was written; what
	// the object holds in Grafana stays, and may still be deleted.
	ReasonNameNotAllowed = "NameNotAllowed"

	// ReasonDecrypterNotAllowed: the ClusterGrafanaConnection does not allow a decrypter that the object names
	// (allowedDecrypters). A person here heals it: remove the decrypter that the message names, or use another connection.
	// Nothing was written; what the object holds in Grafana stays, and may still be deleted.
	ReasonDecrypterNotAllowed = "DecrypterNotAllowed"

	// ReasonInvalidSpec, on a connection too: the spec cannot be used although the schema let it pass, as when the object is
	// older than the schema. A person here heals it: correct the field that the message names.
	ReasonInvalidSpec = "InvalidSpec"

	// ReasonRejectedByGrafana: Grafana refused the secure value as invalid. A person here heals it: correct the fields that the
	// message names. The same request is not sent again before an edit of the object or its Secret.
	ReasonRejectedByGrafana = "RejectedByGrafana"

	// ReasonNameConflict: the secure value of that name in Grafana belongs to another GrafanaSecureValue, of this cluster or
	// another. A person elsewhere heals it: choose another spec.name, or have the other let go. Nothing was written.
	ReasonNameConflict = "NameConflict"

	// ReasonAlreadyExists: Grafana has a secure value of that name which no living GrafanaSecureValue holds, or which Grafana's
	// own resources or another tool manage. A person elsewhere heals it: choose another spec.name, set adoptionPolicy: Adopt if
	// it is to become this object's own, or delete the secure value in Grafana. Nothing was written.
	ReasonAlreadyExists = "AlreadyExists"

	// ReasonForbidden: the token may not do what was asked, and the message names the action that is missing. On a connection
	// that is reading; on a GrafanaSecureValue it is creating, writing or deleting. A person elsewhere heals it: give the
	// service account the action on secret.securevalues:* in Grafana.
	ReasonForbidden = "Forbidden"

	// ReasonConnectionNotAllowed: the ClusterGrafanaConnection does not allow the object's namespace. A person elsewhere heals
	// it: whoever owns the connection extends allowedNamespaces, or the namespace gets a label that it selects. What the
	// namespace holds there already may still be deleted. On a connection: this installation does not call what it names, and
	// nothing was sent. Either it serves ClusterGrafanaConnections alone (--namespaced-connections=false); or the host of url is
	// not in --allowed-hosts; or url leads to an address where no Grafana can be, as one of link-local or of a metadata service;
	// or url is one of plain http, and the proxy of the operator's environment would see the token.
	ReasonConnectionNotAllowed = "ConnectionNotAllowed"

	// ReasonDrifted: somebody else has changed, overwritten or deleted the secure value in Grafana, and driftPolicy, or that it
	// happens again and again, keeps the operator from writing it. A person ends it: put the value back in Grafana, edit the
	// object or its Secret, or give the annotation grafana.securevalues.io/sync-now a new token.
	ReasonDrifted = "Drifted"

	// ReasonDeletionBlocked: the object is being deleted, and its secure value could not be deleted from Grafana yet; the
	// message says since when and why. It heals with that cause; deletionPolicy: Retain lets the object go and leaves the secure
	// value.
	ReasonDeletionBlocked = "DeletionBlocked"
)

// Reasons of Ready on a connection, beside ReasonForbidden and ReasonInvalidSpec. Where a person has to act elsewhere, the
// connection is looked at again with each resync, and at once when it or its Secrets change.
const (
	// ReasonConnected, with Ready=True: Grafana answered with its secure values, so address, token and namespace are right. It
	// proves reading only; a missing right to write shows on the GrafanaSecureValue as Forbidden.
	ReasonConnected = "Connected"

	// ReasonCredentialsNotFound: a Secret that the connection names, or its key, is missing. Its appearance heals it: create
	// the Secret, in the connection's namespace or, for a ClusterGrafanaConnection, in the operator's.
	ReasonCredentialsNotFound = "CredentialsNotFound"

	// ReasonCredentialsInvalid: what the Secrets hold cannot be used: the token is empty, cannot be sent, or is a Cloud access
	// policy token (glc_...); or, in the operator's namespace, the Secret is one that holds no credentials of Grafana's: the
	// operator's own, the token of a ServiceAccount, or a release of Helm. A person here heals it: store a service account
	// token of the stack, or name the right Secret. Nothing was sent.
	ReasonCredentialsInvalid = "CredentialsInvalid"

	// ReasonUnauthorized: Grafana refuses the token (401): it is wrong, expired, revoked or of another Grafana. A person
	// elsewhere heals it: store a valid service account token in the Secret, which is used at once.
	ReasonUnauthorized = "Unauthorized"

	// ReasonNamespaceRejected: Grafana refuses the namespace for this token (403), which belongs to another organization or
	// stack. A person elsewhere heals it: use a token of that organization or stack, or make a connection with the right namespace.
	ReasonNamespaceRejected = "NamespaceRejected"

	// ReasonAPINotServed: Grafana answers and does not serve the Secrets Management API in this version. A person elsewhere
	// heals it: the API needs Grafana Cloud or Enterprise; otherwise correct url or apiVersion.
	ReasonAPINotServed = "APINotServed"

	// ReasonLabelsNotKept: Grafana took a secure value and did not keep its labels, by which the operator knows what is whose.
	// The value was taken out again, and nothing is written. A person elsewhere heals it: use a Grafana that keeps the labels of
	// secure values; an edit of the connection's spec has it tried again.
	ReasonLabelsNotKept = "LabelsNotKept"

	// ReasonValuesMissing: spec.url was changed, and none of the secure values that are recorded on this connection is at the
	// new address, so it looks like another Grafana. Nothing is written or deleted. A person elsewhere heals it: set url back; for
	// another Grafana make another connection, and move the secure values there by their connectionRef.
	ReasonValuesMissing = "ValuesMissing"

	// ReasonTLSError: Grafana's certificate is not trusted, has expired or is for another host, or Grafana does not take ours. A
	// person elsewhere heals it: set tls.caSecretRef, tls.serverName or tls.clientCertSecretRef, or repair the certificate. Or
	// nothing was sent, because what a Secret of tls holds is no certificate, or because tls.insecureSkipVerify is true and the
	// operator runs without --allow-insecure-tls.
	ReasonTLSError = "TLSError"

	// ReasonRedirectRefused: Grafana answered with a redirect, which is not followed so that the token goes nowhere else. A
	// person elsewhere heals it: set url to the address that Grafana has, with https and the sub-path.
	ReasonRedirectRefused = "RedirectRefused"

	// ReasonUnreachable: no answer came from the address (no such host, refused, no route, too late), or Grafana failed with an
	// error of its own (5xx). Time heals it where Grafana or the network is down; otherwise correct url.
	ReasonUnreachable = "Unreachable"

	// ReasonInvalidResponse: something answered that is not Grafana's API, such as a login page or the page of a proxy. Time
	// heals it where Grafana is starting; otherwise correct url or the proxy.
	ReasonInvalidResponse = "InvalidResponse"

	// ReasonRateLimited: Grafana asked to wait (429). Time heals it: the operator waits as long as it was told.
	ReasonRateLimited = "RateLimited"

	// ReasonInUse: the connection is being deleted, and GrafanaSecureValues name it or hold secure values through it. It heals
	// when they are deleted or moved to another connection. Meanwhile the connection serves those that hold something
	// there, and takes no new ones.
	ReasonInUse = "InUse"
)
