package securevalue

import (
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// What the eye misses at either end of a value is told, and not the newline with which text of several lines ends.
func TestWarningsOfWhatIsInvisible(t *testing.T) {
	const pem = "-----BEGIN KEY-----\nMA==\n-----END KEY-----"
	for value, want := range map[string]string{
		"plain":                            "",
		"two words":                        "",
		"v\n":                              "ends with a newline",
		"v\r\n":                            "ends with a newline",
		"v\n\n":                            "ends with a newline",
		"\n":                               "begins with a newline, ends with a newline",
		"v\r":                              "ends with a carriage return",
		"v\t":                              "ends with a tab",
		"v ":                               "ends with a space",
		" v":                               "begins with a space",
		"v\u00a0":                          "ends with a no-break space",
		"\u00a0v":                          "begins with a no-break space",
		"\ufeffv":                          "begins with a byte order mark",
		"\ufeffv\r":                        "begins with a byte order mark, ends with a carriage return",
		"v\u200b":                          "ends with an invisible character",
		"\x00v":                            "begins with an invisible character",
		"v\u3000":                          "ends with an invisible character",
		pem:                                "",
		pem + "\n":                         "",
		pem + "\n\n":                       "ends with a newline",
		pem + "\n ":                        "ends with a space",
		"\ufeff" + pem + "\n":              "begins with a byte order mark",
		"a\r\nb\r\n":                       "",
		"a\r\nb\r\n\r\n":                   "ends with a newline",
		"{\n  \"a\": 1\n}\n":               "",
		"\nv\n":                            "begins with a newline",
		"emoji \U0001F469\u200d\U0001F467": "",
	} {
		d := &desired{value: grafana.NewValue([]byte(value)), decrypters: knownDecrypters}
		got := strings.Join(d.warnings(), " ")
		said := ""
		if want != "" {
			said = "The value " + strings.ReplaceAll(want, ", ", ". The value ") + "."
		}
		if got != said {
			t.Errorf("%q: %q, want %q", value, got, said)
		}
	}
}
