// Package docs compares the documentation with the code: what is declared is documented, links resolve, and a server accepts the YAML.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/internal/helm"
)

// TestReasons: each page has every reason of its kind, once, and no other.
func TestReasons(t *testing.T) {
	source := text(t, "api/v1alpha1/conditions.go")
	objects, rest, found := strings.Cut(source, "// Reasons of Ready on a connection,")
	if !found {
		t.Fatal("conditions.go has no reasons of connections where they are looked for")
	}
	connections, sets, found := strings.Cut(rest, "// Reasons of Ready on a GrafanaSecureValueSet,")
	if !found {
		t.Fatal("conditions.go has no reasons of sets where they are looked for")
	}
	_, objects, _ = strings.Cut(objects, "// Reasons of Ready on a GrafanaSecureValue.")
	ofObjects := all(objects, `(?m)^\tReason\w+ += "(\w+)"$`)
	// Those that conditions.go declares with the objects, and has on a set or a connection too.
	ofSets := append(all(sets, `(?m)^\tReason\w+ += "(\w+)"$`), "Synced", "Suspended", "TemplateInvalid", "InvalidSpec", "KubernetesRefused")
	ofConnections := append(all(connections, `(?m)^\tReason\w+ += "(\w+)"$`), "ConnectionNotAllowed", "Forbidden", "InvalidSpec", "KubernetesRefused")

	page := text(t, "docs/reference/reasons.md")
	object, connection, _ := strings.Cut(page, "\n## On a connection\n")
	object, fresh, _ := strings.Cut(object, "\n## Of the condition Fresh\n")
	object, set, _ := strings.Cut(object, "\n## On a GrafanaSecureValueSet\n")
	compare(t, "reasons.md, Fresh", table(t, fresh, "| reason |"), all(text(t, "api/v1alpha1/freshness.go"), `(?m)^\tReason\w+ += "(\w+)"$`))
	compare(t, "reasons.md, GrafanaSecureValue", table(t, object, "| reason |"), ofObjects)
	compare(t, "reasons.md, GrafanaSecureValueSet", table(t, set, "| reason |"), ofSets)
	compare(t, "reasons.md, connection", table(t, connection, "| reason |"), ofConnections)
}

// TestReasonsHaveACommand: each reason has a command to run.
func TestReasonsHaveACommand(t *testing.T) {
	rows := all(text(t, "docs/reference/reasons.md"), "(?m)^(\\| `\\w+` \\|.*)$")
	if len(rows) == 0 {
		t.Error("no reasons")
	}
	for _, row := range rows {
		if cells := strings.Split(row, " | "); !regexp.MustCompile("`(?:kubectl|helm) [^`]+`").MatchString(strings.Join(cells[2:], " | ")) {
			t.Errorf("no command in %s", row)
		}
	}
}

func TestMetrics(t *testing.T) {
	compare(t, "metrics.md", table(t, text(t, "docs/reference/metrics.md"), "| metric |"), all(text(t, "internal/metrics/metrics.go"), `"(gsv_\w+)"`))
}

func TestAlerts(t *testing.T) {
	compare(t, "metrics.md", all(text(t, "docs/reference/metrics.md"), `\(\.\./runbooks/(\w+)\.md\)`),
		all(text(t, helm.Chart+"/files/alerts.yaml"), `(?m)^  - alert: (\w+)$`))
}

func TestFlags(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "run", "./cmd", "--help")
	command.Dir = root(t)
	help, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	flags := all(string(help), `(?m)^  -([a-z-]+)`)
	for i := range flags {
		flags[i] = "--" + flags[i]
	}
	compare(t, "flags.md", table(t, text(t, "docs/reference/flags.md"), "| flag |"), flags)
}

// TestEvents: the page has every event of a write. TestReasons compares those of reasons.
func TestEvents(t *testing.T) {
	var events []string
	var files []string
	for _, dir := range []string{"securevalue", "status"} {
		found, err := filepath.Glob(filepath.Join(root(t), "internal", "controller", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec: // the kinds of writes
				if kind, ok := n.Type.(*ast.Ident); ok && kind.Name == "changeKind" {
					events = append(events, literal(n.Values[0]))
				}
			case *ast.CallExpr: // an event with a name of its own
				if called, ok := n.Fun.(*ast.SelectorExpr); ok && called.Sel.Name == "Eventf" && literal(n.Args[3]) != "" {
					events = append(events, literal(n.Args[3]))
				}
			}
			return true
		})
	}
	events = append(events, "Suspended") // a reason whose event is Normal
	compare(t, "events.md", table(t, text(t, "docs/reference/events.md"), "| event |"), events)
}

func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

func compare(t *testing.T, where string, documented, declared []string) {
	t.Helper()
	slices.Sort(declared)
	slices.Sort(documented)
	declared = slices.Compact(declared)
	if len(declared) == 0 {
		t.Fatalf("%s: nothing is declared where it is looked for", where)
	}
	if !slices.Equal(documented, declared) {
		t.Errorf("%s documents\n%s\nthe code has\n%s", where, strings.Join(documented, " "), strings.Join(declared, " "))
	}
}

// table returns what the first cells of the table with that header have in code font.
func table(t *testing.T, page, header string) []string {
	t.Helper()
	_, rows, found := strings.Cut(page, "\n"+header)
	if !found {
		t.Fatalf("no table %q", header)
	}
	rows, _, _ = strings.Cut(rows, "\n\n")
	return all(rows, "(?m)^\\| `([^`]+)` \\|")
}

func all(s, pattern string) []string {
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(s, -1) {
		found = append(found, match[1])
	}
	return found
}

func text(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := helm.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
