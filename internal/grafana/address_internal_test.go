package grafana

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// The dialer gets addresses as the network library writes them, zones included.
func TestControlSeesTheAddress(t *testing.T) {
	for address, want := range map[string]error{
		"10.0.0.5:3000":                       nil,
		"100.64.1.1:443":                      nil, // some clusters have their pods there
		"192.168.1.1:80":                      nil,
		"8.8.8.8:443":                         nil,
		"[fd00::1]:3000":                      nil,
		"[2001:4860:4860::8888]:443":          nil,
		"[64:ff9b::808:808]:443":              nil, // NAT64 of a public address
		"[::ffff:10.0.0.5]:3000":              nil,
		"127.0.0.1:3000":                      ErrAddress,
		"127.9.9.9:3000":                      ErrAddress,
		"[::1]:3000":                          ErrAddress,
		"[::ffff:127.0.0.1]:3000":             ErrAddress,
		"0.0.0.0:3000":                        ErrAddress,
		"[::]:3000":                           ErrAddress,
		"169.254.169.254:80":                  ErrAddress,
		"[::ffff:169.254.169.254]:80":         ErrAddress,
		"[::ffff:100.100.100.200]:80":         ErrAddress,
		"[64:ff9b::a9fe:a9fe]:80":             ErrAddress,
		"[2002:a9fe:a9fe::]:80":               ErrAddress,
		"[fe80::1%eth0]:80":                   ErrAddress,
		"[fd00:ec2::254]:80":                  ErrAddress,
		"[fd00:a9fe:a9fe::1]:80":              ErrAddress,
		"[ff02::1%eth0]:80":                   ErrAddress,
		"255.255.255.255:80":                  ErrAddress,
		"metadata.google.internal:80":         ErrAddress, // not resolved: it must not come here
		"/var/run/docker.sock":                ErrAddress,
		"":                                    ErrAddress,
		"[2001:db8:0:0:0:5efe:a9fe:a9fe]:80":  ErrAddress,
		"[2001:db8:0:0:200:5efe:a00:5]:80":    nil,
		"[2001:0:7f00:1:0:0:f5ff:fffa]:80":    ErrAddress,
		"[64:ff9b:1:a9fe:a9:fe00:0:0]:80":     ErrAddress,
		"[64:ff9b:1:a00:0:500:0:808:808]:443": ErrAddress, // no address at all
	} {
		if err := (dialer{}).control(t.Context(), "tcp", address, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
	for _, loopback := range []string{"127.0.0.1:3000", "[::1]:3000", "[::ffff:127.0.0.1]:3000"} {
		if err := (dialer{allowLoopback: true}).control(t.Context(), "tcp", loopback, nil); err != nil {
			t.Errorf("%s, where loopback is allowed: %v", loopback, err)
		}
	}
	if !isRefused(netip.MustParseAddr("64:ff9b::7f00:1"), true) {
		t.Error("a gateway's own loopback address counts as ours")
	}
}

// What listens on all addresses of the pod is reached at each of them as it is at a loopback address.
func TestThePodsOwnAddressesAreRefused(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, address := range addresses {
		prefix := netip.MustParsePrefix(address.String())
		ip := prefix.Addr()
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		tried++
		forms := []netip.Addr{ip}
		if ip.Is4() {
			b := ip.As4()
			forms = append(forms, netip.AddrFrom16(ip.As16()), netip.MustParseAddr(fmt.Sprintf("64:ff9b::%02x%02x:%02x%02x", b[0], b[1], b[2], b[3])))
		}
		for i, form := range forms {
			to := netip.AddrPortFrom(form, 3000).String()
			if err := (dialer{}).control(t.Context(), "tcp", to, nil); !errors.Is(err, ErrAddress) {
				t.Errorf("%s: %v, want %v", to, err, ErrAddress)
			}
			if err := (dialer{allowLoopback: true}).control(t.Context(), "tcp", to, nil); err != nil && i < 2 {
				t.Errorf("%s, where loopback is allowed: %v", to, err)
			}
		}
	}
	if tried == 0 {
		t.Skip("this machine has no addresses but loopback and link-local ones")
	}
}

func TestProxyAddress(t *testing.T) {
	for proxy, want := range map[string]string{
		"http://proxy":            "proxy:80",
		"https://proxy":           "proxy:443",
		"socks5://proxy":          "proxy:1080",
		"http://u:p@proxy:3128":   "proxy:3128",
		"http://[fd00::1]:3128":   "[fd00::1]:3128",
		"https://proxy.internal.": "proxy.internal.:443",
	} {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		if got := proxyAddress(u); got != want {
			t.Errorf("%s: %s, want %s", proxy, got, want)
		}
	}
}

// What a name resolves to, and what does not answer, depends on the machine, so these errors are constructed.
func TestCauseOf(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, row := range map[string]struct{ err, want error }{
		"no such name":          {dial(&net.DNSError{Err: "no such host", Name: "canary", IsNotFound: true}), ErrUnresolved},
		"no answer of a server": {dial(&net.DNSError{Err: "i/o timeout", Name: "canary", IsTimeout: true}), ErrUnresolved},
		"nobody listens":        {dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), ErrConnectionRefused},
		"no connection":         {dial(os.ErrDeadlineExceeded), ErrConnectTimeout},
		"broken off":            {io.ErrUnexpectedEOF, nil},
		"no route":              {dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := transportError(t.Context(), row.err)
			if !errors.Is(got, ErrUnreachable) || row.want != nil && !errors.Is(got, row.want) || row.want == nil && got.cause != nil {
				t.Errorf("%v, because of %v", got, got.cause)
			}
		})
	}
}

func TestNoConnectionIsKeptFromOneCheckToTheNext(t *testing.T) {
	shortest := (&v1alpha1.ConnectionSpec{ResyncPeriod: "5s"}).ResyncInterval()
	if shorter := (&v1alpha1.ConnectionSpec{ResyncPeriod: "4.999s"}).ResyncInterval(); shorter < shortest || idleTimeout >= shortest {
		t.Errorf("idle for %s, and checked every %s or less", idleTimeout, min(shortest, shorter))
	}
}
