package grafana

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"time"
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
	// CreatedAt is when it was created; zero if the server does not report it.
	CreatedAt   time.Time
	Description string
	Decrypters  []string
	// Value is only ever sent; it is empty in every answer.
	Value Value
	// Version grows with each accepted write; 0 if the server does not report it.
	Version int64
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
	Description string         `json:"description"`
	Value       wireValue      `json:"value,omitzero"`
	Decrypters  wireDecrypters `json:"decrypters"`
}

// wireDecrypters takes at most one more than the API does from an answer: that differs from whatever is desired.
type wireDecrypters []string

func (d *wireDecrypters) UnmarshalJSON(data []byte) error {
	var names [MaxDecrypters + 1]*string
	err := json.Unmarshal(data, &names)
	*d = nil
	for _, name := range names {
		if name != nil {
			*d = append(*d, *name)
		}
	}
	return err
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

func (o *wireObject) secureValue() *SecureValue {
	sv := &SecureValue{
		Name: o.Metadata.Name, ResourceVersion: o.Metadata.ResourceVersion, Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations,
		Owned: len(o.Metadata.OwnerReferences) > 0, Description: o.Spec.Description, Decrypters: o.Spec.Decrypters, Version: o.Status.Version,
	}
	if at := o.Metadata.CreationTimestamp; at != nil && at.UTC().Year() >= 1970 && at.UTC().Year() <= 9999 { // what Kubernetes can store
		sv.CreatedAt = *at
	}
	return sv
}

// versionPattern is what a version of an API is called.
var versionPattern = regexp.MustCompile(`^v[0-9]{1,3}((alpha|beta)[0-9]{1,3})?$`)

// decodeVersions reads the versions of the API group. Names that are none are left out.
func decodeVersions(body []byte) ([]string, error) {
	var group struct {
		Kind     string `json:"kind"`
		Name     string `json:"name"`
		Versions []struct {
			Version string `json:"version"`
		} `json:"versions"`
	}
	if err := json.Unmarshal(body, &group); err != nil || group.Kind != "APIGroup" || group.Name != apiGroup {
		return nil, errMalformed
	}
	var versions []string
	for _, v := range group.Versions {
		if versionPattern.MatchString(v.Version) {
			versions = append(versions, v.Version)
		}
	}
	return versions, nil
}

// listDecoder decodes a list part by part, each of them of at most maxListedBytes: it reads no further for one part.
type listDecoder struct {
	json *json.Decoder
	body io.Reader
	left int64 // that may be read for the present part
}

func (d *listDecoder) Read(b []byte) (int, error) {
	if d.left <= 0 {
		return 0, errMalformed
	}
	n, err := d.body.Read(b[:min(int64(len(b)), d.left)])
	d.left -= int64(n)
	return n, err
}

func (d *listDecoder) more() bool {
	d.left = maxListedBytes
	return d.json.More()
}

func (d *listDecoder) token() (json.Token, error) {
	d.left = maxListedBytes
	return d.json.Token()
}

func (d *listDecoder) decode(into any) error {
	d.left = maxListedBytes
	return d.json.Decode(into)
}

func (d *listDecoder) expect(want json.Delim) error {
	if token, err := d.token(); err != nil || token != want {
		return errMalformed
	}
	return nil
}

// decodeList reads a list, one item at a time, and to the end of the body, so that the connection can be used again. A list without
// items is malformed: it must not pass as an empty one.
func decodeList(body io.Reader, visit func(*SecureValue)) error {
	dec := &listDecoder{body: body}
	dec.json = json.NewDecoder(dec)
	listed, hasItems := "", false
	if err := dec.expect('{'); err != nil {
		return err
	}
	for dec.more() {
		key, err := dec.token()
		switch {
		case err != nil, key == "items" && hasItems:
			return errMalformed
		case key == "kind":
			err = dec.decode(&listed)
		case key == "items":
			hasItems = true
			err = dec.items(visit)
		default:
			err = dec.decode(new(json.RawMessage))
		}
		if err != nil {
			return errMalformed
		}
	}
	if err := dec.expect('}'); err != nil || listed != listKind || !hasItems {
		return errMalformed
	}
	if _, err := dec.token(); !errors.Is(err, io.EOF) {
		return errMalformed
	}
	return nil
}

func (d *listDecoder) items(visit func(*SecureValue)) error {
	token, err := d.token()
	if err != nil || token == nil { // "items": null is an empty list
		return err
	}
	if token != json.Delim('[') {
		return errMalformed
	}
	for n := 0; d.more(); n++ {
		var o wireObject
		if err := d.decode(&o); err != nil || n == maxListed || !isOurs(o.APIVersion, o.Kind) || o.Metadata.Name == "" {
			return errMalformed
		}
		visit(o.secureValue())
	}
	return d.expect(']')
}
