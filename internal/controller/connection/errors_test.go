package connection

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

var (
	testID   = ownership.Connection{Kind: v1alpha1.KindGrafanaConnection, Namespace: "team-a", Name: "prod"}
	sharedID = ownership.Connection{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "prod"}
)

func unreachableFor(cause error) error { return errors.Join(grafana.ErrUnreachable, cause) }

func TestCheckCondition(t *testing.T) {
	for name, row := range map[string]struct {
		err    error
		class  status.Class
		reason string
		part   string // what the message says to do
	}{
		"nothing wrong":                    {nil, status.None, v1alpha1.ReasonConnected, "may read"},
		"token refused":                    {grafana.ErrUnauthorized, status.Elsewhere, v1alpha1.ReasonUnauthorized, "service account token"},
		"action missing":                   {grafana.ErrForbidden, status.Elsewhere, v1alpha1.ReasonForbidden, "secret.securevalues:read"},
		"namespace rejected":               {grafana.ErrNamespaceRejected, status.Elsewhere, v1alpha1.ReasonNamespaceRejected, "stacks-<id>"},
		"API not served":                   {grafana.ErrAPINotServed, status.Elsewhere, v1alpha1.ReasonAPINotServed, "Grafana Cloud or Grafana Enterprise"},
		"redirect":                         {grafana.ErrRedirect, status.Elsewhere, v1alpha1.ReasonRedirectRefused, "spec.url"},
		"TLS":                              {grafana.ErrTLS, status.Elsewhere, v1alpha1.ReasonTLSError, "spec.tls.clientCertSecretRef"},
		"no TLS":                           {grafana.ErrNoTLS, status.Elsewhere, v1alpha1.ReasonTLSError, "Check host, port and scheme of spec.url"},
		"an authority that is not known":   {grafana.ErrUnknownAuthority, status.Elsewhere, v1alpha1.ReasonTLSError, "spec.tls.caSecretRef"},
		"a certificate of another name":    {grafana.ErrServerName, status.Elsewhere, v1alpha1.ReasonTLSError, "spec.tls.serverName"},
		"an address that is never called":  {grafana.ErrAddress, status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed, "Nothing was sent"},
		"too many requests":                {grafana.ErrRateLimited, status.Time, v1alpha1.ReasonRateLimited, "retries automatically"},
		"HTML":                             {grafana.ErrInvalidResponse, status.Time, v1alpha1.ReasonInvalidResponse, "login page"},
		"an encoded answer":                {errors.Join(grafana.ErrEncoded, &grafana.Error{StatusCode: 200, Detail: "gzip"}), status.Time, v1alpha1.ReasonInvalidResponse, "(HTTP 200) is encoded with gzip"},
		"an answer to a LIST that is none": {grafana.ErrNotFound, status.Time, v1alpha1.ReasonInvalidResponse, "spec.url"},
		"no answer":                        {grafana.ErrUnreachable, status.Time, v1alpha1.ReasonUnreachable, "at https://grafana.example.com: there was no answer"},
		"no such name":                     {unreachableFor(grafana.ErrUnresolved), status.Time, v1alpha1.ReasonUnreachable, "could not be resolved"},
		"nobody listens":                   {unreachableFor(grafana.ErrConnectionRefused), status.Time, v1alpha1.ReasonUnreachable, "was refused"},
		"no connection":                    {unreachableFor(grafana.ErrConnectTimeout), status.Time, v1alpha1.ReasonUnreachable, "within 5s"},
		"no proxy":                         {errors.Join(grafana.ErrUnreachable, grafana.ErrProxy, &grafana.Error{Detail: "the proxy http://proxy:3128 answered with HTTP 407"}), status.Time, v1alpha1.ReasonUnreachable, "the proxy http://proxy:3128 answered with HTTP 407. Check HTTPS_PROXY"},
		"no answer in time":                {unreachableFor(context.DeadlineExceeded), status.Time, v1alpha1.ReasonUnreachable, "spec.requestTimeout"},
		"server failed":                    {grafana.ErrUnavailable, status.Time, v1alpha1.ReasonUnreachable, "is an error"},
		"not known":                        {errors.New("canary"), status.Time, v1alpha1.ReasonUnreachable, "retries automatically"},
		"no credentials":                   {credentialsNotFound("do %s", "this"), status.Watch, v1alpha1.ReasonCredentialsNotFound, "do this"},
		"bad credentials":                  {credentialsInvalid("do this"), status.Here, v1alpha1.ReasonCredentialsInvalid, "do this"},
		"a spec without use":               {invalidSpec(errors.New("why")), status.Here, v1alpha1.ReasonInvalidSpec, "why"},
	} {
		t.Run(name, func(t *testing.T) {
			got := checkCondition("https://grafana.example.com", row.err)
			if got.Class != row.class || got.Reason != row.reason || !strings.Contains(got.Message, row.part) || strings.Contains(got.Message, "canary") {
				t.Errorf("condition = %+v", got)
			}
		})
	}
}

