package source

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/Masterminds/sprig/v3"
)

// function is one that a template may call.
type function struct {
	call  any
	reads bool // it copies nothing, and takes whole Secrets
	finds bool // and returns a part of what it was given
}

// fromSprig are the functions of sprig as they are: without side effects, of the same result for the same arguments, and no larger than a few times
// these. Those that can fail do not hide it.
var fromSprig = []string{
	"append", "b32enc", "b64enc", "coalesce", "compact", "concat", "contains", "default", "dict", "fail", "first", "has", "hasPrefix", "hasSuffix",
	"initial", "last", "list", "prepend", "quote", "rest", "reverse", "sha1sum", "sha256sum", "sha512sum", "sortAlpha", "splitList", "squote",
	"substr", "ternary", "toString", "toStrings", "trim", "trimPrefix", "trimSuffix", "trunc", "urlJoin", "urlParse",
}

// shortCircuits are functions of text/template that cannot be replaced: they evaluate only the arguments that they need. They copy nothing.
var shortCircuits = []string{"and", "or"}

var sprigFunctions = sprig.GenericFuncMap()

// plain are the functions that need nothing of a rendering: those of sprig, and ours in place of those of sprig and text/template that hide an
// error, change what is not UTF-8, or could make much from little.
var plain = func() map[string]function {
	toJSON, _ := sprigFunctions["mustToJson"].(func(any) (string, error))
	toRawJSON, _ := sprigFunctions["mustToRawJson"].(func(any) (string, error))
	all := map[string]function{
		"add":       {call: folded(func(a, b int64) int64 { return a + b })},
		"atoi":      {call: toInt},
		"b32dec":    {call: decodeBase32},
		"b64dec":    {call: decodeBase64},
		"dnsName":   {call: dnsName},
		"div":       {call: folded(func(a, b int64) int64 { return a / b })},
		"empty":     {call: sprigFunctions["empty"], reads: true},
		"eq":        {call: equal},
		"fromJson":  {call: fromJSON},
		"ge":        {call: func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c >= 0 }) }},
		"gt":        {call: func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c > 0 }) }},
		"hasKey":    {call: hasKey, reads: true},
		"html":      {call: ofTexts(template.HTMLEscaper)},
		"indent":    {call: indent},
		"int":       {call: toInt},
		"int64":     {call: toInt},
		"join":      {call: join},
		"js":        {call: ofTexts(template.JSEscaper)},
		"le":        {call: func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c <= 0 }) }},
		"len":       {call: length, reads: true},
		"lower":     {call: ofText(func(v any) (string, error) { return strings.ToLower(fmt.Sprint(v)), nil })},
		"lt":        {call: func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c < 0 }) }},
		"max":       {call: folded(func(a, b int64) int64 { return max(a, b) })},
		"min":       {call: folded(func(a, b int64) int64 { return min(a, b) })},
		"mod":       {call: folded(func(a, b int64) int64 { return a % b })},
		"mul":       {call: folded(func(a, b int64) int64 { return a * b })},
		"ne":        {call: func(a, b any) (bool, error) { same, err := equal(a, b); return !same, err }},
		"nindent":   {call: func(n int, s string) (string, error) { s, err := indent(n, s); return "\n" + s, err }},
		"not":       {call: func(v any) bool { truth, _ := template.IsTrue(v); return !truth }, reads: true},
		"omit":      {call: omit, reads: true},
		"print":     {call: fmt.Sprint},
		"printf":    {call: printf},
		"println":   {call: fmt.Sprintln},
		"replace":   {call: replace},
		"required":  {call: required},
		"sub":       {call: folded(func(a, b int64) int64 { return a - b })},
		"toJson":    {call: ofText(toJSON)},
		"toRawJson": {call: ofText(toRawJSON)},
		"upper":     {call: ofText(func(v any) (string, error) { return strings.ToUpper(fmt.Sprint(v)), nil })},
		"urlquery":  {call: template.URLQueryEscaper},
	}
	for _, name := range fromSprig {
		all[name] = function{call: sprigFunctions[name]}
	}
	return all
}()

