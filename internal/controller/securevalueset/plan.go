package securevalueset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

// hashDigits is how many hexadecimal digits of a hash the name of a child ends with.
const hashDigits = 10

// childName is the name of the GrafanaSecureValue of a selected key. It does not depend on nameTemplate, whose change is a move.
func childName(set string, from selectedKey) string {
	h := sha256.New()
	fingerprint.WriteParts(h, from.secret, from.key, string(from.connection.Kind), from.connection.Name)
	return set + "-" + hex.EncodeToString(h.Sum(nil))[:hashDigits]
}

// wantedBy returns the GrafanaSecureValues that a set makes of what it selects, by name. What it refuses it refuses whole.
func wantedBy(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, s *selection) (map[string]*v1alpha1.GrafanaSecureValue, error) {
	wanted, at := map[string]*v1alpha1.GrafanaSecureValue{}, map[string]selectedKey{}
	existingFirst := func(a, b selectedKey) int {
		switch {
		case s.keys[a] == s.keys[b]:
			return a.compare(b)
		case s.keys[a]:
			return -1
		default:
			return 1
		}
	}
	for _, from := range slices.SortedFunc(maps.Keys(s.keys), existingFirst) {
		name, err := s.nameFor(ctx, set, from)
		if err != nil {
			return nil, err
		}
		place := placeOf(from.connection, s.connections[from.connection]) + "/" + name
		other, found := at[place]
		if found && !s.keys[from] && s.keys[other] { // what is missing was replaced by what exists: it is no longer selected
			continue
		}
		if found {
			return nil, refuse(v1alpha1.ReasonNameCollision, "%s and %s both have the name %q in one Grafana. %s", other, from, name, howToTell(other, from))
		}
		at[place] = from
		child := childOf(set, from, name)
		if other := wanted[child.Name]; other != nil { // two hashes that are alike
			return nil, refuse(v1alpha1.ReasonNameCollision, "%s and %s would be one GrafanaSecureValue, %s. Use another set for one of them.", sourceOf(other), from, child.Name)
		}
		wanted[child.Name] = child
	}
	return wanted, nil
}

// howToTell says what tells two keys apart that have one name.
func howToTell(a, b selectedKey) string {
	switch {
	case a.secret != b.secret:
		return "Add {{ .Secret }} to spec.nameTemplate, or select one of the Secrets."
	case a.key != b.key:
		return "Use {{ .Key }} in spec.nameTemplate, or exclude one of them in spec.keys.exclude."
	default:
		return "Both connections are of this Grafana: remove one of them from spec.connectionRefs, or add {{ .Connection }} to spec.nameTemplate."
	}
}

func tooMany() error {
	return refuse(v1alpha1.ReasonTooManySecureValues, "The set selects more than %d keys, each connection counted. Narrow spec.secrets, spec.keys or spec.connectionRefs, or use several sets.", v1alpha1.MaxSecureValues)
}

// placeOf names a namespace of a Grafana. A connection that is missing, or that references a Grafana whose address is not known yet, is one of its
// own.
func placeOf(ref v1alpha1.ConnectionReference, conn v1alpha1.Connection) string {
	if conn == nil || connection.Address(conn) == "" {
		return string(ref.Kind) + "/" + ref.Name
	}
	return connection.ServerOf(connection.Address(conn)) + "/" + conn.GetSpec().Namespace
}

// nameFor returns the name in Grafana: the known one, or a new one, which is known then.
func (s *selection) nameFor(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, from selectedKey) (string, error) {
	if name, known := s.names[from]; known {
		return name, nil
	}
	name, err := nameFor(ctx, set, from)
	if err == nil && s.names != nil {
		s.names[from] = name
	}
	return name, err
}

// nameFor returns the name in Grafana.
func nameFor(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, from selectedKey) (string, error) {
	name, err := source.RenderName(ctx, cmp.Or(set.Spec.NameTemplate, v1alpha1.DefaultNameTemplate), map[string]string{
		"Secret": from.secret, "Key": from.key, "Namespace": set.Namespace, "Connection": from.connection.Name,
	})
	if invalid, ok := errors.AsType[*source.TemplateError](err); ok {
		return "", refuse(v1alpha1.ReasonTemplateInvalid, "spec.nameTemplate (line %d) %s. Correct it.", max(invalid.Line, 1), invalid.Problem)
	}
	if errors.As(err, new(source.TooLargeError)) {
		return "", refuse(v1alpha1.ReasonTemplateInvalid, "spec.nameTemplate makes a name that is too long of %s. Correct it.", from)
	}
	if err != nil {
		return "", err
	}
	if problems := validation.IsDNS1123Subdomain(name); problems != nil {
		return "", refuse(v1alpha1.ReasonTemplateInvalid, "spec.nameTemplate makes the name %.100q of %s, which Grafana does not take: use at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end. The function dnsName makes such a name.", name, from)
	}
	return name, nil
}

