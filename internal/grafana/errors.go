package grafana

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What a call may fail with, to be asked with errors.Is. Secrets Management API, status codes of each endpoint.
var (
	// ErrUnauthorized: Grafana refuses the token (401).
	ErrUnauthorized = errors.New("token refused")
	// ErrForbidden: the token lacks the action (403).
	ErrForbidden = errors.New("action forbidden")
	// ErrNamespaceRejected: the token is not of this org or stack, or the namespace is none (403, or 500 in plain text).
	ErrNamespaceRejected = errors.New("namespace rejected")
	// ErrNotFound: there is no secure value of that name, or the token may not see it.
	ErrNotFound = errors.New("secure value not found")
	// ErrAPINotServed: the server does not know the API in this version (a 404 that speaks of no secure value).
	ErrAPINotServed = errors.New("API not served")
	// ErrAlreadyExists: the name is taken (409).
	ErrAlreadyExists = errors.New("name taken")
	// ErrConflict: it was changed since it was read (409).
	ErrConflict = errors.New("changed meanwhile")
	// ErrInvalid: the server refuses the object as it is (400, 413, 422), or would.
	ErrInvalid = errors.New("refused as invalid")
	// ErrRateLimited: too many requests (429).
	ErrRateLimited = errors.New("too many requests")
	// ErrUnavailable: the server, or what is in front of it, failed (any other answer).
	ErrUnavailable = errors.New("server failed")
	// ErrRedirect: the server wants the client to go elsewhere, which it never does.
	ErrRedirect = errors.New("redirect refused")
	// ErrTLS: the server's certificate could not be verified, or no connection be agreed on.
	ErrTLS = errors.New("TLS failed")
	// ErrAddress: the host is, or its name led to, an address that is never called. Nothing was sent.
	ErrAddress = errors.New("address refused")
	// ErrClearProxy: the URL is one of plain http, and the proxy of the environment would see the token. Nothing was sent.
	ErrClearProxy = errors.New("plain http through a proxy refused")
	// ErrUnreachable: there was no answer, or no whole one. What became of a write is not known.
	ErrUnreachable = errors.New("no answer")
	// ErrInvalidResponse: the answer claims success and is not one of the API. What became of a write is not known.
	ErrInvalidResponse = errors.New("not an answer of the API")
)

// What New may fail with beside ErrAddress and ErrClearProxy. Both are ErrTLS too.
var (
	// ErrCA: CAData holds no certificate.
	ErrCA = fmt.Errorf("%w: the CA holds no PEM certificate", ErrTLS)
	// ErrClientCert: ClientCert and ClientKey are not a certificate and its key.
	ErrClientCert = fmt.Errorf("%w: the client certificate and key are not a pair in PEM", ErrTLS)
)

// Why a server is ErrUnreachable, as far as it is known. Where there was no answer within the timeout, that is
// context.DeadlineExceeded.
var (
	// ErrNoTLS: the server does not speak TLS.
	ErrNoTLS = errors.New("no TLS")
	// ErrUnknownAuthority: no trusted authority signed the certificate of the server.
	ErrUnknownAuthority = errors.New("unknown authority")
	// ErrServerName: the certificate of the server is for another name.
	ErrServerName = errors.New("another name")
	// ErrUnresolved: no address was found for the name of the host.
	ErrUnresolved = errors.New("name not resolved")
	// ErrConnectionRefused: nobody listens at the port.
	ErrConnectionRefused = errors.New("connection refused")
	// ErrConnectTimeout: there was no connection within ConnectTimeout.
	ErrConnectTimeout = errors.New("no connection in time")
	// ErrEncoded: the answer is encoded, as Detail says, although no encoding is accepted.
	ErrEncoded = errors.New("answer encoded")
	// ErrProxy: it is the proxy of the environment that failed, as Detail says.
	ErrProxy = errors.New("proxy failed")
)

// maxRetryAfter bounds how long a server can make its clients wait.
const maxRetryAfter = 15 * time.Minute

// operation is one of the five calls.
type operation string

const (
	opCreate operation = "create"
	opGet    operation = "get"
	opList   operation = "list"
	opUpdate operation = "update"
	opDelete operation = "delete"
)

