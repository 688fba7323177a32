package fingerprint

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		"no Secret": {
			apierrors.NewNotFound(secrets, SecretName),
			"create it: kubectl create secret generic " + SecretName + " --type=" + string(SecretType) + " -n nope",
		},
		"no right":  {apierrors.NewForbidden(secrets, SecretName, nil), "grant get and update on Secret"},
		"no answer": {errors.New("no answer"), "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var granted atomic.Bool
				api := fake.NewClientBuilder().WithObjects(emptySecret()).WithInterceptorFuncs(interceptor.Funcs{
					Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
						if !granted.Load() {
							return row.err
						}
						return c.Update(ctx, o, opts...)
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
			})
		})
	}
}

func TestKeyIsMadeOnceInTheEmptySecret(t *testing.T) {
	api := fake.NewClientBuilder().WithObjects(emptySecret()).Build()
	var first Key
	for i := range 2 {
		k := NewStore(api, api, "nope")
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		key, err := k.Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = key
		} else if !bytes.Equal(key.Bytes(), first.Bytes()) {
			t.Error("another start made another key")
		}
	}
	secret := &corev1.Secret{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(emptySecret()), secret); err != nil {
		t.Fatal(err)
	}
	if secret.Immutable == nil || !*secret.Immutable || !bytes.Equal(secret.Data[dataKey], first.Bytes()) || secret.Labels["of"] != "the installation" {
		t.Errorf("Secret = %+v", secret.ObjectMeta)
	}
}

func TestSecretThatIsNoKeyIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*corev1.Secret){
		"another type":    func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"another content": func(s *corev1.Secret) { s.Data = map[string][]byte{"note": []byte("mine")} },
		"too short":       func(s *corev1.Secret) { s.Data = map[string][]byte{dataKey: []byte("short")} },
	} {
		t.Run(name, func(t *testing.T) {
			secret := emptySecret()
			change(secret)
			api := fake.NewClientBuilder().WithObjects(secret).Build()
			if err := NewStore(api, api, "nope").Start(t.Context()); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
				t.Errorf("Start = %v", err)
			}
			found := &corev1.Secret{}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(secret), found); err != nil || !maps.EqualFunc(found.Data, secret.Data, bytes.Equal) {
				t.Errorf("it was changed: %v, %v", found.Data, err)
			}
		})
	}
}

// emptySecret returns the Secret as an installation makes it.
func emptySecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "nope", Name: SecretName, Labels: map[string]string{"of": "the installation"}},
		Type:       SecretType,
	}
}
