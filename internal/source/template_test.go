package source_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

// canary is a value that no error may have, in whatever form.
const canary = "c4n4ry-Passw0rd"

func testSecrets() map[string]map[string][]byte {
	return map[string]map[string][]byte{
		"db": {
			"user": []byte("admin"), "password": []byte(canary), "tls.crt": []byte("PEM\n"), "empty": {}, "binary": []byte("\xff\x00\xfe"),
			"json": []byte(`{"host":"h","port":1000000,"ratio":1.5,"none":null,"list":["a","b"],"deep":{"x":"y"}}`), "number": []byte("010"),
		},
		"app":  {"host": []byte("db.example.com"), "csv": []byte("a,b,c")},
		"none": {},
	}
}

func TestRender(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain",
		`postgres://{{ .db.user | urlquery }}:{{ "p@ss/w" | urlquery }}@{{ .app.host }}/app`:                                           "postgres://admin:p%40ss%2Fw@db.example.com/app",
		`{{ index .db "tls.crt" }}{{ index . "app" "host" }}`:                                                                          "PEM\ndb.example.com",
		`{{ get .db "user" }} {{ dig "app" "host" "x" . }}`:                                                                            "admin db.example.com",
		`{{ with .db }}{{ .user }}{{ end }}{{ $x := .app }}{{ $x.host }} {{ $.db.user }}`:                                              "admindb.example.com admin",
		`{{ (index . "db").user }}{{ (fromJson .db.json).deep.x }}`:                                                                    "adminy",
		`{{ if hasKey .db "nothing" }}{{ .db.nothing }}{{ else }}none{{ end }}`:                                                        "none",
		`{{ range $k, $v := pick .db "user" "empty" }}{{ $k }}={{ $v }};{{ end }}`:                                                     "empty=;user=admin;",
		`{{ range splitList "," .app.csv }}{{ . }}.{{ else }}none{{ end }}`:                                                            "a.b.c.",
		`{{ range $i := 3 }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $i }}{{ end }}`:                                                  "02",
		`{{ range $i, $x := list "a" "b" "c" }}{{ if eq $i 1 }}{{ break }}{{ end }}{{ $x }}{{ end }}`:                                  "a",
		`{{ fromJson .db.json | toJson }}`:                                                                                             `{"deep":{"x":"y"},"host":"h","list":["a","b"],"port":1000000,"ratio":1.5}`,
		`{{ (fromJson .db.json).port }} {{ (fromJson .db.json).ratio }}`:                                                               "1000000 1.5",
		`{{ dig "a" "b" "default" (dict "a" (dict "x" "y")) }}`:                                                                        "default",
		`{{ omit .app "csv" | toJson }}{{ len .none }}`:                                                                                `{"host":"db.example.com"}0`,
		`{{ printf "%s:%05d:%-4s|%q %x %.1f %%" .db.user 7 "ab" "c" "d" 1.25 }}`:                                                       `admin:00007:ab  |"c" 64 1.2 %`,
		`{{ .db.binary | b64enc }} {{ .db.binary | b64enc | b64dec | sha256sum | trunc 8 }}`:                                           "/wD+ " + "af9ceddc",
		`{{ "a\nb" | indent 2 }}{{ "a\nb" | nindent 1 }}`:                                                                              "  a\n  b\n a\n b",
		`{{ replace "a" "bb" "banana" }} {{ join "-" (list 1 "x" 2.5) }}`:                                                              "bbbnbbnbb 1-x-2.5",
		`{{ add 1 2 3 }} {{ sub 5 2 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }} {{ max 1 3 2 }} {{ min 2 1 }} {{ add .db.number 1 }}`: "6 3 6 3 1 3 1 11",
		`{{ eq 1 2 1 }} {{ ne "a" "b" }} {{ lt 1 2 }} {{ le 2 2 }} {{ gt 1.5 1.0 }} {{ ge "b" "a" }} {{ eq true false true }}`:         "true true true true true true true",
		`{{ and "" .db.nothing }}{{ or "x" .db.nothing }}{{ not true }}`:                                                               "xfalse",
		`{{ default "x" .db.empty }} {{ ternary "a" "b" true }} {{ coalesce "" "c" }} {{ empty .db.empty }} {{ required "why" "d" }}`:  "x a c true d",
		`{{ trim " a " }}{{ upper "b" }}{{ lower "C" }}{{ trimPrefix "x" "xd" }}{{ trimSuffix "x" "ex" }}{{ substr 1 2 "afb" }}`:       "aBcdef",
		`{{ html "<" }} {{ js "'" }} {{ quote "a" }} {{ squote "b" }} {{ print 1 2 "x" }} {{ toString 5 }} {{ toRawJson "<" }}`:        `&lt; \' "a" 'b' 1 2x 5 "<"`,
		`{{ (urlParse "https://u:p@h:1/p?q#f").hostname }} {{ urlJoin (dict "scheme" "http" "host" "h" "path" "/p") }}`:                "h http://h/p",
		`{{ list 1 2 3 | rest | first }}{{ initial (list 1 2) | last }}{{ append (list 1) 2 | len }}{{ prepend (list 1) 0 | first }}`:  "2120",
		`{{ concat (list 1) (list 2) | reverse | join "" }}{{ compact (list "" 1) | len }}{{ has 2 (list 1 2) }}`:                      "211true",
		`{{ sortAlpha (list "b" "a") | join "" }}{{ toStrings (list 1 2) | join "" }}{{ contains "a" "ba" }}{{ hasPrefix "b" "ba" }}`:  "ab12truetrue",
		"{{- /* a comment */ -}} {{ \"{{\" }}":                                                                                         "{{",
	} {
		t.Run(text, func(t *testing.T) {
			got, err := source.Render(t.Context(), text, testSecrets())
			if err != nil || string(got) != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			if again, _ := source.Render(t.Context(), text, testSecrets()); string(again) != want {
				t.Errorf("a second time it is %q", again)
			}
		})
	}
}

