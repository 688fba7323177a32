package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// secret is what no answer may contain.
const secret = "canary-contract-value"

const (
	label      = "grafana.securevalues.io/owner"
	annotation = "grafana.securevalues.io/resource"
)

func value(name string) *grafana.SecureValue {
	return &grafana.SecureValue{
		Name: prefix + name, Description: "contract test", Decrypters: []string{"synthetic-monitoring"}, Value: grafana.NewValue([]byte(secret)),
		Labels: map[string]string{label: "contract", "grafana.securevalues.io/value": name}, Annotations: map[string]string{annotation: "ns/name"},
	}
}

// update reads a value and writes it again, changed.
func (r *run) update(ctx context.Context, name string, change func(*grafana.SecureValue)) (before, after *grafana.SecureValue, err error) {
	before, err = r.client.Get(ctx, prefix+name)
	if err != nil {
		return nil, nil, err
	}
	sent := *before
	sent.Value = grafana.NewValue([]byte(secret + "-2"))
	change(&sent)
	after, err = r.client.Update(ctx, &sent)
	return before, after, err
}

var lifeRules = []rule{
	{"A value is created, read, listed, changed and deleted", true, wholeLife},
	{"A deleted value is gone at once, and its name is free again", true, deletedAndMadeAgain},
	{"A second POST of a name is refused: 409 AlreadyExists", true, nameTaken},
	{"GET, PUT and DELETE of what is not there: 404", true, notThere},
}

func wholeLife(ctx context.Context, r *run) (string, error) {
	sv := value("life")
	if _, err := r.client.Create(ctx, sv); err != nil {
		return "", err
	}
	found, err := r.client.Get(ctx, sv.Name)
	if err != nil {
		return "", err
	}
	if found.Description != sv.Description || !slices.Equal(found.Decrypters, sv.Decrypters) || found.Owned {
		return "", errors.New("a GET returns something else than was sent")
	}
	if found.Version < 1 || found.CreatedAt.IsZero() {
		return "", errors.New("status.version or metadata.creationTimestamp is missing")
	}
	listed, err := list(ctx, r.client, "")
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(listed, func(v *grafana.SecureValue) bool { return v.Name == sv.Name && v.Version == found.Version }) {
		return "", errors.New("a LIST does not show it, or shows another version")
	}
	_, after, err := r.update(ctx, "life", func(sv *grafana.SecureValue) { sv.Description = "changed" })
	if err != nil {
		return "", err
	}
	if after.Description != "changed" || !after.CreatedAt.Equal(found.CreatedAt) {
		return "", errors.New("after a PUT the description is not as sent, or the time of creation changed")
	}
	return "", r.client.Delete(ctx, sv.Name)
}

func deletedAndMadeAgain(ctx context.Context, r *run) (string, error) {
	sv := value("again")
	made, err := r.client.Create(ctx, sv)
	if err != nil {
		return "", err
	}
	if err := r.client.Delete(ctx, sv.Name); err != nil {
		return "", err
	}
	if err := want(grafana.ErrNotFound)(r.client.Get(ctx, sv.Name)); err != nil {
		return "", err
	}
	again, err := r.client.Create(ctx, sv)
	if err != nil {
		return "", err
	}
	if again.Version < 1 || again.CreatedAt.Before(made.CreatedAt) {
		return "", fmt.Errorf("made again, it has version %d, and the time of creation %s", again.Version, again.CreatedAt)
	}
	return fmt.Sprintf("version %d, then %d", made.Version, again.Version), nil
}

func nameTaken(ctx context.Context, r *run) (string, error) {
	if _, err := r.client.Create(ctx, value("taken")); err != nil {
		return "", err
	}
	return "", want(grafana.ErrAlreadyExists)(r.client.Create(ctx, value("taken")))
}

func notThere(ctx context.Context, r *run) (string, error) {
	sv := value("none")
	return "", errors.Join(
		want(grafana.ErrNotFound)(r.client.Get(ctx, sv.Name)),
		want(grafana.ErrNotFound)(r.client.Update(ctx, sv)),
		want(grafana.ErrNotFound)(nil, r.client.Delete(ctx, sv.Name)),
	)
}

// want turns a call that must fail with an error into the result of a rule.
func want(wanted error) func(*grafana.SecureValue, error) error {
	return func(_ *grafana.SecureValue, err error) error {
		switch {
		case errors.Is(err, wanted):
			return nil
		case err == nil:
			return fmt.Errorf("a call succeeded, and should have failed: %w", wanted)
		}
		return err
	}
}

var writeRules = []rule{
	{"Each accepted write is a new version, also one without a change", true, eachWriteIsAVersion},
	{"Labels and annotations are kept as they were sent", true, labelsAreKept},
	{"A PUT replaces labels, annotations and decrypters", true, putReplaces},
	{"A PUT with the resourceVersion of the last GET is accepted", true, freshResourceVersion},
	{"A PUT with an old resourceVersion is accepted: the last write wins", false, oldResourceVersion},
	{"A PUT without a value keeps the value", false, valueLeftOut},
	{"metadata.uid changes with each version", false, uidChanges},
	{"ownerReferences are shown", false, ownerReferences},
	{"No answer contains a value", true, noAnswerContainsAValue},
}

