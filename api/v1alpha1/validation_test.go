package v1alpha1_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// edit sets the field at a path such as spec.tls.serverName; nil removes it.
type edit struct {
	path  string
	value any
}

const (
	secureValueKind       = "GrafanaSecureValue"
	setKind               = v1alpha1.KindGrafanaSecureValueSet
	connectionKind        = string(v1alpha1.KindGrafanaConnection)
	clusterConnectionKind = string(v1alpha1.KindClusterGrafanaConnection)
)

// newObject is a valid object of a kind with nothing but its required fields, after the edits.
func newObject(t *testing.T, kind string, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	object.SetName("object")
	required := []edit{
		{"spec.url", "https://grafana.example.com"},
		{"spec.credentials.tokenSecretRef", map[string]any{"name": "grafana", "key": "token"}},
	}
	switch kind {
	case secureValueKind:
		object.SetNamespace("default")
		required = []edit{{"spec.valueFrom.secretKeyRef", map[string]any{"name": "sm", "key": "api-key"}}}
	case setKind:
		object.SetNamespace("default")
		required = []edit{{"spec.secrets.names", []any{"sm"}}}
	case connectionKind:
		object.SetNamespace("default")
	case clusterConnectionKind:
		required = append(required, edit{"spec.allowedNamespaces", map[string]any{"from": "All"}})
	}
	for _, e := range append(required, edits...) {
		path := strings.Split(e.path, ".")
		if e.value == nil {
			unstructured.RemoveNestedField(object.Object, path...)
		} else if err := unstructured.SetNestedField(object.Object, e.value, path...); err != nil {
			t.Fatal(err)
		}
	}
	return object
}

