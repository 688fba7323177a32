// Package fingerprint recognises a value without keeping it.
//
// A fingerprint is HMAC-SHA256 under a random key of the installation. It is bound to the object and the target that it was
// made for, so that two objects with the same value show different ones, and nobody can use one object to test a guess about
// another's value.
package fingerprint

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// version names the way a fingerprint is computed; it is the first part of each.
const version = "v1"

// Key makes fingerprints. Its zero value is not usable; see NewKey and ParseKey. It does not print.
type Key struct {
	id     string
	secret func() []byte // behind a function, since fmt asks no methods of fields that are not exported
}

// NewKey returns a random key.
func NewKey() Key {
	var secret [KeySize]byte
	_, _ = rand.Read(secret[:]) // never fails, says crypto/rand
	return keyOf(secret)
}

// ParseKey returns the key made of b, which must be KeySize bytes long.
func ParseKey(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("a fingerprint key is %d bytes long, not %d", KeySize, len(b))
	}
	return keyOf([KeySize]byte(b)), nil
}

func keyOf(secret [KeySize]byte) Key {
	return Key{id: keyID(secret), secret: func() []byte { return secret[:] }}
}

// Bytes returns the key's bytes, to be stored.
func (k Key) Bytes() []byte { return k.secret() }

// Format keeps the key out of anything that is printed.
func (k Key) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[fingerprint key %s]", k.id) }

// Of returns the fingerprint of value for the given subject: the object's UID and the parts of its target. Subjects of other
// parts never share a fingerprint, since each part is written with its length.
func (k Key) Of(value []byte, subject ...string) string {
	mac := hmac.New(sha256.New, k.secret())
	WriteParts(mac, subject...)
	WriteParts(mac, string(value))
	return strings.Join([]string{version, k.id, base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}, ":")
}

// Equal reports whether two fingerprints are of the same value, in constant time. An empty one equals none.
func Equal(a, b string) bool {
	return a != "" && hmac.Equal([]byte(a), []byte(b))
}

