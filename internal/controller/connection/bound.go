package connection

import (
	"cmp"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// age orders the connections of a namespace.
type age struct {
	created time.Time
	name    string
}

func ageOf(o client.Object) age { return age{o.GetCreationTimestamp().Time, o.GetName()} }

func (a age) compare(b age) int {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
}

// noteAges keeps the ages of all GrafanaConnections, and lets every event pass. A controller starts its workers after the events of all
// objects that exist.
func (r *Registry) noteAges() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return r.noteAge(e.Object, true) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return ageOf(e.ObjectOld).compare(ageOf(e.ObjectNew)) == 0 || r.noteAge(e.ObjectOld, false) && r.noteAge(e.ObjectNew, true)
		},
		DeleteFunc: func(e event.DeleteEvent) bool { return r.noteAge(e.Object, false) },
	}
}

// noteAge notes that a connection exists, or no longer, and wakes those on both sides of the bound, one of which may have crossed it.
func (r *Registry) noteAge(o client.Object, exists bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.ages[o.GetNamespace()]
	i, found := slices.BinarySearchFunc(row, ageOf(o), age.compare)
	switch {
	case exists && !found:
		row = slices.Insert(row, i, ageOf(o))
	case !exists && found:
		row = slices.Delete(row, i, i+1)
	}
	if r.ages[o.GetNamespace()] = row; len(row) == 0 {
		delete(r.ages, o.GetNamespace())
	}
	for i := max(r.MaxPerNamespace-1, 0); i <= r.MaxPerNamespace && i < len(row); i++ {
		r.WakeConnection(ownership.Connection{Kind: v1alpha1.KindGrafanaConnection, Namespace: o.GetNamespace(), Name: row[i].name})
	}
	return true
}

// serves reports whether a connection is among the oldest of its namespace, which are served.
func (r *Registry) serves(conn v1alpha1.Connection) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	older, _ := slices.BinarySearchFunc(r.ages[conn.GetNamespace()], ageOf(conn), age.compare)
	return r.MaxPerNamespace == 0 || older < r.MaxPerNamespace
}

// refuse makes the condition of a connection that is not among the oldest what objects see.
func (r *Registry) refuse(conn v1alpha1.Connection, epoch int) checked {
	return r.publish(conn, epoch, attempt{config: configOf(conn, nil, ""), err: status.Errorf(status.Elsewhere, v1alpha1.ReasonConnectionNotAllowed,
		"Namespace %q has more than %d GrafanaConnections, and the operator serves the oldest ones (--max-connections-per-namespace). No call is made through this one. Delete one that is not needed, or ask for a higher limit.",
		conn.GetNamespace(), r.MaxPerNamespace)})
}
