package integration

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// The names that the first template makes are those of people's objects, and of keys of the other Secret.
var (
	historySetSecrets = []string{"set-one", "set-two"}
	historySetKeys    = []string{"alpha", "beta", "delta"}
	historySetGlobs   = [][]string{nil, {"*"}, {"a*"}, {"*ta"}, {"alpha", "beta"}}
	historySetRefs    = [][]string{{"left"}, {"right"}, {"left", "right"}}
	historyTemplates  = map[string]func(modelSource) string{
		"{{ .Key }}":                 func(from modelSource) string { return from.key },
		v1alpha1.DefaultNameTemplate: func(from modelSource) string { return from.secret + "-" + from.key },
		historyOwnNames:              func(from modelSource) string { return from.secret + "." + from.key + "." + from.connection },
	}
	historySetLabels = map[string]string{"of": "set"}
)

const (
	historySet      = "set"
	historyOwnNames = "{{ .Secret }}.{{ .Key }}.{{ .Connection }}" // no two alike
)

// modelSource is what a set makes one object of.
type modelSource struct{ secret, key, connection string }

// modelSets is what people have asked for with a set in a history.
type modelSets struct {
	spec     *modelSet                    // nil: there is none
	uid      types.UID                    // of the set
	secrets  map[string]map[string]string // by name; those that exist
	ever     map[modelSource]bool         // selected at some time
	named    map[modelTarget]bool         // by what the set made, at some time
	orphaned bool                         // a set has left objects behind
}

// modelSet is what the spec of a set says.
type modelSet struct {
	byLabel              bool
	secrets, include     []string
	exclude, connections []string
	nameTemplate         string
	prune, suspend       bool
	description, syncNow string
	retain               bool
}

func (s *modelSet) String() string { return fmt.Sprintf("%+v", *s) }

// apply makes the set in Kubernetes that of the model.
func (s *modelSet) apply(set *v1alpha1.GrafanaSecureValueSet) {
	set.Spec = v1alpha1.GrafanaSecureValueSetSpec{
		Secrets:      v1alpha1.SecretSelection{Names: s.secrets},
		Keys:         v1alpha1.KeySelection{Include: s.include, Exclude: s.exclude},
		NameTemplate: s.nameTemplate, PrunePolicy: v1alpha1.PrunePolicyRetain, Suspend: s.suspend,
		Template: v1alpha1.SecureValueTemplate{Spec: v1alpha1.SecureValueSettings{Description: s.description, Decrypters: historyDecrypters[:1]}},
	}
	if s.byLabel {
		set.Spec.Secrets = v1alpha1.SecretSelection{Selector: &metav1.LabelSelector{MatchLabels: historySetLabels}}
	}
	if s.prune {
		set.Spec.PrunePolicy = v1alpha1.PrunePolicyDelete
	}
	if s.retain {
		set.Spec.Template.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
	}
	if s.syncNow != "" {
		set.Spec.Template.Metadata.Annotations = map[string]v1alpha1.AnnotationValue{v1alpha1.AnnotationSyncNow: v1alpha1.AnnotationValue(s.syncNow)}
	}
	for _, name := range s.connections {
		set.Spec.ConnectionRefs = append(set.Spec.ConnectionRefs, v1alpha1.ConnectionSelection{Kind: v1alpha1.KindGrafanaConnection, Name: name})
	}
}

// matches reports whether a set means a source, whether or not that exists.
func (s *modelSet) matches(from modelSource) bool {
	match := func(glob string) bool {
		match, _ := path.Match(glob, from.key) // they are ours
		return match
	}
	return (s.byLabel || slices.Contains(s.secrets, from.secret)) && slices.Contains(s.connections, from.connection) &&
		(s.include == nil || slices.ContainsFunc(s.include, match)) && !slices.ContainsFunc(s.exclude, match)
}

// modelOf returns the object that a set makes of a source.
func (s *modelSet) modelOf(from modelSource) *modelObject {
	return &modelObject{
		name: historyTemplates[s.nameTemplate](from), connection: from.connection, description: s.description,
		decrypters: historyDecrypters[:1], retain: s.retain, syncNow: s.syncNow,
	}
}

func newModelSets() *modelSets {
	return &modelSets{secrets: map[string]map[string]string{}, ever: map[modelSource]bool{}, named: map[modelTarget]bool{}}
}

