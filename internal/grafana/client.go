// Package grafana is a client of Grafana's Secrets Management HTTP API.
//
// It makes each call once, follows no redirect, sends the token to the configured origin alone, calls no address where no Grafana
// can be, and passes on no word of the server's. Facts about the API are from Grafana's documentation, page "Secrets Management API".
package grafana

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

const (
	maxObjectBytes = 128 << 10 // of an answer that is not a list
	maxListBytes   = 64 << 20  // of a list
	maxListedBytes = 512 << 10 // of one secure value in a list, or another part of it
	maxListed      = 100_000   // secure values in a list

	maxHeaderBytes = 64 << 10 // of an answer

	idleTimeout        = 4 * time.Second // below the shortest period of checks: a connection that nobody uses is not kept
	maxIdleConnections = 16
)

// ConnectTimeout bounds the making of a connection, and the handshake of TLS on it.
const ConnectTimeout = 5 * time.Second

// Config is what a client is made of.
type Config struct {
	// URL is where Grafana answers: http or https, a sub-path is allowed; no user, query or fragment.
	URL string
	// Namespace is Grafana's: default, org-<id> or stacks-<id>.
	Namespace string
	// APIVersion is the version of secret.grafana.app, for example v1beta1.
	APIVersion string
	// Token is that of a service account, or a user and a password.
	Token Token
	// AllowLoopback lets URL name, or resolve to, this host itself. Link-local addresses, those of metadata services and others where no
	// Grafana can be are refused in any case.
	AllowLoopback bool
	// CAData are the certificates (PEM) to trust; nil: those of the system.
	CAData []byte
	// ServerName is the name to look for on the certificate; empty: the host of URL.
	ServerName string
	// ClientCert and ClientKey (PEM) are what the client shows of itself; both, or both nil.
	ClientCert, ClientKey []byte
	// InsecureSkipVerify takes any certificate of the server's.
	InsecureSkipVerify bool
	// Timeout bounds one call, its body included. It must be positive.
	Timeout time.Duration
	// UserAgent is sent with each request.
	UserAgent string
	// Observe, if set, is called for each request: its operation (create, get, list, update or delete), the HTTP code, which is 0 without an
	// answer, and how long it took.
	Observe func(operation string, code int, took time.Duration)
}

// Client calls one namespace of one Grafana. It is safe for concurrent use. It keeps connections open; see
// CloseIdleConnections.
type Client struct {
	// transport is asked directly: what follows redirects, and looks at where they lead, is http.Client. It is replaced once a call on one of
	// its connections fails: a firewall that forgets one without a word may have forgotten all.
	transport  atomic.Pointer[http.Transport]
	collection *url.URL
	proxy      string // of the environment, without its password; empty is none
	cfg        Config
}

// New returns a client. No call is made. The error is ErrCA, ErrClientCert, ErrAddress or ErrClearProxy where it is about that.
func New(cfg Config) (*Client, error) {
	base, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyOf(base)
	if err != nil {
		return nil, err
	}
	switch ip, err := netip.ParseAddr(base.Hostname()); {
	case err == nil && isRefused(ip, cfg.AllowLoopback): // a proxy would be asked for it as it is
		return nil, ErrAddress
	case !segmentPattern.MatchString(cfg.Namespace):
		return nil, errors.New("the namespace must be default, org-<id> or stacks-<id>")
	case isCloud(base) && !strings.HasPrefix(cfg.Namespace, "stacks-"):
		return nil, errors.New("a host under .grafana.net needs the namespace stacks-<id>")
	case !segmentPattern.MatchString(cfg.APIVersion):
		return nil, errors.New("the API version must be one such as v1beta1")
	case !cfg.Token.IsPrintable():
		return nil, errors.New("the token contains characters that are not allowed")
	case cfg.Timeout <= 0:
		return nil, errors.New("the timeout must be positive")
	}
	tlsConfig, err := tlsConfigOf(cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, collection: base.JoinPath("apis", apiGroup, cfg.APIVersion, "namespaces", cfg.Namespace, "securevalues")}
	to := dialer{allowLoopback: cfg.AllowLoopback}
	if proxy != nil {
		to.proxy = proxyAddress(proxy)
		c.proxy = proxy.Scheme + "://" + proxy.Host
	}
	c.transport.Store(&http.Transport{
		Proxy:                  http.ProxyURL(proxy),
		OnProxyConnectResponse: onProxyAnswer,
		DialContext:            to.dial,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    ConnectTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    maxIdleConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		// Calls on a connection that is silent for as long as one may take end at once.
		HTTP2: &http.HTTP2Config{SendPingTimeout: cfg.Timeout / 2, PingTimeout: cfg.Timeout / 2},
	})
	return c, nil
}

