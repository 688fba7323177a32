package v1alpha1_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// plane is a real kube-apiserver that serves the CRDs of this repository, once a test has asked for it.
var plane *controlplane.ControlPlane

// start starts plane for the first test that asks.
var start = sync.OnceValue(func() (err error) {
	plane, err = controlplane.Start(controlplane.Options{
		CRDDirectories: []string{filepath.Join("..", "..", "config", "crd", "bases")},
	})
	return err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if plane != nil {
		if err := plane.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// newClient returns a client of the API server, and what it was made of.
func newClient(t *testing.T) (client.Client, *rest.Config) {
	t.Helper()
	if err := start(); err != nil {
		t.Fatal(err)
	}
	config := plane.Config()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c, config
}

// deleteObject deletes what a test made.
func deleteObject(t *testing.T, c client.Client, object client.Object) {
	t.Helper()
	if err := c.Delete(context.WithoutCancel(t.Context()), object); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}
