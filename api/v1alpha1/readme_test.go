package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestReadmeNamesEveryReason holds that a reader of the README finds each reason, and what to do about it.
func TestReadmeNamesEveryReason(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := declaredReasons(t)
	if len(reasons) < 20 {
		t.Fatalf("found %d reasons only: %q", len(reasons), reasons)
	}
	for _, reason := range reasons {
		if !strings.Contains(string(readme), "\n| `"+reason+"` | ") {
			t.Errorf("the README has no row for %s", reason)
		}
	}
}

// declaredReasons returns the values of the constants Reason... of conditions.go.
func declaredReasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			literal, _ := spec.Values[0].(*ast.BasicLit) // a string constant
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, value)
		}
		return true
	})
	return reasons
}
