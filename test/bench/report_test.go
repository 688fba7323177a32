package main

import (
	"math"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for name, row := range map[string]struct {
		target *target
		values []float64
		met    bool
		worst  float64
	}{
		"for information": {nil, []float64{1, 9}, true, 9},
		"at the limit":    {atMost(5), []float64{5, 1}, true, 5},
		"one run above":   {atMost(5), []float64{1, 6, 1}, false, 6},
		"exact":           {exactly(200), []float64{200, 200}, true, 200},
		"one too few":     {exactly(200), []float64{200, 199}, false, 199},
		"a little off":    {exactly(0), []float64{0, 0.5}, false, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			m := measurement{Target: row.target, Values: row.values}
			if m.met() != row.met || m.worst() != row.worst {
				t.Errorf("met %t, worst %v, want %t, %v", m.met(), m.worst(), row.met, row.worst)
			}
		})
	}
}

func TestTable(t *testing.T) {
	r := &results{}
	for _, seconds := range []float64{7, 1, 2} {
		r.add(measurement{Scenario: "s", Objects: 10, Measure: "m", Unit: unitSeconds, Target: atMost(6), Values: []float64{seconds}})
	}
	if got := strings.Join(strings.Fields(r.table()), " "); !strings.Contains(got, "| s | 10 | m | ≤ 6.00 s | 2.00 s | 7.00 s | MISSED |") || !r.missed() {
		t.Errorf("three runs are not one row:\n%s", r.table())
	}
}

func TestQuantile(t *testing.T) {
	var values []float64
	for i := range 200 {
		values = append(values, float64(200-i))
	}
	for share, want := range map[float64]float64{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := quantile(values, share); got != want {
			t.Errorf("quantile %v = %v, want %v", share, got, want)
		}
	}
}

func TestGrowth(t *testing.T) {
	if got, ok := growth(map[float64]float64{100: 3, 1000: 30, 10_000: 300}); !ok || math.Abs(got-1) > 1e-9 {
		t.Errorf("ten times as many cost ten times as much: n^%v, %t", got, ok)
	}
	if _, ok := growth(map[float64]float64{100: 3, 1000: 30}); ok {
		t.Error("two points always fit, and prove nothing")
	}
}

func TestSumOf(t *testing.T) {
	const body = `# HELP gsv_secure_values of something 5
gsv_secure_values{connection="a",reason="Synced"} 3
gsv_secure_values{connection="b",reason="Synced"} 4
gsv_secure_values{connection="b",reason="Forbidden"} 8
gsv_secure_values_of_another_metric{reason="Synced"} 16
gsv_oldest_pending_seconds 2
`
	for _, row := range []struct {
		name, labels string
		want         int
	}{{"gsv_secure_values", `reason="Synced"`, 7}, {"gsv_secure_values", "", 15}, {"gsv_oldest_pending_seconds", "", 2}, {"gsv_none", "", 0}} {
		if got := sumOf(body, row.name, row.labels); got != row.want {
			t.Errorf("%s with %q = %d, want %d", row.name, row.labels, got, row.want)
		}
	}
}

func TestChoose(t *testing.T) {
	chosen, err := choose("restart, cold-start")
	if err != nil || len(chosen) != 2 || chosen[0].name != "cold-start" {
		t.Errorf("%d scenarios, %v: they run in their own order", len(chosen), err)
	}
	if _, err := choose("restart,none"); err == nil {
		t.Error("a scenario that there is not is chosen")
	}
}
