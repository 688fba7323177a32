package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

const (
	chartName        = "grafana-secure-value-operator"
	installNamespace = "grafana-secure-value-operator-system"
	kindShared       = string(v1alpha1.KindClusterGrafanaConnection)
)

// fluxStep is a Kustomization of Flux, as far as the examples use it.
type fluxStep struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		DependsOn      []named         `json:"dependsOn"`
		Interval       metav1.Duration `json:"interval"`
		RetryInterval  metav1.Duration `json:"retryInterval"`
		Timeout        metav1.Duration `json:"timeout"`
		SourceRef      reference       `json:"sourceRef"`
		Path           string          `json:"path"`
		Prune          bool            `json:"prune"`
		Wait           bool            `json:"wait"`
		DeletionPolicy string          `json:"deletionPolicy"`
	} `json:"spec"`
}

type named struct {
	Name string `json:"name"`
}

type reference struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// fluxSource is a HelmRepository, as far as the examples use it.
type fluxSource struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	} `json:"spec"`
}

// fluxRelease is a HelmRelease, as far as the examples use it.
type fluxRelease struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		Interval metav1.Duration `json:"interval"`
		Chart    struct {
			Spec struct {
				Chart     string    `json:"chart"`
				Version   string    `json:"version"`
				SourceRef reference `json:"sourceRef"`
			} `json:"spec"`
		} `json:"chart"`
		Install remediated     `json:"install"`
		Upgrade remediated     `json:"upgrade"`
		Values  map[string]any `json:"values"`
	} `json:"spec"`
}

type remediated struct {
	Remediation struct {
		Retries int `json:"retries"`
	} `json:"remediation"`
}

// argoApp is an Application of Argo CD, as far as the examples use it.
type argoApp struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            struct {
		Project string `json:"project"`
		Source  struct {
			RepoURL        string `json:"repoURL"`
			TargetRevision string `json:"targetRevision"`
			Path           string `json:"path"`
			Chart          string `json:"chart"`
			Helm           struct {
				ReleaseName  string         `json:"releaseName"`
				ValuesObject map[string]any `json:"valuesObject"`
			} `json:"helm"`
		} `json:"source"`
		Destination struct {
			Server    string `json:"server"`
			Namespace string `json:"namespace"`
		} `json:"destination"`
		SyncPolicy struct {
			Automated struct {
				Prune    bool `json:"prune"`
				SelfHeal bool `json:"selfHeal"`
			} `json:"automated"`
			SyncOptions []string `json:"syncOptions"`
		} `json:"syncPolicy"`
	} `json:"spec"`
}

