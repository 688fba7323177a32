package securevalue

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const testDSN = "postgres://{{ .db.user | urlquery }}:{{ .db.password | urlquery }}@{{ .app.host }}"

// templated is an object with a template of Secret db and of Secret app-config as app.
func (w *world) templated(text string, transforms ...v1alpha1.ValueTransform) *v1alpha1.GrafanaSecureValue {
	sv := w.value("api-key")
	sv.Spec.Transforms = transforms
	sv.Spec.ValueFrom = v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{
		Text: text, SecretRefs: []v1alpha1.TemplateSecretReference{{Name: "db"}, {Name: "app-config", As: "app"}},
	}}
	return sv
}

// keys makes a Secret with several keys, or gives it others.
func (w *world) keys(name string, data map[string]string) {
	w.t.Helper()
	w.secret(worldNamespace, name, "key", "")
	ctx := context.Background() //nolint:forbidigo // the API server ends with the world
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: name}}
	w.must(w.api.Get(ctx, client.ObjectKeyFromObject(secret), secret))
	secret.Data = map[string][]byte{}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	w.must(w.api.Update(ctx, secret))
}

// holds expects that Grafana has this value in this version, and that the object says the reason.
func (w *world) holds(t *testing.T, content string, version int64, reason string) *v1alpha1.GrafanaSecureValue {
	t.Helper()
	sv := w.get(worldNamespace, "api-key")
	stored, _ := w.grafana.Value("default", "api-key")
	if got := status.Reason(sv.Status.Conditions); string(stored.Value) != content || stored.Version != version || got != reason {
		t.Errorf("%s with version %d of %q, want %s with version %d of %q", got, stored.Version, stored.Value, reason, version, content)
	}
	return sv
}

func TestATemplateFollowsItsSecrets(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.keys("db", map[string]string{"user": "u", "password": "p@1"})
		w.keys("app-config", map[string]string{"host": "h"})
		w.create(w.templated(testDSN))
		w.restart()
		w.settle()
		sv := w.holds(t, "postgres://u:p%401@h", 1, v1alpha1.ReasonSynced)
		target := sv.Status.Targets[0]
		if names := fmt.Sprint(target.Sources[0].Name, target.Sources[1].Name); target.Source != nil || len(target.Sources) != 2 || names != "dbapp-config" {
			t.Errorf("status names %v and %v", target.Source, target.Sources)
		}

		w.keys("db", map[string]string{"user": "u", "password": "p@2"})
		w.settle()
		w.holds(t, "postgres://u:p%402@h", 2, v1alpha1.ReasonSynced)
		w.keys("app-config", map[string]string{"host": "i"})
		w.settle()
		w.holds(t, "postgres://u:p%402@i", 3, v1alpha1.ReasonSynced)

		// An equal result writes nothing to Grafana, and is recorded.
		before, from := w.get(worldNamespace, "api-key").Status.Targets[0], w.callCount()
		w.keys("app-config", map[string]string{"host": "i", "other": "x"})
		w.pass(longestRetry)
		after := w.holds(t, "postgres://u:p%402@i", 3, v1alpha1.ReasonSynced).Status.Targets[0]
		if calls := w.callsIn(from, func(call string) bool { return strings.HasPrefix(call, "Grafana ") }); len(calls) > 0 {
			t.Errorf("an equal result made %s", calls)
		}
		if after.Fingerprint != before.Fingerprint || after.Sources[1].ResourceVersion == before.Sources[1].ResourceVersion {
			t.Errorf("from %v to %v", before.Sources, after.Sources)
		}

		// With the key of fingerprints lost, unchanged Secrets and an unchanged template are known.
		w.secret(worldOperator, "grafana-secure-value-operator-fingerprint", "key", strings.Repeat("k", 32))
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport })
		w.restart()
		w.settle()
		w.holds(t, "postgres://u:p%402@i", 3, v1alpha1.ReasonSynced)
		w.secret(worldOperator, "grafana-secure-value-operator-fingerprint", "key", strings.Repeat("l", 32))
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ValueFrom.Template.Text = "{{ .db.user }}" })
		w.restart()
		w.settle()
		w.holds(t, "u", 4, v1alpha1.ReasonSynced)
	})
}

