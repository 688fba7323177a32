package integration

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	// processesEnv says in how many processes the suite runs, each with a control plane of its own. Without it, it is this one.
	processesEnv = "PROCESSES"
	// directoryEnv is where a process of several finds the files of the repository, as go test would have it.
	directoryEnv = "SUITE_DIRECTORY"
)

// inProcesses runs the suite in n processes of this program, by Ginkgo's command. It takes no flags of Ginkgo: all specs are run.
func inProcesses(t *testing.T, n string) {
	t.Helper()
	directory, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(directoryEnv, directory)
	readByProcesses(t)
	t.Setenv("GOGC", "400") // for the control planes too: processors are short, memory is not
	args := []string{"tool", "ginkgo", "--procs=" + n}
	if deadline, ok := t.Deadline(); ok { // before which the processes must have cleaned up
		args = append(args, "--timeout="+time.Until(deadline.Add(-time.Minute)).String())
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt) // the processes get it too, clean up and end
	defer signal.Stop(interrupts)
	ginkgo := exec.Command("go", append(args, os.Args[0])...) //nolint:noctx // it ends by its own limit, or by the interrupt
	ginkgo.Stdout, ginkgo.Stderr = os.Stdout, os.Stderr
	if err := ginkgo.Run(); err != nil {
		t.Errorf("ginkgo: %v", err)
	}
}

// readByProcesses has go test know the files that the processes read, so that it takes no earlier result when one of them has changed.
func readByProcesses(t *testing.T) {
	t.Helper()
	for _, top := range []string{"api", "config", "docs", "examples", "README.md"} {
		err := filepath.WalkDir(filepath.Join("..", "..", top), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tally is what the managers of a control plane did, for what must hold of the suite as a whole. As an entry of the report it gets from
// the process of the control plane to the one that reports.
type tally struct {
	Used    map[string]int // how often, by right that was granted
	Denied  []string
	Reasons []string // that were met
}

const tallyEntry = "tally"

// hand adds the tally to the report.
func (t tally) hand() {
	GinkgoHelper()
	content, err := json.Marshal(t)
	Expect(err).NotTo(HaveOccurred())
	AddReportEntry(tallyEntry, string(content), ReportEntryVisibilityNever)
}

// total sums up the tallies of all control planes.
func total(report Report) tally {
	GinkgoHelper()
	sum := tally{Used: map[string]int{}}
	for _, spec := range report.SpecReports {
		for _, entry := range spec.ReportEntries {
			if entry.Name != tallyEntry {
				continue
			}
			var one tally
			Expect(json.Unmarshal([]byte(entry.StringRepresentation()), &one)).To(Succeed())
			for right, requests := range one.Used {
				sum.Used[right] += requests
			}
			sum.Denied = append(sum.Denied, one.Denied...)
			sum.Reasons = append(sum.Reasons, one.Reasons...)
		}
	}
	return sum
}

// allPassed reports whether all specs were run, and passed.
func allPassed(report Report) bool {
	return report.PreRunStats.SpecsThatWillRun == report.PreRunStats.TotalSpecs && report.SuiteSucceeded
}
