package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// The forms of an answer that the operator asks for.
const (
	protobufOrJSON = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON // of a custom resource it is JSON
	asMetadata     = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	metadataAlone  = runtime.ContentTypeProtobuf + asMetadata + "," + runtime.ContentTypeJSON + asMetadata
)

// bare is a client that sends what the operator must send, and does nothing else. Its objects are numbered as those of the bench are.
type bare struct {
	w         *world
	kube      *http.Client
	host      string
	grafana   *http.Client
	grafanaAt string // URL of the secure values
	objects   []bareObject
}

// bareObject is what the bare client knows of an object from the answers to its requests.
type bareObject struct {
	UID             types.UID `json:"uid"`
	ResourceVersion string    `json:"resourceVersion"`
}

func newBare(w *world, n int) (*bare, error) {
	config := rest.CopyConfig(w.plane.Config())
	kube, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &bare{
		w: w, kube: kube, host: strings.TrimSuffix(config.Host, "/"), grafana: w.grafana.client(), objects: make([]bareObject, n),
		grafanaAt: w.grafana.URL + "/apis/secret.grafana.app/v1beta1/namespaces/default/securevalues",
	}, nil
}

func (b *bare) makeObject(ctx context.Context, i int) error {
	sv := objectOf(nameOf(i), i, defaultConnection)
	err := b.w.k8s.Create(ctx, sv)
	b.objects[i] = bareObject{sv.UID, sv.ResourceVersion}
	return err
}

// sync sends what a first write of an object needs: a GET of its Secret, a patch of its metadata, a POST, a patch of its status and an event.
func (b *bare) sync(ctx context.Context, i int) error {
	if err := b.readSecret(ctx, i); err != nil {
		return err
	}
	pending := fmt.Sprintf("%s/%s/default/%s", v1alpha1.KindClusterGrafanaConnection, defaultConnection, nameOf(i))
	err := b.patch(ctx, i, "", types.MergePatchType, map[string]any{"metadata": map[string]any{
		"finalizers": []string{v1alpha1.Finalizer}, "annotations": map[string]string{v1alpha1.AnnotationPendingTargets: pending},
		"resourceVersion": b.objects[i].ResourceVersion,
	}})
	if err != nil {
		return err
	}
	if _, err := b.call(ctx, http.MethodPost, b.grafanaAt, secureValueOf(i, "")); err != nil {
		return err
	}
	return b.report(ctx, i, "Created")
}

// rotation sends what a rotation needs: a GET of the Secret, a GET and a PUT, a patch of the status and an event.
func (b *bare) rotation(ctx context.Context, i int) error {
	if err := b.readSecret(ctx, i); err != nil {
		return err
	}
	at := b.grafanaAt + "/" + nameOf(i)
	found, err := b.call(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	var shown struct{ Metadata bareObject }
	if err := json.Unmarshal(found, &shown); err != nil {
		return err
	}
	if _, err := b.call(ctx, http.MethodPut, at, secureValueOf(i, shown.Metadata.ResourceVersion)); err != nil {
		return err
	}
	return b.report(ctx, i, "Rotated")
}

// remove sends what the deletion of an object needs: a GET of it, a GET, a DELETE and a GET, a patch of its metadata and an event.
func (b *bare) remove(ctx context.Context, i int) error {
	object, err := b.send(ctx, http.MethodGet, b.object(i), "", protobufOrJSON, nil)
	if err != nil {
		return err
	}
	shown, err := metadataOf(object)
	if err != nil {
		return err
	}
	at := b.grafanaAt + "/" + nameOf(i)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		if _, err := b.call(ctx, method, at, nil); err != nil {
			return err
		}
	}
	if _, err := b.call(ctx, http.MethodGet, at, nil); !errors.Is(err, errNotFound) {
		return fmt.Errorf("a deleted value is there: %w", err)
	}
	patch, err := status.FinalizerRemoval([]string{v1alpha1.Finalizer}, shown.ResourceVersion).Data(nil)
	if err != nil {
		return err
	}
	if err := b.patch(ctx, i, "", types.JSONPatchType, json.RawMessage(patch)); err != nil {
		return err
	}
	return b.event(ctx, i, "Deleted")
}

func (b *bare) readSecret(ctx context.Context, i int) error {
	url := fmt.Sprintf("%s/api/v1/namespaces/%s/secrets/%s", b.host, namespaceOf(i), nameOf(i))
	_, err := b.send(ctx, http.MethodGet, url, "", protobufOrJSON, nil)
	return err
}

// report writes a status as the operator's, and an event.
func (b *bare) report(ctx context.Context, i int, reason string) error {
	o := &metav1.ObjectMeta{UID: b.objects[i].UID, ResourceVersion: b.objects[i].ResourceVersion}
	replacement, err := status.Replacement(o, "/status", statusOf(i))
	if err != nil {
		return err
	}
	patch, err := replacement.Data(nil)
	if err != nil {
		return err
	}
	if err := b.patch(ctx, i, "/status", types.JSONPatchType, json.RawMessage(patch)); err != nil {
		return err
	}
	return b.event(ctx, i, reason)
}

