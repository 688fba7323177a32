package fingerprint

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestKeyThatIsNotThere(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"no namespace": {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "nope"), `namespace "nope" does not exist`},
		"no right":     {apierrors.NewForbidden(secrets, SecretName, nil), "grant get and create on Secret"},
		"no answer":    {errors.New("no answer"), "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var granted atomic.Bool
				api := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
					Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
						if !granted.Load() {
							return row.err
						}
						return c.Create(ctx, o, opts...)
					},
				}).Build()
				k := NewStore(api, api, "nope")
				if err := k.Check(nil); err != nil {
					t.Errorf("a standby, which does not look for it, is not ready: %v", err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = k.Start(ctx) }()
				synctest.Wait()
				begun := time.Now()
				if _, err := k.Key(ctx); !errors.Is(err, ErrNotLoaded) || time.Since(begun) > keyTimeout {
					t.Errorf("Key = %v after %s", err, time.Since(begun))
				}
				if err := k.Check(nil); err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("Check = %v, want %q", err, row.want)
				}

				granted.Store(true)
				time.Sleep(2 * retryPeriod) //nolint:forbidigo // of fake time
				synctest.Wait()
				if _, err := k.Key(ctx); err != nil {
					t.Errorf("Key = %v", err)
				}
				if err := k.Check(nil); err != nil {
					t.Errorf("Check = %v", err)
				}
				if err := api.Get(ctx, client.ObjectKey{Namespace: "nope", Name: SecretName}, &corev1.Secret{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