// dryRun asks the API server what it would say to the creation of an object, as strictly as kubectl does.
func dryRun(t *testing.T, object client.Object) error {
	t.Helper()
	c, _ := newClient(t)
	return c.Create(t.Context(), object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
}

func decrypters(count int) []any {
	list := make([]any, count)
	for i := range list {
		list[i] = fmt.Sprintf("service-%d", i)
	}
	return list
}

// complaints are the causes of a refusal, without the note that the API server adds where the schema alone refuses.
func complaints(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return slices.DeleteFunc(status.Status().Details.Causes, func(cause metav1.StatusCause) bool {
		return strings.Contains(cause.Message, "some validation rules were not checked")
	})
}

// of is a valueFrom with a template alone.
func of(template map[string]any) map[string]any { return map[string]any{"template": template} }

func template(text string, refs ...any) map[string]any {
	return map[string]any{"text": text, "secretRefs": append([]any{}, refs...)}
}

func labelsOf(count int) map[string]any {
	labels := map[string]any{}
	for i := range count {
		labels[fmt.Sprintf("label-%d", i)] = "x"
	}
	return labels
}

func secretRef(name string, as any) any {
	if as == nil {
		return map[string]any{"name": name}
	}
	return map[string]any{"name": name, "as": as}
}

func secretRefs(count int) []any {
	refs := make([]any, count)
	for i := range refs {
		refs[i] = secretRef(strings.Repeat("a", i+1), nil)
	}
	return refs
}

const (
	sourceRule = "must have exactly one of secretKeyRef and template"
	textRule   = "must not be empty, and have at most 16 KiB"
	asRule     = "must be an identifier: at most 63 letters, digits and '_', not beginning with a digit"
	twiceRule  = "must not have the same as twice: give one of them another as"

	nameRule      = "at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end"
	keyRule       = "must be a key of a Secret: at most 253 letters, digits, '-', '_' and '.', not '.' and not beginning with '..'"
	decrypterRule = "must be the name of a decrypter: 1 to 63 letters, digits, '-', '_' and '.', " +
		"with a letter or digit at each end and no spaces"
	descriptionRule = "must be 1 to 25 characters: shorten it, or leave it out"
	schemeRule      = "must begin with http:// or https:// and name a host"
	hostRule        = "must name a host of letters, digits, '-', '_' and '.', or an IPv6 address in brackets"
	numberRule      = "must write an IPv4 address as four decimal numbers without zeros before them"
	mappedRule      = "must write an IPv4 address as four decimal numbers, not within an IPv6 address"
	addressRule     = "must not name a link-local, multicast, reserved or unspecified address"
	userRule        = "must not contain a user or a password: the token comes from credentials.tokenSecretRef"
	queryRule       = "must not contain a query or a fragment"
	spaceRule       = "must not contain white space or control characters"
	apisRule        = "must end before /apis: the operator adds that path"
	portRule        = "must have a port from 1 to 65535, or none"
	namespaceRule   = "must be default, org-<id> with an id from 2 on, or stacks-<id>"
	stackRule       = "must be stacks-<id> for a stack of Grafana Cloud (a host under .grafana.net)"
	versionRule     = "must be a version of the API secret.grafana.app, for example v1beta1"
	resyncRule      = "must be from 5s to 168h, or 0s to turn it off, written with h, m and s in at most 32 characters"
	timeoutRule     = "must be from 1s to 2m, written with m and s in at most 32 characters"
	maxAgeRule      = "must be from 1h to 87600h, written with h, m and s in at most 32 characters"
	serverNameRule  = "must be a host name: at most 253 letters, digits, '-' and '.', without scheme and port"
	expressionRule  = "must have values with In and NotIn, and none with Exists and DoesNotExist"
	operatorRule    = "must use the operators In, NotIn, Exists or DoesNotExist"

	selectionRule    = "must have exactly one of names and selector"
	globRule         = "must be a glob of keys: 1 to 253 letters, digits, '-', '_', '.', '?' and at most four '*'"
	connectionRule   = "must have exactly one of name and selector"
	nameTemplateRule = "must be 1 to 1,024 characters, for example {{ .Secret }}-{{ .Key | dnsName }}"
	metadataRule     = "must have keys that Kubernetes takes: 1 to 63 letters, digits, '-', '_' and '.'"
	labelRule        = "must be the value of a label: at most 63 letters, digits, '-', '_' and '.'"
)

func TestBadInputIsRefusedWithOneSentence(t *testing.T) {
	selector := func(expressions ...any) map[string]any {
		return map[string]any{"selector": map[string]any{"matchExpressions": expressions}}
	}
	allowed := func(expressions ...any) map[string]any {
		allowed := selector(expressions...)
		allowed["from"] = "Selector"
		return allowed
	}
	expression := func(operator string, values ...any) map[string]any {
		return map[string]any{"key": "team", "operator": operator, "values": values}
	}
	labels := labelsOf(65)
	for _, tc := range []struct {
		name  string
		kind  string
		edits []edit
		field string
		want  string
	}{
		{"description of 26 characters", secureValueKind, []edit{{"spec.description", strings.Repeat("ü", 26)}}, "spec.description", descriptionRule},
		{"description of 900 characters", secureValueKind, []edit{{"spec.description", strings.Repeat("x", 900)}}, "spec.description", descriptionRule},
		{"description of two lines", secureValueKind, []edit{{"spec.description", "two\nlines"}}, "spec.description", "must not contain control characters"},
		{"description with a C1 control character", secureValueKind, []edit{{"spec.description", "a\u009bb"}}, "spec.description", "must not contain control characters"},
		{"empty description", secureValueKind, []edit{{"spec.description", ""}}, "spec.description", descriptionRule},

		{"65 decrypters", secureValueKind, []edit{{"spec.decrypters", decrypters(65)}}, "spec.decrypters", "must have at most 64 decrypters"},
		{"duplicate decrypter", secureValueKind, []edit{{"spec.decrypters", []any{"a", "b", "a"}}}, "spec.decrypters", "must not name a decrypter twice: remove the duplicate"},
		{"empty decrypter", secureValueKind, []edit{{"spec.decrypters", []any{""}}}, "spec.decrypters[0]", decrypterRule},
		{"blank decrypter", secureValueKind, []edit{{"spec.decrypters", []any{"a", " "}}}, "spec.decrypters[1]", decrypterRule},
		{"decrypter after a space", secureValueKind, []edit{{"spec.decrypters", []any{" k6-cloud"}}}, "spec.decrypters[0]", decrypterRule},
		{"decrypter before a newline", secureValueKind, []edit{{"spec.decrypters", []any{"k6-cloud\n"}}}, "spec.decrypters[0]", decrypterRule},
		{"decrypter with a slash", secureValueKind, []edit{{"spec.decrypters", []any{"a/b"}}}, "spec.decrypters[0]", decrypterRule},
		{"decrypter with a dash at its end", secureValueKind, []edit{{"spec.decrypters", []any{"a-"}}}, "spec.decrypters[0]", decrypterRule},
		{"decrypter of 64 characters", secureValueKind, []edit{{"spec.decrypters", []any{strings.Repeat("a", 64)}}}, "spec.decrypters[0]", decrypterRule},

		{"upper-case name", secureValueKind, []edit{{"spec.name", "API-Key"}}, "spec.name", nameRule},
		{"empty name", secureValueKind, []edit{{"spec.name", ""}}, "spec.name", nameRule},
		{"name with a dot at its end", secureValueKind, []edit{{"spec.name", "a."}}, "spec.name", nameRule},
		{"name with an underscore", secureValueKind, []edit{{"spec.name", "a_b"}}, "spec.name", nameRule},
		{"name of 254 characters", secureValueKind, []edit{{"spec.name", strings.Repeat("a", 254)}}, "spec.name", nameRule},

		{"no source", secureValueKind, []edit{{"spec.valueFrom", nil}, {"spec.description", "x"}}, "spec.valueFrom", "Required value"},
		{"no Secret name", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.name", nil}}, "spec.valueFrom.secretKeyRef.name", "Required value"},
		{"no key", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", nil}}, "spec.valueFrom.secretKeyRef.key", "Required value"},
		{"upper-case Secret name", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.name", "SM"}}, "spec.valueFrom.secretKeyRef.name", nameRule},
		{"Secret name of 254 characters", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.name", strings.Repeat("a", 254)}}, "spec.valueFrom.secretKeyRef.name", nameRule},
		{"empty key", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", ""}}, "spec.valueFrom.secretKeyRef.key", keyRule},
		{"key with a slash", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", "a/b"}}, "spec.valueFrom.secretKeyRef.key", keyRule},
		{"key that is a dot", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", "."}}, "spec.valueFrom.secretKeyRef.key", keyRule},
		{"key that begins with two dots", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", "..data"}}, "spec.valueFrom.secretKeyRef.key", keyRule},
		{"key of 254 characters", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", strings.Repeat("a", 254)}}, "spec.valueFrom.secretKeyRef.key", keyRule},
		{"two sources", secureValueKind, []edit{{"spec.valueFrom.template", template("x", secretRef("db", nil))}}, "spec.valueFrom", sourceRule},
		{"none of the sources", secureValueKind, []edit{{"spec.valueFrom", map[string]any{}}}, "spec.valueFrom", sourceRule},
		{"template without a text", secureValueKind, []edit{{"spec.valueFrom", of(map[string]any{"secretRefs": []any{secretRef("db", nil)}})}}, "spec.valueFrom.template.text", "Required value"},
		{"template with an empty text", secureValueKind, []edit{{"spec.valueFrom", of(template("", secretRef("db", nil)))}}, "spec.valueFrom.template.text", textRule},
		{"template of 16,385 characters", secureValueKind, []edit{{"spec.valueFrom", of(template(strings.Repeat("x", 16385), secretRef("db", nil)))}}, "spec.valueFrom.template.text", textRule},
		{"template of 16,386 bytes in 8,193 characters", secureValueKind, []edit{{"spec.valueFrom", of(template(strings.Repeat("é", 8193), secretRef("db", nil)))}}, "spec.valueFrom.template.text", textRule},
		{"template without Secrets", secureValueKind, []edit{{"spec.valueFrom", of(template("x"))}}, "spec.valueFrom.template.secretRefs", "must name 1 to 8 Secrets"},
		{"template of 9 Secrets", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRefs(9)...))}}, "spec.valueFrom.template.secretRefs", "must name 1 to 8 Secrets"},
		{"template of a Secret that is no identifier", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a-b", nil)))}}, "spec.valueFrom.template.secretRefs[0]", "must have as, for example as: app"},
		{"template of a Secret that begins with a digit", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("1a", nil)))}}, "spec.valueFrom.template.secretRefs[0]", "must have as, for example as: app"},
		{"template with a bad as", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a", "b-c")))}}, "spec.valueFrom.template.secretRefs[0].as", asRule},
		{"template with an empty as", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a", "")))}}, "spec.valueFrom.template.secretRefs[0].as", asRule},
		{"template with an as of 64 characters", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a", strings.Repeat("a", 64))))}}, "spec.valueFrom.template.secretRefs[0].as", asRule},
		{"template with one as twice", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a-b", "c"), secretRef("a-c", "c")))}}, "spec.valueFrom.template.secretRefs", twiceRule},
		{"template with an as that is a name", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a", nil), secretRef("b", "a")))}}, "spec.valueFrom.template.secretRefs", twiceRule},
		{"template with one name twice", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a", nil), secretRef("a", nil)))}}, "spec.valueFrom.template.secretRefs", twiceRule},
		{"template with an upper-case name", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("A", "a")))}}, "spec.valueFrom.template.secretRefs[0].name", nameRule},
		{"unknown transform", secureValueKind, []edit{{"spec.transforms", []any{"Reverse"}}}, "spec.transforms[0]", `supported values: "TrimTrailingNewline", "Base64Encode", "Base64Decode"`},
		{"9 transforms", secureValueKind, []edit{{"spec.transforms", slices.Repeat([]any{"Base64Encode"}, 9)}}, "spec.transforms", "must have at most 8 transforms"},
		{"connection without a name", secureValueKind, []edit{{"spec.connectionRef.kind", "GrafanaConnection"}}, "spec.connectionRef.name", "Required value"},
		{"connection with an upper-case name", secureValueKind, []edit{{"spec.connectionRef.name", "Prod"}}, "spec.connectionRef.name", nameRule},
		{"connection with a name of 254 characters", secureValueKind, []edit{{"spec.connectionRef.name", strings.Repeat("a", 254)}}, "spec.connectionRef.name", nameRule},
		{"unknown kind of connection", secureValueKind, []edit{{"spec.connectionRef", map[string]any{"kind": "Grafana", "name": "prod"}}}, "spec.connectionRef.kind", `supported values: "GrafanaConnection", "ClusterGrafanaConnection"`},
		{"unknown deletionPolicy", secureValueKind, []edit{{"spec.deletionPolicy", "Keep"}}, "spec.deletionPolicy", `supported values: "Delete", "Retain"`},

		{"no URL", connectionKind, []edit{{"spec.url", nil}}, "spec.url", "Required value"},
		{"empty URL", connectionKind, []edit{{"spec.url", ""}}, "spec.url", schemeRule},
		{"URL without a scheme", connectionKind, []edit{{"spec.url", "acme.example.com"}}, "spec.url", schemeRule},
		{"URL of another scheme", connectionKind, []edit{{"spec.url", "ftp://acme.example.com"}}, "spec.url", schemeRule},
		{"URL without a host", connectionKind, []edit{{"spec.url", "https:///grafana"}}, "spec.url", schemeRule},
		{"URL with a port alone", connectionKind, []edit{{"spec.url", "https://:3000"}}, "spec.url", hostRule},
		{"URL with an empty port", connectionKind, []edit{{"spec.url", "https://acme.example.com:"}}, "spec.url", hostRule},
		{"URL with a user", connectionKind, []edit{{"spec.url", "https://admin@acme.example.com"}}, "spec.url", userRule},
		{"URL with a user and a password", connectionKind, []edit{{"spec.url", "https://admin:hunter2@acme.example.com"}}, "spec.url", userRule},
		{"URL with a query", connectionKind, []edit{{"spec.url", "https://acme.example.com/?orgId=2"}}, "spec.url", queryRule},
		{"URL with an empty query", connectionKind, []edit{{"spec.url", "https://acme.example.com?"}}, "spec.url", queryRule},
		{"URL with a fragment", connectionKind, []edit{{"spec.url", "https://acme.example.com/grafana#a"}}, "spec.url", queryRule},
		{"URL with a space in its path", connectionKind, []edit{{"spec.url", "https://acme.example.com/a b"}}, "spec.url", spaceRule},
		{"URL with a space before it", connectionKind, []edit{{"spec.url", " https://acme.example.com"}}, "spec.url", spaceRule},
		{"URL with a newline after it", connectionKind, []edit{{"spec.url", "https://acme.example.com\n"}}, "spec.url", spaceRule},
		{"URL with a control character", connectionKind, []edit{{"spec.url", "https://acme.example.com/\x7f"}}, "spec.url", spaceRule},
		{"URL with the path of the API", connectionKind, []edit{{"spec.url", "https://acme.example.com/grafana/apis/secret.grafana.app/v1beta1"}}, "spec.url", apisRule},
		{"URL with the path of all APIs", connectionKind, []edit{{"spec.url", "https://acme.example.com/apis/"}}, "spec.url", apisRule},
		{"URL with port 99999", connectionKind, []edit{{"spec.url", "https://acme.example.com:99999"}}, "spec.url", portRule},
		{"URL with port 65536", connectionKind, []edit{{"spec.url", "https://acme.example.com:65536/grafana"}}, "spec.url", portRule},
		{"URL with port 0", connectionKind, []edit{{"spec.url", "https://acme.example.com:0"}}, "spec.url", portRule},
		{"URL with an endless port", connectionKind, []edit{{"spec.url", "https://acme.example.com:" + strings.Repeat("9", 40)}}, "spec.url", portRule},
		{"URL with a word for a port", connectionKind, []edit{{"spec.url", "https://acme.example.com:http"}}, "spec.url", hostRule},
		{"URL with an empty label in its host", connectionKind, []edit{{"spec.url", "https://acme..example.com"}}, "spec.url", hostRule},
		{"URL with a backslash in its host", connectionKind, []edit{{"spec.url", `https://acme\example.com`}}, "spec.url", hostRule},
		{"URL with brackets around a word", connectionKind, []edit{{"spec.url", "https://[grafana]:3000"}}, "spec.url", hostRule},
		{"URL with half an IPv6 address", connectionKind, []edit{{"spec.url", "https://[1:2]:3000"}}, "spec.url", hostRule},
		{"URL with one number for an address", connectionKind, []edit{{"spec.url", "http://2130706433:3000/x"}}, "spec.url", numberRule},
		{"URL with an octal address", connectionKind, []edit{{"spec.url", "http://0177.0.0.1"}}, "spec.url", numberRule},
		{"URL with a hexadecimal address", connectionKind, []edit{{"spec.url", "http://0x7f.1"}}, "spec.url", numberRule},
		{"URL with a dot after its address", connectionKind, []edit{{"spec.url", "http://10.0.0.5."}}, "spec.url", numberRule},
		{"URL with a number for its last label", connectionKind, []edit{{"spec.url", "http://grafana.1"}}, "spec.url", numberRule},
		{"URL with IPv4 in IPv6", connectionKind, []edit{{"spec.url", "http://[::ffff:10.0.0.5]:3000"}}, "spec.url", mappedRule},
		{"URL with IPv4 in IPv6, in hexadecimal", connectionKind, []edit{{"spec.url", "http://[0::FFFF:a00:5]"}}, "spec.url", mappedRule},
		{"URL with a link-local address", connectionKind, []edit{{"spec.url", "http://169.254.169.254/latest"}}, "spec.url", addressRule},
		{"URL with a link-local address of IPv6", connectionKind, []edit{{"spec.url", "http://[FE80::1]:3000"}}, "spec.url", addressRule},
		{"URL with the unspecified address", connectionKind, []edit{{"spec.url", "http://0.0.0.0:3000"}}, "spec.url", addressRule},
		{"URL with a multicast address", connectionKind, []edit{{"spec.url", "http://[ff02::1]"}}, "spec.url", addressRule},
		{"URL with a bad escape", connectionKind, []edit{{"spec.url", "https://acme.example.com/%zz"}}, "spec.url", "must have two hexadecimal digits after each '%'"},
		{"URL of 2049 characters", connectionKind, []edit{{"spec.url", "https://acme.example.com/" + strings.Repeat("a", 2049-25)}}, "spec.url", "must be at most 2048 characters"},

		{"organization 1", connectionKind, []edit{{"spec.namespace", "org-1"}}, "spec.namespace", "must be default: this is how Grafana calls organization 1"},
		{"organization 0", connectionKind, []edit{{"spec.namespace", "org-0"}}, "spec.namespace", namespaceRule},
		{"organization 01", connectionKind, []edit{{"spec.namespace", "org-01"}}, "spec.namespace", namespaceRule},
		{"stack without an id", connectionKind, []edit{{"spec.namespace", "stacks-"}}, "spec.namespace", namespaceRule},
		{"stack by its name", connectionKind, []edit{{"spec.namespace", "stacks-acme"}}, "spec.namespace", namespaceRule},
		{"a namespace of Kubernetes", connectionKind, []edit{{"spec.namespace", "team-a"}}, "spec.namespace", namespaceRule},
		{"empty namespace", connectionKind, []edit{{"spec.namespace", ""}}, "spec.namespace", namespaceRule},
		{"Grafana Cloud without a stack", connectionKind, []edit{{"spec.url", "https://acme.grafana.net"}}, "spec.namespace", stackRule},
		{"Grafana Cloud with an organization", connectionKind, []edit{{"spec.url", "https://acme.grafana.net/"}, {"spec.namespace", "org-2"}}, "spec.namespace", stackRule},
		{"Grafana Cloud in capitals, with a dot and a port", connectionKind, []edit{{"spec.url", "https://acme.Grafana.NET.:443/x"}}, "spec.namespace", stackRule},

		{"upper-case apiVersion", connectionKind, []edit{{"spec.apiVersion", "V1"}}, "spec.apiVersion", versionRule},
		{"apiVersion with its group", connectionKind, []edit{{"spec.apiVersion", "secret.grafana.app/v1beta1"}}, "spec.apiVersion", versionRule},
		{"apiVersion of 64 characters", connectionKind, []edit{{"spec.apiVersion", "v" + strings.Repeat("1", 63)}}, "spec.apiVersion", versionRule},

		{"freshness of nothing", secureValueKind, []edit{{"spec.freshness", map[string]any{}}}, "spec.freshness", "must give maxAge or expirationTime, or both"},
		{"maxAge in days", secureValueKind, []edit{{"spec.freshness.maxAge", "90d"}}, "spec.freshness.maxAge", maxAgeRule},
		{"maxAge of less than an hour", secureValueKind, []edit{{"spec.freshness.maxAge", "59m59s"}}, "spec.freshness.maxAge", maxAgeRule},
		{"maxAge of more than ten years", secureValueKind, []edit{{"spec.freshness.maxAge", "87600h1s"}}, "spec.freshness.maxAge", maxAgeRule},
		{"maxAge beyond all time", secureValueKind, []edit{{"spec.freshness.maxAge", "9999999999999h"}}, "spec.freshness.maxAge", maxAgeRule},
		{"empty maxAge", secureValueKind, []edit{{"spec.freshness.maxAge", ""}}, "spec.freshness.maxAge", maxAgeRule},
		{"maxAge of 33 characters", secureValueKind, []edit{{"spec.freshness.maxAge", "00001.00000000h000001.00000000m1s"}}, "spec.freshness.maxAge", maxAgeRule},
		{"resyncPeriod in days", connectionKind, []edit{{"spec.resyncPeriod", "1d"}}, "spec.resyncPeriod", resyncRule},
		{"resyncPeriod beyond all time", connectionKind, []edit{{"spec.resyncPeriod", "99999999999999999999h"}}, "spec.resyncPeriod", resyncRule},
		{"resyncPeriod of 4.999s", connectionKind, []edit{{"spec.resyncPeriod", "4.999s"}}, "spec.resyncPeriod", resyncRule},
		{"resyncPeriod of more than a week", connectionKind, []edit{{"spec.resyncPeriod", "168h1s"}}, "spec.resyncPeriod", resyncRule},
		{"negative resyncPeriod", connectionKind, []edit{{"spec.resyncPeriod", "-10m"}}, "spec.resyncPeriod", resyncRule},
		{"empty resyncPeriod", connectionKind, []edit{{"spec.resyncPeriod", ""}}, "spec.resyncPeriod", resyncRule},
		{"resyncPeriod without a unit", connectionKind, []edit{{"spec.resyncPeriod", "600"}}, "spec.resyncPeriod", resyncRule},
		{"resyncPeriod of 33 characters", connectionKind, []edit{{"spec.resyncPeriod", "0001.000000000h000001.00000000m1s"}}, "spec.resyncPeriod", resyncRule},
		{"requestTimeout in days", connectionKind, []edit{{"spec.requestTimeout", "1d"}}, "spec.requestTimeout", timeoutRule},
		{"requestTimeout beyond all time", connectionKind, []edit{{"spec.requestTimeout", "99999999999999999999h"}}, "spec.requestTimeout", timeoutRule},
		{"requestTimeout of 0s", connectionKind, []edit{{"spec.requestTimeout", "0s"}}, "spec.requestTimeout", timeoutRule},
		{"requestTimeout of 999ms", connectionKind, []edit{{"spec.requestTimeout", "999ms"}}, "spec.requestTimeout", timeoutRule},
		{"requestTimeout of 2m1s", connectionKind, []edit{{"spec.requestTimeout", "2m1s"}}, "spec.requestTimeout", timeoutRule},

		{"serverName with a scheme", connectionKind, []edit{{"spec.tls.serverName", "https://acme.example.com"}}, "spec.tls.serverName", serverNameRule},
		{"serverName of 254 characters", connectionKind, []edit{{"spec.tls.serverName", strings.Repeat("a", 254)}}, "spec.tls.serverName", serverNameRule},
		{"CA without a key", connectionKind, []edit{{"spec.tls.caSecretRef", map[string]any{"name": "ca"}}}, "spec.tls.caSecretRef.key", "Required value"},
		{"CA with a bad key", connectionKind, []edit{{"spec.tls.caSecretRef", map[string]any{"name": "ca", "key": "ca/crt"}}}, "spec.tls.caSecretRef.key", keyRule},
		{"CA with a bad Secret name", connectionKind, []edit{{"spec.tls.caSecretRef", map[string]any{"name": "CA", "key": "ca.crt"}}}, "spec.tls.caSecretRef.name", nameRule},
		{"client certificate without a Secret", connectionKind, []edit{{"spec.tls.clientCertSecretRef", map[string]any{}}}, "spec.tls.clientCertSecretRef.name", "Required value"},
		{"client certificate with a bad Secret name", connectionKind, []edit{{"spec.tls.clientCertSecretRef.name", "a_b"}}, "spec.tls.clientCertSecretRef.name", nameRule},
		{"token with a bad key", connectionKind, []edit{{"spec.credentials.tokenSecretRef.key", "to ken"}}, "spec.credentials.tokenSecretRef.key", keyRule},
		{"token with a bad Secret name", connectionKind, []edit{{"spec.credentials.tokenSecretRef.name", "my_token"}}, "spec.credentials.tokenSecretRef.name", nameRule},
		{"no credentials", connectionKind, []edit{{"spec.credentials", nil}}, "spec.credentials", "Required value"},
		{"no token", connectionKind, []edit{{"spec.credentials.tokenSecretRef", nil}}, "spec.credentials.tokenSecretRef", "Required value"},

		{"neither a URL nor a Grafana", connectionKind, []edit{{"spec.url", nil}, {"spec.credentials", nil}}, "spec.url", "must be given together with credentials, or grafanaRef in place of both"},
		{"a Grafana and a URL", connectionKind, []edit{{"spec.grafanaRef", grafanaRef("grafana")}, {"spec.credentials", nil}}, "spec.url", "must not be given with grafanaRef"},
		{"a Grafana and credentials", connectionKind, []edit{{"spec.grafanaRef", grafanaRef("grafana")}, {"spec.url", nil}}, "spec.credentials", "must not be given with grafanaRef"},
		{"a Grafana and TLS", connectionKind, append(referencing("grafana"), edit{"spec.tls", map[string]any{}}), "spec.tls", "must not be given with grafanaRef"},
		{"a Grafana without a name", connectionKind, append(referencing("grafana"), edit{"spec.grafanaRef", map[string]any{}}), "spec.grafanaRef.name", "Required value"},
		{"a Grafana with a bad name", connectionKind, referencing("Grafana"), "spec.grafanaRef.name", "must be the name of a Grafana"},
		{"a shared connection without a URL", clusterConnectionKind, []edit{{"spec.url", nil}}, "spec.url", "must be given, for example https://acme.grafana.net"},
		{"a shared connection without credentials", clusterConnectionKind, []edit{{"spec.credentials", nil}}, "spec.credentials", "must be given: name the Secret"},

		{"nobody allowed", clusterConnectionKind, []edit{{"spec.allowedNamespaces", nil}}, "spec.allowedNamespaces", "Required value"},
		{"unknown from", clusterConnectionKind, []edit{{"spec.allowedNamespaces.from", "Same"}}, "spec.allowedNamespaces.from", `supported values: "All", "Selector"`},
		{"Selector without a selector", clusterConnectionKind, []edit{{"spec.allowedNamespaces.from", "Selector"}}, "spec.allowedNamespaces.selector", "must be given with from: Selector"},
		{"All with a selector", clusterConnectionKind, []edit{{"spec.allowedNamespaces.selector", map[string]any{}}}, "spec.allowedNamespaces.selector", "must not be given with from: All"},
		{"unknown operator", clusterConnectionKind, []edit{{"spec.allowedNamespaces", allowed(expression("Is", "a"))}}, "spec.allowedNamespaces.selector.matchExpressions", operatorRule},
		{"In without values", clusterConnectionKind, []edit{{"spec.allowedNamespaces", allowed(expression("In"))}}, "spec.allowedNamespaces.selector.matchExpressions", expressionRule},
		{"Exists with values", clusterConnectionKind, []edit{{"spec.allowedNamespaces", allowed(expression("Exists", "a"))}}, "spec.allowedNamespaces.selector.matchExpressions", expressionRule},
		{"65 expressions", clusterConnectionKind, []edit{{"spec.allowedNamespaces", allowed(slices.Repeat([]any{expression("Exists")}, 65)...)}}, "spec.allowedNamespaces.selector.matchExpressions", "must have at most 64 expressions"},
		{"65 labels", clusterConnectionKind, []edit{{"spec.allowedNamespaces", map[string]any{"from": "Selector", "selector": map[string]any{"matchLabels": labels}}}}, "spec.allowedNamespaces.selector.matchLabels", "must have at most 64 labels"},
		{"no allowed decrypter", clusterConnectionKind, []edit{{"spec.allowedDecrypters", []any{}}}, "spec.allowedDecrypters", "must name at least one decrypter: leave it out to allow any"},
		{"65 allowed decrypters", clusterConnectionKind, []edit{{"spec.allowedDecrypters", decrypters(65)}}, "spec.allowedDecrypters", "must have at most 64 decrypters"},
		{"duplicate allowed decrypter", clusterConnectionKind, []edit{{"spec.allowedDecrypters", []any{"a", "a"}}}, "spec.allowedDecrypters", "must not name a decrypter twice: remove the duplicate"},
		{"allowed decrypter with a space", clusterConnectionKind, []edit{{"spec.allowedDecrypters", []any{"a "}}}, "spec.allowedDecrypters[0]", decrypterRule},
		{"allowed decrypter that is a pattern", clusterConnectionKind, []edit{{"spec.allowedDecrypters", []any{"*"}}}, "spec.allowedDecrypters[0]", decrypterRule},
		{"the rules of all connections: organization 1", clusterConnectionKind, []edit{{"spec.namespace", "org-1"}}, "spec.namespace", "must be default: this is how Grafana calls organization 1"},
		{"the rules of all connections: no stack", clusterConnectionKind, []edit{{"spec.url", "https://acme.grafana.net"}}, "spec.namespace", stackRule},
		{"the rules of all connections: a user", clusterConnectionKind, []edit{{"spec.url", "https://admin:hunter2@acme.example.com"}}, "spec.url", userRule},

		{"set of no Secrets", setKind, []edit{{"spec.secrets", nil}, {"spec.suspend", true}}, "spec.secrets", "Required value"},
		{"set of Secrets without a choice", setKind, []edit{{"spec.secrets", map[string]any{}}}, "spec.secrets", selectionRule},
		{"set of Secrets by names and labels", setKind, []edit{{"spec.secrets.selector", map[string]any{}}}, "spec.secrets", selectionRule},
		{"set of an empty list of Secrets", setKind, []edit{{"spec.secrets.names", []any{}}}, "spec.secrets.names", "must name 1 to 100 Secrets"},
		{"set of 101 Secrets", setKind, []edit{{"spec.secrets.names", decrypters(101)}}, "spec.secrets.names", "must name 1 to 100 Secrets"},
		{"set of one Secret twice", setKind, []edit{{"spec.secrets.names", []any{"a", "b", "a"}}}, "spec.secrets.names", "must not name a Secret twice: remove the duplicate"},
		{"set of a Secret with an upper-case name", setKind, []edit{{"spec.secrets.names", []any{"SM"}}}, "spec.secrets.names[0]", nameRule},
		{"set of a Secret with a name of 254 characters", setKind, []edit{{"spec.secrets.names", []any{strings.Repeat("a", 254)}}}, "spec.secrets.names[0]", nameRule},
		{"set of Secrets by an unknown operator", setKind, []edit{{"spec.secrets", selector(expression("Is", "a"))}}, "spec.secrets.selector.matchExpressions", operatorRule},
		{"set of Secrets by In without values", setKind, []edit{{"spec.secrets", selector(expression("In"))}}, "spec.secrets.selector.matchExpressions", expressionRule},
		{"set of Secrets by Exists with values", setKind, []edit{{"spec.secrets", selector(expression("Exists", "a"))}}, "spec.secrets.selector.matchExpressions", expressionRule},
		{"set of Secrets by 65 expressions", setKind, []edit{{"spec.secrets", selector(slices.Repeat([]any{expression("Exists")}, 65)...)}}, "spec.secrets.selector.matchExpressions", "must have at most 64 expressions"},
		{"set of Secrets by 65 labels", setKind, []edit{{"spec.secrets", map[string]any{"selector": map[string]any{"matchLabels": labels}}}}, "spec.secrets.selector.matchLabels", "must have at most 64 labels"},
		{"set of 17 included globs", setKind, []edit{{"spec.keys.include", decrypters(17)}}, "spec.keys.include", "must have at most 16 globs"},
		{"set of 17 excluded globs", setKind, []edit{{"spec.keys.exclude", decrypters(17)}}, "spec.keys.exclude", "must have at most 16 globs"},
		{"set of an empty glob", setKind, []edit{{"spec.keys.include", []any{""}}}, "spec.keys.include[0]", globRule},
		{"set of a regular expression", setKind, []edit{{"spec.keys.include", []any{"*", "SM_[A-Z]+"}}}, "spec.keys.include[1]", globRule},
		{"set of a glob before a newline", setKind, []edit{{"spec.keys.exclude", []any{"SM_*\n"}}}, "spec.keys.exclude[0]", globRule},
		{"set of a glob of 254 characters", setKind, []edit{{"spec.keys.exclude", []any{strings.Repeat("x", 254)}}}, "spec.keys.exclude[0]", globRule},
		{"set of a glob with five stars", setKind, []edit{{"spec.keys.exclude", []any{"a*b*c*d*e*"}}}, "spec.keys.exclude[0]", globRule},
		{"set of a connection without a choice", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{}}}}, "spec.connectionRefs[0]", connectionRule},
		{"set of a connection by name and labels", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{"name": "eu", "selector": map[string]any{}}}}}, "spec.connectionRefs[0]", connectionRule},
		{"set of a connection with an upper-case name", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{"name": "EU"}}}}, "spec.connectionRefs[0].name", nameRule},
		{"set of a connection with an empty name", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{"name": ""}}}}, "spec.connectionRefs[0].name", nameRule},
		{"set of an unknown kind of connection", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{"kind": "Grafana", "name": "eu"}}}}, "spec.connectionRefs[0].kind", `supported values: "GrafanaConnection", "ClusterGrafanaConnection"`},
		{"set of connections by 65 labels", setKind, []edit{{"spec.connectionRefs", []any{map[string]any{"selector": map[string]any{"matchLabels": labels}}}}}, "spec.connectionRefs[0].selector.matchLabels", "must have at most 64 labels"},
		{"set of connections by 65 expressions", setKind, []edit{{"spec.connectionRefs", []any{selector(slices.Repeat([]any{expression("Exists")}, 65)...)}}}, "spec.connectionRefs[0].selector.matchExpressions", "must have at most 64 expressions"},
		{"set of 17 connections", setKind, []edit{{"spec.connectionRefs", slices.Repeat([]any{map[string]any{"name": "eu"}}, 17)}}, "spec.connectionRefs", "must have at most 16 entries: select connections by labels instead"},
		{"set with an empty nameTemplate", setKind, []edit{{"spec.nameTemplate", ""}}, "spec.nameTemplate", nameTemplateRule},
		{"set with a nameTemplate of 1,025 characters", setKind, []edit{{"spec.nameTemplate", strings.Repeat("a", 1025)}}, "spec.nameTemplate", nameTemplateRule},
		{"set with an unknown prunePolicy", setKind, []edit{{"spec.prunePolicy", "Keep"}}, "spec.prunePolicy", `supported values: "Retain", "Delete"`},
		{"set with a name of 64 characters", setKind, []edit{{"metadata.name", strings.Repeat("a", 64)}}, "<nil>", "metadata.name must be at most 63 characters"},
		{"set with 17 labels", setKind, []edit{{"spec.template.metadata.labels", labelsOf(17)}}, "spec.template.metadata.labels", "must have at most 16 items"},
		{"set with 17 annotations", setKind, []edit{{"spec.template.metadata.annotations", labelsOf(17)}}, "spec.template.metadata.annotations", "must have at most 16 items"},
		{"set with a label of the operator", setKind, []edit{{"spec.template.metadata.labels", map[string]any{"grafana.securevalues.io/set": "a"}}}, "spec.template.metadata.labels", "must not have a key that begins with grafana.securevalues.io/, which belongs to the operator: remove it"},
		{"set with an annotation of the operator", setKind, []edit{{"spec.template.metadata.annotations", map[string]any{v1alpha1.AnnotationPendingTargets: "[]"}}}, "spec.template.metadata.annotations", "must not have a key that begins with grafana.securevalues.io/ other than sync-now"},
		{"set with a label that has a space", setKind, []edit{{"spec.template.metadata.labels", map[string]any{"my team": "a"}}}, "spec.template.metadata.labels", metadataRule},
		{"set with a label of two slashes", setKind, []edit{{"spec.template.metadata.labels", map[string]any{"example.com/a/b": "a"}}}, "spec.template.metadata.labels", metadataRule},
		{"set with a label of 64 characters", setKind, []edit{{"spec.template.metadata.labels", map[string]any{strings.Repeat("a", 64): "a"}}}, "spec.template.metadata.labels", metadataRule},
		{"set with an annotation that has a slash at its end", setKind, []edit{{"spec.template.metadata.annotations", map[string]any{"example.com/": "a"}}}, "spec.template.metadata.annotations", metadataRule},
		{"set with a label value that has a space", setKind, []edit{{"spec.template.metadata.labels.team", "team a"}}, "spec.template.metadata.labels[team]", labelRule},
		{"set with a label value of 64 characters", setKind, []edit{{"spec.template.metadata.labels.team", strings.Repeat("a", 64)}}, "spec.template.metadata.labels[team]", labelRule},
		{"set with an annotation of 514 bytes", setKind, []edit{{"spec.template.metadata.annotations.note", strings.Repeat("ü", 257)}}, "spec.template.metadata.annotations[note]", "must have at most 0.5 KiB: 512 characters of ASCII"},
		{"the rules of all secure values: a decrypter twice", setKind, []edit{{"spec.template.spec.decrypters", []any{"a", "a"}}}, "spec.template.spec.decrypters", "must not name a decrypter twice"},
		{"the rules of all secure values: a description", setKind, []edit{{"spec.template.spec.description", strings.Repeat("x", 26)}}, "spec.template.spec.description", descriptionRule},
		{"the rules of all secure values: freshness", setKind, []edit{{"spec.template.spec.freshness.maxAge", "90d"}}, "spec.template.spec.freshness.maxAge", maxAgeRule},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := dryRun(t, newObject(t, tc.kind, tc.edits...))
			if !apierrors.IsInvalid(err) {
				t.Fatalf("got %v, want it refused as invalid", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to say %q", err, tc.want)
			}
			causes := complaints(err)
			if len(causes) != 1 || causes[0].Field != tc.field {
				t.Fatalf("got complaints %+v, want one, of %s", causes, tc.field)
			}
			for _, words := range []string{"bytes", "should match", "error", "hunter2"} {
				if strings.Contains(causes[0].Message, words) {
					t.Errorf("got %q, want it without %q", causes[0].Message, words)
				}
			}
		})
	}
}

