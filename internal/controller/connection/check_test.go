package connection

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

func unreachableFor(cause error) error { return errors.Join(grafana.ErrUnreachable, cause) }

func TestClassify(t *testing.T) {
	for name, row := range map[string]struct {
		err    error
		class  status.Class
		reason string
		part   string // what the message tells to do
	}{
		"nothing wrong":                    {nil, status.None, v1alpha1.ReasonConnected, "may read"},
		"token refused":                    {grafana.ErrUnauthorized, status.Elsewhere, v1alpha1.ReasonUnauthorized, "service account token"},
		"action missing":                   {grafana.ErrForbidden, status.Elsewhere, v1alpha1.ReasonForbidden, "secret.securevalues:read"},
		"namespace rejected":               {grafana.ErrNamespaceRejected, status.Elsewhere, v1alpha1.ReasonNamespaceRejected, "stacks-<id>"},
		"API not served":                   {grafana.ErrAPINotServed, status.Elsewhere, v1alpha1.ReasonAPINotServed, "Grafana Cloud or Grafana Enterprise"},
		"redirect":                         {grafana.ErrRedirect, status.Elsewhere, v1alpha1.ReasonRedirectRefused, "spec.url"},
		"TLS":                              {grafana.ErrTLS, status.Elsewhere, v1alpha1.ReasonTLSError, "spec.tls.caSecretRef"},
		"too many requests":                {grafana.ErrRateLimited, status.Time, v1alpha1.ReasonRateLimited, "by itself"},
		"HTML":                             {grafana.ErrInvalidResponse, status.Time, v1alpha1.ReasonInvalidResponse, "login page"},
		"an answer to a LIST that is none": {grafana.ErrNotFound, status.Time, v1alpha1.ReasonInvalidResponse, "spec.url"},
		"no answer":                        {grafana.ErrUnreachable, status.Time, v1alpha1.ReasonUnreachable, "at https://grafana.example.com: there was no answer"},
		"no such name":                     {unreachableFor(grafana.ErrUnresolved), status.Time, v1alpha1.ReasonUnreachable, "could not be resolved"},
		"nobody listens":                   {unreachableFor(grafana.ErrConnectionRefused), status.Time, v1alpha1.ReasonUnreachable, "was refused"},
		"no connection":                    {unreachableFor(grafana.ErrConnectTimeout), status.Time, v1alpha1.ReasonUnreachable, "within 5s"},
		"no proxy":                         {unreachableFor(grafana.ErrProxyUnreachable), status.Time, v1alpha1.ReasonUnreachable, "HTTPS_PROXY"},
		"no answer in time":                {unreachableFor(context.DeadlineExceeded), status.Time, v1alpha1.ReasonUnreachable, "spec.requestTimeout"},
		"server failed":                    {grafana.ErrUnavailable, status.Time, v1alpha1.ReasonUnreachable, "is an error"},
		"not known":                        {errors.New("canary"), status.Time, v1alpha1.ReasonUnreachable, "by itself"},
		"no credentials":                   {credentialsNotFound("do %s", "this"), status.Watch, v1alpha1.ReasonCredentialsNotFound, "do this"},
		"bad credentials":                  {credentialsInvalid("do this"), status.Here, v1alpha1.ReasonCredentialsInvalid, "do this"},
		"a spec without use":               {invalidSpec(errors.New("why")), status.Here, v1alpha1.ReasonInvalidSpec, "why"},
	} {
		t.Run(name, func(t *testing.T) {
			got := classify("https://grafana.example.com", row.err)
			if got.Class != row.class || got.Reason != row.reason || !strings.Contains(got.Message, row.part) || strings.Contains(got.Message, "canary") {
				t.Errorf("verdict = %+v", got)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	const here, there = "https://grafana.example.com", "https://other.example.com"
	forgot := status.Verdict{Reason: v1alpha1.ReasonLabelsNotKept}
	for name, row := range map[string]struct {
		last     status.Verdict
		known    string // status.url
		reported string // status: the reason of Ready
		observed int64
		survey   Survey
		want     error
	}{
		"first look":                            {observed: -1, survey: Survey{Recorded: 1}},
		"same URL, all values deleted":          {known: here, observed: 1, survey: Survey{Recorded: 3}},
		"same URL, written otherwise":           {known: "HTTPS://grafana.example.com:443/", observed: 1, survey: Survey{Recorded: 3}},
		"another URL, same Grafana":             {known: there, survey: Survey{Recorded: 3, Present: 1}},
		"another URL, nothing recorded":         {known: there},
		"another URL, another Grafana":          {known: there, survey: Survey{Recorded: 3}, want: errValuesMissing},
		"labels dropped":                        {last: forgot, known: here, observed: 1, want: errLabelsNotKept},
		"labels dropped, after a restart":       {reported: v1alpha1.ReasonLabelsNotKept, known: here, observed: 1, want: errLabelsNotKept},
		"labels dropped, and seen since":        {last: forgot, known: here, observed: 1, survey: Survey{Marked: true}},
		"labels dropped, and the spec is other": {last: forgot, reported: v1alpha1.ReasonLabelsNotKept, known: here},
	} {
		t.Run(name, func(t *testing.T) {
			conn := &v1alpha1.GrafanaConnection{}
			conn.Generation, conn.Spec.URL = 1, here
			conn.Status.URL, conn.Status.ObservedGeneration = row.known, row.observed
			if row.reported != "" {
				conn.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: row.reported}}
			}
			if got := verify(conn, row.last, row.survey); !errors.Is(got, row.want) {
				t.Errorf("verify = %v, want %v", got, row.want)
			}
		})
	}
}

func TestServerOf(t *testing.T) {
	same := []string{"https://h", "https://h/", "HTTPS://H", "https://h:443", "https://H:443//"}
	for _, address := range same {
		if got := ServerOf(address); got != "https://h" {
			t.Errorf("ServerOf(%q) = %q", address, got)
		}
	}
	seen := map[string]string{"https://h": "https://h"}
	for _, address := range []string{"http://h", "https://h:80", "https://h:3000", "https://h/a", "https://h/A", "https://h/a/b", "https://i"} {
		got := ServerOf(address)
		if seen[got] != "" {
			t.Errorf("%q and %q are one server", address, seen[got])
		}
		seen[got] = address
	}
}

func TestNextCheck(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for name, row := range map[string]struct {
		err      error
		failures int
		resync   time.Duration
		from, to time.Duration // both 0: never
	}{
		"connected":                  {nil, 0, 10 * time.Minute, 9 * time.Minute, 11 * time.Minute},
		"connected, resync off":      {nil, 0, 0, 0, 0},
		"first failure":              {grafana.ErrUnreachable, 1, 10 * time.Minute, 5 * time.Second, 7 * time.Second},
		"third failure":              {grafana.ErrUnreachable, 3, 10 * time.Minute, 15 * time.Second, 21 * time.Second},
		"a long outage: 5 a minute":  {grafana.ErrUnreachable, 1000, 10 * time.Minute, 15 * time.Second, 21 * time.Second},
		"an outage, resync off":      {grafana.ErrUnreachable, 1000, 0, 15 * time.Second, 21 * time.Second},
		"asked to wait":              {&grafana.Error{RetryAfter: time.Minute}, 1, 10 * time.Minute, time.Minute, time.Minute},
		"token refused":              {grafana.ErrUnauthorized, 0, 5 * time.Second, 270 * time.Second, 330 * time.Second},
		"no credentials: a watch":    {credentialsNotFound("x"), 0, time.Minute, 0, 0},
		"bad credentials: a person":  {credentialsInvalid("x"), 0, time.Minute, 0, 0},
		"action missing":             {grafana.ErrForbidden, 0, time.Minute, 54 * time.Second, 66 * time.Second},
		"action missing, resync off": {grafana.ErrForbidden, 0, 0, 9 * time.Minute, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			for range 100 { // jitter
				got := nextCheck(now, classify("", row.err), row.err, row.failures, row.resync)
				if row.to == 0 {
					if !got.IsZero() {
						t.Fatalf("next check in %s, want none", got.Sub(now))
					}
				} else if wait := got.Sub(now); wait < row.from || wait > row.to {
					t.Fatalf("next check in %s, want %s to %s", wait, row.from, row.to)
				}
			}
		})
	}
}

func TestNoMinuteOfAnOutageHasMoreThanFiveChecks(t *testing.T) {
	down := classify("", grafana.ErrUnreachable)
	for range 1000 { // jitter
		now := time.Unix(1_700_000_000, 0)
		var checks []time.Time
		for failures := 1; failures <= 20; failures++ {
			checks = append(checks, now)
			now = nextCheck(now, down, grafana.ErrUnreachable, failures, time.Minute)
		}
		for i := range checks[5:] {
			if took := checks[i+5].Sub(checks[i]); took < time.Minute {
				t.Fatalf("six checks from the %dth on within %s", i+1, took)
			}
		}
	}
}
