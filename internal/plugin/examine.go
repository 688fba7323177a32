package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// The stages of a call to Grafana, in their order. One call shows which is the first to fail: those before it work.
const (
	stageDNS = iota
	stageProxy
	stageTCP
	stageTLS
	stageAPI
	stageToken
	stageNamespace
	stageRead
	stages // how many there are
)

var stageNames = [stages]string{"DNS", "proxy", "TCP", "TLS", "API", "token", "namespace", "read"}

// failedStages says at which stage a call failed: the first row with the error counts.
var failedStages = []struct {
	err   error
	stage int
}{
	{grafana.ErrAddress, stageDNS},
	{grafana.ErrUnresolved, stageDNS},
	{grafana.ErrProxy, stageProxy},
	{grafana.ErrClearProxy, stageProxy},
	{grafana.ErrConnectionRefused, stageTCP},
	{grafana.ErrConnectTimeout, stageTCP},
	{grafana.ErrTLS, stageTLS},
	{grafana.ErrUnauthorized, stageToken},
	{grafana.ErrNamespaceRejected, stageNamespace},
	{grafana.ErrForbidden, stageRead},
}

// stageOf returns the stage at which a call failed. What is not known to be of the way to Grafana is of the API.
func stageOf(err error) int {
	if err == nil {
		return stages
	}
	for _, row := range failedStages {
		if errors.Is(err, row.err) {
			return row.stage
		}
	}
	return stageAPI
}

// examine checks a connection from this machine.
func (c *cluster) examine(ctx context.Context, conn v1alpha1.Connection) []check {
	caller := c.caller()
	client, err := caller.Dial(ctx, conn)
	credentials := check{Name: "credentials", Result: checkOK, Detail: fmt.Sprintf("Secret %q has a token.", conn.GetSpec().Credentials.TokenSecretRef.Name)}
	if ref := connection.GrafanaRef(conn); ref != nil {
		credentials.Detail = fmt.Sprintf("Grafana %q has a token, or a user and a password.", ref.Name)
	}
	complete := err == nil
	if err != nil {
		_, message := connection.Explain(conn, err)
		credentials.Result, credentials.Detail = checkFailed, message
		if isMissingRight(err) {
			credentials.Result, credentials.Detail = checkUnknown, sentence(err)
		}
		if client, err = caller.DialWithoutSecrets(conn); err != nil {
			if stage := stageOf(err); stage < stageTLS { // the address, or the proxy for it, is what cannot be used
				credentials = check{Name: credentials.Name, Result: checkSkipped}
				return append([]check{credentials}, stageChecks(ctx, client, conn, stage, err)...)
			}
			return []check{credentials}
		}
	}
	defer client.CloseIdleConnections()
	err = client.List(ctx, "gsv-doctor=probe", func(*grafana.SecureValue) {})
	failed := stageOf(err)
	if failed == stageAPI && isUnanswered(err) && !canConnect(ctx, connection.Address(conn)) {
		failed = stageTCP
	}
	checks := append([]check{credentials}, stageChecks(ctx, client, conn, failed, err)...)
	if !complete {
		return withoutCredentials(checks, conn, failed)
	}
	if failed < stageRead {
		return checks
	}
	return append(checks, actions(ctx, client, conn)...)
}

// isUnanswered reports whether a call had no answer at all, for a reason that is not known.
func isUnanswered(err error) bool {
	failed, ok := errors.AsType[*grafana.Error](err)
	return ok && failed.StatusCode == 0 && errors.Is(err, grafana.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded)
}

// canConnect reports whether a connection to the host of a URL can be made, without a proxy.
func canConnect(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	opened, err := (&net.Dialer{Timeout: grafana.ConnectTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err == nil {
		_ = opened.Close()
	}
	return err == nil
}

// stageChecks returns what one call has shown of each stage but the last.
func stageChecks(ctx context.Context, client *grafana.Client, conn v1alpha1.Connection, failed int, err error) []check {
	_, message := connection.Explain(conn, err)
	var checks []check
	for stage := range stageRead {
		c := check{Name: stageNames[stage], Result: checkOK}
		switch {
		case stage == failed:
			c.Result, c.Detail = checkFailed, message
		case stage > failed:
			c.Result = checkSkipped
		case stage == stageAPI:
			c.Detail = servedDetail(ctx, client, conn)
		default:
			c.Result, c.Detail = stageDetail(ctx, conn, stage)
		}
		if stage == stageAPI && stage == failed && errors.Is(err, grafana.ErrAPINotServed) {
			if versions, err := client.Versions(ctx); err == nil && len(versions) > 0 {
				c.Detail += " This Grafana offers " + strings.Join(versions, ", ") + "."
			}
		}
		checks = append(checks, c)
	}
	return checks
}

// stageDetail says what is worth knowing of a stage that works.
func stageDetail(ctx context.Context, conn v1alpha1.Connection, stage int) (result, detail string) {
	spec := conn.GetSpec()
	u, _ := url.Parse(connection.Address(conn)) // a client was made of it
	proxy, _ := http.ProxyFromEnvironment(&http.Request{URL: u})
	switch {
	case stage == stageDNS && proxy != nil:
		return checkSkipped, "The proxy resolves the name."
	case stage == stageDNS:
		addresses, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
		if err != nil || len(addresses) == 0 {
			return checkOK, ""
		}
		return checkOK, fmt.Sprintf("%s is %s.", u.Hostname(), strings.Join(addresses, ", "))
	case stage == stageProxy && proxy == nil:
		return checkSkipped, "Your environment has none for this address."
	case stage == stageProxy:
		return checkOK, "Through " + proxy.Scheme + "://" + proxy.Host + "."
	case stage == stageTLS && u.Scheme != "https":
		return checkSkipped, "spec.url is plain http: whoever is between can read the token and all values."
	case stage == stageTLS && spec.TLS != nil && spec.TLS.InsecureSkipVerify:
		return checkOK, "The certificate is not checked (spec.tls.insecureSkipVerify)."
	case stage == stageNamespace:
		return checkOK, fmt.Sprintf("The token may use %q.", spec.Namespace)
	default:
		return checkOK, ""
	}
}

// servedDetail says which version of the API is used, and which ones this Grafana offers.
func servedDetail(ctx context.Context, client *grafana.Client, conn v1alpha1.Connection) string {
	detail := fmt.Sprintf("secret.grafana.app/%s is served.", conn.GetSpec().APIVersion)
	if versions, err := client.Versions(ctx); err == nil && len(versions) > 1 {
		detail += " This Grafana offers " + strings.Join(versions, ", ") + "."
	}
	return detail
}

// withoutCredentials keeps of the checks what needs no Secret. That Grafana refuses a call without a token shows that it answers.
func withoutCredentials(checks []check, conn v1alpha1.Connection, failed int) []check {
	tls := conn.GetSpec().TLS
	trustKnown := connection.GrafanaRef(conn) == nil && (tls == nil || tls.CASecretRef == nil && tls.ClientCertSecretRef == nil)
	for i := range checks {
		switch c := &checks[i]; {
		case c.Name == stageNames[stageTLS] && failed == stageTLS && !trustKnown:
			*c = check{Name: c.Name, Result: checkUnknown, Detail: "The Secrets of spec.tls were not read."}
		case c.Name == stageNames[stageAPI] && failed >= stageToken:
			c.Detail = "Grafana answers. Its API was not asked without a token."
		case c.Name == stageNames[stageToken], c.Name == stageNames[stageNamespace]:
			*c = check{Name: c.Name, Result: checkSkipped}
		}
	}
	return checks
}

// sentence returns an error as a sentence.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
