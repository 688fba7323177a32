package integration

import (
	"encoding/base64"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// templated is an object with a template of Secret db and of Secret app-config as app.
func (w *world) templated(name, text string) *v1alpha1.GrafanaSecureValue {
	sv := w.value(name)
	sv.Spec.ValueFrom = v1alpha1.ValueSource{Template: &v1alpha1.ValueTemplate{
		Text: text, SecretRefs: []v1alpha1.TemplateSecretReference{{Name: "db"}, {Name: "app-config", As: "app"}},
	}}
	return sv
}

var _ = Describe("A template", func() {
	It("follows each of its Secrets, and an equal result writes nothing", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("db", map[string]string{"user": "u", "password": "canary@1"})
		sv := w.templated("dsn", "postgres://{{ .db.user }}:{{ .db.password | urlquery }}@{{ .app.host }}/app")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonSecretNotFound)
		Expect(message(sv.Status.Conditions)).To(ContainSubstring(`Secret "app-config" does not exist`))
		w.secret("app-config", map[string]string{"host": "h"})
		w.eventuallyStored("dsn", "postgres://u:canary%401@h/app")

		w.secret("db", map[string]string{"user": "u", "password": "canary@2"})
		w.eventuallyStored("dsn", "postgres://u:canary%402@h/app")
		w.secret("app-config", map[string]string{"host": "i"})
		w.eventuallyStored("dsn", "postgres://u:canary%402@i/app")
		w.eventuallySynced(sv)
		Expect(w.stored("dsn").Version).To(Equal(int64(3)))

		w.reset()
		sources := sv.Status.Targets[0].Sources
		Expect(sources).To(HaveLen(2))
		w.secret("app-config", map[string]string{"host": "i", "other": "x"})
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
			g.Expect(sv.Status.Targets[0].Sources[1].ResourceVersion).NotTo(Equal(sources[1].ResourceVersion))
		}).WithContext(ctx).Should(Succeed())
		Expect(w.calls()).To(BeEmpty())
	})

	It("that fails leaves the last good value alone, and tells what is wrong and never a value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("db", map[string]string{"user": "u", "password": "canary"})
		w.secret("app-config", map[string]string{"host": "h"})
		sv := w.templated("dsn", "{{ .db.password }}@{{ .app.host }}")
		w.create(sv)
		w.eventuallyStored("dsn", "canary@h")
		for text, want := range map[string]struct{ reason, message string }{
			"{{ .db.port }}":                    {v1alpha1.ReasonSecretKeyNotFound, `Secret "db" has no key "port"`},
			"{{ index .app .db.password }}":     {v1alpha1.ReasonSecretKeyNotFound, `Secret "app-config" does not have the key`},
			"x\n{{ fail .db.password }}":        {v1alpha1.ReasonTemplateInvalid, `Line 2, column 4 of spec.valueFrom.template.text calls function "fail"`},
			"{{ range .db.password }}{{ end }}": {v1alpha1.ReasonTemplateInvalid, "Line 1, column 10"},
			"{{ .db.password | fromJson }}":     {v1alpha1.ReasonTemplateInvalid, `calls function "fromJson", which fails`},
			"{{ printf `%99999999d` 1 }}":       {v1alpha1.ReasonTemplateInvalid, `calls function "printf"`},
		} {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ValueFrom.Template.Text = text })
			w.eventually(sv, want.reason)
			Expect(message(sv.Status.Conditions)).To(ContainSubstring(want.message))
			Expect(meta.IsStatusConditionTrue(sv.Status.Conditions, v1alpha1.ConditionStalled)).To(Equal(want.reason == v1alpha1.ReasonTemplateInvalid))
		}
		Expect(string(w.stored("dsn").Value)).To(Equal("canary@h"))
		Expect(w.stored("dsn").Version).To(Equal(int64(1)))
	})
})

var _ = Describe("Transforms", func() {
	It("are applied in order, and make text of a binary value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary\xff\n"})
		sv := w.value("keystore")
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonValueNotUTF8)
		Expect(message(sv.Status.Conditions)).To(HaveSuffix("Add Base64Encode to spec.transforms."))
		transform := func(transforms ...v1alpha1.ValueTransform) {
			edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Transforms = transforms })
		}
		transform(v1alpha1.TransformBase64Encode)
		w.eventuallyStored("keystore", base64.StdEncoding.EncodeToString([]byte("canary\xff\n")))
		transform(v1alpha1.TransformTrimTrailingNewline, v1alpha1.TransformBase64Encode)
		w.eventuallyStored("keystore", base64.StdEncoding.EncodeToString([]byte("canary\xff")))
		transform(v1alpha1.TransformBase64Decode)
		w.eventually(sv, v1alpha1.ReasonTransformFailed)
		Expect(message(sv.Status.Conditions)).To(HavePrefix("spec.transforms[0] (Base64Decode): "))
		w.secret("source", map[string]string{"key": base64.StdEncoding.EncodeToString([]byte("canary-1"))})
		w.eventuallyStored("keystore", "canary-1")
		w.eventuallySynced(sv)
		Expect(w.stored("keystore").Version).To(Equal(int64(3)))
	})
})
