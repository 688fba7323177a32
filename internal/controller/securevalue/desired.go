package securevalue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// Bounds of Grafana's API: Secrets Management API, "Create a secure value", request body.
const (
	maxDescriptionRunes = 25
	maxDecrypters       = 64
)

// maxTokenBytes bounds the token of sync-now, which status repeats.
const maxTokenBytes = 253

// desired is what one place shall hold: a value, or none.
type desired struct {
	place place
	id    connection.ID
	marks marks

	adopt      bool  // what is nobody's there becomes ours
	again      bool  // it is written once more, even if nothing changed
	report     bool  // what somebody else changes there is left alone
	generation int64 // of the object that asks

	keepIntent bool // the intent tells of another place that is not given up yet, and must not be replaced

	absent    bool // nothing of ours shall be there
	retain    bool // and what is there shall be left alone
	heirsOnly bool // it may only be left to another object

	description string
	decrypters  []string

	// Read from the Secret when it is needed, and not kept.
	value       grafana.Value
	source      v1alpha1.SourceStatus
	fingerprint string
}

// desire returns what the place that spec names shall hold, without its value. The connection must be there, and the
// object's namespace allowed to use it.
func (r *Reconciler) desire(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (*desired, error) {
	conn, err := r.connectionOf(ctx, sv)
	if err != nil {
		return nil, err
	}
	want := &desired{
		place: place{
			connection: sv.Spec.ConnectionRef,
			namespace:  conn.GetSpec().Namespace,
			name:       sv.SecureValueName(),
		},
		id:          connection.IDOf(sv.Spec.ConnectionRef, sv.Namespace),
		description: sv.DescriptionOrDefault(),
		decrypters:  sv.Spec.Decrypters,
		adopt:       sv.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyAdopt,
		again:       syncNow(sv) != "",
		report:      sv.Spec.DriftPolicy == v1alpha1.DriftPolicyReport,
		generation:  sv.Generation,
	}
	want.marks = marksOf(r.clusterID, client.ObjectKeyFromObject(sv), want.id)
	if n := len(syncNow(sv)); n > maxTokenBytes {
		return nil, invalidSpec("The annotation %s is longer than %d bytes. Give it a shorter token, as $(date +%%s).",
			v1alpha1.AnnotationSyncNow, maxTokenBytes)
	}
	if err := want.validate(); err != nil {
		return nil, err
	}
	return want, want.checkLimits(conn, sv.Namespace)
}

// syncNow returns the token of the annotation that asks for one more write, if it was not answered yet.
func syncNow(sv *v1alpha1.GrafanaSecureValue) string {
	if token := sv.Annotations[v1alpha1.AnnotationSyncNow]; token != sv.Status.LastSyncNow {
		return token
	}
	return ""
}

// leave returns that nothing of sv shall be at a place that it holds.
func (r *Reconciler) leave(sv *v1alpha1.GrafanaSecureValue, p place) *desired {
	id := connection.IDOf(p.connection, sv.Namespace)
	return &desired{
		place: p, id: id, marks: marksOf(r.clusterID, client.ObjectKeyFromObject(sv), id),
		absent: true, retain: sv.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain,
	}
}

// validate repeats what the schema asks for, for objects that it did not see.
func (d *desired) validate() error {
	if kind := d.place.connection.Kind; kind != v1alpha1.KindGrafanaConnection && kind != v1alpha1.KindClusterGrafanaConnection {
		return invalidSpec("spec.connectionRef.kind is %q. Use GrafanaConnection or ClusterGrafanaConnection.", kind)
	}
	if problems := validation.IsDNS1123Subdomain(d.place.name); problems != nil {
		return invalidSpec("The name %q is not one that Grafana takes: %s.", d.place.name, strings.Join(problems, "; "))
	}
	if n := utf8.RuneCountInString(d.description); n < 1 || n > maxDescriptionRunes {
		return invalidSpec("spec.description is %d characters long. Use 1 to %d characters.", n, maxDescriptionRunes)
	}
	if n := len(d.decrypters); n > maxDecrypters {
		return invalidSpec("spec.decrypters names %d services. Name at most %d.", n, maxDecrypters)
	}
	for i, decrypter := range d.decrypters {
		if problems := validation.IsValidLabelValue(decrypter); decrypter == "" || problems != nil {
			return invalidSpec("spec.decrypters[%d] is not the name of a service: use at most 63 letters, digits, '-', '_' and '.'.", i)
		}
		if slices.Contains(d.decrypters[:i], decrypter) {
			return invalidSpec("spec.decrypters names %q twice. Name it once.", decrypter)
		}
	}
	return nil
}

// checkLimits asks a shared connection whether it lets the namespace write what is desired.
func (d *desired) checkLimits(conn v1alpha1.Connection, namespace string) error {
	shared, ok := conn.(*v1alpha1.ClusterGrafanaConnection)
	if !ok {
		return nil
	}
	if prefix := namespace + "."; shared.Spec.RequireNamePrefix && !strings.HasPrefix(d.place.name, prefix) {
		return refused(v1alpha1.ReasonNameNotAllowed, "%s requires that the name in Grafana begins with %q, and it is %q. Set spec.name to "+
			"%q, or use another connection.", d.id, prefix, d.place.name, prefix+d.place.name)
	}
	allowed := shared.Spec.AllowedDecrypters
	for _, decrypter := range d.decrypters {
		if len(allowed) > 0 && !slices.Contains(allowed, decrypter) {
			return refused(v1alpha1.ReasonDecrypterNotAllowed, "%s does not allow decrypter %q. Remove it from spec.decrypters, use "+
				"another connection, or ask the owner of this one to allow it in spec.allowedDecrypters.", d.id, decrypter)
		}
	}
	return nil
}

// stillAllowed asks again, before a write, whether the connection lets the namespace write what is desired: that may have been taken
// away since the object's turn began.
func (r *Reconciler) stillAllowed(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	conn, err := r.connectionOf(ctx, sv)
	if err != nil {
		return err
	}
	return want.checkLimits(conn, sv.Namespace)
}

// connectionOf returns the connection that spec names. One that is being deleted serves only those that hold a place on it.
func (r *Reconciler) connectionOf(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) (v1alpha1.Connection, error) {
	ref := sv.Spec.ConnectionRef
	conn, err := r.getConnection(ctx, ref, sv.Namespace)
	if apierrors.IsNotFound(err) {
		return nil, r.connectionNotFound(ctx, sv)
	}
	if err != nil {
		return nil, err
	}
	if !conn.GetDeletionTimestamp().IsZero() && !holdsOn(sv, ref, conn.GetSpec().Namespace) {
		return nil, waiting(v1alpha1.ReasonConnectionNotReady, "%s is being deleted and takes no new secure values. Name another one in "+
			"spec.connectionRef.", connection.IDOf(ref, sv.Namespace))
	}
	if shared, ok := conn.(*v1alpha1.ClusterGrafanaConnection); ok {
		return conn, r.checkAllowed(ctx, shared, sv.Namespace)
	}
	return conn, nil
}

// holdsOn reports whether status says that sv wrote the place that its spec names on that connection. An intent, or a record made of
// one, is not believed: whoever may edit the object may write it.
func holdsOn(sv *v1alpha1.GrafanaSecureValue, ref v1alpha1.ConnectionReference, grafanaNamespace string) bool {
	record := findTarget(sv.Status.Targets, place{connection: ref, namespace: grafanaNamespace, name: sv.SecureValueName()})
	return record != nil && record.Source != nil
}

// getConnection returns a connection, as the cache shows it. One of a kind that is not served is not found.
func (r *Reconciler) getConnection(ctx context.Context, ref v1alpha1.ConnectionReference, namespace string) (v1alpha1.Connection, error) {
	if !r.served.Has(ref.Kind) {
		return nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource(string(ref.Kind)).GroupResource(), ref.Name)
	}
	var conn v1alpha1.Connection
	key := client.ObjectKey{Namespace: namespace, Name: ref.Name}
	if ref.Kind == v1alpha1.KindClusterGrafanaConnection {
		conn, key.Namespace = &v1alpha1.ClusterGrafanaConnection{}, ""
	} else {
		conn = &v1alpha1.GrafanaConnection{}
	}
	return conn, r.client.Get(ctx, key, conn)
}

