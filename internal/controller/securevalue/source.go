package securevalue

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

// sourceStatus is what a value was made from and how, as status has it: a key of a Secret, or the Secrets of a template.
type sourceStatus struct {
	key     *v1alpha1.SourceStatus
	secrets []v1alpha1.SecretStatus
	recipe  string
}

// sourceOf returns what the value comes from, in these versions of its Secrets.
func sourceOf(sv *v1alpha1.GrafanaSecureValue, secrets []v1alpha1.SecretStatus) sourceStatus {
	if sv.Spec.ValueFrom.Template != nil {
		return sourceStatus{secrets: secrets, recipe: recipeOf(&sv.Spec)}
	}
	s := secrets[0]
	key := &v1alpha1.SourceStatus{Name: s.Name, Key: sv.Spec.ValueFrom.SecretKeyRef.Key, UID: s.UID, ResourceVersion: s.ResourceVersion}
	return sourceStatus{key: key, recipe: recipeOf(&sv.Spec)}
}

// recipeOf returns a hash of the template and the transforms; "" where there is neither.
func recipeOf(spec *v1alpha1.GrafanaSecureValueSpec) string {
	template := spec.ValueFrom.Template
	if template == nil && len(spec.Transforms) == 0 {
		return ""
	}
	h := sha256.New()
	fingerprint.WriteParts(h, fmt.Sprint(spec.Transforms))
	if template != nil {
		fingerprint.WriteParts(h, template.Text)
		for _, ref := range template.SecretRefs {
			fingerprint.WriteParts(h, ref.Alias())
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// isOf reports whether the record has the same.
func (s sourceStatus) isOf(record *v1alpha1.TargetStatus) bool {
	if s.recipe != record.Recipe || (s.key == nil) != (record.Source == nil) {
		return false
	}
	return s.key == nil && slices.Equal(s.secrets, record.Sources) || s.key != nil && *s.key == *record.Source
}

// isFrom reports whether the record has the same key, or else each of these Secrets in the same version, whatever is made of them.
func (s sourceStatus) isFrom(record *v1alpha1.TargetStatus) bool {
	if s.key != nil && record.Source != nil {
		return *s.key == *record.Source
	}
	secrets, recorded := s.secrets, record.Sources
	if s.key != nil {
		secrets = []v1alpha1.SecretStatus{secretOf(*s.key)}
	}
	if record.Source != nil {
		recorded = []v1alpha1.SecretStatus{secretOf(*record.Source)}
	}
	return !slices.ContainsFunc(secrets, func(secret v1alpha1.SecretStatus) bool { return !slices.Contains(recorded, secret) })
}

// secretStatusOf returns the version of a Secret, which may be its metadata alone.
func secretStatusOf(secret metav1.Object) v1alpha1.SecretStatus {
	return v1alpha1.SecretStatus{Name: secret.GetName(), UID: secret.GetUID(), ResourceVersion: secret.GetResourceVersion()}
}

func secretOf(key v1alpha1.SourceStatus) v1alpha1.SecretStatus {
	return v1alpha1.SecretStatus{Name: key.Name, UID: key.UID, ResourceVersion: key.ResourceVersion}
}

// identifier is what the alias of a Secret in a template is.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// validateSource repeats what the schema asks for, for objects that are older than the schema.
func validateSource(spec *v1alpha1.GrafanaSecureValueSpec) error {
	if n := len(spec.Transforms); n > v1alpha1.MaxTransforms {
		return invalidSpec("spec.transforms has %d transforms. Use at most %d.", n, v1alpha1.MaxTransforms)
	}
	t := spec.ValueFrom.Template
	switch hasKey := spec.ValueFrom.SecretKeyRef != (v1alpha1.SecretKeyReference{}); {
	case hasKey == (t != nil):
		return invalidSpec("spec.valueFrom must have exactly one of secretKeyRef and template.")
	case t == nil:
		return nil
	case len(t.Text) == 0 || len(t.Text) > v1alpha1.MaxTemplateBytes:
		return invalidSpec("spec.valueFrom.template.text has %d bytes. Use 1 to %d bytes.", len(t.Text), v1alpha1.MaxTemplateBytes)
	case len(t.SecretRefs) == 0 || len(t.SecretRefs) > v1alpha1.MaxTemplateSecrets:
		return invalidSpec("spec.valueFrom.template.secretRefs names %d Secrets. Name 1 to %d.", len(t.SecretRefs), v1alpha1.MaxTemplateSecrets)
	}
	for i, ref := range t.SecretRefs {
		same := func(other v1alpha1.TemplateSecretReference) bool { return other.Alias() == ref.Alias() }
		if !identifier.MatchString(ref.Alias()) || slices.ContainsFunc(t.SecretRefs[:i], same) {
			return invalidSpec("spec.valueFrom.template.secretRefs[%d] must have an identifier as its as, or as its name, which no other one has: at most 63 letters, digits and '_', not beginning with a digit.", i)
		}
	}
	return nil
}

// content returns the value before its transforms, and the Secrets that it was made from.
func (r *Reconciler) content(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) ([]byte, []*corev1.Secret, error) {
	template := sv.Spec.ValueFrom.Template
	if template == nil {
		ref := sv.Spec.ValueFrom.SecretKeyRef
		secret, err := r.sourceSecret(ctx, sv, ref.Name)
		if err != nil {
			return nil, nil, err
		}
		content, found := secret.Data[ref.Key]
		if !found {
			return nil, nil, watch(v1alpha1.ReasonSecretKeyNotFound, "Secret %q has no key %q. Add it, or correct spec.valueFrom.secretKeyRef.key.", ref.Name, ref.Key)
		}
		return content, []*corev1.Secret{secret}, nil
	}
	leave, err := source.Enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	data := map[string]map[string][]byte{}
	var secrets []*corev1.Secret
	size := 0
	for _, name := range sv.Spec.ValueFrom.Secrets() {
		secret, err := r.sourceSecret(ctx, sv, name)
		if err != nil {
			return nil, nil, err
		}
		if size += source.SizeOf(secret.Data); size > source.MaxSecretBytes {
			return nil, nil, here(v1alpha1.ReasonTemplateInvalid, "The Secrets of spec.valueFrom.template hold more than %d bytes together. Keep what the template reads in smaller ones.", source.MaxSecretBytes)
		}
		for _, ref := range template.SecretRefs {
			if ref.Name == name {
				data[ref.Alias()] = secret.Data
			}
		}
		secrets = append(secrets, secret)
	}
	content, err := source.Render(ctx, template.Text, data)
	if err != nil {
		err = sourceError(sv, err)
	}
	return content, secrets, err
}

// sourceSecret reads a Secret, live. One that never leaves the cluster is refused.
func (r *Reconciler) sourceSecret(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, name string) (*corev1.Secret, error) {
	field := "spec.valueFrom.secretKeyRef.name"
	if sv.Spec.ValueFrom.Template != nil {
		field = "spec.valueFrom.template.secretRefs"
	}
	secret := &corev1.Secret{}
	err := r.live.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, watch(v1alpha1.ReasonSecretNotFound, "Secret %q does not exist in namespace %q. Create it, or correct %s.", name, sv.Namespace, field)
	}
	if err != nil {
		return nil, err
	}
	if what := connection.Foreign(name, secret.Type); what != "" {
		return nil, here(v1alpha1.ReasonSourceNotAllowed, "Secret %q is %s, and never leaves the cluster. Name another one in %s.", name, what, field)
	}
	return secret, nil
}

// sourceError says why the template or the transforms make no value.
func sourceError(sv *v1alpha1.GrafanaSecureValue, err error) error {
	const text = "spec.valueFrom.template.text"
	if missing, ok := errors.AsType[*source.MissingKeyError](err); ok {
		name := ""
		for _, ref := range sv.Spec.ValueFrom.Template.SecretRefs {
			if ref.Alias() == missing.Alias {
				name = ref.Name
			}
		}
		at := fmt.Sprintf("%s (line %d, column %d)", text, missing.Line, missing.Column)
		if missing.Key == "" {
			return watch(v1alpha1.ReasonSecretKeyNotFound, "Secret %q does not have the key that %s computes. Add it, or correct the template.", name, at)
		}
		return watch(v1alpha1.ReasonSecretKeyNotFound, "Secret %q has no key %q, which %s reads. Add it, or correct the template.", name, missing.Key, at)
	}
	if invalid, ok := errors.AsType[*source.TemplateError](err); ok {
		at := text
		switch {
		case invalid.Column > 0:
			at = fmt.Sprintf("Line %d, column %d of %s", invalid.Line, invalid.Column, text)
		case invalid.Line > 0:
			at = fmt.Sprintf("Line %d of %s", invalid.Line, text)
		}
		return here(v1alpha1.ReasonTemplateInvalid, "%s %s. Correct the template, or what the Secrets hold.", at, invalid.Problem)
	}
	if failed, ok := errors.AsType[*source.TransformError](err); ok {
		return here(v1alpha1.ReasonTransformFailed, "spec.transforms[%d] (%s): %s. Correct the value, or remove the transform.", failed.Index, failed.Transform, failed.Problem)
	}
	if errors.As(err, new(source.TooLargeError)) {
		return tooLarge(sv, fmt.Sprintf("more than %d", source.MaxBytes))
	}
	return err
}

// valueOf names the value.
func valueOf(sv *v1alpha1.GrafanaSecureValue) string {
	name := "The result of spec.valueFrom.template"
	if ref := sv.Spec.ValueFrom.SecretKeyRef; sv.Spec.ValueFrom.Template == nil {
		name = fmt.Sprintf("Key %q of Secret %q", ref.Key, ref.Name)
	}
	if len(sv.Spec.Transforms) > 0 {
		name += ", after spec.transforms,"
	}
	return name
}

// checkValue says what Grafana would refuse.
func checkValue(sv *v1alpha1.GrafanaSecureValue, value grafana.Value) error {
	switch err := value.Validate(); {
	case errors.Is(err, grafana.ErrValueEmpty):
		return watch(v1alpha1.ReasonValueEmpty, "%s is empty. Put a value of 1 to %d bytes there.", valueOf(sv), grafana.MaxValueBytes)
	case errors.Is(err, grafana.ErrValueTooLarge):
		return tooLarge(sv, fmt.Sprint(len(value.Bytes())))
	case errors.Is(err, grafana.ErrValueNotUTF8):
		return here(v1alpha1.ReasonValueNotUTF8, "%s is not UTF-8 text, and Grafana takes nothing else. Add Base64Encode to spec.transforms.", valueOf(sv))
	default:
		return err
	}
}

// tooLarge says that the value has more bytes than Grafana takes.
func tooLarge(sv *v1alpha1.GrafanaSecureValue, size string) error {
	bounds := fmt.Sprintf("at most %d", grafana.MaxValueBytes)
	if len(sv.Spec.Transforms) > 0 || sv.Spec.ValueFrom.Template != nil {
		bounds += fmt.Sprintf(" after template and transforms, for which Base64Encode leaves %d", base64.StdEncoding.DecodedLen(grafana.MaxValueBytes))
	}
	return here(v1alpha1.ReasonValueTooLarge, "%s has %s bytes. Grafana takes %s. Put a shorter value there, or split it over several keys, each with its own GrafanaSecureValue.", valueOf(sv), size, bounds)
}
