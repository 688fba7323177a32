// Package fingerprint recognises a value without keeping it.
//
// A fingerprint is HMAC-SHA256 under a random key of the installation. It is bound to the object and the place that it was
// made for, so that two objects with the same value show different ones, and nobody can use one object to test a guess about
// another's value.
package fingerprint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/parts"
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

// Of returns the fingerprint of value for the given subject: the object's UID and the parts of its place. Subjects of other
// parts never share a fingerprint, since each part is written with its length.
func (k Key) Of(value []byte, subject ...string) string {
	mac := hmac.New(sha256.New, k.secret())
	parts.Write(mac, subject...)
	parts.Write(mac, string(value))
	return strings.Join([]string{version, k.id, base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}, ":")
}

// Equal reports whether two fingerprints are of the same value, in constant time. An empty one equals none.
func Equal(a, b string) bool {
	return a != "" && hmac.Equal([]byte(a), []byte(b))
}

// keyID names a key without telling it.
func keyID(secret [KeySize]byte) string {
	h := sha256.New()
	parts.Write(h, "grafana-secure-value-operator fingerprint key id", string(secret[:]))
	return hex.EncodeToString(h.Sum(nil)[:4])
}
