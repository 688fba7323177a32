package connection

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// credentials is what the Secrets of a connection hold.
type credentials struct {
	token    grafana.Token
	user     grafana.Value // of token, where that is a user and a password
	ca       []byte
	cert     []byte
	key      []byte // of cert
	versions string // of the Secrets read
}

// What is read of a Secret is kept in memory for each connection, so it is bounded.
const (
	maxTokenBytes       = 8 << 10
	maxCertificateBytes = 64 << 10 // certificate and key together
)

// tokenIn is a key with the token of a service account.
func tokenIn(ref v1alpha1.SecretKeyReference) secretRef {
	return secretRef{name: ref.Name, keys: []string{ref.Key}, maxBytes: maxTokenBytes, put: func(c *credentials, content [][]byte) error {
		c.token = grafana.NewToken(content[0])
		switch {
		case c.token.Empty():
			return credentialsInvalid("Key %q of Secret %q is empty. Put a service account token of Grafana there.", ref.Key, ref.Name)
		case !c.token.IsPrintable():
			return credentialsInvalid("Key %q of Secret %q contains characters that are not allowed in a token, for example a line break. Put the token alone there.",
				ref.Key, ref.Name)
		case c.token.IsCloudAccessPolicy():
			return credentialsInvalid("Key %q of Secret %q holds a Grafana Cloud access policy token (glc_...), which this API does not take. Put a service account token (glsa_...) of the stack there.", ref.Key, ref.Name)
		}
		return nil
	}}
}

// userIn is a key with the name of a user, and passwordIn the one with its password, which must come after it. Both are taken as they are,
// as grafana-operator takes them.
func userIn(ref grafanaoperator.SecretKey) secretRef {
	return secretRef{name: ref.Name, keys: []string{ref.Key}, maxBytes: maxTokenBytes, put: func(c *credentials, content [][]byte) error {
		if c.user = grafana.NewValue(given(content[0])); bytes.ContainsRune(content[0], ':') {
			return credentialsInvalid("Key %q of Secret %q holds a colon, which no user of Grafana has in basic authentication. Put the name of the user alone there.", ref.Key, ref.Name)
		}
		return checkLogin(ref, content[0], "name of the user")
	}}
}

func passwordIn(ref grafanaoperator.SecretKey) secretRef {
	return secretRef{name: ref.Name, keys: []string{ref.Key}, maxBytes: maxTokenBytes, put: func(c *credentials, content [][]byte) error {
		c.token = grafana.NewBasicAuth(c.user.Bytes(), content[0])
		return checkLogin(ref, content[0], "password")
	}}
}

func checkLogin(ref grafanaoperator.SecretKey, content []byte, what string) error {
	switch {
	case len(content) == 0:
		return credentialsInvalid("Key %q of Secret %q is empty. Put the %s there.", ref.Key, ref.Name, what)
	case bytes.ContainsFunc(content, unicode.IsControl):
		return credentialsInvalid("Key %q of Secret %q contains a control character, for example a line break. Put the %s alone there.", ref.Key, ref.Name, what)
	}
	return nil
}

// secretNamespace returns where the Secrets of a connection live: beside it, or in the operator's namespace.
func (r *Reconciler) secretNamespace(conn v1alpha1.Connection) string {
	if conn.ConnectionKind() == v1alpha1.KindClusterGrafanaConnection {
		return r.OperatorNamespace
	}
	return conn.GetNamespace()
}

// cachedVersions returns the versions of the connection's Secrets as the metadata cache shows them, and whether it shows
// them all.
func (r *Reconciler) cachedVersions(ctx context.Context, conn v1alpha1.Connection, to *endpoint) (string, bool) {
	if to == nil {
		return "", false
	}
	var versions []string
	for _, ref := range to.secrets {
		meta := &metav1.PartialObjectMetadata{}
		meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		key := client.ObjectKey{Namespace: r.secretNamespace(conn), Name: ref.name}
		if err := r.client.Get(ctx, key, meta); err != nil {
			return "", false
		}
		versions = append(versions, version(meta))
	}
	return strings.Join(versions, ","), true
}

// credentials reads the Secrets of the connection, live.
func (r *Reconciler) credentials(ctx context.Context, conn v1alpha1.Connection, to *endpoint) (credentials, error) {
	var (
		versions []string
		result   credentials
		invalid  error
	)
	namespace := r.secretNamespace(conn)
	for _, ref := range to.secrets {
		if what := Foreign(ref.name, ""); what != "" && namespace == r.OperatorNamespace {
			return result, noCredentials(ref.name, what)
		}
		secret := &corev1.Secret{}
		err := r.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.name}, secret)
		if apierrors.IsNotFound(err) {
			return result, credentialsNotFound("Secret %q does not exist in namespace %q. Create it; it is used as soon as it is there.",
				ref.name, namespace)
		}
		if err != nil {
			return result, err
		}
		versions = append(versions, version(secret))
		result.versions = strings.Join(versions, ",")
		if what := Foreign(ref.name, secret.Type); what != "" && (namespace == r.OperatorNamespace || secret.Type == fingerprint.SecretType || to.grafana != "") {
			return result, noCredentials(ref.name, what)
		}
		if ref.optional && !slices.ContainsFunc(ref.keys, func(key string) bool { return secret.Data[key] != nil }) {
			continue
		}
		var contents [][]byte
		size := 0
		for _, key := range ref.keys {
			content, found := secret.Data[key]
			if !found {
				return result, credentialsNotFound("Secret %q in namespace %q has no key %q. Add it; it is used as soon as it is there.",
					ref.name, namespace, key)
			}
			contents = append(contents, content)
			size += len(content)
		}
		if size > ref.maxBytes {
			return result, credentialsInvalid("Secret %q has %d bytes in %s, and the operator reads at most %d. Put shorter content there.",
				ref.name, size, strings.Join(ref.keys, " and "), ref.maxBytes)
		}
		if err := ref.put(&result, contents); invalid == nil {
			invalid = err
		}
	}
	return result, invalid
}

// helmReleasePrefix is how the names of the Secrets begin in which Helm keeps its releases, with all values that they were given.
const helmReleasePrefix = "sh.helm.release."

// Foreign says what a Secret is that holds nothing for Grafana, whoever may write a connection or a secure value; "" if it may.
func Foreign(name string, secretType corev1.SecretType) string {
	switch {
	case secretType == fingerprint.SecretType:
		return "the operator's own"
	case secretType == corev1.SecretTypeServiceAccountToken:
		return "the token of a ServiceAccount of Kubernetes"
	case secretType == "helm.sh/release.v1", strings.HasPrefix(name, helmReleasePrefix):
		return "a release of Helm"
	default:
		return ""
	}
}

func version(o metav1.Object) string { return string(o.GetUID()) + "/" + o.GetResourceVersion() }