// TestTimesThatGoDoesNotReadAreRefused: the API server takes more for a time than Go does, and one object with such a time would end the
// watch of all.
func TestTimesThatGoDoesNotReadAreRefused(t *testing.T) {
	for text, accepted := range map[string]bool{
		"2027-01-31T00:00:00Z":                true,
		"2027-01-31T23:59:59.123456789-23:59": true,
		"2027-01-31t00:00:00z":                false,
		"2027-01-31T00:00:00x5Z":              false,
		"2027-01-31T00:00:00+99:99":           false,
		"2027-01-31T00:00:00ZTx":              false,
		"2027-01-31T00:00:60Z":                false,
		"2027-01-31T24:00:00Z":                false,
		"2027-02-30T00:00:00Z":                false,
		"2027-13-01T00:00:00Z":                false,
		"9999-12-31T23:59:59-23:59":           false,
		"0000-01-01T00:00:00Z":                false,
	} {
		err := dryRun(t, newObject(t, secureValueKind, edit{"spec.freshness", map[string]any{"maxAge": "1h", "expirationTime": text}}))
		if (err == nil) != accepted || err != nil && !apierrors.IsInvalid(err) {
			t.Errorf("%s: got %v, want it accepted: %t", text, err, accepted)
		}
		if _, parseErr := time.Parse(time.RFC3339, text); err == nil && parseErr != nil {
			t.Errorf("%s is accepted, and Go says %s", text, parseErr)
		}
	}
}