// childOf returns the GrafanaSecureValue of a selected key, with all that the API server would add to it.
func childOf(set *v1alpha1.GrafanaSecureValueSet, from selectedKey, name string) *v1alpha1.GrafanaSecureValue {
	child := &v1alpha1.GrafanaSecureValue{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "GrafanaSecureValue"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       set.Namespace,
			Name:            childName(set.Name, from),
			Labels:          map[string]string{v1alpha1.LabelSet: set.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, v1alpha1.GroupVersion.WithKind(v1alpha1.KindGrafanaSecureValueSet))},
		},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef:       from.connection,
			Name:                name,
			ValueFrom:           v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: from.secret, Key: from.key}},
			SecureValueSettings: *set.Spec.Template.Spec.DeepCopy(),
		},
	}
	for key, value := range set.Spec.Template.Metadata.Labels {
		child.Labels[key] = string(value)
	}
	for key, value := range set.Spec.Template.Metadata.Annotations {
		metav1.SetMetaDataAnnotation(&child.ObjectMeta, key, string(value))
	}
	spec := &child.Spec.SecureValueSettings
	spec.DeletionPolicy = cmp.Or(spec.DeletionPolicy, v1alpha1.DeletionPolicyDelete)
	spec.AdoptionPolicy = cmp.Or(spec.AdoptionPolicy, v1alpha1.AdoptionPolicyRefuse)
	spec.DriftPolicy = cmp.Or(spec.DriftPolicy, v1alpha1.DriftPolicyCorrect)
	if f := spec.Freshness; f != nil && f.ExpirationTime != nil {
		f.ExpirationTime = new(f.ExpirationTime.Rfc3339Copy()) // which has no fraction of a second
	}
	return child
}

// plan is what is to be done with the GrafanaSecureValues of a set.
type plan struct {
	apply    []*v1alpha1.GrafanaSecureValue // to be created or changed
	prune    []*v1alpha1.GrafanaSecureValue
	left     int                            // of these, to be carried out by the next reconcile
	asWanted []*v1alpha1.GrafanaSecureValue // as the cache shows them, or the API server answered
	leaving  []*v1alpha1.GrafanaSecureValue // wanted, and being deleted: they are made again when they are gone
	adopts   bool                           // one that is to be changed has no controller
	waiting  int                            // wanted, and in the way is what a deleted set has left
	taken    []string                       // wanted names that others have
	stale    int                            // not wanted, and there
	oneStale string                         // name of the first of these
}

