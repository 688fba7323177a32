package integration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// Whatever people do to some objects, and whenever the manager restarts meanwhile: at the end Grafana has what the specs say,
// and nothing of ours besides. The model of a history knows the specs alone, and nothing of what the manager did on its way.
var _ = Describe("Random histories", long, func() {
	const worlds = 10
	rounds := 3
	if os.Getenv(historiesSeedEnv) != "" {
		rounds = 10
	}

	for round := range rounds {
		It(fmt.Sprintf("end with what the specs say, round %d", round), func(ctx SpecContext) {
			seed := historiesSeed()
			var histories []*history
			for i := range worlds {
				histories = append(histories, newHistory(ctx, seed+uint64(round*worlds+i)))
			}
			fail := func(failures []string) {
				GinkgoHelper()
				if len(failures) > 0 {
					Fail(fmt.Sprintf("HISTORIES_SEED=%d, round %d\n%s", seed, round, strings.Join(failures, "\n\n")))
				}
			}

			// The restart comes into the middle of the steps, which do not wait for it.
			var half sync.WaitGroup
			half.Add(worlds)
			restarted := make(chan struct{})
			go func() {
				defer GinkgoRecover()
				defer close(restarted)
				half.Wait()
				stopManager()
				startManager()
			}()
			failures := concurrently(histories, func(h *history) { h.play(half.Done) })
			<-restarted
			fail(failures)
			fail(concurrently(histories, (*history).converge))
			fail(concurrently(histories, (*history).loseSecret))

			histories[0].world.settled()
			calls := map[*history][]string{}
			for _, h := range histories {
				calls[h] = h.writes()
			}
			histories[0].world.settled()
			for _, h := range histories {
				Expect(h.writes()).To(Equal(calls[h]), "writes at rest, HISTORIES_SEED=%d, round %d\n%s", seed, round, h)
			}

			fail(concurrently(histories, (*history).cleanSlate))
		})
	}
})

// historiesSeedEnv sets another seed of the first history, and makes the rounds more, as make soak-histories does again and again.
const historiesSeedEnv = "HISTORIES_SEED"

// historiesSeed is the seed of the first history; the others count on from there. It is the same in each run of the tests, save for what the
// manager makes of it.
func historiesSeed() uint64 {
	GinkgoHelper()
	given := os.Getenv(historiesSeedEnv)
	if given == "" {
		return 1
	}
	seed, err := strconv.ParseUint(given, 10, 64)
	Expect(err).NotTo(HaveOccurred(), historiesSeedEnv)
	return seed
}

// The pools are small, so that objects meet at the same names.
var (
	historyObjects     = []string{"one", "two", "three", "four", "five"}
	historyNames       = []string{"", "alpha", "beta", "gamma"} // empty is the object's own
	historyConnections = []string{"left", "right"}
	historyDecrypters  = []string{"synthetic-monitoring", "k6-cloud", "provisioning.grafana.app"}
)

const historySteps = 16

// historyTimeout is longer than an object waits for another one before it forgets what that one owns: a minute.
const historyTimeout = 3 * time.Minute

// history is some steps in one world, and the model of what people have asked for by them.
type history struct {
	seed    uint64
	world   *world
	servers map[string]*grafanatest.Server // by connection; one server may be behind both
	random  *rand.Rand
	Gomega                          // panics with the message
	log     []string                // the steps, for people
	objects map[string]*modelObject // those that live
	sources map[string]string       // what is in the Secret of each object
	gone    map[string]bool         // deleted, and perhaps still there
	left    map[modelTarget]bool    // where a value may have been left by deletionPolicy Retain
	sets    *modelSets              // nil: none in this history
	tokens  int
}

// modelObject is what the spec of an object says.
type modelObject struct {
	name, connection string
	description      string
	decrypters       []string
	retain, suspend  bool
	syncNow          string
	named            []modelTarget // since it was created
	value            string        // of its Secret, in claims alone
	sourceless       bool          // its Secret or key is missing
}

// modelTarget is a name in a Grafana, through any connection.
type modelTarget struct {
	server *grafanatest.Server
	name   string
}