// selected returns the sources that a set selects, and that exist.
func (m *modelSets) selected() map[modelSource]bool {
	selected := map[modelSource]bool{}
	for secret, data := range m.secrets {
		for key := range data {
			for _, connection := range historyConnections {
				if from := (modelSource{secret, key, connection}); m.spec.matches(from) {
					selected[from] = true
				}
			}
		}
	}
	return selected
}

// setStep is one edit of the set, of its Secrets, or of what it has made.
func (h *history) setStep() {
	if h.sets.spec == nil {
		h.createSet()
		return
	}
	secret, key := pick(h, historySetSecrets), pick(h, historySetKeys)
	from := modelSource{secret, key, pick(h, historyConnections)}
	switch h.random.IntN(18) {
	case 0, 1:
		h.editSetSecret(secret, func(data map[string]string) { data[key] = fmt.Sprintf("canary-%s-%d", key, h.random.IntN(1_000_000)) })
	case 2:
		h.editSetSecret(secret, func(data map[string]string) { delete(data, key) })
	case 3:
		h.deleteSetSecret(secret)
	case 4, 5:
		h.editSet("globs", func(s *modelSet) { s.include, s.exclude = pick(h, historySetGlobs), pick(h, historySetGlobs[3:]) })
	case 6:
		h.editSet("globs", func(s *modelSet) { s.include, s.exclude = pick(h, historySetGlobs), nil })
	case 7, 8:
		h.editSet("names", func(s *modelSet) { s.nameTemplate = pick(h, slices.Sorted(maps.Keys(historyTemplates))) })
	case 9:
		h.editSet("connections", func(s *modelSet) { s.connections = pick(h, historySetRefs) })
	case 10:
		h.editSet("Secrets", func(s *modelSet) { s.byLabel, s.secrets = h.selectSecrets() })
	case 11:
		h.editSet("prune or not", func(s *modelSet) { s.prune = !s.prune })
	case 12:
		h.editSet("retain or not", func(s *modelSet) { s.retain = !s.retain })
	case 13:
		h.tokens++
		h.editSet("template", func(s *modelSet) {
			s.description, s.syncNow = fmt.Sprintf("text %d", h.random.IntN(100)), strconv.Itoa(h.tokens)
		})
	case 14:
		h.editSet("suspend or resume", func(s *modelSet) { s.suspend = !s.suspend })
	case 15:
		h.editChild(from, pick(h, historyNames))
	case 16:
		h.deleteChild(from)
	default:
		h.deleteSet(h.random.IntN(3) == 0)
	}
}

func (h *history) selectSecrets() (byLabel bool, names []string) {
	n := h.random.IntN(4)
	return n == 0, [][]string{nil, historySetSecrets[:1], historySetSecrets[1:], historySetSecrets}[n]
}

func (h *history) setObject() *v1alpha1.GrafanaSecureValueSet {
	return &v1alpha1.GrafanaSecureValueSet{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.namespace, Name: historySet}}
}

func (h *history) createSet() {
	s := &modelSet{
		connections: pick(h, historySetRefs), nameTemplate: pick(h, slices.Sorted(maps.Keys(historyTemplates))),
		include: pick(h, historySetGlobs), prune: h.random.IntN(2) == 0, retain: h.random.IntN(4) == 0,
	}
	s.byLabel, s.secrets = h.selectSecrets()
	set := h.setObject()
	s.apply(set)
	h.Expect(k8s.Create(h.world.ctx, set)).To(Succeed())
	h.sets.spec, h.sets.uid = s, set.UID
	h.setAsked()
	h.note("create the set as %s", s)
}

func (h *history) editSet(what string, change func(*modelSet)) {
	change(h.sets.spec)
	h.note("%s of the set: %s", what, h.sets.spec)
	set := h.setObject()
	h.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
	base := set.DeepCopy()
	h.sets.spec.apply(set)
	h.Expect(k8s.Patch(h.world.ctx, set, client.MergeFrom(base))).To(Succeed())
	h.setAsked()
}

// setAsked notes what may come of what was asked: an object that retains leaves values wherever it has been.
func (h *history) setAsked() {
	maps.Copy(h.sets.ever, h.sets.selected())
	for from := range h.sets.ever {
		h.sets.named[h.targetOf("", h.sets.spec.modelOf(from))] = true
	}
	if h.sets.spec.retain {
		maps.Copy(h.left, h.sets.named)
	}
}

