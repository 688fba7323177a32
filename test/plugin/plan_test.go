package plugin

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// effect is a row of a plan.
type effect struct {
	Name, Action, SecureValue, From, Reason, Message string
	May                                              bool
	Fields                                           []string
}

func (e effect) String() string {
	may := ""
	if e.May {
		may = "may "
	}
	return fmt.Sprintf("%s%s %s %s", may, e.Action, e.SecureValue, strings.Join(e.Fields, ","))
}

// plan runs the command on manifests from standard input.
func (w *world) plan(code int, manifests string, args ...string) []effect {
	w.t.Helper()
	r := runWith(w.t, manifests, nil, append([]string{"plan", "-f", "-", "-n", w.namespace, "-o", "json"}, args...)...)
	r.expect(w.t, code)
	return decode[struct{ Plan []effect }](w.t, r).Plan
}

// manifest returns objects as YAML.
func manifest(t *testing.T, objects ...client.Object) string {
	t.Helper()
	var parts []string
	for _, o := range objects {
		copied, _ := o.DeepCopyObject().(client.Object)
		copied.SetManagedFields(nil)
		copied.SetResourceVersion("")
		copied.SetUID("")
		kind := map[bool]string{true: "Secret", false: "GrafanaSecureValue"}[isSecret(o)]
		version := map[bool]string{true: "v1", false: v1alpha1.GroupVersion.String()}[isSecret(o)]
		copied.GetObjectKind().SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
		if isSecret(o) {
			copied.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
		}
		content, err := yaml.Marshal(copied)
		if err != nil || version == "" {
			t.Fatal(err)
		}
		parts = append(parts, string(content))
	}
	return strings.Join(parts, "---\n")
}

func isSecret(o client.Object) bool { _, is := o.(*corev1.Secret); return is }

func (w *world) only(effects []effect, want string) {
	w.t.Helper()
	if len(effects) != 1 || strings.TrimSpace(effects[0].String()) != want {
		w.t.Errorf("planned %v, want %s", effects, want)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "plan")
	w.secret("source", map[string]string{"api-key": "canary-1", "other": "canary-2"})
	w.connected()
	sv := w.value("api-key")
	w.only(w.plan(2, manifest(t, sv)), "create api-key")
	w.create(sv)
	w.eventually(sv, v1alpha1.ReasonSynced)
	w.only(w.plan(0, manifest(t, sv)), "nothing api-key")
	runWith(t, manifest(t, sv), nil, "plan", "-f", "-", "-n", w.namespace, "-o", "wide").expect(t, 0, "GrafanaConnection/prod   default")

	edited := sv.DeepCopy()
	edited.Spec.Description, edited.Spec.Decrypters = "Another text", []string{"k6-cloud"}
	w.only(w.plan(2, manifest(t, edited)), "update api-key description,decrypters")
	edited.Spec.ValueFrom.SecretKeyRef.Key = "other"
	w.only(w.plan(2, manifest(t, edited)), "rotate api-key description,decrypters")
	edited = sv.DeepCopy()
	edited.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
	w.only(w.plan(2, manifest(t, edited)), "update api-key deletionPolicy")
	edited = sv.DeepCopy()
	edited.Spec.Name = "moved"
	if moved := w.plan(2, manifest(t, edited)); len(moved) != 2 || moved[0].Action != "move" || moved[0].From != "api-key" || moved[1].Action != "delete" || moved[1].SecureValue != "api-key" {
		t.Errorf("planned %v", moved)
	}
	edited.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
	if moved := w.plan(2, manifest(t, edited)); len(moved) != 2 || moved[1].Action != "nothing" {
		t.Errorf("planned %v", moved)
	}
	w.only(w.plan(2, manifest(t, sv), "--delete"), "delete api-key")

	suspended := sv.DeepCopy()
	suspended.Spec.Suspend, suspended.Spec.Description = true, "x"
	w.only(w.plan(0, manifest(t, suspended)), "nothing api-key")
	lost := w.value("lost")
	if planned := w.plan(1, manifest(t, lost)); planned[0].Reason != v1alpha1.ReasonSecretKeyNotFound {
		t.Errorf("planned %v", planned)
	}

	w.grafana.Put("default", grafanatest.Stored{Name: "taken", Description: "By hand", Value: []byte("canary-3")})
	other := w.value("other")
	other.Spec.Name = "taken"
	if planned := w.plan(1, manifest(t, other)); planned[0].Action != "conflict" || planned[0].Reason != v1alpha1.ReasonAlreadyExists {
		t.Errorf("planned %v", planned)
	}
	other.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt
	w.only(w.plan(2, manifest(t, other)), "adopt taken decrypters,labels")
	other.Spec.Name = "api-key"
	if planned := w.plan(1, manifest(t, other)); planned[0].Action != "conflict" || planned[0].Reason != v1alpha1.ReasonNameConflict {
		t.Errorf("planned %v", planned)
	}
	twin := w.value("api-key")
	twin.Name, twin.Spec.Name, other.Spec.Name = "twin", "fresh", "fresh"
	if planned := w.plan(2, manifest(t, twin, other)); planned[0].Action != "create" || planned[1].Action != "conflict" {
		t.Errorf("planned %v", planned)
	}
	for _, args := range [][]string{nil, {"--server-side", "--force-conflicts"}} { // what was applied and is no longer in the manifest is removed
		applied := w.value("api-key")
		applied.Spec.Suspend, applied.Spec.Description = true, "A text"
		dir := t.TempDir()
		w.write(dir, applied)
		w.apply(dir, args...)
		w.eventually(sv, v1alpha1.ReasonSuspended)
		applied.Spec.Suspend = false
		w.only(w.plan(2, manifest(t, applied)), "update api-key description")
	}
	run(t, "plan").expect(t, 1, "name manifests with -f")
	runWith(t, "apiVersion: grafana.securevalues.io/v1alpha1\nkind: GrafanaSecureValue\nmetadata: {name: x}\nspec: {nonsense: 1}\n", nil, "plan", "-f", "-").expect(t, 1, `unknown field "nonsense"`)
}

