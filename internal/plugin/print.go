package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"
)

// The colours of a terminal. Their codes are equally long, so that columns stay in line.
const (
	red      = "31"
	green    = "32"
	yellow   = "33"
	standard = "39"
)

// colour returns text in a colour, if the output is a terminal that shows one.
func (t *tool) colour(code, text string) string {
	if text == "" || !printers.AllowsColorOutput(t.Out) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// plain returns what another writer wrote without what a terminal would take for a command.
func plain(text string) string { return printers.EscapeTerminal(text) }

// write prints what can be marshalled as JSON or YAML, by the flag -o. It reports false where another format is asked for.
func (t *tool) write(content any) (bool, error) {
	var out []byte
	var err error
	switch t.output {
	case "json":
		out, err = json.MarshalIndent(content, "", "    ")
		out = append(out, '\n')
	case "yaml":
		out, err = yaml.Marshal(content)
	default:
		return false, nil
	}
	if err == nil {
		_, err = t.Out.Write(out)
	}
	return true, err
}

// table prints rows in columns, as kubectl does.
func table(w io.Writer, rows ...[]string) error {
	var text bytes.Buffer
	columns := printers.GetNewTabWriter(&text)
	for _, row := range rows {
		fmt.Fprintln(columns, strings.Join(row, "\t"))
	}
	err := columns.Flush()
	for line := range strings.Lines(text.String()) { // an empty cell at the end would leave spaces
		if err == nil {
			_, err = fmt.Fprintln(w, strings.TrimRight(line, " \n"))
		}
	}
	return err
}

// progress shows how far a long list is read, on a terminal alone.
type progress struct {
	w     io.Writer // nil: nothing is shown
	what  string
	shown bool
}

// progressEvery is how many items are read between two updates.
const progressEvery = 500

func (t *tool) progress(what string) *progress {
	if !printers.IsTerminal(t.ErrOut) {
		return &progress{}
	}
	return &progress{w: t.ErrOut, what: what}
}

func (p *progress) show(n int) {
	if p.w != nil && n%progressEvery == 0 {
		fmt.Fprintf(p.w, "\r%s: %d", p.what, n)
		p.shown = true
	}
}

// end removes the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprintf(p.w, "\r\x1b[K")
	}
}

// uncoloured finds what gives a text its colour.
var uncoloured = regexp.MustCompile(`\x1b\[[0-9]*m`)

// commandIn is a command in the message of a condition.
var commandIn = regexp.MustCompile("`([^`]+)`")

// nextOf returns the command that a message names, or else the other one.
func nextOf(message, otherwise string) string {
	if m := commandIn.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return otherwise
}

// plural returns a number with the word for it.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