// editSetSecret changes a Secret of the set, and makes it if it was deleted.
func (h *history) editSetSecret(name string, change func(map[string]string)) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.namespace, Name: name, Labels: historySetLabels}, Data: map[string][]byte{}}
	data, exists := h.sets.secrets[name]
	if !exists {
		data = map[string]string{historySetKeys[0]: "canary-" + name}
		h.sets.secrets[name] = data
	}
	change(data)
	h.note("Secret %s has %v", name, data)
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	if exists {
		h.Expect(k8s.Update(h.world.ctx, secret)).To(Succeed())
	} else {
		h.Expect(k8s.Create(h.world.ctx, secret)).To(Succeed())
	}
	if h.sets.spec != nil {
		h.setAsked()
	}
}

func (h *history) deleteSetSecret(name string) {
	h.note("delete Secret %s", name)
	delete(h.sets.secrets, name)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.namespace, Name: name}}
	h.Expect(client.IgnoreNotFound(k8s.Delete(h.world.ctx, secret))).To(Succeed())
}

// deleteSet deletes the set, and what it has made: there is no garbage collector here, and collect is one. Or it leaves that behind.
func (h *history) deleteSet(orphan bool) {
	h.note("delete the set, orphan %t", orphan)
	policy := metav1.DeletePropagationBackground
	if orphan {
		policy = metav1.DeletePropagationOrphan
	}
	set := h.setObject()
	h.Expect(k8s.Delete(h.world.ctx, set, client.PropagationPolicy(policy))).To(Succeed())
	if orphan {
		h.sets.orphaned = true
		for _, child := range h.children() {
			h.patch(child, func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences = nil })
		}
		h.Expect(k8s.Patch(h.world.ctx, set, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
	}
	h.sets.spec, h.sets.uid = nil, ""
	h.collect()
}

// collect deletes what a set has made that is gone, as the garbage collector does.
func (h *history) collect() {
	for _, child := range h.children() {
		if owner := metav1.GetControllerOf(child); owner != nil && owner.UID != h.sets.uid && child.DeletionTimestamp.IsZero() {
			err := k8s.Delete(h.world.ctx, child, client.Preconditions{UID: &child.UID, ResourceVersion: &child.ResourceVersion})
			h.Expect(err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
		}
	}
}

// children returns what sets have made, by source and name.
func (h *history) children() []*v1alpha1.GrafanaSecureValue {
	list := &v1alpha1.GrafanaSecureValueList{}
	h.Expect(k8s.List(h.world.ctx, list, client.InNamespace(h.world.namespace), client.MatchingLabels{v1alpha1.LabelSet: historySet})).To(Succeed())
	var children []*v1alpha1.GrafanaSecureValue
	for i := range list.Items {
		children = append(children, &list.Items[i])
	}
	return children
}

func sourceOfChild(child *v1alpha1.GrafanaSecureValue) modelSource {
	ref := child.Spec.ValueFrom.SecretKeyRef
	return modelSource{ref.Name, ref.Key, child.Spec.ConnectionRef.Name}
}

func (h *history) childOf(from modelSource) *v1alpha1.GrafanaSecureValue {
	for _, child := range h.children() {
		if sourceOfChild(child) == from {
			return child
		}
	}
	return nil
}

// patch changes an object that may be gone.
func (h *history) patch(sv *v1alpha1.GrafanaSecureValue, change func(*v1alpha1.GrafanaSecureValue)) {
	base := sv.DeepCopy()
	change(sv)
	h.Expect(client.IgnoreNotFound(k8s.Patch(h.world.ctx, sv, client.MergeFrom(base)))).To(Succeed())
}

// editChild is an edit by hand of what the set has made.
func (h *history) editChild(from modelSource, name string) {
	child := h.childOf(from)
	if child == nil {
		h.note("edit what is made of %v: there is nothing", from)
		return
	}
	h.note("edit %s, which is made of %v, to %q", child.Name, from, name)
	target := modelTarget{h.servers[from.connection], cmp.Or(name, child.Name)}
	h.sets.named[target] = true
	if child.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain || h.sets.spec.retain {
		h.left[target] = true
	}
	h.patch(child, func(sv *v1alpha1.GrafanaSecureValue) {
		sv.Spec.Name, sv.Spec.Description, sv.Spec.Suspend = name, "by hand", !sv.Spec.Suspend
	})
}

func (h *history) deleteChild(from modelSource) {
	child := h.childOf(from)
	if child == nil {
		h.note("delete what is made of %v: there is nothing", from)
		return
	}
	h.note("delete %s, which is made of %v", child.Name, from)
	h.Expect(client.IgnoreNotFound(k8s.Delete(h.world.ctx, child))).To(Succeed())
}

// resumeSets ends what is suspended.
func (h *history) resumeSets() {
	if h.sets.spec != nil && h.sets.spec.suspend {
		h.editSet("resume", func(s *modelSet) { s.suspend = false })
	}
	for _, child := range h.children() {
		if child.Spec.Suspend {
			h.patch(child, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = false })
		}
	}
}

// setClaims returns what sets have made, by name: as the set wants it, or, what the set does not select, as it is. It also says what is not as
// the set wants it.
func (h *history) setClaims() (claims map[string]*modelObject, found []string) {
	differs := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	h.collect()
	claims = map[string]*modelObject{}
	wanted := map[modelSource]bool{}
	children := h.children()
	if h.sets.spec != nil {
		wanted = h.sets.selected()
		taken := map[modelTarget]bool{}
		for from := range wanted {
			taken[h.targetOf("", h.sets.spec.modelOf(from))] = true
		}
		for _, child := range children { // what has lost its Secret stays, but gives way to what has one
			if from := sourceOfChild(child); h.isMissing(from) && !taken[h.targetOf("", h.sets.spec.modelOf(from))] {
				wanted[from] = true
			}
		}
	}
	refused := h.collides(wanted)
	made := map[modelSource]*v1alpha1.GrafanaSecureValue{}
	for _, child := range children {
		from := sourceOfChild(child)
		o := &modelObject{
			name: child.Spec.Name, connection: from.connection, description: child.Spec.Description, decrypters: child.Spec.Decrypters,
			syncNow: child.Annotations[v1alpha1.AnnotationSyncNow], retain: child.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain,
		}
		if made[from] != nil {
			differs("%s and %s are made of %v", made[from].Name, child.Name, from)
		}
		made[from] = child
		switch {
		case !h.sets.ever[from]:
			differs("%s is made of %v, which was never selected", child.Name, from)
		case h.sets.spec == nil && (!h.sets.orphaned || len(child.OwnerReferences) > 0):
			differs("%s is there, and its set is not", child.Name)
		case h.sets.spec != nil && child.Labels[v1alpha1.LabelSet] != historySet:
			differs("%s has labels %v", child.Name, child.Labels)
		}
		if wanted[from] && !refused {
			want := h.sets.spec.modelOf(from)
			if o.String() != want.String() || o.description != want.description || !slices.Equal(o.decrypters, want.decrypters) ||
				o.syncNow != want.syncNow || child.Spec.Suspend || !slices.ContainsFunc(child.OwnerReferences, h.isSet) {
				differs("%s is %+v %v and not %+v", child.Name, o, child.OwnerReferences, want)
			}
		}
		value, exists := h.sets.secrets[from.secret][from.key]
		o.value, o.sourceless = value, !exists
		claims[child.Name] = o
	}
	if h.sets.spec != nil {
		found = append(found, h.setDifferences(wanted, made, refused)...)
	}
	return claims, found
}

func (h *history) isSet(owner metav1.OwnerReference) bool { return owner.UID == h.sets.uid }

// isMissing reports whether the set means a source whose Secret does not exist.
func (h *history) isMissing(from modelSource) bool {
	_, exists := h.sets.secrets[from.secret]
	return !exists && h.sets.spec.matches(from)
}

// collides reports whether two sources have one name in one Grafana, which a set refuses.
func (h *history) collides(wanted map[modelSource]bool) bool {
	targets := map[modelTarget]bool{}
	for from := range wanted {
		targets[h.targetOf("", h.sets.spec.modelOf(from))] = true
	}
	return len(targets) < len(wanted)
}

// setDifferences compares the set with what it is to select, and its status with what it has made.
func (h *history) setDifferences(wanted map[modelSource]bool, made map[modelSource]*v1alpha1.GrafanaSecureValue, refused bool) []string {
	var found []string
	differs := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	set := h.setObject()
	if err := k8s.Get(h.world.ctx, client.ObjectKeyFromObject(set), set); err != nil {
		return []string{err.Error()}
	}
	says := describe(set.Status.ObservedGeneration, set.Status.Conditions)
	if refused {
		if want := describeWanted(set.Generation, v1alpha1.ReasonNameCollision); says != want {
			differs("the set says %s and not %s", says, want)
		}
		return found
	}
	counts := v1alpha1.SecureValueCounts{Desired: int32(len(wanted))} //nolint:gosec // a few
	var failures []v1alpha1.SecureValueFailure
	stalled := true
	for from := range wanted {
		child := made[from]
		if child == nil {
			differs("nothing is made of %v", from)
			continue
		}
		if ready := meta.FindStatusCondition(child.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Status == metav1.ConditionTrue {
			counts.Ready++
		} else if ready != nil {
			counts.Failed++
			failures = append(failures, v1alpha1.SecureValueFailure{Name: child.Name, Reason: ready.Reason})
			stalled = stalled && meta.IsStatusConditionTrue(child.Status.Conditions, v1alpha1.ConditionStalled)
		}
	}
	slices.SortFunc(failures, func(a, b v1alpha1.SecureValueFailure) int { return strings.Compare(a.Name, b.Name) })
	for from, child := range made {
		if !wanted[from] {
			counts.Stale++
			isOfSet := slices.ContainsFunc(child.OwnerReferences, h.isSet) // else an earlier one has left it behind
			if h.sets.spec.prune && isOfSet && !h.isMissing(from) && (!h.sets.spec.byLabel || len(h.sets.secrets) > 0) {
				differs("%s is made of %v and not pruned", child.Name, from)
			}
		}
	}
	reason := v1alpha1.ReasonSynced
	switch {
	case h.selectsNothing(made):
		reason, stalled = v1alpha1.ReasonNothingSelected, false
	case counts.Failed > 0:
		reason = v1alpha1.ReasonSecureValuesNotReady
	default:
		stalled = false
	}
	want := describeWanted(set.Generation, reason)
	got := set.Status.SecureValues
	if says != want || got == nil || *got != counts || !slices.Equal(set.Status.Failures, failures) ||
		meta.IsStatusConditionTrue(set.Status.Conditions, v1alpha1.ConditionStalled) != stalled {
		differs("the set says %s %+v %v, and not %s %+v %v, stalled %t", says, got, set.Status.Failures, want, counts, failures, stalled)
	}
	return found
}

// selectsNothing reports whether a part of the set's spec selects nothing: a Secret that it names, its labels, or its globs.
func (h *history) selectsNothing(made map[modelSource]*v1alpha1.GrafanaSecureValue) bool {
	s := h.sets.spec
	existing := 0
	for _, name := range historySetSecrets {
		switch _, exists := h.sets.secrets[name]; {
		case !s.byLabel && !slices.Contains(s.secrets, name):
		case exists:
			existing++
		case !s.byLabel:
			stays := false
			for from := range made {
				stays = stays || from.secret == name && s.matches(from)
			}
			if !stays {
				return true
			}
		}
	}
	return s.byLabel && existing == 0 || existing > 0 && len(h.sets.selected()) == 0
}

// restSets collects, and waits until the set has observed its spec, or all that is left of one is gone.
func (h *history) restSets(g Gomega) {
	h.collect()
	if h.sets.spec != nil {
		set := h.setObject()
		g.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
		g.Expect(set.Status.ObservedGeneration).To(Equal(set.Generation), "%s: %+v", h.sets.spec, set.Status)
	} else if !h.sets.orphaned {
		g.Expect(h.children()).To(BeEmpty())
	}
}

// loseSecret deletes a Secret of the set, which costs no object, whatever prunePolicy says.
func (h *history) loseSecret() {
	if h.sets == nil || h.sets.spec == nil {
		return
	}
	before := map[types.UID]string{}
	for _, child := range h.children() {
		before[child.UID] = child.Name
	}
	h.deleteSetSecret(pick(h, historySetSecrets))
	h.converge()
	for _, child := range h.children() {
		if child.DeletionTimestamp.IsZero() {
			delete(before, child.UID)
		}
	}
	h.Expect(before).To(BeEmpty(), "objects that went with their Secret")
}

// cleanSets makes the set as simple as it can be, and then deletes it with all that it has made.
func (h *history) cleanSets() {
	if h.sets.spec != nil {
		for _, name := range historySetSecrets {
			h.editSetSecret(name, func(map[string]string) {})
		}
		h.editSet("clean", func(s *modelSet) { s.nameTemplate, s.prune, s.retain = historyOwnNames, true, false })
		h.converge()
		h.deleteSet(false)
	}
	for _, child := range h.children() {
		h.note("delete %s", child.Name)
		h.patch(child, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
		h.Expect(client.IgnoreNotFound(k8s.Delete(h.world.ctx, child))).To(Succeed())
	}
	h.sets.orphaned = false
	h.rest()
}
