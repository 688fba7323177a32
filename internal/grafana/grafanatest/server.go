// Package grafanatest is a fake Grafana: an in-memory server of the Secrets Management API. It has switches for behaviour that is not
// certain, scripted faults, and a record of calls.
package grafanatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
)

// Stored is a secure value as the server stores it.
type Stored struct {
	Name            string
	UID             string
	Version         int64
	CreatedAt       time.Time
	UpdatedAt       time.Time
	Labels          map[string]string
	Annotations     map[string]string
	OwnerReferences []OwnerReference
	Description     string
	Decrypters      []string
	Value           []byte
	Keeper          string
}

// OwnerReference names the resource of Grafana that a secure value belongs to.
type OwnerReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

func (s Stored) clone() Stored {
	s.Labels, s.Annotations = maps.Clone(s.Labels), maps.Clone(s.Annotations)
	s.OwnerReferences, s.Decrypters, s.Value = slices.Clone(s.OwnerReferences), slices.Clone(s.Decrypters), slices.Clone(s.Value)
	return s
}

// Server is the state of a Grafana, and serves it as an http.Handler. It is safe for concurrent use.
type Server struct {
	options options

	mu       sync.Mutex
	tokens   map[string][]Permission
	values   map[string]map[string]*Stored // by namespace and name
	versions map[string]int64              // the highest ever, by namespace and name: a recreated value continues from it
	faults   []*Fault
	latency  time.Duration
	calls    []*Call
	closed   chan struct{}
}

type options struct {
	basePath               string
	apiVersion             string
	namespaces             []string
	notServed              bool
	invalidAs400           bool
	dropLabels             bool
	omitStatus             bool
	enforceResourceVersion bool
	longDescriptions       bool
	words                  string
}

// Option switches a behaviour.
type Option func(*options)

// WithBasePath serves the API under a sub-path, for example /grafana.
func WithBasePath(path string) Option {
	return func(o *options) { o.basePath = strings.TrimRight(path, "/") }
}

// WithNamespaces sets the namespaces that exist. Without it there is only default.
func WithNamespaces(namespaces ...string) Option {
	return func(o *options) { o.namespaces = namespaces }
}

// WithAPINotServed answers as the open source edition does: 404 in plain text.
func WithAPINotServed() Option { return func(o *options) { o.notServed = true } }

// WithInvalidAs400 answers 400 instead of 422.
func WithInvalidAs400() Option { return func(o *options) { o.invalidAs400 = true } }

// WithLabelsDropped drops labels and annotations.
func WithLabelsDropped() Option { return func(o *options) { o.dropLabels = true } }

// WithoutStatus answers without status.
func WithoutStatus() Option { return func(o *options) { o.omitStatus = true } }

// WithResourceVersionEnforced refuses a PUT whose resourceVersion is old.
func WithResourceVersionEnforced() Option {
	return func(o *options) { o.enforceResourceVersion = true }
}

// WithLongDescriptions takes descriptions of any length.
func WithLongDescriptions() Option { return func(o *options) { o.longDescriptions = true } }

// WithWords puts these words, of letters, digits and "-", into headers of each answer, Location among them, and into the message of each
// failure.
func WithWords(words string) Option { return func(o *options) { o.words = words } }

// New returns a server without values and tokens.
func New(opts ...Option) *Server {
	s := &Server{
		options:  options{apiVersion: "v1beta1", namespaces: []string{"default"}},
		tokens:   map[string][]Permission{},
		values:   map[string]map[string]*Stored{},
		versions: map[string]int64{},
		closed:   make(chan struct{}),
	}
	for _, opt := range opts {
		opt(&s.options)
	}
	return s
}

// Running is a server that listens.
type Running struct {
	// URL is the address of the API, including its sub-path.
	URL string
	// CA is the certificate (PEM) to trust; empty without TLS.
	CA []byte

	server *httptest.Server
	state  *Server
}

// Start serves the state over plain HTTP on a free port of the loopback interface.
func (s *Server) Start() (*Running, error) { return s.start(nil) }

// StartTLS serves the state over TLS. The certificate is for example.com and the loopback addresses.
func (s *Server) StartTLS() (*Running, error) {
	return s.start(&tls.Config{MinVersion: tls.VersionTLS12})
}