func eachWriteIsAVersion(ctx context.Context, r *run) (string, error) {
	made, err := r.client.Create(ctx, value("versions"))
	if err != nil {
		return "", err
	}
	versions := []int64{made.Version}
	for range 3 {
		_, after, err := r.update(ctx, "versions", func(*grafana.SecureValue) {})
		if err != nil {
			return "", err
		}
		if last := versions[len(versions)-1]; after.Version <= last {
			return "", fmt.Errorf("version %d after %d", after.Version, last)
		}
		versions = append(versions, after.Version)
	}
	return strings.Trim(fmt.Sprint(versions), "[]"), nil
}

func labelsAreKept(ctx context.Context, r *run) (string, error) {
	sv := value("labels")
	if _, err := r.client.Create(ctx, sv); err != nil {
		return "", err
	}
	found, err := r.client.Get(ctx, sv.Name)
	if err != nil {
		return "", err
	}
	if !maps.Equal(found.Labels, sv.Labels) {
		return "", errors.New("labels are not as sent")
	}
	if found.Annotations[annotation] != sv.Annotations[annotation] {
		return "", errors.New("annotations are not as sent")
	}
	return "", nil
}

func putReplaces(ctx context.Context, r *run) (string, error) {
	if _, err := r.client.Create(ctx, value("replaced")); err != nil {
		return "", err
	}
	_, after, err := r.update(ctx, "replaced", func(sv *grafana.SecureValue) {
		sv.Labels, sv.Annotations, sv.Decrypters = map[string]string{label: "other"}, nil, nil
	})
	if err != nil {
		return "", err
	}
	_, kept := after.Annotations[annotation]
	switch {
	case !maps.Equal(after.Labels, map[string]string{label: "other"}):
		return "", errors.New("labels are not as sent last")
	case kept:
		return "", errors.New("an annotation that was not sent again is kept")
	case len(after.Decrypters) != 0:
		return "", errors.New("an empty list of decrypters does not clear them")
	}
	return "", nil
}

func freshResourceVersion(ctx context.Context, r *run) (string, error) {
	if _, err := r.client.Create(ctx, value("fresh")); err != nil {
		return "", err
	}
	before, _, err := r.update(ctx, "fresh", func(*grafana.SecureValue) {})
	if err == nil && before.ResourceVersion == "" {
		return "there is no resourceVersion", nil
	}
	return "", err
}

func oldResourceVersion(ctx context.Context, r *run) (string, error) {
	if _, err := r.client.Create(ctx, value("old")); err != nil {
		return "", err
	}
	_, _, err := r.update(ctx, "old", func(sv *grafana.SecureValue) { sv.ResourceVersion = "1" })
	if errors.Is(err, grafana.ErrConflict) {
		return "", errors.New("it is refused: 409 Conflict. The operator reads and writes again")
	}
	return "", err
}

func valueLeftOut(ctx context.Context, r *run) (string, error) {
	sv := value("kept")
	made, err := r.client.Create(ctx, sv)
	if err != nil {
		return "", err
	}
	a, err := r.send(ctx, request{method: http.MethodPut, path: "/" + sv.Name, body: `{"metadata":{"name":"` + sv.Name + `","resourceVersion":"` +
		made.ResourceVersion + `"},"spec":{"description":"no value"}}`})
	if err == nil && a.code != http.StatusOK {
		err = fmt.Errorf("the write is refused: %s", a)
	}
	return "the write is accepted; no API shows the value", err
}

func uidChanges(ctx context.Context, r *run) (string, error) {
	sv := value("uid")
	if _, err := r.client.Create(ctx, sv); err != nil {
		return "", err
	}
	var seen []string
	for range 2 {
		o, err := r.object(ctx, "/"+sv.Name)
		if err != nil {
			return "", err
		}
		if o.Metadata.UID == "" {
			return "", untestable("there is no uid")
		}
		seen = append(seen, o.Metadata.UID)
		if _, _, err := r.update(ctx, "uid", func(*grafana.SecureValue) {}); err != nil {
			return "", err
		}
	}
	if seen[0] == seen[1] {
		return "", errors.New("it stays")
	}
	return "", nil
}

func ownerReferences(ctx context.Context, r *run) (string, error) {
	name := prefix + "owned"
	a, err := r.send(ctx, request{method: http.MethodPost, body: `{"metadata":{"name":"` + name + `","ownerReferences":[` +
		`{"apiVersion":"contract.grafana.securevalues.io/v1","kind":"Contract","name":"contract","uid":"contract"}]},` +
		`"spec":{"description":"contract test","value":"` + secret + `"}}`})
	if err != nil {
		return "", err
	}
	if a.code != http.StatusCreated {
		return "", untestable("a client may create none: " + a.String())
	}
	found, err := r.client.Get(ctx, name)
	if err == nil && !found.Owned {
		return "", untestable("those that a client sends are not kept")
	}
	return "", err
}

func noAnswerContainsAValue(ctx context.Context, r *run) (string, error) {
	name := prefix + "secrecy"
	body := `{"metadata":{"name":"` + name + `"},"spec":{"description":"contract test","value":"` + secret + `"}}`
	for _, q := range []request{
		{method: http.MethodPost, body: body},
		{method: http.MethodPut, path: "/" + name, body: body},
		{method: http.MethodGet, path: "/" + name},
		{method: http.MethodGet},
		{method: http.MethodPost, body: body},
		{method: http.MethodDelete, path: "/" + name},
	} {
		a, err := r.send(ctx, q)
		if err != nil {
			return "", err
		}
		if strings.Contains(a.body, secret) {
			return "", fmt.Errorf("that of a %s does", q.method)
		}
	}
	return "", nil
}