// functions returns those that the template calls, and those that are put into its tree.
func (r *rendering) functions() template.FuncMap {
	bounded := template.FuncMap{rangedFunction: r.ranged, iterationFunction: r.iteration}
	for _, functions := range []map[string]function{plain, r.readers()} {
		for name, f := range functions {
			if r.called[name] || name == fieldFunction {
				bounded[name] = r.bounded(name, f)
			}
		}
	}
	return bounded
}

// Functions returns the names of the functions that a template may call, sorted.
func Functions() []string { return slices.Sorted(maps.Keys(known)) }

// known has the functions that a template may call, for the parser.
var known = func() map[string]any {
	all := map[string]any{}
	for _, name := range slices.Concat(shortCircuits, slices.Collect(maps.Keys(plain)), slices.Collect(maps.Keys((&rendering{}).readers()))) {
		if name != fieldFunction {
			all[name] = true
		}
	}
	return all
}()

// ofText returns a function that refuses what is not UTF-8.
func ofText(f func(any) (string, error)) func(any) (string, error) {
	return func(v any) (string, error) {
		if !utf8.ValidString(fmt.Sprint(v)) {
			return "", problemError("takes UTF-8 text alone: encode the value with b64enc first")
		}
		return f(v)
	}
}

// ofTexts is ofText for several arguments.
func ofTexts(f func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		return ofText(func(any) (string, error) { return f(args...), nil })(args)
	}
}

func decodeBase64(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	return string(b), err
}

func decodeBase32(s string) (string, error) {
	b, err := base32.StdEncoding.DecodeString(s)
	return string(b), err
}

// required is the function of Helm: it refuses an empty value.
func required(_ string, v any) (any, error) {
	if empty, _ := sprigFunctions["empty"].(func(any) bool); empty(v) {
		return nil, problemError("was given an empty value")
	}
	return v, nil
}

// noDNSName is what no DNS name has, and aroundDot a dot with what must not be beside it.
var noDNSName, aroundDot = regexp.MustCompile(`[^a-z0-9.]+`), regexp.MustCompile(`-*\.[-.]*`)

// dnsName returns the text in lower case, with '-' for what no DNS name has, and letters and digits at the ends and beside each dot.
func dnsName(s string) string {
	s = noDNSName.ReplaceAllString(strings.ToLower(s), "-")
	return strings.Trim(aroundDot.ReplaceAllString(s, "."), "-.")
}

func indent(n int, s string) (string, error) {
	if n < 0 || n > MaxBytes || len(s)+n*(1+strings.Count(s, "\n")) > MaxBytes {
		return "", errTooMuch
	}
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
}

func replace(old, with, s string) (string, error) {
	if len(s)+strings.Count(s, old)*len(with) > MaxBytes*2 {
		return "", errTooMuch
	}
	return strings.ReplaceAll(s, old, with), nil
}

func join(separator string, list any) (string, error) {
	toStrings, _ := sprigFunctions["toStrings"].(func(any) []string)
	parts := toStrings(list)
	if len(parts)*len(separator) > MaxBytes {
		return "", errTooMuch
	}
	return strings.Join(parts, separator), nil
}

// formats are those of printf whose result is bounded, and that never print an address.
var formats = regexp.MustCompile(`%[-+# 0]*[0-9]{0,2}(?:\.[0-9]{0,2})?[bcdeEfFgGoOqstUvxX%]`)

// maxFormat bounds the format of printf: to check it costs far more than to copy it.
const maxFormat = 1 << 10

func printf(format string, args ...any) (string, error) {
	if len(format) > maxFormat {
		return "", problemError(fmt.Sprintf("takes a format of at most %d bytes", maxFormat))
	}
	if strings.Contains(formats.ReplaceAllString(format, ""), "%") {
		return "", problemError("takes verbs such as %s, %d and %08.2f alone: no *, no [1], no %p, and no width above 99")
	}
	return fmt.Sprintf(format, args...), nil
}
