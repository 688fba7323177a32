package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// scheme has the kinds that the plugin reads.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, grafanaoperator.AddToScheme, corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	return s
}

// reader is a client.Reader whose errors say which right the user lacks.
type reader struct{ client.Reader }

// Get implements client.Reader.
func (r reader) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return rightError("get", key.Namespace, r.Reader.Get(ctx, key, o, opts...))
}

// List implements client.Reader.
func (r reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	return rightError("list", options.Namespace, r.Reader.List(ctx, list, opts...))
}

// missingRight says which right the user lacks.
type missingRight struct {
	error

	text string
}

func (m *missingRight) Error() string { return m.text }

func (m *missingRight) Unwrap() error { return m.error }

func rightError(verb, namespace string, err error) error {
	var answer apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &answer) || answer.Status().Details == nil {
		return err
	}
	details, name, where := answer.Status().Details, "", "in all namespaces"
	if details.Name != "" {
		name = fmt.Sprintf(" %q", details.Name)
	}
	if namespace != "" {
		where = fmt.Sprintf("in namespace %q", namespace)
	} else if verb == "get" {
		where = "at the scope of the cluster"
	}
	resource := strings.TrimSuffix(details.Kind+"."+details.Group, ".")
	return &missingRight{err, fmt.Sprintf("you lack the right to %s %s%s %s: ask for it, or run this as somebody who has it", verb, resource, name, where)}
}

// isMissingRight reports whether an error is one of a right that the user lacks.
func isMissingRight(err error) bool { return errors.As(err, new(*missingRight)) }

// pageSize is how many objects are read at a time.
const pageSize = 500

// secureValues returns the GrafanaSecureValues of a namespace, or of all if it is empty. It shows its progress.
func (c *cluster) secureValues(ctx context.Context, namespace, selector string) ([]v1alpha1.GrafanaSecureValue, error) {
	progress := c.tool.progress("Reading secure values")
	defer progress.end()
	var found []v1alpha1.GrafanaSecureValue
	pages := pager.New(func(ctx context.Context, page metav1.ListOptions) (runtime.Object, error) {
		list := &v1alpha1.GrafanaSecureValueList{}
		err := c.List(ctx, list, &client.ListOptions{
			Namespace: namespace, Limit: page.Limit, Continue: page.Continue, Raw: &metav1.ListOptions{LabelSelector: selector},
		})
		return list, err
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		sv, _ := o.(*v1alpha1.GrafanaSecureValue) // each item of the list
		found = append(found, *sv)
		progress.show(len(found))
		return nil
	})
	return found, err
}

// connections returns the GrafanaConnections of a namespace, or of all if it is empty, and the ClusterGrafanaConnections. Without the right
// to list those they are left out, and the error says so.
func (c *cluster) connections(ctx context.Context, namespace string) (found []v1alpha1.Connection, shared, err error) {
	own := &v1alpha1.GrafanaConnectionList{}
	if err := c.List(ctx, own, client.InNamespace(namespace)); err != nil {
		return nil, nil, err
	}
	for i := range own.Items {
		found = append(found, &own.Items[i])
	}
	all := &v1alpha1.ClusterGrafanaConnectionList{}
	if err := c.List(ctx, all); err != nil {
		if isMissingRight(err) {
			return found, err, nil
		}
		return nil, nil, err
	}
	for i := range all.Items {
		found = append(found, &all.Items[i])
	}
	return found, nil, nil
}

// connection returns the connection that the user names: NAME, or KIND/NAME with a kind or its short name. Without a kind a GrafanaConnection
// comes first, as in connectionRef.
func (c *cluster) connection(ctx context.Context, name string) (v1alpha1.Connection, error) {
	kind, rest, given := strings.Cut(strings.ToLower(name), "/")
	own, shared := &v1alpha1.GrafanaConnection{}, &v1alpha1.ClusterGrafanaConnection{}
	switch {
	case !given:
		rest = name
	case kind == "gconn" || kind == "grafanaconnection" || kind == "grafanaconnections":
		return own, c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: rest}, own)
	case kind == "cgconn" || kind == "clustergrafanaconnection" || kind == "clustergrafanaconnections":
		return shared, c.Get(ctx, client.ObjectKey{Name: rest}, shared)
	default:
		return nil, fmt.Errorf("--connection is %q: use NAME, gconn/NAME or cgconn/NAME", name)
	}
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: rest}, own)
	if !apierrors.IsNotFound(err) {
		return own, err
	}
	if err := c.Get(ctx, client.ObjectKey{Name: rest}, shared); err == nil || !apierrors.IsNotFound(err) {
		return shared, err
	}
	return nil, fmt.Errorf("there is no GrafanaConnection %q in namespace %q, and no ClusterGrafanaConnection of that name: see `kubectl get gconn,cgconn -A`", rest, c.namespace)
}

// caller calls Grafana with the user's rights to Secrets.
func (c *cluster) caller() connection.Caller {
	return connection.Caller{Reader: c, OperatorNamespace: c.tool.operatorNamespace, UserAgent: c.tool.userAgent()}
}

// explained returns an error of dial, or of a call to Grafana, in words for a person.
func explained(conn v1alpha1.Connection, err error) error {
	if err == nil || isMissingRight(err) {
		return err
	}
	reason, message := connection.Explain(conn, err)
	return fmt.Errorf("%s: %s: %s", connection.IDFor(conn), reason, message)
}

// titleOf names a connection with its namespace.
func titleOf(id ownership.Connection) string {
	if id.Namespace == "" {
		return string(id.Kind) + " " + id.Name
	}
	return string(id.Kind) + " " + id.Namespace + "/" + id.Name
}