// Secrets and connections among the manifests count as applied, and what reads them is planned.
func TestPlanOfWhatIsNotThereYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "plan-new")
	w.secret("source", map[string]string{"api-key": "canary-1"})
	sv := w.value("api-key")
	w.create(sv)
	w.eventually(sv, v1alpha1.ReasonSynced)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "source"}, StringData: map[string]string{"api-key": "canary-2", "fresh": "canary-3"}}
	fresh := w.value("fresh")
	planned := w.plan(2, manifest(t, secret, fresh))
	if len(planned) != 2 || planned[0].String() != "create fresh " || planned[1].String() != "rotate api-key " {
		t.Errorf("planned %v", planned)
	}
	secret.StringData = map[string]string{"fresh": "canary-3"}
	if planned := w.plan(0, manifest(t, secret)); len(planned) != 1 || planned[0].Action != "nothing" {
		t.Errorf("planned %v", planned)
	}
	for name, call := range map[string][]string{"plan": w.calls()} {
		if slices.ContainsFunc(call, func(c string) bool { return !strings.HasPrefix(c, "get ") && !strings.HasPrefix(c, "list ") }) {
			t.Errorf("%s wrote to Grafana: %v", name, call)
		}
	}
}

// Without the fingerprint key a plan does not know whether a Secret that changed has another value, and says so.
func TestPlanWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "plan-rights")
	w.secret("source", map[string]string{"api-key": "canary-1"})
	sv := w.value("api-key")
	w.create(sv)
	w.eventually(sv, v1alpha1.ReasonSynced)
	w.secret("source", map[string]string{"api-key": "canary-1", "more": "canary-2"})
	w.connected()
	grant(w, "planner", w.namespace, "grafana.securevalues.io", "grafanasecurevalues", "list")
	grant(w, "planner", w.namespace, "grafana.securevalues.io", "grafanaconnections", "get", "list")
	edited := sv.DeepCopy()
	edited.Spec.Description = "Another text"
	r := runWith(t, manifest(t, edited), nil, "plan", "-f", "-", "-n", w.namespace, "--as", "planner")
	r.expect(t, 1, "unknown", `You lack the right to get secrets "source" in namespace "plan-rights"`)
	grant(w, "planner", w.namespace, "", "secrets", "get")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "source"}, StringData: map[string]string{"third": "canary-3"}}
	runWith(t, manifest(t, secret), nil, "plan", "-f", "-", "-n", w.namespace, "--as", "planner").expect(t, 2, "may rotate   plan-rights/api-key",
		`the fingerprint key was not read (you lack the right to get secrets "grafana-secure-value-operator-fingerprint"`)
	w.only(w.plan(0, manifest(t, secret)), "nothing api-key")
	w.only(w.plan(2, manifest(t, edited)), "update api-key description")
}