var _ = Describe("The example tree", func() {
	const flux, argo = "examples/flux", "examples/argocd"

	DescribeTable("has objects that the API server takes, all of which find their connection", func(ctx SpecContext, tree string) {
		w := newWorld(ctx)
		w.namespaces("secure-values-team-a")
		connections, values := w.built(tree+"/connections"), w.built(tree+"/secure-values")
		for _, o := range append(connections, values...) {
			w.dryRun(o)
		}

		conn := &v1alpha1.ClusterGrafanaConnection{}
		become(only(connections, kindShared), conn)
		selector, err := metav1.LabelSelectorAsSelector(conn.Spec.AllowedNamespaces.Selector)
		Expect(err).NotTo(HaveOccurred())
		Expect(values).NotTo(BeEmpty())
		for _, o := range values {
			sv := &v1alpha1.GrafanaSecureValue{}
			become(w.dryRun(o), sv)
			Expect(sv.ConnectionOrDefault()).To(Equal(v1alpha1.ConnectionReference{Kind: v1alpha1.KindClusterGrafanaConnection, Name: conn.Name}))
			namespace := only(connections, "Namespace")
			Expect(sv.Namespace).To(Equal(namespace.GetName()))
			Expect(selector.Matches(labels.Set(namespace.GetLabels()))).To(BeTrue(), "the connection does not allow the namespace")
		}
	},
		Entry("of Flux", flux),
		Entry("of Argo CD", argo),
	)

	It("of Flux installs the operator first, then connections, then values, and keeps the operator to the last", func(ctx SpecContext) {
		w := newWorld(ctx)
		var steps []string
		for _, text := range documents(read(flux + "/grafana.yaml")) {
			step := strictly[fluxStep](text)
			Expect(step.APIVersion + " " + step.Kind).To(Equal("kustomize.toolkit.fluxcd.io/v1 Kustomization"))
			Expect(step.Spec.SourceRef).To(Equal(reference{"GitRepository", "flux-system"}), "what Flux itself has made")
			Expect(step.Metadata.Namespace).To(Equal("flux-system"))
			Expect(w.built(step.Spec.Path)).NotTo(BeEmpty())
			Expect(step.Spec.Prune && step.Spec.Wait).To(BeTrue(), "the next step does not wait for this one")
			if len(steps) == 0 {
				Expect(step.Spec.DependsOn).To(BeEmpty())
				Expect(step.Spec.DeletionPolicy).To(Equal("Orphan"))
			} else {
				Expect(step.Spec.DependsOn).To(Equal([]named{{steps[len(steps)-1]}}))
				Expect(step.Spec.DeletionPolicy).To(Equal("WaitForTermination"))
			}
			steps = append(steps, step.Metadata.Name)
		}
		Expect(steps).To(Equal([]string{"secure-values-operator", "secure-values-connections", "secure-values-team-a"}))

		objects := w.built(flux + "/operator")
		release := strictly[fluxRelease](asYAML(only(objects, "HelmRelease")))
		source := strictly[fluxSource](asYAML(only(objects, "HelmRepository")))
		Expect(release.APIVersion).To(Equal("helm.toolkit.fluxcd.io/v2"))
		Expect(source.APIVersion).To(Equal("source.toolkit.fluxcd.io/v1"))
		Expect(release.Spec.Chart.Spec.SourceRef).To(Equal(reference{source.Kind, source.Metadata.Name}))
		Expect(release.Spec.Chart.Spec.Chart).To(Equal(chartName))
		Expect([]string{release.Metadata.Namespace, source.Metadata.Namespace, only(objects, "Namespace").GetName()}).
			To(HaveEach(installNamespace))
	})

	It("of Argo CD installs the operator first, then connections, then values, and deletes the other way round", func(ctx SpecContext) {
		w := newWorld(ctx)
		root := strictly[argoApp](read(argo + "/grafana.yaml"))
		Expect(root.Spec.Source.Path).To(Equal(argo + "/apps"))
		apps := map[int]argoApp{0: root}
		for _, o := range w.built(root.Spec.Source.Path) {
			app := strictly[argoApp](asYAML(o))
			wave, err := strconv.Atoi(app.Metadata.Annotations["argocd.argoproj.io/sync-wave"])
			Expect(err).NotTo(HaveOccurred())
			Expect(app.Metadata.Namespace).To(Equal(root.Spec.Destination.Namespace))
			apps[wave+1] = app
		}
		Expect(apps).To(HaveLen(4), "two in a wave")
		for _, app := range apps {
			Expect(app.APIVersion + " " + app.Kind).To(Equal("argoproj.io/v1alpha1 Application"))
			Expect(app.Metadata.Finalizers).To(Equal([]string{"resources-finalizer.argocd.argoproj.io"}), "what it has made stays behind")
		}
		Expect(apps[1].Spec.Source.Chart).To(Equal(chartName))
		Expect(apps[1].Spec.Source.Helm.ReleaseName).To(Equal(chartName))
		Expect(apps[1].Spec.Destination.Namespace).To(Equal(installNamespace))
		Expect(apps[1].Spec.SyncPolicy.SyncOptions).To(ContainElement("CreateNamespace=true"))
		Expect(apps[2].Spec.Source.Path).To(Equal(argo + "/connections"))
		Expect(apps[3].Spec.Source.Path).To(Equal(argo + "/secure-values"))
		Expect(apps[3].Spec.SyncPolicy.SyncOptions).NotTo(ContainElement("PruneLast=true"), "a renamed object waits for the old one, and that for it")
	})

	It("of Argo CD has a wave wait until the Applications of the one before are healthy", func() {
		settings := &corev1.ConfigMap{}
		Expect(yaml.UnmarshalStrict([]byte(read(argo+"/argocd-cm.yaml")), settings)).To(Succeed())
		Expect(settings.Name).To(Equal("argocd-cm"))
		Expect(settings.Data).To(HaveLen(1))
		health, err := compile("health", settings.Data["resource.customizations.health.argoproj.io_Application"])
		Expect(err).NotTo(HaveOccurred())
		for status, want := range map[string]map[string]any{
			`{}`:                         {"status": progressing, "message": ""},
			`{"status": {}}`:             {"status": progressing, "message": ""},
			`{"status": {"health": {}}}`: {"status": progressing, "message": ""},
			`{"status": {"health": {"status": "Healthy"}}}`:                         {"status": healthy, "message": ""},
			`{"status": {"health": {"status": "Degraded", "message": "no token"}}}`: {"status": degraded, "message": "no token"},
		} {
			app := &unstructured.Unstructured{}
			Expect(yaml.Unmarshal([]byte(status), &app.Object)).To(Succeed())
			Expect(health.run(app)).To(Equal(want))
		}
	})

	It("has the same objects for Flux and Argo CD", func(ctx SpecContext) {
		w := newWorld(ctx)
		Expect(w.built(argo + "/secure-values")).To(Equal(w.built(flux + "/secure-values")))
		Expect(only(w.built(argo+"/connections"), kindShared)).
			To(Equal(only(w.built(flux+"/connections"), kindShared)))
	})
})

