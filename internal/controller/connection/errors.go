package connection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

func credentialsNotFound(format string, args ...any) error {
	return status.Errorf(status.Watch, v1alpha1.ReasonCredentialsNotFound, format, args...)
}

func credentialsInvalid(format string, args ...any) error {
	return status.Errorf(status.Here, v1alpha1.ReasonCredentialsInvalid, format, args...)
}

func invalidSpec(err error) error {
	return status.Errorf(status.Here, v1alpha1.ReasonInvalidSpec, "The spec cannot be used: %s.", err)
}

func grafanaNotFound(format string, args ...any) error {
	return status.Errorf(status.Watch, v1alpha1.ReasonGrafanaNotFound, format, args...)
}

func grafanaNotSupported(name, why string) error {
	return status.Errorf(status.Here, v1alpha1.ReasonGrafanaNotSupported, "Grafana %q, which spec.grafanaRef names, %s. Change that, or name the Grafana by spec.url and spec.credentials.", name, why)
}

func noCredentials(name, what string) error {
	return credentialsInvalid("Secret %q is %s and holds no credentials of Grafana. Name another one.", name, what)
}

// unusableSpec says why no client can be made of the spec and what the Secrets hold.
func unusableSpec(to *endpoint, err error) error {
	switch {
	case errors.Is(err, grafana.ErrCA):
		return status.Errorf(status.Here, v1alpha1.ReasonTLSError, "Key %q of Secret %q (spec.tls.caSecretRef) holds no certificate in PEM. Put one there.", to.tls.CASecretRef.Key, to.tls.CASecretRef.Name)
	case errors.Is(err, grafana.ErrClientCert):
		return status.Errorf(status.Here, v1alpha1.ReasonTLSError, "tls.crt and tls.key of Secret %q (spec.tls.clientCertSecretRef) are not a certificate and its key in PEM. Put them there.", to.tls.ClientCertSecretRef.Name)
	case errors.Is(err, grafana.ErrAddress), errors.Is(err, grafana.ErrClearProxy):
		return err
	case to.grafana != "": // err does not repeat the URL
		return status.Errorf(status.Here, v1alpha1.ReasonInvalidSpec, "spec.external.url of Grafana %q, which spec.grafanaRef names, cannot be used with spec.namespace: %s. Correct the URL of the Grafana, or create another connection with that spec.namespace.", to.grafana, err)
	default:
		return invalidSpec(err)
	}
}

var errInsecure = status.Errorf(status.Here, v1alpha1.ReasonTLSError,
	"spec.tls.insecureSkipVerify is true, and this installation does not allow it: the operator runs without --allow-insecure-tls. No call is made. Set it to false, and name the CA of Grafana in spec.tls.caSecretRef.")

func hostNotAllowed(address string) error {
	return status.Errorf(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "spec.url names %s, which --allowed-hosts of the operator does not list. No call is made. Use a host that is listed, or ask for this one to be added to the flag.", address)
}

var errValuesMissing = status.Errorf(status.Elsewhere, v1alpha1.ReasonValuesMissing,
	"spec.url was changed, and none of the secure values recorded on this connection is at the new address: it looks like another Grafana. Nothing is written or deleted. Set spec.url back. For another Grafana make another connection, and move the secure values there by their spec.connectionRef.")

// inUse is the condition of a connection that is being deleted and has to wait for its objects.
func inUse(id ownership.Connection) status.Condition {
	where := "-n " + id.Namespace
	if id.Namespace == "" {
		where = "-A"
	}
	return status.Condition{
		Class: status.Watch, Reason: v1alpha1.ReasonInUse,
		Message: "The connection is being deleted, and GrafanaSecureValues name it or own secure values through it. It goes when they are deleted, or moved to another connection by spec.connectionRef. To list them: `kubectl get gsv " + where +
			" -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,KIND:.status.desired.connection.kind,NAMES:.status.desired.connection.name,OWNS:.status.targets[*].connection.name'`.",
	}
}

// notServed is the condition of a connection of a kind that this installation does not serve.
func notServed(served Served, kind v1alpha1.ConnectionKind) status.Condition {
	return status.Condition{
		Class: status.Elsewhere, Reason: v1alpha1.ReasonConnectionNotAllowed,
		Message: served.WhyNot(kind) + " No call is made through this connection.",
	}
}

// httpCode returns the HTTP code of an error in parentheses, or "".
func httpCode(err error) string {
	if e, ok := errors.AsType[*grafana.Error](err); ok && e.StatusCode != 0 {
		return fmt.Sprintf(" (HTTP %d)", e.StatusCode)
	}
	return ""
}

