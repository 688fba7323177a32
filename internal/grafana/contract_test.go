package grafana_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// The variables that name a real Grafana for the contract tests.
const (
	envURL       = "GRAFANA_URL"
	envToken     = "GRAFANA_TOKEN"
	envNamespace = "GRAFANA_NAMESPACE"
	envVersion   = "GRAFANA_API_VERSION" // v1beta1 unless set
	envContract  = "GRAFANA_CONTRACT"    // "required": a real Grafana must be named
)

// TestContract holds what this project relies on. It runs against the fake Grafana, and against a real Grafana where one is named,
// so that the two stay alike. In a real Grafana it touches only names that begin with a prefix of its own, and removes them.
func TestContract(t *testing.T) {
	cfg, isReal := realGrafana(t)
	if isReal {
		runContract(t, cfg)
		return
	}
	for name, options := range map[string][]grafanatest.Option{
		"fake Grafana":                           nil,
		"fake Grafana, invalid as 400":           {grafanatest.WithInvalidAs400()},
		"fake Grafana, resourceVersion enforced": {grafanatest.WithResourceVersionEnforced()},
		"fake Grafana under a sub-path":          {grafanatest.WithBasePath("/grafana")},
	} {
		t.Run(name, func(t *testing.T) {
			server := grafanatest.New(options...)
			server.AddToken(testToken)
			running := started(t, server.Start)
			t.Run("contract", func(t *testing.T) { runContract(t, config(running.URL)) }) // with its clean-up
			if left := server.Values("default"); len(left) > 0 {
				t.Errorf("%d values were left behind", len(left))
			}
		})
	}
}

// realGrafana returns the Grafana that the environment names, if it does.
func realGrafana(t *testing.T) (grafana.Config, bool) {
	t.Helper()
	url, token, namespace := os.Getenv(envURL), os.Getenv(envToken), os.Getenv(envNamespace)
	switch {
	case url != "" && token != "" && namespace != "":
		cfg := config(url)
		cfg.Token, cfg.Namespace = grafana.NewToken([]byte(token)), namespace
		if version := os.Getenv(envVersion); version != "" {
			cfg.APIVersion = version
		}
		cfg.Timeout = 30 * time.Second
		return cfg, true
	case url != "" || token != "" || namespace != "" || os.Getenv(envContract) == "required":
		t.Fatalf("set %s, %s and %s to run the contract tests against a real Grafana", envURL, envToken, envNamespace)
	}
	return grafana.Config{}, false
}

// contract is one run: a client, and the names that it may touch.
type contract struct {
	cfg    grafana.Config
	client *grafana.Client
	prefix string
}

func runContract(t *testing.T, cfg grafana.Config) {
	t.Helper()
	c := &contract{cfg: cfg, client: newClient(t, cfg), prefix: "gsv-contract-" + strings.ToLower(rand.Text()[:8]) + "-"}
	t.Cleanup(func() { c.cleanUp(t) })
	t.Run("a whole life", c.wholeLife)
	t.Run("a name that is taken", c.nameTaken)
	t.Run("what is not there", c.notThere)
	t.Run("each write is a version", c.eachWriteIsAVersion)
	t.Run("labels and annotations are kept", c.labelsAreKept)
	t.Run("an empty list of decrypters clears", c.decryptersCleared)
	t.Run("a value at its bounds", c.bounds)
	t.Run("a wrong token", c.wrongToken)
	t.Run("a wrong API version", c.wrongVersion)
	t.Run("what the server finds invalid", c.invalid)
}

// cleanUp removes whatever the run has made, also after a failure.
func (c *contract) cleanUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	values, err := list(ctx, c.client)
	if err != nil {
		t.Errorf("list what is left of %s: %v", c.prefix, err)
	}
	for _, v := range values {
		if strings.HasPrefix(v.Name, c.prefix) {
			if err := c.client.Delete(ctx, v.Name); err != nil && !errors.Is(err, grafana.ErrNotFound) {
				t.Errorf("left behind: %v", err)
			}
		}
	}
}

func (c *contract) value(name string) *grafana.SecureValue {
	return &grafana.SecureValue{
		Name: c.prefix + name, Description: "contract test", Decrypters: []string{"synthetic-monitoring"},
		Value:  grafana.NewValue([]byte("first")),
		Labels: map[string]string{"grafana.securevalues.io/owner": "contract", "grafana.securevalues.io/run": strings.Trim(c.prefix, "-")},
	}
}