func newHistory(ctx context.Context, seed uint64) *history {
	GinkgoHelper()
	h := &history{
		seed: seed, world: newWorld(ctx), random: rand.New(rand.NewPCG(seed, 0)),
		servers: map[string]*grafanatest.Server{}, objects: map[string]*modelObject{}, sources: map[string]string{},
		gone: map[string]bool{}, left: map[modelTarget]bool{},
	}
	h.Gomega = NewGomega(func(message string, _ ...int) { panic(failure(message)) })
	h.servers["left"], h.servers["right"] = h.world.grafana, h.world.grafana
	url := h.world.url
	if h.random.IntN(2) == 0 {
		h.servers["right"], url = anotherGrafana()
		h.note("two Grafanas")
	}
	for _, name := range historyConnections {
		conn := h.world.connection(name)
		if name == "right" {
			conn.Spec.URL = url
		}
		h.world.create(conn)
	}
	for _, name := range historyObjects {
		h.sources[name] = "canary-" + name + "-0"
		h.world.secret(name, map[string]string{"key": h.sources[name]})
	}
	if seed%2 == 0 { // the others are as they were before there were sets
		h.sets = newModelSets()
		for _, name := range historySetSecrets {
			h.editSetSecret(name, func(map[string]string) {})
		}
	}
	return h
}

// failure is what a history panics with, so that its steps can be reported with it.
type failure string

// concurrently runs the same part of all histories, and returns the steps and messages of those that failed.
func concurrently(histories []*history, part func(*history)) []string {
	failures := make([]string, len(histories))
	var running sync.WaitGroup
	for i, h := range histories {
		running.Go(func() {
			defer func() {
				switch e := recover().(type) {
				case nil:
				case failure:
					failures[i] = fmt.Sprintf("%s\nCalls:\n\t%s\n%s", h, strings.Join(h.calls(), "\n\t"), e)
				default:
					failures[i] = fmt.Sprintf("%s\npanic: %v", h, e)
				}
			}()
			part(h)
		})
	}
	running.Wait()
	return slices.DeleteFunc(failures, func(f string) bool { return f == "" })
}

func (h *history) String() string {
	return fmt.Sprintf("history of seed %d in namespace %s:\n\t%s", h.seed, h.world.namespace, strings.Join(h.log, "\n\t"))
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// play takes the steps, and says when half of them are done.
func (h *history) play(half func()) {
	once := sync.OnceFunc(half)
	defer once()
	for i := range historySteps {
		if i == historySteps/2 {
			h.note("-- the manager is restarted about now")
			once()
		}
		h.step()
		if h.random.IntN(5) == 0 {
			h.note("-- rest")
			h.rest()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.objects)) {
		if h.objects[name].suspend {
			h.edit(name, "resume", func(o *modelObject) { o.suspend = false })
		}
	}
	if h.sets != nil {
		h.resumeSets()
	}
}

// step is one edit of one object, or of its Secret, or of a set.
func (h *history) step() {
	if h.sets != nil && h.random.IntN(3) > 0 {
		h.setStep()
		return
	}
	name := pick(h, historyObjects)
	o, lives := h.objects[name]
	if !lives {
		h.create(name)
		return
	}
	switch h.random.IntN(14) {
	case 0, 1:
		h.rotate(name)
	case 2:
		h.edit(name, "edit", func(o *modelObject) {
			o.description = fmt.Sprintf("text %d", h.random.IntN(100))
			o.decrypters = []string{pick(h, historyDecrypters)}
		})
	case 3, 4, 5, 6:
		h.edit(name, "move", func(o *modelObject) { o.name = pick(h, historyNames) })
	case 7:
		h.edit(name, "move", func(o *modelObject) { o.connection = pick(h, historyConnections) })
	case 8:
		h.edit(name, "move", func(o *modelObject) {
			o.name, o.connection = pick(h, historyNames), pick(h, historyConnections)
		})
	case 9:
		h.edit(name, "suspend or resume", func(o *modelObject) { o.suspend = !o.suspend })
	case 10:
		h.tokens++
		h.edit(name, "sync now", func(o *modelObject) { o.syncNow = strconv.Itoa(h.tokens) })
	case 11:
		h.edit(name, "retain or not", func(o *modelObject) { o.retain = !o.retain })
	default:
		h.note("delete %s, which is %+v", name, *o)
		h.Expect(k8s.Delete(h.world.ctx, h.object(name))).To(Succeed())
		delete(h.objects, name)
		h.gone[name] = true
	}
}

func pick[T any](h *history, from []T) T { return from[h.random.IntN(len(from))] }

// create makes the object, unless its namesake is still there, which is being deleted.
func (h *history) create(name string) {
	o := &modelObject{
		name: pick(h, historyNames), connection: pick(h, historyConnections), decrypters: historyDecrypters[:1],
		retain: h.random.IntN(4) == 0,
	}
	sv := h.object(name)
	o.apply(sv)
	err := k8s.Create(h.world.ctx, sv)
	if apierrors.IsAlreadyExists(err) {
		h.note("create %s: its namesake is still there", name)
		return
	}
	h.Expect(err).NotTo(HaveOccurred())
	h.objects[name] = o
	delete(h.gone, name)
	h.asked(name, o)
	h.note("create %s as %s", name, o)
}

func (h *history) rotate(name string) {
	h.sources[name] = fmt.Sprintf("canary-%s-%d", name, h.random.IntN(1_000_000))
	h.note("rotate %s to %s", name, h.sources[name])
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.namespace, Name: name}}
	secret.Data = map[string][]byte{"key": []byte(h.sources[name])}
	h.Expect(k8s.Update(h.world.ctx, secret)).To(Succeed())
}

