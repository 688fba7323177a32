package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	got, err := table([]byte(`# About the file.

image:
  # -- Where it is,
  # in two lines with a | bar.
  name: some
  # -- Empty at first.
  list: []
# -- All at once.
map:
  a: 1
# -- Nothing.
none: null
`))
	if err != nil {
		t.Fatal(err)
	}
	want := "| value | meaning | default |\n|---|---|---|\n" +
		"| `image.name` | Where it is, in two lines with a \\| bar. | `\"some\"` |\n" +
		"| `image.list` | Empty at first. | `[]` |\n" +
		"| `map` | All at once. | `{\"a\":1}` |\n" +
		"| `none` | Nothing. | `null` |\n"
	if string(got) != want {
		t.Errorf("table = \n%swant\n%s", got, want)
	}
}

func TestTableWantsEveryValueDocumented(t *testing.T) {
	for _, values := range []string{"a:\n  b: 1\n", "# about\na: []\n", "a: {}\n"} {
		if _, err := table([]byte(values)); err == nil || !strings.Contains(err.Error(), "a") {
			t.Errorf("table(%q) = %v, want an error that names the value", values, err)
		}
	}
}

func TestReplace(t *testing.T) {
	got, err := replace([]byte("one\n"+begin+"old\n"+end+"two\n"), []byte("new\n"))
	if want := "one\n" + begin + "new\n" + end + "two\n"; err != nil || string(got) != want {
		t.Errorf("replace = %q, %v, want %q", got, err, want)
	}
	if _, err := replace([]byte("one\n"+end+begin), nil); err == nil {
		t.Error("no error without the marks in their order")
	}
}