func TestAMissingKeyIsNamed(t *testing.T) {
	for text, want := range map[string]source.MissingKeyError{
		"\n {{ .db.nothing }}":                              {"db", "nothing", 2, 8},
		`{{ .db.nothing | default "x" }}`:                   {"db", "nothing", 1, 7},
		`{{ default "x" .db.nothing }}`:                     {"db", "nothing", 1, 19},
		`{{ index .db "not-there" }}`:                       {"db", "not-there", 1, 4},
		`{{ index . "db" "nothing" }}`:                      {"db", "nothing", 1, 4},
		`{{ get .db "nothing" }}`:                           {"db", "nothing", 1, 4},
		`{{ dig "db" "nothing" "default" . }}`:              {"db", "nothing", 1, 4},
		`{{ dig "nothing" "default" .db }}`:                 {"db", "nothing", 1, 4},
		`{{ pick .db "user" "nothing" | toJson }}`:          {"db", "nothing", 1, 4},
		`{{ with .db }}{{ .nothing }}{{ end }}`:             {"db", "nothing", 1, 18},
		`{{ $x := .db }}{{ $x.nothing }}`:                   {"db", "nothing", 1, 21},
		`{{ range . }}{{ .nothing }}{{ end }}`:              {"app", "nothing", 1, 17},
		`{{ (index . "db").nothing }}`:                      {"db", "nothing", 1, 18},
		`{{ if .none.x }}{{ end }}`:                         {"none", "x", 1, 12},
		`{{ (ternary .db .app true).nothing }}`:             {"db", "nothing", 1, 27},
		`{{ (default .app .none).nothing }}`:                {"app", "nothing", 1, 24},
		`{{ index .db .db.password }}`:                      {"db", "", 1, 4}, // the key would be the value
		`{{ get .db (print .db.password "x") }}`:            {"db", "", 1, 4},
		`{{ dig .db.password "x" .db }}`:                    {"db", "", 1, 4},
		`{{ pick .db .db.password }}`:                       {"db", "", 1, 4},
		`{{ index .db "` + strings.Repeat("x", 254) + `"}}`: {"db", "", 1, 4},
		`{{ index .db "no key" }}`:                          {"db", "", 1, 4},
	} {
		_, err := source.Render(t.Context(), text, testSecrets())
		if got, ok := errors.AsType[*source.MissingKeyError](err); !ok || *got != want {
			t.Errorf("%s: %+v, want %+v", text, err, want)
		}
	}
}

