package metrics

import "testing"

// A manager that ends takes nothing from another one of its process.
func TestTheLastSourceIsTold(t *testing.T) {
	first, second := &Source{}, &Source{}
	told := func(want *Source, when string) {
		t.Helper()
		if got := fleet.source(); got != want {
			t.Errorf("%s: the source told is %p, want %p (first %p, second %p)", when, got, want, first, second)
		}
	}
	told(nil, "at first")
	SetSource(first)
	told(first, "one is set")
	SetSource(second)
	told(second, "another is set")
	Unset(second)
	told(first, "the other is unset")
	SetSource(second)
	Unset(first)
	told(second, "the first is unset before the other")
	Unset(second)
	told(nil, "none is left")
}
