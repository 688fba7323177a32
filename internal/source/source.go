// Package source makes the value of an object from what its Secrets hold: by a template, and by transforms. It reads nothing and keeps
// nothing. Its errors have no part of a value.
package source

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// MaxBytes is the largest result of a function, of a template, and of the input of Base64Encode. Grafana takes less.
const MaxBytes = 64 << 10

// MaxSecretBytes bounds what the Secrets of a template hold together: as SizeOf counts it.
const MaxSecretBytes = 1 << 20

// SizeOf returns the bytes of the keys and values of a Secret, and 48 for each key.
func SizeOf(data map[string][]byte) int {
	size := 0
	for key, value := range data {
		size += len(key) + len(value) + elementCost
	}
	return size
}

// TooLargeError says that a value has more than MaxBytes.
type TooLargeError struct{}

func (TooLargeError) Error() string { return fmt.Sprintf("more than %d bytes", MaxBytes) }

// MissingKeyError says that a template asks for a key that a Secret does not have.
type MissingKeyError struct {
	Alias        string // of the Secret
	Key          string // "" where the template computes it: it may be a value
	Line, Column int    // where; they begin with 1
}

func (e *MissingKeyError) Error() string { return fmt.Sprintf("%s has no key %q", e.Alias, e.Key) }

// TemplateError says what is wrong with a template, or with what it does.
type TemplateError struct {
	Line, Column int    // they begin with 1; 0 is not known
	Problem      string // the end of a sentence whose subject is the template
}

func (e *TemplateError) Error() string { return e.Problem }

// TransformError says that a value cannot be transformed.
type TransformError struct {
	Index     int // in the list
	Transform v1alpha1.ValueTransform
	Problem   string // a sentence without its full stop
}

func (e *TransformError) Error() string { return e.Problem }

// Transform returns the content after the transforms. The error is a *TransformError, or a TooLargeError where there is more than Grafana
// takes whatever follows.
func Transform(content []byte, transforms []v1alpha1.ValueTransform) ([]byte, error) {
	for i, transform := range transforms {
		switch transform {
		case v1alpha1.TransformTrimTrailingNewline:
			if trimmed, ended := bytes.CutSuffix(content, []byte("\n")); ended {
				content = bytes.TrimSuffix(trimmed, []byte("\r"))
			}
		case v1alpha1.TransformBase64Encode:
			if len(content) > MaxBytes {
				return nil, TooLargeError{}
			}
			content = base64.StdEncoding.AppendEncode(nil, content)
		case v1alpha1.TransformBase64Decode:
			decoded, err := base64.StdEncoding.AppendDecode(nil, content) // its error tells where, which is no part of the value
			if err != nil {
				return nil, &TransformError{i, transform, "the value is not standard Base64 with padding"}
			}
			content = decoded
		default:
			return nil, &TransformError{i, transform, "there is no such transform"}
		}
	}
	return content, nil
}