func tlsConfigOf(cfg Config) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.ServerName,
		InsecureSkipVerify: cfg.InsecureSkipVerify, // whoever configures the client must have been asked
	}
	if cfg.CAData != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(cfg.CAData) {
			return nil, ErrCA
		}
	}
	if cfg.ClientCert != nil || cfg.ClientKey != nil {
		pair, err := tls.X509KeyPair(cfg.ClientCert, cfg.ClientKey)
		if err != nil { // its text is about what the Secret holds
			return nil, ErrClientCert
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// segmentPattern is what may stand between two slashes of the collection's path.
var segmentPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// parseURL reads the address of a Grafana, and refuses what could send the token elsewhere than a reader of it thinks.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil: // its text would repeat the URL
		return nil, errors.New("the URL cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the URL must begin with http:// or https://")
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("the URL names no host")
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && !isPort(u.Port()):
		return nil, errors.New("the port of the URL must be 1 to 65535")
	case u.User != nil:
		return nil, errors.New("the URL must not hold a user or password")
	case len(s) > maxURLBytes:
		return nil, errors.New("the URL must have at most 2048 characters")
	case strings.ContainsFunc(s, unicode.IsSpace):
		return nil, errors.New("the URL must not hold white space")
	case apisPattern.MatchString(s):
		return nil, errors.New("the URL must end before /apis")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, errors.New("the URL must not hold a query or fragment")
	}
	return u, checkHost(u)
}

// maxURLBytes is the longest URL of a Grafana.
const maxURLBytes = 2048

// apisPattern is how a URL ends that has the path of the API already.
var apisPattern = regexp.MustCompile(`[^/]/apis(/?$|/[^/?#]*[.]grafana[.]app(/|$))`)

// isCloud reports whether a URL names a stack of Grafana Cloud.
func isCloud(u *url.URL) bool {
	return strings.HasSuffix(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), ".grafana.net")
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// Create makes a secure value. ErrAlreadyExists says that the name is taken.
func (c *Client) Create(ctx context.Context, sv *SecureValue) (*SecureValue, error) {
	return c.write(ctx, opCreate, http.MethodPost, c.collection, sv)
}

// Update replaces a secure value by sv, labels and annotations included. ErrNotFound says that there is none to replace.
func (c *Client) Update(ctx context.Context, sv *SecureValue) (*SecureValue, error) {
	return c.write(ctx, opUpdate, http.MethodPut, c.item(sv.Name), sv)
}

func (c *Client) write(ctx context.Context, op operation, method string, u *url.URL, sv *SecureValue) (*SecureValue, error) {
	err := sv.Value.Validate() // what the server would mangle
	var body []byte
	if err == nil {
		body, err = encode(sv, c.cfg.APIVersion, c.cfg.Namespace)
	}
	if err != nil {
		return nil, &Error{Op: string(op), Name: sv.Name, kind: ErrInvalid, cause: err}
	}
	return c.one(ctx, op, method, u, sv.Name, body)
}

// Get returns a secure value, without its value.
func (c *Client) Get(ctx context.Context, name string) (*SecureValue, error) {
	return c.one(ctx, opGet, http.MethodGet, c.item(name), name, nil)
}

// one makes a call that answers with the secure value of that name.
func (c *Client) one(ctx context.Context, op operation, method string, u *url.URL, name string, body []byte) (*SecureValue, error) {
	var answer *SecureValue
	err := c.do(ctx, op, method, u, name, body, func(r io.Reader) error {
		content, err := readAll(r, maxObjectBytes)
		if err == nil {
			answer, err = decodeObject(content, name)
		}
		return err
	})
	return answer, err
}

// List visits each secure value of the namespace that matches the label selector, or all of them if it is empty, one at a time, so that no
// more than one need be in memory. What was visited before an error means nothing. The server leaves out, without a word, what the token may
// not read.
func (c *Client) List(ctx context.Context, labelSelector string, visit func(*SecureValue)) error {
	u := *c.collection
	if labelSelector != "" {
		u.RawQuery = url.Values{"labelSelector": {labelSelector}}.Encode()
	}
	return c.do(ctx, opList, http.MethodGet, &u, "", nil, func(r io.Reader) error {
		return decodeList(io.LimitReader(r, maxListBytes), visit)
	})
}