// seedEnv is the seed of other random manifests than the usual ones.
const seedEnv = "PLAN_SEED"

// 200 random manifests are planned and applied. What follows in Grafana is what the plan says.
func TestPlanAgreesWithTheOperator(t *testing.T) {
	t.Parallel()
	const n = 200
	w := newWorld(t, "plan-random")
	seed := uint64(1)
	if text := os.Getenv(seedEnv); text != "" {
		_, err := fmt.Sscan(text, &seed)
		w.Expect(err).NotTo(HaveOccurred())
	}
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret depends on it
	t.Logf("seed %d", seed)
	data := map[string]string{"never": "canary-never"}
	for i := range 8 {
		data[fmt.Sprintf("key-%d", i)] = fmt.Sprintf("canary-%d", i%6) // some have the same value
	}
	w.secret("source", data)
	w.create(w.connection("second", w.url))
	w.connected()
	var objects []*v1alpha1.GrafanaSecureValue
	first, dir := t.TempDir(), t.TempDir()
	for i := range n {
		sv := w.randomValue(random, i)
		objects = append(objects, sv)
		if i%4 != 0 {
			w.write(first, sv)
		} else {
			w.beforehand(random, sv)
		}
	}
	w.apply(first)
	w.settle()
	for i, sv := range objects {
		next := sv.DeepCopy()
		if i%4 != 0 {
			w.edit(random, next)
		}
		w.write(dir, next)
	}
	r := run(t, "plan", "-f", dir, "-n", w.namespace, "-o", "json")
	r.expect(t, 2)
	want := map[string][]string{}
	counts := map[string]int{}
	for _, e := range decode[struct{ Plan []effect }](t, r).Plan {
		counts[e.Action]++
		if verb := verbOf(e.Action); verb != "" {
			want[e.SecureValue] = append(want[e.SecureValue], verb)
		}
	}
	t.Logf("planned %v", counts)
	w.grafana.ResetCalls()
	w.apply(dir)
	w.settle()
	got := map[string][]string{}
	for _, call := range w.grafana.Calls() {
		if call.Verb != grafanatest.VerbGet && call.Verb != grafanatest.VerbList && call.Code < 300 {
			got[call.Name] = append(got[call.Name], string(call.Verb))
		}
	}
	for name := range want {
		if !slices.Equal(want[name], got[name]) {
			t.Errorf("secure value %s: planned %v, and the operator did %v", name, want[name], got[name])
		}
	}
	for name := range got {
		if want[name] == nil {
			t.Errorf("secure value %s: planned nothing, and the operator did %v", name, got[name])
		}
	}
}

// verbOf is the call that an action is to be.
func verbOf(action string) string {
	switch action {
	case "create", "move":
		return "create"
	case "update", "rotate", "adopt":
		return "update"
	case "delete":
		return "delete"
	default:
		return ""
	}
}

func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// randomValue returns an object with a secure value of its own.
func (w *world) randomValue(random *rand.Rand, i int) *v1alpha1.GrafanaSecureValue {
	sv := w.value(fmt.Sprintf("value-%03d", i))
	sv.Spec.ValueFrom.SecretKeyRef.Key = fmt.Sprintf("key-%d", random.IntN(8))
	sv.Spec.Description = pick(random, "", "A text")
	sv.Spec.Decrypters = pick(random, nil, []string{"k6-cloud"}, []string{"k6-cloud", "synthetic-monitoring"})
	sv.Spec.DeletionPolicy = pick(random, v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyRetain)
	sv.Spec.AdoptionPolicy = pick(random, v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt)
	sv.Spec.Suspend = random.IntN(10) == 0
	return sv
}

