package controlplane_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

func TestControlPlane(t *testing.T) {
	plane, err := controlplane.Start(controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	running := true
	defer func() {
		if running {
			_ = plane.Stop()
		}
	}()

	t.Run("it is of the wanted minor version", func(t *testing.T) {
		if os.Getenv("KUBEBUILDER_ASSETS") != "" {
			t.Skip("KUBEBUILDER_ASSETS is set")
		}
		wanted, err := assets.Wanted()
		if err != nil {
			t.Fatal(err)
		}
		c, err := discovery.NewDiscoveryClientForConfig(plane.Config())
		if err != nil {
			t.Fatal(err)
		}
		version, err := c.ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		t.Attr("kube-apiserver", version.GitVersion)
		if series := assets.Series(wanted); !strings.HasPrefix(version.GitVersion, "v"+series+".") || version.Major+"."+version.Minor != series {
			t.Errorf("version = %+v, want a release of %s", version, series)
		}
	})

	t.Run("audit distinguishes users", func(t *testing.T) {
		reader, err := plane.AddUser("reader")
		if err != nil {
			t.Fatal(err)
		}
		admin := newClient(t, plane.Config())
		writer, err := plane.AddUser("writer", "system:masters")
		if err != nil {
			t.Fatal(err)
		}
		before := plane.Mark()
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "seen"}}
		if err := newClient(t, writer).Create(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
		mark := plane.Mark()
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cm), cm); err != nil {
			t.Fatal(err)
		}
		err = newClient(t, reader).Get(t.Context(), client.ObjectKeyFromObject(cm), cm)
		if !apierrors.IsForbidden(err) {
			t.Errorf("RBAC is off: a user without a role got %v", err)
		}

		want := controlplane.AuditEvent{
			User: "reader", Verb: "get", Resource: "configmaps", Namespace: "default", Name: "seen",
			Code: http.StatusForbidden, Denied: true, UserAgent: rest.DefaultKubernetesUserAgent(),
		}
		if got := requests(t, plane, mark, "reader"); !slices.Equal(got, []controlplane.AuditEvent{want}) {
			t.Errorf("requests of reader = %+v, want %+v", got, want)
		}
		if got := requests(t, plane, mark, "writer"); len(got) != 0 {
			t.Errorf("requests of writer since the mark = %+v, want none", got)
		}
		want = controlplane.AuditEvent{
			User: "writer", Verb: "create", Resource: "configmaps", Namespace: "default", Name: "seen",
			Code: http.StatusCreated, UserAgent: rest.DefaultKubernetesUserAgent(),
		}
		if got := requests(t, plane, before, "writer"); !slices.Equal(got, []controlplane.AuditEvent{want}) {
			t.Errorf("requests of writer = %+v, want %+v", got, want)
		}
	})

	t.Run("a watch is one request, from its beginning", func(t *testing.T) {
		watcher, err := plane.AddUser("watcher", "system:masters")
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.NewWithWatch(watcher, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mark := plane.Mark()
		watch, err := c.Watch(t.Context(), &corev1.ConfigMapList{}, client.InNamespace("default"))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		got := requests(t, plane, mark, "watcher")
		if len(got) != 1 || got[0].Verb != "watch" || got[0].Code != http.StatusOK {
			t.Errorf("requests = %+v, want one watch", got)
		}
	})

	t.Run("kubectl works with the kubeconfig", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), plane.KubectlPath(), "--kubeconfig", plane.KubeconfigPath(),
			"get", "namespace", "default", "-o", "name").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "namespace/default" {
			t.Errorf("kubectl: %v\n%s", err, out)
		}
	})

	t.Run("stop", func(t *testing.T) {
		c := newClient(t, plane.Config())
		running = false
		if err := plane.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err == nil {
			t.Error("the API server still answers")
		}
		if _, err := plane.Audit(plane.Mark()); !os.IsNotExist(err) {
			t.Errorf("the audit log is still there: %v", err)
		}
	})
}

func TestStartSaysHowToGetTheBinaries(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	_, err := controlplane.Start(controlplane.Options{})
	if err == nil || !strings.Contains(err.Error(), "run `make envtest K8S=") {
		t.Errorf("error = %v, want one that says what to run", err)
	}
}

func TestStartFailsWithoutItsCRDs(t *testing.T) {
	_, err := controlplane.Start(controlplane.Options{CRDDirectories: []string{filepath.Join(t.TempDir(), "none")}})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("error = %v, want one that names the directory", err)
	}
}

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// requests returns what the user asked of the API server for objects since the mark, discovery apart, without the time.
func requests(t *testing.T, plane *controlplane.ControlPlane, since controlplane.Mark, user string) []controlplane.AuditEvent {
	t.Helper()
	events, err := plane.Audit(since)
	if err != nil {
		t.Fatal(err)
	}
	var found []controlplane.AuditEvent
	for _, e := range events {
		if e.User != user || e.Resource == "" {
			continue
		}
		if e.Time.IsZero() {
			t.Errorf("no time in %+v", e)
		}
		e.Time = time.Time{}
		found = append(found, e)
	}
	return found
}
