package grafana

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// MaxValueBytes is the longest value that Grafana takes, counted before JSON escaping: Secrets Management API, "Create a
// secure value", spec.value.
const MaxValueBytes = 24576

// What Validate may find wrong with a value.
var (
	ErrValueEmpty    = errors.New("value is empty")
	ErrValueTooLarge = fmt.Errorf("value is longer than %d bytes", MaxValueBytes)
	ErrValueNotUTF8  = errors.New("value is not UTF-8 text")
)

// Value is the content of a secure value. It does not print, and marshals as "[redacted]" everywhere but in the body of a
// request.
type Value struct{ secret }

// NewValue returns the value made of content, which must not be changed afterwards.
func NewValue(content []byte) Value { return Value{hide(content)} }

// Bytes returns the content. It is the one way out; what it returns must not be kept or shown.
func (v Value) Bytes() []byte { return v.reveal() }

// Validate reports whether Grafana would take the value as it is: ErrValueEmpty, ErrValueTooLarge or ErrValueNotUTF8.
func (v Value) Validate() error {
	switch content := v.Bytes(); {
	case len(content) == 0:
		return ErrValueEmpty
	case len(content) > MaxValueBytes:
		return ErrValueTooLarge
	case !utf8.Valid(content): // JSON would replace what is not, without a word
		return ErrValueNotUTF8
	}
	return nil
}

// Token is what a client authenticates with: the token of a service account, or a user and a password. It does not print.
type Token struct {
	secret

	basic bool // it is a user and a password, encoded as the header has them
}

// cloudAccessPolicyPrefix begins the tokens of Grafana Cloud's own API, which this API does not take.
const cloudAccessPolicyPrefix = "glc_"

// NewToken returns the token that content holds, without the white space around it.
func NewToken(content []byte) Token {
	return Token{secret: hide(bytes.Clone(bytes.TrimSpace(content)))}
}

// NewBasicAuth returns a Token of a user and a password: RFC 7617. The user must have no colon.
func NewBasicAuth(user, password []byte) Token {
	encoded := base64.StdEncoding.AppendEncode(nil, slices.Concat(user, []byte(":"), password))
	return Token{secret: hide(encoded), basic: true}
}

// authorization returns the value of the header that authenticates a request.
func (t Token) authorization() string {
	if t.basic {
		return "Basic " + string(t.reveal())
	}
	return "Bearer " + string(t.reveal())
}

// Empty reports whether there is no token.
func (t Token) Empty() bool { return len(t.reveal()) == 0 }

// IsCloudAccessPolicy reports whether this is a token of a Grafana Cloud access policy.
func (t Token) IsCloudAccessPolicy() bool {
	return bytes.HasPrefix(t.reveal(), []byte(cloudAccessPolicyPrefix))
}

// IsPrintable reports whether the token can be sent in a header: visible ASCII only.
func (t Token) IsPrintable() bool {
	for _, b := range t.reveal() {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

// redacted stands for a secret wherever it would be printed.
const redacted = "[redacted]"

// secret holds bytes that do not print. They are behind a function, since fmt asks no methods of fields that are not exported,
// and what prints by reflection follows a pointer.
type secret func() []byte

func hide(content []byte) secret { return func() []byte { return content } }

// reveal returns the bytes; nil for the zero value.
func (s secret) reveal() []byte {
	if s == nil {
		return nil
	}
	return s()
}

// Format prints the placeholder, whatever the verb.
func (secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON marshals the placeholder.
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText marshals the placeholder.
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
