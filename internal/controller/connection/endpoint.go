package connection

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// endpoint is where a connection calls Grafana, with what, and how it trusts the server: what its spec says, or the Grafana that it
// references. Nil is one that is not known.
type endpoint struct {
	url     string
	secrets []secretRef
	tls     *v1alpha1.TLSConfig
	access  string // secrets and tls, to compare
	grafana string // name of the Grafana that all this is of; "": it is of the spec
}

// GrafanaRef returns the reference of a connection to a Grafana of grafana-operator, or nil.
func GrafanaRef(conn v1alpha1.Connection) *v1alpha1.GrafanaReference {
	if c, ok := conn.(*v1alpha1.GrafanaConnection); ok {
		return c.Spec.GrafanaRef
	}
	return nil
}

// endpointOfSpec returns what the spec of a connection says.
func endpointOfSpec(spec *v1alpha1.ConnectionSpec) *endpoint {
	access, _ := json.Marshal([]any{spec.Credentials, spec.TLS}) // plain structs, which always can be
	to := &endpoint{url: spec.URL, tls: spec.TLS, access: string(access), secrets: []secretRef{tokenIn(spec.Credentials.TokenSecretRef)}}
	if spec.TLS == nil {
		return to
	}
	if ca := spec.TLS.CASecretRef; ca != nil {
		to.secrets = append(to.secrets, caIn(*ca))
	}
	if client := spec.TLS.ClientCertSecretRef; client != nil {
		to.secrets = append(to.secrets, clientCertIn(client.Name))
	}
	return to
}

// endpointOfGrafana returns what a Grafana of grafana-operator says, for a connection with that spec.
func endpointOfGrafana(g *grafanaoperator.Grafana, spec *v1alpha1.GrafanaConnectionSpec) (*endpoint, error) {
	external, tls := g.Spec.External, g.TLS()
	switch {
	case spec.URL != "" || spec.TLS != nil || spec.Credentials != v1alpha1.Credentials{}: // of an object older than the schema
		return nil, invalidSpec(errors.New("url, credentials and tls must not be given with grafanaRef, which has its own"))
	case external == nil:
		return nil, grafanaNotSupported(g.Name, "has no spec.external: grafana-operator runs it itself")
	case external.TenantNamespace != "" && external.TenantNamespace != grafanaoperator.DefaultTenant && external.TenantNamespace != spec.Namespace:
		return nil, invalidSpec(fmt.Errorf("spec.namespace is %q, and spec.external.tenantNamespace of Grafana %q is another one. Neither can be changed: make a connection whose spec.namespace is the same", spec.Namespace, g.Name))
	}
	to := &endpoint{url: external.URL, grafana: g.Name}
	switch {
	case external.APIKey.Name != "":
		to.secrets = append(to.secrets, tokenIn(v1alpha1.SecretKeyReference(external.APIKey)))
	case external.AdminUser.Name != "" && external.AdminPassword.Name != "":
		to.secrets = append(to.secrets, userIn(external.AdminUser), passwordIn(external.AdminPassword))
	default:
		return nil, grafanaNotSupported(g.Name, "has neither spec.external.apiKey, nor spec.external.adminUser and adminPassword")
	}
	if tls != nil {
		to.tls = &v1alpha1.TLSConfig{InsecureSkipVerify: tls.InsecureSkipVerify}
		if ref := tls.CertSecretRef; ref != nil && !tls.InsecureSkipVerify {
			if ref.Namespace != "" && ref.Namespace != g.Namespace {
				return nil, grafanaNotSupported(g.Name, "takes its certificates from a Secret of another namespace")
			}
			ca := v1alpha1.SecretKeyReference{Name: ref.Name, Key: "ca.crt"}
			to.tls.CASecretRef, to.tls.ClientCertSecretRef = &ca, &v1alpha1.SecretReference{Name: ref.Name}
			to.secrets = append(to.secrets, ifPresent(caIn(ca)), ifPresent(clientCertIn(ref.Name)))
		}
	}
	for _, ref := range to.secrets { // the schema of grafana-operator takes any name
		isNoKey := func(key string) bool { return validation.IsConfigMapKey(key) != nil }
		if validation.IsDNS1123Subdomain(ref.name) != nil || slices.ContainsFunc(ref.keys, isNoKey) {
			return nil, grafanaNotSupported(g.Name, "names a Secret, or a key of one, that cannot exist")
		}
	}
	access, _ := json.Marshal([]any{g.Name, external.APIKey, external.AdminUser, external.AdminPassword, to.tls}) // plain structs
	to.access = string(access)
	return to, nil
}

// server returns the server that an endpoint is of, or "".
func (to *endpoint) server() string {
	if to == nil {
		return ""
	}
	return ServerOf(to.url)
}

// condition is checkCondition for an endpoint. It says where the fields of spec are that a connection with grafanaRef has not.
func (to *endpoint) condition(err error) status.Condition {
	c := checkCondition(to.server(), err)
	if err == nil {
		c.Message += to.warning()
	}
	isField := func(field string) bool { return strings.Contains(c.Message, field) }
	if to != nil && to.grafana != "" && (isField("spec.url") || isField("spec.credentials") || isField("spec.tls")) {
		c.Message += fmt.Sprintf(" This connection takes url, credentials and tls from Grafana %q, which spec.grafanaRef names: make the change there.", to.grafana)
	}
	return c
}

// warning returns what the message of Ready=True warns of.
func (to *endpoint) warning() string {
	if to != nil && to.tls != nil && to.tls.InsecureSkipVerify && strings.HasPrefix(strings.ToLower(to.url), "https:") {
		return " But its certificate is not checked (spec.tls.insecureSkipVerify): whoever is between can read the token and all values."
	}
	return ""
}

// secretRef is a Secret that a connection reads, the keys of it that are read, how long they may be, and where their content goes.
type secretRef struct {
	name     string
	keys     []string
	maxBytes int
	optional bool // without any of the keys the Secret says nothing
	put      func(*credentials, [][]byte) error
}

// ifPresent returns a reference to keys that need not be there.
func ifPresent(ref secretRef) secretRef {
	ref.optional = true
	return ref
}

func caIn(ref v1alpha1.SecretKeyReference) secretRef {
	return secretRef{name: ref.Name, keys: []string{ref.Key}, maxBytes: maxCertificateBytes, put: func(c *credentials, content [][]byte) error {
		c.ca = given(content[0])
		return nil
	}}
}

func clientCertIn(name string) secretRef {
	keys := []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}
	return secretRef{name: name, keys: keys, maxBytes: maxCertificateBytes, put: func(c *credentials, content [][]byte) error {
		c.cert, c.key = given(content[0]), given(content[1])
		return nil
	}}
}

// given returns content that is there, if it is empty too: nothing would mean that none is asked for.
func given(content []byte) []byte { return append([]byte{}, content...) }
