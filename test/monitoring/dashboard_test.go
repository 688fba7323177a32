package monitoring

import (
	"regexp"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/promtool"
)

// ofManagers begins the title of the row whose metrics have no labels of a connection.
const ofManagers = "The operator, for all its connections"

// scrape is what the managers of a cluster export, as far as the dashboard asks for it. Grafana answers half of the requests with 503.
func scrape(cluster string) []promtool.Series {
	target := `job="operator",instance="10.0.0.1:8443",pod="a"`
	inCluster := `{cluster="` + cluster + `",` + target + `,`
	var all []promtool.Series
	for series, values := range map[string]string{
		"gsv_secure_values" + inCluster + prod + `,reason="Synced"}`:                                 "7x30",
		"gsv_secure_values" + inCluster + prod + `,reason="Drifted"}`:                                "1x30",
		"gsv_connection_ready" + inCluster + prod + `}`:                                              "0x30",
		"gsv_connection_ready" + inCluster + shared + `}`:                                            "1x30",
		"gsv_connection_breaker_open" + inCluster + prod + `}`:                                       "1x30",
		"gsv_queued" + inCluster + prod + `}`:                                                        "2x30",
		"gsv_overdue_values" + inCluster + prod + `,reason="Overdue"}`:                               "1x30",
		"gsv_orphaned_values" + inCluster + prod + `}`:                                               "3x30",
		"gsv_grafana_requests_total" + inCluster + prod + `,operation="update",code="200"}`:          "0+9x30",
		"gsv_grafana_requests_total" + inCluster + prod + `,operation="update",code="503"}`:          "0+9x30",
		"gsv_grafana_request_duration_seconds_bucket" + inCluster + `operation="update",le="0.01"}`:  "0+9x30",
		"gsv_grafana_request_duration_seconds_bucket" + inCluster + `operation="update",le="+Inf"}`:  "0+9x30",
		"gsv_propagation_seconds_bucket" + inCluster + `le="0.01"}`:                                  "0+9x30",
		"gsv_propagation_seconds_bucket" + inCluster + `le="+Inf"}`:                                  "0+9x30",
		"gsv_propagation_seconds_count" + inCluster + `}`:                                            "0+9x30",
		"gsv_versions_written_total" + inCluster + `cause="rotated"}`:                                "0+9x30",
		"gsv_drift_total" + inCluster + `kind="deleted"}`:                                            "0+9x30",
		"gsv_oldest_pending_seconds" + inCluster + `}`:                                               "5x30",
		"process_resident_memory_bytes" + inCluster + `}`:                                            "50000000x30",
		"process_cpu_seconds_total" + inCluster + `}`:                                                "0+9x30",
		`process_resident_memory_bytes{cluster="` + cluster + `",job="another",instance="10.0.0.2"}`: "1x30",
	} {
		all = append(all, promtool.Series{Series: series, Values: values})
	}
	return all
}

// TestDashboardHonoursItsVariables: in Prometheus's own engine each query returns something for what there is, and nothing for another
// cluster, namespace or connection.
func TestDashboardHonoursItsVariables(t *testing.T) {
	const at = "20m"
	group := promtool.Group{Name: "two clusters", Interval: "1m", Series: append(scrape("east"), scrape("west")...)}
	ask := func(test promtool.SampleTest) { group.ExprTests = append(group.ExprTests, test) }
	whole := 0
	for _, q := range queries(t) {
		ask(promtool.NotEmpty(q.In(".*", ".*", ".*"), at))
		ask(promtool.NotEmpty("("+q.In("east", ".*", ".*")+") != 0", at))
		ask(promtool.Nothing(q.In("another", ".*", ".*"), at))
		if strings.HasPrefix(q.Row, ofManagers) {
			whole++
			if strings.Contains(q.Expr, "$namespace") || strings.Contains(q.Expr, "$connection") {
				t.Errorf("%s is in the row %q, and selects connections", q.Panel, q.Row)
			}
			continue
		}
		if q.Panel != "Ready" { // the connection is not
			ask(promtool.NotEmpty("("+q.In("east", "team-a", "prod")+") != 0", at))
		}
		ask(promtool.Nothing(q.In("east", "another", ".*"), at))
		ask(promtool.Nothing(q.In("east", ".*", "another"), at))
	}
	if whole == 0 {
		t.Errorf("no row begins with %q", ofManagers)
	}
	if err := promtool.Run(t.Context(), t.TempDir(), []promtool.Group{group}); err != nil {
		t.Error(err)
	}
}

// TestDashboardTellsClustersApart: nothing is added up over clusters but the numbers of the overview, and each line says what it is of.
func TestDashboardTellsClustersApart(t *testing.T) {
	asked := map[string]bool{}
	for _, q := range queries(t) {
		for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(q.Expr, -1) {
			if !strings.HasPrefix(by[1], "cluster") {
				t.Errorf("%s groups by %s, without the cluster", q.Panel, by[1])
			}
		}
		if q.Legend != "" && !strings.Contains(q.Legend, "{{cluster}}") {
			t.Errorf("%s has the legend %q, without the cluster", q.Panel, q.Legend)
		}
		if found := regexp.MustCompile(`histogram_quantile\(0\.(\d+),`).FindStringSubmatch(q.Expr); found != nil {
			if want := "p" + (found[1] + "0")[:2]; !strings.HasSuffix(q.Legend, want) {
				t.Errorf("%s has the legend %q of %s", q.Panel, q.Legend, want)
			}
			asked[q.Legend[strings.LastIndex(q.Legend, "p"):]] = true
		}
		asked[q.Panel] = true
	}
	for _, want := range []string{"p50", "p99", "Memory", "CPU", "Leader"} {
		if !asked[want] {
			t.Errorf("the dashboard has no %s", want)
		}
	}
}

func queries(t *testing.T) []promtool.Query {
	t.Helper()
	all, err := promtool.Queries()
	if err != nil {
		t.Fatal(err)
	}
	return all
}