// read returns a file of this repository.
func read(path string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// documents returns the YAML documents of a text.
func documents(text string) []string {
	return strings.Split(text, "\n---\n")
}

// strictly decodes YAML into a type that has to know each of its fields.
func strictly[T any](text string) T {
	GinkgoHelper()
	var o T
	Expect(yaml.UnmarshalStrict([]byte(text), &o)).To(Succeed(), text)
	return o
}

func asYAML(o *unstructured.Unstructured) string {
	GinkgoHelper()
	text, err := yaml.Marshal(o.Object)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func become(u *unstructured.Unstructured, o client.Object) {
	GinkgoHelper()
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, o, true)).To(Succeed())
}

// only returns the one object of a kind.
func only(objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	GinkgoHelper()
	var found []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == kind {
			found = append(found, o)
		}
	}
	Expect(found).To(HaveLen(1), kind)
	return found[0]
}

// built returns what kustomize makes of a directory of this repository.
func (w *world) built(directory string) []*unstructured.Unstructured {
	GinkgoHelper()
	out, err := w.kubectl("kustomize", filepath.Join("..", "..", directory))
	Expect(err).NotTo(HaveOccurred(), out)
	var objects []*unstructured.Unstructured
	for _, text := range documents(out) {
		o := &unstructured.Unstructured{}
		Expect(yaml.UnmarshalStrict([]byte(text), &o.Object)).To(Succeed())
		objects = append(objects, o)
	}
	return objects
}

// dryRun has the API server take an object as with server-side apply, and returns what it would store.
func (w *world) dryRun(o *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "object.yaml")
	Expect(os.WriteFile(file, []byte(asYAML(o)), 0o600)).To(Succeed())
	out, err := w.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--output=json", "--filename", file)
	Expect(err).NotTo(HaveOccurred(), out)
	would := &unstructured.Unstructured{}
	Expect(would.UnmarshalJSON([]byte(out))).To(Succeed(), out)
	return would
}

// namespaces makes namespaces that examples name, where they are not there yet.
func (w *world) namespaces(names ...string) {
	GinkgoHelper()
	for _, name := range names {
		err := k8s.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		Expect(client.IgnoreAlreadyExists(err)).To(Succeed())
	}
}