func (b *bare) event(ctx context.Context, i int, reason string) error {
	body, err := inProtobuf(eventOf(namespaceOf(i), nameOf(i), reason, b.objects[i]))
	if err != nil {
		return err
	}
	at := fmt.Sprintf("%s/apis/events.k8s.io/v1/namespaces/%s/events", b.host, namespaceOf(i))
	_, err = b.send(ctx, http.MethodPost, at, runtime.ContentTypeProtobuf, protobufOrJSON, body)
	return err
}

// eventOf returns an event of an object, as the operator's.
func eventOf(namespace, name, reason string, about bareObject) *eventsv1.Event {
	return &eventsv1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: eventsv1.SchemeGroupVersion.String(), Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", name, time.Now().UnixNano())},
		EventTime:  metav1.NowMicro(), ReportingController: "grafana-secure-value-operator", ReportingInstance: "manager-7d9c5b8f6-x2x7k",
		Action: "Sync", Reason: reason, Type: corev1.EventTypeNormal, Note: fmt.Sprintf("%s secure value %s at version 1 in default", reason, name),
		Regarding: corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "GrafanaSecureValue", Namespace: namespace, Name: name,
			UID: about.UID, ResourceVersion: about.ResourceVersion,
		},
	}
}

func inProtobuf(event *eventsv1.Event) ([]byte, error) {
	return runtime.Encode(protobuf.NewSerializer(nil, nil), event)
}

func (b *bare) object(i int) string {
	return fmt.Sprintf("%s/apis/%s/namespaces/%s/grafanasecurevalues/%s", b.host, v1alpha1.GroupVersion, namespaceOf(i), nameOf(i))
}

// patch sends a patch of object i, and keeps the version that it got.
func (b *bare) patch(ctx context.Context, i int, subresource string, kind types.PatchType, patch any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	answer, err := b.send(ctx, http.MethodPatch, b.object(i)+subresource, string(kind), metadataAlone, body)
	if err != nil {
		return err
	}
	changed, err := metadataOf(answer)
	b.objects[i] = bareObject{changed.UID, changed.ResourceVersion}
	return err
}

var metadataDecoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	utilruntime.Must(metav1.AddMetaToScheme(scheme))
	return serializer.NewCodecFactory(scheme).UniversalDeserializer()
}()

// metadataOf reads an answer that is an object in JSON, or metadata in protobuf.
func metadataOf(answer []byte) (*metav1.PartialObjectMetadata, error) {
	metadata := &metav1.PartialObjectMetadata{}
	if bytes.HasPrefix(answer, []byte("{")) {
		return metadata, json.Unmarshal(answer, metadata)
	}
	return metadata, runtime.DecodeInto(metadataDecoder, answer, metadata)
}

// send sends a request to the API server.
func (b *bare) send(ctx context.Context, method, url, contentType, accept string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return answerOf(b.kube, req)
}

// call sends a request to Grafana.
func (b *bare) call(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+grafanaToken)
	req.Header.Set("Content-Type", "application/json")
	return answerOf(b.grafana, req)
}

// errNotFound is the answer 404.
var errNotFound = errors.New("not found")

// answerOf returns the body of an answer.
func answerOf(c *http.Client, req *http.Request) ([]byte, error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL, errNotFound)
	case resp.StatusCode >= http.StatusBadRequest:
		return nil, fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL, resp.Status, content)
	}
	return content, nil
}

// secureValueOf returns the body of a write to Grafana, as the operator's.
func secureValueOf(i int, resourceVersion string) []byte {
	body, _ := json.Marshal(map[string]any{ // of strings alone
		"apiVersion": "secret.grafana.app/v1beta1", "kind": "SecureValue",
		"metadata": map[string]any{
			"name": nameOf(i), "resourceVersion": resourceVersion,
			"labels":      map[string]string{"securevalues.io/cluster": "bench", "securevalues.io/owner": "bench." + nameOf(i)},
			"annotations": map[string]string{"securevalues.io/resource": namespaceOf(i) + "/" + nameOf(i)},
		},
		"spec": map[string]any{
			"description": v1alpha1.DefaultDescription, "value": "value of " + nameOf(i) + ", as long as a token is", "decrypters": []string{"synthetic-monitoring"},
		},
	})
	return body
}

// statusOf returns what the operator reports of an object that is in sync.
func statusOf(i int) v1alpha1.GrafanaSecureValueStatus {
	now, connection := metav1.Now(), v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: defaultConnection}
	s := v1alpha1.GrafanaSecureValueStatus{
		ObservedGeneration: 1, LastRotationTime: &now, Desired: &v1alpha1.DesiredStatus{Connection: connection, Name: nameOf(i)},
		Targets: []v1alpha1.TargetStatus{{
			Connection: connection, Namespace: "default", Name: nameOf(i), Version: 1, Generation: 1, CreatedAt: &now, LastWriteTime: &now,
			Fingerprint: "0123456789abcdef0123456789abcdef0123456789abcdef",
			Source:      &v1alpha1.SourceStatus{Name: nameOf(i), Key: valueKey, UID: "3d0b6f0c-6f0e-4bb7-9f0e-5d1c1a2b3c4d", ResourceVersion: "123456"},
		}},
	}
	message := fmt.Sprintf("Key %q of Secret %q is in Grafana as secure value %q.", valueKey, nameOf(i), nameOf(i))
	status.Condition{Class: status.None, Reason: v1alpha1.ReasonSynced, Message: message}.Apply(&s.Conditions, 1)
	return s
}
