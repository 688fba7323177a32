package connection

import (
	"context"
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

// noCredentials says that a Secret is none of those that a connection may name.
func noCredentials(name, what string) error {
	return credentialsInvalid("Secret %q is %s and holds no credentials of Grafana's. Name another one.", name, what)
}

// unusable says why no client can be made of the spec and what the Secrets hold.
func unusable(spec *v1alpha1.ConnectionSpec, err error) error {
	switch {
	case errors.Is(err, grafana.ErrCA):
		return status.NewFault(status.Here, v1alpha1.ReasonTLSError, "Key %q of Secret %q, which spec.tls.caSecretRef names, holds no "+
			"certificate in PEM. Put one there.", spec.TLS.CASecretRef.Key, spec.TLS.CASecretRef.Name)
	case errors.Is(err, grafana.ErrClientCert):
		return status.NewFault(status.Here, v1alpha1.ReasonTLSError, "tls.crt and tls.key of Secret %q, which spec.tls.clientCertSecretRef "+
			"names, are not a certificate and its key in PEM. Put them there.", spec.TLS.ClientCertSecretRef.Name)
	case errors.Is(err, grafana.ErrAddress), errors.Is(err, grafana.ErrClearProxy):
		return err
	default:
		return invalidSpec(err)
	}
}

// errInsecure says that the certificate of Grafana must be checked here.
var errInsecure = status.NewFault(status.Here, v1alpha1.ReasonTLSError,
	"spec.tls.insecureSkipVerify is true, and this installation does not allow that: the operator runs without --allow-insecure-tls. No "+
		"call is made. Set it to false, and name the CA of Grafana in spec.tls.caSecretRef.")

// hostNotAllowed says that the installation does not let connections lead there.
func hostNotAllowed(address string) error {
	return status.NewFault(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "spec.url names %s, which --allowed-hosts of the operator "+
		"does not list. No call is made. Use a host that is listed, or have this one added to the flag.", address)
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
func inUse(id ID) status.Verdict {
	where := "-n " + id.Namespace
	if id.Namespace == "" {
		where = "-A"
	}
	return status.Verdict{
		Class: status.Watch, Reason: v1alpha1.ReasonInUse,
		Message: "It is being deleted, and GrafanaSecureValues name it or hold secure values through it. It goes when they are deleted, or " +
			"moved to another connection by spec.connectionRef. To see who names and who holds what: kubectl get gsv " + where +
			" -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,KIND:.spec.connectionRef.kind," +
			"NAMES:.spec.connectionRef.name,HOLDS:.status.targets[*].connection.name'",
	}
}

// notServed is the verdict on a connection of a kind that this installation does not serve.
func notServed(served Served, kind v1alpha1.ConnectionKind) status.Verdict {
	return status.Verdict{
		Class: status.Elsewhere, Reason: v1alpha1.ReasonConnectionNotAllowed,
		Message: served.WhyNot(kind) + " No call is made through this connection.",
	}
}

// classify is the table of what can be wrong with a connection to that server. An error it does not know is one that time may heal.
func classify(server string, err error) status.Verdict {
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
				"spec.tls.caSecretRef, or the name on the certificate in spec.tls.serverName. If Grafana asks for a certificate of ours, name "+
				"it in spec.tls.clientCertSecretRef.")
	case errors.Is(err, grafana.ErrAddress):
		return verdict(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed,
			"spec.url leads to an address that is never called: this host itself, link-local, a metadata service, multicast or one that "+
				"is reserved. Nothing was sent. Set spec.url to the address of Grafana, or correct what its name resolves to.")
	case errors.Is(err, grafana.ErrClearProxy):
		return verdict(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed,
			"spec.url is one of plain http, and the proxy in the operator's environment (HTTP_PROXY) would see the token. Nothing was "+
				"sent. Use https, or have the host put into NO_PROXY.")
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
			unreachable(server, err, code)+" It is asked again by itself.")
	}
}

// unreachable says what is known of a server that gave no answer of use, and what to look at.
func unreachable(server string, err error, code string) string {
	why, check := "there was no answer, or no whole one"+code, "Check spec.url and the network."
	switch {
	case errors.Is(err, grafana.ErrUnavailable):
		return "Grafana could not be asked at " + server + ": the answer is an error" + code + ". Look at Grafana, or what is in front of it."
	case errors.Is(err, grafana.ErrUnresolved):
		why, check = "its name could not be resolved", "Check the host in spec.url, and DNS where the operator runs."
	case errors.Is(err, grafana.ErrConnectionRefused):
		why, check = "the connection was refused", "Check host and port in spec.url, and whether Grafana runs."
	case errors.Is(err, grafana.ErrConnectTimeout):
		why = fmt.Sprintf("there was no connection within %s", grafana.ConnectTimeout)
		check = "Check spec.url, and whether a firewall or a NetworkPolicy is between it and the operator."
	case errors.Is(err, grafana.ErrProxyUnreachable):
		why, check = "there was no connection to the proxy in the operator's environment", "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
	case errors.Is(err, context.DeadlineExceeded):
		why, check = "there was no answer within spec.requestTimeout"+code, "Look at Grafana, check the network, or give it more time."
	}
	return "Grafana could not be reached at " + server + ": " + why + ". " + check
}

// isAboutConnection reports whether an object's call failed in a way that speaks of the connection and not of the object.
func isAboutConnection(err error) bool {
	return isAny(err, grafana.ErrNamespaceRejected, grafana.ErrAPINotServed, grafana.ErrRedirect, grafana.ErrTLS, grafana.ErrInvalidResponse,
		grafana.ErrAddress)
}

// isOutage reports whether an object's call failed as all calls do while Grafana is down.
func isOutage(err error) bool {
	return isAny(err, grafana.ErrUnreachable, grafana.ErrUnavailable, grafana.ErrRateLimited)
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
