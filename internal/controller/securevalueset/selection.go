package securevalueset

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
)

// selectedKey is what one GrafanaSecureValue is made of: a key of a Secret, and a connection.
type selectedKey struct {
	secret, key string
	connection  v1alpha1.ConnectionReference
}

// String names the key, and the connection by which it goes.
func (k selectedKey) String() string {
	return fmt.Sprintf("Key %q of Secret %q for %s %q", k.key, k.secret, k.connection.Kind, k.connection.Name)
}

func (k selectedKey) compare(other selectedKey) int {
	return cmp.Or(cmp.Compare(k.secret, other.secret), cmp.Compare(k.key, other.key),
		cmp.Compare(k.connection.Kind, other.connection.Kind), cmp.Compare(k.connection.Name, other.connection.Name))
}

// sourceOf returns what a GrafanaSecureValue says that it is made of.
func sourceOf(child *v1alpha1.GrafanaSecureValue) selectedKey {
	ref := child.Spec.ValueFrom.SecretKeyRef
	return selectedKey{ref.Name, ref.Key, child.ConnectionOrDefault()}
}

// selection is what a set selects.
type selection struct {
	secrets     map[string]keysOf                                    // that exist, by name
	gone        map[string]bool                                      // Secrets that the cache still shows
	connections map[v1alpha1.ConnectionReference]v1alpha1.Connection // nil is one that does not exist, and is named
	keys        map[selectedKey]bool                                 // true is that it exists, and false that it stays because something is missing
	names       map[selectedKey]string                               // that are known already, of these keys
	nothing     []string                                             // what selects nothing, in sentences
	unmatched   bool                                                 // a selector is among that, which may be a mistake: nothing is pruned
}

// matchesNothing records that a selector does.
func (s *selection) matchesNothing(field string) {
	s.unmatched = true
	s.nothing = append(s.nothing, field+" matches nothing. Nothing is pruned meanwhile.")
}

// selected reads what a set selects. A child whose Secret or connection is gone stays selected for as long as the spec may mean these.
func (r *Reconciler) selected(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, children []v1alpha1.GrafanaSecureValue, m *memory) (*selection, error) {
	s := &selection{
		secrets: map[string]keysOf{}, gone: map[string]bool{}, connections: map[v1alpha1.ConnectionReference]v1alpha1.Connection{}, keys: map[selectedKey]bool{},
	}
	m.begins(set)
	if err := r.selectSecrets(ctx, set, m, s); err != nil {
		return nil, err
	}
	if err := r.selectConnections(ctx, set, s); err != nil {
		return nil, err
	}
	matched := 0
	for _, secret := range s.secrets {
		matched += len(secret.keys)
	}
	if matched*len(s.connections) > v1alpha1.MaxSecureValues { // before any is built
		return nil, tooMany()
	}
	for name, secret := range s.secrets {
		for _, key := range secret.keys {
			for ref := range s.connections {
				s.keys[selectedKey{name, key, ref}] = true
			}
		}
	}
	if len(s.secrets) > 0 && matched == 0 {
		s.nothing = append(s.nothing, "No key of the selected Secrets matches spec.keys. Globs are case-sensitive.")
	}
	waitedFor := slices.Clone(set.Spec.Secrets.Names)
	for i := range children {
		from := sourceOf(&children[i])
		if childName(set.Name, from) != children[i].Name || s.keys[from] || !selectsKey(set.Spec.Keys, from.key) {
			continue
		}
		stays, err := r.stays(ctx, set, from, s)
		if err != nil {
			return nil, err
		}
		if stays {
			s.keys[from] = false
			waitedFor = slices.DeleteFunc(waitedFor, func(name string) bool { return name == from.secret }) // it reports that itself
		}
	}
	for _, name := range waitedFor {
		if _, found := s.secrets[name]; !found {
			s.nothing = append(s.nothing, fmt.Sprintf("Secret %q does not exist.", name))
		}
	}
	s.names = m.namesOf(s.keys)
	return s, nil
}

// stays reports whether a source that is not selected is selected all the same, because its Secret or connection is missing.
func (r *Reconciler) stays(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, from selectedKey, s *selection) (bool, error) {
	if secret, found := s.secrets[from.secret]; found {
		if !slices.Contains(secret.keys, from.key) {
			return false, nil
		}
	} else if missing, err := r.isMissing(ctx, set, from.secret, s); !missing || err != nil {
		return false, err
	}
	if _, selected := s.connections[from.connection]; selected {
		return true, nil
	}
	bySelector := slices.ContainsFunc(set.Spec.ConnectionRefs, func(ref v1alpha1.ConnectionSelection) bool {
		return ref.Selector != nil && ref.Kind == from.connection.Kind
	})
	if !bySelector {
		return false, nil
	}
	conn, err := r.connection(ctx, from.connection, set.Namespace)
	return err == nil && conn == nil, err
}

// isMissing reports whether a Secret that the set may mean does not exist.
func (r *Reconciler) isMissing(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, name string, s *selection) (bool, error) {
	if set.Spec.Secrets.Selector == nil && !slices.Contains(set.Spec.Secrets.Names, name) {
		return false, nil
	}
	_, err := secretVersion(ctx, r.client, set.Namespace, name)
	if apierrors.IsNotFound(err) || err == nil && s.gone[name] {
		return true, nil
	}
	return false, err
}

