package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// Reader is a client.Reader whose errors say which request Kubernetes refused, and Client one that does so for writes.
type (
	Reader struct{ client.Reader }
	Client struct{ client.Client }
	writer struct{ client.SubResourceWriter }
)

// Get implements client.Reader.
func (r Reader) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return refused("get", o, key, r.Reader.Get(ctx, key, o, opts...))
}

// List implements client.Reader.
func (r Reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return refused("list", list, client.ObjectKey{}, r.Reader.List(ctx, list, opts...))
}

// Update implements client.Writer.
func (c Client) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return refused("update", o, client.ObjectKeyFromObject(o), c.Client.Update(ctx, o, opts...))
}

// Patch implements client.Writer.
func (c Client) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return refused("patch", o, client.ObjectKeyFromObject(o), c.Client.Patch(ctx, o, patch, opts...))
}

// Delete implements client.Writer.
func (c Client) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return refused("delete", o, client.ObjectKeyFromObject(o), c.Client.Delete(ctx, o, opts...))
}

// Status implements client.StatusClient.
func (c Client) Status() client.SubResourceWriter { return writer{c.Client.Status()} }

func (w writer) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	return refused("patch the status of", o, client.ObjectKeyFromObject(o), w.SubResourceWriter.Patch(ctx, o, patch, opts...))
}

// refusers are who refuses a request, by the words of the API server. The first group of a pattern is a name.
var refusers = []struct {
	words *regexp.Regexp
	who   string
}{
	{regexp.MustCompile(`ValidatingAdmissionPolicy '([-.a-z0-9]{1,253})'`), "ValidatingAdmissionPolicy \"%s\" denies it. Change the object, or exempt the operator's ServiceAccount."},
	{regexp.MustCompile(`failed calling webhook "([-.a-z0-9]{1,253})"`), "admission webhook \"%s\" could not be called. Check it."},
	{regexp.MustCompile(`admission webhook "([-.a-z0-9]{1,253})" denied`), "admission webhook \"%s\" denies it. Change the object, or exempt the operator's ServiceAccount."},
	{regexp.MustCompile(`exceeded quota: ([-.a-z0-9]{1,253})`), "ResourceQuota \"%s\" is exceeded. Raise it."},
	{regexp.MustCompile(` cannot ([a-z]{1,20}) resource `), "the operator lacks the right to %s it. Grant that to its ServiceAccount, as the roles of the installation do."},
}

// refused returns what is known of an error by which the API server, or who decides in its place, refuses a request and would again. All
// else is returned as it is, also a test of a JSON patch that fails: that is Invalid, and names no kind.
func refused(verb string, o runtime.Object, key client.ObjectKey, err error) error {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return err
	}
	status, who := answer.Status(), ""
	for _, r := range refusers {
		if found := r.words.FindStringSubmatch(status.Message); found != nil {
			who = fmt.Sprintf(r.who, found[1])
			break
		}
	}
	switch named := status.Details != nil && status.Details.Kind != ""; {
	case who != "":
	case status.Code == http.StatusUnprocessableEntity && named:
		who = "the API server finds the object invalid. Edit it until the schema accepts it."
	case status.Code == http.StatusForbidden, status.Code == http.StatusBadRequest, status.Code == http.StatusUnauthorized,
		status.Code == http.StatusRequestEntityTooLarge, status.Code == http.StatusMethodNotAllowed:
		who = fmt.Sprintf("the answer is HTTP %d.", status.Code)
	default:
		return err
	}
	what := strings.TrimSuffix(cmp.Or(o.GetObjectKind().GroupVersionKind().Kind, reflect.TypeOf(o).Elem().Name()), "List")
	if key.Name == "" {
		what += "s"
	} else {
		what += fmt.Sprintf(" %q", key.Name)
	}
	if key.Namespace != "" {
		what += fmt.Sprintf(" in namespace %q", key.Namespace)
	}
	return Errorf(Time, v1alpha1.ReasonKubernetesRefused, "Kubernetes refused to %s %s: %s The operator retries automatically.", verb, what, who).Because(err)
}