// connectionNotFound says so, and names the other kind if that has a connection of this name.
func (r *Reconciler) connectionNotFound(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) error {
	ref := sv.Spec.ConnectionRef
	message := fmt.Sprintf("%s %q does not exist.", ref.Kind, ref.Name)
	switch {
	case !r.served.Has(ref.Kind):
		message = fmt.Sprintf("%s %q is not served. %s", ref.Kind, ref.Name, r.served.WhyNot(ref.Kind))
	case ref.Kind == v1alpha1.KindGrafanaConnection:
		message = fmt.Sprintf("%s %q does not exist in namespace %q.", ref.Kind, ref.Name, sv.Namespace)
	}
	other := ref
	other.Kind = v1alpha1.KindGrafanaConnection
	if ref.Kind == other.Kind {
		other.Kind = v1alpha1.KindClusterGrafanaConnection
	}
	switch _, err := r.getConnection(ctx, other, sv.Namespace); {
	case err == nil:
		message += fmt.Sprintf(" A %s of that name exists: set spec.connectionRef.kind to use it.", other.Kind)
	case !r.served.Has(ref.Kind):
		message += fmt.Sprintf(" Name a %s in spec.connectionRef.", other.Kind)
	default:
		message += " Create it, or name another one in spec.connectionRef."
	}
	return waiting(v1alpha1.ReasonConnectionNotFound, "%s", message)
}

