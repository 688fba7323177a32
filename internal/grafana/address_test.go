package grafana_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// hostileURL is a row of testdata/urls.txt.
type hostileURL struct{ layer, url string }

func hostileURLs(t *testing.T) []hostileURL {
	t.Helper()
	content, err := os.ReadFile("testdata/urls.txt")
	if err != nil {
		t.Fatal(err)
	}
	var rows []hostileURL
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "#") {
			continue
		}
		layer, url, found := strings.Cut(line, "\t")
		if !found || layer != "schema" && layer != "client" {
			t.Fatalf("row %q", line)
		}
		rows = append(rows, hostileURL{layer, url})
	}
	return rows
}

func TestHostileURLsAreRefused(t *testing.T) {
	rows := hostileURLs(t)
	if len(rows) < 60 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		_, err := grafana.New(config(row.url))
		if err == nil {
			t.Errorf("%s was taken", row.url)
			continue
		}
		if row.layer == "client" && !errors.Is(err, grafana.ErrAddress) {
			t.Errorf("%s: %v, want %v", row.url, err, grafana.ErrAddress)
		}
		if strings.Contains(err.Error(), "password") && strings.Contains(row.url, "password") && !strings.Contains(err.Error(), "a user or password") {
			t.Errorf("%s is repeated: %v", row.url, err)
		}
	}
}

func TestLoopbackIsRefusedWhereItIsNotAllowed(t *testing.T) {
	for _, url := range []string{"http://127.0.0.1:3000", "http://127.1.2.3", "https://[::1]:3000", "http://localhost:1"} {
		cfg := config(url)
		if c, err := grafana.New(cfg); err != nil {
			t.Errorf("%s, allowed: %v", url, err)
		} else {
			c.CloseIdleConnections()
		}
		cfg.AllowLoopback = false
		c, err := grafana.New(cfg)
		if err == nil { // a name is not resolved before it is called
			_, err = list(t.Context(), c)
		}
		expectOnly(t, err, grafana.ErrAddress)
	}
}

// resolve makes names resolve to what answer says, in this process, until the test ends.
func resolve(t *testing.T, answer func(name string, lookup int) []netip.Addr) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before; _ = listener.Close() })
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", listener.LocalAddr().String())
		},
	}
	go func() {
		lookups := map[string]int{}
		packet := make([]byte, 1500)
		for {
			n, from, err := listener.ReadFrom(packet)
			if err != nil {
				return
			}
			name, kind, query := question(packet[:n])
			if kind == typeA {
				lookups[name]++
			}
			_, _ = listener.WriteTo(response(query, kind, answer(name, lookups[name])), from)
		}
	}()
}

const (
	typeA    = 1
	typeAAAA = 28
)

// question reads a query of DNS, and returns it without what follows the question: RFC 1035, section 4.1.
func question(packet []byte) (name string, kind uint16, query []byte) {
	at := 12
	var labels []string
	for packet[at] != 0 {
		n := int(packet[at])
		labels = append(labels, string(packet[at+1:at+1+n]))
		at += n + 1
	}
	return strings.Join(labels, "."), binary.BigEndian.Uint16(packet[at+1:]), packet[:at+5]
}

// response answers a query with the addresses that are of its kind.
func response(query []byte, kind uint16, addresses []netip.Addr) []byte {
	addresses = slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return a.Is4() != (kind == typeA) })
	out := bytes.Clone(query)
	copy(out[2:12], []byte{0x85, 0x80, 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0})
	for _, a := range addresses {
		content := a.AsSlice()
		out = append(out, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(content)))
		out = append(out, content...)
	}
	return out
}