// planFor compares the wanted GrafanaSecureValues with those that there are. of has those of the set, and others those that have a wanted name
// and are not of the set. edited says that the set has changed since all were applied.
func planFor(set *v1alpha1.GrafanaSecureValueSet, wanted, of, others map[string]*v1alpha1.GrafanaSecureValue, selected *selection, edited bool) *plan {
	p := &plan{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		want, is, other := wanted[name], of[name], others[name]
		switch {
		case other != nil && isLeftOver(set, other) && other.DeletionTimestamp.IsZero():
			p.waiting++
		case other != nil && isLeftOver(set, other):
			p.leaving = append(p.leaving, other)
		case is != nil && !is.DeletionTimestamp.IsZero():
			p.leaving = append(p.leaving, is)
		case other != nil:
			p.taken = append(p.taken, name)
		case is != nil && !differs(want, is, edited):
			p.asWanted = append(p.asWanted, is)
		default:
			if is != nil {
				want.UID, want.ResourceVersion = is.UID, is.ResourceVersion
				p.adopts = p.adopts || !metav1.IsControlledBy(is, set)
			}
			p.apply = append(p.apply, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if is := of[name]; wanted[name] == nil {
			p.stale++
			p.oneStale = cmp.Or(p.oneStale, name)
			// A person has edited what does not have the name that it would have: its Secret or connection may be missing.
			from := sourceOf(is)
			_, stays := selected.keys[from] // though another one has its name in Grafana now
			isSafe := !selected.unmatched && !stays && childName(set.Name, from) == name
			if set.Spec.PrunePolicy == v1alpha1.PrunePolicyDelete && isSafe && metav1.IsControlledBy(is, set) && is.DeletionTimestamp.IsZero() {
				p.prune = append(p.prune, is)
			}
		}
	}
	return p
}

// isLeftOver reports whether a GrafanaSecureValue belongs to a set of this name that was deleted: Kubernetes deletes it, too.
func isLeftOver(set *v1alpha1.GrafanaSecureValueSet, other *v1alpha1.GrafanaSecureValue) bool {
	owner := metav1.GetControllerOf(other)
	return owner != nil && owner.Kind == v1alpha1.KindGrafanaSecureValueSet && owner.Name == set.Name && owner.UID != set.UID
}

// isOf reports whether a GrafanaSecureValue is one of the set, or was and has no controller any more.
func isOf(set *v1alpha1.GrafanaSecureValueSet, child *v1alpha1.GrafanaSecureValue) bool {
	owner := metav1.GetControllerOf(child)
	return owner != nil && owner.UID == set.UID || owner == nil && child.Labels[v1alpha1.LabelSet] == set.Name
}

// differs reports whether a GrafanaSecureValue is not as wanted. Labels and annotations of others may be there; after an edit of the set they may
// also be what it had before, so that they are a reason to apply.
func differs(want, is *v1alpha1.GrafanaSecureValue, edited bool) bool {
	if edited && (len(is.Labels) > len(want.Labels) || len(withoutOwn(is.Annotations)) > len(withoutOwn(want.Annotations))) {
		return true
	}
	return !contains(is.Labels, want.Labels) || !contains(is.Annotations, want.Annotations) ||
		metav1.GetControllerOf(is) == nil || !equality.Semantic.DeepEqual(want.Spec, is.Spec)
}

// withoutOwn returns annotations without the one that the operator itself keeps on a GrafanaSecureValue.
func withoutOwn(annotations map[string]string) map[string]string {
	if _, found := annotations[v1alpha1.AnnotationPendingTargets]; found {
		annotations = maps.Clone(annotations)
		delete(annotations, v1alpha1.AnnotationPendingTargets)
	}
	return annotations
}

// contains reports whether all has each of some.
func contains(all, some map[string]string) bool {
	for key, value := range some {
		if found, ok := all[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// validate repeats what the schema asks for, for objects that are older than the schema.
func validate(spec *v1alpha1.GrafanaSecureValueSetSpec) error {
	if (spec.Secrets.Selector == nil) == (len(spec.Secrets.Names) == 0) {
		return refuse(v1alpha1.ReasonInvalidSpec, "spec.secrets must have exactly one of names and selector.")
	}
	selectors := map[string]*metav1.LabelSelector{"spec.secrets.selector": spec.Secrets.Selector}
	for i, ref := range spec.ConnectionRefs {
		if (ref.Selector == nil) == (ref.Name == "") {
			return refuse(v1alpha1.ReasonInvalidSpec, "spec.connectionRefs[%d] must have exactly one of name and selector.", i)
		}
		selectors[fmt.Sprintf("spec.connectionRefs[%d].selector", i)] = ref.Selector
	}
	for _, field := range slices.Sorted(maps.Keys(selectors)) {
		if _, err := metav1.LabelSelectorAsSelector(selectors[field]); err != nil {
			return refuse(v1alpha1.ReasonInvalidSpec, "%s is no label selector: use matchLabels with label keys and values, or matchExpressions with the operators In, NotIn, Exists and DoesNotExist.", field)
		}
	}
	for key, value := range spec.Template.Metadata.Labels {
		if validation.IsQualifiedName(key) != nil || validation.IsValidLabelValue(string(value)) != nil {
			return refuse(v1alpha1.ReasonInvalidSpec, "spec.template.metadata.labels has a key or value that is none of a label, at %.100q.", key)
		}
	}
	for key := range spec.Template.Metadata.Annotations {
		if validation.IsQualifiedName(strings.ToLower(key)) != nil {
			return refuse(v1alpha1.ReasonInvalidSpec, "spec.template.metadata.annotations has the key %.100q, which is none of an annotation.", key)
		}
	}
	return nil
}

// refuse is an error that an edit of the set or of what it selects ends. Nothing was created, changed or pruned.
func refuse(reason, format string, args ...any) error {
	return status.Errorf(status.Here, reason, format, args...)
}