// checkAllowed asks the shared connection whether it serves the namespace.
func (r *Reconciler) checkAllowed(ctx context.Context, conn *v1alpha1.ClusterGrafanaConnection, namespace string) error {
	found, err := namespaceLabels(ctx, r.client, namespace)
	if err != nil {
		return err
	}
	if !allows(conn.Spec.AllowedNamespaces, found) {
		return notAllowed("ClusterGrafanaConnection %q does not allow namespace %q. Ask its owner to allow it in "+
			"spec.allowedNamespaces, or use another connection.", conn.Name, namespace)
	}
	return nil
}

// namespaceLabels returns the labels of a namespace; none where it is gone.
func namespaceLabels(ctx context.Context, reader client.Reader, namespace string) (map[string]string, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err := reader.Get(ctx, client.ObjectKey{Name: namespace}, meta)
	return meta.Labels, client.IgnoreNotFound(err)
}

// allows reports whether a namespace with these labels is allowed. Whatever is not understood allows nobody.
func allows(allowed v1alpha1.AllowedNamespaces, namespaceLabels map[string]string) bool {
	switch allowed.From {
	case v1alpha1.NamespacesFromAll:
		return true
	case v1alpha1.NamespacesFromSelector:
		if allowed.Selector == nil {
			return false
		}
		selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
		return err == nil && selector.Matches(labels.Set(namespaceLabels))
	default:
		return false
	}
}

// readSource reads the value from the Secret, live, and makes its fingerprint. What Grafana would not take byte for byte is
// refused here.
func (r *Reconciler) readSource(ctx context.Context, sv *v1alpha1.GrafanaSecureValue, want *desired) error {
	ref := sv.Spec.ValueFrom.SecretKeyRef
	secret := &corev1.Secret{}
	err := r.live.Get(ctx, client.ObjectKey{Namespace: sv.Namespace, Name: ref.Name}, secret)
	if apierrors.IsNotFound(err) {
		return waiting(v1alpha1.ReasonSecretNotFound, "Secret %q does not exist in namespace %q. Create it, or fix "+
			"spec.valueFrom.secretKeyRef.name.", ref.Name, sv.Namespace)
	}
	if err != nil {
		return err
	}
	if secret.Type == fingerprint.SecretType {
		return invalidSpec("Secret %q is the operator's own, and leaves the cluster nowhere. Name another one in "+
			"spec.valueFrom.secretKeyRef.name.", ref.Name)
	}
	content, found := secret.Data[ref.Key]
	if !found {
		return waiting(v1alpha1.ReasonSecretKeyNotFound, "Secret %q has no key %q. Add it, or fix "+
			"spec.valueFrom.secretKeyRef.key.", ref.Name, ref.Key)
	}
	want.value = grafana.NewValue(content)
	switch err := want.value.Validate(); {
	case errors.Is(err, grafana.ErrValueEmpty):
		return waiting(v1alpha1.ReasonValueEmpty, "Key %q of Secret %q is empty. Put a value of 1 to %d bytes there.",
			ref.Key, ref.Name, grafana.MaxValueBytes)
	case errors.Is(err, grafana.ErrValueTooLarge):
		return refused(v1alpha1.ReasonValueTooLarge, "Key %q of Secret %q holds %d bytes. Grafana takes at most %d. Put a shorter value "+
			"there, or spread it over several keys, each with a GrafanaSecureValue of its own.",
			ref.Key, ref.Name, len(content), grafana.MaxValueBytes)
	case errors.Is(err, grafana.ErrValueNotUTF8):
		return refused(v1alpha1.ReasonValueNotUTF8, "Key %q of Secret %q is not UTF-8 text, and Grafana takes nothing else. "+
			"Encode it, for example as base64, and put the encoded text there.", ref.Key, ref.Name)
	case err != nil:
		return err
	}
	key, err := r.keeper.Key(ctx)
	if err != nil {
		return err
	}
	want.source = v1alpha1.SourceStatus{
		Name: ref.Name, Key: ref.Key, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
	}
	want.fingerprint = fingerprintOf(key, sv, want.place, content)
	return nil
}

func fingerprintOf(key fingerprint.Key, sv *v1alpha1.GrafanaSecureValue, p place, content []byte) string {
	return key.Of(content, string(sv.UID), string(p.connection.Kind), p.connection.Name, p.namespace, p.name)
}

// notes returns what a reader of Ready=True must know all the same.
func (d *desired) notes() []string {
	var notes []string
	if content := d.value.Bytes(); len(content) > 0 && content[len(content)-1] == '\n' {
		notes = append(notes, "the value ends with a newline")
	}
	if len(d.decrypters) == 0 {
		notes = append(notes, "no decrypters: nobody can read it")
	}
	for _, decrypter := range d.decrypters {
		if !slices.Contains(knownDecrypters, decrypter) {
			notes = append(notes, fmt.Sprintf("decrypter %s is not one that is known", decrypter))
		}
	}
	return notes
}

// knownDecrypters are the services that Grafana documents: Secrets Management API, "Decrypters". Grafana adds to them, and
// takes any other name without a word.
var knownDecrypters = []string{"k6-cloud", "provisioning.grafana.app", "synthetic-monitoring"}
