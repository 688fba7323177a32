package securevalue

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/index"
)

// View is a cluster as it would be with other objects: what it has not, it reads from the API server. It answers the queries of the
// Reconciler, by the same indexes.
type View struct {
	live      client.Reader
	clusterID string
	planned   map[client.ObjectKey]*v1alpha1.GrafanaSecureValue
	read      map[string][]v1alpha1.GrafanaSecureValue // of the API server, by namespace
	indexed   map[string]*namespaceView                // by namespace; what is put there removes it
	others    map[string]client.Object
}

// namespaceView has the objects of a namespace, as they would be.
type namespaceView struct {
	all     []*v1alpha1.GrafanaSecureValue
	byKey   map[client.ObjectKey]*v1alpha1.GrafanaSecureValue
	matched map[string][]*v1alpha1.GrafanaSecureValue // by a field selector of an index
}

// NewView returns a view of what reader shows.
func NewView(reader client.Reader) *View {
	return &View{
		live: reader, planned: map[client.ObjectKey]*v1alpha1.GrafanaSecureValue{},
		read: map[string][]v1alpha1.GrafanaSecureValue{}, indexed: map[string]*namespaceView{}, others: map[string]client.Object{},
	}
}

// Put has the view show an object in place of the one that the API server has: a GrafanaSecureValue, a connection or a Secret.
func (v *View) Put(o client.Object) {
	if sv, ok := o.(*v1alpha1.GrafanaSecureValue); ok {
		v.planned[keyOf(sv)] = sv
		delete(v.indexed, sv.Namespace)
		return
	}
	v.others[identity(o, client.ObjectKeyFromObject(o))] = o
}

// identity tells objects of all kinds apart.
func identity(o client.Object, key client.ObjectKey) string { return fmt.Sprintf("%T %s", o, key) }

// Get implements client.Reader.
func (v *View) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if into, ok := o.(*v1alpha1.GrafanaSecureValue); ok {
		in, err := v.index(ctx, key.Namespace)
		if err != nil {
			return err
		}
		if sv := in.byKey[key]; sv != nil {
			sv.DeepCopyInto(into)
			return nil
		}
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("grafanasecurevalues").GroupResource(), key.Name)
	}
	shown, found := v.others[identity(o, key)]
	if !found {
		return v.live.Get(ctx, key, o, opts...)
	}
	switch into := o.(type) {
	case *v1alpha1.GrafanaConnection:
		shown.(*v1alpha1.GrafanaConnection).DeepCopyInto(into) //nolint:forcetypeassert // the identity has the type
	case *v1alpha1.ClusterGrafanaConnection:
		shown.(*v1alpha1.ClusterGrafanaConnection).DeepCopyInto(into) //nolint:forcetypeassert // as above
	case *corev1.Secret:
		shown.(*corev1.Secret).DeepCopyInto(into) //nolint:forcetypeassert // as above
	}
	return nil
}

// List implements client.Reader. Of GrafanaSecureValues it shows those of a namespace that match an index.
func (v *View) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	switch into := list.(type) {
	case *v1alpha1.GrafanaSecureValueList:
		in, err := v.index(ctx, options.Namespace)
		if err != nil {
			return err
		}
		for _, sv := range in.matching(options) {
			into.Items = append(into.Items, *sv)
		}
		return nil
	case *metav1.PartialObjectMetadataList: // asked for what an index does not show, and here an index shows all
		return nil
	default:
		return v.live.List(ctx, list, opts...)
	}
}

// matching returns the objects that a query asks for.
func (in *namespaceView) matching(options *client.ListOptions) []*v1alpha1.GrafanaSecureValue {
	if options.FieldSelector == nil {
		return in.all
	}
	return in.matched[options.FieldSelector.String()]
}

// index returns the objects of a namespace, as they would be.
func (v *View) index(ctx context.Context, namespace string) (*namespaceView, error) {
	if in := v.indexed[namespace]; in != nil {
		return in, nil
	}
	if _, read := v.read[namespace]; !read {
		list := &v1alpha1.GrafanaSecureValueList{}
		if err := v.live.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		v.read[namespace] = list.Items
	}
	in := &namespaceView{
		byKey: map[client.ObjectKey]*v1alpha1.GrafanaSecureValue{}, matched: map[string][]*v1alpha1.GrafanaSecureValue{},
	}
	for i := range v.read[namespace] {
		in.byKey[keyOf(&v.read[namespace][i])] = &v.read[namespace][i]
	}
	for key, sv := range v.planned {
		if key.Namespace == namespace {
			in.byKey[key] = sv
		}
	}
	indexes := []index.Index{nameIndex, connection.OwnerIndex(v.clusterID)} // those that a decision asks for
	for _, sv := range in.byKey {
		in.all = append(in.all, sv)
		for _, index := range indexes {
			for _, key := range index.Keys(sv) {
				selector := fields.OneTermEqualSelector(index.Field, key).String()
				in.matched[selector] = append(in.matched[selector], sv)
			}
		}
	}
	v.indexed[namespace] = in
	return in, nil
}

// readOnly is a client.Client that reads a view. The reconciler of a planner writes nothing: a write would panic.
type readOnly struct {
	client.Client

	view *View
}

// Get implements client.Reader.
func (r readOnly) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return r.view.Get(ctx, key, o, opts...)
}

// List implements client.Reader.
func (r readOnly) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return r.view.List(ctx, list, opts...)
}
