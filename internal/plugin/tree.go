package plugin

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// printStatus prints connections with their secure values as a tree.
func (t *tool) printStatus(states []*connectionState) {
	out := bufio.NewWriter(t.Out)
	defer func() { _ = out.Flush() }()
	for _, s := range states {
		address := ""
		if s.URL != "" {
			address = " (" + plain(s.URL) + ")"
		}
		fmt.Fprintf(out, "%s%s: %s\n", titleOf(ownership.Connection{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}), address, t.reason(s.state, ""))
		t.explain(out, s.state, "  ")
		t.printValues(out, s)
		fmt.Fprintln(out)
	}
}

// reason returns the reason of Ready, coloured by whether it is True.
func (t *tool) reason(s state, stale string) string {
	text, code := cmp.Or(plain(s.Reason), "not observed"), red
	switch {
	case s.isReady() && stale == "":
		code = green
	case s.isReady():
		text, code = text+", "+plain(stale), yellow
	case s.Ready != "False":
		text, code = text+"?", yellow
	}
	return t.colour(code, text)
}

// explain says why something is not Ready, and the next command.
func (t *tool) explain(out io.Writer, s state, indent string) {
	if s.isReady() {
		return
	}
	fmt.Fprintf(out, "%s%s\n", indent, plain(s.Message))
	fmt.Fprintf(out, "%sNext: %s\n", indent, plain(s.Next))
}

// printValues prints the secure values of a connection, in columns.
func (t *tool) printValues(out io.Writer, s *connectionState) {
	names := make([]string, len(s.SecureValues))
	nameWidth, reasonWidth := 0, 0
	for i, v := range s.SecureValues {
		names[i] = v.Name
		if t.allNamespaces || s.Namespace == "" {
			names[i] = v.Namespace + "/" + v.Name
		}
		nameWidth = max(nameWidth, len(names[i]))
		reasonWidth = max(reasonWidth, width(t.reason(v.state, v.Stale)))
	}
	for i, v := range s.SecureValues {
		branch, indent := "├─ ", "│    "
		if i == len(s.SecureValues)-1 {
			branch, indent = "└─ ", "     "
		}
		reason := t.reason(v.state, v.Stale)
		line := fmt.Sprintf("%s%-*s  %s%*s  %s", branch, nameWidth, names[i], reason, reasonWidth-width(reason), "", v.SecureValue)
		if v.Version > 0 {
			line += fmt.Sprintf(", version %d", v.Version)
		}
		if t.output == "wide" {
			if v.LastWrite != nil {
				line += ", written " + duration.HumanDuration(time.Since(v.LastWrite.Time)) + " ago"
			}
			if v.isReady() {
				line += "  " + plain(v.Message)
			}
		}
		fmt.Fprintln(out, line)
		t.explain(out, v.state, indent)
	}
}

// width is how many columns a text takes, with its colour or without.
func width(text string) int { return utf8.RuneCountInString(uncoloured.ReplaceAllString(text, "")) }
