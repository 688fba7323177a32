package securevalue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/metrics"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

func TestFreshness(t *testing.T) {
	const never = -1
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: testTime.Add(d)} }
	for name, row := range map[string]struct {
		maxAge  string
		expires *metav1.Time
		unset   bool // nothing was rotated at testTime
		now     time.Duration
		want    string
		until   time.Duration
	}{
		"not written":                      {maxAge: "1h", expires: at(time.Hour), unset: true, now: 2 * time.Hour, want: "Unknown NotWritten", until: never},
		"just rotated":                     {maxAge: "1h", want: "True Current", until: time.Hour},
		"a moment before it is overdue":    {maxAge: "1h", now: time.Hour - 1, want: "True Current", until: time.Hour},
		"overdue":                          {maxAge: "1h", now: time.Hour, want: "False Overdue", until: never},
		"overdue for long":                 {maxAge: "1h", now: 1000 * time.Hour, want: "False Overdue", until: never},
		"a moment before it expires":       {expires: at(time.Hour), now: time.Hour - 1, want: "True Current", until: time.Hour},
		"expired":                          {expires: at(time.Hour), now: time.Hour, want: "False Expired", until: never},
		"expired before it was rotated":    {expires: at(-time.Hour), want: "False Expired", until: never},
		"overdue first, expires later":     {maxAge: "1h", expires: at(2 * time.Hour), want: "True Current", until: time.Hour},
		"overdue, expires later":           {maxAge: "1h", expires: at(2 * time.Hour), now: time.Hour, want: "False Overdue", until: 2 * time.Hour},
		"overdue and expired":              {maxAge: "1h", expires: at(2 * time.Hour), now: 2 * time.Hour, want: "False Expired", until: never},
		"expires first, overdue later":     {maxAge: "2h", expires: at(time.Hour), want: "True Current", until: time.Hour},
		"expired, overdue later":           {maxAge: "2h", expires: at(time.Hour), now: time.Hour, want: "False Expired", until: never},
		"the longest age":                  {maxAge: "87600h", want: "True Current", until: 87600 * time.Hour},
		"an age that the schema refuses":   {maxAge: "59m", now: time.Hour, want: "True Current", until: never},
		"an expiry beyond any wait of Go":  {expires: &metav1.Time{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, want: "True Current", until: 1<<63 - 1},
		"a clock that is behind the write": {maxAge: "1h", now: -time.Minute, want: "True Current", until: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			rotated := at(0)
			if row.unset {
				rotated = nil
			}
			fresh, until := freshness(v1alpha1.Freshness{MaxAge: row.maxAge, ExpirationTime: row.expires}, rotated, testTime.Add(row.now))
			if got := string(fresh.Status) + " " + fresh.Reason; got != row.want {
				t.Errorf("it is %s, want %s", got, row.want)
			}
			got := time.Duration(never)
			if !until.IsZero() {
				got = until.Sub(testTime)
			}
			if got != row.until {
				t.Errorf("it changes after %s, want %s", got, row.until)
			}
			if fresh.Message == "" || strings.Contains(fresh.Message, "It .") {
				t.Errorf("the message is %q", fresh.Message)
			}
		})
	}
}

