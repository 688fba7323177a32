package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	for name, test := range map[string]struct {
		events       []event
		want         summary
		shown, quiet string // must be, and must not be, in the report
	}{
		"what passed is one line": {
			events: []event{
				{Action: "run", Test: "TestA"},
				{Action: "output", Test: "TestA", Output: "chatter\n"},
				{Action: "pass", Test: "TestA"},
				{Action: "output", Output: "PASS\n"},
				{Action: "pass"},
			},
			want:  summary{passed: 1},
			shown: "ok   p (1 passed, 0 failed, 0 skipped, 0s)\n",
			quiet: "chatter",
		},
		"what a test tells of itself is shown": {
			events: []event{
				{Action: "attr", Test: "TestA", Value: "runs 12"},
				{Action: "output", Test: "TestA", Output: "=== ATTR  TestA table runs 12\n"},
				{Action: "pass", Test: "TestA"},
				{Action: "pass"},
			},
			want:  summary{passed: 1},
			shown: "ok   p (1 passed, 0 failed, 0 skipped, 0s)\n     runs 12\n",
			quiet: "ATTR",
		},
		"what failed is shown": {
			events: []event{
				{Action: "output", Test: "TestA", Output: "got 1, want 2\n"},
				{Action: "fail", Test: "TestA"},
				{Action: "output", Test: "TestB", Output: "chatter\n"},
				{Action: "pass", Test: "TestB"},
				{Action: "skip", Test: "TestC"},
				{Action: "fail"},
			},
			want:  summary{passed: 1, failed: 1, skipped: 1},
			shown: "got 1, want 2\n",
			quiet: "chatter",
		},
		"a test with subtests is not counted beside them": {
			events: []event{
				{Action: "pass", Test: "TestA/x/y"},
				{Action: "fail", Test: "TestA/x/z"},
				{Action: "fail", Test: "TestA/x"},
				{Action: "fail", Test: "TestA"},
				{Action: "fail"},
			},
			want: summary{passed: 1, failed: 1},
		},
		"a failure of the test itself is counted": {
			events: []event{{Action: "pass", Test: "TestA/x"}, {Action: "fail", Test: "TestA"}, {Action: "fail"}},
			want:   summary{passed: 1, failed: 1},
		},
		"what failed is shown last": {
			events: []event{
				{Action: "output", Test: "TestA", Output: "got 1, want 2\n"},
				{Action: "output", Test: "TestA", Output: "=== ATTR  TestA table runs 12\n"},
				{Action: "attr", Test: "TestA", Value: "runs 12"},
				{Action: "fail", Test: "TestA"},
				{Action: "fail"},
				{Action: "pass", Package: "q", Test: "TestB"},
				{Action: "pass", Package: "q"},
			},
			want:  summary{passed: 1, failed: 1},
			shown: "FAIL p (0 passed, 1 failed, 0 skipped, 0s)\n     runs 12\nok   q (1 passed, 0 failed, 0 skipped, 0s)\n\nFAIL p\ngot 1, want 2\n",
			quiet: "ATTR",
		},
		"what was cut off is shown": {
			events: []event{
				{Action: "output", Test: "TestA", Output: "panic: boom\n"},
				{Action: "fail"},
			},
			want:  summary{failed: 1},
			shown: "panic: boom\n",
		},
		"what does not compile is one failure": {
			events: []event{
				{Action: "build-output", ImportPath: "p", Output: "undefined: x\n"},
				{Action: "build-fail", ImportPath: "p"},
				{Action: "fail"},
			},
			want:  summary{failed: 1},
			shown: "undefined: x\n",
		},
		"a suite counts as its specs": {
			events: []event{
				{Action: "output", Test: "TestSuite", Output: "Ran 7 of 9 Specs in 1.2 seconds\n"},
				{Action: "output", Test: "TestSuite", Output: "\x1b[32mSUCCESS!\x1b[0m -- \x1b[32m7 Passed\x1b[0m | 0 Failed | 1 Pending | 1 Skipped\n"},
				{Action: "pass", Test: "TestSuite"},
				{Action: "pass", Test: "TestTable"},
				{Action: "pass"},
			},
			want: summary{passed: 8, skipped: 2},
		},
		"a suite whose set-up fails has a failure": {
			events: []event{
				{Action: "output", Test: "TestSuite", Output: "Ran 0 of 9 Specs in 1.2 seconds\n"},
				{Action: "output", Test: "TestSuite", Output: "FAIL! -- 0 Passed | 0 Failed | 0 Pending | 9 Skipped\n"},
				{Action: "fail", Test: "TestSuite"},
				{Action: "fail"},
			},
			want: summary{failed: 1, skipped: 9},
		},
		"a package without tests is not worth a line": {
			events: []event{{Action: "output", Output: "?   \tp\t[no test files]\n"}, {Action: "skip"}},
			quiet:  "p",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var in, out strings.Builder
			for _, e := range test.events {
				if e.ImportPath == "" && e.Package == "" {
					e.Package = "p"
				}
				if err := json.NewEncoder(&in).Encode(e); err != nil {
					t.Fatal(err)
				}
			}
			got, err := summarize(strings.NewReader(in.String()), &out)
			if got != test.want || err != nil {
				t.Errorf("summary = %v, %v, want %v", got, err, test.want)
			}
			if !strings.Contains(out.String(), test.shown) {
				t.Errorf("the report lacks %q:\n%s", test.shown, out.String())
			}
			if test.quiet != "" && strings.Contains(out.String(), test.quiet) {
				t.Errorf("the report has %q:\n%s", test.quiet, out.String())
			}
		})
	}
}
