package source

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// maxDepth bounds lists and maps within lists and maps.
const maxDepth = 32

// elementCost is the memory that an element of a list or map takes beside its content.
const elementCost = 48

// errTooMuch ends a function that was given, or would make, too much.
var errTooMuch = problemError(fmt.Sprintf("takes or makes more than %d bytes", MaxBytes))

// bounded returns the function with the bounds of a rendering: its arguments together have at most MaxBytes, and so has its result. Every error,
// and every panic, becomes one of ours.
func (r *rendering) bounded(name string, f function) any {
	fn := reflect.ValueOf(f.call)
	return reflect.MakeFunc(fn.Type(), func(args []reflect.Value) []reflect.Value {
		defer func() {
			if p := recover(); p != nil {
				panic(failure(name, p))
			}
		}()
		r.spend(callCost)
		flat, call := args, fn.Call
		if fn.Type().IsVariadic() {
			last := args[len(args)-1]
			flat, call = slices.Clone(args[:len(args)-1]), fn.CallSlice
			for i := range last.Len() {
				flat = append(flat, last.Index(i))
			}
		}
		if !f.reads {
			r.take(flat...)
		}
		out := call(args)
		if len(out) == 2 && !out[1].IsNil() {
			panic(out[1].Interface())
		}
		if !f.finds {
			r.take(out[0])
		}
		return out
	}).Interface()
}

// failure returns what a function that failed says. What it was given may be a value.
func failure(name string, cause any) error {
	err, _ := cause.(error)
	if errors.As(err, new(*MissingKeyError)) || errors.As(err, new(*TemplateError)) {
		return err
	}
	problem := problemError("fails")
	if name == fieldFunction {
		return &TemplateError{Problem: "asks for a field of what has none"}
	}
	_ = errors.As(err, &problem)
	return &TemplateError{Problem: fmt.Sprintf("calls function %q, which %s", name, problem)}
}

// problemError is a problem in our own words: the end of a sentence whose subject is a function.
type problemError string

func (e problemError) Error() string { return string(e) }

// spend counts work.
func (r *rendering) spend(cost int) {
	if r.work += cost; r.work > r.maxWork {
		panic(&TemplateError{Problem: fmt.Sprintf("does more than %d KiB of work", r.maxWork>>10)})
	}
}

// take bounds what a function was given or has made.
func (r *rendering) take(values ...reflect.Value) {
	m := measure{left: MaxBytes}
	for _, v := range values {
		m.add(v, 0)
	}
	r.spend(MaxBytes - m.left + (len(values)+m.elements)*elementCost)
}

// ranged counts what range does with a map before its first iteration: it copies and sorts the keys.
func (r *rendering) ranged(v any) any {
	if fields, ok := v.(map[string]any); ok {
		cost := 0
		for key := range fields {
			cost += len(key) + elementCost
		}
		r.spend(cost)
	}
	return v
}

// iteration counts one iteration, and the steps of its body.
func (r *rendering) iteration(steps int) string {
	if r.iterations++; r.iterations > maxIterations {
		panic(&TemplateError{Problem: fmt.Sprintf("has more than %d iterations", maxIterations)})
	}
	r.spend(steps * stepCost)
	return ""
}

// measure is how much of MaxBytes is left. It ends where nothing is, so that a list that has another one many times takes no longer.
type measure struct {
	left     int
	elements int // of lists and maps, each of which counts as one byte
}

func (m *measure) add(v reflect.Value, depth int) {
	for v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if depth > maxDepth {
		panic(problemError("takes or makes lists or maps that are nested too deep"))
	}
	if depth > 0 {
		m.left--
		m.elements++
	}
	switch v.Kind() {
	case reflect.String:
		m.left -= v.Len()
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64, reflect.Slice, reflect.Map:
	default: // nil, above all, which would be printed as <no value>
		panic(problemError("takes or makes what is no text, number, list or map"))
	}
	if m.left < 0 {
		panic(errTooMuch)
	}
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			m.add(v.Index(i), depth+1)
		}
	case reflect.Map:
		fields, _ := reflect.TypeAssert[map[string]any](v)     // there are no others
		for _, key := range slices.Sorted(maps.Keys(fields)) { // so that of two errors it is always the same one
			m.add(reflect.ValueOf(key), depth+1)
			m.add(reflect.ValueOf(fields[key]), depth+1)
		}
	default:
	}
}