// created makes a value that must not fail.
func (c *contract) created(t *testing.T, sv *grafana.SecureValue) *grafana.SecureValue {
	t.Helper()
	made, err := c.client.Create(t.Context(), sv)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// updated reads the value and writes it again, changed.
func (c *contract) updated(t *testing.T, name string, change func(*grafana.SecureValue)) *grafana.SecureValue {
	t.Helper()
	found, err := c.client.Get(t.Context(), c.prefix+name)
	if err != nil {
		t.Fatal(err)
	}
	found.Value = grafana.NewValue([]byte("second"))
	change(found)
	after, err := c.client.Update(t.Context(), found)
	if err != nil {
		t.Fatal(err)
	}
	return after
}

func (c *contract) wholeLife(t *testing.T) {
	sv := c.value("life")
	made := c.created(t, sv)
	found, err := c.client.Get(t.Context(), sv.Name)
	if err != nil || found.Name != sv.Name || found.Description != sv.Description || !slices.Equal(found.Decrypters, sv.Decrypters) {
		t.Errorf("read %+v, %v", found, err)
	}
	if found.Version < 1 || found.CreatedAt.IsZero() || found.Owned {
		t.Errorf("version %d, created %s, owned %t", found.Version, found.CreatedAt, found.Owned)
	}
	listed, err := list(t.Context(), c.client)
	if err != nil || !slices.ContainsFunc(listed, func(v *grafana.SecureValue) bool { return v.Name == sv.Name && v.Version == found.Version }) {
		t.Errorf("list: %v, %v", listed, err)
	}
	after := c.updated(t, "life", func(sv *grafana.SecureValue) { sv.Description = "changed" })
	if after.Description != "changed" || !after.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("updated %+v", after)
	}
	if err := c.client.Delete(t.Context(), sv.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.Get(t.Context(), sv.Name); !errors.Is(err, grafana.ErrNotFound) {
		t.Errorf("read after delete: %v", err)
	}
	if err := c.client.Delete(t.Context(), sv.Name); err != nil && !errors.Is(err, grafana.ErrNotFound) { // either is known
		t.Errorf("second delete: %v", err)
	}
	again := c.created(t, sv)
	if again.Version < 1 || again.CreatedAt.Before(made.CreatedAt) {
		t.Errorf("made again: version %d, created %s", again.Version, again.CreatedAt)
	}
}

func (c *contract) nameTaken(t *testing.T) {
	c.created(t, c.value("taken"))
	if _, err := c.client.Create(t.Context(), c.value("taken")); !errors.Is(err, grafana.ErrAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
}

func (c *contract) notThere(t *testing.T) {
	if _, err := c.client.Get(t.Context(), c.prefix+"none"); !errors.Is(err, grafana.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if _, err := c.client.Update(t.Context(), c.value("none")); !errors.Is(err, grafana.ErrNotFound) {
		t.Errorf("update: %v", err)
	}
}

func (c *contract) eachWriteIsAVersion(t *testing.T) {
	made := c.created(t, c.value("versions"))
	last := made.Version
	for range 3 {
		after := c.updated(t, "versions", func(*grafana.SecureValue) {})
		if after.Version <= last {
			t.Errorf("version %d after %d", after.Version, last)
		}
		last = after.Version
	}
}

func (c *contract) labelsAreKept(t *testing.T) {
	sv := c.value("labels")
	sv.Annotations = map[string]string{"grafana.securevalues.io/resource": "ns/name"}
	c.created(t, sv)
	found, err := c.client.Get(t.Context(), sv.Name)
	if err != nil || found.Labels["grafana.securevalues.io/owner"] != "contract" ||
		found.Annotations["grafana.securevalues.io/resource"] != "ns/name" {
		t.Errorf("read %v %v, %v", found.Labels, found.Annotations, err)
	}
	after := c.updated(t, "labels", func(sv *grafana.SecureValue) { sv.Labels["grafana.securevalues.io/owner"] = "other" })
	if after.Labels["grafana.securevalues.io/owner"] != "other" {
		t.Errorf("a label does not follow a PUT: %v", after.Labels)
	}
}

func (c *contract) decryptersCleared(t *testing.T) {
	c.created(t, c.value("decrypters"))
	c.updated(t, "decrypters", func(sv *grafana.SecureValue) { sv.Decrypters = nil })
	if found, err := c.client.Get(t.Context(), c.prefix+"decrypters"); err != nil || len(found.Decrypters) != 0 {
		t.Errorf("decrypters = %v, %v", found.Decrypters, err)
	}
}

func (c *contract) bounds(t *testing.T) {
	sv := c.value("bounds")
	sv.Value = grafana.NewValue(append(bytes.Repeat([]byte(`"`), grafana.MaxValueBytes-1), '\n'))
	sv.Description = strings.Repeat("é", grafana.MaxDescriptionRunes)
	c.created(t, sv)
}

func (c *contract) wrongToken(t *testing.T) {
	cfg := c.cfg
	cfg.Token = grafana.NewToken([]byte("glsa_wrong"))
	if _, err := list(t.Context(), newClient(t, cfg)); !errors.Is(err, grafana.ErrUnauthorized) {
		t.Errorf("list: %v", err)
	}
}

func (c *contract) wrongVersion(t *testing.T) {
	cfg := c.cfg
	cfg.APIVersion = "v9"
	if _, err := list(t.Context(), newClient(t, cfg)); !errors.Is(err, grafana.ErrAPINotServed) {
		t.Errorf("list: %v", err)
	}
}

// invalid sends what the client itself would refuse, to hold how the server answers.
func (c *contract) invalid(t *testing.T) {
	for name, spec := range map[string]string{
		"no description": `{"value":"x"}`,
		"no value":       `{"description":"x"}`,
		"too large":      `{"description":"x","value":"` + strings.Repeat("x", grafana.MaxValueBytes+1) + `"}`,
		"bad decrypter":  `{"description":"x","value":"x","decrypters":["a/b"]}`,
	} {
		body := `{"metadata":{"name":"` + c.prefix + `invalid"},"spec":` + spec + `}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimRight(c.cfg.URL, "/")+
			"/apis/secret.grafana.app/"+c.cfg.APIVersion+"/namespaces/"+c.cfg.Namespace+"/securevalues", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+c.bearer())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: HTTP %d", name, resp.StatusCode)
		}
	}
}

func (c *contract) bearer() string {
	if token := os.Getenv(envToken); token != "" {
		return token
	}
	return testToken
}