// Error is a call that failed. Its text is our own: it holds the HTTP code, and of the server's answer only reasons and
// field names that are known beforehand.
type Error struct {
	Op         string        // create, get, list, update or delete
	Name       string        // of the secure value; empty for list
	StatusCode int           // 0 where there was no answer
	Fields     []string      // that the server finds invalid, if it is ErrInvalid
	RetryAfter time.Duration // that the server asks for; 0 where it does not, at most 15 minutes
	Detail     string        // of an ErrProxy or ErrEncoded, in our own words

	kind  error // one of the sentinels
	cause error // of this side; may be nil. It is never printed: it may hold the server's words
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		fmt.Fprintf(&b, " secure value %q", e.Name)
	} else {
		b.WriteString(" secure values")
	}
	b.WriteString(": " + e.kind.Error())
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.StatusCode)
	}
	if len(e.Fields) > 0 {
		b.WriteString(": " + strings.Join(e.Fields, ", "))
	}
	return b.String()
}

// Format prints the text, whatever the verb, so that the cause is not printed with %#v.
func (e *Error) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(e.Error())) }

// Unwrap gives the sentinel, and the cause on this side, as context.Canceled.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// Action is the permission in Grafana that the call needs: Secrets Management API, "Required permissions" of each endpoint.
func (e *Error) Action() string {
	action := "read"
	switch operation(e.Op) {
	case opCreate:
		action = "create"
	case opUpdate:
		action = "write"
	case opDelete:
		action = "delete"
	case opGet, opList:
	}
	return "secret.securevalues:" + action
}