// keyID identifies a key without revealing it.
func keyID(secret [KeySize]byte) string {
	h := sha256.New()
	WriteParts(h, "grafana-secure-value-operator fingerprint key id", string(secret[:]))
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// WriteParts writes each part with its length before it, so that no two different lists of parts make the same bytes. The writer must
// not fail, as a hash does not.
func WriteParts(w io.Writer, parts ...string) {
	for _, part := range parts {
		_ = binary.Write(w, binary.BigEndian, uint64(len(part)))
		_, _ = io.WriteString(w, part)
	}
}

// The right to create Secrets cannot be limited to a name, and would let whoever has the manager's token make itself a token of every other
// ServiceAccount of the namespace. So the installation makes the Secret, empty, and the manager fills it.
//
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=grafana-secure-value-operator-fingerprint,verbs=get;update

const (
	// SecretName is the name of the Secret that holds the key, in the operator's namespace.
	SecretName = "grafana-secure-value-operator-fingerprint"
	// SecretType is the type of that Secret. No connection may read a Secret of this type.
	SecretType corev1.SecretType = "grafana.securevalues.io/fingerprint-key"

	dataKey     = "key"
	retryPeriod = time.Second
)

// errNotAKey says that the Secret is there and does not hold a key: only a person can decide what to do.
var errNotAKey = errors.New("no fingerprint key")

// Store holds the key of this installation. It reads it from the Secret when it is started, or makes it once and fills the Secret.
//
// It is a manager.Runnable of the leader alone, so that one process at a time makes a key.
type Store struct {
	reader    client.Reader
	writer    client.Writer
	namespace string

	loaded  chan struct{} // closed once key is set
	key     Key
	failure atomic.Pointer[failure] // why there is no key yet, once a try has failed
}

type failure struct {
	text string // what to do
	err  error
}

// ErrNotLoaded says that the key is not there yet. It is looked for again and again.
var ErrNotLoaded = errors.New("the fingerprint key is not available yet")

// NewStore returns a store whose Secret lives in the given namespace. The reader must read it live.
func NewStore(reader client.Reader, writer client.Writer, namespace string) *Store {
	return &Store{reader: reader, writer: writer, namespace: namespace, loaded: make(chan struct{})}
}

// Start reads or makes the key, as often as it takes. It ends with an error if the Secret is there and is not ours.
func (s *Store) Start(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("fingerprint")
	err := wait.PollUntilContextCancel(ctx, retryPeriod, true, func(ctx context.Context) (bool, error) {
		key, err := s.load(ctx)
		if errors.Is(err, errNotAKey) {
			return false, err
		}
		if err != nil { // the API server is away, or refuses what it may grant later
			failed := failure{s.explain(err), err}
			if old := s.failure.Swap(&failed); old == nil || old.text != failed.text {
				log.Info("No secure value is written before the fingerprint key is there: " + failed.text)
			}
			return false, nil
		}
		s.key = key
		s.failure.Store(nil)
		close(s.loaded)
		return true, nil
	})
	if errors.Is(err, context.Canceled) { // stopped before the key was there
		return nil
	}
	return err
}

// keyTimeout is how long Key waits: long enough for the start of a process, too short to block its workers.
const keyTimeout = time.Second

// Key returns the key. Where it is not there within a second, the error is ErrNotLoaded, with its cause.
func (s *Store) Key(ctx context.Context) (Key, error) {
	select {
	case <-s.loaded:
		return s.key, nil
	case <-time.After(keyTimeout):
		if failed := s.failure.Load(); failed != nil {
			return Key{}, errors.Join(ErrNotLoaded, failed.err)
		}
		return Key{}, ErrNotLoaded
	case <-ctx.Done():
		return Key{}, ctx.Err()
	}
}

// Check fails while the key is looked for and not there. It is a healthz.Checker.
func (s *Store) Check(*http.Request) error {
	if failure := s.failure.Load(); failure != nil {
		return errors.New(failure.text)
	}
	return nil
}

// explain says what to do next.
func (s *Store) explain(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("Secret %s is not there: create it: %s; or name the namespace that the operator runs in by --operator-namespace",
			SecretName, howToCreate(s.namespace))
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("grant get and update on Secret %s in namespace %q to the ServiceAccount of the operator, as the Role of the installation does", SecretName, s.namespace)
	default:
		return err.Error()
	}
}

// howToCreate returns the command that creates the Secret as an installation does.
func howToCreate(namespace string) string {
	return fmt.Sprintf("kubectl create secret generic %s --type=%s -n %s", SecretName, SecretType, namespace)
}

// load returns the key that the Secret holds, and fills the Secret if it is empty.
func (s *Store) load(ctx context.Context) (Key, error) {
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: s.namespace, Name: SecretName}
	err := s.reader.Get(ctx, name, secret)
	if err == nil && secret.Type == SecretType && len(secret.Data) == 0 {
		// The resourceVersion of the read keeps this from replacing a key that is there by now.
		secret.Data, secret.Immutable = map[string][]byte{dataKey: NewKey().Bytes()}, new(true)
		err = s.writer.Update(ctx, secret)
	}
	if err != nil {
		return Key{}, fmt.Errorf("fingerprint key: %w", err)
	}
	return keyIn(secret)
}

// keyIn returns the key that the Secret holds.
func keyIn(secret *corev1.Secret) (Key, error) {
	key, err := ParseKey(secret.Data[dataKey])
	if err != nil || secret.Type != SecretType {
		return Key{}, fmt.Errorf("%w: Secret %s must be of type %s with %d bytes under %q; restore it from a backup, or delete it and create it empty for a new key: %s",
			errNotAKey, client.ObjectKeyFromObject(secret), SecretType, KeySize, dataKey, howToCreate(secret.Namespace))
	}
	return key, nil
}

// Read returns the key of the installation in that namespace, and makes none. The error is of the reader, or says that there is no key yet.
func Read(ctx context.Context, reader client.Reader, namespace string) (Key, error) {
	secret := &corev1.Secret{}
	if err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: SecretName}, secret); err != nil {
		return Key{}, err
	}
	return keyIn(secret)
}