func TestAnInvalidTemplateIsTold(t *testing.T) {
	for text, want := range map[string]source.TemplateError{
		"\n{{ .db.user":                           {2, 0, "cannot be parsed: unclosed action"},
		`{{ .db.user } }}`:                        {1, 0, "cannot be parsed: unexpected ... in operand"},
		`{{ if true }}`:                           {1, 0, "cannot be parsed: unexpected EOF"},
		`{{ $x }}`:                                {1, 0, "cannot be parsed: undefined variable ..."},
		`{{ now }}`:                               {1, 0, `calls function "now", which does not exist or is not allowed`},
		`{{ call .db }}`:                          {1, 0, `calls function "call", which does not exist or is not allowed`},
		`{{ _field . "db" }}`:                     {1, 0, `calls function "_field", which does not exist or is not allowed`},
		`{{ _iteration 1 }}`:                      {1, 0, `calls function "_iteration", which does not exist or is not allowed`},
		`{{ define "a" }}x{{ end }}x`:             {0, 0, "has a define or block, which is not supported"},
		`{{ define "value" }}x{{ end }}`:          {0, 0, "has a define or block, which is not supported"},
		`{{ block "a" . }}x{{ end }}`:             {0, 0, "has a define or block, which is not supported"},
		"x\n{{ template \"value\" }}":             {2, 0, "calls another template, which is not supported"},
		`{{ .other.user }}`:                       {1, 10, `reads "other", which is the alias of no Secret in spec.valueFrom.template.secretRefs`},
		`{{ index . .db.password }}`:              {1, 4, "asks for a key that is not there"},
		`{{ .db.user.name }}`:                     {1, 7, "asks for a field of what has none"},
		`{{ .db.user "x" }}`:                      {1, 4, "does what is not possible with these values"},
		`{{ (fromJson .db.json).none }}`:          {1, 23, "asks for a key that is not there"},
		`{{ fail .db.password }}`:                 {1, 4, `calls function "fail", which fails`},
		`{{ required .db.password .db.empty }}`:   {1, 4, `calls function "required", which was given an empty value`},
		`{{ fromJson .db.password }}`:             {1, 4, `calls function "fromJson", which fails`},
		`{{ fromJson "[null]" }}`:                 {1, 4, `calls function "fromJson", which found null where a value must be`},
		`{{ fromJson "1 2" }}`:                    {1, 4, `calls function "fromJson", which found something after the JSON value`},
		`{{ fromJson "99999999999999999999" }}`:   {1, 4, `calls function "fromJson", which fails`},
		`{{ b64dec .db.password }}`:               {1, 4, `calls function "b64dec", which fails`},
		`{{ b32dec .db.password }}`:               {1, 4, `calls function "b32dec", which fails`},
		`{{ atoi .db.password }}`:                 {1, 4, `calls function "atoi", which fails`},
		`{{ add 1 .db.password }}`:                {1, 4, `calls function "add", which fails`},
		`{{ int (list) }}`:                        {1, 4, `calls function "int", which takes integers alone`},
		`{{ div 1 0 }}`:                           {1, 4, `calls function "div", which fails`},
		`{{ urlParse (print ":" .db.password) }}`: {1, 4, `calls function "urlParse", which fails`},
		`{{ index (list 1) 1 }}`:                  {1, 4, `calls function "index", which takes the number of an element of the list, from 0`},
		`{{ index "x" .db.password }}`:            {1, 4, `calls function "index", which takes a map or a list`},
		`{{ dig .db }}`:                           {1, 4, `calls function "dig", which takes keys, a default and a map`},
		`{{ substr 6 5 .db.user }}`:               {1, 4, `calls function "substr", which fails`},
		`{{ first (list) }}`:                      {1, 4, `calls function "first", which takes or makes what is no text, number, list or map`},
		`{{ list nil }}`:                          {1, 4, `calls function "list", which takes or makes what is no text, number, list or map`},
		`{{ dig "a" nil (dict) }}`:                {1, 4, `calls function "dig", which was given nothing`},
		`{{ print 1i }}`:                          {1, 4, `calls function "print", which takes or makes what is no text, number, list or map`},
		`{{ printf "%p" .db }}`:                   {1, 4, `calls function "printf", which takes verbs such as %s, %d and %08.2f alone: no *, no [1], no %p, and no width above 99`},
		`{{ upper .db.binary }}`:                  {1, 4, `calls function "upper", which takes UTF-8 text alone: encode the value with b64enc first`},
		`{{ toJson .db }}`:                        {1, 4, `calls function "toJson", which takes UTF-8 text alone: encode the value with b64enc first`},
		`{{ js .db.binary }}`:                     {1, 4, `calls function "js", which takes UTF-8 text alone: encode the value with b64enc first`},
		`{{ eq "1" 1 }}`:                          {1, 4, `calls function "eq", which compares two texts, two integers or two other numbers`},
		`{{ range .db.password }}{{ end }}`:       {1, 10, "does what is not possible with these values"},
		`{{ upper .db.user .db.password }}`:       {1, 4, "does what is not possible with these values"},
		`{{ trunc .db.password "x" }}`:            {1, 13, "does what is not possible with these values"},
	} {
		_, err := source.Render(t.Context(), text, testSecrets())
		if got, ok := errors.AsType[*source.TemplateError](err); !ok || *got != want {
			t.Errorf("%s: %+v, want %+v", text, err, want)
		}
	}
}

