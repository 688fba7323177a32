package grafana

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// hostPattern is a name of DNS, or an IPv4 address, without a dot at its end. An underscore is in use in container networks.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

// numberPattern is what some resolvers take for a number: 127.1, 0177.0.0.1, 2130706433 and 0x7f000001 are all 127.0.0.1 to them.
var numberPattern = regexp.MustCompile(`^([0-9]+|0[xX][0-9A-Fa-f]*)$`)

// checkHost refuses a host that different readers read differently. What is left is a name, or an address in its usual form.
func checkHost(u *url.URL) error {
	host := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		ip, err := netip.ParseAddr(host)
		switch {
		case err != nil || !ip.Is6():
			return errors.New("the host in brackets must be an IPv6 address")
		case ip.Zone() != "":
			return errors.New("the address must not have a zone")
		case ip.Is4In6():
			return errors.New("an IPv4 address must be written as four decimal numbers, for example 10.0.0.5")
		}
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 || !hostPattern.MatchString(name) {
		return errors.New("the host must be letters, digits, '-', '_' and '.', or an IPv6 address in brackets")
	}
	if numberPattern.MatchString(name[strings.LastIndex(name, ".")+1:]) {
		if _, err := netip.ParseAddr(host); err != nil { // it takes neither a zero at the beginning of a number, nor a dot at the end
			return errors.New("an IPv4 address must be written as four decimal numbers, for example 10.0.0.5")
		}
	}
	return nil
}

// HostOf returns the host that a URL names, in one form where there are several, and the port, which is empty where the URL names none.
func HostOf(address string) (host, port string, err error) {
	u, err := parseURL(address)
	if err != nil {
		return "", "", err
	}
	host = strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return host, strings.TrimLeft(u.Port(), "0"), nil
}

// prefixes parses networks that are known to be well-formed.
func prefixes(networks ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, network := range networks {
		parsed = append(parsed, netip.MustParsePrefix(network))
	}
	return parsed
}

// refusedNetworks are those where no Grafana is, and much that trusts whoever can reach it: IANA's special-purpose registries, and the
// metadata services of clouds as their manuals give them.
var refusedNetworks = prefixes(
	"0.0.0.0/8",              // "this network": 0.0.0.0 reaches the host itself
	"100.100.100.200/32",     // metadata of Alibaba Cloud
	"168.63.129.16/32",       // Azure's platform endpoint
	"169.254.0.0/16",         // link-local, metadata of most clouds
	"192.0.0.0/24",           // protocol assignments, metadata of Oracle Cloud
	"224.0.0.0/4",            // multicast
	"240.0.0.0/4",            // reserved, and broadcast
	"::/128",                 // unspecified
	"fd00:42::42/128",        // metadata of Scaleway
	"fd00:a9fe:a9fe::1/128",  // metadata of Akamai Cloud
	"fd00:c1::a9fe:a9fe/128", // metadata of Oracle Cloud
	"fd00:ec2::/112",         // metadata, credentials, DNS and time of AWS
	"fd20:ce::254/128",       // metadata of Google Cloud
	"fe80::/10",              // link-local
	"fec0::/10",              // site-local, which is no more
	"ff00::/8",               // multicast
)

var (
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	teredo     = netip.MustParsePrefix("2001::/32")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	// Those that have an IPv4 address in their last 32 bits: IPv4-compatible, IPv4-translated and NAT64.
	embeddingAtTheEnd = prefixes("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)

// ownAddresses returns the addresses of this host, which do not change while a pod runs.
var ownAddresses = sync.OnceValue(func() []netip.Addr {
	var own []netip.Addr
	addresses, _ := net.InterfaceAddrs()
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			own = append(own, prefix.Addr())
		}
	}
	return own
})

// isRefused reports whether an address must not be called. Those of this host, loopback or not, may be only where that is said.
func isRefused(ip netip.Addr, allowLoopback bool) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsLinkLocalUnicast() && (ip.IsLoopback() || slices.Contains(ownAddresses(), ip)) {
		return !allowLoopback
	}
	if slices.ContainsFunc(refusedNetworks, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return true
	}
	return slices.ContainsFunc(embedded(ip), func(v4 netip.Addr) bool { return isRefused(v4, false) })
}

// embedded returns the IPv4 addresses that a gateway may take out of an IPv6 address.
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	at := func(i ...int) netip.Addr { return netip.AddrFrom4([4]byte{b[i[0]], b[i[1]], b[i[2]], b[i[3]]}) }
	last := at(12, 13, 14, 15)
	switch {
	case slices.ContainsFunc(embeddingAtTheEnd, func(p netip.Prefix) bool { return p.Contains(ip) }):
		return []netip.Addr{last}
	case nat64Local.Contains(ip): // RFC 6052, section 2.2, where the prefix may have 48, 56, 64 or 96 bits
		return []netip.Addr{at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12), last}
	case sixToFour.Contains(ip):
		return []netip.Addr{at(2, 3, 4, 5)}
	case teredo.Contains(ip): // RFC 4380, section 4: the server, and the client with its bits inverted
		return []netip.Addr{at(4, 5, 6, 7), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP: RFC 5214, section 6.1
		return []netip.Addr{last}
	}
	return nil
}

// dialer connects where the address, once it is known, may be called.
type dialer struct {
	allowLoopback bool
	proxy         string // host and port of the proxy of the environment, which may be anywhere; empty is none
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nd := &net.Dialer{Timeout: ConnectTimeout}
	if d.proxy == "" || address != d.proxy {
		nd.ControlContext = d.control
	}
	return nd.DialContext(ctx, network, address)
}

// control sees each address that a name has been resolved to, just before a connection to it is begun.
func (d dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || isRefused(to.Addr(), d.allowLoopback) {
		return ErrAddress
	}
	return nil
}

// proxyOf returns the proxy that the environment has for a URL, or nil. To one that is called over https it shows nothing but the host;
// over plain http it would be sent the token, and that is refused.
func proxyOf(u *url.URL) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	switch {
	case err != nil: // its text would repeat the proxy's URL, which may hold a password
		return nil, errors.New("the proxy of the environment cannot be read")
	case p != nil && u.Scheme != "https":
		return nil, ErrClearProxy
	}
	return p, nil
}

// onProxyAnswer refuses what is no connection to Grafana, as the transport would, and keeps the code.
func onProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return proxyCode(answer.StatusCode)
	}
	return nil
}

// proxyAddress returns the host and port at which a transport calls a proxy.
func proxyAddress(p *url.URL) string {
	port := p.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[p.Scheme]
	}
	return net.JoinHostPort(p.Hostname(), port)
}
