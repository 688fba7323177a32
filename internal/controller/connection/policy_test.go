package connection

import (
	"errors"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

func patterns(t *testing.T, list ...string) []HostPattern {
	t.Helper()
	var parsed []HostPattern
	for _, s := range list {
		p, err := ParseHostPattern(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	return parsed
}

func TestAllowedHosts(t *testing.T) {
	p := Policy{AllowedHosts: patterns(t, "*.grafana.net", "grafana.internal:3000", "Grafana.Example.com", "10.0.0.5", "[fd00::5]:3000", "secure:443", "*.apps.internal:8443")}
	for url, allowed := range map[string]bool{
		"https://acme.grafana.net":              true,
		"https://acme.grafana.net:8443/grafana": true,
		"https://ACME.Grafana.Net.":             true,
		"https://a.b.grafana.net":               true,
		"https://grafana.net":                   false,
		"https://acme-grafana.net":              false,
		"https://evilgrafana.net":               false,
		"https://acme.grafana.net.evil.example": false,
		"https://evil.example/acme.grafana.net": false,
		"http://grafana.internal:3000":          true,
		"http://grafana.internal:03000":         true,
		"http://grafana.internal":               false,
		"http://grafana.internal:3001":          false,
		"http://x.grafana.internal:3000":        false,
		"https://grafana.example.com":           true,
		"http://grafana.example.com:1":          true,
		"http://10.0.0.5:3000":                  true,
		"http://10.0.0.50":                      false,
		"http://[fd00:0:0::5]:3000":             true,
		"http://[fd00::5]":                      false,
		"https://secure":                        true,
		"http://secure":                         false,
		"http://secure:443":                     true,
		"https://x.apps.internal:8443":          true,
		"https://x.apps.internal":               false,
		"https://acme.grafana.net@evil.example": false,
		"https://evil.example#.grafana.net":     false,
		"https://evil.example?.grafana.net":     false,
		`https://evil.example\.grafana.net`:     false,
		"http://2130706433":                     false,
	} {
		if err := p.check(&endpoint{url: url}); (err == nil) != allowed {
			t.Errorf("%s: %v, want it allowed %t", url, err, allowed)
		}
	}
	err := p.check(&endpoint{url: "https://evil.example"})
	e, ok := errors.AsType[*status.Error](err)
	if !ok || e.Reason != v1alpha1.ReasonConnectionNotAllowed || e.Class != status.Elsewhere {
		t.Errorf("error = %v", err)
	}
	if err := (Policy{}).check(&endpoint{url: "https://evil.example"}); err != nil {
		t.Errorf("without a list: %v", err)
	}
}

func TestHostPatternsThatAreNone(t *testing.T) {
	for _, s := range []string{
		"", "*", "*.", "**.grafana.net", "*.*.net", "a.*.net", "*grafana.net", "https://grafana.net", "grafana.net/", "grafana.net/x", "u@grafana.net",
		"grafana.net:", "grafana.net:0", "grafana.net:70000", "grafana.net:http", "*.10.0.0.5", "*.[::1]", "10.0.0.0/8", "127.1", "::1", "a b", "a..b",
		"[::ffff:10.0.0.5]", "[fe80::1%25eth0]", "a?b", "a#b",
	} {
		if p, err := ParseHostPattern(s); err == nil {
			t.Errorf("%q was read as %+v", s, p)
		}
	}
}

func TestInsecureTLSNeedsItsFlag(t *testing.T) {
	to := &endpoint{url: "https://grafana.example.com", tls: &v1alpha1.TLSConfig{InsecureSkipVerify: true}}
	if err := (Policy{}).check(to); !errors.Is(err, errInsecure) {
		t.Errorf("without the flag: %v", err)
	}
	if err := (Policy{AllowInsecureTLS: true}).check(to); err != nil || to.warning() == "" {
		t.Errorf("with the flag: %v, %q", err, to.warning())
	}
	to.tls.InsecureSkipVerify = false
	if err := (Policy{}).check(to); err != nil || to.warning() != "" {
		t.Errorf("where it is false: %v, %q", err, to.warning())
	}
}

func TestLoopbackIsForWhoeverNamesIt(t *testing.T) {
	for url, want := range map[string]bool{
		"http://127.0.0.1:3000": true, "http://127.0.0.1:3001": false, "http://localhost": true, "http://x.internal": false, "http://[::1]": false,
	} {
		p := Policy{AllowedHosts: patterns(t, "127.0.0.1:3000", "localhost", "*.internal")}
		if got := p.allowsLoopback(url); got != want {
			t.Errorf("%s: %t, want %t", url, got, want)
		}
	}
	if (Policy{}).allowsLoopback("http://127.0.0.1") || !(Policy{AllowLoopback: true}).allowsLoopback("http://127.0.0.1") {
		t.Error("without a list it is for the policy to say")
	}
}