// keysIn returns the selected keys of a Secret, and no more than show that they are too many.
func keysIn(secret *corev1.Secret, selects v1alpha1.KeySelection) []string {
	var keys []string
	for key := range secret.Data {
		if selectsKey(selects, key) {
			keys = append(keys, strings.Clone(key))
		}
		if len(keys) > v1alpha1.MaxSecureValues {
			break
		}
	}
	return keys
}

// selectsKey reports whether the globs select a key. The schema allows no glob that path.Match refuses.
func selectsKey(keys v1alpha1.KeySelection, key string) bool {
	matches := func(glob string) bool {
		match, err := path.Match(glob, key)
		return err == nil && match
	}
	return (len(keys.Include) == 0 || slices.ContainsFunc(keys.Include, matches)) && !slices.ContainsFunc(keys.Exclude, matches)
}

// selectSecrets reads the keys of the selected Secrets: live, where a version is new.
func (r *Reconciler) selectSecrets(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, m *memory, s *selection) error {
	versions, err := r.secretVersions(ctx, set)
	if err != nil {
		return err
	}
	bySelector, read := set.Spec.Secrets.Selector != nil, map[string]keysOf{}
	defer func() { m.secrets = read }()
	keys := 0
	for _, version := range versions {
		known, found := m.secrets[version.Name]
		if !found || !known.isOf(&version) {
			secret := &corev1.Secret{}
			err := r.live.Get(ctx, client.ObjectKey{Namespace: set.Namespace, Name: version.Name}, secret)
			if apierrors.IsNotFound(err) {
				s.gone[version.Name] = true
				continue
			}
			if err != nil {
				return err
			}
			known = keysOf{
				uid: secret.UID, resourceVersion: secret.ResourceVersion,
				keys: keysIn(secret, set.Spec.Keys), foreign: connection.Foreign(secret.Name, secret.Type) != "",
			}
		}
		read[version.Name] = known
		if !bySelector || !known.foreign {
			s.secrets[version.Name] = known
			keys += len(known.keys)
		}
		if keys > v1alpha1.MaxSecureValues { // the others are not read
			return tooMany()
		}
	}
	if bySelector && len(s.secrets) == 0 {
		s.matchesNothing("spec.secrets.selector")
	}
	return nil
}

// secretVersions returns the metadata of the Secrets that a set selects and that exist.
func (r *Reconciler) secretVersions(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet) ([]metav1.PartialObjectMetadata, error) {
	if selector := set.Spec.Secrets.Selector; selector != nil {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
		matching, err := metav1.LabelSelectorAsSelector(selector)
		if err == nil {
			err = r.client.List(ctx, list, client.InNamespace(set.Namespace), client.MatchingLabelsSelector{Selector: matching})
		}
		return list.Items, err
	}
	var versions []metav1.PartialObjectMetadata
	for _, name := range set.Spec.Secrets.Names {
		secret, err := secretVersion(ctx, r.client, set.Namespace, name)
		switch {
		case err == nil:
			versions = append(versions, *secret)
		case !apierrors.IsNotFound(err):
			return nil, err
		}
	}
	return versions, nil
}

// secretVersion returns the metadata of a Secret.
func secretVersion(ctx context.Context, reader client.Reader, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return secret, reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret)
}

// selectConnections reads the selected connections.
func (r *Reconciler) selectConnections(ctx context.Context, set *v1alpha1.GrafanaSecureValueSet, s *selection) error {
	refs := set.Spec.ConnectionRefs
	if len(refs) == 0 {
		refs = []v1alpha1.ConnectionSelection{{Kind: v1alpha1.KindClusterGrafanaConnection, Name: v1alpha1.DefaultConnection}}
	}
	for i, ref := range refs {
		if ref.Selector == nil {
			named := v1alpha1.ConnectionReference{Kind: ref.Kind, Name: ref.Name}
			conn, err := r.connection(ctx, named, set.Namespace)
			if err != nil {
				return err
			}
			s.connections[named] = conn
			continue
		}
		found, err := r.matching(ctx, ref, set.Namespace)
		if err != nil {
			return err
		}
		for _, conn := range found {
			s.connections[v1alpha1.ConnectionReference{Kind: ref.Kind, Name: conn.GetName()}] = conn
		}
		if len(found) == 0 {
			s.matchesNothing(fmt.Sprintf("spec.connectionRefs[%d].selector", i))
		}
	}
	return nil
}

// connection returns a connection, or nil where it does not exist or its kind is not served.
func (r *Reconciler) connection(ctx context.Context, ref v1alpha1.ConnectionReference, namespace string) (v1alpha1.Connection, error) {
	conn, err := connection.Get(ctx, r.client, r.served, ref, namespace)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // there is none
	}
	return conn, err
}

// matching returns the connections that a selector matches and that allow the namespace.
func (r *Reconciler) matching(ctx context.Context, ref v1alpha1.ConnectionSelection, setNamespace string) ([]v1alpha1.Connection, error) {
	if !r.served.Has(ref.Kind) {
		return nil, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	var list client.ObjectList = &v1alpha1.GrafanaConnectionList{}
	namespace := setNamespace
	if ref.Kind == v1alpha1.KindClusterGrafanaConnection {
		list, namespace = &v1alpha1.ClusterGrafanaConnectionList{}, ""
	}
	if err := r.client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, err
	}
	var found []v1alpha1.Connection
	err = meta.EachListItem(list, func(o runtime.Object) error {
		conn, _ := o.(v1alpha1.Connection) // each item of the list
		allowed, err := connection.Allows(ctx, r.client, conn, setNamespace)
		if allowed {
			found = append(found, conn)
		}
		return err
	})
	return found, err
}
