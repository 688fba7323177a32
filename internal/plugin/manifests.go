package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
)

// manifests are objects as they would be once they are applied.
type manifests struct {
	values  []*v1alpha1.GrafanaSecureValue // in the order of the files
	others  []client.Object                // connections and Secrets
	skipped map[string]int                 // by kind
}

// readManifests reads files, directories and standard input, as kubectl apply does, and merges each object with the one in the cluster.
func (c *cluster) readManifests(ctx context.Context, files *genericclioptions.FileNameFlags, view *securevalue.View) (*manifests, error) {
	options := files.ToOptions()
	if len(options.Filenames) == 0 && options.Kustomize == "" {
		return nil, errors.New("name manifests with -f, for example -f FILE, -f DIRECTORY or -f -")
	}
	infos, err := resource.NewLocalBuilder().Unstructured().ContinueOnError().FilenameParam(false, &options).Flatten().Do().Infos()
	if err != nil {
		return nil, err
	}
	m := &manifests{skipped: map[string]int{}}
	for _, info := range infos {
		o, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		if err := m.add(ctx, c, view, o); err != nil {
			return nil, fmt.Errorf("%s %q in %s: %w", o.GetKind(), o.GetName(), info.Source, err)
		}
	}
	return m, nil
}

// add adds one object of a manifest.
func (m *manifests) add(ctx context.Context, c *cluster, view *securevalue.View, manifest *unstructured.Unstructured) error {
	gvk := manifest.GroupVersionKind()
	isOurs := gvk.GroupVersion() == v1alpha1.GroupVersion
	namespace := manifest.GetNamespace()
	if namespace == "" {
		namespace = c.namespace
	}
	switch {
	case manifest.GetName() == "":
		return errors.New("it has no metadata.name")
	case isOurs && gvk.Kind == "GrafanaSecureValue":
		sv, old, err := merged[v1alpha1.GrafanaSecureValue](ctx, view, manifest, namespace)
		if err != nil {
			return err
		}
		m.values = append(m.values, asApplied(sv, old))
		view.Put(sv)
	case isOurs && gvk.Kind == string(v1alpha1.KindGrafanaConnection):
		conn, _, err := merged[v1alpha1.GrafanaConnection](ctx, view, manifest, namespace)
		if err != nil {
			return err
		}
		completeConnection(conn.GetSpec())
		m.put(view, conn)
	case isOurs && gvk.Kind == string(v1alpha1.KindClusterGrafanaConnection):
		conn, _, err := merged[v1alpha1.ClusterGrafanaConnection](ctx, view, manifest, "")
		if err != nil {
			return err
		}
		completeConnection(conn.GetSpec())
		m.put(view, conn)
	case gvk.Group == "" && gvk.Kind == "Secret":
		secret, old, err := merged[corev1.Secret](ctx, view, manifest, namespace)
		if err != nil {
			return err
		}
		secretAsApplied(secret, old)
		m.put(view, secret)
	default:
		m.skipped[gvk.Kind]++
	}
	return nil
}

func (m *manifests) put(view *securevalue.View, o client.Object) {
	m.others = append(m.others, o)
	view.Put(o)
}

// object is a pointer to a kind.
type object[T any] interface {
	*T
	client.Object
}

// merged returns what a manifest makes of the object that the cluster has, as kubectl apply would, and that object; nil is that there is none.
func merged[T any, P object[T]](
	ctx context.Context, view *securevalue.View, manifest *unstructured.Unstructured, namespace string,
) (applied, old P, err error) {
	manifest.SetNamespace(namespace)
	unstructured.RemoveNestedField(manifest.Object, "status")
	modified, err := json.Marshal(manifest)
	if err != nil {
		return nil, nil, err
	}
	applied, old = P(new(T)), P(new(T))
	if err := strictly(modified, applied); err != nil {
		return nil, nil, err
	}
	err = view.Get(ctx, client.ObjectKey{Namespace: namespace, Name: manifest.GetName()}, old)
	if err != nil {
		return applied, nil, client.IgnoreNotFound(err)
	}
	current, err := json.Marshal(old)
	if err != nil {
		return nil, nil, err
	}
	original := lastApplied(old)
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(original, modified, current)
	if err != nil {
		return nil, nil, err
	}
	content, err := jsonpatch.MergePatch(current, patch)
	if err != nil {
		return nil, nil, err
	}
	applied = P(new(T))
	return applied, old, json.Unmarshal(content, applied)
}

// lastApplied returns what was applied last, of which those fields are removed that a manifest no longer has: whole after a client-side
// apply, and after a server-side apply the fields that it owns.
func lastApplied(o client.Object) []byte {
	if whole := o.GetAnnotations()[corev1.LastAppliedConfigAnnotation]; whole != "" {
		return []byte(whole)
	}
	original := map[string]any{}
	for _, entry := range o.GetManagedFields() {
		var owned map[string]any
		if entry.Operation == metav1.ManagedFieldsOperationApply && entry.FieldsV1 != nil && json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) == nil {
			addFields(original, owned)
		}
	}
	content, _ := json.Marshal(original) // what was unmarshalled can be
	return content
}

// addFields adds the fields of an entry of managedFields. Only that they are there matters.
func addFields(to, owned map[string]any) {
	for key, below := range owned {
		name, isField := strings.CutPrefix(key, "f:")
		if !isField {
			continue
		}
		fields, _ := to[name].(map[string]any)
		if fields == nil {
			fields = map[string]any{}
		}
		if below, ok := below.(map[string]any); ok {
			addFields(fields, below)
		}
		to[name] = fields
	}
}

// strictly decodes a manifest, and refuses fields that its kind does not have, as the API server does.
func strictly(manifest []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(manifest))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// asApplied completes an object as the API server would: an edit raises the generation, and a new object was never observed.
func asApplied(sv, old *v1alpha1.GrafanaSecureValue) *v1alpha1.GrafanaSecureValue {
	complete(&sv.Spec)
	if old == nil {
		sv.Generation, sv.CreationTimestamp, sv.Status.ObservedGeneration = 1, metav1.NewTime(time.Now()), -1
		return sv
	}
	was := old.Spec.DeepCopy()
	complete(was)
	if !equality.Semantic.DeepEqual(*was, sv.Spec) {
		sv.Generation = old.Generation + 1
	}
	return sv
}

// complete sets the defaults of the schema.
func complete(spec *v1alpha1.GrafanaSecureValueSpec) {
	if spec.ConnectionRef.Name != "" && spec.ConnectionRef.Kind == "" {
		spec.ConnectionRef.Kind = v1alpha1.KindGrafanaConnection
	}
	if spec.DeletionPolicy == "" {
		spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
	}
	if spec.AdoptionPolicy == "" {
		spec.AdoptionPolicy = v1alpha1.AdoptionPolicyRefuse
	}
	if spec.DriftPolicy == "" {
		spec.DriftPolicy = v1alpha1.DriftPolicyCorrect
	}
}

// completeConnection sets those defaults of the schema without which a client cannot be made.
func completeConnection(spec *v1alpha1.ConnectionSpec) {
	if spec.Namespace == "" {
		spec.Namespace = "default"
	}
	if spec.APIVersion == "" {
		spec.APIVersion = "v1beta1"
	}
}

// secretAsApplied puts stringData where the API server would. A Secret with other data has a version that no record has.
func secretAsApplied(secret, old *corev1.Secret) {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	for key, text := range secret.StringData {
		secret.Data[key] = []byte(text)
	}
	secret.StringData = nil
	if old == nil || !maps.EqualFunc(old.Data, secret.Data, slices.Equal) {
		secret.ResourceVersion = "planned"
	}
}
