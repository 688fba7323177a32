package source

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// readers are the functions that tell a key which a Secret does not have.
func (r *rendering) readers() map[string]function {
	return map[string]function{
		fieldFunction: {call: r.index, reads: true, finds: true},
		"index":       {call: r.index, reads: true, finds: true},
		"get":         {call: func(m map[string]any, key string) (any, error) { return r.at(m, key) }, reads: true, finds: true},
		"dig":         {call: r.dig, reads: true, finds: true},
		"pick":        {call: r.pick, reads: true},
	}
}

// keyPattern is what the keys of a Secret look like.
var keyPattern = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// at returns what a map has under a key. Where it has nothing, that is an error, which says of a Secret which one it is. It names a key only
// if the text has it as a word: another one is computed, and may be a value.
func (r *rendering) at(m map[string]any, key string) (any, error) {
	v, found := m[key]
	if found {
		return v, nil
	}
	named := r.words[key] && keyPattern.MatchString(key)
	alias, ofSecret := r.aliases[addressOf(m)]
	switch {
	case ofSecret && named:
		return nil, &MissingKeyError{Alias: alias, Key: key}
	case ofSecret:
		return nil, &MissingKeyError{Alias: alias}
	case addressOf(m) == r.root && named:
		return nil, &TemplateError{Problem: `reads "` + key + `", which is ` + r.unknown}
	default:
		return nil, &TemplateError{Problem: "asks for a key that is not there"}
	}
}

// index returns the part of v that the keys lead to: fields of maps, elements of lists.
func (r *rendering) index(v any, keys ...any) (any, error) {
	for _, key := range keys {
		var err error
		if v, err = r.part(v, key); err != nil {
			return nil, err
		}
	}
	if v == nil {
		return nil, problemError("was given nothing")
	}
	return v, nil
}

func (r *rendering) part(v, key any) (any, error) {
	if m, ok := v.(map[string]any); ok {
		name, ok := key.(string)
		if !ok {
			return nil, problemError("takes a text as the key of a map")
		}
		return r.at(m, name)
	}
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice {
		return nil, problemError("takes a map or a list")
	}
	i, err := toInt(key)
	if err != nil || i < 0 || i >= int64(list.Len()) {
		return nil, problemError("takes the number of an element of the list, from 0")
	}
	return list.Index(int(i)).Interface(), nil
}

// dig returns what maps within maps have under the keys. The last arguments are the default, which is returned where a map that is no Secret
// lacks a key, and the map.
func (r *rendering) dig(args ...any) (any, error) {
	if len(args) < 3 {
		return nil, problemError("takes keys, a default and a map")
	}
	keys, otherwise, v := args[:len(args)-2], args[len(args)-2], args[len(args)-1]
	for _, key := range keys {
		name, isText := key.(string)
		m, isMap := v.(map[string]any)
		if !isText || !isMap {
			return nil, problemError("takes keys, a default and a map")
		}
		var err error
		if v, err = r.at(m, name); err != nil {
			if _, isSecret := r.aliases[addressOf(m)]; isSecret || addressOf(m) == r.root {
				return nil, err
			}
			v = otherwise
			break
		}
	}
	return r.index(v)
}

// pick returns a map of those keys alone. A Secret must have each.
func (r *rendering) pick(m map[string]any, keys ...string) (map[string]any, error) {
	picked := map[string]any{}
	for _, key := range keys {
		v, err := r.at(m, key)
		if err != nil && errors.As(err, new(*MissingKeyError)) {
			return nil, err
		}
		if err == nil {
			picked[key] = v
		}
	}
	return picked, nil
}

// omit returns a map without those keys.
func omit(m map[string]any, keys ...string) map[string]any {
	rest := maps.Clone(m)
	for _, key := range keys {
		delete(rest, key)
	}
	return rest
}

func hasKey(m map[string]any, key string) bool {
	_, found := m[key]
	return found
}

func length(v any) (int, error) {
	switch value := reflect.ValueOf(v); value.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
		return value.Len(), nil
	default:
		return 0, problemError("takes a text, a list or a map")
	}
}

// fromJSON parses JSON. Unlike sprig's it fails where it cannot, and prints an integer as it was written. A field that is null is not there.
func fromJSON(s string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(s))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, problemError("found something after the JSON value")
	}
	return withoutNull(v)
}

func withoutNull(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return v.Int64()
	case []any:
		for i := range v {
			var err error
			if v[i], err = withoutNull(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		maps.DeleteFunc(v, func(_ string, field any) bool { return field == nil })
		for _, key := range slices.Sorted(maps.Keys(v)) { // so that of two errors it is always the same one
			var err error
			if v[key], err = withoutNull(v[key]); err != nil {
				return nil, err
			}
		}
	case nil:
		return nil, problemError("found null where a value must be")
	}
	return v, nil
}

// equal reports whether the first is one of the others, as eq of text/template does.
func equal(first any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, problemError("takes two arguments or more")
	}
	for _, other := range others {
		a, b, bools := are[bool](first, other)
		if bools && a == b {
			return true, nil
		}
		if bools {
			continue
		}
		if order, err := compare(first, other); err != nil || order == 0 {
			return err == nil, err
		}
	}
	return false, nil
}

func ordered(a, b any, want func(int) bool) (bool, error) {
	order, err := compare(a, b)
	return err == nil && want(order), err
}

// compare orders two texts, or two numbers.
func compare(a, b any) (int, error) {
	if x, y, both := are[string](a, b); both {
		return strings.Compare(x, y), nil
	}
	if x, y, both := are[float64](a, b); both {
		return cmp.Compare(x, y), nil
	}
	x, err := toInt(a)
	y, errToo := toInt(b)
	_, isText := a.(string)
	_, isTextToo := b.(string)
	if isText || isTextToo || err != nil || errToo != nil {
		return 0, problemError("compares two texts, two integers or two other numbers")
	}
	return cmp.Compare(x, y), nil
}

func are[T any](a, b any) (x, y T, both bool) {
	x, first := a.(T)
	y, second := b.(T)
	return x, y, first && second
}

// toInt returns the integer that a number or a decimal text is.
func toInt(v any) (int64, error) {
	switch v := v.(type) {
	case int:
		return int64(v), nil
	case int64:
		return v, nil
	case string:
		return strconv.ParseInt(v, 10, 64)
	default:
		return 0, problemError("takes integers alone")
	}
}

// folded returns a function that goes through integers. Unlike those of sprig it takes nothing else for 0, and 010 for 10.
func folded(step func(a, b int64) int64) func(any, ...any) (int64, error) {
	return func(first any, others ...any) (int64, error) {
		sum, err := toInt(first)
		for _, other := range others {
			n, otherErr := toInt(other)
			if err = cmp.Or(err, otherErr); err != nil {
				break
			}
			sum = step(sum, n)
		}
		return sum, err
	}
}
