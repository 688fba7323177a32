package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestRecording: a reader gets time for each line, and no more than 3 seconds.
func TestRecording(t *testing.T) {
	c := &clock{}
	r := newRecording(c.now)
	for _, output := range []struct {
		after time.Duration
		text  string
	}{
		{0, "first\n"},
		{time.Millisecond, "two\nlines\n"},
		{time.Second, "after a second\n"},
		{time.Minute, "after a \"minute\"\n"},
		{0, strings.Repeat("\n", 20)},
		{0, "last\n"},
	} {
		c.Time = c.Add(output.after)
		if _, err := r.Write([]byte(output.text)); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"version":2,"width":100,"height":30,"title":"grafana-secure-value-operator: make demo"}
[0.000, "o", "first\r\n"]
[0.300, "o", "two\r\nlines\r\n"]
[1.300, "o", "after a second\r\n"]
[4.300, "o", "after a \"minute\"\r\n"]
[4.600, "o", "` + strings.Repeat(`\r\n`, 20) + `"]
[7.600, "o", "last\r\n"]
`
	if got := string(r.cast()); got != want {
		t.Errorf("the cast is\n%s\nwant\n%s", got, want)
	}
}

func TestDraw(t *testing.T) {
	svg, err := draw(strings.NewReader(`{"version":2,"width":10,"height":2,"title":"a & b"}
[0, "o", "== title ==\r\n"]
[1, "o", "$ <cat>\r\n# said\r\n"]
[5, "o", "plain\r\n"]
`))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	for _, part := range []string{
		"a &amp; b", ".scroll,.cover{animation:10.0s ",
		`<text class="title" y="13">== title ==</text>`, `<text class="command" y="31">$ &lt;cat&gt;</text>`,
		`<text class="said" y="49"># said</text>`, `<text y="67">plain</text>`,
		"@keyframes scroll{0.00%{transform:translateY(0px)}10.00%{transform:translateY(-18px)}50.00%{transform:translateY(-36px)}}",
		"@keyframes cover{0.00%{transform:translateY(-18px)}10.00%{transform:translateY(0px)}50.00%{transform:translateY(0px)}}",
	} {
		if !strings.Contains(svg, part) {
			t.Errorf("%q is missing in\n%s", part, svg)
		}
	}
	for name, cast := range map[string]string{
		"empty": "", "no output": `{"version":2}`, "no header": `[0, "o", "x"]`, "cut": `{"version":2}` + "\n" + `[0, "o`,
	} {
		if _, err := draw(strings.NewReader(cast)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRecordingOfTheRepository: docs/demo.svg shows docs/demo.cast, which has the columns of today, and nothing of the machine that made it.
// Where it fails, run `make demo-recording`.
func TestRecordingOfTheRepository(t *testing.T) {
	cast, svg := repositoryFile(t, "docs", "demo.cast"), repositoryFile(t, "docs", "demo.svg")
	drawn, err := draw(strings.NewReader(cast))
	if err != nil {
		t.Fatal(err)
	}
	if drawn != svg {
		t.Error("docs/demo.svg is not drawn from docs/demo.cast")
	}
	wellFormed(t, svg)
	if len(svg) > 300_000 {
		t.Errorf("docs/demo.svg has %d bytes", len(svg))
	}

	_, lines, screens, err := parse(strings.NewReader(cast))
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile(`(^|[\s"'=])/\w|[A-Z]:\\`)
	for _, line := range lines {
		if len([]rune(line)) > columns || path.MatchString(line) {
			t.Errorf("it is longer than %d columns, or has a path: %s", columns, line)
		}
	}
	for i := 1; i < len(screens); i++ {
		if gap := screens[i].at - screens[i-1].at; gap < 0 || gap > maxIdle.Seconds()+0.001 {
			t.Errorf("nothing happens for %.3f s before line %d", gap, screens[i].lines)
		}
	}
	all := strings.Join(lines, "\n")
	for kind, command := range map[string]string{"grafanaconnections": "gconn", "grafanasecurevalues": "gsv", "grafanasecurevaluesets": "gsvset"} {
		header := regexp.MustCompile(`(?m)^\$ kubectl get ` + command + `\n(.*)$`).FindStringSubmatch(all)
		if header == nil || strings.Join(strings.Fields(header[1]), " ") != printerColumns(t, kind) {
			t.Errorf("`kubectl get %s` has the columns %q, want %q", command, header, printerColumns(t, kind))
		}
	}
}

// printerColumns returns what `kubectl get` prints above the objects of a kind, with single spaces.
func printerColumns(t *testing.T, kind string) string {
	t.Helper()
	var crd apiextensionsv1.CustomResourceDefinition
	content := repositoryFile(t, "config", "crd", "bases", fmt.Sprintf("grafana.securevalues.io_%s.yaml", kind))
	if err := yaml.Unmarshal([]byte(content), &crd); err != nil {
		t.Fatal(err)
	}
	names := []string{"NAME"}
	for _, column := range crd.Spec.Versions[0].AdditionalPrinterColumns {
		if column.Priority == 0 {
			names = append(names, strings.ToUpper(column.Name))
		}
	}
	return strings.Join(names, " ")
}

// wellFormed checks that it is XML, and that a page which shows it as an image needs nothing else.
func wellFormed(t *testing.T, svg string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if element, ok := token.(xml.StartElement); ok && (element.Name.Local == "script" || element.Name.Local == "image") {
			t.Errorf("the SVG has a %s", element.Name.Local)
		}
	}
	for _, other := range []string{"href", "@import", "@font-face", "url("} {
		if strings.Contains(svg, other) {
			t.Errorf("the SVG has %q", other)
		}
	}
}