func TestOriginOfASecret(t *testing.T) {
	owner := func(apiVersion, kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name}}
	}
	for name, row := range map[string]struct {
		secret corev1.Secret
		want   string
	}{
		"made by hand": {},
		"of an ExternalSecret": {
			corev1.Secret{ObjectMeta: metav1.ObjectMeta{OwnerReferences: owner("external-secrets.io/v1", "ExternalSecret", "db")}},
			` Secret "s" is made by ExternalSecret "db".`,
		},
		"of an ExternalSecret that does not own it": {
			corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"reconcile.external-secrets.io/managed": "true"}}},
			` Secret "s" is made by an ExternalSecret.`,
		},
		"of a SealedSecret": {
			corev1.Secret{ObjectMeta: metav1.ObjectMeta{OwnerReferences: owner("bitnami.com/v1alpha1", "SealedSecret", "db")}},
			` Secret "s" is made by SealedSecret "db".`,
		},
		"of cert-manager": {
			corev1.Secret{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"cert-manager.io/certificate-name": "web"}}},
			` Secret "s" is made by Certificate "web" of cert-manager.`,
		},
		"immutable": {
			corev1.Secret{Immutable: new(true)},
			` Secret "s" is immutable: only a Secret that replaces it can hold another value.`,
		},
		"not immutable": {secret: corev1.Secret{Immutable: new(false)}},
		"of a kind that is none of theirs": {
			secret: corev1.Secret{ObjectMeta: metav1.ObjectMeta{OwnerReferences: owner("example.com/v1", "ExternalSecret", "db")}},
		},
		"of a name that no object has": {
			secret: corev1.Secret{ObjectMeta: metav1.ObjectMeta{
				OwnerReferences: owner("external-secrets.io/v1", "ExternalSecret", "Pay me!"),
				Annotations:     map[string]string{"cert-manager.io/certificate-name": strings.Repeat("x", 300)},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			row.secret.Name = "s"
			if got := originOf(&row.secret); got != row.want {
				t.Errorf("it is %q, want %q", got, row.want)
			}
		})
	}
}

// What changes lastRotationTime, and what does not.
func TestLastRotationTime(t *testing.T) {
	syncNow := func(w *world) {
		sv := w.get(worldNamespace, "api-key")
		metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, "token")
		w.must(w.api.Update(context.Background(), sv)) //nolint:forbidigo // the API server ends with the world
	}
	edit := func(change func(*v1alpha1.GrafanaSecureValueSpec)) func(*world) {
		return func(w *world) {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { change(&sv.Spec) })
		}
	}
	rename := edit(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Name = "new-name" })
	for name, row := range map[string]struct {
		do      func(*world)
		changes bool
		writes  int
	}{
		"a rotation": {do: func(w *world) { w.source("canary-2") }, changes: true, writes: 1},
		"another Secret with another value": {do: func(w *world) {
			w.secret(worldNamespace, "other", "key", "canary-2")
			edit(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.ValueFrom.SecretKeyRef.Name = "other" })(w)
		}, changes: true, writes: 1},
		"another Secret with the same value": {do: func(w *world) {
			w.secret(worldNamespace, "other", "key", "canary-1")
			edit(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.ValueFrom.SecretKeyRef.Name = "other" })(w)
		}},
		"a Secret that is made again with the same value": {do: func(w *world) { w.removeSecret("source"); w.pass(time.Second); w.source("canary-1") }},
		"a move with a rotation":                          {do: func(w *world) { w.source("canary-2"); rename(w) }, changes: true, writes: 1},
		"sync-now with a rotation":                        {do: func(w *world) { w.source("canary-2"); syncNow(w) }, changes: true, writes: 1},
		"a move":                                          {do: rename, writes: 1},
		"a move, of a Secret that was written again with the same value": {do: func(w *world) { w.source("canary-1"); rename(w) }, writes: 1},
		"sync-now":               {do: syncNow, writes: 1},
		"a correction of drift":  {do: func(w *world) { w.overwrite("api-key"); w.pass(listPeriod) }, writes: 1},
		"an edit of description": {do: edit(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Description = "text" }), writes: 1},
		"an edit of decrypters":  {do: edit(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Decrypters = nil }), writes: 1},
		"an edit of transforms": {do: edit(func(spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.Transforms = []v1alpha1.ValueTransform{v1alpha1.TransformBase64Encode}
		}), writes: 1},
		"an edit of transforms with a rotation": {do: func(w *world) {
			w.source("canary-2")
			edit(func(spec *v1alpha1.GrafanaSecureValueSpec) {
				spec.Transforms = []v1alpha1.ValueTransform{v1alpha1.TransformBase64Encode}
			})(w)
		}, changes: true, writes: 1},
		"a template of the Secret in place of its key": {do: edit(func(spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.ValueFrom = templateOf("v {{ .source.key }}", "source")
		}), writes: 1},
		"a restart":                               {do: func(w *world) { w.restart() }},
		"a Secret written again":                  {do: func(w *world) { w.source("canary-1") }},
		"a missing Secret":                        {do: func(w *world) { w.removeSecret("source") }},
		"a value that is refused":                 {do: func(w *world) { w.source("\xff") }},
		"a rotation that Grafana does not accept": {do: func(w *world) { w.outage(true); w.source("canary-2") }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(w.value("api-key"))
				w.restart()
				w.pass(time.Minute)
				first := w.get(worldNamespace, "api-key").Status
				if first.LastRotationTime == nil || !first.LastRotationTime.Equal(first.Targets[0].LastWriteTime) {
					t.Fatalf("the first write was at %v, and lastRotationTime is %v", first.Targets[0].LastWriteTime, first.LastRotationTime)
				}
				before := w.written()
				row.do(w)
				w.pass(time.Minute)
				now := w.get(worldNamespace, "api-key").Status
				if changed := !now.LastRotationTime.Equal(first.LastRotationTime); changed != row.changes {
					t.Errorf("changed: %t, want %t", changed, row.changes)
				}
				if n := w.written() - before; n != row.writes {
					t.Errorf("%d writes, want %d", n, row.writes)
				}
			})
		})
	}
}

