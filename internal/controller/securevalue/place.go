package securevalue

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

// place is where a value lives: a name in a namespace of Grafana, and the connection that leads there.
type place struct {
	connection v1alpha1.ConnectionReference
	namespace  string // Grafana's
	name       string
}

func placeOf(t v1alpha1.TargetStatus) place {
	return place{connection: t.Connection, namespace: t.Namespace, name: t.Name}
}

// String writes the place for the intent annotation. None of its parts may hold a slash.
func (p place) String() string {
	return strings.Join([]string{string(p.connection.Kind), p.connection.Name, p.namespace, p.name}, "/")
}

// grafanaNamespace is what the schema lets a connection name.
var grafanaNamespace = regexp.MustCompile(`^(default|(org|stacks)-[1-9][0-9]{0,17})$`)

// parsePlace reads what String wrote. Anything else is no place, and neither is one that no object could name: an annotation can be
// edited by whoever may edit the object.
func parsePlace(s string) (place, bool) {
	f := strings.Split(s, "/")
	if len(f) != 4 {
		return place{}, false
	}
	p := place{
		connection: v1alpha1.ConnectionReference{Kind: v1alpha1.ConnectionKind(f[0]), Name: f[1]},
		namespace:  f[2], name: f[3],
	}
	known := p.connection.Kind == v1alpha1.KindGrafanaConnection || p.connection.Kind == v1alpha1.KindClusterGrafanaConnection
	return p, known && isName(p.connection.Name) && grafanaNamespace.MatchString(p.namespace) && isName(p.name)
}

// isName reports whether an object of Kubernetes or of Grafana can have that name.
func isName(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// intent is what an object is about to do: to write to a place, where another object may have left a value for it.
type intent struct {
	place place
	// from is the name of the object of the same namespace whose mark the value there still carries, if it was left for this
	// one. It entitles this one to delete what it never wrote.
	from string
}

// String writes the intent for its annotation: the place, and from behind one more slash.
func (i intent) String() string {
	if i.from == "" {
		return i.place.String()
	}
	return i.place.String() + "/" + i.from
}

// intentOf returns the intent of sv. Without one, or with one that cannot be read, its place is the zero place.
func intentOf(sv *v1alpha1.GrafanaSecureValue) intent {
	s := sv.Annotations[v1alpha1.AnnotationIntent]
	if p, ok := parsePlace(s); ok {
		return intent{place: p}
	}
	if i := strings.LastIndex(s, "/"); i >= 0 {
		if p, ok := parsePlace(s[:i]); ok && isName(s[i+1:]) {
			return intent{place: p, from: s[i+1:]}
		}
	}
	return intent{}
}

// heldPlaces returns every place where a value of sv may be: those that status lists, and the one that it was about to
// write to.
func heldPlaces(sv *v1alpha1.GrafanaSecureValue) []place {
	var held []place
	for _, t := range sv.Status.Targets {
		held = append(held, placeOf(t))
	}
	if p := intentOf(sv).place; p != (place{}) && findTarget(sv.Status.Targets, p) == nil {
		held = append(held, p)
	}
	return held
}

// strayIntent returns the place that only the intent tells of, if that is not the wanted one. It must be noted in status before
// another intent takes its place.
func strayIntent(sv *v1alpha1.GrafanaSecureValue, wanted place) (place, bool) {
	p := intentOf(sv).place
	return p, p != (place{}) && p != wanted && findTarget(sv.Status.Targets, p) == nil
}

// findTarget returns the record of a place, or nil.
func findTarget(targets []v1alpha1.TargetStatus, p place) *v1alpha1.TargetStatus {
	for i := range targets {
		if placeOf(targets[i]) == p {
			return &targets[i]
		}
	}
	return nil
}
