package securevalue

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// scenario is what users do, and what is true afterwards whatever befalls one call in the middle of it.
type scenario struct {
	name  string
	given func(*world) // before the first process starts
	when  func(*world) // what befalls calls befalls one of these
	// reasons are those of the objects that are not Synced in the end, and left is what Grafana holds beside their values.
	reasons, left map[string]string
	// always is asked after each reconcile.
	always func(*world) string
}

var scenarios = []scenario{{
	name: "create",
	when: func(w *world) {
		w.source("canary-1")
		w.create(w.value("api-key"))
		w.settle()
	},
}, {
	name:  "rotate",
	given: oneValue,
	when: func(w *world) {
		w.source("canary-2")
		w.settle()
	},
}, {
	name:  "edit",
	given: oneValue,
	when: func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Description = "Another text" })
		w.settle()
	},
}, {
	name:  "move to another name",
	given: oneValue,
	when: func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.settle()
	},
	always: isAt("default/api-key", "default/moved"),
}, {
	name: "move to another connection",
	given: func(w *world) {
		w.create(w.connection("other", "org-2"))
		oneValue(w)
	},
	when:   moveTo("other"),
	always: isAt("default/api-key", "org-2/api-key"),
}, {
	name: "move to another connection of the same Grafana",
	given: func(w *world) {
		w.create(w.connection("other", "default"))
		oneValue(w)
	},
	when:   moveTo("other"),
	always: isAt("default/api-key"),
}, {
	name: "move to another address of the same Grafana",
	given: func(w *world) {
		other := w.connection("other", "default")
		other.Spec.URL = w.url + alias
		w.create(other)
		oneValue(w)
	},
	when:   moveTo("other"),
	always: isAt("default/api-key"),
}, {
	name:  "rename during the first write",
	given: func(w *world) { w.source("canary-1") },
	when: func(w *world) {
		w.beforeCall("PATCH status *v1alpha1.GrafanaSecureValue", func() {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		})
		w.create(w.value("api-key"))
		w.settle()
	},
}, {
	name: "adopt",
	given: func(w *world) {
		w.source("canary-1")
		w.grafana.Put("default", foreignValue("api-key"))
	},
	when: func(w *world) {
		sv := w.value("api-key")
		sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
		w.create(sv)
		w.settle()
	},
	always: isAt("default/api-key"),
}, {
	name:  "hand over, the new object first",
	given: oneValue,
	when: func(w *world) {
		successor := w.value("successor")
		successor.Spec.Name = "api-key"
		w.create(successor)
		w.pass(time.Second)
		w.remove(w.value("api-key"))
		w.settle()
	},
	always: isAt("default/api-key"),
}, {
	name:  "hand over, the old object first",
	given: oneValue,
	when: func(w *world) {
		successor := w.value("successor")
		successor.Spec.Name = "api-key"
		w.remove(w.value("api-key"))
		w.create(successor)
		w.settle()
	},
	always: isAt("default/api-key"),
}, {
	name:  "two objects swap names",
	given: twoValues,
	when: func(w *world) {
		w.edit("one", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "two" })
		w.edit("two", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "one" })
		w.settle()
	},
	always: func(w *world) string { return isAt("default/one")(w) + isAt("default/two")(w) },
}, {
	name: "owner and successor go elsewhere",
	given: func(w *world) {
		oneValue(w)
		successor := w.value("successor")
		successor.Spec.Name = "api-key"
		w.create(successor)
	},
	when: func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "one" })
		w.edit("successor", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "two" })
		w.settle()
	},
}, {
	name:  "conflict, and the owner goes",
	given: oneValue,
	when: func(w *world) {
		w.grafana.Put("default", foreignValue("taken"))
		w.foreign["default/taken"] = true
		w.create(w.value("taken"))
		second := w.value("second")
		second.Spec.Name = "api-key"
		w.create(second)
		w.pass(30 * time.Second)
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "elsewhere" })
		w.settle()
	},
	reasons: map[string]string{"taken": v1alpha1.ReasonAlreadyExists},
	left:    map[string]string{"default/taken": "canary-foreign"},
	always:  isAt("default/api-key"),
}, {
	name:  "drift, overwritten",
	given: oneValue,
	when: func(w *world) {
		w.overwrite("api-key")
		w.settle()
	},
}, {
	name:  "drift, deleted",
	given: oneValue,
	when: func(w *world) {
		w.grafana.Remove("default", "api-key")
		w.settle()
	},
}, {
	name: "drift, reported",
	given: func(w *world) {
		w.source("canary-1")
		sv := w.value("api-key")
		sv.Spec.DriftPolicy = v1alpha1.DriftPolicyReport
		w.create(sv)
	},
	when: func(w *world) {
		w.overwrite("api-key")
		w.settle()
	},
	reasons: map[string]string{"api-key": v1alpha1.ReasonDrifted},
	left:    map[string]string{"default/api-key": "canary-foreign"},
}, {
	name:  "delete",
	given: oneValue,
	when: func(w *world) {
		w.remove(w.value("api-key"))
		w.settle()
	},
}, {
	name:  "retain",
	given: oneValue,
	when: func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.remove(w.value("api-key"))
		w.settle()
	},
	left: map[string]string{"default/api-key": "canary-1"},
}, {
	name:  "delete during an outage",
	given: oneValue,
	when: func(w *world) {
		w.outage(true)
		w.remove(w.value("api-key"))
		w.pass(30 * time.Second)
		w.outage(false)
		w.settle()
	},
}, {
	name:  "token change",
	given: oneValue,
	when: func(w *world) {
		w.grafana.RevokeToken(worldToken)
		w.source("canary-2")
		w.pass(30 * time.Second)
		w.grafana.AddToken("glsa_canary-new")
		w.secret(worldNamespace, "grafana", "token", "glsa_canary-new")
		w.settle()
	},
}, {
	name:  "move during an outage",
	given: oneValue,
	when: func(w *world) {
		w.outage(true)
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = "moved" })
		w.pass(30 * time.Second)
		w.outage(false)
		w.settle()
	},
	always: isAt("default/api-key", "default/moved"),
}}