// wireFailure is the part of a Status of the API that is used.
type wireFailure struct {
	Kind    string `json:"kind"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Details struct {
		Name              string                  `json:"name"`
		Kind              string                  `json:"kind"`
		RetryAfterSeconds int64                   `json:"retryAfterSeconds"`
		Causes            [MaxDecrypters]struct { // more are not kept
			Field string `json:"field"`
		} `json:"causes"`
	} `json:"details"`
}

// failure reads an answer that is no success, to a call about the secure value of that name; it is empty for a list.
func failure(code int, header http.Header, body []byte, name string, now time.Time) *Error {
	var status wireFailure
	switch err := json.Unmarshal(body, &status); {
	case err != nil:
		status = wireFailure{}
	case status.Kind != "Status":
		status = wireFailure{Message: status.Message}
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil { // Retry-After is by the server's clock
		now = date
	}
	return &Error{
		StatusCode: code,
		Fields:     knownFields(status),
		RetryAfter: retryAfter(header, status, now),
		kind:       kindOf(code, status, body, name),
	}
}

// kindOf says which sentinel an answer means. One that has not Grafana's form may be of what is in front of it: its code says nothing of
// the token, the API or the value.
func kindOf(code int, status wireFailure, body []byte, name string) error {
	isStatus := status.Kind == "Status"
	switch {
	case code >= 300 && code < 400:
		return ErrRedirect
	case code == http.StatusUnauthorized && status.Message != "":
		return ErrUnauthorized
	case code == http.StatusForbidden && namespacePattern.MatchString(status.Message):
		return ErrNamespaceRejected
	case code == http.StatusForbidden && status.Reason == "Forbidden":
		return ErrForbidden
	case code == http.StatusNotFound && status.speaksOf(name):
		return ErrNotFound
	case code == http.StatusNotFound && (status.Message != "" || unknownPathPattern.Match(body)):
		return ErrAPINotServed
	case code == http.StatusConflict && status.Reason == "AlreadyExists":
		return ErrAlreadyExists
	case code == http.StatusConflict && isStatus:
		return ErrConflict
	case isStatus && (code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity):
		return ErrInvalid
	case code == http.StatusTooManyRequests:
		return ErrRateLimited
	case code == http.StatusInternalServerError && bytes.HasPrefix(body, []byte("Internal Server Error: ")) && namespacePattern.Match(body):
		return ErrNamespaceRejected
	default:
		return ErrUnavailable
	}
}

// speaksOf reports whether a Status says that the secure value of that name is not there. Another name or kind would mean that
// something else is missing, as the namespace: then nothing is known about the value, which must not pass as deleted.
func (f wireFailure) speaksOf(name string) bool {
	return f.Reason == "NotFound" && strings.HasPrefix(strings.ToLower(f.Details.Kind), "securevalue") &&
		(f.Details.Name == "" || f.Details.Name == name)
}

// unknownPathPattern is how Grafana answers about a path that it does not know. Versions before 12.2 may list those that they know.
var unknownPathPattern = regexp.MustCompile(`^(404 page not found|\{\s*"paths":)`)

// namespacePattern is how Grafana says that the org or stack, and not an action, is what it refuses. None of it can be part of a
// name, which holds no space.
var namespacePattern = regexp.MustCompile(`(?i)invalid (org|stack|namespace)|use default rather than `)

// fieldPattern is how the API names the fields that it finds invalid.
var fieldPattern = regexp.MustCompile(`^(metadata\.(name|namespace|labels|annotations|ownerReferences)|` +
	`spec(\.(description|value|ref|keeper|decrypters(\.?\[\d{1,3}\])?))?)$`)

// knownFields returns the names of the fields that the server finds invalid, as far as they are names that we know.
func knownFields(status wireFailure) []string {
	var fields []string
	for _, cause := range status.Details.Causes {
		if fieldPattern.MatchString(cause.Field) {
			fields = append(fields, strings.Replace(cause.Field, ".[", "[", 1))
		}
	}
	return fields
}

// encodingOf names the encoding of an answer, if it is a known one; "" is none.
func encodingOf(header http.Header) string {
	switch encoding := strings.ToLower(header.Get("Content-Encoding")); encoding {
	case "identity":
		return ""
	case "", "gzip", "x-gzip", "deflate", "compress", "br", "zstd":
		return encoding
	default:
		return "an unknown encoding"
	}
}

// tellsByBody reports whether the code of an answer does not tell enough.
func tellsByBody(code int) bool {
	return code < 300 || code >= 400 && code < 500 && code != http.StatusTooManyRequests
}

// retryAfter returns how long the server asks to wait: RFC 9110, section 10.2.3, or the details of a Status.
func retryAfter(header http.Header, status wireFailure, now time.Time) time.Duration {
	wait := parseRetryAfter(header.Get("Retry-After"), now)
	if seconds := status.Details.RetryAfterSeconds; wait == 0 && seconds > 0 {
		wait = time.Duration(min(seconds, int64(maxRetryAfter/time.Second))) * time.Second
	}
	return wait
}

// parseRetryAfter reads seconds or a date. What it does not understand is no wait.
func parseRetryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// proxyCode is the HTTP code with which a proxy refuses to connect to Grafana.
type proxyCode int

func (proxyCode) Error() string { return ErrProxy.Error() }

// proxyDetail says how the proxy failed; "" is that it did not.
func proxyDetail(proxy string, err error) string {
	code, refused := errors.AsType[proxyCode](err)
	operation, _ := errors.AsType[*net.OpError](err)
	switch {
	case refused:
		return fmt.Sprintf("the proxy %s answered with HTTP %d", proxy, code)
	case operation == nil || operation.Op != "proxyconnect" && operation.Op != "socks connect": // as http.Transport names them
		return ""
	case isTLS(operation.Err):
		return fmt.Sprintf("TLS with the proxy %s failed", proxy)
	default:
		return "there was no connection through the proxy " + proxy
	}
}

// transportError says why there was no answer, or no whole one.
func transportError(ctx context.Context, err error) *Error {
	switch {
	case errors.Is(err, ErrAddress):
		return &Error{kind: ErrAddress}
	case ctx.Err() != nil:
		return &Error{kind: ErrUnreachable, cause: ctx.Err()}
	case isTLS(err):
		return &Error{kind: ErrTLS, cause: tlsCauseOf(err)}
	default:
		return &Error{kind: ErrUnreachable, cause: causeOf(err)}
	}
}

// causeOf says why there was no connection, in our own words; nil is not known.
func causeOf(err error) error {
	var (
		name    *net.DNSError
		bounded net.Error
	)
	switch {
	case errors.As(err, &name):
		return ErrUnresolved
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrConnectionRefused
	case errors.As(err, &bounded) && bounded.Timeout():
		return ErrConnectTimeout
	default:
		return nil
	}
}

// tlsCauseOf says why TLS failed; nil is not known.
func tlsCauseOf(err error) error {
	var (
		record    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
	)
	switch {
	case errors.As(err, &record):
		return ErrNoTLS
	case errors.As(err, &authority):
		return ErrUnknownAuthority
	case errors.As(err, &name):
		return ErrServerName
	default:
		return nil
	}
}

// isTLS reports whether an error is one of TLS. Those have no type in common: there are two for certificates and for what is
// not TLS at all, alerts are known by the operation, and the rest by how their text begins.
func isTLS(err error) bool {
	var (
		record       tls.RecordHeaderError
		verification *tls.CertificateVerificationError
		operation    *net.OpError
	)
	return errors.As(err, &record) || errors.As(err, &verification) ||
		errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error") ||
		strings.HasPrefix(err.Error(), "tls: ")
}