// TestHostileURLs holds that the schema refuses what the list says that it refuses, so that whoever writes such a URL learns it at
// once. The client of Grafana refuses all of them.
func TestHostileURLs(t *testing.T) {
	content, err := os.ReadFile("../../internal/grafana/testdata/urls.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(content)) {
		layer, url, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !found {
			continue // a comment
		}
		seen[layer]++
		err := dryRun(t, newObject(t, connectionKind, edit{"spec.url", url}))
		if refused := apierrors.IsInvalid(err); refused != (layer == "schema") || !refused && err != nil {
			t.Errorf("%s: refused %t, although the list says %s: %v", url, refused, layer, err)
		}
	}
	if seen["schema"] < 60 || seen["client"] < 20 {
		t.Errorf("rows = %v", seen)
	}
}

func grafanaRef(name string) map[string]any { return map[string]any{"name": name} }

// referencing makes a connection take all from a Grafana.
func referencing(name string) []edit {
	return []edit{{"spec.url", nil}, {"spec.credentials", nil}, {"spec.grafanaRef", grafanaRef(name)}}
}

func TestGrafanaNamespaceCannotBeChanged(t *testing.T) {
	c, _ := newClient(t)
	const want = "cannot be changed: create another connection"
	for _, kind := range []string{connectionKind, clusterConnectionKind} {
		object := newObject(t, kind, edit{"spec.namespace", "org-2"})
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { deleteObject(t, c, object) })
		for what, patch := range map[string]string{
			"another organization": `{"spec":{"namespace":"org-3"}}`,
			"the default":          `{"spec":{"namespace":"default"}}`,
			"a removal":            `{"spec":{"namespace":null}}`,
		} {
			err := c.Patch(t.Context(), object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
			if causes := complaints(err); len(causes) != 1 || !strings.Contains(causes[0].Message, want) {
				t.Errorf("%s: %s: got %v, want %q", kind, what, err, want)
			}
		}
		patch := `{"spec":{"url":"http://grafana.example.com:3000/grafana","namespace":"org-2"}}`
		if err := c.Patch(t.Context(), object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Errorf("%s: another url: %v", kind, err)
		}
	}
}

