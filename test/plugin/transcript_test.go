package plugin

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	page      = "../../docs/kubectl-gsv.md"
	updateEnv = "UPDATE_TRANSCRIPT" // has the test write the page instead
)

// unstable is what differs from run to run, and what the page has in its place.
var unstable = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`https://127\.0\.0\.1:[0-9]+`), "https://acme.grafana.net"},
	{regexp.MustCompile(`127\.0\.0\.1 is 127\.0\.0\.1\.`), "acme.grafana.net is 203.0.113.10."},
	{regexp.MustCompile(`(lag +\S+ +).*`), "${1}The operator has reported on the last edit of each of 12 GrafanaSecureValues."},
	{regexp.MustCompile(`lag         failed `), "lag         ok     "},
	{regexp.MustCompile(`(Kubernetes: +).*`), "${1}v1.37.2"},
	{regexp.MustCompile(`, GrafanaSecureValueSet`), ""},
}

// transcript is what a person sees who types these commands.
func (w *world) transcript(commands ...string) string {
	w.t.Helper()
	var text strings.Builder
	for _, command := range commands {
		r := run(w.t, strings.Fields(command)...)
		text.WriteString("$ kubectl gsv " + command + "\n" + r.out + r.err)
	}
	out := text.String()
	for _, u := range unstable {
		out = u.pattern.ReplaceAllString(out, u.text)
	}
	return out
}

var transcriptPattern = regexp.MustCompile("(?s)(<!-- transcript: ([a-z-]+) -->\n\n```\n)(.*?)(```\n)")

// TestTranscript: the output in the page is what the commands print. With UPDATE_TRANSCRIPT=1 the page is written.
func TestTranscript(t *testing.T) {
	t.Parallel()
	w := transcriptWorld(t)
	got := map[string]string{
		"status":  w.transcript("status -n team-a"),
		"doctor":  w.transcript("doctor --connection prod -n team-a"),
		"orphans": w.transcript("orphans -n team-a"),
		"version": w.transcript("version"),
		"import":  w.transcript("import --connection prod -n team-a"),
		"plan":    w.planTranscript(),
	}
	got["operator"] = w.transcript("doctor --operator")
	content, err := os.ReadFile(page)
	w.Expect(err).NotTo(HaveOccurred())
	var found []string
	updated := transcriptPattern.ReplaceAllStringFunc(string(content), func(block string) string {
		m := transcriptPattern.FindStringSubmatch(block)
		found = append(found, m[2])
		if got[m[2]] != m[3] && os.Getenv(updateEnv) == "" {
			t.Errorf("transcript %s is\n%s\nand the page has\n%s\nTo write the page, run %s=1 go test ./test/plugin -run TestTranscript", m[2], got[m[2]], m[3], updateEnv)
		}
		return m[1] + got[m[2]] + m[4]
	})
	for name := range got {
		if !slices.Contains(found, name) {
			t.Errorf("the page lacks transcript %s", name)
		}
	}
	if os.Getenv(updateEnv) != "" {
		w.Expect(os.WriteFile(page, []byte(updated), 0o644)).To(Succeed()) //nolint:gosec // as the other pages
	}
}

// transcriptWorld is a namespace in which something is wrong.
func transcriptWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, "team-a")
	secure, err := w.grafana.StartTLS()
	w.Expect(err).NotTo(HaveOccurred())
	conn := w.connected()
	w.Expect(k8s.Delete(t.Context(), conn)).To(Succeed())
	w.Eventually(func() bool { return k8s.Get(t.Context(), client.ObjectKeyFromObject(conn), conn) != nil }).Should(BeTrue())
	w.secret("ca", map[string]string{"ca.crt": string(secure.CA)})
	conn = w.connection(connectionName, secure.URL)
	conn.Spec.TLS = &v1alpha1.TLSConfig{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
	w.create(conn)
	w.connected()
	w.secret("source", map[string]string{"sm-api-key": "canary-1", "db": "canary-2", "k6": "canary-3"})
	waits := w.value("git-sync")
	waits.Spec.ValueFrom.SecretKeyRef.Name = "git"
	for _, sv := range []*v1alpha1.GrafanaSecureValue{w.value("sm-api-key"), w.value("db"), waits} {
		w.create(sv)
		w.eventually(sv, map[bool]string{true: v1alpha1.ReasonSecretNotFound, false: v1alpha1.ReasonSynced}[sv == waits])
	}
	w.orphanOf("old-key", "old-key", false)
	w.grafana.Put("default", grafanatest.Stored{Name: "k6-token", Description: "Token of the load tests", Value: []byte("canary"), Decrypters: []string{"k6-cloud"}})
	w.grafana.AddToken(token, slices.DeleteFunc(grafanatest.AllPermissions(), func(p grafanatest.Permission) bool { return p.Action == grafanatest.ActionWrite })...)
	return w
}

// planTranscript plans a rotation, a move, an adoption without the policy, and a new value.
func (w *world) planTranscript() string {
	w.t.Helper()
	dir := w.t.TempDir()
	moved, taken, fresh := w.value("db"), w.value("k6"), w.value("new")
	moved.Spec.Name, taken.Spec.Name = "database", "k6-token"
	fresh.Spec.ValueFrom.SecretKeyRef.Key = "k6"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "source"}, StringData: map[string]string{"sm-api-key": "canary-4"}}
	w.Expect(os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifest(w.t, moved, taken, fresh, secret)), 0o600)).To(Succeed())
	out := w.transcript("plan -f " + dir)
	return strings.ReplaceAll(out, dir, "manifests/")
}
