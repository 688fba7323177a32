package connection

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

const testCluster = "cluster-1"

var testTime = time.Unix(1_700_000_000, 0)

// value returns an object that wrote its secure value through the connection prod of its namespace.
func value(namespace, name string) *v1alpha1.GrafanaSecureValue {
	ref := v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Generation: 2}}
	sv.Spec.ConnectionRef, sv.Spec.Description, sv.Spec.Decrypters = ref, "text", []string{"a", "b"}
	sv.Status.ObservedGeneration = 2
	sv.Status.Targets = []v1alpha1.TargetStatus{{
		Connection: ref, Namespace: "default", Name: name, Version: 3, CreatedAt: &metav1.Time{Time: testTime}, Generation: 2,
		Source: &v1alpha1.SourceStatus{Name: "s"}, LastWriteTime: &metav1.Time{Time: testTime},
	}}
	return sv
}

// listedAs is what a LIST shows of an object's value.
func listedAs(sv *v1alpha1.GrafanaSecureValue) *grafana.SecureValue {
	listed := &grafana.SecureValue{
		Name: sv.SecureValueName(), CreatedAt: testTime, Version: 3, Description: sv.Spec.Description, Decrypters: sv.Spec.Decrypters,
	}
	ownership.LabelsOf(testCluster, sv, sv.Spec.ConnectionRef).Put(listed)
	return listed
}

func TestMayHaveDrifted(t *testing.T) {
	begun := testTime.Add(time.Hour)
	drifted := func(sv *v1alpha1.GrafanaSecureValue) {
		sv.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonDrifted}}
	}
	for name, row := range map[string]struct {
		object func(*v1alpha1.GrafanaSecureValue)
		listed func(*grafana.SecureValue)
		absent bool
		want   bool
	}{
		"as it was written":                     {},
		"not listed":                            {absent: true, want: true},
		"another version":                       {listed: func(sv *grafana.SecureValue) { sv.Version++ }, want: true},
		"an earlier version":                    {listed: func(sv *grafana.SecureValue) { sv.Version-- }, want: true},
		"created anew":                          {listed: func(sv *grafana.SecureValue) { sv.CreatedAt = begun }, want: true},
		"no version is served":                  {listed: func(sv *grafana.SecureValue) { sv.Version = 0 }},
		"no owner label":                        {listed: func(sv *grafana.SecureValue) { delete(sv.Labels, ownership.LabelOwner) }, want: true},
		"no version, another connection":        {listed: func(sv *grafana.SecureValue) { sv.Version, sv.Labels[ownership.LabelConnection] = 0, "x" }, want: true},
		"no version, another text":              {listed: func(sv *grafana.SecureValue) { sv.Version, sv.Description = 0, "theirs" }, want: true},
		"no version, more decrypters":           {listed: func(sv *grafana.SecureValue) { sv.Version, sv.Decrypters = 0, []string{"a", "b", "c"} }, want: true},
		"no version, another order":             {listed: func(sv *grafana.SecureValue) { sv.Version, sv.Decrypters = 0, []string{"b", "a"} }},
		"being deleted":                         {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.DeletionTimestamp = &metav1.Time{Time: testTime} }},
		"suspended":                             {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true }},
		"edited meanwhile":                      {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Generation++ }},
		"never written":                         {absent: true, object: func(sv *v1alpha1.GrafanaSecureValue) { sv.Status.Targets[0].Source = nil }},
		"drifted, and left alone":               {absent: true, object: drifted},
		"drifted, and put back":                 {object: drifted, want: true},
		"written after the LIST began":          {absent: true, object: wroteAt(begun)},
		"written in the second before the LIST": {absent: true, object: wroteAt(begun.Add(-time.Second))},
	} {
		t.Run(name, func(t *testing.T) {
			sv := value("team-a", "db")
			sv.Finalizers = []string{v1alpha1.Finalizer}
			if row.object != nil {
				row.object(sv)
			}
			c := withObjects(t, sv).compare(t.Context(), IDFor(connectionIn("team-a")))
			c.begun = begun
			listed := listedAs(sv)
			if row.listed != nil {
				row.listed(listed)
			}
			if !row.absent {
				c.visit(listed)
			}
			if err := c.wake(); err != nil {
				t.Fatal(err)
			}
			if got := c.r.registry.MayHaveDrifted(client.ObjectKeyFromObject(sv)); got != row.want {
				t.Errorf("the object is asked to compare: %t, want %t", got, row.want)
			}
		})
	}
}

