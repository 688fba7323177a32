// Chartdocs writes the table of values into the README of a chart, between its two marks, from the comments in values.yaml that
// begin with "--". Its argument is the directory of the chart.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	begin = "<!-- Made from values.yaml by `make manifests`. -->\n"
	end   = "<!-- The end of what is made. -->\n"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: chartdocs DIRECTORY")
	}
	values, err := os.ReadFile(filepath.Join(args[0], "values.yaml"))
	if err != nil {
		return err
	}
	made, err := table(values)
	if err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	path := filepath.Join(args[0], "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	readme, err = replace(readme, made)
	if err != nil {
		return fmt.Errorf("README.md: %w", err)
	}
	return os.WriteFile(path, readme, 0o644)
}

// replace puts the text between the two marks.
func replace(readme, made []byte) ([]byte, error) {
	before, rest, found := bytes.Cut(readme, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		return nil, fmt.Errorf("it needs the lines %q and %q", begin, end)
	}
	return bytes.Join([][]byte{before, []byte(begin), made, []byte(end), after}, nil), nil
}

// table returns a row for each documented value, in their order. Every value must be documented, or belong to one that is.
func table(values []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is not a map")
	}
	var out bytes.Buffer
	out.WriteString("| value | meaning | default |\n|---|---|---|\n")
	err := rows(&out, "", document.Content[0])
	return out.Bytes(), err
}

func rows(out *bytes.Buffer, prefix string, values *yaml.Node) error {
	for i := 0; i < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		path := prefix + key.Value
		text, documented := description(key.HeadComment)
		switch {
		case documented:
			shown, err := show(value)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			fmt.Fprintf(out, "| `%s` | %s | `%s` |\n", path, text, shown)
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			if err := rows(out, path+".", value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s has no comment that begins with --", path)
		}
	}
	return nil
}

// description returns what a comment says of the value below it, on one line.
func description(comment string) (text string, documented bool) {
	var words []string
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		if first, found := strings.CutPrefix(line, "-- "); found {
			words, documented = nil, true
			line = first
		}
		words = append(words, line)
	}
	return strings.ReplaceAll(strings.Join(words, " "), "|", `\|`), documented
}

// show returns a value as it can be written on one line.
func show(value *yaml.Node) (string, error) {
	var v any
	if err := value.Decode(&v); err != nil {
		return "", err
	}
	shown, err := json.Marshal(v)
	return string(shown), err
}