func addresses(list ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, a := range list {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

// rebound is the fake Grafana under a name, and a client of it.
func rebound(t *testing.T, name string) (*grafanatest.Server, *grafana.Client) {
	t.Helper()
	server := grafanatest.New()
	server.AddToken(testToken)
	running := started(t, server.Start)
	return server, newClient(t, config(strings.Replace(running.URL, "127.0.0.1", name, 1)))
}

func TestNameThatLeadsElsewhereTheSecondTime(t *testing.T) {
	resolve(t, func(_ string, lookup int) []netip.Addr {
		if lookup == 2 {
			return addresses("169.254.169.254")
		}
		return addresses("127.0.0.1")
	})
	server, c := rebound(t, "rebound.test.")
	if _, err := list(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.CloseIdleConnections()
	_, err := c.Create(t.Context(), secureValue())
	expectOnly(t, err, grafana.ErrAddress)
	if _, err := list(t.Context(), c); err != nil {
		t.Errorf("after the name is right again: %v", err)
	}
	if calls := server.Calls(); len(calls) != 2 {
		t.Errorf("calls = %v", calls)
	}
}

func TestNamesThatLeadToARefusedAddress(t *testing.T) {
	names := map[string][]netip.Addr{
		"metadata.google.internal.": addresses("169.254.169.254"),
		"link-local.test.":          addresses("169.254.1.1"),
		"alibaba.test.":             addresses("100.100.100.200"),
		"azure.test.":               addresses("168.63.129.16"),
		"any.test.":                 addresses("0.0.0.0"),
		"multicast.test.":           addresses("224.0.0.251"),
		"broadcast.test.":           addresses("255.255.255.255"),
		"reserved.test.":            addresses("240.1.1.1"),
		"two.test.":                 addresses("169.254.169.254", "0.0.0.0"),
		"mapped.test.":              addresses("::ffff:169.254.169.254"),
	}
	resolve(t, func(name string, _ int) []netip.Addr { return names[name+"."] })
	for name := range names {
		_, c := rebound(t, name)
		for endpoint, call := range endpoints {
			t.Run(name+"/"+endpoint, func(t *testing.T) { expectOnly(t, call(t.Context(), c), grafana.ErrAddress) })
		}
	}
}

func TestARefusedAddressAmongOthersIsPassedOver(t *testing.T) {
	resolve(t, func(string, int) []netip.Addr { return addresses("169.254.169.254", "127.0.0.1") })
	_, c := rebound(t, "both.test.")
	if _, err := list(t.Context(), c); err != nil {
		t.Error(err)
	}
}

// proxyChild is set where the test runs again in a process that has the proxy in its environment, which is read once.
const proxyChild = "GRAFANA_TEST_PROXY_CHILD"

func TestProxies(t *testing.T) {
	if os.Getenv(proxyChild) != "" {
		callThroughProxy(t)
		return
	}
	server := grafanatest.New()
	server.AddToken(testToken)
	running := started(t, server.StartTLS)
	ca := t.TempDir() + "/ca.crt"
	if err := os.WriteFile(ca, running.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	proxy, seen := newProxy(t, strings.TrimPrefix(running.URL, "https://"))

	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxies$", "-test.v")
	child.Env = append(os.Environ(), proxyChild+"="+ca, "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "NO_PROXY=direct.test,10.0.0.0/8")
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(server.Calls()) != 1 {
		t.Errorf("calls = %v", server.Calls())
	}
	requests := seen()
	if len(requests) != 1 || !strings.HasPrefix(requests[0], "CONNECT grafana.test:443 ") {
		t.Errorf("the proxy was asked for %q", requests)
	}
	if strings.Contains(strings.Join(requests, ""), canary) {
		t.Errorf("the proxy saw the token: %q", requests)
	}
}

// callThroughProxy runs where the environment has a proxy, on a loopback address.
func callThroughProxy(t *testing.T) {
	ca, err := os.ReadFile(os.Getenv(proxyChild))
	if err != nil {
		t.Fatal(err)
	}
	secure := func(url string) grafana.Config {
		cfg := config(url)
		cfg.CAData, cfg.ServerName, cfg.AllowLoopback = ca, "example.com", false
		return cfg
	}
	if _, err := list(t.Context(), newClient(t, secure("https://grafana.test"))); err != nil {
		t.Errorf("over https: %v", err)
	}
	for url, want := range map[string]error{
		"http://grafana.test":          grafana.ErrClearProxy,
		"http://grafana.test:3000/x":   grafana.ErrClearProxy,
		"https://169.254.169.254":      grafana.ErrAddress,
		"https://[fd00:ec2::254]":      grafana.ErrAddress,
		"https://127.0.0.1":            grafana.ErrAddress,
		"http://direct.test":           nil,
		"http://10.0.0.5:3000":         nil,
		"https://[64:ff9b::a9fe:a9fe]": grafana.ErrAddress,
	} {
		if _, err := grafana.New(secure(url)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
	}
}

// proxyWant is what the test expects of the proxy, where it runs again with that in its environment.
const proxyWant = "GRAFANA_TEST_PROXY_WANT"

// A proxy that does not lead to Grafana is named, without its password.
func TestProxiesThatFailAreNamed(t *testing.T) {
	if want := os.Getenv(proxyWant); want != "" {
		_, err := list(t.Context(), newClient(t, config("https://grafana.test")))
		expectOnly(t, err, grafana.ErrUnreachable)
		if e, ok := errors.AsType[*grafana.Error](err); !ok || !errors.Is(err, grafana.ErrProxy) || e.Detail != want {
			t.Errorf("%v, detail %q, want %q", err, e.Detail, want)
		}
		return
	}
	answering := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://"+canary+".example.com")
			w.WriteHeader(code)
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 "+canary+"\r\n") // as another protocol begins
			_ = conn.Close()
		}
	}()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, row := range map[string]struct{ scheme, address, want string }{
		"a password is asked": {"http", answering(407), "the proxy %s answered with HTTP 407"},
		"the host is refused": {"http", answering(403), "the proxy %s answered with HTTP 403"},
		"no way to the host":  {"http", answering(502), "the proxy %s answered with HTTP 502"},
		"a redirect":          {"http", answering(301), "the proxy %s answered with HTTP 301"},
		"no TLS":              {"https", answering(200), "TLS with the proxy %s failed"},
		"nobody listens":      {"http", strings.TrimPrefix(closed.URL, "http://"), "there was no connection through the proxy %s"},
		"no SOCKS":            {"socks5", other.Addr().String(), "there was no connection through the proxy %s"},
	} {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxiesThatFailAreNamed$")
			child.Env = append(os.Environ(), "HTTPS_PROXY="+row.scheme+"://user:"+canary+"@"+row.address,
				proxyWant+"="+fmt.Sprintf(row.want, row.scheme+"://"+row.address))
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// newProxy starts a proxy that leads each CONNECT to target. seen returns the requests that it got, as they came.
func newProxy(t *testing.T, target string) (url string, seen func() []string) {
	t.Helper()
	var mu sync.Mutex
	var requests []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var head strings.Builder
		head.WriteString(r.Method + " " + r.Host + " ")
		_ = r.Header.Write(&head)
		mu.Lock()
		requests = append(requests, head.String())
		mu.Unlock()
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		far, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		near, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = far.Close()
			return
		}
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go tunnel(far, buffered.Reader, near)
		go tunnel(near, bufio.NewReader(far), far)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(requests)
	}
}

func tunnel(to net.Conn, from *bufio.Reader, source io.Closer) {
	defer func() { _, _ = to.Close(), source.Close() }()
	_, _ = io.Copy(to, from)
}

// The schema refuses both for spec.url. The address of a Grafana that a connection references passes no schema of ours.
func TestAddressesOfTheSchemaAreRefused(t *testing.T) {
	for name, row := range map[string]struct {
		url, namespace string
		refused        bool
	}{
		"2048 characters":                             {"https://h/" + strings.Repeat("a", 2038), "default", false},
		"2049 characters":                             {"https://h/" + strings.Repeat("a", 2039), "default", true},
		"a stack of Grafana Cloud":                    {"https://acme.grafana.net", "stacks-1", false},
		"Grafana Cloud without a stack":               {"https://acme.grafana.net", "default", true},
		"Grafana Cloud in capitals, with a dot":       {"https://acme.Grafana.NET.:443/x", "org-2", true},
		"a host that only looks like Grafana Cloud's": {"https://acme-grafana.net", "default", false},
	} {
		cfg := config(row.url)
		cfg.Namespace = row.namespace
		if _, err := grafana.New(cfg); (err != nil) != row.refused {
			t.Errorf("%s: %v, want it refused %t", name, err, row.refused)
		}
	}
}
