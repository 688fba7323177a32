package connection

import (
	"errors"
	"fmt"
	"slices"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

func credentialsNotFound(format string, args ...any) error {
	return status.NewFault(status.Watch, v1alpha1.ReasonCredentialsNotFound, format, args...)
}

func credentialsInvalid(format string, args ...any) error {
	return status.NewFault(status.Here, v1alpha1.ReasonCredentialsInvalid, format, args...)
}

// invalidSpec says that no client can be made of the spec, although the schema let it pass.
func invalidSpec(err error) error {
	return status.NewFault(status.Here, v1alpha1.ReasonInvalidSpec, "The spec cannot be used: %s.", err)
}

func isCredentialsNotFound(err error) bool {
	f, ok := errors.AsType[*status.Fault](err)
	return ok && f.Reason == v1alpha1.ReasonCredentialsNotFound
}

// errValuesMissing says that the URL seems to lead to another Grafana now.
var errValuesMissing = status.NewFault(status.Elsewhere, v1alpha1.ReasonValuesMissing,
	"spec.url was changed, and none of the secure values that are recorded on this connection is at the new address: it looks like "+
		"another Grafana. Nothing is written or deleted. Set spec.url back; for another Grafana make another connection, and move the "+
		"secure values there by their spec.connectionRef.")

// errLabelsNotKept says that a value cannot be told from those of others here.
var errLabelsNotKept = status.NewFault(status.Elsewhere, v1alpha1.ReasonLabelsNotKept,
	"Grafana does not keep the labels of a secure value, by which the operator knows what is whose. What was written was taken out "+
		"again, and nothing more is written. Use a Grafana that keeps labels; an edit of spec has it tried again.")

// inUse is the verdict on a connection that is being deleted and has to wait for its users.
var inUse = status.Verdict{
	Class: status.Watch, Reason: v1alpha1.ReasonInUse,
	Message: "It is being deleted, and GrafanaSecureValues name it or hold secure values through it. It goes when they are deleted, or " +
		"moved to another connection by spec.connectionRef.",
}

// notServed is the verdict on a connection of a kind that this installation does not serve.
func notServed(served Served, kind v1alpha1.ConnectionKind) status.Verdict {
	return status.Verdict{
		Class: status.Elsewhere, Reason: v1alpha1.ReasonConnectionNotAllowed,
		Message: served.WhyNot(kind) + " No call is made through this connection.",
	}
}

// classify is the table of what can be wrong with a connection. An error it does not know is one that time may heal.
func classify(id ID, err error) status.Verdict {
	if f, ok := errors.AsType[*status.Fault](err); ok {
		return f.Verdict
	}
	code := ""
	if e, ok := errors.AsType[*grafana.Error](err); ok && e.StatusCode != 0 {
		code = fmt.Sprintf(" (HTTP %d)", e.StatusCode)
	}
	verdict := func(class status.Class, reason, message string) status.Verdict {
		return status.Verdict{Class: class, Reason: reason, Message: message}
	}
	switch {
	case err == nil:
		return verdict(status.None, v1alpha1.ReasonConnected, "Grafana answers and the token may read secure values.")
	case errors.Is(err, grafana.ErrUnauthorized):
		return verdict(status.Elsewhere, v1alpha1.ReasonUnauthorized,
			"Grafana refused the token"+code+": it is wrong, expired, revoked, or of another Grafana. "+
				"Put a valid service account token into the Secret that spec.credentials.tokenSecretRef names; "+
				"it is used as soon as it changes.")
	case errors.Is(err, grafana.ErrNamespaceRejected):
		return verdict(status.Elsewhere, v1alpha1.ReasonNamespaceRejected,
			"Grafana refused spec.namespace"+code+": the token belongs to another organization or stack. "+
				"Use default for organization 1, org-<id> for another one, stacks-<id> for a Grafana Cloud stack. "+
				"The namespace of a connection cannot change: make a new connection.")
	case errors.Is(err, grafana.ErrForbidden):
		return verdict(status.Elsewhere, v1alpha1.ReasonForbidden,
			"The token lacks the action secret.securevalues:read on secret.securevalues:*"+code+". Grant its service account "+
				"secret.securevalues:create, :read, :write and :delete in Grafana.")
	case errors.Is(err, grafana.ErrAPINotServed):
		return verdict(status.Elsewhere, v1alpha1.ReasonAPINotServed,
			"Grafana does not serve the Secrets Management API at this address in the version of spec.apiVersion"+code+". "+
				"Grafana Cloud or Grafana Enterprise with this API is needed; check spec.url, its sub-path and spec.apiVersion.")
	case errors.Is(err, grafana.ErrRedirect):
		return verdict(status.Elsewhere, v1alpha1.ReasonRedirectRefused,
			"Grafana answered with a redirect"+code+", which is never followed. Set spec.url to the address that Grafana itself "+
				"answers at (https instead of http, or past a login page).")
	case errors.Is(err, grafana.ErrTLS):
		return verdict(status.Elsewhere, v1alpha1.ReasonTLSError,
			"TLS failed: the certificate of Grafana could not be verified, or there is no TLS at this port. Name the CA in "+
				"spec.tls.caSecretRef, or the name on the certificate in spec.tls.serverName.")
	case errors.Is(err, grafana.ErrRateLimited):
		return verdict(status.Time, v1alpha1.ReasonRateLimited,
			"Grafana asks for fewer requests"+code+". It is asked again by itself.")
	case errors.Is(err, grafana.ErrInvalidResponse), errors.Is(err, grafana.ErrInvalid),
		errors.Is(err, grafana.ErrNotFound), errors.Is(err, grafana.ErrConflict), errors.Is(err, grafana.ErrAlreadyExists):
		return verdict(status.Time, v1alpha1.ReasonInvalidResponse,
			"The answer"+code+" is not one of Grafana's API. Check that spec.url leads to Grafana and not to a login page or a "+
				"proxy. It is asked again by itself.")
	default:
		return verdict(status.Time, v1alpha1.ReasonUnreachable,
			"Grafana could not be reached, or answered with an error"+code+". Check spec.url and that "+id.Name+
				" may be reached from the operator. It is asked again by itself.")
	}
}

// isAboutConnection reports whether an object's call failed in a way that speaks of the connection and not of the object.
func isAboutConnection(err error) bool {
	return isAny(err, grafana.ErrNamespaceRejected, grafana.ErrAPINotServed, grafana.ErrRedirect, grafana.ErrTLS, grafana.ErrInvalidResponse)
}

// isOutage reports whether an object's call failed as all calls do while Grafana is down.
func isOutage(err error) bool {
	return isAny(err, grafana.ErrUnreachable, grafana.ErrUnavailable, grafana.ErrRateLimited)
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