// beforehand has Grafana show something under the name of an object that is not there yet.
func (w *world) beforehand(random *rand.Rand, sv *v1alpha1.GrafanaSecureValue) {
	stored := grafanatest.Stored{Name: sv.Name, Description: "By hand", Value: []byte("canary-hand"), Decrypters: []string{"k6-cloud"}}
	switch random.IntN(5) {
	case 0: // nothing
		return
	case 1: // nobody's
	case 2: // managed
		stored.Annotations = map[string]string{"grafana.app/managedBy": "terraform"}
	case 3: // another cluster's
		stored.Labels = map[string]string{
			ownership.LabelCluster: "another", ownership.LabelOwner: ownership.OwnerLabel("another", client.ObjectKeyFromObject(sv)),
		}
	default: // of an object that is gone
		w.orphanOf("gone", sv.Name, random.IntN(2) == 0)
		return
	}
	w.grafana.Put("default", stored)
}

// edit changes an object at random.
func (w *world) edit(random *rand.Rand, sv *v1alpha1.GrafanaSecureValue) {
	for range random.IntN(3) {
		switch random.IntN(8) {
		case 0:
			sv.Spec.Description = pick(random, "", "Another text")
		case 1:
			sv.Spec.Decrypters = pick(random, nil, []string{"provisioning.grafana.app"})
		case 2:
			sv.Spec.ValueFrom.SecretKeyRef.Key = pick(random, "key-0", "key-6", "missing")
		case 3:
			sv.Spec.Name = "moved-" + sv.Name
		case 4:
			sv.Spec.DeletionPolicy = pick(random, v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyRetain)
		case 5:
			sv.Spec.Suspend = !sv.Spec.Suspend
		case 6:
			sv.Spec.ConnectionRef.Name = pick(random, "second", "none")
		default:
			metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, "again")
		}
	}
}

// write writes the manifest of an object into a directory.
func (w *world) write(dir string, sv *v1alpha1.GrafanaSecureValue) {
	w.t.Helper()
	w.Expect(os.WriteFile(filepath.Join(dir, sv.Name+".yaml"), []byte(manifest(w.t, sv)), 0o600)).To(Succeed())
}

// apply applies manifests with kubectl.
func (w *world) apply(path string, args ...string) {
	w.t.Helper()
	args = append([]string{"apply", "-f", path, "-n", w.namespace, "--kubeconfig", plane.KubeconfigPath()}, args...)
	out, err := exec.CommandContext(w.t.Context(), plane.KubectlPath(), args...).CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), string(out))
}

// settle waits until the operator has done for each object what it can.
func (w *world) settle() {
	w.t.Helper()
	w.Eventually(func() []string {
		list := &v1alpha1.GrafanaSecureValueList{}
		if err := k8s.List(w.t.Context(), list, client.InNamespace(w.namespace)); err != nil {
			return []string{err.Error()}
		}
		var waiting []string
		for i := range list.Items {
			if sv := &list.Items[i]; !isSettled(sv) {
				waiting = append(waiting, sv.Name)
			}
		}
		return waiting
	}).Should(BeEmpty())
}

func isSettled(sv *v1alpha1.GrafanaSecureValue) bool {
	ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil || sv.Status.ObservedGeneration != sv.Generation:
		return false
	case ready.Reason == v1alpha1.ReasonSynced:
		again := sv.Annotations[v1alpha1.AnnotationSyncNow]
		return len(sv.Status.Targets) == 1 && len(ownership.Targets(sv)) == 1 && again == sv.Status.LastSyncNow && !sv.Spec.Suspend
	default:
		return ready.Reason == v1alpha1.ReasonSuspended == sv.Spec.Suspend
	}
}