func templateOf(text string, secrets ...string) v1alpha1.ValueSource {
	template := &v1alpha1.ValueTemplate{Text: text}
	for _, name := range secrets {
		template.SecretRefs = append(template.SecretRefs, v1alpha1.TemplateSecretReference{Name: name})
	}
	return v1alpha1.ValueSource{Template: template}
}

// Of a template only another content of its Secrets is a rotation, and not an edit that makes another value of them.
func TestLastRotationTimeOfATemplate(t *testing.T) {
	for name, row := range map[string]struct {
		change  func(*world, *v1alpha1.GrafanaSecureValueSpec)
		changes bool
	}{
		"another text": {change: func(_ *world, spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.ValueFrom.Template.Text = "x{{ .source.key }}"
		}},
		"another text and order": {change: func(_ *world, spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.ValueFrom = templateOf("x{{ .source.key }}", "other", "source")
		}},
		"a Secret less": {change: func(_ *world, spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.ValueFrom = templateOf("x{{ .source.key }}", "source")
		}},
		"the key of a Secret": {change: func(_ *world, spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.ValueFrom = v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "other", Key: "key"}}
		}},
		"a Secret more": {change: func(w *world, spec *v1alpha1.GrafanaSecureValueSpec) {
			w.secret(worldNamespace, "third", "key", "canary-3")
			spec.ValueFrom = templateOf("x{{ .third.key }}", "source", "third")
		}, changes: true},
		"another content of one": {change: func(w *world, _ *v1alpha1.GrafanaSecureValueSpec) {
			w.secret(worldNamespace, "other", "key", "canary-3")
		}, changes: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.secret(worldNamespace, "other", "key", "canary-2")
				sv := w.value("api-key")
				sv.Spec.ValueFrom = templateOf("{{ .source.key }}{{ .other.key }}", "source", "other")
				w.create(sv)
				w.restart()
				w.pass(time.Minute)
				first := w.get(worldNamespace, "api-key").Status.LastRotationTime
				w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { row.change(w, &sv.Spec) })
				w.pass(time.Minute)
				if n := w.written(); n != 2 {
					t.Errorf("%d writes, want 2", n)
				}
				if changed := !w.get(worldNamespace, "api-key").Status.LastRotationTime.Equal(first); changed != row.changes {
					t.Errorf("changed: %t, want %t", changed, row.changes)
				}
			})
		})
	}
}

// The limit passes while the API server takes its time to write that it has not.
func TestALimitThatPassesDuringAWriteIsReported(t *testing.T) {
	inWorld(t, func(w *world) {
		sv := w.value("api-key")
		sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h"}
		w.create(sv)
		w.restart()
		w.pass(time.Second)
		due := w.get(worldNamespace, "api-key").Status.LastRotationTime.Add(time.Hour)
		w.pass(time.Until(due) - time.Second)
		w.source("canary-1") // the same value, so status alone is written, for its version
		w.strike = func(call string, _ int) hit {
			if strings.HasPrefix(call, "PATCH status *v1alpha1.GrafanaSecureValue") {
				time.Sleep(2 * time.Second) //nolint:forbidigo // in fake time
			}
			return none
		}
		w.pass(5 * time.Second)
		w.strike = nil
		w.pass(time.Minute)
		if fresh, message := w.freshOf("api-key"); fresh != "False Overdue" {
			t.Errorf("Fresh is %s: %s", fresh, message)
		}
	})
}

