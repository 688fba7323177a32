package integration

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/apiserver"
)

// liveEnv says that the variables of `make test-contract` name the Grafana of these specs. Without it, that is the fake on the framework.
const liveEnv = "GRAFANA_LIVE"

// livePrefix begins the names of these specs. `make test-contract` removes them too.
const livePrefix = "gsv-contract-live-"

// liveGrafana returns the Grafana of these specs: its address, token and namespace, and a client.
func liveGrafana(ctx context.Context) (grafana.Config, string) {
	GinkgoHelper()
	cfg := grafana.Config{
		URL: os.Getenv("GRAFANA_URL"), Namespace: os.Getenv("GRAFANA_NAMESPACE"), APIVersion: cmp.Or(os.Getenv("GRAFANA_API_VERSION"), "v1beta1"),
		Timeout: 30 * time.Second, UserAgent: "grafana-secure-value-operator/live", AllowLoopback: true,
	}
	token := os.Getenv("GRAFANA_TOKEN")
	if os.Getenv(liveEnv) == "" {
		token, cfg.Namespace, cfg.APIVersion = goodToken, "stacks-12", "v1beta1"
		url, stop, err := apiserver.Start(context.WithoutCancel(ctx), "-token", goodToken+","+cfg.Namespace)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(stop)
		cfg.URL = url
	}
	isNamed := cfg.URL != "" && token != "" && cfg.Namespace != ""
	Expect(isNamed).To(BeTrue(), "set GRAFANA_URL, GRAFANA_TOKEN and GRAFANA_NAMESPACE")
	cfg.Token = grafana.NewToken([]byte(token))
	return cfg, token
}

// removeLive removes what these specs left in Grafana.
func removeLive(ctx context.Context, c *grafana.Client) {
	GinkgoHelper()
	var names []string
	Expect(c.List(ctx, "", func(sv *grafana.SecureValue) { names = append(names, sv.Name) })).To(Succeed())
	for _, name := range names {
		if strings.HasPrefix(name, livePrefix) {
			if err := c.Delete(ctx, name); !errors.Is(err, grafana.ErrNotFound) {
				Expect(err).NotTo(HaveOccurred())
			}
		}
	}
}

// Everything else runs against the small fake. Here values cannot be read, as in a real Grafana: versions, labels and status have to do.
var _ = Describe("Another Grafana", func() {
	var (
		w     *world
		asked *grafana.Client
		base  string // of the names
		made  *v1alpha1.GrafanaSecureValue
	)
	begin := func(ctx SpecContext) {
		GinkgoHelper()
		cfg, token := liveGrafana(ctx)
		var err error
		asked, err = grafana.New(cfg)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(asked.CloseIdleConnections)
		removeLive(ctx, asked)
		DeferCleanup(func(ctx SpecContext) { removeLive(ctx, asked) }) // once the objects are gone
		w = newWorld(ctx)
		w.secret("live", map[string]string{"token": token})
		conn := w.connection(connectionRef)
		conn.Spec.ConnectionSpec = w.connectionSpec("live")
		conn.Spec.URL, conn.Spec.Namespace, conn.Spec.APIVersion = cfg.URL, cfg.Namespace, cfg.APIVersion
		w.create(conn)
		w.eventuallyConnection(connectionRef, v1alpha1.ReasonConnected)
		base = livePrefix + w.namespace

		w.secret("source", map[string]string{"key": "canary-1"})
		made = w.value("made")
		made.Spec.Name = base
		w.create(made)
		w.eventuallySynced(made)
	}

	// current waits until Grafana has the version that status records, and the labels of the object.
	current := func(ctx context.Context, sv *v1alpha1.GrafanaSecureValue) *grafana.SecureValue {
		GinkgoHelper()
		w.eventuallySynced(sv)
		var found *grafana.SecureValue
		Eventually(func(g Gomega) { // a rotation is in Grafana before it is in status
			w.refresh(sv)
			var err error
			found, err = asked.Get(ctx, sv.Status.Targets[0].Name)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(found.Version).To(Equal(sv.Status.Targets[0].Version))
		}).Should(Succeed())
		Expect(found.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
		Expect(found.Decrypters).To(Equal(sv.Spec.Decrypters))
		return found
	}
	gone := func(ctx context.Context, name string) {
		GinkgoHelper()
		Eventually(func() error {
			_, err := asked.Get(ctx, name)
			return err
		}).Should(MatchError(grafana.ErrNotFound))
	}

	It("gets a value that is created, rotated, moved and deleted", func(ctx SpecContext) {
		begin(ctx)
		first := current(ctx, made)
		By("rotating")
		w.secret("source", map[string]string{"key": "canary-2"})
		Eventually(func(g Gomega) {
			found, err := asked.Get(ctx, base)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(found.Version).To(BeNumerically(">", first.Version))
		}).Should(Succeed())
		Expect(current(ctx, made).CreatedAt).To(Equal(first.CreatedAt))
		By("moving")
		edit(w, made, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.Name = base + "-moved" })
		Expect(current(ctx, made).Name).To(Equal(base + "-moved"))
		gone(ctx, base)
		By("deleting")
		w.delete(made)
		w.eventuallyGone(made)
		gone(ctx, base+"-moved")
	})

	It("has a value taken over, and drift corrected", func(ctx SpecContext) {
		begin(ctx)
		By("adopting")
		theirs := &grafana.SecureValue{
			Name: base + "-theirs", Description: "theirs", Value: grafana.NewValue([]byte("their value")), Labels: map[string]string{"their": "label"},
		}
		_, err := asked.Create(ctx, theirs)
		Expect(err).NotTo(HaveOccurred())
		sv := w.value("adopting")
		sv.Spec.Name = theirs.Name
		w.create(sv)
		w.eventually(sv, v1alpha1.ReasonAlreadyExists)
		edit(w, sv, func(sv *v1alpha1.GrafanaSecureValue) { sv.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyAdopt })
		Expect(current(ctx, sv).Labels).To(HaveKeyWithValue("their", "label"))

		By("editing it in Grafana, as a form does that sends no annotations")
		found, err := asked.Get(ctx, base)
		Expect(err).NotTo(HaveOccurred())
		found.Value, found.Annotations, found.Decrypters = grafana.NewValue([]byte("their value")), nil, []string{"k6-cloud"}
		edited, err := asked.Update(ctx, found)
		Expect(err).NotTo(HaveOccurred())
		Eventually(time.Now).Should(BeTemporally(">", made.Status.Targets[0].LastWriteTime.Add(time.Second))) // as the LIST must be younger
		edit(w, w.connection(connectionRef), func(conn *v1alpha1.GrafanaConnection) { conn.Spec.RequestTimeout = "11s" })
		Eventually(func(g Gomega) {
			found, err := asked.Get(ctx, base)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(found.Version).To(BeNumerically(">", edited.Version))
			g.Expect(found.Annotations).To(HaveKey(annotationResource))
		}).Should(Succeed())
		w.eventuallyEvent(made, "DriftCorrected")
		current(ctx, made)
	})
})
