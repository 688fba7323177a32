package grafana

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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
	if err := json.Unmarshal(body, &o); err != nil || o.Kind != kind || !isOurs(o.APIVersion, o.Kind) || o.Metadata.Name != name {
		return nil, errMalformed
	}
	return o.secureValue(), nil
}

// isOurs reports whether apiVersion and kind are those of a secure value, as far as they are there.
func isOurs(apiVersion, objectKind string) bool {
	return (objectKind == "" || objectKind == kind) && (apiVersion == "" || strings.HasPrefix(apiVersion, apiGroup+"/"))
}

// Listed is what a list tells of a secure value.
type Listed struct {
	Name        string
	Labels      map[string]string // those asked for
	Annotations map[string]string // those asked for
	CreatedAt   time.Time         // as in a SecureValue
	Version     int64             // as in a SecureValue
	Spec        Digest
}

// Digest stands for a description and a set of decrypters: two are equal where those are.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a description and of decrypters in any order.
func DigestOf(description string, decrypters []string) Digest {
	content, _ := json.Marshal(append([]string{description}, slices.Sorted(slices.Values(decrypters))...)) // strings always can be
	return sha256.Sum256(content)
}

// Bounds of what is kept of a listed value: the longest name and value of a label in Kubernetes, whose rules Grafana follows.
const (
	maxNameBytes       = 253
	maxLabelValueBytes = 63
	// maxAnnotationBytes is for those of ours, which hold a namespace and a name. A longer one is left out.
	maxAnnotationBytes = 512
)

type wireListed struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name              string            `json:"name"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp *time.Time        `json:"creationTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Description string   `json:"description"`
		Decrypters  []string `json:"decrypters"`
	} `json:"spec"`
	Status wireStatus `json:"status"`
}

// portions reads on only as far as its owner has allowed. A decoder that needs more for one part fails before it has the whole of it in
// memory.
type portions struct {
	r    io.Reader
	left int64
}

func (p *portions) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, errMalformed
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

// listDecoder decodes a list part by part, each of them of at most maxListedBytes.
type listDecoder struct {
	json *json.Decoder
	body *portions
	see  func(Listed)
	keys []string // of the labels and annotations to tell
}

func (d *listDecoder) more() bool {
	d.body.left = maxListedBytes
	return d.json.More()
}

func (d *listDecoder) token() (json.Token, error) {
	d.body.left = maxListedBytes
	return d.json.Token()
}

func (d *listDecoder) decode(into any) error {
	d.body.left = maxListedBytes
	return d.json.Decode(into)
}

// decodeList reads a list, one item at a time, and to the end of the body, so that the connection can be used again. A list
// without items is malformed: it must not pass as an empty one.
func decodeList(body io.Reader, see func(Listed), keys []string) error {
	bounded := &portions{r: body}
	dec := &listDecoder{json: json.NewDecoder(bounded), body: bounded, see: see, keys: keys}
	var (
		seen     string
		hasItems bool
	)
	if err := dec.expect('{'); err != nil {
		return err
	}
	for dec.more() {
		key, err := dec.token()
		switch {
		case err != nil, key == "items" && hasItems:
			return errMalformed
		case key == "kind":
			err = dec.decode(&seen)
		case key == "items":
			hasItems = true
			err = dec.items()
		default:
			var skipped json.RawMessage
			err = dec.decode(&skipped)
		}
		if err != nil {
			return errMalformed
		}
	}
	if err := dec.expect('}'); err != nil || seen != listKind || !hasItems {
		return errMalformed
	}
	if _, err := dec.token(); !errors.Is(err, io.EOF) {
		return errMalformed
	}
	return nil
}

func (d *listDecoder) items() error {
	token, err := d.token()
	if err != nil || token == nil { // "items": null is an empty list
		return err
	}
	if token != json.Delim('[') {
		return errMalformed
	}
	for n := 0; d.more(); n++ {
		var o wireListed
		if err := d.decode(&o); err != nil || n == maxListed {
			return errMalformed
		}
		value, err := o.listed(d.keys)
		if err != nil {
			return err
		}
		d.see(value)
	}
	return d.expect(']')
}

func (o *wireListed) listed(keys []string) (Listed, error) {
	v := Listed{
		Name: strings.Clone(o.Metadata.Name), Version: o.Status.Version, Spec: DigestOf(o.Spec.Description, o.Spec.Decrypters),
	}
	if !isOurs(o.APIVersion, o.Kind) || v.Name == "" || len(v.Name) > maxNameBytes {
		return v, errMalformed
	}
	if o.Metadata.CreationTimestamp != nil {
		v.CreatedAt = *o.Metadata.CreationTimestamp
	}
	for _, key := range keys {
		if value, found := o.Metadata.Labels[key]; found {
			// One that is too long is none of ours, and yet there: anybody may have written it.
			v.Labels = with(v.Labels, key, strings.Clone(value[:min(len(value), maxLabelValueBytes+1)]))
		}
		if value, found := o.Metadata.Annotations[key]; found && len(value) <= maxAnnotationBytes {
			v.Annotations = with(v.Annotations, key, value)
		}
	}
	return v, nil
}

// with returns m with one more entry; m is made where it is nil.
func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func (d *listDecoder) expect(want json.Delim) error {
	if token, err := d.token(); err != nil || token != want {
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
