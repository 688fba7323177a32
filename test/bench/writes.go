package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const (
	writeRounds = 5   // that count; forms take turns, so that what else happens meets all of them
	writeBatch  = 100 // requests of each form in a round
	writeHands  = 8   // requests at a time

	jsonPatch, mergePatch, applyPatch, put = "JSON patch", "merge patch", "server-side apply", "update"
)

// call is a request that is measured.
type call struct {
	method, path, contentType, accept string
	body                              []byte
}

// cost is what requests of one form took.
type cost struct {
	form      string
	sent      int
	cpu, time time.Duration
}

// caller sends requests, and decodes no answer.
type caller struct {
	client *http.Client
	host   string
	costs  []*cost
}

// writes compares forms of the same request by what they cost the API server. The manager does not run meanwhile.
func writes(ctx context.Context, w *world, _ int, record func(measurement)) error {
	sample := &v1alpha1.GrafanaSecureValue{}
	if err := w.k8s.Get(ctx, client.ObjectKey{Namespace: namespaceOf(0), Name: nameOf(0)}, sample); err != nil {
		return err
	}
	running := w.manager
	w.manager = nil
	if err := running.stop(); err != nil {
		return err
	}
	config := w.plane.Config()
	config.UserAgent = "manager" // it owns other fields than who makes the objects
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	c := &caller{client: httpClient, host: strings.TrimSuffix(config.Host, "/")}
	var turns []func() error
	for _, form := range []string{jsonPatch, mergePatch, applyPatch, put} {
		for _, accept := range []string{runtime.ContentTypeJSON, metadataAlone} {
			turns = append(turns, func() error { return c.writeObjects(ctx, w, form, accept, sample) })
		}
	}
	for _, encoding := range []string{"JSON", "protobuf"} {
		turns = append(turns, func() error { return c.builtIn(ctx, w, encoding, sample) })
	}
	for range writeRounds + 1 { // the first warms everything up
		for _, turn := range turns {
			if err := turn(); err != nil {
				return err
			}
		}
		rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] }) // so that the order does not decide
	}
	for _, form := range c.costs {
		each := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(form.sent) }
		record(measurement{Measure: "CPU of " + form.form, Unit: unitMilliseconds, Values: []float64{each(form.cpu)}})
		say("   %d of them took %.2f ms each, %d at once", form.sent, writeHands*each(form.time), writeHands)
	}
	err = errors.Join(w.k8s.DeleteAllOf(ctx, &eventsv1.Event{}, client.InNamespace(foreignNamespace)), w.start())
	if err != nil {
		return err
	}
	if err := w.connected(ctx, defaultConnection); err != nil {
		return err
	}
	return w.ensure(ctx, w.made)
}

// writeObjects makes objects, writes their metadata and then their status as the operator does with a new object, and deletes them.
func (c *caller) writeObjects(ctx context.Context, w *world, form, accept string, sample *v1alpha1.GrafanaSecureValue) error {
	values := make([]*v1alpha1.GrafanaSecureValue, writeBatch)
	err := w.each(ctx, "objects made", 0, writeBatch, func(ctx context.Context, i int) error {
		values[i] = objectOf(fmt.Sprintf("write-%06d", i), i, defaultConnection)
		return w.k8s.Create(ctx, values[i])
	})
	if err != nil {
		return err
	}
	for _, part := range []string{"metadata", "status"} {
		calls := make([]call, len(values))
		for i, sv := range values {
			sv.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "GrafanaSecureValue"}
			sv.Finalizers = []string{v1alpha1.Finalizer}
			sv.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: ownership.FormatPending(ownership.Targets(sample))}
			if part == "status" {
				sv.Status = sample.Status
			}
			if calls[i], err = write(form, part, accept, sv); err != nil {
				return err
			}
		}
		name := part + ", " + form
		if accept == metadataAlone {
			name += ", metadata as answer"
		}
		answers, err := c.measure(ctx, name, calls)
		if err != nil {
			return err
		}
		if _, err := c.send(ctx, calls[0]); err == nil { // its resourceVersion is old now
			return fmt.Errorf("an old %s was not refused", part)
		}
		for i, answer := range answers {
			written, err := metadataOf(answer)
			if err != nil {
				return err
			}
			values[i].ResourceVersion = written.ResourceVersion
		}
	}
	return w.each(ctx, "objects deleted", 0, len(values), func(ctx context.Context, i int) error {
		free := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		return errors.Join(w.k8s.Patch(ctx, values[i].DeepCopy(), free), w.k8s.Delete(ctx, values[i]))
	})
}