// checkErrors is what can be wrong with a connection: the first row with an error says what. {code} stands for the HTTP code in parentheses,
// {server} for the address, {detail} for that of a grafana.Error.
var checkErrors = []struct {
	err     error
	class   status.Class
	reason  string
	message string
}{
	{grafana.ErrUnauthorized, status.Elsewhere, v1alpha1.ReasonUnauthorized, "Grafana refused the token{code}: it is wrong, expired, revoked, or of another Grafana. Put a valid service account token into the Secret that spec.credentials.tokenSecretRef names. It is used as soon as it changes."},
	{grafana.ErrNamespaceRejected, status.Elsewhere, v1alpha1.ReasonNamespaceRejected, "Grafana refused spec.namespace{code}: the token belongs to another organization or stack. Use default for organization 1, org-<id> for another one, stacks-<id> for a Grafana Cloud stack. The namespace of a connection cannot change: make a new connection."},
	{grafana.ErrForbidden, status.Elsewhere, v1alpha1.ReasonForbidden, "The token lacks the action secret.securevalues:read on secret.securevalues:*{code}. Grant its service account secret.securevalues:create, :read, :write and :delete in Grafana."},
	{grafana.ErrAPINotServed, status.Elsewhere, v1alpha1.ReasonAPINotServed, "Grafana does not serve the Secrets Management API at this address in the version of spec.apiVersion{code}. It needs Grafana Cloud or Grafana Enterprise. Check spec.url, its sub-path and spec.apiVersion."},
	{grafana.ErrRedirect, status.Elsewhere, v1alpha1.ReasonRedirectRefused, "Grafana answered with a redirect{code}, which is never followed. Set spec.url to the address at which Grafana itself answers, for example with https instead of http."},
	{grafana.ErrNoTLS, status.Elsewhere, v1alpha1.ReasonTLSError, "TLS failed: there is no TLS at this host and port. Check host, port and scheme of spec.url."},
	{grafana.ErrUnknownAuthority, status.Elsewhere, v1alpha1.ReasonTLSError, "TLS failed: no authority that the operator trusts signed the certificate of Grafana. Name its CA in spec.tls.caSecretRef."},
	{grafana.ErrServerName, status.Elsewhere, v1alpha1.ReasonTLSError, "TLS failed: the certificate of Grafana is for another name than the host of spec.url. Correct spec.url, or give the name on the certificate in spec.tls.serverName."},
	{grafana.ErrTLS, status.Elsewhere, v1alpha1.ReasonTLSError, "TLS failed: Grafana and the operator could not agree on a connection, or the certificate of Grafana is not valid now. If Grafana asks for a client certificate, name it in spec.tls.clientCertSecretRef."},
	{grafana.ErrAddress, status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "spec.url resolves to an address that is never called: this host itself, link-local, a metadata service, multicast or a reserved one. Nothing was sent. Set spec.url to the address of Grafana, or correct what its name resolves to."},
	{grafana.ErrClearProxy, status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "spec.url uses plain http, and the proxy in the operator's environment (HTTP_PROXY) would see the token. Nothing was sent. Use https, or add the host to NO_PROXY."},
	{grafana.ErrRateLimited, status.Time, v1alpha1.ReasonRateLimited, "Grafana asks for fewer requests{code}."},
	{grafana.ErrEncoded, status.Time, v1alpha1.ReasonInvalidResponse, "The answer{code} is encoded with {detail}, although the operator accepts no encoding. Turn off compression in what is in front of Grafana."},
	{grafana.ErrInvalidResponse, status.Time, v1alpha1.ReasonInvalidResponse, notTheAPI},
	{grafana.ErrInvalid, status.Time, v1alpha1.ReasonInvalidResponse, notTheAPI},
	{grafana.ErrNotFound, status.Time, v1alpha1.ReasonInvalidResponse, notTheAPI},
	{grafana.ErrConflict, status.Time, v1alpha1.ReasonInvalidResponse, notTheAPI},
	{grafana.ErrAlreadyExists, status.Time, v1alpha1.ReasonInvalidResponse, notTheAPI},
	{grafana.ErrUnavailable, status.Time, v1alpha1.ReasonUnreachable, "Grafana could not be asked at {server}: the answer is an error{code}. Check Grafana, or what is in front of it."},
	{grafana.ErrUnresolved, status.Time, v1alpha1.ReasonUnreachable, unreachable + "its name could not be resolved. Check the host in spec.url, and DNS where the operator runs."},
	{grafana.ErrConnectionRefused, status.Time, v1alpha1.ReasonUnreachable, unreachable + "the connection was refused. Check host and port in spec.url, and whether Grafana runs."},
	{grafana.ErrConnectTimeout, status.Time, v1alpha1.ReasonUnreachable, unreachable + "there was no connection within " + grafana.ConnectTimeout.String() + ". Check spec.url, and whether a firewall or a NetworkPolicy is between it and the operator."},
	{grafana.ErrProxy, status.Time, v1alpha1.ReasonUnreachable, unreachable + "{detail}. Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the operator's environment, and what the proxy allows."},
	{context.DeadlineExceeded, status.Time, v1alpha1.ReasonUnreachable, unreachable + "there was no answer within spec.requestTimeout{code}. Check Grafana and the network, or give it more time."},
}

