package securevalueset

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

// memory is what this process remembers of a set.
type memory struct {
	uid       types.UID
	readFor   int64                  // the generation for which these are:
	secrets   map[string]keysOf      // of the selected Secrets, by name
	names     map[selectedKey]string // in Grafana: to render 1,000 takes longer than all else of a reconcile
	written   map[string]string      // resourceVersion that our own write of a GrafanaSecureValue got, until the cache shows it
	writtenAt time.Time
	refused   map[string]bool // GrafanaSecureValues that Kubernetes refused

	applied   int64     // the generation of which all was applied
	summary   *summary  // of the last reconcile
	changedAt time.Time // when that was new
	reportAt  time.Time // when status is written though the set has not settled; zero where it has
}

// keysOf are the selected keys of a Secret in one version, at most one more than a set may have. Their content is not kept.
type keysOf struct {
	uid             types.UID
	resourceVersion string
	keys            []string
	foreign         bool // it is the token of a ServiceAccount, for example, which no selector selects
}

// isOf reports whether these are the keys of that version, or of a later one, which the cache does not show yet.
func (k keysOf) isOf(cached metav1.Object) bool {
	order, err := resourceversion.CompareResourceVersion(k.resourceVersion, cached.GetResourceVersion())
	return k.uid == cached.GetUID() && (err == nil && order >= 0 || k.resourceVersion == cached.GetResourceVersion())
}

// hasApplied reports whether all of this generation was applied once: by this process, or else as status shows, whose reason then is one of what
// became of that.
func (m *memory) hasApplied(set *v1alpha1.GrafanaSecureValueSet) bool {
	switch status.Reason(set.Status.Conditions) {
	case v1alpha1.ReasonSynced, v1alpha1.ReasonSecureValuesNotReady, v1alpha1.ReasonNothingSelected, v1alpha1.ReasonChildConflict:
		return set.Status.ObservedGeneration == set.Generation || m.applied == set.Generation
	default:
		return m.applied == set.Generation
	}
}

// wrote remembers the answer to a write of a GrafanaSecureValue.
func (m *memory) wrote(answer *v1alpha1.GrafanaSecureValue, now time.Time) {
	if m.written == nil {
		m.written = map[string]string{}
	}
	m.written[answer.Name], m.writtenAt = answer.ResourceVersion, now
}

// begins forgets what was read and rendered for another generation of the set.
func (m *memory) begins(set *v1alpha1.GrafanaSecureValueSet) {
	if m.readFor != set.Generation || m.names == nil {
		m.readFor, m.secrets, m.names, m.refused = set.Generation, nil, map[selectedKey]string{}, nil
	}
}

// namesOf returns the names that are known of the selected keys, and forgets the others.
func (m *memory) namesOf(selected map[selectedKey]bool) map[selectedKey]string {
	maps.DeleteFunc(m.names, func(from selectedKey, _ string) bool {
		_, found := selected[from]
		return !found
	})
	return m.names
}

// refuses remembers that Kubernetes refused a GrafanaSecureValue.
func (m *memory) refuses(name string) {
	if m.refused == nil {
		m.refused = map[string]bool{}
	}
	m.refused[name] = true
}

// isAhead reports whether the cache does not show our own last writes yet. What was deleted meanwhile it never shows, so that there is an
// end to it.
func (m *memory) isAhead(children []v1alpha1.GrafanaSecureValue, now time.Time) bool {
	for i := range children {
		order, err := resourceversion.CompareResourceVersion(children[i].ResourceVersion, m.written[children[i].Name])
		if err != nil || order >= 0 {
			delete(m.written, children[i].Name)
		}
	}
	if now.Sub(m.writtenAt) >= maxLag {
		m.written = nil
	}
	return len(m.written) > 0
}