// oneValue makes an object that reads a Secret.
func oneValue(w *world) {
	w.source("canary-1")
	w.create(w.value("api-key"))
}

// twoValues makes two objects that read one Secret.
func twoValues(w *world) {
	w.source("canary-1")
	w.create(w.value("one"))
	w.create(w.value("two"))
}

// moveTo makes an object name another connection.
func moveTo(connection string) func(*world) {
	return func(w *world) {
		w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = connection })
		w.settle()
	}
}

func foreignValue(name string) grafanatest.Stored {
	return grafanatest.Stored{Name: name, Description: "By hand", Value: []byte("canary-foreign")}
}

// overwrite gives a value another content, as another writer does who sends back what was there.
func (w *world) overwrite(name string) {
	w.t.Helper()
	stored, there := w.grafana.Value("default", name)
	if !there {
		w.t.Fatalf("no value %s to overwrite", name)
	}
	stored.Value = []byte("canary-foreign")
	w.grafana.Put("default", stored)
}

// isAt requires a value at one of the targets at all times.
func isAt(targets ...string) func(*world) string {
	return func(w *world) string {
		for _, at := range targets {
			namespace, name, _ := strings.Cut(at, "/")
			if _, there := w.grafana.Value(namespace, name); there {
				return ""
			}
		}
		return "no value at " + strings.Join(targets, " or ")
	}
}

// outcomeOf is what is known after a scenario.
type outcomeOf struct {
	calls   []string // from when on
	written int
	faults  []string
}

// play plays a scenario, and lets a hit befall one call of it.
func (s scenario) play(t *testing.T, f *front, at int, befalls hit) outcomeOf {
	var result outcomeOf
	grafana := grafanatest.New(grafanatest.WithNamespaces("default", "org-2"))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, f, grafana)
		if s.given != nil {
			s.given(w)
		}
		w.restart()
		w.pass(time.Second)
		first, written := w.callCount(), w.written()
		w.strike = hits(first+at, befalls)
		w.always = s.always
		s.when(w)
		result.calls = w.callsIn(first, func(string) bool { return true })
		result.written = w.written() - written
		result.faults = w.faults(s.reasons, s.left)

		rested := w.callCount()
		w.restart()
		w.settle()
		for _, call := range w.callsIn(rested, isWrite) {
			if befalls != none && strings.HasPrefix(call, "PATCH status *v1alpha1.GrafanaConnection") {
				continue // how many objects it has is written with its second LIST
			}
			result.faults = append(result.faults, "at rest, after a restart: "+call)
		}
		w.process.dead.Store(true)
	})
	return result
}

// isWrite reports whether a call changes something.
func isWrite(call string) bool {
	return strings.HasPrefix(call, "PATCH") || strings.HasPrefix(call, "Grafana ") && !strings.HasPrefix(call, "Grafana GET")
}

// hitsOf returns what may befall a call. After a call that changes nothing, the world is as before it.
func hitsOf(call string) []hit {
	if isWrite(call) {
		return []hit{crashBefore, crashAfter, answerLost, callFails}
	}
	return []hit{crashBefore, callFails}
}

// Each call of each scenario is hit by a crash before it, a crash after it, the loss of its answer, and an error. Afterwards all must
// be as if nothing had happened, at the price of at most one more version.
func TestCrashMatrix(t *testing.T) {
	t.Attr("crash-matrix", fmt.Sprintf("%-34s %5s %5s %14s %11s %7s %7s", "scenario", "calls", "runs", "extra versions", "at most", "orphans", "foreign"))
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			f := newFront(t)
			golden := s.play(t, f, 0, none)
			if len(golden.faults) > 0 {
				t.Fatalf("undisturbed: %s\ncalls:\n%s", strings.Join(golden.faults, "\n"), strings.Join(golden.calls, "\n"))
			}
			var row struct{ runs, extra, most, orphans, foreign int }
			for i, call := range golden.calls {
				for _, befalls := range hitsOf(call) {
					got := s.play(t, f, i+1, befalls)
					row.runs++
					extra := got.written - golden.written
					row.extra, row.most = row.extra+extra, max(row.most, extra)
					for _, fault := range got.faults {
						t.Errorf("%s at call %d (%s): %s", befalls, i+1, call, fault)
						if strings.HasPrefix(fault, "orphan") {
							row.orphans++
						}
						if strings.HasPrefix(fault, "foreign") {
							row.foreign++
						}
					}
					if extra > 1 {
						t.Errorf("%s at call %d (%s): %d extra versions", befalls, i+1, call, extra)
					}
				}
			}
			t.Attr("crash-matrix", fmt.Sprintf("%-34s %5d %5d %14d %11d %7d %7d",
				s.name, len(golden.calls), row.runs, row.extra, row.most, row.orphans, row.foreign))
		})
	}
}