func TestReferencesHaveNoNamespace(t *testing.T) {
	for _, tc := range []struct {
		kind string
		path string
	}{
		{secureValueKind, "spec.connectionRef.namespace"},
		{secureValueKind, "spec.valueFrom.secretKeyRef.namespace"},
		{secureValueKind, "spec.valueFrom.template.namespace"},
		{setKind, "spec.secrets.namespace"},
		{setKind, "spec.template.metadata.namespace"},
		{connectionKind, "spec.credentials.tokenSecretRef.namespace"},
		{clusterConnectionKind, "spec.credentials.tokenSecretRef.namespace"},
		{connectionKind, "spec.tls.caSecretRef.namespace"},
		{connectionKind, "spec.tls.clientCertSecretRef.namespace"},
		{clusterConnectionKind, "spec.tls.clientCertSecretRef.namespace"},
		{connectionKind, "spec.grafanaRef.namespace"},
		{clusterConnectionKind, "spec.grafanaRef"}, // it has no namespace
	} {
		var edits []edit
		if parent := strings.TrimSuffix(tc.path, ".namespace"); strings.HasPrefix(parent, "spec.tls") {
			edits = append(edits, edit{parent, map[string]any{"name": "tls", "key": "tls.crt"}})
			if strings.HasSuffix(parent, "clientCertSecretRef") {
				edits[0].value = map[string]any{"name": "tls"}
			}
		}
		err := dryRun(t, newObject(t, tc.kind, append(edits, edit{tc.path, "other"})...))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("unknown field %q", tc.path)) {
			t.Errorf("%s: got %v, want %s refused as unknown", tc.kind, err, tc.path)
		}
	}
}