// A value that is the same is recognized, whatever it is made from.
func TestAnObjectChangesWhereItsValueComesFrom(t *testing.T) {
	f := newFront(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafanatest.New())
		w.source("canary-1\n")
		w.keys("db", map[string]string{"password": "canary-1"})
		w.keys("app-config", nil)
		w.create(w.value("api-key"))
		w.restart()
		w.settle()
		w.holds(t, "canary-1\n", 1, v1alpha1.ReasonSynced)
		transform := func(transforms ...v1alpha1.ValueTransform) {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Transforms = transforms })
			w.settle()
		}
		transform(v1alpha1.TransformTrimTrailingNewline)
		w.holds(t, "canary-1", 2, v1alpha1.ReasonSynced)
		transform(v1alpha1.TransformTrimTrailingNewline, v1alpha1.TransformBase64Encode)
		w.holds(t, base64.StdEncoding.EncodeToString([]byte("canary-1")), 3, v1alpha1.ReasonSynced)
		transform(v1alpha1.TransformBase64Encode, v1alpha1.TransformBase64Decode, v1alpha1.TransformTrimTrailingNewline)
		w.holds(t, "canary-1", 4, v1alpha1.ReasonSynced)
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.ValueFrom, sv.Spec.Transforms = w.templated("{{ .db.password }}").Spec.ValueFrom, nil
		})
		w.settle()
		if sv := w.holds(t, "canary-1", 4, v1alpha1.ReasonSynced); sv.Status.Targets[0].Source != nil || len(sv.Status.Targets[0].Sources) != 2 {
			t.Errorf("status has %+v", sv.Status.Targets)
		}
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ValueFrom = w.value("x").Spec.ValueFrom })
		w.settle()
		if sv := w.holds(t, "canary-1\n", 5, v1alpha1.ReasonSynced); sv.Status.Targets[0].Sources != nil || sv.Status.Targets[0].Recipe != "" {
			t.Errorf("status has %+v", sv.Status.Targets)
		}
	})
}