// Each of these would take much memory or time, print an address, or not end.
func TestATemplateIsBounded(t *testing.T) {
	double := func(rounds int, step string) string {
		return fmt.Sprintf("{{ $x := .big.value }}{{ range $i := %d }}{{ $x = %s }}{{ end }}", rounds, step)
	}
	tooMuch := func(function string) string {
		return fmt.Sprintf("calls function %q, which takes or makes more than 65536 bytes", function)
	}
	const iterations, work, deep = "has more than 10000 iterations", "does more than 16384 KiB of work", "takes or makes lists or maps that are nested too deep"
	secrets := map[string]map[string][]byte{"big": {
		"value": []byte(strings.Repeat("x", 1024)), "full": []byte(strings.Repeat("\x00", source.MaxBytes)),
		"half": []byte(strings.Repeat("'", source.MaxBytes/2)), "csv": []byte(strings.Repeat(",", 9_999)), "lines": []byte(strings.Repeat("\n", 9_999)),
	}}
	secrets["keys"] = map[string][]byte{}
	for i := range 40_000 {
		secrets["keys"][fmt.Sprint(i)] = nil
	}
	for _, row := range [][2]string{
		{double(24, "print $x $x"), tooMuch("print")},
		{double(24, "printf `%s%s` $x $x"), tooMuch("printf")},
		{double(24, "list $x $x"), tooMuch("list")},
		{double(9999, "list $x"), `calls function "list", which ` + deep},
		{double(24, "dict `a` $x `b` $x"), tooMuch("dict")},
		{`{{ $l := list 1 2 }}{{ range 24 }}{{ $l = concat $l $l }}{{ end }}`, tooMuch("concat")},
		{`{{ html .big.half }}`, tooMuch("html")},
		{`{{ js .big.full }}`, tooMuch("js")},
		{`{{ urlquery .big.full }}`, tooMuch("urlquery")},
		{`{{ quote .big.full }}`, tooMuch("quote")},
		{`{{ toJson .big.full }}`, tooMuch("toJson")},
		{`{{ b64enc .big.full }}`, tooMuch("b64enc")},
		{`{{ print .big }}`, tooMuch("print")},
		{`{{ print ` + strings.Repeat(`.big.full `, 1500) + `}}`, tooMuch("print")},
		{`{{ indent 1000000000 "x" }}`, tooMuch("indent")},
		{`{{ nindent 9223372036854775807 "x" }}`, tooMuch("nindent")},
		{`{{ indent 60000 .big.lines }}`, tooMuch("indent")},
		{`{{ replace "" .big.half .big.half }}`, tooMuch("replace")},
		{`{{ replace "x" .big.half .big.value }}`, tooMuch("replace")},
		{`{{ join .big.half (splitList "" .big.value) }}`, tooMuch("join")},
		{`{{ printf "%99999999d" 1 }}`, "printf"},
		{`{{ printf "%1000000d" 1 }}`, "printf"},
		{`{{ printf "%100d" 1 }}`, "printf"},
		{`{{ printf "%.100f" 1.0 }}`, "printf"},
		{`{{ printf "%*d" 100000 1 }}`, "printf"},
		{`{{ printf "%[1]s%[1]s" .big.half }}`, "printf"},
		{`{{ printf "%%%-1000d" 1 }}`, "printf"},
		{`{{ printf .big.half "x" }}`, `takes a format of at most 1024 bytes`},
		{`{{ range 41 }}{{ range $key, $value := $.keys }}{{ break }}{{ end }}{{ end }}`, work},
		{`{{ range 10001 }}{{ end }}`, iterations},
		{`{{ range 1000000000000 }}{{ end }}`, iterations},
		{`{{ range 101 }}{{ range 100 }}{{ end }}{{ end }}`, iterations},
		{`{{ range 5000 }}{{ end }}{{ range 5001 }}{{ end }}`, iterations},
		{`{{ range 10001 }}{{ continue }}{{ end }}`, iterations},
		{`{{ if true }}{{ with 1 }}{{ range 10001 }}{{ end }}{{ end }}{{ end }}`, iterations},
		{`{{ range splitList "," (print .big.csv ",") }}{{ end }}`, iterations},
		{`{{ range 10000 }}{{ sha512sum $.big.full }}{{ end }}`, work},
		{`{{ range 9999 }}{{ eq $.big.full $.big.full }}{{ end }}`, tooMuch("eq")},
		{`{{ range 9999 }}{{ eq $.big.half $.big.half }}{{ end }}`, work},
		{`{{ range 9999 }}` + strings.Repeat(`{{ if 1 }}{{ end }}`, 800) + `{{ end }}`, work},
		{`{{ range 9999 }}{{ $x := "" }}` + strings.Repeat(`{{ $x }}`, 1900) + `{{ end }}`, work},
		{`{{ range 9999 }}{{ $x := splitList "" $.big.value }}{{ end }}`, work},
		{strings.Repeat(`{{ $x := splitList "" .big.lines }}`, 400), work},
		{strings.Repeat(`{{ if 1 }}`, 700) + strings.Repeat(`{{ end }}`, 700) + `{{ fail "the end" }}`, `calls function "fail"`},
		{`{{ fromJson (print "` + strings.Repeat("[", 2000) + `" "` + strings.Repeat("]", 2000) + `") }}`, `calls function "fromJson", which ` + deep},
	} {
		text, want := row[0], row[1]
		_, err := source.Render(t.Context(), text, secrets)
		if got, ok := errors.AsType[*source.TemplateError](err); !ok || !strings.Contains(got.Problem, want) {
			t.Errorf("%.100s: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{`{{ .big.full }}x`, `{{ . }}`, `{{ range 100 }}{{ $.big.value }}{{ end }}`} {
		if _, err := source.Render(t.Context(), text, secrets); !errors.As(err, new(source.TooLargeError)) {
			t.Errorf("%s: %v, want that it is too large", text, err)
		}
	}
	for text, want := range map[string]int{
		`{{ .big.full }}`:                                                 source.MaxBytes,
		`{{ print .big.full }}`:                                           source.MaxBytes,
		`{{ range 10000 }}x{{ end }}`:                                     10000,
		`{{ range 99 }}{{ range 100 }}x{{ end }}{{ end }}`:                9900,
		`{{ range splitList "," .big.csv }}{{ print "x" }}{{ end }}`:      10000,
		`{{ printf "%99d %.99f" 1 1.0 }}`:                                 201,
		`{{ printf "50%% of %s" "x" }}`:                                   8,
		double(6, "print $x $x"):                                          0,
		`{{ range list 1 2 3 }}{{ range list 1 2 3 }}x{{ end }}{{ end }}`: 9,
	} {
		if got, err := source.Render(t.Context(), text, secrets); err != nil || len(got) != want {
			t.Errorf("%.100s: %d bytes, %v, want %d", text, len(got), err, want)
		}
	}
}

// TestNoErrorHasAValue: what a template can do with a value ends in an error without it.
func TestNoErrorHasAValue(t *testing.T) {
	secrets := testSecrets()
	argument := []string{`.db.password`, `(list .db.password)`, `(dict .db.password .db.password)`, `(print "{" .db.password)`, `.db`, `.`, `1`, `(int "9")`}
	failed := 0
	check := func(text string) {
		_, err := source.Render(t.Context(), text, secrets)
		if err == nil {
			return
		}
		failed++
		for _, shown := range []string{err.Error(), fmt.Sprintf("%v %+v %#v", err, err, err)} {
			if strings.Contains(shown, "c4n4ry") || strings.Contains(shown, "Passw0rd") {
				t.Errorf("%s: %s", text, shown)
			}
		}
	}
	for _, name := range append(source.Functions(), "nothing") {
		for _, a := range argument {
			check(fmt.Sprintf("{{ %s %s }}", name, a))
			for _, b := range argument {
				check(fmt.Sprintf("{{ %s %s %s }}", name, a, b))
				check(fmt.Sprintf("{{ %s %s %s %s }}", name, b, a, a))
			}
		}
	}
	for _, form := range []string{
		"{{ range %s }}{{ .x }}{{ end }}", "{{ range $a, $b := %s }}{{ fail $b }}{{ end }}", "{{ with %s }}{{ .x }}{{ end }}", "{{ (%s).x.y }}",
		"{{ %s | nothing }}", "{{ if eq %s 1 }}{{ end }}", "{{ $x := %s }}{{ $x.y }}", "{{ template %s }}", "{{ %s 1 }}", "{{ index . %s }}", "{{ index (%s) 1 }}",
	} {
		for _, a := range argument {
			check(fmt.Sprintf(form, a))
		}
	}
	if failed < 1000 {
		t.Errorf("%d templates failed, want most", failed)
	}
}

func TestFunctionsAreSorted(t *testing.T) {
	names := source.Functions()
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(source.Functions()) {
		t.Errorf("%v", names)
	}
	for _, never := range []string{
		"_field", "bcrypt", "call", "encryptAES", "env", "expandenv", "genCA", "genPrivateKey", "getHostByName", "htpasswd", "keys", "now", "randAlpha", "regexMatch",
		"repeat", "seq", "set", "shuffle", "until", "untilStep", "uuidv4", "values",
	} {
		if slices.Contains(names, never) {
			t.Errorf("%s is allowed", never)
		}
	}
}

// FuzzRender: whatever the text is, an error has nothing of a value, a result is bounded, and both are the same each time.
func FuzzRender(f *testing.F) {
	for _, text := range []string{
		`{{ .db.password }}`, `{{ index .db "tls.crt" | b64enc }}`, `{{ range $k, $v := .db }}{{ fail $v }}{{ end }}`, `{{ printf "%d" .db.password }}`,
		`{{ $x := .app.csv }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}`, `{{ dig "a" .db.password . }}`, `{{ (fromJson .db.json).list }}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 || strings.Contains(text, "4n4ry") {
			return
		}
		result, err := source.Render(t.Context(), text, testSecrets())
		if len(result) > source.MaxBytes {
			t.Errorf("%d bytes", len(result))
		}
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, err), "4n4ry") {
			t.Errorf("the error has a value: %v", err)
		}
		again, errAgain := source.Render(t.Context(), text, testSecrets())
		if string(again) != string(result) || fmt.Sprint(errAgain) != fmt.Sprint(err) {
			t.Errorf("%q, %v, and then %q, %v", result, err, again, errAgain)
		}
	})
}

func TestRenderName(t *testing.T) {
	words := map[string]string{"Secret": "sm", "Key": "SM_Token"}
	for text, want := range map[string]string{
		"{{ .Secret }}-{{ .Key | dnsName }}":    "sm-sm-token",
		`{{ .Key | lower | trimPrefix "sm_" }}`: "token",
		"{{ .Other }}":                          `reads "Other", which is none of Key, Secret`,
		"{{ range 10000 }}{{ .Key }}{{ end }}":  "asks for a field",
		"{{ range 2000 }}{{ $.Key }}{{ end }}":  "does more than 64 KiB of work",
		`{{ define "x" }}{{ end }}`:             "define",
	} {
		got, err := source.RenderName(t.Context(), text, words)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s makes %q, want %q", text, got, want)
		}
	}
}

func TestDNSName(t *testing.T) {
	for text, want := range map[string]string{
		"SM_API_KEY": "sm-api-key", "tls.crt": "tls.crt", "a_.b": "a.b", "a..b": "a.b", "_x_": "x", "-.x.-": "x", "a--b": "a-b", "": "", "\u00fc": "",
	} {
		got, err := source.RenderName(t.Context(), "{{ .Key | dnsName }}", map[string]string{"Key": text})
		if err != nil || got != want {
			t.Errorf("dnsName of %q is %q, %v, want %q", text, got, err, want)
		}
	}
}