func wroteAt(at time.Time) func(*v1alpha1.GrafanaSecureValue) {
	return func(sv *v1alpha1.GrafanaSecureValue) { sv.Status.Targets[0].LastWriteTime = &metav1.Time{Time: at} }
}

// withObjects returns a reconciler whose cache and API server have these objects.
func withObjects(t *testing.T, objects ...client.Object) *Reconciler {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	build := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...)
	owners := OwnerIndex(testCluster)
	api := build.WithIndex(&v1alpha1.GrafanaSecureValue{}, ConnectionIndex, connectionKeys).WithIndex(&v1alpha1.GrafanaSecureValue{}, owners.Field, owners.Keys).
		WithIndex(&v1alpha1.GrafanaConnection{}, grafanaIndex, byGrafana).Build()
	return &Reconciler{
		Options: Options{ClusterID: testCluster, Served: Served{Namespaced: true, Cluster: true}}, client: api, live: api,
		registry: NewRegistry(0), now: func() time.Time { return testTime }, recorder: events.NewFakeRecorder(100),
		kind: v1alpha1.KindGrafanaConnection, newObject: func() v1alpha1.Connection { return &v1alpha1.GrafanaConnection{} },
	}
}

func connectionIn(namespace string) *v1alpha1.GrafanaConnection {
	return &v1alpha1.GrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "prod"}, Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{URL: "https://new.example.com"}},
	}
}

// Whoever answers may list anything, with our own labels.
func TestAComparisonKeepsOnlyWhatIsAboutItsObjects(t *testing.T) {
	mine, other := value("team-a", "db"), value("team-b", "db")
	c := withObjects(t, mine, other).compare(t.Context(), IDFor(connectionIn("team-a")))
	for i := range 1000 {
		orphan := listedAs(mine)
		orphan.Name = fmt.Sprint("orphan-", i)
		c.visit(orphan)
		orphan.Labels = listedAs(other).Labels
		c.visit(orphan)
	}
	if len(c.intact) != 0 || c.present {
		t.Errorf("%d values are kept, present: %t", len(c.intact), c.present)
	}
	if c.orphaned != 1000 {
		t.Errorf("%d orphaned values, want those of the connection's own namespace", c.orphaned)
	}
	c.visit(listedAs(mine))
	if !c.intact[client.ObjectKeyFromObject(mine)] || !c.present || c.orphaned != 1000 {
		t.Errorf("the object's own: %v, present: %t, %d orphaned", c.intact, c.present, c.orphaned)
	}
}

// An object may own a value through another connection to the same Grafana.
func TestAValueOfAnotherConnectionIsNotOrphaned(t *testing.T) {
	moved := value("team-a", "db")
	moved.Spec.ConnectionRef.Name, moved.Status.Targets[0].Connection.Name = "other", "other"
	gone := value("team-a", "gone")
	c := withObjects(t, moved).compare(t.Context(), IDFor(connectionIn("team-a")))
	c.visit(listedAs(moved))
	if c.visit(listedAs(gone)); c.orphaned != 1 {
		t.Errorf("%d orphaned values, want that of the object that is gone", c.orphaned)
	}
}