// A bad source leaves the last good value alone, and says why without a value. It is repaired by an event alone.
func TestABadSource(t *testing.T) {
	const waits, fails = v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled
	trim, encode, decode := v1alpha1.TransformTrimTrailingNewline, v1alpha1.TransformBase64Encode, v1alpha1.TransformBase64Decode
	type change = func(w *world, sv *v1alpha1.GrafanaSecureValue)
	text := func(text string, transforms ...v1alpha1.ValueTransform) change {
		return func(_ *world, sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.ValueFrom.Template.Text, sv.Spec.Transforms = text, transforms
		}
	}
	plain := func(content string, transforms ...v1alpha1.ValueTransform) change {
		return func(w *world, sv *v1alpha1.GrafanaSecureValue) {
			w.source(content)
			sv.Spec.ValueFrom, sv.Spec.Transforms = w.value("x").Spec.ValueFrom, transforms
		}
	}
	for name, row := range map[string]struct {
		change  change
		also    string
		reason  string
		message string
	}{
		"no Secret": {
			func(w *world, _ *v1alpha1.GrafanaSecureValue) { w.removeSecret("app-config") }, waits, v1alpha1.ReasonSecretNotFound,
			`Secret "app-config" does not exist in namespace "team-a". Create it, or correct spec.valueFrom.template.secretRefs.`,
		},
		"no key": {
			func(w *world, _ *v1alpha1.GrafanaSecureValue) { w.keys("app-config", map[string]string{"hst": "x"}) }, waits, v1alpha1.ReasonSecretKeyNotFound,
			`Secret "app-config" has no key "host", which spec.valueFrom.template.text (line 1, column 75) reads. Add it, or correct the template.`,
		},
		"a computed key": {
			text(`{{ index .db .db.password }}`), waits, v1alpha1.ReasonSecretKeyNotFound,
			`Secret "db" does not have the key that spec.valueFrom.template.text (line 1, column 4) computes. Add it, or correct the template.`,
		},
		"no template": {
			text("\n{{ .db.user"), fails, v1alpha1.ReasonTemplateInvalid,
			`Line 2 of spec.valueFrom.template.text cannot be parsed: unclosed action. Correct the template, or what the Secrets hold.`,
		},
		"a template that fails": {
			text("x\n {{ fail .db.password }}"), fails, v1alpha1.ReasonTemplateInvalid,
			`Line 2, column 5 of spec.valueFrom.template.text calls function "fail", which fails. Correct the template, or what the Secrets hold.`,
		},
		"a template with a definition": {
			text(`{{ define "x" }}{{ end }}`), fails, v1alpha1.ReasonTemplateInvalid,
			`spec.valueFrom.template.text has a define or block, which is not supported. Correct the template, or what the Secrets hold.`,
		},
		"large Secrets": {
			func(w *world, _ *v1alpha1.GrafanaSecureValue) {
				w.keys("db", map[string]string{"user": "u", "password": "canary", "x": strings.Repeat("x", 600<<10)})
				w.keys("app-config", map[string]string{"host": "h", "x": strings.Repeat("x", 600<<10)})
			}, fails, v1alpha1.ReasonTemplateInvalid,
			`The Secrets of spec.valueFrom.template hold more than 1048576 bytes together. Keep what the template reads in smaller ones.`,
		},
		"an empty result": {
			text(`{{ if false }}x{{ end }}`), waits, v1alpha1.ReasonValueEmpty,
			`The result of spec.valueFrom.template is empty. Put a value of 1 to 24576 bytes there.`,
		},
		"a result that is too large": {
			text(`{{ range 10000 }}xxx{{ end }}`), fails, v1alpha1.ReasonValueTooLarge,
			`The result of spec.valueFrom.template has 30000 bytes. Grafana takes at most 24576 after template and transforms, for which Base64Encode leaves 18432. Put a shorter value there, or split it over several keys, each with its own GrafanaSecureValue.`,
		},
		"an output without bounds": {
			text(`{{ range 9999 }}0123456789{{ end }}`), fails, v1alpha1.ReasonValueTooLarge,
			`The result of spec.valueFrom.template has more than 65536 bytes. Grafana takes at most 24576 after template and transforms, for which Base64Encode leaves 18432. Put a shorter value there, or split it over several keys, each with its own GrafanaSecureValue.`,
		},
		"a result that Base64Encode makes too large": {
			text(`{{ range 6145 }}123{{ end }}`, encode), fails, v1alpha1.ReasonValueTooLarge,
			`The result of spec.valueFrom.template, after spec.transforms, has 24580 bytes. Grafana takes at most 24576 after template and transforms, for which Base64Encode leaves 18432. Put a shorter value there, or split it over several keys, each with its own GrafanaSecureValue.`,
		},
		"a plain value that is too large": {
			plain(strings.Repeat("x", 24577)), fails, v1alpha1.ReasonValueTooLarge,
			`Key "key" of Secret "source" has 24577 bytes. Grafana takes at most 24576. Put a shorter value there, or split it over several keys, each with its own GrafanaSecureValue.`,
		},
		"a binary value": {
			plain("canary\xff"), fails, v1alpha1.ReasonValueNotUTF8,
			`Key "key" of Secret "source" is not UTF-8 text, and Grafana takes nothing else. Add Base64Encode to spec.transforms.`,
		},
		"a binary value after a transform": {
			plain("/w==", decode), fails, v1alpha1.ReasonValueNotUTF8,
			`Key "key" of Secret "source", after spec.transforms, is not UTF-8 text, and Grafana takes nothing else. Add Base64Encode to spec.transforms.`,
		},
		"a newline alone": {
			plain("\n", trim), waits, v1alpha1.ReasonValueEmpty,
			`Key "key" of Secret "source", after spec.transforms, is empty. Put a value of 1 to 24576 bytes there.`,
		},
		"no Base64": {
			plain("canary", trim, decode), fails, v1alpha1.ReasonTransformFailed,
			`spec.transforms[1] (Base64Decode): the value is not standard Base64 with padding. Correct the value, or remove the transform.`,
		},
		"a Secret that never leaves the cluster": {
			func(w *world, sv *v1alpha1.GrafanaSecureValue) {
				w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: "release"}, Type: "helm.sh/release.v1"})
				sv.Spec.ValueFrom.Template.SecretRefs = append(sv.Spec.ValueFrom.Template.SecretRefs, v1alpha1.TemplateSecretReference{Name: "release"})
			}, fails, v1alpha1.ReasonSourceNotAllowed,
			`Secret "release" is a release of Helm, and never leaves the cluster. Name another one in spec.valueFrom.template.secretRefs.`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, f, grafanatest.New())
				good := func() {
					w.keys("db", map[string]string{"user": "u", "password": "canary"})
					w.keys("app-config", map[string]string{"host": "h"})
				}
				good()
				w.create(w.templated(testDSN))
				w.restart()
				w.settle()
				w.holds(t, "postgres://u:canary@h", 1, v1alpha1.ReasonSynced)

				w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { row.change(w, sv) })
				w.settle()
				sv := w.holds(t, "postgres://u:canary@h", 1, row.reason)
				ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady)
				if ready.Message != row.message {
					t.Errorf("it says\n%s, want\n%s", ready.Message, row.message)
				}
				if meta.FindStatusCondition(sv.Status.Conditions, row.also) == nil {
					t.Errorf("%s is not true: %v", row.also, sv.Status.Conditions)
				}
				from := w.callCount()
				w.settle()
				if calls := w.callsIn(from, func(call string) bool { return strings.Contains(call, "secrets") }); len(calls) > 0 {
					t.Errorf("it is retried: %s", calls)
				}

				w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) {
					sv.Spec.ValueFrom, sv.Spec.Transforms = w.templated(testDSN).Spec.ValueFrom, nil
				})
				good()
				w.settle()
				w.holds(t, "postgres://u:canary@h", 1, v1alpha1.ReasonSynced)
			})
		})
	}
}