func TestNoteOf(t *testing.T) {
	for message, want := range map[string]string{
		"short":                                  "short",
		strings.Repeat("x", status.MaxNoteBytes): strings.Repeat("x", status.MaxNoteBytes),
		strings.Repeat("x", status.MaxNoteBytes+1):    strings.Repeat("x", status.MaxNoteBytes-3) + "...",
		strings.Repeat("\u00fc", status.MaxNoteBytes): strings.Repeat("\u00fc", (status.MaxNoteBytes-3)/2) + "...",
	} {
		if got := status.NoteOf(message); got != want {
			t.Errorf("a message of %d bytes has a note of %d, want %d", len(message), len(got), len(want))
		}
	}
}

// notes records events as "type reason".
type notes struct {
	silent

	events []string
}

func (n *notes) Eventf(_, _ runtime.Object, eventType, reason, _, _ string, _ ...any) {
	n.events = append(n.events, eventType+" "+reason)
}

// freshOf returns what Fresh says of the object, and its message.
func (w *world) freshOf(name string) (says, message string) {
	w.t.Helper()
	fresh := meta.FindStatusCondition(w.get(worldNamespace, name).Status.Conditions, v1alpha1.ConditionFresh)
	if fresh == nil {
		return "", ""
	}
	return string(fresh.Status) + " " + fresh.Reason, fresh.Message
}

// A limit that passes costs one status write, one event and one read of the Secret, and nothing in Grafana; a restart costs nothing.
func TestALimitPassesOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: worldNamespace, Name: "made", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "db", UID: "u"},
		}}, Data: map[string][]byte{"key": []byte("canary-1")}}
		w.create(secret)
		sv := w.value("api-key")
		sv.Spec.ValueFrom.SecretKeyRef.Name = "made"
		sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h", ExpirationTime: &metav1.Time{Time: time.Now().Add(2 * time.Hour)}}
		w.create(sv)
		w.restart()
		events := &notes{}
		w.process.values.recorder = events
		w.pass(30 * time.Minute)
		restart := func() {
			w.restart()
			w.process.values.recorder = events
		}
		after := func(do func(), d time.Duration, says string, calls ...string) {
			t.Helper()
			from := w.callCount()
			do()
			w.pass(d)
			if got, message := w.freshOf("api-key"); got != says {
				t.Errorf("Fresh is %s, want %s: %s", got, says, message)
			}
			got := w.callsIn(from, func(call string) bool { // all but those of the connection
				return call != "Grafana GET " && !strings.Contains(call, "GrafanaConnection") && !strings.Contains(call, " grafana *v1.Secret")
			})
			if !slices.Equal(got, calls) {
				t.Errorf("calls were %q, want %q", got, calls)
			}
		}
		nothing := func() {}
		crossing := []string{"live GET made *v1.Secret ", "PATCH status *v1alpha1.GrafanaSecureValue api-key"}
		after(restart, 29*time.Minute, "True Current")
		after(nothing, time.Minute, "False Overdue", crossing...)
		if _, message := w.freshOf("api-key"); !strings.HasSuffix(message, `Secret "made" is made by ExternalSecret "db".`) {
			t.Errorf("the message is %q", message)
		}
		after(restart, 59*time.Minute, "False Overdue")
		after(nothing, time.Minute, "False Expired", crossing...)
		after(nothing, 24*time.Hour, "False Expired")
		w.secret(worldNamespace, "made", "key", "canary-2") // which does not end it, and is no second limit
		w.pass(time.Second)
		if want := []string{"Normal Created", "Warning Overdue", "Warning Expired", "Normal Rotated"}; !slices.Equal(events.events, want) {
			t.Errorf("events are %q, want %q", events.events, want)
		}
		state := metrics.ValueState{Connection: ownership.ConnectionOf(testRef, worldNamespace), Reason: v1alpha1.ReasonExpired}
		if _, got := w.process.values.States(); len(got) != 1 || got[state] != 1 {
			t.Errorf("the metric counts %v", got)
		}
		if !isReady(w.get(worldNamespace, "api-key")) {
			t.Error("it is not Ready")
		}
	})
}

