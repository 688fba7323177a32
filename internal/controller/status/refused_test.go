package status

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestRefused(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	answer := func(code int32, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Message: message, Reason: "canary"}}
	}
	for name, row := range map[string]struct {
		err  error
		want string // in the message; empty is that it is no refusal
	}{
		"no right":           {apierrors.NewForbidden(secrets, "x", errors.New(`User "u" cannot get resource "secrets" in API group "" canary`)), "lacks the right to get it"},
		"quota":              {apierrors.NewForbidden(secrets, "x", errors.New("exceeded quota: objects, requested: canary")), `ResourceQuota "objects" is exceeded`},
		"policy":             {answer(422, `ValidatingAdmissionPolicy 'labels.example.com' with binding 'x' denied request: canary`), `ValidatingAdmissionPolicy "labels.example.com" denies it`},
		"policy that is 400": {answer(400, `ValidatingAdmissionPolicy 'labels' with binding 'x' denied request: canary`), `ValidatingAdmissionPolicy "labels" denies it`},
		"webhook":            {answer(403, `admission webhook "a.example.com" denied the request: canary`), `webhook "a.example.com" denies it`},
		"webhook that fails": {apierrors.NewInternalError(errors.New(`failed calling webhook "a.example.com": canary`)), `webhook "a.example.com" could not be called`},
		"schema":             {apierrors.NewInvalid(schema.GroupKind{Kind: "X"}, "x", nil), "finds the object invalid"},
		"some plugin":        {answer(403, "canary"), "HTTP 403"},
		"test of a patch":    {apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "testing value /metadata/uid failed", 0, false), ""},
		"gone":               {apierrors.NewNotFound(secrets, "x"), ""},
		"conflict":           {apierrors.NewConflict(secrets, "x", errors.New("y")), ""},
		"too many":           {apierrors.NewTooManyRequests("later", 1), ""},
		"a failure":          {apierrors.NewInternalError(errors.New("etcd")), ""},
		"no answer":          {errors.New("connection refused"), ""},
		"none":               {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := refused("get", &corev1.Secret{}, client.ObjectKey{Namespace: "team-a", Name: "x"}, row.err)
			e := Of(err)
			switch {
			case row.want == "":
				if e != nil || !errors.Is(err, row.err) {
					t.Errorf("got %v, want what it was", err)
				}
			case e == nil || e.Reason != v1alpha1.ReasonKubernetesRefused || e.Class != Time || !errors.Is(err, row.err):
				t.Errorf("got %v, want a refusal", err)
			case !strings.HasPrefix(e.Message, `Kubernetes refused to get Secret "x" in namespace "team-a": `) || !strings.Contains(e.Message, row.want):
				t.Errorf("says %q, want %q", e.Message, row.want)
			case strings.Contains(e.Message, "canary"):
				t.Errorf("says %q, with words of the answer", e.Message)
			}
		})
	}
}