// StartMutualTLS is StartTLS, and requires a client certificate that the given CA (PEM) has signed. A self-signed one is its own CA.
func (s *Server) StartMutualTLS(clientCA []byte) (*Running, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(clientCA) {
		return nil, errors.New("the CA of clients is not PEM")
	}
	return s.start(&tls.Config{
		MinVersion: tls.VersionTLS12,
		// In TLS 1.3 a client sends its request before it is refused, and the refusal can be lost with the connection.
		MaxVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
}

// ClientCertificate makes a self-signed certificate and its key, both PEM.
func ClientCertificate() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func (s *Server) start(secure *tls.Config) (*Running, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with Close
	if err != nil {
		return nil, fmt.Errorf("listen for the fake Grafana: %w", err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}}
	running := &Running{server: server, state: s}
	if secure != nil {
		server.EnableHTTP2, server.TLS = true, secure
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail on purpose
		server.StartTLS()
		running.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	} else {
		server.Start()
	}
	running.URL = server.URL + s.options.basePath
	return running, nil
}

// Close stops the server and ends the calls that hang in it.
func (r *Running) Close() {
	close(r.state.closed)
	r.server.CloseClientConnections()
	r.server.Close()
}

// Permission grants a token an action in one namespace or, with "*", in all.
type Permission struct {
	Action    Action
	Namespace string
	// Name restricts the permission to one secure value; empty is all.
	Name string
}

// AllPermissions are the four actions in every namespace.
func AllPermissions() []Permission {
	return []Permission{
		{Action: ActionCreate, Namespace: "*"},
		{Action: ActionRead, Namespace: "*"},
		{Action: ActionWrite, Namespace: "*"},
		{Action: ActionDelete, Namespace: "*"},
	}
}

// AddToken makes the server accept a token with the given permissions; the default is AllPermissions.
func (s *Server) AddToken(token string, permissions ...Permission) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if permissions == nil {
		permissions = AllPermissions()
	}
	s.tokens[token] = permissions
}

// AddUser makes the server accept a user with that password, with AllPermissions.
func (s *Server) AddUser(user, password string) { s.AddToken(asToken(user, password)) }

// asToken returns what stands for a user and a password among the tokens. No token has a space.
func asToken(user, password string) string { return "user " + user + ":" + password }

// RevokeToken makes the server refuse a token.
func (s *Server) RevokeToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// Value returns what is stored under a name.
func (s *Server) Value(namespace, name string) (Stored, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.values[namespace][name]; v != nil {
		return v.clone(), true
	}
	return Stored{}, false
}

// Values returns what is stored in a namespace, by name.
func (s *Server) Values(namespace string) map[string]Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[string]Stored{}
	for name, v := range s.values[namespace] {
		values[name] = v.clone()
	}
	return values
}

// ErrNotDecrypted says that there is no such value, or that it does not name the decrypter.
var ErrNotDecrypted = errors.New("not for this decrypter")

// Decrypt returns the value that a decrypter in Grafana would get.
func (s *Server) Decrypt(namespace, name, decrypter string) ([]byte, error) {
	v, found := s.Value(namespace, name)
	if !found || !slices.Contains(v.Decrypters, decrypter) { // compared as stored, spaces included
		return nil, ErrNotDecrypted
	}
	return v.Value, nil
}

// Put stores a value as another writer would. The server sets UID, Version and times, as with each write.
func (s *Server) Put(namespace string, v Stored) Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store(namespace, v).clone()
}

// Remove deletes a value as another writer would.
func (s *Server) Remove(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values[namespace], name)
}

// CollectGarbage forgets the versions of deleted values, as the server does after some time: a reused name then begins with version 1.
func (s *Server) CollectGarbage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.versions {
		namespace, name, _ := strings.Cut(key, "/")
		if s.values[namespace][name] == nil {
			delete(s.versions, key)
		}
	}
}

// store writes a new version of a value. s.mu must be locked.
func (s *Server) store(namespace string, v Stored) *Stored {
	key := namespace + "/" + v.Name
	s.versions[key]++
	v = v.clone()
	v.UID = string(uuid.NewUUID()) // a new one with each version
	v.Version = s.versions[key]
	v.UpdatedAt = time.Now().UTC().Truncate(time.Second)
	v.Keeper = "system"
	if old := s.values[namespace][v.Name]; old != nil {
		v.CreatedAt = old.CreatedAt
		v.OwnerReferences = old.OwnerReferences // a client cannot change them
	} else {
		v.CreatedAt = v.UpdatedAt
	}
	if s.options.dropLabels {
		v.Labels, v.Annotations = nil, nil
	}
	if s.values[namespace] == nil {
		s.values[namespace] = map[string]*Stored{}
	}
	s.values[namespace][v.Name] = &v
	return &v
}