// write returns the request that gives an object the metadata or the status of sv, unless it has another resourceVersion.
func write(form, part, accept string, sv *v1alpha1.GrafanaSecureValue) (c call, err error) {
	path := fmt.Sprintf("/apis/%s/namespaces/%s/grafanasecurevalues/%s", sv.APIVersion, sv.Namespace, sv.Name)
	metadata := map[string]any{"resourceVersion": sv.ResourceVersion}
	object := map[string]any{"metadata": metadata}
	step := func(op, path string, value any) map[string]any {
		return map[string]any{"op": op, "path": path, "value": value}
	}
	steps := []map[string]any{step("test", "/metadata/resourceVersion", sv.ResourceVersion)}
	if part == "status" {
		path += "/status"
		metadata["uid"], object["status"] = sv.UID, sv.Status
		steps = append(steps, step("test", "/metadata/uid", sv.UID), step("add", "/status", sv.Status))
	} else {
		metadata["finalizers"], metadata["annotations"] = sv.Finalizers, sv.Annotations
		steps = append(steps, step("add", "/metadata/finalizers", sv.Finalizers), step("add", "/metadata/annotations", sv.Annotations))
	}
	switch form {
	case jsonPatch:
		c = call{method: http.MethodPatch, path: path, contentType: string(types.JSONPatchType)}
		c.body, err = json.Marshal(steps)
	case mergePatch:
		c = call{method: http.MethodPatch, path: path, contentType: string(types.MergePatchType)}
		c.body, err = json.Marshal(object)
	case applyPatch:
		object["apiVersion"], object["kind"] = sv.APIVersion, sv.Kind
		c = call{method: http.MethodPatch, path: path + "?fieldManager=manager&force=true", contentType: string(types.ApplyYAMLPatchType)}
		c.body, err = json.Marshal(object)
	default:
		c = call{method: http.MethodPut, path: path, contentType: runtime.ContentTypeJSON}
		c.body, err = json.Marshal(sv)
	}
	c.accept = accept
	return c, err
}

// builtIn posts Events, and reads Secrets, five times as many, since that is cheap.
func (c *caller) builtIn(ctx context.Context, w *world, encoding string, sample *v1alpha1.GrafanaSecureValue) error {
	posts, gets := make([]call, writeBatch), make([]call, 5*writeBatch)
	encode, contentType := func(event *eventsv1.Event) ([]byte, error) { return json.Marshal(event) }, runtime.ContentTypeJSON
	if encoding == "protobuf" {
		encode, contentType = inProtobuf, runtime.ContentTypeProtobuf
	}
	for i := range posts {
		body, err := encode(eventOf(foreignNamespace, nameOf(i), "Created", bareObject{sample.UID, sample.ResourceVersion}))
		if err != nil {
			return err
		}
		posts[i] = call{http.MethodPost, "/apis/events.k8s.io/v1/namespaces/" + foreignNamespace + "/events", contentType, contentType, body}
	}
	for i := range gets {
		path := fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", namespaceOf(i%w.made), nameOf(i%w.made))
		gets[i] = call{method: http.MethodGet, path: path, accept: contentType}
	}
	_, posted := c.measure(ctx, "Event, POST, "+encoding, posts)
	_, got := c.measure(ctx, "Secret, GET, "+encoding, gets)
	return errors.Join(posted, got)
}

// measure sends the requests, and returns the answers. The first time they do not count.
func (c *caller) measure(ctx context.Context, form string, calls []call) ([][]byte, error) {
	answers := make([][]byte, len(calls))
	before, err := controlPlaneCPU()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	err = eachBy(ctx, writeHands, form, 0, len(calls), func(ctx context.Context, i int) (err error) {
		answers[i], err = c.send(ctx, calls[i])
		return err
	})
	took := time.Since(begun)
	if err != nil {
		return nil, err
	}
	after, err := controlPlaneCPU()
	i := slices.IndexFunc(c.costs, func(of *cost) bool { return of.form == form })
	if i < 0 {
		c.costs = append(c.costs, &cost{form: form})
		return answers, err
	}
	c.costs[i].sent += len(calls)
	c.costs[i].cpu += after - before
	c.costs[i].time += took
	return answers, err
}

func (c *caller) send(ctx context.Context, r call) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, c.host+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", r.contentType)
	req.Header.Set("Accept", r.accept)
	return answerOf(c.client, req)
}