func (h *history) edit(name, what string, change func(*modelObject)) {
	o := h.objects[name]
	change(o)
	h.note("%s %s: %s", what, name, o)
	sv := h.object(name)
	h.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
	base := sv.DeepCopy()
	o.apply(sv)
	h.Expect(k8s.Patch(h.world.ctx, sv, client.MergeFrom(base))).To(Succeed())
	h.asked(name, o)
}

// asked notes what may come of what was asked: an object that retains leaves values wherever it has been.
func (h *history) asked(name string, o *modelObject) {
	o.named = append(o.named, h.targetOf(name, o))
	if o.retain {
		for _, p := range o.named {
			h.left[p] = true
		}
	}
}

func (h *history) targetOf(name string, o *modelObject) modelTarget {
	return modelTarget{server: h.servers[o.connection], name: cmp.Or(o.name, name)}
}

func (h *history) object(name string) *v1alpha1.GrafanaSecureValue {
	sv := h.world.value(name)
	sv.Spec.ValueFrom.SecretKeyRef.Name = name
	return sv
}

func (o *modelObject) String() string {
	return fmt.Sprintf("%s through %s, retain %t, suspend %t", cmp.Or(o.name, "its own name"), o.connection, o.retain, o.suspend)
}

// apply makes the object in Kubernetes that of the model.
func (o *modelObject) apply(sv *v1alpha1.GrafanaSecureValue) {
	sv.Spec.Name, sv.Spec.ConnectionRef.Name = o.name, o.connection
	sv.Spec.Description, sv.Spec.Decrypters, sv.Spec.Suspend = o.description, o.decrypters, o.suspend
	sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
	if o.retain {
		sv.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
	}
	if o.syncNow != "" {
		metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, o.syncNow)
	}
}

// rest waits until the manager has observed everything that was asked so far.
func (h *history) rest() {
	h.Eventually(func(g Gomega) {
		for name, o := range h.objects {
			sv := h.object(name)
			g.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
			g.Expect(sv.Status.ObservedGeneration).To(Equal(sv.Generation), "%s is %s: %+v", name, o, sv.Status)
		}
		for name := range h.gone {
			sv := h.object(name)
			g.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(sv), sv)).NotTo(Succeed(), "%s was deleted: %+v", name, sv.Status)
		}
		if h.sets != nil {
			h.restSets(g)
		}
	}).WithTimeout(historyTimeout).Should(Succeed())
}

// converge waits until Grafana, and status, are as the model says.
func (h *history) converge() {
	h.rest()
	h.Eventually(h.differences).WithTimeout(historyTimeout).Should(BeEmpty())
}