const (
	notTheAPI   = "The answer{code} is not one of Grafana's API. Check that spec.url is the address of Grafana, not of a login page or a proxy."
	unreachable = "Grafana could not be reached at {server}: "
	noAnswer    = unreachable + "there was no answer, or no whole one{code}. Check spec.url and the network."
)

// checkCondition says what is wrong with a connection to that server. An error that is not in the table is one that time may heal.
func checkCondition(server string, err error) status.Condition {
	if e := status.Of(err); e != nil {
		return e.Condition
	}
	if err == nil {
		return status.Condition{Class: status.None, Reason: v1alpha1.ReasonConnected, Message: "Grafana answers, and the token may read secure values."}
	}
	c := status.Condition{Class: status.Time, Reason: v1alpha1.ReasonUnreachable, Message: noAnswer}
	for _, row := range checkErrors {
		if errors.Is(err, row.err) {
			c = status.Condition{Class: row.class, Reason: row.reason, Message: row.message}
			break
		}
	}
	if c.Class == status.Time {
		c.Message += " The operator retries automatically."
		if wait := retryAfter(err); wait >= longPause {
			c.Until = time.Now().Add(wait)
		}
	}
	detail := ""
	if e, ok := errors.AsType[*grafana.Error](err); ok {
		detail = e.Detail
	}
	c.Message = strings.NewReplacer("{code}", httpCode(err), "{server}", server, "{detail}", detail).Replace(c.Message)
	return c
}

// objectError returns what the failed call of an object says of that object.
func objectError(id ownership.Connection, err error) error {
	e, ok := errors.AsType[*grafana.Error](err)
	if !ok {
		return err
	}
	code := httpCode(err)
	switch {
	case errors.Is(err, grafana.ErrForbidden):
		return status.Errorf(status.Elsewhere, v1alpha1.ReasonForbidden, "The token of %s lacks the action %s on this secure value%s. Grant it to its service account in Grafana. This object then syncs automatically. Check the connection: `%s`.",
			id, e.Action(), code, describe(id)).Because(err)
	case errors.Is(err, grafana.ErrAlreadyExists):
		return status.Errorf(status.Elsewhere, v1alpha1.ReasonAlreadyExists, "Grafana says that secure value %q exists, and does not show it to the token of %s. Choose another spec.name, or grant the token secret.securevalues:read on secret.securevalues:*.",
			e.Name, id).Because(err)
	case errors.Is(err, grafana.ErrInvalid):
		fields := ""
		if len(e.Fields) > 0 {
			fields = ": " + strings.Join(e.Fields, ", ")
		}
		return status.Errorf(status.Here, v1alpha1.ReasonRejectedByGrafana, "Grafana refused the secure value as invalid%s%s. Edit spec or the Secret.", code, fields).Because(err)
	default:
		return status.Errorf(status.Time, v1alpha1.ReasonGrafanaUnavailable, "The last call to Grafana through %s failed%s. Grafana may hold an outdated value. The operator retries automatically.", id, code).Because(err)
	}
}

// unavailable says that calls through a connection are held back, because they fail or Grafana asked to wait.
func unavailable(id ownership.Connection, condition status.Condition) error {
	why := "calls keep failing"
	if condition.Class == status.Time {
		why = condition.Reason
	}
	e := status.Errorf(status.Time, v1alpha1.ReasonGrafanaUnavailable, "%s cannot reach Grafana (%s). Grafana may hold an outdated value. The operator retries automatically. Check the connection: `%s`.", id, why, describe(id))
	e.Retry = status.Watch // the limiter wakes the object
	return e
}

// notReady says that a person must fix the connection, and which command shows how.
func notReady(id ownership.Connection, reason string) *status.Error {
	return status.Errorf(status.Watch, v1alpha1.ReasonConnectionNotReady, "%s is not ready (%s). This object syncs automatically once it is. Check the connection: `%s`.", id, reason, describe(id))
}

// describe is the command that shows all that is known of a connection.
func describe(id ownership.Connection) string {
	if id.Kind == v1alpha1.KindClusterGrafanaConnection {
		return "kubectl describe cgconn " + id.Name
	}
	return "kubectl describe gconn " + id.Name + " -n " + id.Namespace
}

// outages are how calls fail while Grafana is down, or as none does through a connection that works.
var outages = []error{
	grafana.ErrUnreachable, grafana.ErrUnavailable, grafana.ErrRateLimited, grafana.ErrNamespaceRejected, grafana.ErrAPINotServed,
	grafana.ErrRedirect, grafana.ErrTLS, grafana.ErrInvalidResponse, grafana.ErrAddress,
}

// unknownOutcomes are the failures of a write that may have taken effect.
var unknownOutcomes = []error{grafana.ErrUnreachable, grafana.ErrUnavailable, grafana.ErrInvalidResponse, grafana.ErrTLS}

func isAny(err error, targets []error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
