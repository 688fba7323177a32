package integration

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const (
	labelCluster       = "securevalues.io.cluster"
	labelOwner         = "securevalues.io.owner"
	labelConnection    = "securevalues.io.connection"
	labelRetain        = "securevalues.io.retain"
	annotationResource = v1alpha1.GroupName + "/resource"
)

// hash is the first hexadecimal digits of SHA-256 over the parts, each with its length as 8 bytes before it.
func hash(digits int, parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))[:digits]
}

// ownerLabelOf is the owner label of an object of a cluster.
func ownerLabelOf(cluster, namespace, name string) string {
	return hash(24, cluster, namespace) + "." + hash(24, cluster, namespace, name)
}

// ownerLabel is the owner label of the object in the suite's cluster.
func ownerLabel(sv *v1alpha1.GrafanaSecureValue) string {
	return ownerLabelOf(clusterID, sv.Namespace, sv.Name)
}

// labelled returns a value with the labels of an object of the cluster, written through the spec's connection.
func labelled(name, cluster, namespace, object string) grafanatest.Stored {
	return grafanatest.Stored{
		Name: name, Description: "theirs", Value: []byte("their value"),
		Labels: map[string]string{
			labelCluster:    cluster,
			labelOwner:      ownerLabelOf(cluster, namespace, object),
			labelConnection: hash(40, string(v1alpha1.KindGrafanaConnection), namespace, connectionRef),
		},
		Annotations: map[string]string{annotationResource: namespace + "/" + object},
	}
}

// neighbour returns another namespace with a connection of its own to the same Grafana.
func (w *world) neighbour() *world {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "neighbour-"}}
	Expect(k8s.Create(w.ctx, ns)).To(Succeed())
	n := &world{ctx: w.ctx, namespace: ns.Name, grafana: w.grafana, url: w.url}
	DeferCleanup(func(ctx context.Context) {
		n.checkInvariants(ctx)
		n.cleanUp(ctx)
	})
	n.secret("grafana", map[string]string{"token": goodToken})
	n.create(n.connection(connectionRef))
	n.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
	return n
}

// anotherGrafana starts one more Grafana, without a connection to it.
func (w *world) anotherGrafana() *world {
	GinkgoHelper()
	server, url := anotherGrafana()
	return &world{ctx: w.ctx, namespace: w.namespace, grafana: server, url: url}
}

// connected makes a connection of that name to the world's Grafana, and waits until it is Ready.
func (w *world) connected(name string) {
	GinkgoHelper()
	w.create(w.connection(name))
	w.eventuallyConnection(name, v1alpha1.ReasonConnected)
}

// shortTimeout keeps a spec quick that restarts the manager, or loses an answer, and then waits for a deletion.
func (w *world) shortTimeout() {
	GinkgoHelper()
	edit(w, w.connection(connectionRef), func(c *v1alpha1.GrafanaConnection) { c.Spec.RequestTimeout = "5s" })
	w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
}

// valueFrom is value with the Secret of the given name, which is made with the value.
func (w *world) valueFrom(name, secretName, value string) *v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	w.secret(secretName, map[string]string{"key": value})
	sv := w.value(name)
	sv.Spec.ValueFrom.SecretKeyRef.Name = secretName
	return sv
}

// syncedAs makes an object with a Secret of its own under a name in Grafana, and waits until it is Ready.
func (w *world) syncedAs(object, name, value string) *v1alpha1.GrafanaSecureValue {
	GinkgoHelper()
	sv := w.valueFrom(object, object+"-source", value)
	sv.Spec.Name = name
	w.create(sv)
	w.eventuallySynced(sv)
	return sv
}

// rename names another secure value in spec.
func (w *world) rename(sv *v1alpha1.GrafanaSecureValue, name string) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = name })
}

// reconnect names another connection of the namespace in spec.
func (w *world) reconnect(sv *v1alpha1.GrafanaSecureValue, name string) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.ConnectionRef.Name = name })
}

// syncNow asks for the value to be written again.
func (w *world) syncNow(sv *v1alpha1.GrafanaSecureValue, token string) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
		metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationSyncNow, token)
	})
}

// eventuallyAnswered waits until the object says that the token was answered.
func (w *world) eventuallyAnswered(sv *v1alpha1.GrafanaSecureValue, token string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(sv.Status.LastSyncNow).To(Equal(token))
	}).Should(Succeed())
}

// eventuallySuspended waits until the object acknowledges suspend for its latest generation, with the status that Ready keeps.
func (w *world) eventuallySuspended(sv *v1alpha1.GrafanaSecureValue, ready metav1.ConditionStatus) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		w.refresh(sv)
		g.Expect(describe(sv.Status.ObservedGeneration, sv.Status.Conditions)).
			To(Equal(fmt.Sprintf("%d/%d %s Suspended", sv.Generation, sv.Generation, ready)))
		g.Expect(meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReconciling)).To(BeNil())
		g.Expect(meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionStalled)).To(BeNil())
	}).Should(Succeed())
}