func TestInputAtTheBoundsIsAccepted(t *testing.T) {
	long := strings.Repeat("a", 253)
	for _, tc := range []struct {
		name  string
		kind  string
		edits []edit
	}{
		{"nothing but what is required", secureValueKind, nil},
		{"description of 1 character", secureValueKind, []edit{{"spec.description", "x"}}},
		{"description of 25 emoji", secureValueKind, []edit{{"spec.description", strings.Repeat("🔑", 25)}}},
		{"64 decrypters", secureValueKind, []edit{{"spec.decrypters", decrypters(64)}}},
		{"no decrypters", secureValueKind, []edit{{"spec.decrypters", []any{}}}},
		{"decrypter of 63 characters", secureValueKind, []edit{{"spec.decrypters", []any{strings.Repeat("a", 63)}}}},
		{"decrypters that Grafana may come to know", secureValueKind, []edit{{"spec.decrypters", []any{"provisioning.grafana.app", "A_b-1", "a"}}}},
		{"name of 253 characters", secureValueKind, []edit{{"spec.name", long}}},
		{"name with dots", secureValueKind, []edit{{"spec.name", "team-a.sm.1"}}},
		{"Secret name and key of 253 characters", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef", map[string]any{"name": long, "key": long}}}},
		{"key with all it may have", secureValueKind, []edit{{"spec.valueFrom.secretKeyRef.key", ".A_b-c.1"}}},
		{"template of 16,384 bytes and 8 Secrets", secureValueKind, []edit{{"spec.valueFrom", of(template(strings.Repeat("é", 8192), secretRefs(8)...))}}},
		{"template with all that as may have", secureValueKind, []edit{{"spec.valueFrom", of(template("x", secretRef("a-b", "_A1"+strings.Repeat("a", 60)), secretRef(long, "b"), secretRef("a1", nil), secretRef("a1", "A1")))}}},
		{"8 transforms", secureValueKind, []edit{{"spec.transforms", slices.Repeat([]any{"TrimTrailingNewline", "Base64Encode", "Base64Decode", "Base64Encode"}, 2)}}},
		{"connection name of 253 characters", secureValueKind, []edit{{"spec.connectionRef.name", long}}},
		{"Retain", secureValueKind, []edit{{"spec.deletionPolicy", "Retain"}}},

		{"nothing but what is required", connectionKind, nil},
		{"port 65535", connectionKind, []edit{{"spec.url", "https://acme.example.com:65535"}}},
		{"port 1", connectionKind, []edit{{"spec.url", "http://acme.example.com:1/"}}},
		{"IPv6 address with a sub-path", connectionKind, []edit{{"spec.url", "http://[::1]:3000/sub/path"}}},
		{"IPv4 address", connectionKind, []edit{{"spec.url", "http://127.0.0.1:3000"}}},
		{"host of labels that begin with numbers", connectionKind, []edit{{"spec.url", "http://0.1.0x7f.grafana-1.example.com"}}},
		{"host that is hexadecimal and a name", connectionKind, []edit{{"spec.url", "http://169.254.0xg:3000"}}},
		{"address in the cluster", connectionKind, []edit{{"spec.url", "http://10.96.0.10:3000/grafana"}}},
		{"address that begins as a link-local one does", connectionKind, []edit{{"spec.url", "http://169.25.4.1"}}},
		{"IPv6 address of a private network", connectionKind, []edit{{"spec.url", "http://[fd00::ffff:1:2]:3000"}}},
		{"Service in the cluster", connectionKind, []edit{{"spec.url", "http://grafana.monitoring.svc.cluster.local:3000"}}},
		{"host of one label with an underscore", connectionKind, []edit{{"spec.url", "http://grafana_ee"}}},
		{"host with a dot at its end", connectionKind, []edit{{"spec.url", "https://acme.example.com./grafana/"}}},
		{"path with an escape and an at sign", connectionKind, []edit{{"spec.url", "https://acme.example.com/a%2Fb/@c:99999"}}},
		{"sub-path under apis, and a host of that name", connectionKind, []edit{{"spec.url", "https://apis/apis/grafana"}}},
		{"URL of 2048 characters", connectionKind, []edit{{"spec.url", "https://acme.example.com/" + strings.Repeat("a", 2048-25)}}},
		{"organization 2", connectionKind, []edit{{"spec.namespace", "org-2"}}},
		{"organization 10", connectionKind, []edit{{"spec.namespace", "org-10"}}},
		{"stack", connectionKind, []edit{{"spec.url", "https://acme.grafana.net"}, {"spec.namespace", "stacks-1"}}},
		{"stack under a domain of its own", connectionKind, []edit{{"spec.namespace", "stacks-1234"}}},
		{"host that only looks like Grafana Cloud", connectionKind, []edit{{"spec.url", "https://acme-grafana.net/x.grafana.net"}}},
		{"apiVersion v1", connectionKind, []edit{{"spec.apiVersion", "v1"}}},
		{"apiVersion v0alpha1", connectionKind, []edit{{"spec.apiVersion", "v0alpha1"}}},
		{"maxAge of an hour", secureValueKind, []edit{{"spec.freshness.maxAge", "60m"}}},
		{"maxAge of ten years", secureValueKind, []edit{{"spec.freshness.maxAge", "87600h"}}},
		{"maxAge of 32 characters", secureValueKind, []edit{{"spec.freshness.maxAge", "00001.0000000h000001.00000000m1s"}}},
		{"expirationTime alone", secureValueKind, []edit{{"spec.freshness.expirationTime", "2027-01-31T00:00:00+01:00"}}},
		{"resyncPeriod off", connectionKind, []edit{{"spec.resyncPeriod", "0s"}}},
		{"resyncPeriod of 5s", connectionKind, []edit{{"spec.resyncPeriod", "5s"}}},
		{"resyncPeriod of a week", connectionKind, []edit{{"spec.resyncPeriod", "168h"}}},
		{"resyncPeriod of a week, in seconds", connectionKind, []edit{{"spec.resyncPeriod", "604800s"}}},
		{"resyncPeriod as Go prints it", connectionKind, []edit{{"spec.resyncPeriod", "1h0m1.5s"}}},
		{"resyncPeriod of 32 characters", connectionKind, []edit{{"spec.resyncPeriod", "0001.00000000h000001.00000000m1s"}}},
		{"requestTimeout of 1s", connectionKind, []edit{{"spec.requestTimeout", "1s"}}},
		{"requestTimeout of 2m", connectionKind, []edit{{"spec.requestTimeout", "2m"}}},
		{"TLS with all it may have", connectionKind, []edit{{"spec.tls", map[string]any{"caSecretRef": map[string]any{"name": "ca", "key": "ca.crt"}, "clientCertSecretRef": map[string]any{"name": "client"}, "serverName": "acme.example.com", "insecureSkipVerify": true}}}},
		{"empty TLS", connectionKind, []edit{{"spec.tls", map[string]any{}}}},
		{"a Grafana of grafana-operator", connectionKind, referencing(long)},

		{"all namespaces", clusterConnectionKind, nil},
		{"namespaces with a label", clusterConnectionKind, []edit{{"spec.allowedNamespaces", map[string]any{"from": "Selector", "selector": map[string]any{"matchLabels": map[string]any{"team": "a"}}}}}},
		{"namespaces by all operators", clusterConnectionKind, []edit{{"spec.allowedNamespaces", map[string]any{"from": "Selector", "selector": map[string]any{"matchExpressions": []any{
			map[string]any{"key": "a", "operator": "In", "values": []any{"b"}},
			map[string]any{"key": "a", "operator": "NotIn", "values": []any{"c", ""}},
			map[string]any{"key": "a", "operator": "Exists"},
			map[string]any{"key": "b", "operator": "DoesNotExist", "values": []any{}},
		}}}}}},
		{"limits", clusterConnectionKind, []edit{{"spec.allowedDecrypters", decrypters(64)}, {"spec.requireNamePrefix", true}}},
		{"empty selector", clusterConnectionKind, []edit{{"spec.allowedNamespaces", map[string]any{"from": "Selector", "selector": map[string]any{}}}}},

		{"nothing but what is required", setKind, nil},
		{"name of 63 characters, with a dot", setKind, []edit{{"metadata.name", "a." + strings.Repeat("a", 61)}}},
		{"100 Secrets, a name of 253 characters", setKind, []edit{{"spec.secrets.names", append(decrypters(99), long)}}},
		{"every Secret", setKind, []edit{{"spec.secrets", map[string]any{"selector": map[string]any{}}}}},
		{"Secrets by all operators", setKind, []edit{{"spec.secrets", map[string]any{"selector": map[string]any{"matchExpressions": []any{
			map[string]any{"key": "a", "operator": "In", "values": []any{"b"}},
			map[string]any{"key": "a", "operator": "NotIn", "values": []any{"c", ""}},
			map[string]any{"key": "a", "operator": "Exists"},
			map[string]any{"key": "b", "operator": "DoesNotExist", "values": []any{}},
		}}}}}},
		{"16 globs of each kind, with all they may have", setKind, []edit{
			{"spec.keys.include", append(decrypters(15), ".A_b-c?1*")}, {"spec.keys.exclude", append(decrypters(15), "****"+strings.Repeat("?", 249))},
		}},
		{"empty lists", setKind, []edit{{"spec.keys", map[string]any{"include": []any{}, "exclude": []any{}}}, {"spec.connectionRefs", []any{}}}},
		{"16 connections, by name and by labels", setKind, []edit{{"spec.connectionRefs", append(slices.Repeat([]any{map[string]any{"name": "eu"}}, 14),
			map[string]any{"kind": clusterConnectionKind, "name": long}, map[string]any{"kind": clusterConnectionKind, "selector": map[string]any{}})}}},
		{"nameTemplate of 1,024 characters", setKind, []edit{{"spec.nameTemplate", strings.Repeat("é", 1024)}}},
		{"prunePolicy Delete", setKind, []edit{{"spec.prunePolicy", "Delete"}}},
		{"labels and annotations", setKind, []edit{
			{"spec.template.metadata.labels", map[string]any{"a": "", "example.com/" + strings.Repeat("a", 63): strings.Repeat("a", 63), "app.kubernetes.io/name": "A_b-1.c"}},
			{"spec.template.metadata.annotations", map[string]any{v1alpha1.AnnotationSyncNow: "1", "example.com/note": strings.Repeat("ü", 256)}},
		}},
		{"all that a secure value may have", setKind, []edit{{"spec.template.spec", map[string]any{
			"description": "External API key", "decrypters": []any{"k6-cloud"}, "transforms": []any{"Base64Encode"},
			"freshness": map[string]any{"maxAge": "1h"}, "deletionPolicy": "Retain", "adoptionPolicy": "Adopt", "driftPolicy": "Report", "suspend": true,
		}}}},
	} {
		t.Run(tc.kind+": "+tc.name, func(t *testing.T) {
			if err := dryRun(t, newObject(t, tc.kind, tc.edits...)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoRefusalRepeatsAURL: whichever rule a URL breaks, it may hold a password too.
func TestNoRefusalRepeatsAURL(t *testing.T) {
	for _, url := range []string{
		"https://admin:hunter2@acme.example.com", "https://admin:hunter2@acme.example.com?x=y", "https://acme.example.com?token=hunter2",
		"https://acme.example.com#hunter2", "ftp://admin:hunter2@acme.example.com", "https://admin:hunter2 @acme.example.com",
		"https://admin:hunter2@acme.example.com:99999", "https://admin:hunter2@169.254.169.254", "https://admin:hunter2@010.0.0.1",
		"admin:hunter2@acme.example.com", "https://acme.example.com/hunter2%zz", "https://admin:hunter2@" + strings.Repeat("a", 5000),
	} {
		for _, kind := range []string{connectionKind, clusterConnectionKind} {
			err := dryRun(t, newObject(t, kind, edit{"spec.url", url}))
			if !apierrors.IsInvalid(err) {
				t.Errorf("%s: %s: got %v, want a refusal", kind, url, err)
			} else if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %s is repeated: %v", kind, url, err)
			}
		}
	}
}