// Versions returns the versions of the API that the server offers, in its order. ErrAPINotServed says that it has none.
func (c *Client) Versions(ctx context.Context) ([]string, error) {
	u := *c.collection
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, c.belowGroup()), strings.TrimSuffix(u.RawPath, c.belowGroup())
	var versions []string
	err := c.do(ctx, opList, http.MethodGet, &u, "", nil, func(r io.Reader) error {
		content, err := readAll(r, maxObjectBytes)
		if err == nil {
			versions, err = decodeVersions(content)
		}
		return err
	})
	return versions, err
}

// belowGroup is what the path of the collection has after that of the API group.
func (c *Client) belowGroup() string {
	return "/" + c.cfg.APIVersion + "/namespaces/" + c.cfg.Namespace + "/securevalues"
}

// Delete deletes a secure value. ErrNotFound says that there is none. Only that of a later Get proves that the value is gone.
func (c *Client) Delete(ctx context.Context, name string) error {
	return c.do(ctx, opDelete, http.MethodDelete, c.item(name), name, nil, func(r io.Reader) error {
		_, err := readAll(r, maxObjectBytes)
		return err
	})
}

// CloseIdleConnections closes the connections that no call uses.
func (c *Client) CloseIdleConnections() { c.transport.Load().CloseIdleConnections() }

// failed says why there was no answer, or no whole one, and has further calls make connections of their own.
func (c *Client) failed(ctx context.Context, transport *http.Transport, err error) *Error {
	if c.transport.CompareAndSwap(transport, transport.Clone()) {
		transport.CloseIdleConnections()
	}
	if detail := proxyDetail(c.proxy, err); detail != "" {
		return &Error{kind: ErrUnreachable, cause: ErrProxy, Detail: detail}
	}
	return transportError(ctx, err)
}

// item returns the URL of a secure value. JoinPath would resolve "." and "..", so the name is escaped and appended.
func (c *Client) item(name string) *url.URL {
	u := *c.collection
	u.RawPath = u.EscapedPath() + "/" + url.PathEscape(name)
	u.Path += "/" + name
	return &u
}

// do makes one call, once. A success is read by decode, and one that it does not understand is
// ErrInvalidResponse.
func (c *Client) do(
	ctx context.Context, op operation, method string, u *url.URL, name string, body []byte, decode func(io.Reader) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()

	fail := func(e *Error) error {
		e.Op, e.Name = string(op), name
		return e
	}
	if op != opList && (name == "" || name == "." || name == "..") { // the path would be that of the collection, or above it
		return fail(&Error{kind: ErrInvalid})
	}
	req, err := c.request(ctx, method, u, body)
	if err != nil {
		return fail(&Error{kind: ErrInvalid, cause: err})
	}
	begun, code := time.Now(), 0
	if c.cfg.Observe != nil {
		defer func() { c.cfg.Observe(string(op), code, time.Since(begun)) }()
	}
	transport := c.transport.Load()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fail(c.failed(ctx, transport, err))
	}
	defer func() { _ = resp.Body.Close() }()
	code = resp.StatusCode

	if encoding := encodingOf(resp.Header); encoding != "" && tellsByBody(code) {
		return fail(&Error{kind: ErrInvalidResponse, cause: ErrEncoded, StatusCode: code, Detail: encoding})
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		content, _ := io.ReadAll(io.LimitReader(resp.Body, maxObjectBytes)) // the code alone is enough
		return fail(failure(resp.StatusCode, resp.Header, content, name, time.Now()))
	}
	tracked := &trackingReader{r: resp.Body}
	if err := decode(tracked); err != nil {
		if tracked.err != nil {
			e := c.failed(ctx, transport, tracked.err)
			e.StatusCode = resp.StatusCode
			return fail(e)
		}
		return fail(&Error{kind: ErrInvalidResponse, StatusCode: resp.StatusCode})
	}
	return nil
}

func (c *Client) request(ctx context.Context, method string, u *url.URL, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", c.cfg.Token.authorization())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity") // a small answer must not unfold into a large one
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if body != nil {
		// There is no GetBody, so the transport cannot send a write a second time by itself.
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// trackingReader remembers why a body could not be read.
type trackingReader struct {
	r   io.Reader
	err error
}

func (t *trackingReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// readAll reads a body of at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = errMalformed
	}
	return content, err
}
