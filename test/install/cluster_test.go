package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

const (
	release           = "grafana-secure-value-operator"
	operatorNamespace = "grafana-secure-value-operator-system"
	team              = "team-a" // whose objects the specs make
	token             = "glsa_canary-token"
	grafanaNS         = "stacks-1234"
)

// cluster is a control plane of a spec's own, without anything of ours, and a Grafana.
type cluster struct {
	ctx        context.Context
	plane      *controlplane.ControlPlane
	k8s        client.Client // of an administrator, which reads live
	kubeconfig string        // of an administrator
	grafana    *grafanatest.Server
	grafanaURL string
}

func newCluster(ctx context.Context) *cluster {
	GinkgoHelper()
	plane, err := controlplane.Start(controlplane.Options{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(plane.Stop()).To(Succeed()) })
	admin, err := plane.AddUser("spec", "system:masters")
	Expect(err).NotTo(HaveOccurred())
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme} {
		Expect(add(scheme)).To(Succeed())
	}
	k8s, err := client.New(admin, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	grafana := grafanatest.New(grafanatest.WithNamespaces(grafanaNS))
	grafana.AddToken(token)
	running, err := grafana.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(running.Close)

	c := &cluster{ctx: ctx, plane: plane, k8s: k8s, grafana: grafana, grafanaURL: running.URL}
	c.kubeconfig = c.kubeconfigOf(admin)
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team}})
	return c
}

// kubeconfigOf writes a file with which helm, kubectl and the manager act as the user.
func (c *cluster) kubeconfigOf(user *rest.Config) string {
	GinkgoHelper()
	config := api.NewConfig()
	config.Clusters["cluster"] = &api.Cluster{Server: user.Host, CertificateAuthorityData: user.CAData}
	config.AuthInfos["user"] = &api.AuthInfo{ClientCertificateData: user.CertData, ClientKeyData: user.KeyData, Token: user.BearerToken}
	config.Contexts["context"] = &api.Context{Cluster: "cluster", AuthInfo: "user"}
	config.CurrentContext = "context"
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(*config, path)).To(Succeed())
	return path
}

// helm runs helm as an administrator. It must succeed; its output is returned.
func (c *cluster) helm(args ...string) string {
	GinkgoHelper()
	out, err := c.tryHelm(c.kubeconfig, args...)
	Expect(err).NotTo(HaveOccurred(), "helm %s\n%s", strings.Join(args, " "), out)
	return out
}

func (c *cluster) tryHelm(kubeconfig string, args ...string) (string, error) {
	return c.command(kubeconfig, helmPath, args...)
}

// install installs the chart as README says, with further arguments of helm.
func (c *cluster) install(args ...string) string {
	GinkgoHelper()
	return c.helm(append(withImage("install", release, chart(), "--create-namespace"), args...)...)
}

func (c *cluster) upgrade(args ...string) {
	GinkgoHelper()
	c.helm(append(withImage("upgrade", release, chart()), args...)...)
}

// withImage returns arguments of helm that install or upgrade a release in the operator's namespace, with an image.
func withImage(args ...string) []string {
	return append(args, "--namespace", operatorNamespace, "--set", "image.repository=registry.example.com/operator")
}

func (c *cluster) uninstall() string {
	GinkgoHelper()
	return c.helm("uninstall", release, "--namespace", operatorNamespace)
}

func chart() string { return filepath.Join(root, helm.Chart) }

// kubectl runs kubectl as an administrator, with the given input. It must succeed; its output is returned.
func (c *cluster) kubectl(input string, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(c.ctx, c.plane.KubectlPath(), args...)
	cmd.Env, cmd.Dir, cmd.Stdin = c.environment(c.kubeconfig), root, strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "kubectl %s\n%s", strings.Join(args, " "), out)
	return string(out)
}

