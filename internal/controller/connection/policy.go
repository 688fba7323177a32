package connection

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Policy is what whoever runs the operator lets connections do.
type Policy struct {
	// AllowedHosts are those that connections may name; nil is any.
	AllowedHosts []HostPattern
	// AllowInsecureTLS lets a connection take any certificate of Grafana's.
	AllowInsecureTLS bool
	// AllowLoopback lets the URL of a connection resolve to this host itself. A host that AllowedHosts names literally always may.
	AllowLoopback bool
}

// HostPattern is a host that connections may name: a name or an address, or "*." and a domain for every name below it; and a port, or
// none for every port.
type HostPattern struct{ host, domain, port string }

// ParseHostPattern reads a pattern, as *.grafana.net or grafana.internal:3000.
func ParseHostPattern(s string) (HostPattern, error) {
	rest, wild := strings.CutPrefix(s, "*.")
	host, port, err := grafana.HostOf("https://" + rest)
	switch {
	case strings.ContainsAny(rest, "/?#@"):
		return HostPattern{}, fmt.Errorf("%q is not a host, without scheme and path", s)
	case err != nil:
		return HostPattern{}, fmt.Errorf("%q is not a host: %w", s, err)
	case wild && (strings.Contains(host, ":") || net.ParseIP(host) != nil):
		return HostPattern{}, fmt.Errorf("%q is not a host: there are no names below an address", s)
	case wild:
		return HostPattern{domain: "." + host, port: port}, nil
	default:
		return HostPattern{host: host, port: port}, nil
	}
}

func (p HostPattern) matches(host, port string) bool {
	if p.port != "" && p.port != port {
		return false
	}
	return p.domain == "" && p.host == host || p.domain != "" && len(host) > len(p.domain) && strings.HasSuffix(host, p.domain)
}

// endOf returns the host and port of a URL.
func endOf(address string) (host, port string, err error) {
	host, port, err = grafana.HostOf(address)
	standard := "80"
	if strings.HasPrefix(strings.ToLower(address), "https:") {
		standard = "443"
	}
	return host, cmp.Or(port, standard), err
}

// check says what the policy has against a connection.
func (p Policy) check(to *endpoint) error {
	if len(p.AllowedHosts) > 0 {
		host, port, err := endOf(to.url)
		if err != nil {
			return unusableSpec(to, err)
		}
		if !slices.ContainsFunc(p.AllowedHosts, func(allowed HostPattern) bool { return allowed.matches(host, port) }) {
			return hostNotAllowed(net.JoinHostPort(host, port))
		}
	}
	if to.tls != nil && to.tls.InsecureSkipVerify && !p.AllowInsecureTLS {
		return errInsecure
	}
	return nil
}

// allowsLoopback reports whether a URL may resolve to this host itself.
func (p Policy) allowsLoopback(address string) bool {
	host, port, err := endOf(address)
	named := func(allowed HostPattern) bool { return allowed.domain == "" && allowed.matches(host, port) }
	return p.AllowLoopback || err == nil && slices.ContainsFunc(p.AllowedHosts, named)
}

// Served says which kinds of connection an installation serves.
type Served struct {
	// Namespaced is whether GrafanaConnections are served.
	Namespaced bool
	// Cluster is whether ClusterGrafanaConnections are served.
	Cluster bool
}

// Has reports whether connections of that kind are served.
func (s Served) Has(kind v1alpha1.ConnectionKind) bool {
	if kind == v1alpha1.KindClusterGrafanaConnection {
		return s.Cluster
	}
	return s.Namespaced
}

// WhyNot says why connections of a kind that is not served are not.
func (s Served) WhyNot(kind v1alpha1.ConnectionKind) string {
	if kind == v1alpha1.KindClusterGrafanaConnection {
		return "This installation serves only the namespaces of --watch-namespaces, and no ClusterGrafanaConnection."
	}
	return "This installation serves only ClusterGrafanaConnections (--namespaced-connections=false)."
}
