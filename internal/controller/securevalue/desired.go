package securevalue

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

// maxTokenBytes bounds the token of sync-now, which status repeats.
const maxTokenBytes = 253

// desired is what the target that spec names shall have.
type desired struct {
	target     ownership.Target
	place      ownership.Place
	connection v1alpha1.Connection
	labels     ownership.Labels

	adopt      bool   // a value that nobody owns may become this object's
	noAdoption bool   // the connection forbids that
	again      bool   // it is written once more, even if nothing changed
	token      string // of sync-now, which asks for that
	report     bool   // drift is left alone
	generation int64

	description string // "" is the default
	kept        bool   // a value that has a description keeps it: spec gives none, and it was adopted
	decrypters  []string

	// Read from the Secrets when it is needed, and not kept.
	value       grafana.Value
	source      sourceStatus
	fingerprint string
	rotated     bool   // the Secrets make another value than the one that the object wrote last, wherever that was
	origin      string // of the Secrets, in sentences
}

// desired returns what the target that spec names shall have, without its value. The connection must be there, and allow it.
func (r *Reconciler) desired(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (*desired, error) {
	conn, err := r.connectionOf(ctx, sv)
	if err != nil {
		return nil, err
	}
	target := ownership.Target{Connection: sv.ConnectionOrDefault(), Namespace: conn.GetSpec().Namespace, Name: sv.SecureValueName()}
	want := &desired{
		target:      target,
		place:       r.placeOf(conn, target),
		connection:  conn,
		labels:      ownership.LabelsOf(r.clusterID, sv, sv.ConnectionOrDefault()),
		adopt:       sv.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyAdopt,
		token:       sv.Annotations[v1alpha1.AnnotationSyncNow],
		report:      sv.Spec.DriftPolicy == v1alpha1.DriftPolicyReport,
		generation:  sv.Generation,
		description: sv.Spec.Description,
		decrypters:  sv.Spec.Decrypters,
	}
	record := ownership.Record(sv.Status.Targets, want.target)
	want.kept = want.description == "" && record != nil && record.DescriptionKept
	want.again = want.token != "" && want.token != sv.Status.LastSyncNow
	if n := len(want.token); want.again && n > maxTokenBytes {
		return nil, invalidSpec("The annotation %s is longer than %d bytes. Give it a shorter token, for example $(date +%%s).",
			v1alpha1.AnnotationSyncNow, maxTokenBytes)
	}
	if err := cmp.Or(validateFreshness(sv.Spec.Freshness), want.validate(), validateSource(&sv.Spec)); err != nil {
		return nil, err
	}
	return want, want.checkLimits(sv.Namespace)
}

// validate repeats what the schema asks for, for objects that are older than the schema.
func (d *desired) validate() error {
	kind, problems := d.target.Connection.Kind, validation.IsDNS1123Subdomain(d.target.Name)
	n := utf8.RuneCountInString(d.description)
	switch {
	case kind != v1alpha1.KindGrafanaConnection && kind != v1alpha1.KindClusterGrafanaConnection:
		return invalidSpec("spec.connectionRef.kind is %q. Use GrafanaConnection or ClusterGrafanaConnection.", kind)
	case problems != nil:
		return invalidSpec("Grafana does not take the name %q: %s.", d.target.Name, strings.Join(problems, "; "))
	case strings.ContainsFunc(d.description, unicode.IsControl):
		return invalidSpec("spec.description has control characters. Remove them.")
	case n > grafana.MaxDescriptionRunes:
		return invalidSpec("spec.description is %d characters long. Use 1 to %d characters.", n, grafana.MaxDescriptionRunes)
	case len(d.decrypters) > grafana.MaxDecrypters:
		return invalidSpec("spec.decrypters names %d services. Name at most %d.", len(d.decrypters), grafana.MaxDecrypters)
	}
	for i, decrypter := range d.decrypters {
		if decrypter == "" || validation.IsValidLabelValue(decrypter) != nil || slices.Contains(d.decrypters[:i], decrypter) {
			return invalidSpec("spec.decrypters[%d] must be the name of a service, named once: at most 63 letters, digits, '-', '_' and '.'.", i)
		}
	}
	return nil
}

// checkLimits asks a shared connection whether it lets the namespace write this.
func (d *desired) checkLimits(namespace string) error {
	shared, ok := d.connection.(*v1alpha1.ClusterGrafanaConnection)
	if !ok {
		return nil
	}
	d.noAdoption = shared.Spec.Adoption == v1alpha1.AdoptionForbidden
	id := ownership.ConnectionOf(d.target.Connection, namespace)
	if prefix := namespace + "."; shared.Spec.RequireNamePrefix && !strings.HasPrefix(d.target.Name, prefix) {
		return here(v1alpha1.ReasonNameNotAllowed, "%s requires that the name in Grafana begins with %q, and it is %q. Set spec.name to %q, or use another connection.", id, prefix, d.target.Name, prefix+d.target.Name)
	}
	allowed := shared.Spec.AllowedDecrypters
	for _, decrypter := range d.decrypters {
		if len(allowed) > 0 && !slices.Contains(allowed, decrypter) {
			return here(v1alpha1.ReasonDecrypterNotAllowed, "%s does not allow decrypter %q. Remove it from spec.decrypters, use another connection, or ask the owner of this one to allow it in spec.allowedDecrypters.", id, decrypter)
		}
	}
	return nil
}

// connectionOf returns the connection that spec names. One that is being deleted serves only objects that wrote their target through it.
func (r *Reconciler) connectionOf(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (v1alpha1.Connection, error) {
	ref := sv.ConnectionOrDefault()
	conn, err := r.getConnection(ctx, ref, sv.Namespace)
	if apierrors.IsNotFound(err) {
		return nil, r.connectionNotFound(ctx, sv)
	}
	if err != nil {
		return nil, err
	}
	target := ownership.Target{Connection: ref, Namespace: conn.GetSpec().Namespace, Name: sv.SecureValueName()}
	record := ownership.Record(sv.Status.Targets, target)
	if !conn.GetDeletionTimestamp().IsZero() && !record.IsWritten() { // a pending target anybody may write
		return nil, watch(v1alpha1.ReasonConnectionNotReady, "%s is being deleted and takes no new secure values. Name another one in spec.connectionRef.", ownership.ConnectionOf(ref, sv.Namespace))
	}
	allowed, err := connection.Allows(ctx, r.client, conn, sv.Namespace)
	if err == nil && !allowed {
		err = notAllowed(conn, sv.Namespace)
	}
	return conn, err
}

// getConnection returns a connection, as the cache shows it. One of a kind that is not served is not found.
func (r *Reconciler) getConnection(ctx context.Context, ref v1alpha1.ConnectionReference, namespace string) (v1alpha1.Connection, error) {
	return connection.Get(ctx, r.client, r.served, ref, namespace)
}

// connectionNotFound says so, and names the other kind if that has a connection of this name.
func (r *Reconciler) connectionNotFound(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) error {
	ref := sv.ConnectionOrDefault()
	message, next := fmt.Sprintf("%s %q does not exist.", ref.Kind, ref.Name), "Create it, or name another one in spec.connectionRef."
	other := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: ref.Name}
	if ref.Kind == other.Kind {
		other.Kind = v1alpha1.KindClusterGrafanaConnection
		message = fmt.Sprintf("%s %q does not exist in namespace %q.", ref.Kind, ref.Name, sv.Namespace)
	}
	if !r.served.Has(ref.Kind) {
		message = fmt.Sprintf("%s %q is not served. %s", ref.Kind, ref.Name, r.served.WhyNot(ref.Kind))
		next = fmt.Sprintf("Name a %s in spec.connectionRef.", other.Kind)
	}
	if _, err := r.getConnection(ctx, other, sv.Namespace); err == nil {
		next = fmt.Sprintf("A %s of that name exists: set spec.connectionRef.kind to use it.", other.Kind)
	}
	return watch(v1alpha1.ReasonConnectionNotFound, "%s %s", message, next)
}

// stillAllowed asks again, just before a write, whether the connection is the one that was judged, and still allows it.
func (r *Reconciler) stillAllowed(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	conn, err := r.connectionOf(ctx, sv)
	if err != nil {
		return err
	}
	want.connection = conn
	r.connections.Expect(conn)
	return want.checkLimits(sv.Namespace)
}

// readSource reads the value from its Secrets, live, and makes its fingerprint. What Grafana would not take byte for byte is
// refused here.
func (r *Reconciler) readSource(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	content, secrets, err := r.content(ctx, sv)
	if err != nil {
		return err
	}
	if content, err = source.Transform(content, sv.Spec.Transforms); err != nil {
		return sourceError(sv, err)
	}
	versions := make([]v1alpha1.SecretStatus, len(secrets))
	for i, secret := range secrets {
		versions[i] = secretStatusOf(secret)
		want.origin += originOf(secret)
	}
	want.value, want.source = grafana.NewValue(content), sourceOf(sv, versions)
	if err := checkValue(sv, want.value); err != nil {
		return err
	}
	key, err := r.keys.Key(ctx)
	if apierrors.IsNotFound(err) {
		return status.Errorf(status.Time, v1alpha1.ReasonKubernetesRefused, "Kubernetes has no Secret %q in the namespace of the operator, and without its key nothing is written. Create it as the installation does, empty and of type %s. The operator retries automatically.", fingerprint.SecretName, fingerprint.SecretType).Because(err)
	}
	if err != nil {
		return err
	}
	fingerprintAt := func(t ownership.Target) string {
		return key.Of(content, string(sv.UID), string(t.Connection.Kind), t.Connection.Name, t.Namespace, t.Name)
	}
	want.fingerprint, want.rotated = fingerprintAt(want.target), true
	if len(sv.Status.Targets) > 0 { // the first is the one that was written last
		last := sv.Status.Targets[0]
		want.rotated = !want.source.isFrom(&last) && !isValueOf(&last, want.source, fingerprintAt(ownership.TargetOf(last)))
	}
	return nil
}

// text returns the description to write over what Grafana showed, which may be nothing.
func (d *desired) text(found *grafana.SecureValue) string {
	if d.kept && found != nil && found.Description != "" {
		return found.Description
	}
	return cmp.Or(d.description, v1alpha1.DefaultDescription)
}

// warnings returns what a reader of Ready=True must know all the same.
func (d *desired) warnings() []string {
	var warnings []string
	content := d.value.Bytes()
	if text, ended := bytes.CutSuffix(content, []byte("\n")); ended && bytes.ContainsRune(text, '\n') { // as text of several lines ends
		content = bytes.TrimSuffix(text, []byte("\r"))
	}
	first, _ := utf8.DecodeRune(content)
	last, _ := utf8.DecodeLastRune(content)
	if name := invisible(first); name != "" {
		warnings = append(warnings, "The value begins with "+name+".")
	}
	if name := invisible(last); name != "" {
		warnings = append(warnings, "The value ends with "+name+".")
	}
	if len(d.decrypters) == 0 {
		warnings = append(warnings, "No decrypters: no service can read the value.")
	}
	for _, decrypter := range d.decrypters {
		if !slices.Contains(knownDecrypters, decrypter) {
			warnings = append(warnings, fmt.Sprintf("Unknown decrypter %q (known: %s). If it is a typo, no service can read the value.",
				decrypter, strings.Join(knownDecrypters, ", ")))
		}
	}
	return warnings
}

// invisible names a character that is not seen at either end of a value; "" is that it is seen.
func invisible(r rune) string {
	names := map[rune]string{
		'\n': "a newline", '\r': "a carriage return", '\t': "a tab", ' ': "a space", '\u00a0': "a no-break space", '\ufeff': "a byte order mark",
	}
	if name := names[r]; name != "" {
		return name
	}
	if unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf) {
		return "an invisible character"
	}
	return ""
}

// knownDecrypters are the services that Grafana documents: Secrets Management API, "Decrypters". Grafana adds to them, and takes any other
// name without a word.
var knownDecrypters = []string{"k6-cloud", "provisioning.grafana.app", "synthetic-monitoring"}
