package securevalue

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// These tests prove that whoever runs the server of a namespaced connection learns nothing about objects of other namespaces.

// A name that is released wakes those that wait for it. A GET then tells the server that the name was in use somewhere.
func TestAReleasedNameIsToldToTheServerThatHadItAlone(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		released := w.value("released")
		released.Spec.Name = "api-key"
		for namespace, url := range map[string]string{
			"same-server": w.url + "/", "own-server": "http://grafana.own-server.svc", "no-connection": "",
		} {
			if url != "" {
				conn := w.connection("prod", "default")
				conn.Namespace, conn.Spec.URL = namespace, url
				w.create(conn)
			}
			waiting := w.value("waiting")
			waiting.Namespace, waiting.Spec.Name = namespace, "api-key"
			waiting.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonNameConflict}}
			w.create(waiting)
		}
		w.restart()
		var woken []string
		for _, req := range w.process.values.concerned(t.Context(), released) {
			woken = append(woken, req.Namespace)
		}
		if !slices.Equal(woken, []string{"same-server"}) {
			t.Errorf("woken are objects of %q", woken)
		}
	})
}

// Owner labels are hashes that a tenant can compute. What a server shows with those of another namespace is the same to the operator,
// whether the object exists or not.
func TestAForeignOwnerLabelSaysNothingOfItsObject(t *testing.T) {
	f := newFront(t)
	for _, policy := range []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt} {
		var calls, said []string
		for _, exists := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, f, grafanatest.New())
				victim := w.value("victim")
				victim.Namespace, victim.Spec.Suspend = "team-b", true
				if exists {
					w.create(victim)
				}
				w.grafana.Put("default", grafanatest.Stored{Name: "probe", Description: "x", Value: []byte("x"), Labels: map[string]string{
					ownership.LabelCluster: worldCluster, ownership.LabelOwner: ownership.OwnerLabel(worldCluster, client.ObjectKeyFromObject(victim)),
				}})
				w.source("canary-1")
				sv := w.value("probe")
				sv.Spec.AdoptionPolicy = policy
				w.create(sv)
				w.restart()
				w.settle()
				conn := &v1alpha1.GrafanaConnection{}
				w.must(w.api.Get(t.Context(), client.ObjectKey{Namespace: worldNamespace, Name: "prod"}, conn))
				sv = w.get(worldNamespace, "probe")
				if conn.Status.OrphanedValues == nil || *conn.Status.OrphanedValues != 0 {
					t.Errorf("the status of the connection is %+v, want no orphaned values", conn.Status)
				}
				if reason := status.Reason(sv.Status.Conditions); reason != v1alpha1.ReasonNameConflict {
					t.Errorf("the object says %s", reason)
				}
				calls = append(calls, strings.Join(w.callsIn(0, func(call string) bool { return call != "PATCH status *v1alpha1.GrafanaSecureValue victim" }), "\n"))
				said = append(said, sv.Status.Conditions[0].Message)
			})
		}
		if calls[0] != calls[1] || said[0] != said[1] {
			t.Errorf("%s: without the object %s\n%s\nwith it %s\n%s", policy, said[0], calls[0], said[1], calls[1])
		}
	}
}
