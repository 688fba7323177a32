package plugin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// A ClusterGrafanaConnection has its Secrets in the namespace of the operator, which a user of a team may not read.
func TestClusterConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "shared")
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "shared"}, Data: map[string][]byte{"token": []byte(token)}})
	conn := &v1alpha1.ClusterGrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.DefaultConnection},
		Spec: v1alpha1.ClusterGrafanaConnectionSpec{
			ConnectionSpec: v1alpha1.ConnectionSpec{
				URL: w.url, Credentials: v1alpha1.Credentials{TokenSecretRef: v1alpha1.SecretKeyReference{Name: "shared", Key: "token"}},
			},
			AllowedNamespaces: v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}, RequireNamePrefix: true,
		},
	}
	w.create(conn)
	w.eventually(conn, v1alpha1.ReasonConnected)
	w.secret("source", map[string]string{"api-key": "canary-1"})
	sv := w.value("api-key")
	sv.Spec.ConnectionRef = v1alpha1.ConnectionReference{}
	if planned := w.plan(1, manifest(t, sv)); planned[0].Reason != v1alpha1.ReasonNameNotAllowed {
		t.Errorf("planned %v", planned)
	}
	sv.Spec.Name = "shared.api-key"
	w.only(w.plan(2, manifest(t, sv)), "create shared.api-key")
	w.create(sv)
	w.eventually(sv, v1alpha1.ReasonSynced)
	run(t, "status", "-n", w.namespace).expect(t, 0, "ClusterGrafanaConnection default ("+w.url+"): Connected\n└─ shared/api-key  Synced  shared.api-key, version 1\n")
	run(t, "doctor", "--connection", "cgconn/default").expect(t, 0, "delete       ok")
	run(t, "orphans", "--connection", "default", "-n", w.namespace).expect(t, 0, "No orphans found.")

	for _, resource := range []string{"grafanasecurevalues", "grafanaconnections"} {
		grant(w, "member", w.namespace, v1alpha1.GroupName, resource, "list", "get")
	}
	run(t, "status", "-n", w.namespace, "--as", "member").expect(t, 0, "You may not see it.",
		"ClusterGrafanaConnections are not shown: you lack the right to list clustergrafanaconnections.grafana.securevalues.io")
	run(t, "doctor", "--connection", "cgconn/default", "--as", "member").expect(t, 1, "you lack the right to get clustergrafanaconnections")
}