// differences compares Kubernetes and Grafana with the model.
func (h *history) differences() []string {
	var found []string
	differs := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	objects := h.claims(&found)
	reasons, answered := map[string]string{}, map[string]string{}
	owned, kept := map[string][]modelTarget{}, map[modelTarget]bool{}
	byTarget := map[modelTarget][]string{}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		sv := h.object(name)
		if err := k8s.Get(h.world.ctx, client.ObjectKeyFromObject(sv), sv); err != nil {
			differs("%s: %s", name, err)
			continue
		}
		reasons[name] = describe(sv.Status.ObservedGeneration, sv.Status.Conditions)
		reasons[name] = strings.TrimPrefix(reasons[name], fmt.Sprintf("%d/%d ", sv.Generation, sv.Generation))
		answered[name] = sv.Status.LastSyncNow
		p := h.targetOf(name, objects[name])
		byTarget[p] = append(byTarget[p], name)
		owned[name] = h.recorded(sv)
		// What an object moves away from stays until it gets what it names: what it owns, and what it was about to take over.
		for _, t := range owned[name] {
			kept[t] = kept[t] || objects[name].sourceless || reasons[name] == "False "+v1alpha1.ReasonNameConflict
		}
	}
	for p, names := range byTarget {
		owners := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return reasons[name] != "True "+v1alpha1.ReasonSynced
		})
		for _, name := range names {
			if !slices.Contains(owners, name) && reasons[name] != "False "+v1alpha1.ReasonNameConflict && !objects[name].saysSo(reasons[name]) {
				differs("%s says %s", name, reasons[name])
			}
		}
		if len(owners) == 0 && slices.ContainsFunc(names, func(name string) bool { return objects[name].sourceless }) && h.isHeld(p, names, objects) {
			continue
		}
		if len(owners) != 1 {
			differs("%s is named by %v and owned by %v", p.name, names, owners)
			continue
		}
		owner := owners[0]
		o := objects[owner]
		stored, there := p.server.Value(grafanaNS, p.name)
		if !there {
			differs("%s of %s is not in Grafana", p.name, owner)
			continue
		}
		if string(stored.Value) != o.value {
			differs("%s of %s is %s and not %s", p.name, owner, stored.Value, o.value)
		}
		if want := cmp.Or(o.description, v1alpha1.DefaultDescription); stored.Description != want {
			differs("%s of %s has description %q and not %q", p.name, owner, stored.Description, want)
		}
		if !slices.Equal(stored.Decrypters, o.decrypters) {
			differs("%s of %s has decrypters %v and not %v", p.name, owner, stored.Decrypters, o.decrypters)
		}
		if label := stored.Labels[labelOwner]; label != h.ownerLabel(owner) {
			differs("%s of %s is labelled as of %s", p.name, owner, stored.Annotations[annotationResource])
		}
		if !slices.Equal(owned[owner], []modelTarget{p}) {
			differs("%s owns %s and says that it owns %v", owner, p.name, owned[owner])
		}
		if o.syncNow != answered[owner] {
			differs("%s answered sync-now %q and not %q", owner, answered[owner], o.syncNow)
		}
	}
	for p, stored := range h.inGrafana() {
		if byTarget[p] == nil && !h.left[p] && !kept[p] {
			differs("%s is in Grafana, and named by nobody: %v", p.name, stored.Annotations)
		}
	}
	return found
}

// claims returns the objects that are to be there, with the values of their Secrets.
func (h *history) claims(found *[]string) map[string]*modelObject {
	objects := map[string]*modelObject{}
	if h.sets != nil {
		objects, *found = h.setClaims()
	}
	for name, o := range h.objects {
		claim := *o
		claim.value = h.sources[name]
		objects[name] = &claim
	}
	return objects
}

// saysSo reports whether an object without a source says that.
func (o *modelObject) saysSo(reason string) bool {
	return o.sourceless && (reason == "False "+v1alpha1.ReasonSecretNotFound || reason == "False "+v1alpha1.ReasonSecretKeyNotFound)
}

// isHeld reports whether one without a source has the target, since its last value stays, or nobody else wants it.
func (h *history) isHeld(p modelTarget, names []string, objects map[string]*modelObject) bool {
	stored, there := p.server.Value(grafanaNS, p.name)
	others := false
	for _, name := range names {
		if objects[name].sourceless && there && stored.Labels[labelOwner] == h.ownerLabel(name) {
			return true
		}
		others = others || !objects[name].sourceless
	}
	return !others
}

