package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// unit is what a measurement is in.
type unit string

const (
	unitSeconds      unit = "s"
	unitMilliseconds unit = "ms"
	unitMiB          unit = "MiB"
	unitMillicores   unit = "millicores"
	unitRatio        unit = "times"
	unitCount        unit = ""
)

// target is what a measurement must not exceed, or must be.
type target struct {
	Limit float64
	Exact bool
}

func atMost(limit float64) *target { return &target{Limit: limit} }

func exactly(n float64) *target { return &target{Limit: n, Exact: true} }

// measurement is one measure of a scenario, with a value of each run.
type measurement struct {
	Scenario string
	Objects  int
	Measure  string
	Unit     unit
	Target   *target // nil: it is for information
	Values   []float64
}

func (m measurement) format(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	if m.Unit == unitSeconds || v < 10 && m.Unit != unitCount {
		s = fmt.Sprintf("%.2f", v)
	}
	return strings.TrimSpace(s + " " + string(m.Unit))
}

// met reports whether every run met the target.
func (m measurement) met() bool {
	return m.Target == nil || !slices.ContainsFunc(m.Values, func(v float64) bool {
		return v > m.Target.Limit || m.Target.Exact && v != m.Target.Limit
	})
}

// results is what a run of this program found.
type results struct {
	Machine      string
	Begun        time.Time
	Took         string
	Load         string // of the machine, at the begin and the end
	Commit       string
	Latency      string
	Measurements []measurement
}

func newResults(opts options) *results {
	scheme := "HTTPS"
	if opts.plainHTTP {
		scheme = "HTTP"
	}
	return &results{
		Machine: machine(), Begun: time.Now().UTC().Truncate(time.Second), Load: load(), Commit: commit(),
		Latency: fmt.Sprintf("%s, %s in Grafana", scheme, opts.latency),
	}
}

func (r *results) add(m measurement) {
	for i := range r.Measurements {
		if known := &r.Measurements[i]; known.Scenario == m.Scenario && known.Objects == m.Objects && known.Measure == m.Measure {
			known.Values = append(known.Values, m.Values...)
			return
		}
	}
	r.Measurements = append(r.Measurements, m)
}

func (r *results) finish() {
	r.Took = time.Since(r.Begun).Round(time.Second).String()
	r.Load += " at the begin, " + load() + " at the end"
}

func (r *results) missed() bool {
	return slices.ContainsFunc(r.Measurements, func(m measurement) bool { return !m.met() })
}

// table returns the results as Markdown. Counts that are as they must be are only counted.
func (r *results) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s at commit %s, %s. Took %s. Load: %s.\n\n", r.Machine, r.Begun.Format("2006-01-02 15:04 UTC"), r.Commit,
		r.Latency, r.Took, r.Load)
	rows := [][]string{{"scenario", "objects", "measure", "target", "median", "worst", "verdict"}}
	asExpected := 0
	for _, m := range r.Measurements {
		if m.Target != nil && m.Target.Exact && m.met() {
			asExpected++
			continue
		}
		goal, verdict := "", ""
		switch {
		case m.Target == nil:
		case m.Target.Exact:
			goal = "= " + m.format(m.Target.Limit)
		default:
			goal = "≤ " + m.format(m.Target.Limit)
		}
		switch {
		case m.Target == nil:
		case m.met():
			verdict = "met"
		default:
			verdict = "MISSED"
		}
		rows = append(rows, []string{
			m.Scenario, fmt.Sprint(m.Objects), m.Measure, goal, m.format(quantile(m.Values, 0.5)), m.format(m.worst()), verdict,
		})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for i, row := range rows {
		for j, cell := range row {
			fmt.Fprintf(&b, "| %-*s ", widths[j], cell)
		}
		b.WriteString("|\n")
		if i == 0 {
			for _, width := range widths {
				b.WriteString("|" + strings.Repeat("-", width+2))
			}
			b.WriteString("|\n")
		}
	}
	if asExpected > 0 {
		fmt.Fprintf(&b, "\n%d counts of calls were exactly as expected, and are left out.\n", asExpected)
	}
	return b.String()
}

// worst returns the value farthest from the target, or the highest where lower is better.
func (m measurement) worst() float64 {
	if m.Target != nil && m.Target.Exact {
		return slices.MaxFunc(m.Values, func(a, b float64) int {
			return cmp.Compare(math.Abs(a-m.Target.Limit), math.Abs(b-m.Target.Limit))
		})
	}
	return slices.Max(m.Values)
}

func (r *results) write(file string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // for everybody
		return err
	}
	return os.WriteFile(file, append(content, '\n'), 0o644) // for everybody
}

// quantile returns the value below which that share of the values is.
func quantile(values []float64, share float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}

// machine describes where this runs.
func machine() string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := ""
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int
		if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(", %d GiB", kib>>20)
		}
	}
	return fmt.Sprintf("%d cores of %s%s, %s/%s, %s.", runtime.NumCPU(), model, memory, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// load is the load average of the last minute.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(content), " ")
	return one
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output() //nolint:noctx // it is short
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