func TestValuesMissing(t *testing.T) {
	for name, row := range map[string]struct {
		url      string // of status
		objects  int
		list     bool
		released bool // while the LIST goes on
		want     bool
	}{
		"first check":                   {objects: 1},
		"same URL, all values deleted":  {url: "https://new.example.com:443/", objects: 1},
		"another URL, same Grafana":     {url: "https://old.example.com", objects: 2, list: true},
		"another URL, nothing recorded": {url: "https://old.example.com"},
		"another URL, another Grafana":  {url: "https://old.example.com", objects: 1, want: true},
		"released meanwhile":            {url: "https://old.example.com", objects: 1, released: true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connectionIn("team-a")
			conn.Status.URL = row.url
			var objects []client.Object
			for i := range row.objects {
				objects = append(objects, value("team-a", fmt.Sprint("db-", i)))
			}
			r := withObjects(t, objects...)
			c := r.compare(t.Context(), IDFor(conn))
			if row.list {
				c.visit(listedAs(value("team-a", "db-0")))
			}
			if row.released {
				if err := r.client.Delete(t.Context(), objects[0]); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := c.valuesMissing(conn, ServerOf(conn.Spec.URL)); err != nil || got != row.want {
				t.Errorf("valuesMissing = %t, %v, want %t", got, err, row.want)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	namespace := func(labels map[string]string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team-a", Labels: labels}}
	}
	selects := func(operator metav1.LabelSelectorOperator, values ...string) v1alpha1.AllowedNamespaces {
		return v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: operator, Values: values}},
		}}
	}
	for name, row := range map[string]struct {
		allowed   v1alpha1.AllowedNamespaces
		namespace *corev1.Namespace
		want      bool
	}{
		"all":                                 {v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}, nil, true},
		"selected":                            {selects(metav1.LabelSelectorOpIn, "a"), namespace(map[string]string{"team": "a"}), true},
		"not selected":                        {selects(metav1.LabelSelectorOpIn, "a"), namespace(nil), false},
		"selected by what it lacks":           {selects(metav1.LabelSelectorOpDoesNotExist), namespace(nil), true},
		"gone, selected by what it lacks":     {selects(metav1.LabelSelectorOpDoesNotExist), nil, false},
		"gone, selected by what it is not":    {selects(metav1.LabelSelectorOpNotIn, "b"), nil, false},
		"a selector that is none":             {selects("Like", "a"), namespace(nil), false},
		"no selector":                         {v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSelector}, namespace(nil), false},
		"what a later version may understand": {v1alpha1.AllowedNamespaces{From: "Some"}, namespace(nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if row.namespace != nil {
				objects = append(objects, row.namespace)
			}
			conn := &v1alpha1.ClusterGrafanaConnection{Spec: v1alpha1.ClusterGrafanaConnectionSpec{AllowedNamespaces: row.allowed}}
			if got, err := Allows(t.Context(), withObjects(t, objects...).client, conn, "team-a"); err != nil || got != row.want {
				t.Errorf("Allows = %t, %v, want %t", got, err, row.want)
			}
		})
	}
}

// That nobody needs a connection is for the API server itself to say, whatever the cache shows.
func TestALateCacheReleasesNoConnection(t *testing.T) {
	for _, inUse := range []bool{true, false} {
		r := withObjects(t)
		if inUse {
			r.live = withObjects(t, value("team-a", "db")).client
		}
		patches := 0
		r.client = interceptor.NewClient(r.client.(client.WithWatch), interceptor.Funcs{ // as the fake client is made
			Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
				patches++
				return context.Canceled
			},
		})
		conn := connectionIn("team-a")
		conn.Finalizers, conn.DeletionTimestamp = []string{v1alpha1.Finalizer}, &metav1.Time{Time: testTime}
		if released, _ := r.release(t.Context(), conn); released || (patches == 0) != inUse {
			t.Errorf("in use %t: released %t, %d patches", inUse, released, patches)
		}
	}
}

// A connection that is made anew under the name before its predecessor is seen to be gone has the entry of that.
func TestAConnectionMadeAnewIsReadyAgain(t *testing.T) {
	r := withObjects(t)
	conn := connectionIn("team-a")
	ready := checkCondition("", nil)
	r.registry.with(IDFor(conn), func(e *entry) { e.become(ready) })
	expect := func(conn *v1alpha1.GrafanaConnection, want bool) {
		t.Helper()
		if _, err := r.report(t.Context(), conn, checked{condition: ready, known: true}); err != nil {
			t.Fatal(err)
		}
		if states := r.registry.States(); len(states) != 1 || states[0].Ready != want {
			t.Errorf("the states are %+v, want ready %t", states, want)
		}
	}
	old := conn.DeepCopy()
	old.Finalizers, old.DeletionTimestamp = []string{v1alpha1.Finalizer}, &metav1.Time{Time: testTime}
	expect(conn.DeepCopy(), true)
	expect(old, false)
	expect(conn.DeepCopy(), true)
}