func (h *history) recordedTarget(t v1alpha1.TargetStatus) modelTarget {
	return modelTarget{server: h.servers[t.Connection.Name], name: t.Name}
}

// recorded returns the targets that the object says it owns, or has pending.
func (h *history) recorded(sv *v1alpha1.GrafanaSecureValue) []modelTarget {
	var targets []modelTarget
	for _, t := range sv.Status.Targets {
		targets = append(targets, h.recordedTarget(t))
	}
	for pending := range strings.SplitSeq(sv.Annotations[v1alpha1.AnnotationPendingTargets], ",") {
		f := strings.Split(pending, "/") // kind, connection, namespace, name
		if len(f) != 4 {
			continue
		}
		if p := (modelTarget{server: h.servers[f[1]], name: f[3]}); !slices.Contains(targets, p) {
			targets = append(targets, p)
		}
	}
	return targets
}

// inGrafana returns all that is in Grafana.
func (h *history) inGrafana() map[modelTarget]grafanatest.Stored {
	all := map[modelTarget]grafanatest.Stored{}
	for _, server := range h.servers {
		for name, stored := range server.Values(grafanaNS) {
			all[modelTarget{server: server, name: name}] = stored
		}
	}
	return all
}

// ownerLabel is the owner label of what the object owns.
func (h *history) ownerLabel(name string) string {
	return ownerLabelOf(clusterID, h.world.namespace, name)
}

// calls returns the calls of all servers, without the LISTs of connections.
func (h *history) calls() []string {
	calls := h.world.calls()
	if other := h.servers["right"]; other != h.world.grafana {
		for _, c := range other.Calls() {
			if c.Verb != grafanatest.VerbList {
				calls = append(calls, fmt.Sprintf("%s %s", c.Verb, c.Name))
			}
		}
	}
	return calls
}

// writes are the calls that change Grafana. An object that found its name taken goes on asking for it.
func (h *history) writes() []string {
	return slices.DeleteFunc(h.calls(), func(call string) bool { return strings.HasPrefix(call, "get ") })
}

// cleanSlate adopts what was retained and deletes everything. Nothing of ours may be left.
func (h *history) cleanSlate() {
	if h.sets != nil {
		h.cleanSets()
	}
	owners := map[modelTarget]string{} // by the owner label of one that lists it
	for name := range h.objects {
		sv := h.object(name)
		h.Expect(k8s.Get(h.world.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		for _, p := range h.recorded(sv) {
			if stored, there := p.server.Value(grafanaNS, p.name); there && stored.Labels[labelOwner] == h.ownerLabel(name) {
				owners[p] = name
			}
		}
	}
	adopters := 0
	for p := range h.inGrafana() {
		if owners[p] != "" {
			continue
		}
		name := fmt.Sprintf("adopter-%d", adopters)
		adopters++
		connection := "left"
		if p.server != h.servers[connection] {
			connection = "right"
		}
		o := &modelObject{name: p.name, connection: connection, decrypters: historyDecrypters[:1]}
		h.note("create %s as %s", name, o)
		h.sources[name] = "canary-" + name
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.namespace, Name: name}}
		secret.Data = map[string][]byte{"key": []byte(h.sources[name])}
		h.Expect(k8s.Create(h.world.ctx, secret)).To(Succeed())
		sv := h.object(name)
		o.apply(sv)
		h.Expect(k8s.Create(h.world.ctx, sv)).To(Succeed())
		h.objects[name] = o
	}
	for _, name := range slices.Sorted(maps.Keys(h.objects)) {
		if h.objects[name].retain {
			h.edit(name, "retain no more", func(o *modelObject) { o.retain = false })
		}
	}
	h.converge()

	for _, name := range slices.Sorted(maps.Keys(h.objects)) {
		h.note("delete %s", name)
		h.Expect(k8s.Delete(h.world.ctx, h.object(name))).To(Succeed())
		delete(h.objects, name)
		h.gone[name] = true
	}
	h.rest()
	var remaining []string
	for p, stored := range h.inGrafana() {
		remaining = append(remaining, fmt.Sprintf("%s: %v", p.name, stored.Annotations))
	}
	h.Expect(remaining).To(BeEmpty())
}
