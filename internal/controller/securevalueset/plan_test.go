package securevalueset

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
)

var (
	prod = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"}
	eu   = v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: "eu"}
	us   = v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "us"}
)

func newSet() *v1alpha1.GrafanaSecureValueSet {
	return &v1alpha1.GrafanaSecureValueSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "set", UID: "uid-of-set", Generation: 1},
		Spec: v1alpha1.GrafanaSecureValueSetSpec{
			Secrets: v1alpha1.SecretSelection{Names: []string{"a"}}, NameTemplate: v1alpha1.DefaultNameTemplate,
		},
	}
}

// selecting returns a selection of these keys. prod and eu are connections to different Grafanas, and us is missing.
func selecting(keys ...selectedKey) *selection {
	at := func(url string) v1alpha1.ConnectionSpec {
		return v1alpha1.ConnectionSpec{URL: url, Namespace: "default"}
	}
	s := &selection{keys: map[selectedKey]bool{}, connections: map[v1alpha1.ConnectionReference]v1alpha1.Connection{
		prod: &v1alpha1.GrafanaConnection{Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: at("https://prod.example.com")}},
		eu:   &v1alpha1.ClusterGrafanaConnection{Spec: v1alpha1.ClusterGrafanaConnectionSpec{ConnectionSpec: at("https://EU.example.com:443/")}},
		us:   nil,
	}}
	for _, key := range keys {
		s.keys[key] = true
	}
	return s
}

// TestNamesOfChildrenNeverChange: another name would delete a value and create another one.
func TestNamesOfChildrenNeverChange(t *testing.T) {
	for want, from := range map[string]selectedKey{
		"set-e8cc5b4f81": {"sm", "token", prod},
	} {
		if got := childName("set", from); got != want {
			t.Errorf("%v is %s, want %s", from, got, want)
		}
	}
	seen := map[string]bool{}
	for _, from := range []selectedKey{{"a", "b", prod}, {"ab", "", prod}, {"a", "b", eu}, {"a", "b", us}, {"b", "a", prod}} {
		seen[childName("set", from)] = true
	}
	if len(seen) != 5 {
		t.Errorf("five keys have the names %v", seen)
	}
}

func TestWanted(t *testing.T) {
	many := []selectedKey{}
	for i := range v1alpha1.MaxSecureValues {
		many = append(many, selectedKey{"a", fmt.Sprintf("KEY_%d", i), prod})
	}
	same := selecting(selectedKey{"a", "k", prod}, selectedKey{"a", "k", us})
	same.connections[us] = same.connections[prod]
	byRef := selecting(selectedKey{"a", "k", prod}, selectedKey{"a", "k", us})
	byRef.connections[us] = &v1alpha1.GrafanaConnection{
		Spec:   v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{Namespace: "default"}},
		Status: v1alpha1.ConnectionStatus{URL: "https://prod.example.com/"},
	}
	replaced := selecting(selectedKey{"old", "k", prod}, selectedKey{"zero", "k", prod})
	replaced.keys[selectedKey{"old", "k", prod}] = false
	missing := selecting()
	missing.keys[selectedKey{"old", "k", prod}], missing.keys[selectedKey{"zero", "k", prod}] = false, false
	staying := selecting(many...)
	staying.keys[selectedKey{"old", "k", prod}] = false
	for name, row := range map[string]struct {
		template string
		s        *selection
		reason   string
		words    []string // of the message, or the names in Grafana
	}{
		"the default":                    {"", selecting(selectedKey{"a", "SM_Token..x", prod}), "", []string{"a-sm-token.x"}},
		"all fields":                     {"{{ .Namespace }}.{{ .Connection }}.{{ .Secret }}.{{ .Key }}", selecting(selectedKey{"a", "k", eu}), "", []string{"team-a.eu.a.k"}},
		"one name in two Grafanas":       {"{{ .Key }}", selecting(selectedKey{"a", "k", prod}, selectedKey{"a", "k", eu}), "", []string{"k", "k"}},
		"missing connections are two":    {"{{ .Key }}", selecting(selectedKey{"a", "k", prod}, selectedKey{"a", "k", us}), "", []string{"k", "k"}},
		"nothing":                        {"", selecting(), "", nil},
		"1,000":                          {"x{{ .Key | dnsName }}", selecting(many...), "", nil},
		"one name of two keys":           {"x", selecting(selectedKey{"a", "k", prod}, selectedKey{"a", "l", prod}), v1alpha1.ReasonNameCollision, []string{`Key "k" of Secret "a"`, `Key "l" of Secret "a"`, `"x"`}},
		"one Grafana of two connections": {"", same, v1alpha1.ReasonNameCollision, []string{`"prod"`, `"us"`}},
		"one name, and its old Secret is missing":     {"{{ .Secret | trunc 0 }}{{ .Key }}", replaced, "", []string{"k"}},
		"the address of a Grafana that is referenced": {"", byRef, v1alpha1.ReasonNameCollision, []string{`"prod"`, `"us"`}},
		"one name, and both Secrets are missing":      {"{{ .Key }}", missing, v1alpha1.ReasonNameCollision, []string{`Secret "old"`, `Secret "zero"`}},
		"1,000, and what stays":                       {"{{ .Secret }}{{ .Key | dnsName }}", staying, "", nil},
		"a name that is none":                         {"{{ .Key }}", selecting(selectedKey{"a", "UPPER", prod}), v1alpha1.ReasonTemplateInvalid, []string{`"UPPER"`, `Key "UPPER" of Secret "a"`, "dnsName"}},
		"an empty name":                               {"{{ .Key | trunc 0 }}", selecting(selectedKey{"a", "k", prod}), v1alpha1.ReasonTemplateInvalid, []string{`""`}},
		"a name of 254 characters":                    {strings.Repeat("x", 254), selecting(selectedKey{"a", "k", prod}), v1alpha1.ReasonTemplateInvalid, []string{"253"}},
		"another field":                               {"{{ .Value }}", selecting(selectedKey{"a", "k", prod}), v1alpha1.ReasonTemplateInvalid, []string{"line 1", "none of Connection, Key, Namespace, Secret"}},
		"no template":                                 {"{{ if }}", selecting(selectedKey{"a", "k", prod}), v1alpha1.ReasonTemplateInvalid, []string{"line 1"}},
		"a name as large as a value":                  {`{{ printf "%99s" "x" | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc | b64enc }}`, selecting(selectedKey{"a", "k", prod}), v1alpha1.ReasonTemplateInvalid, nil},
		"a function that a name can have":             {`{{ .Key | replace "_" "." | lower }}`, selecting(selectedKey{"a", "A_B", prod}), "", []string{"a.b"}},
	} {
		t.Run(name, func(t *testing.T) {
			set := newSet()
			set.Spec.NameTemplate = row.template
			wanted, err := wantedBy(t.Context(), set, row.s)
			if row.reason == "" {
				var names []string
				for _, child := range wanted {
					names = append(names, child.Spec.Name)
				}
				if err != nil || row.words != nil && !slices.Equal(names, row.words) {
					t.Errorf("got %q, %v, want %q", names, err, row.words)
				}
				return
			}
			if e := status.Of(err); e == nil || e.Reason != row.reason || e.Class != status.Here {
				t.Fatalf("got %v, want %s", err, row.reason)
			}
			for _, words := range row.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("says %q, which does not have %q", err, words)
				}
			}
		})
	}
}

