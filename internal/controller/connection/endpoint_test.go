package connection

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// grafanaOf returns the Grafana "grafana" of namespace team-a with that spec, in JSON as grafana-operator has it.
func grafanaOf(t *testing.T, spec string) *grafanaoperator.Grafana {
	t.Helper()
	found := &grafanaoperator.Grafana{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "grafana"}}
	if err := json.Unmarshal([]byte(spec), &found.Spec); err != nil {
		t.Fatal(err)
	}
	return found.DeepCopyObject().(*grafanaoperator.Grafana) // a copy has the type of its original
}

func referencing(namespace string) *v1alpha1.GrafanaConnection {
	conn := connectionIn("team-a")
	conn.Spec.URL, conn.Spec.Namespace, conn.Spec.APIVersion = "", namespace, "v1beta1"
	conn.Spec.GrafanaRef = &v1alpha1.GrafanaReference{Name: "grafana"}
	return conn
}

const apiKey = `"url":"https://grafana.example.com","apiKey":{"name":"token","key":"k"}`

func TestEndpointOfGrafana(t *testing.T) {
	for name, row := range map[string]struct {
		spec   string
		reason string // why it is not used
		want   string // the keys read, and the TLS settings
	}{
		"an API key":                         {`{"external":{` + apiKey + `}}`, "", "token[k]"},
		"admin credentials":                  {`{"external":{"url":"https://h","adminUser":{"name":"a","key":"u"},"adminPassword":{"name":"b","key":"p"}}}`, "", "a[u] b[p]"},
		"both":                               {`{"external":{` + apiKey + `,"adminUser":{"name":"a","key":"u"},"adminPassword":{"name":"b","key":"p"}}}`, "", "token[k]"},
		"certificates":                       {`{"external":{` + apiKey + `,"tls":{"certSecretRef":{"name":"c"}}}}`, "", "token[k] c[ca.crt]? c[tls.crt tls.key]?"},
		"certificates of its own namespace":  {`{"external":{` + apiKey + `,"tls":{"certSecretRef":{"name":"c","namespace":"team-a"}}}}`, "", "token[k] c[ca.crt]? c[tls.crt tls.key]?"},
		"certificates of another namespace":  {`{"external":{` + apiKey + `,"tls":{"certSecretRef":{"name":"c","namespace":"team-b"}}}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
		"any certificate":                    {`{"external":{` + apiKey + `,"tls":{"insecureSkipVerify":true}}}`, "", "token[k] insecure"},
		"TLS of the client comes first":      {`{"client":{"tls":{"certSecretRef":{"name":"c"}}},"external":{` + apiKey + `,"tls":{"insecureSkipVerify":true}}}`, "", "token[k] c[ca.crt]? c[tls.crt tls.key]?"},
		"a client without TLS":               {`{"client":{"timeout":5},"external":{` + apiKey + `}}`, "", "token[k]"},
		"the tenant of the connection":       {`{"external":{` + apiKey + `,"tenantNamespace":"stacks-1"}}`, "", "token[k]"},
		"the tenant that the schema gives":   {`{"external":{` + apiKey + `,"tenantNamespace":"default"}}`, "", "token[k]"},
		"another tenant":                     {`{"external":{` + apiKey + `,"tenantNamespace":"stacks-2"}}`, v1alpha1.ReasonInvalidSpec, ""},
		"a Grafana that is run":              {`{"config":{"security":{"admin_password":"canary"}}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
		"no credentials":                     {`{"external":{"url":"https://h"}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
		"a user alone":                       {`{"external":{"url":"https://h","adminUser":{"name":"a","key":"u"}}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
		"an API key without a name":          {`{"external":{"url":"https://h","apiKey":{"name":"","key":"k"}}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
		"a Secret of a name that is no name": {`{"external":{"url":"https://h","apiKey":{"name":"../a","key":"k"}}}`, v1alpha1.ReasonGrafanaNotSupported, ""},
	} {
		t.Run(name, func(t *testing.T) {
			to, err := endpointOfGrafana(grafanaOf(t, row.spec), &referencing("stacks-1").Spec)
			if row.reason != "" {
				if !status.IsReason(err, row.reason) || strings.Contains(err.Error(), "canary") {
					t.Errorf("err = %v, want %s", err, row.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var read []string
			for _, ref := range to.secrets {
				optional := map[bool]string{true: "?"}[ref.optional]
				read = append(read, ref.name+fmt.Sprint(ref.keys)+optional)
			}
			if to.tls != nil && to.tls.InsecureSkipVerify {
				read = append(read, "insecure")
			}
			if got := strings.Join(read, " "); got != row.want || to.grafana != "grafana" || to.url == "" {
				t.Errorf("read is %q of %+v, want %q", got, to, row.want)
			}
		})
	}
	both := referencing("default")
	both.Spec.URL = "https://h"
	if _, err := endpointOfGrafana(grafanaOf(t, `{"external":{`+apiKey+`}}`), &both.Spec); !status.IsReason(err, v1alpha1.ReasonInvalidSpec) {
		t.Errorf("beside a URL: %v", err)
	}
}

// What the schema and the policy say of spec.url holds for the URL of a Grafana. No message repeats it.
func TestTheURLOfAGrafanaIsChecked(t *testing.T) {
	for url, reason := range map[string]string{
		"https://grafana.example.com":               "",
		"https://acme.grafana.net":                  v1alpha1.ReasonInvalidSpec, // which needs stacks-<id>
		"https://canary:canary@grafana.example.com": v1alpha1.ReasonInvalidSpec,
		"https://grafana.example.com/?canary":       v1alpha1.ReasonInvalidSpec,
		"https://grafana.example.com/#canary":       v1alpha1.ReasonInvalidSpec,
		"https://grafana.example.com/canary b":      v1alpha1.ReasonInvalidSpec,
		"https://grafana.example.com/apis":          v1alpha1.ReasonInvalidSpec,
		"http://2130706433":                         v1alpha1.ReasonInvalidSpec,
		"http://169.254.169.254":                    v1alpha1.ReasonConnectionNotAllowed,
		"http://127.0.0.1:3000":                     v1alpha1.ReasonConnectionNotAllowed,
		"https://evil.test":                         v1alpha1.ReasonConnectionNotAllowed,
	} {
		r := withObjects(t)
		r.Policy.AllowedHosts = patterns(t, "*.example.com", "*.grafana.net", "2130706433.example.com", "169.254.169.254", "*.internal")
		if strings.Contains(url, "127.0.0.1") || strings.Contains(url, "2130706433") {
			r.Policy.AllowedHosts = nil
		}
		to, err := endpointOfGrafana(grafanaOf(t, fmt.Sprintf(`{"external":{"url":%q,"apiKey":{"name":"token","key":"k"}}}`, url)), &referencing("default").Spec)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.connect(referencing("default"), to, credentials{token: grafana.NewToken([]byte("glsa_x"))})
		if got := to.condition(err); reason == "" && err != nil || reason != "" && (got.Reason != reason || !strings.Contains(got.Message, `Grafana "grafana"`)) ||
			strings.Contains(got.Message, "canary") {
			t.Errorf("%s: %s %q, want %q", url, got.Reason, got.Message, reason)
		}
	}
}

func TestInsecureTLSOfAGrafanaNeedsTheFlag(t *testing.T) {
	to, err := endpointOfGrafana(grafanaOf(t, `{"external":{`+apiKey+`,"tls":{"insecureSkipVerify":true}}}`), &referencing("default").Spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := to.condition((Policy{}).check(to)); got.Reason != v1alpha1.ReasonTLSError || !strings.Contains(got.Message, "make the change there") {
		t.Errorf("condition = %+v", got)
	}
	if got := to.condition((Policy{AllowInsecureTLS: true}).check(to)); got.Class != status.None || !strings.Contains(got.Message, "not checked") {
		t.Errorf("condition = %+v", got)
	}
}

func TestCredentialsOfAGrafana(t *testing.T) {
	login := `{"external":{"url":"https://h","adminUser":{"name":"s","key":"user"},"adminPassword":{"name":"s","key":"password"}}}`
	certs := `{"external":{"url":"https://h","apiKey":{"name":"s","key":"token"},"tls":{"certSecretRef":{"name":"s"}}}}`
	for name, row := range map[string]struct {
		spec   string
		data   map[string]string
		reason string
		want   []bool // whether there is a CA, and a client certificate
	}{
		"a user and a password":         {login, map[string]string{"user": "admin", "password": " canary: ü "}, "", []bool{false, false}},
		"a user with a colon":           {login, map[string]string{"user": "a:canary", "password": "x"}, v1alpha1.ReasonCredentialsInvalid, nil},
		"an empty user":                 {login, map[string]string{"user": "", "password": "canary"}, v1alpha1.ReasonCredentialsInvalid, nil},
		"an empty password":             {login, map[string]string{"user": "canary", "password": ""}, v1alpha1.ReasonCredentialsInvalid, nil},
		"a password with a line break":  {login, map[string]string{"user": "admin", "password": "canary\n"}, v1alpha1.ReasonCredentialsInvalid, nil},
		"no password":                   {login, map[string]string{"user": "canary"}, v1alpha1.ReasonCredentialsNotFound, nil},
		"a token and no certificates":   {certs, map[string]string{"token": "x"}, "", []bool{false, false}},
		"a CA":                          {certs, map[string]string{"token": "x", "ca.crt": "x"}, "", []bool{true, false}},
		"a client certificate":          {certs, map[string]string{"token": "x", "tls.crt": "x", "tls.key": "x"}, "", []bool{false, true}},
		"all":                           {certs, map[string]string{"token": "x", "ca.crt": "x", "tls.crt": "x", "tls.key": "x"}, "", []bool{true, true}},
		"a certificate without its key": {certs, map[string]string{"token": "x", "tls.crt": "x"}, v1alpha1.ReasonCredentialsNotFound, nil},
		"an empty token":                {certs, map[string]string{"token": "\n"}, v1alpha1.ReasonCredentialsInvalid, nil},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "s"}, Data: map[string][]byte{}}
			for key, content := range row.data {
				secret.Data[key] = []byte(content)
			}
			conn := referencing("default")
			to, err := endpointOfGrafana(grafanaOf(t, row.spec), &conn.Spec)
			if err != nil {
				t.Fatal(err)
			}
			cred, err := withObjects(t, secret).credentials(t.Context(), conn, to)
			if row.reason != "" {
				if !status.IsReason(err, row.reason) || strings.Contains(err.Error(), "canary") {
					t.Errorf("err = %v, want %s", err, row.reason)
				}
				return
			}
			if got := []bool{cred.ca != nil, cred.cert != nil && cred.key != nil}; err != nil || cred.token.Empty() || !slices.Equal(got, row.want) {
				t.Errorf("certificates %v, %v, want %v", got, err, row.want)
			}
			if printed := fmt.Sprintf("%v %+v", cred, to); strings.Contains(printed, "canary") || strings.Contains(printed, "admin") {
				t.Errorf("they print as %s", printed)
			}
		})
	}
}
