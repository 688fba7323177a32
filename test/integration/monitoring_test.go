package integration

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/promtool"
)

// What the alerts and the dashboard query is what the manager exports, by Prometheus's own engine.
var _ = Describe("Alerts and dashboard", func() {
	It("find in the metrics of many failures what they query", func(ctx SpecContext) {
		metricsURL = serveMetrics()
		w := newConnectedWorld(ctx)
		sv := w.synced("api-key", "canary-1")
		rotate(w, sv)
		w.grafana.Remove(grafanaNS, "api-key")
		w.grafana.Put(grafanaNS, labelled("left", clusterID, w.namespace, "gone"))
		w.list(sv)
		w.eventuallySynced(sv)

		w.grafana.Put(grafanaNS, grafanatest.Stored{Name: "theirs", Description: "theirs", Value: []byte("x")})
		stalled := w.valueWithSecret("theirs", "canary-2")
		w.create(stalled)
		w.eventually(stalled, v1alpha1.ReasonAlreadyExists)
		waiting := w.value("waiting")
		waiting.Spec.ValueFrom.SecretKeyRef.Name = "missing"
		w.create(waiting)
		w.eventually(waiting, v1alpha1.ReasonSecretNotFound)

		expired := w.valueWithSecret("expired", "canary-4")
		expired.Spec.Freshness = &v1alpha1.Freshness{ExpirationTime: &metav1.Time{Time: time.Now().Add(-time.Hour)}}
		w.create(expired)
		w.eventuallySynced(expired)
		Expect(freshOf(expired)).To(Equal("False Expired"))

		blocked := w.syncedFrom("blocked", "canary-3")
		w.dropPermission(grafanatest.ActionDelete)
		w.delete(blocked)
		w.eventually(blocked, v1alpha1.ReasonDeletionBlocked)

		dead := w.connection("dead")
		dead.Spec.URL = "http://127.0.0.1:1"
		w.create(dead)
		w.eventuallyConnection("dead", v1alpha1.ReasonUnreachable)
		w.secret("refused", map[string]string{"token": "glsa_canary-refused"})
		refused := w.connection("refused")
		refused.Spec.Credentials.TokenSecretRef.Name = "refused"
		w.create(refused)
		w.eventuallyConnection("refused", v1alpha1.ReasonUnauthorized)

		page, err := get(ctx, metricsURL)
		Expect(err).NotTo(HaveOccurred())
		scraped := promtool.Group{Name: "scraped", Interval: "1m", Series: promtool.Scraped(page)}
		ask := func(expr string) { scraped.ExprTests = append(scraped.ExprTests, promtool.NotEmpty(expr, "20m")) }
		queries, err := promtool.Queries()
		Expect(err).NotTo(HaveOccurred())
		for _, q := range queries {
			ask(q.In(".*", ".*", ".*"))
		}
		rules, _, err := promtool.Alerts()
		Expect(err).NotTo(HaveOccurred())
		for _, rule := range rules {
			ask(here.Replace(rule.Expr))
		}
		Expect(promtool.Run(ctx, GinkgoT().TempDir(), []promtool.Group{scraped})).To(Succeed())
	})
})

// here takes from the alerts what a suite cannot wait for: that something is gone, or late by minutes.
var here = strings.NewReplacer("absent(gsv_oldest_pending_seconds)", "gsv_oldest_pending_seconds", " > 600", "", " > 60", "")