func TestValidateSourceRepeatsTheSchema(t *testing.T) {
	valid := func() *v1alpha1.GrafanaSecureValueSpec {
		return &v1alpha1.GrafanaSecureValueSpec{ValueFrom: v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{
			Text: "x", SecretRefs: []v1alpha1.TemplateSecretReference{{Name: "db"}, {Name: "app-config", As: "app"}},
		}}}
	}
	for name, edit := range map[string]func(*v1alpha1.GrafanaSecureValueSpec){
		"9 transforms":     func(s *v1alpha1.GrafanaSecureValueSpec) { s.Transforms = make([]v1alpha1.ValueTransform, 9) },
		"no source":        func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template = nil },
		"two sources":      func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.SecretKeyRef = testSecretRef },
		"no text":          func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.Text = "" },
		"16,385 bytes":     func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.Text = strings.Repeat("x", 16<<10+1) },
		"no Secrets":       func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.SecretRefs = nil },
		"a name with dash": func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.SecretRefs[1].As = "" },
		"an alias twice":   func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.SecretRefs[1].As = "db" },
		"a bad alias":      func(s *v1alpha1.GrafanaSecureValueSpec) { s.ValueFrom.Template.SecretRefs[1].As = "a.b" },
		"a long alias": func(s *v1alpha1.GrafanaSecureValueSpec) {
			s.ValueFrom.Template.SecretRefs[1].As = strings.Repeat("a", 64)
		},
		"9 Secrets": func(s *v1alpha1.GrafanaSecureValueSpec) {
			for i := range 7 {
				s.ValueFrom.Template.SecretRefs = append(s.ValueFrom.Template.SecretRefs, v1alpha1.TemplateSecretReference{Name: fmt.Sprintf("s%d", i)})
			}
		},
	} {
		spec := valid()
		if err := validateSource(spec); err != nil {
			t.Fatal(err)
		}
		edit(spec)
		if e := status.Of(validateSource(spec)); e == nil || e.Reason != v1alpha1.ReasonInvalidSpec {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestASecretOfATemplateIsIndexed(t *testing.T) {
	sv := &v1alpha1.GrafanaSecureValue{}
	sv.Spec.ValueFrom.SecretKeyRef = testSecretRef
	if got := secretsRead(sv); !slices.Equal(got, []string{"s"}) {
		t.Errorf("%v", got)
	}
	sv.Spec.ValueFrom = v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{SecretRefs: []v1alpha1.TemplateSecretReference{{Name: "db"}, {Name: "app-config", As: "app"}}}}
	if got := secretsRead(sv); !slices.Equal(got, []string{"db", "app-config"}) {
		t.Errorf("%v", got)
	}
}

var testSecretRef = v1alpha1.SecretKeyReference{Name: "s", Key: "k"}
