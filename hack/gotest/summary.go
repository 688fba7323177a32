package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// summary counts tests. A test with subtests is not counted beside them, and a Ginkgo suite counts as its specs.
type summary struct {
	passed, failed, skipped int
}

func (s summary) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.passed, s.failed, s.skipped)
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	s.failed += other.failed
	s.skipped += other.skipped
}

// event is a line of go test -json: see "go doc test2json", and "go help buildjson" for those of a build.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string // empty for what belongs to the package
	Elapsed    float64
	Output     string
	Value      string // of an attribute, which a test gives itself with testing.T.Attr
}

// testPackage is what is known of a package while its tests run.
type testPackage struct {
	result map[string]string           // by test: pass, fail or skip
	output map[string]*strings.Builder // by test, and by "" for the package
	order  []string                    // of output
	told   []string                    // the attributes of tests
}

// summarize reads the output of go test -json. It writes a line for each package that has tests, nothing of what passed but the
// attributes that tests give themselves, and last the output of what failed: a reader, and whoever keeps but the end of a log, finds it there.
func summarize(events io.Reader, out io.Writer) (summary, error) {
	var total summary
	var failures strings.Builder
	defer func() { fmt.Fprint(out, failures.String()) }()
	packages := map[string]*testPackage{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Fprintf(out, "%s", line) // not of go test, as a fault of the go command itself
			continue
		}
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
			continue
		case "build-fail":
			continue // the package that it is for fails too
		}
		p := packages[e.Package]
		if p == nil {
			p = &testPackage{result: map[string]string{}, output: map[string]*strings.Builder{}}
			packages[e.Package] = p
		}
		switch {
		case e.Action == "output" && e.Test == "" && verdict.MatchString(e.Output):
		case e.Action == "output" && attribute.MatchString(e.Output): // it has an event of its own
		case e.Action == "output":
			p.keep(e.Test, e.Output)
		case e.Action == "attr":
			p.told = append(p.told, e.Value)
		case e.Action != "pass" && e.Action != "fail" && e.Action != "skip":
		case e.Test != "":
			p.result[e.Test] = e.Action
		default:
			counted := p.count(e.Action)
			total.add(counted)
			p.report(out, e, counted)
			if e.Action == "fail" {
				p.explain(&failures, e.Package)
			}
			delete(packages, e.Package)
		}
	}
}

func (p *testPackage) keep(test, output string) {
	if p.output[test] == nil {
		p.output[test] = &strings.Builder{}
		p.order = append(p.order, test)
	}
	p.output[test].WriteString(output)
}

// report writes what a reader needs to know of a package that is done.
func (p *testPackage) report(out io.Writer, e event, counted summary) {
	if e.Action == "skip" && counted == (summary{}) {
		return // no test files
	}
	word := "ok  "
	if e.Action == "fail" {
		word = "FAIL"
	}
	elapsed := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	fmt.Fprintf(out, "%s %s (%s, %s)\n", word, e.Package, counted, elapsed)
	for _, line := range p.told {
		fmt.Fprintf(out, "     %s\n", line)
	}
}

// explain writes what the tests of a package printed that failed.
func (p *testPackage) explain(out io.Writer, name string) {
	fmt.Fprintf(out, "\nFAIL %s\n", name)
	for _, test := range p.order {
		// A test without a result was cut off, as by a panic or the time limit.
		if result := p.result[test]; result == "fail" || result == "" {
			fmt.Fprint(out, p.output[test])
		}
	}
}

// count counts the tests of a package that ended with the given result. A package that failed has at least one failure.
func (p *testPackage) count(result string) summary {
	parents := map[string]bool{}
	below := map[string]bool{} // a test that failed is below
	for test, result := range p.result {
		for i := strings.LastIndexByte(test, '/'); i >= 0; i = strings.LastIndexByte(test[:i], '/') {
			parents[test[:i]] = true
			below[test[:i]] = below[test[:i]] || result == "fail"
		}
	}
	var s summary
	for test, result := range p.result {
		specs, isSuite := p.specs(test)
		switch {
		case isSuite:
			s.add(specs)
		case parents[test] && (result != "fail" || below[test]):
		case result == "pass":
			s.passed++
		case result == "fail":
			s.failed++
		case result == "skip":
			s.skipped++
		}
	}
	if result == "fail" && s.failed == 0 {
		s.failed = 1 // it did not compile, or ended outside of a test
	}
	return s
}

var (
	verdict   = regexp.MustCompile(`^(FAIL|PASS|ok|\?)\s`) // go test's own line on a package, in whose place is ours
	attribute = regexp.MustCompile(`^=== ATTR\s`)
	colours   = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	ginkgo    = regexp.MustCompile(`(?m)^Ran (\d+) of \d+ Specs? in `)
	outcomes  = regexp.MustCompile(`-- (\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped`)
)

// specs reads the counts that a Ginkgo suite prints at its end. The test that runs the suite is not counted beside them.
func (p *testPackage) specs(test string) (counted summary, isSuite bool) {
	if p.output[test] == nil {
		return summary{}, false
	}
	text := colours.ReplaceAllString(p.output[test].String(), "")
	found := outcomes.FindStringSubmatch(text)
	if found == nil || !ginkgo.MatchString(text) {
		return summary{}, false
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(found[i]) // digits, by the expression
		return n
	}
	counted = summary{passed: number(1), failed: number(2), skipped: number(3) + number(4)}
	if p.result[test] == "fail" && counted.failed == 0 {
		counted.failed = 1 // its set-up or clean-up
	}
	return counted, true
}
