package connection

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// credentials is what the Secrets of a connection hold.
type credentials struct {
	token    grafana.Token
	ca       []byte
	versions string // of the Secrets read
}

// secretRefs returns the Secrets that a connection names: its token, then its CA, if any.
func secretRefs(spec *v1alpha1.ConnectionSpec) []v1alpha1.SecretKeyReference {
	refs := []v1alpha1.SecretKeyReference{spec.Credentials.TokenSecretRef}
	if spec.TLS != nil && spec.TLS.CASecretRef != nil {
		refs = append(refs, *spec.TLS.CASecretRef)
	}
	return refs
}

// secretNamespace returns where the Secrets of a connection live: beside it, or in the operator's namespace.
func (r *Reconciler) secretNamespace(conn v1alpha1.Connection) string {
	if conn.ConnectionKind() == v1alpha1.KindClusterGrafanaConnection {
		return r.operatorNamespace
	}
	return conn.GetNamespace()
}

// cachedVersions returns the versions of the connection's Secrets as the metadata cache shows them, and whether it shows
// them all.
func (r *Reconciler) cachedVersions(ctx context.Context, conn v1alpha1.Connection) (string, bool) {
	var versions []string
	for _, ref := range secretRefs(conn.GetSpec()) {
		meta := &metav1.PartialObjectMetadata{}
		meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		key := client.ObjectKey{Namespace: r.secretNamespace(conn), Name: ref.Name}
		if err := r.client.Get(ctx, key, meta); err != nil {
			return "", false
		}
		versions = append(versions, version(meta))
	}
	return strings.Join(versions, ","), true
}

// credentials reads the Secrets of the connection, live.
func (r *Reconciler) credentials(ctx context.Context, conn v1alpha1.Connection) (credentials, error) {
	var (
		contents [][]byte
		versions []string
		result   credentials
	)
	namespace := r.secretNamespace(conn)
	for _, ref := range secretRefs(conn.GetSpec()) {
		secret := &corev1.Secret{}
		err := r.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, secret)
		if apierrors.IsNotFound(err) {
			return result, credentialsNotFound("Secret %q does not exist in namespace %q. Create it; it is used as soon as it is there.",
				ref.Name, namespace)
		}
		if err != nil {
			return result, err
		}
		versions = append(versions, version(secret))
		result.versions = strings.Join(versions, ",")
		if secret.Type == fingerprint.SecretType {
			return result, credentialsInvalid("Secret %q is the operator's own and holds no credentials. Name another one.", ref.Name)
		}
		content, found := secret.Data[ref.Key]
		if !found {
			return result, credentialsNotFound("Secret %q in namespace %q has no key %q. Add it; it is used as soon as it is there.",
				ref.Name, namespace, ref.Key)
		}
		contents = append(contents, content)
	}
	result.token = grafana.NewToken(contents[0])
	if len(contents) > 1 {
		result.ca = contents[1]
	}
	ref := conn.GetSpec().Credentials.TokenSecretRef
	switch {
	case result.token.Empty():
		return result, credentialsInvalid("Key %q of Secret %q is empty. Put a service account token of Grafana there.", ref.Key, ref.Name)
	case !result.token.IsPrintable():
		return result, credentialsInvalid("Key %q of Secret %q holds characters that no token has, as a line break. Put the token alone there.",
			ref.Key, ref.Name)
	case result.token.IsCloudAccessPolicy():
		return result, credentialsInvalid("Key %q of Secret %q holds a Grafana Cloud access policy token (glc_...), which this API "+
			"does not take. Put a service account token (glsa_...) of the stack there.", ref.Key, ref.Name)
	}
	return result, nil
}

func version(o metav1.Object) string { return string(o.GetUID()) + "/" + o.GetResourceVersion() }