// child returns the GrafanaSecureValue of a key as it is in sync, after an edit.
func child(set *v1alpha1.GrafanaSecureValueSet, from selectedKey, edit func(*v1alpha1.GrafanaSecureValue)) *v1alpha1.GrafanaSecureValue {
	sv := childOf(set, from, "name-of-"+from.key)
	sv.UID, sv.Generation = types.UID("uid-of-"+from.key), 1
	if edit != nil {
		edit(sv)
	}
	return sv
}

func TestPlan(t *testing.T) {
	from, now := selectedKey{"a", "k", prod}, metav1.Now()
	leftOver := func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences[0].UID = "of-a-deleted-set" }
	for name, row := range map[string]struct {
		edit    func(*v1alpha1.GrafanaSecureValue) // of what is there; nil is that it is as wanted
		absent  bool
		foreign bool // it is not of the set
		edited  bool // the set was
		want    string
	}{
		"nothing there":         {absent: true, want: "apply"},
		"as wanted":             {want: "as wanted"},
		"as wanted, set edited": {edited: true, want: "as wanted"},
		"our own annotation, set edited": {edit: func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Annotations = map[string]string{v1alpha1.AnnotationPendingTargets: "x"}
		}, edited: true, want: "as wanted"},
		"more labels":                  {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Labels["by"] = "another" }, want: "as wanted"},
		"more labels, set edited":      {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Labels["by"] = "another" }, edited: true, want: "apply uid-of-k"},
		"more annotations, set edited": {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Annotations = map[string]string{"x": "y"} }, edited: true, want: "apply uid-of-k"},
		"no label":                     {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Labels = nil }, want: "apply uid-of-k"},
		"no owner":                     {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences = nil }, want: "apply uid-of-k"},
		"suspended by hand":            {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Suspend = true }, want: "apply uid-of-k"},
		"another name":                 {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "other" }, want: "apply uid-of-k"},
		"being deleted":                {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.DeletionTimestamp = &now }, want: "leaving"},
		"of a set that was deleted":    {edit: leftOver, foreign: true, want: "waiting"},
		"of one, and going":            {edit: func(sv *v1alpha1.GrafanaSecureValue) { leftOver(sv); sv.DeletionTimestamp = &now }, foreign: true, want: "leaving"},
		"of nobody":                    {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences = nil }, foreign: true, want: "taken"},
		"of another controller":        {edit: func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences[0].Kind = "Other" }, foreign: true, want: "taken"},
	} {
		t.Run(name, func(t *testing.T) {
			set := newSet()
			want := childOf(set, from, "name-of-k")
			of, others := map[string]*v1alpha1.GrafanaSecureValue{}, map[string]*v1alpha1.GrafanaSecureValue{}
			switch is := child(set, from, row.edit); {
			case row.absent:
			case row.foreign:
				others[is.Name] = is
			default:
				of[is.Name] = is
			}
			p := planFor(set, map[string]*v1alpha1.GrafanaSecureValue{want.Name: want}, of, others, selecting(), row.edited)
			got := map[bool]string{len(p.asWanted) > 0: "as wanted", p.waiting > 0: "waiting", len(p.taken) > 0: "taken", len(p.leaving) > 0: "leaving"}[true]
			if len(p.apply) > 0 {
				got = strings.TrimSpace("apply " + string(p.apply[0].UID))
			}
			if got != row.want || p.stale != 0 || len(p.prune) != 0 {
				t.Errorf("got %q (%d stale, %d to prune), want %q", got, p.stale, len(p.prune), row.want)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	now := metav1.Now()
	for name, row := range map[string]struct {
		policy    v1alpha1.PrunePolicy
		unmatched bool
		stays     bool // its Secret is missing
		edit      func(*v1alpha1.GrafanaSecureValue)
		want      int
	}{
		"Retain":                     {v1alpha1.PrunePolicyRetain, false, false, nil, 0},
		"Delete":                     {v1alpha1.PrunePolicyDelete, false, false, nil, 1},
		"a selector matches nothing": {v1alpha1.PrunePolicyDelete, true, false, nil, 0},
		"its Secret is missing":      {v1alpha1.PrunePolicyDelete, false, true, nil, 0},
		"it has no controller":       {v1alpha1.PrunePolicyDelete, false, false, func(sv *v1alpha1.GrafanaSecureValue) { sv.OwnerReferences = nil }, 0},
		"it is being deleted":        {v1alpha1.PrunePolicyDelete, false, false, func(sv *v1alpha1.GrafanaSecureValue) { sv.DeletionTimestamp = &now }, 0},
		"it was edited, so that its Secret is not known": {v1alpha1.PrunePolicyDelete, false, false, func(sv *v1alpha1.GrafanaSecureValue) {
			sv.Spec.ValueFrom.SecretKeyRef.Name = "other"
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			set := newSet()
			set.Spec.PrunePolicy = row.policy
			is := child(set, selectedKey{"a", "k", prod}, row.edit)
			s := selecting()
			s.unmatched = row.unmatched
			if row.stays {
				s.keys[sourceOf(is)] = false
			}
			p := planFor(set, nil, map[string]*v1alpha1.GrafanaSecureValue{is.Name: is}, nil, s, false)
			if p.stale != 1 || len(p.prune) != row.want {
				t.Errorf("%d stale and %d to prune, want 1 and %d", p.stale, len(p.prune), row.want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	for name, row := range map[string]struct {
		include, exclude []string
		want             string
	}{
		"all":          {nil, nil, "SM_A SM_B_OLD other.key"},
		"included":     {[]string{"SM_*"}, nil, "SM_A SM_B_OLD"},
		"excluded":     {nil, []string{"*_OLD", "other?key"}, "SM_A"},
		"both":         {[]string{"SM_?", "*key"}, []string{"*.*"}, "SM_A"},
		"none":         {[]string{"sm_*"}, nil, ""},
		"a whole name": {[]string{"SM_A"}, nil, "SM_A"},
	} {
		var got []string
		for _, key := range []string{"SM_A", "SM_B_OLD", "other.key"} {
			if selectsKey(v1alpha1.KeySelection{Include: row.include, Exclude: row.exclude}, key) {
				got = append(got, key)
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: selects %q, want %q", name, got, row.want)
		}
	}
}

func TestSpecsThatAreOlderThanTheSchema(t *testing.T) {
	bad := &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}
	for name, edit := range map[string]func(*v1alpha1.GrafanaSecureValueSetSpec){
		"no Secrets":         func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Secrets = v1alpha1.SecretSelection{} },
		"names and selector": func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Secrets.Selector = &metav1.LabelSelector{} },
		"a bad selector":     func(s *v1alpha1.GrafanaSecureValueSetSpec) { s.Secrets = v1alpha1.SecretSelection{Selector: bad} },
		"a connection of nothing": func(s *v1alpha1.GrafanaSecureValueSetSpec) {
			s.ConnectionRefs = make([]v1alpha1.ConnectionSelection, 1)
		},
		"a bad one": func(s *v1alpha1.GrafanaSecureValueSetSpec) {
			s.ConnectionRefs = []v1alpha1.ConnectionSelection{{Selector: bad}}
		},
		"a label that is none": func(s *v1alpha1.GrafanaSecureValueSetSpec) {
			s.Template.Metadata.Labels = map[string]v1alpha1.LabelValue{"a": "b c"}
		},
		"an annotation that is none": func(s *v1alpha1.GrafanaSecureValueSetSpec) {
			s.Template.Metadata.Annotations = map[string]v1alpha1.AnnotationValue{"a b": "c"}
		},
	} {
		set := newSet()
		if err := validate(&set.Spec); err != nil {
			t.Fatal(err)
		}
		edit(&set.Spec)
		if err := validate(&set.Spec); !status.IsReason(err, v1alpha1.ReasonInvalidSpec) {
			t.Errorf("%s: got %v, want InvalidSpec", name, err)
		}
	}
}
