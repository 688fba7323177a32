package grafana

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of the API: Secrets Management API, "Create a secure value", request body.
const (
	// MaxDescriptionRunes is the longest description, in characters.
	MaxDescriptionRunes = 25
	// MaxDecrypters is the most decrypters of one secure value.
	MaxDecrypters = 64
)

const (
	apiGroup = "secret.grafana.app"
	kind     = "SecureValue"
	listKind = "SecureValueList"
)

// SecureValue is a secure value as this client sends and receives it.
type SecureValue struct {
	Name string
	// ResourceVersion is sent with an Update as it was received; it is not enforced by every server.
	ResourceVersion string
	Labels          map[string]string
	Annotations     map[string]string
	// Owned says that it carries ownerReferences: it belongs to a resource of Grafana's own, and is not to be touched.
	Owned bool
	// CreatedAt is when it was created; zero where the server does not tell.
	CreatedAt   time.Time
	Description string
	Decrypters  []string
	// Value is only ever sent; it is empty in every answer.
	Value Value
	// Version grows with each accepted write; 0 where the server does not tell.
	Version int64
}

// validate refuses what the server would refuse, or mangle, before anything leaves.
func (sv *SecureValue) validate() error {
	if err := sv.Value.Validate(); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(sv.Description); n < 1 || n > MaxDescriptionRunes {
		return fmt.Errorf("description has %d characters, not 1 to %d", n, MaxDescriptionRunes)
	}
	if n := len(sv.Decrypters); n > MaxDecrypters {
		return fmt.Errorf("%d decrypters, more than %d", n, MaxDecrypters)
	}
	return nil
}

// wireObject is a secure value as the API has it.
type wireObject struct {
	APIVersion string     `json:"apiVersion,omitempty"`
	Kind       string     `json:"kind,omitempty"`
	Metadata   wireMeta   `json:"metadata"`
	Spec       wireSpec   `json:"spec"`
	Status     wireStatus `json:"status,omitzero"`
}

type wireMeta struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	CreationTimestamp *time.Time        `json:"creationTimestamp,omitempty"`
	OwnerReferences   []struct{}        `json:"ownerReferences,omitempty"`
}

type wireSpec struct {
	Description string    `json:"description"`
	Value       wireValue `json:"value,omitzero"`
	Decrypters  []string  `json:"decrypters"`
}

type wireStatus struct {
	Version int64 `json:"version,omitempty"`
}

// wireValue is the only form in which a value marshals. It is never read from an answer.
type wireValue struct{ content string }

func (v wireValue) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v.content)
	return buf.Bytes(), err
}

func (wireValue) UnmarshalJSON([]byte) error { return nil }

// encode returns the request body of sv.
func encode(sv *SecureValue, apiVersion, namespace string) ([]byte, error) {
	o := wireObject{
		APIVersion: apiGroup + "/" + apiVersion,
		Kind:       kind,
		Metadata: wireMeta{
			Name: sv.Name, Namespace: namespace, ResourceVersion: sv.ResourceVersion,
			Labels: sv.Labels, Annotations: sv.Annotations,
		},
		Spec: wireSpec{
			Description: sv.Description,
			Value:       wireValue{string(sv.Value.Bytes())},
			Decrypters:  append([]string{}, sv.Decrypters...), // none is said as [], or it would not clear
		},
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(o)
	return buf.Bytes(), err
}

var errMalformed = errors.New("not a well-formed answer of the API")

// decodeObject reads one secure value of the given name.
func decodeObject(body []byte, name string) (*SecureValue, error) {
	var o wireObject
	if err := json.Unmarshal(body, &o); err != nil || o.Kind != kind || !o.isOurs() || o.Metadata.Name != name {
		return nil, errMalformed
	}
	return o.secureValue(), nil
}

// isOurs reports whether apiVersion and kind are those of a secure value, as far as they are there.
func (o *wireObject) isOurs() bool {
	return (o.Kind == "" || o.Kind == kind) && (o.APIVersion == "" || strings.HasPrefix(o.APIVersion, apiGroup+"/"))
}

// decodeList reads a list, one item at a time, and to the end of the body, so that the connection can be used again. A list
// without items is malformed: it must not pass as an empty one.
func decodeList(body io.Reader) ([]SecureValue, error) {
	dec := json.NewDecoder(body)
	var (
		values   []SecureValue
		seen     string
		hasItems bool
	)
	if err := expectDelim(dec, '{'); err != nil {
		return nil, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, errMalformed
		}
		switch key {
		case "kind":
			err = dec.Decode(&seen)
		case "items":
			hasItems = true
			values, err = decodeItems(dec)
		default:
			var skipped json.RawMessage
			err = dec.Decode(&skipped)
		}
		if err != nil {
			return nil, errMalformed
		}
	}
	if err := expectDelim(dec, '}'); err != nil || seen != listKind || !hasItems {
		return nil, errMalformed
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errMalformed
	}
	return values, nil
}

func decodeItems(dec *json.Decoder) ([]SecureValue, error) {
	token, err := dec.Token()
	if err != nil || token == nil { // "items": null is an empty list
		return nil, err
	}
	if token != json.Delim('[') {
		return nil, errMalformed
	}
	var values []SecureValue
	for dec.More() {
		var o wireObject
		if err := dec.Decode(&o); err != nil || !o.isOurs() || o.Metadata.Name == "" {
			return nil, errMalformed
		}
		values = append(values, *o.secureValue())
	}
	return values, expectDelim(dec, ']')
}

func expectDelim(dec *json.Decoder, want json.Delim) error {
	if token, err := dec.Token(); err != nil || token != want {
		return errMalformed
	}
	return nil
}

func (o *wireObject) secureValue() *SecureValue {
	sv := &SecureValue{
		Name:            o.Metadata.Name,
		ResourceVersion: o.Metadata.ResourceVersion,
		Labels:          maps.Clone(o.Metadata.Labels),
		Annotations:     maps.Clone(o.Metadata.Annotations),
		Owned:           len(o.Metadata.OwnerReferences) > 0,
		Description:     o.Spec.Description,
		Decrypters:      o.Spec.Decrypters,
		Version:         o.Status.Version,
	}
	if o.Metadata.CreationTimestamp != nil {
		sv.CreatedAt = *o.Metadata.CreationTimestamp
	}
	return sv
}

// decodeDeleted reads the answer to a DELETE: a Status of success, or the deleted secure value.
func decodeDeleted(body []byte, name string) error {
	var status struct {
		Kind   string `json:"kind"`
		Status any    `json:"status"`
	}
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Status == "Success" {
		return nil
	}
	_, err := decodeObject(body, name)
	return err
}
