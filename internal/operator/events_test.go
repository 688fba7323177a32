package operator

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// Each event is one request, in protobuf, even if the next one says the same.
func TestEventsAreSentOnce(t *testing.T) {
	sent := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			sent <- r.URL.Path + " " + r.Header.Get("Content-Type")
		}
		w.WriteHeader(http.StatusForbidden) // which is not tried again
	}))
	defer server.Close()
	mgr, err := newAnnouncing(&rest.Config{Host: server.URL}, ctrl.Options{Scheme: Scheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "api-key", UID: "1"}}
	for range 2 {
		mgr.GetEventRecorder("test").Eventf(sv, nil, corev1.EventTypeNormal, "Created", "Sync", "Created secure value %s", sv.Name)
	}
	close(mgr.ended)
	mgr.send(t.Context())
	close(sent)
	var got []string
	for request := range sent {
		got = append(got, request)
	}
	want := "/apis/events.k8s.io/v1/namespaces/team/events application/vnd.kubernetes.protobuf"
	if !slices.Equal(got, []string{want, want}) {
		t.Errorf("got POST %q, want POST %q twice", got, want)
	}
}

// Who waits for the API server to take events has a bound, and nobody waits for room.
func TestEventsAreDropped(t *testing.T) {
	mgr, err := newAnnouncing(&rest.Config{Host: "http://127.0.0.1:1"}, ctrl.Options{Scheme: Scheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	conn := &v1alpha1.ClusterGrafanaConnection{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("x", maxEventObject-1) + "-" + strings.Repeat("x", 20)}}
	for range eventQueue + 1 {
		mgr.GetEventRecorder("test").Eventf(conn, nil, corev1.EventTypeWarning, "Unreachable", "Sync", "no answer")
	}
	event := <-mgr.queue
	problems := validation.IsDNS1123Subdomain(event.Name)
	if len(mgr.queue) != eventQueue-1 || event.Namespace != metav1.NamespaceDefault || len(problems) > 0 {
		t.Errorf("%d wait, the first in namespace %q, with a name that has the problems %q", len(mgr.queue)+1, event.Namespace, problems)
	}
}