func (c *cluster) command(kubeconfig, name string, args ...string) (string, error) {
	GinkgoHelper()
	cmd := exec.CommandContext(c.ctx, name, args...)
	cmd.Env, cmd.Dir = c.environment(kubeconfig), root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// environment leaves out the settings of the person who runs the tests. In it, helm and kubectl are the tests' own.
func (c *cluster) environment(kubeconfig string) []string {
	GinkgoHelper()
	bin := GinkgoT().TempDir()
	Expect(os.Symlink(helmPath, filepath.Join(bin, "helm"))).To(Succeed())
	Expect(os.Symlink(c.plane.KubectlPath(), filepath.Join(bin, "kubectl"))).To(Succeed())
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + bin, "KUBECONFIG=" + kubeconfig}
}

func (c *cluster) create(o client.Object) {
	GinkgoHelper()
	Expect(c.k8s.Create(c.ctx, o)).To(Succeed())
}

func (c *cluster) delete(o client.Object) {
	GinkgoHelper()
	Expect(client.IgnoreNotFound(c.k8s.Delete(c.ctx, o))).To(Succeed())
}

// exists says whether the object is there.
func (c *cluster) exists(o client.Object) bool {
	GinkgoHelper()
	err := c.k8s.Get(c.ctx, client.ObjectKeyFromObject(o), o)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}

// secret makes the Secret of the team, or gives it another value.
func (c *cluster) secret(name, key, value string) {
	GinkgoHelper()
	c.secretIn(team, name, key, value)
}

func (c *cluster) secretIn(namespace, name, key, value string) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	found := c.exists(secret)
	secret.Data = map[string][]byte{key: []byte(value)}
	if found {
		Expect(c.k8s.Update(c.ctx, secret)).To(Succeed())
		return
	}
	c.create(secret)
}

// connect makes the team's connection to Grafana.
func (c *cluster) connect() *v1alpha1.GrafanaConnection {
	GinkgoHelper()
	c.secret("grafana", "token", token)
	conn := &v1alpha1.GrafanaConnection{
		ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: "prod"},
		Spec: v1alpha1.GrafanaConnectionSpec{ConnectionSpec: v1alpha1.ConnectionSpec{
			URL: c.grafanaURL, Namespace: grafanaNS,
			RequestTimeout: "5s", // after a start, a deletion waits for as long
			Credentials:    v1alpha1.Credentials{TokenSecretRef: v1alpha1.SecretKeyReference{Name: "grafana", Key: "token"}},
		}},
	}
	c.create(conn)
	return conn
}

// value returns an object of the team that reads key "key" of Secret "source".
func value(name string) *v1alpha1.GrafanaSecureValue {
	return &v1alpha1.GrafanaSecureValue{
		ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: name},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef:       v1alpha1.ConnectionReference{Kind: v1alpha1.KindGrafanaConnection, Name: "prod"},
			SecureValueSettings: v1alpha1.SecureValueSettings{Decrypters: []string{"synthetic-monitoring"}},
			ValueFrom:           v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "source", Key: "key"}},
		},
	}
}

// synced makes a connection, and an object whose value is in Grafana.
func (c *cluster) synced() (*v1alpha1.GrafanaConnection, *v1alpha1.GrafanaSecureValue) {
	GinkgoHelper()
	conn := c.connect()
	c.secret("source", "key", "canary-1")
	sv := value("api-key")
	c.create(sv)
	c.eventuallySays(sv, v1alpha1.ReasonSynced)
	return conn, sv
}

// lives takes a value through its life: it is created, rotated and deleted.
func (c *cluster) lives() {
	GinkgoHelper()
	conn, sv := c.synced()
	c.eventuallyStored("api-key", "canary-1")
	c.secret("source", "key", "canary-2")
	c.eventuallyStored("api-key", "canary-2")
	c.delete(sv)
	c.delete(conn)
	c.eventuallyGone(sv, conn)
	Expect(c.grafana.Values(grafanaNS)).To(BeEmpty())
}

func (c *cluster) eventuallySays(sv *v1alpha1.GrafanaSecureValue, reason string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(c.k8s.Get(c.ctx, client.ObjectKeyFromObject(sv), sv)).To(Succeed())
		g.Expect(sv.Status.ObservedGeneration).To(Equal(sv.Generation))
		ready := meta.FindStatusCondition(sv.Status.Conditions, v1alpha1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Reason).To(Equal(reason), ready.Message)
	}).Should(Succeed())
}