// refresh reads the object, which must be there.
func (w *world) refresh(o client.Object) {
	GinkgoHelper()
	Expect(k8s.Get(w.ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
}

// eventuallyObserved waits until the status of the object is that of its latest generation.
func (w *world) eventuallyObserved(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		w.refresh(sv)
		g.Expect(sv.Status.ObservedGeneration).To(Equal(sv.Generation))
	}).Should(Succeed())
}

// eventuallyNotStored waits until Grafana holds nothing under a name.
func (w *world) eventuallyNotStored(name string) {
	GinkgoHelper()
	Eventually(func() bool {
		_, found := w.grafana.Value(grafanaNS, name)
		return found
	}).Should(BeFalse(), "secure value %s stays in Grafana", name)
}

// contents returns what is in the world's Grafana, as "name=value", sorted.
func (w *world) contents() []string {
	contents := []string{}
	for name, stored := range w.grafana.Values(grafanaNS) {
		contents = append(contents, name+"="+string(stored.Value))
	}
	slices.Sort(contents)
	return contents
}

// countOf returns how many of the calls to Grafana did this.
func (w *world) countOf(verb grafanatest.Verb) int {
	n := 0
	for _, c := range w.grafana.Calls() {
		if c.Verb == verb {
			n++
		}
	}
	return n
}

// eventuallyEvent waits until there is an event of the reason about the object. Events come a little after the change.
func (w *world) eventuallyEvent(sv *v1alpha1.GrafanaSecureValue, reason string) {
	GinkgoHelper()
	Eventually(func() []string { return w.events(sv) }).Should(ContainElement(reason))
}

// events returns the reasons of the events about the object.
func (w *world) events(sv *v1alpha1.GrafanaSecureValue) []string {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(k8s.List(w.ctx, list, client.InNamespace(sv.Namespace))).To(Succeed())
	var reasons []string
	for _, e := range list.Items {
		if e.Regarding.UID == sv.UID {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

// removeByForce removes the object without the operator: its finalizers are removed by hand.
func (w *world) removeByForce(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	w.dropFinalizers(sv)
	w.delete(sv)
	w.eventuallyGone(sv)
}

// dropFinalizers removes the finalizers of an object by hand.
func (w *world) dropFinalizers(sv *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	Expect(client.IgnoreNotFound(k8s.Patch(w.ctx, sv, patch))).To(Succeed())
}

// anew returns the object as its YAML would make it again: without status and without what the operator put there.
func anew(sv *v1alpha1.GrafanaSecureValue) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Namespace: sv.Namespace, Name: sv.Name},
		Spec:       *sv.Spec.DeepCopy(),
	}
}

// dropPermission takes an action from the token of the connections. What it returns gives them another token, which may do
// everything.
func (w *world) dropPermission(action grafanatest.Action) (grant func()) {
	var rest []grafanatest.Permission
	for _, p := range grafanatest.AllPermissions() {
		if p.Action != action {
			rest = append(rest, p)
		}
	}
	w.grafana.AddToken(goodToken, rest...)
	return func() {
		w.grafana.AddToken(goodToken + "-2")
		w.secret("grafana", map[string]string{"token": goodToken + "-2"})
	}
}

// pending is how the operator lists a target that is about to be written under that name through the spec's connection.
func pending(name string) string {
	return fmt.Sprintf("%s/%s/%s/%s", v1alpha1.KindGrafanaConnection, connectionRef, grafanaNS, name)
}

// addPending does by hand what the operator does before it writes that name.
func (w *world) addPending(sv *v1alpha1.GrafanaSecureValue, name string) {
	GinkgoHelper()
	edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) {
		metav1.SetMetaDataAnnotation(&sv.ObjectMeta, v1alpha1.AnnotationPendingTargets, pending(name))
	})
}

// eventuallyPending waits until the object lists the name as a pending target.
func (w *world) eventuallyPending(sv *v1alpha1.GrafanaSecureValue, name string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		w.refresh(sv)
		g.Expect(strings.Split(sv.Annotations[v1alpha1.AnnotationPendingTargets], ",")).To(ContainElement(pending(name)))
	}).Should(Succeed())
}

// putAs stores a value as the operator writes it for the object.
func (w *world) putAs(sv *v1alpha1.GrafanaSecureValue, name, value string) {
	stored := labelled(name, clusterID, sv.Namespace, sv.Name)
	stored.Description, stored.Decrypters, stored.Value = sv.DescriptionOrDefault(), sv.Spec.Decrypters, []byte(value)
	w.grafana.Put(grafanaNS, stored)
}

// statusReason is the reason of Ready.
func statusReason(sv *v1alpha1.GrafanaSecureValue) string {
	ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return ""
	}
	return ready.Reason
}