// Fresh is said in the writes that are made anyway, and ends with freshness.
func TestFreshFollowsTheObject(t *testing.T) {
	inWorld(t, func(w *world) {
		says := func(want string) {
			t.Helper()
			w.pass(time.Second)
			if got, message := w.freshOf("api-key"); got != want {
				t.Errorf("Fresh is %q, want %q: %s", got, want, message)
			}
		}
		change := func(f func(*v1alpha1.GrafanaSecureValueSpec)) {
			w.edit("api-key", func(sv *v1alpha1.GrafanaSecureValue) { f(&sv.Spec) })
		}
		sv := w.value("api-key")
		sv.Spec.ValueFrom.SecretKeyRef.Name = "later"
		sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h"}
		w.create(sv)
		w.restart()
		says("Unknown NotWritten")
		w.secret(worldNamespace, "later", "key", "canary-1")
		says("True Current")
		w.pass(2 * time.Hour)
		says("False Overdue")
		w.secret(worldNamespace, "later", "key", "canary-2")
		says("True Current")
		w.pass(2 * time.Hour)
		says("False Overdue")
		change(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Freshness.MaxAge = "3h" })
		says("True Current")

		change(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Suspend = true })
		from := w.callCount()
		w.pass(2 * time.Hour)
		if calls := w.callsIn(from, func(call string) bool { return strings.Contains(call, "status") }); len(calls) > 1 {
			t.Errorf("while it is suspended: %q", calls)
		}
		says("True Current")
		change(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Suspend = false })
		says("False Overdue")

		w.removeSecret("later") // the limit passes while something else is wrong
		change(func(spec *v1alpha1.GrafanaSecureValueSpec) {
			spec.Freshness.ExpirationTime = &metav1.Time{Time: time.Now().Add(time.Hour)}
		})
		says("False Overdue")
		w.pass(time.Hour)
		says("False Expired")
		if got := status.Reason(w.get(worldNamespace, "api-key").Status.Conditions); got != v1alpha1.ReasonSecretNotFound {
			t.Errorf("Ready says %s", got)
		}
		change(func(spec *v1alpha1.GrafanaSecureValueSpec) { spec.Freshness = nil })
		says("")
		if _, got := w.process.values.States(); len(got) != 0 {
			t.Errorf("the metric counts %v", got)
		}
	})
}

// An object that has nothing to write says that its value is overdue while its connection is down, too.
func TestALineIsCrossedDuringAnOutage(t *testing.T) {
	inWorld(t, func(w *world) {
		sv := w.value("api-key")
		sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: "1h"}
		w.create(sv)
		w.restart()
		w.pass(time.Minute)
		w.outage(true)
		w.source("canary-2")
		w.pass(2 * time.Hour)
		if got, message := w.freshOf("api-key"); got != "False Overdue" {
			t.Errorf("Fresh is %q: %s", got, message)
		}
	})
}

func TestAnAgeThatTheSchemaRefuses(t *testing.T) {
	inWorld(t, func(w *world) {
		for i, age := range []string{"59m", "87601h", "ten days"} {
			sv := w.value(fmt.Sprintf("value-%d", i))
			sv.Spec.Freshness = &v1alpha1.Freshness{MaxAge: age}
			w.create(sv)
		}
		w.restart()
		w.pass(time.Second)
		for _, sv := range w.values() {
			if got := status.Reason(sv.Status.Conditions); got != v1alpha1.ReasonInvalidSpec {
				t.Errorf("maxAge %s: %s", sv.Spec.Freshness.MaxAge, got)
			}
		}
	})
}