func (c *cluster) eventuallyStored(name, value string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		stored, found := c.grafana.Value(grafanaNS, name)
		g.Expect(found).To(BeTrue())
		g.Expect(string(stored.Value)).To(Equal(value))
	}).Should(Succeed())
}

func (c *cluster) eventuallyGone(objects ...client.Object) {
	GinkgoHelper()
	for _, o := range objects {
		Eventually(func() bool { return c.exists(o) }).Should(BeFalse(), "%T %s is still there", o, o.GetName())
	}
}

// settled waits until the manager has seen all that was done so far: it makes one more object and waits until that has gone through the
// same queue, and its last write has come back.
func (c *cluster) settled() {
	GinkgoHelper()
	for range 2 {
		marker := value("marker")
		marker.Spec.ConnectionRef.Name = "none"
		c.create(marker)
		c.eventuallySays(marker, v1alpha1.ReasonConnectionNotFound)
		c.delete(marker)
		c.eventuallyGone(marker)
	}
}

// writesToGrafana returns all calls that change something there, as "verb name".
func (c *cluster) writesToGrafana() []string {
	writes := []string{}
	for _, call := range c.grafana.Calls() {
		if call.Verb != grafanatest.VerbList && call.Verb != grafanatest.VerbGet {
			writes = append(writes, fmt.Sprintf("%s %s", call.Verb, call.Name))
		}
	}
	return writes
}

// requests returns the wanted requests of the user since the mark, as "verb resource name".
func (c *cluster) requests(user string, since controlplane.Mark, wanted func(controlplane.AuditEvent) bool) []string {
	GinkgoHelper()
	events, err := c.plane.Audit(since)
	Expect(err).NotTo(HaveOccurred())
	found := []string{}
	for _, e := range events {
		if e.User == user && wanted(e) {
			found = append(found, fmt.Sprintf("%s %s/%s %s/%s", e.Verb, e.Resource, e.Subresource, e.Namespace, e.Name))
		}
	}
	return found
}

// statusWrite reports whether a request writes the status of one of our kinds, the marker of settled apart.
func statusWrite(e controlplane.AuditEvent) bool {
	return e.Subresource == "status" && e.Verb == "patch" && e.Name != "marker"
}

func denied(e controlplane.AuditEvent) bool { return e.Code == 403 }

// crds returns the CustomResourceDefinitions of our kinds, by their names.
func (c *cluster) crds() map[string]*apiextensionsv1.CustomResourceDefinition {
	GinkgoHelper()
	list := &apiextensionsv1.CustomResourceDefinitionList{}
	Expect(c.k8s.List(c.ctx, list)).To(Succeed())
	found := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for i, crd := range list.Items {
		if crd.Spec.Group == v1alpha1.GroupVersion.Group {
			found[crd.Name] = &list.Items[i]
		}
	}
	return found
}

func (c *cluster) fingerprintKey() *corev1.Secret {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(c.k8s.Get(c.ctx, client.ObjectKey{Namespace: operatorNamespace, Name: fingerprint.SecretName}, secret)).To(Succeed())
	return secret
}

// remains returns what there is with the label of the release, and in the operator's namespace, as "resource/name". What Kubernetes itself
// makes, and the records of helm, are left out.
func (c *cluster) remains() []string {
	GinkgoHelper()
	labelled := c.kubectl("", "get", "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"+
		"customresourcedefinitions,configmaps,poddisruptionbudgets,networkpolicies", "--all-namespaces", "--ignore-not-found",
		"--selector", "app.kubernetes.io/instance="+release, "--output", "name")
	own := c.kubectl("", "get", "deployments,services,serviceaccounts,roles,rolebindings,secrets,configmaps,leases,poddisruptionbudgets",
		"--namespace", operatorNamespace, "--ignore-not-found", "--output", "name")
	found := []string{}
	for _, line := range append(strings.Fields(labelled), strings.Fields(own)...) {
		if !slices.Contains(found, line) && !strings.HasPrefix(line, "secret/sh.helm.release.") && line != "configmap/kube-root-ca.crt" {
			found = append(found, line)
		}
	}
	return found
}
