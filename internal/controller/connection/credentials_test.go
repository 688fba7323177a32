package connection

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// Each connection holds them in memory, and a tenant may make many connections.
func TestCredentialsAreBounded(t *testing.T) {
	conn := connectionIn("team-a")
	conn.Spec.Credentials.TokenSecretRef = v1alpha1.SecretKeyReference{Name: "grafana", Key: "token"}
	conn.Spec.TLS = &v1alpha1.TLSConfig{
		CASecretRef:         &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"},
		ClientCertSecretRef: &v1alpha1.SecretReference{Name: "client"},
	}
	for name, row := range map[string]struct {
		token, ca, cert, key int
		refused              string // the Secret that the message names
	}{
		"the largest":                        {token: 8 << 10, ca: 64 << 10, cert: 32 << 10, key: 32 << 10},
		"a token of one more byte":           {token: 8<<10 + 1, ca: 1, cert: 1, key: 1, refused: "grafana"},
		"a CA of one more byte":              {token: 1, ca: 64<<10 + 1, cert: 1, key: 1, refused: "ca"},
		"certificate and key, one more byte": {token: 1, ca: 1, cert: 64 << 10, key: 1, refused: "client"},
	} {
		t.Run(name, func(t *testing.T) {
			secret := func(name string, sizes map[string]int) *corev1.Secret {
				s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name}, Data: map[string][]byte{"other": make([]byte, 100<<10)}}
				for key, size := range sizes {
					s.Data[key] = []byte(strings.Repeat("x", size))
				}
				return s
			}
			r := withObjects(t, secret("grafana", map[string]int{"token": row.token}), secret("ca", map[string]int{"ca.crt": row.ca}),
				secret("client", map[string]int{corev1.TLSCertKey: row.cert, corev1.TLSPrivateKeyKey: row.key}))
			_, err := r.credentials(t.Context(), conn, endpointOfSpec(conn.GetSpec()))
			if row.refused == "" {
				if err != nil {
					t.Errorf("credentials: %v", err)
				}
				return
			}
			if !status.IsReason(err, v1alpha1.ReasonCredentialsInvalid) || !strings.Contains(err.Error(), `Secret "`+row.refused+`"`) {
				t.Errorf("credentials: %v, want %s about Secret %s", err, v1alpha1.ReasonCredentialsInvalid, row.refused)
			}
		})
	}
}
