package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestThreatModel: assets, threats and controls are numbered without a gap, each asset is under a threat and each threat under a control,
// and each control names tests that exist.
func TestThreatModel(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	assets, threats, controls := rows(t, string(page), "A", 2), rows(t, string(page), "T", 3), rows(t, string(page), "C", 4)
	covered(t, "assets of threats", assets, column(threats, 2))
	covered(t, "threats of controls", threats, column(controls, 2))
	haveTests(t, controls, 3)
}

// TestGuards: guards are numbered without a gap, and each names tests that exist.
func TestGuards(t *testing.T) {
	haveTests(t, rows(t, text(t, "docs/internals/guards.md"), "G", 4), 3)
}

// TestSchedules: schedules are numbered without a gap, and each names tests that exist.
func TestSchedules(t *testing.T) {
	haveTests(t, rows(t, text(t, "docs/internals/ownership-schedules.md"), "S", 4), 3)
}

// haveTests: that cell of each row names tests that exist, with "<br>" between them.
func haveTests(t *testing.T, rows [][]string, cell int) {
	t.Helper()
	known := map[string][]string{} // by directory
	for _, row := range rows {
		for named := range strings.SplitSeq(row[cell], "<br>") {
			found := regexp.MustCompile("^`([a-z0-9/]+)`: (.+)$").FindStringSubmatch(named)
			if found == nil {
				t.Errorf("%s: %q is not a directory and a test", row[0], named)
				continue
			}
			dir, test := found[1], found[2]
			if known[dir] == nil {
				known[dir] = testsOf(t, filepath.Join(root(t), dir))
			}
			if !slices.Contains(known[dir], test) {
				t.Errorf("%s: %s has no test %q", row[0], dir, test)
			}
		}
	}
}

// rows returns the cells of the rows whose first cell is the letter and a number. The numbers must count on from 1.
func rows(t *testing.T, page, letter string, cells int) [][]string {
	t.Helper()
	var found [][]string
	for _, line := range regexp.MustCompile(`(?m)^\| (`+letter+`[0-9]+ \| .*) \|$`).FindAllStringSubmatch(page, -1) {
		row := strings.Split(line[1], " | ")
		if want := letter + strconv.Itoa(len(found)+1); len(row) != cells || row[0] != want {
			t.Fatalf("the row %q: want %d cells, and first %s", line[0], cells, want)
		}
		found = append(found, row)
	}
	if len(found) == 0 {
		t.Fatalf("the page has no rows %s1 and so on", letter)
	}
	return found
}

func column(rows [][]string, i int) []string {
	var cells []string
	for _, row := range rows {
		cells = append(cells, row[i])
	}
	return cells
}

// covered: each cell is a list of numbers of rows that exist, and each row is in one of them.
func covered(t *testing.T, what string, rows [][]string, cells []string) {
	t.Helper()
	named := map[string]bool{}
	for _, cell := range cells {
		for number := range strings.SplitSeq(cell, ", ") {
			named[number] = true
		}
	}
	want := slices.Sorted(slices.Values(column(rows, 0)))
	if got := slices.Sorted(maps.Keys(named)); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want each of %v and no other", what, got, want)
	}
}

// testsOf returns the tests in a directory: functions by their name, with those that they run as in TestX/sub, and specs of Ginkgo by all
// that is written above them, with spaces between. Names that are not written out are left out.
func testsOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("tests of %s: %v, %v", dir, files, err)
	}
	var tests []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			above, between := "", " "
			if function, ok := decl.(*ast.FuncDecl); ok {
				if name := function.Name.Name; strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
					above, between = name, "/"
					tests = append(tests, name)
				}
			}
			tests = append(tests, below(decl, above, between)...)
		}
	}
	return tests
}

// below returns the tests within a node.
func below(node ast.Node, above, between string) []string {
	var tests []string
	ast.Inspect(node, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || n == node || len(call.Args) < 2 || !isTest(call.Fun) {
			return true
		}
		literal, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		name, err := strconv.Unquote(literal.Value)
		if err != nil {
			return true
		}
		if above != "" {
			name = above + between + name
		}
		if container, ok := call.Fun.(*ast.Ident); !ok || container.Name != "Describe" && container.Name != "Context" {
			tests = append(tests, name)
		}
		for _, arg := range call.Args[1:] {
			tests = append(tests, below(arg, name, between)...)
		}
		return false
	})
	return tests
}

// isTest reports whether a function names a test.
func isTest(function ast.Expr) bool {
	switch f := function.(type) {
	case *ast.Ident:
		return slices.Contains([]string{"Describe", "DescribeTable", "Context", "It", "Entry", "ReportAfterSuite"}, f.Name)
	case *ast.SelectorExpr:
		return f.Sel.Name == "Run"
	}
	return false
}