// An error of an object names the connection, and the command that shows more.
func TestObjectErrorsNameTheConnection(t *testing.T) {
	failed := func(kind error) error { return fmt.Errorf("%w: %w", kind, &grafana.Error{Op: "create", Name: "db"}) }
	for name, row := range map[string]struct {
		err    error
		class  status.Class
		reason string
		parts  []string
	}{
		"a person must fix it": {
			notReady(testID, v1alpha1.ReasonUnauthorized), status.Watch, v1alpha1.ReasonConnectionNotReady,
			[]string{`GrafanaConnection "prod" is not ready (Unauthorized).`, "automatically", "`kubectl describe gconn prod -n team-a`."},
		},
		"a shared connection": {
			notReady(sharedID, v1alpha1.ReasonTLSError), status.Watch, v1alpha1.ReasonConnectionNotReady,
			[]string{`ClusterGrafanaConnection "prod" is not ready (TLSError).`, "`kubectl describe cgconn prod`."},
		},
		"time may heal it": {
			unavailable(testID, status.Condition{Class: status.Time, Reason: v1alpha1.ReasonUnreachable}), status.Time, v1alpha1.ReasonGrafanaUnavailable,
			[]string{`GrafanaConnection "prod" cannot reach Grafana (Unreachable).`, "`kubectl describe gconn prod -n team-a`."},
		},
		"only writes fail": {
			unavailable(testID, status.Condition{Reason: v1alpha1.ReasonConnected}), status.Time, v1alpha1.ReasonGrafanaUnavailable,
			[]string{"(calls keep failing)"},
		},
		"an action is missing": {
			objectError(testID, failed(grafana.ErrForbidden)), status.Elsewhere, v1alpha1.ReasonForbidden,
			[]string{`The token of GrafanaConnection "prod" lacks the action secret.securevalues:create`, "kubectl describe gconn prod -n team-a"},
		},
		"hidden": {objectError(testID, failed(grafana.ErrAlreadyExists)), status.Elsewhere, v1alpha1.ReasonAlreadyExists, []string{`"db" exists`}},
		"invalid": {
			objectError(testID, fmt.Errorf("%w: %w", grafana.ErrInvalid, &grafana.Error{Fields: []string{"spec.description"}})),
			status.Here, v1alpha1.ReasonRejectedByGrafana,
			[]string{": spec.description."},
		},
		"a failure": {
			objectError(testID, failed(grafana.ErrUnavailable)), status.Time, v1alpha1.ReasonGrafanaUnavailable, []string{"may hold an outdated value"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := errors.AsType[*status.Error](row.err)
			if !ok || got.Class != row.class || got.Reason != row.reason {
				t.Fatalf("error = %+v", row.err)
			}
			for _, part := range row.parts {
				if !strings.Contains(got.Message, part) {
					t.Errorf("message %q lacks %q", got.Message, part)
				}
			}
		})
	}
	if err := objectError(testID, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("an error of another kind becomes %v", err)
	}
}

// What Grafana asks to wait for is told with the time at which it ends, if it is long enough to be read.
func TestCheckConditionSaysUntilWhen(t *testing.T) {
	for name, row := range map[string]struct {
		kind error
		wait time.Duration
		want bool
	}{
		"too many requests, 10m": {grafana.ErrRateLimited, 10 * time.Minute, true},
		"server failed, 30s":     {grafana.ErrUnavailable, 30 * time.Second, true},
		"too many requests, 5s":  {grafana.ErrRateLimited, 5 * time.Second, false},
		"not told":               {grafana.ErrRateLimited, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now()
			until := checkCondition("https://grafana.example.com", errors.Join(row.kind, &grafana.Error{RetryAfter: row.wait})).Until
			if until.IsZero() == row.want || row.want && (until.Before(before.Add(row.wait)) || until.After(time.Now().Add(row.wait))) {
				t.Errorf("until %s", until)
			}
		})
	}
}
