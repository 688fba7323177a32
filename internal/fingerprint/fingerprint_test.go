package fingerprint

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func testKey(t *testing.T) Key {
	t.Helper()
	key, err := ParseKey(bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFingerprintIsStable(t *testing.T) {
	// A fingerprint in a status must be recognised by every later version.
	const want = "v1:bf97121d:bpeVLHxDn7XnS05vdBuM9DDtR67NEGFHh58Wei6Gmlo"
	got := testKey(t).Of([]byte("s3cret"), "uid", "GrafanaConnection", "prod", "default", "name")
	if got != want {
		t.Errorf("Of = %s, want %s", got, want)
	}
}

func TestFingerprintTellsValuesAndSubjectsApart(t *testing.T) {
	key := testKey(t)
	seen := map[string]string{}
	for name, fp := range map[string]string{
		"plain":                   key.Of([]byte("value"), "uid", "target"),
		"another value":           key.Of([]byte("valuf"), "uid", "target"),
		"another object":          key.Of([]byte("value"), "uie", "target"),
		"parts cut elsewhere":     key.Of([]byte("value"), "uidp", "lace"),
		"value begins in subject": key.Of([]byte("evalue"), "uid", "plac"),
		"fewer parts":             key.Of([]byte("value"), "uidtarget"),
		"another key":             NewKey().Of([]byte("value"), "uid", "target"),
	} {
		if other, dup := seen[fp]; dup {
			t.Errorf("%s and %s share a fingerprint", name, other)
		}
		seen[fp] = name
	}
}

func TestEqual(t *testing.T) {
	key := testKey(t)
	a := key.Of([]byte("value"), "uid")
	if !Equal(a, key.Of([]byte("value"), "uid")) || Equal(a, key.Of([]byte("other"), "uid")) || Equal("", "") {
		t.Error("Equal does not tell fingerprints apart")
	}
}

func TestParseKey(t *testing.T) {
	for _, size := range []int{0, KeySize - 1, KeySize + 1} {
		if _, err := ParseKey(make([]byte, size)); err == nil {
			t.Errorf("a key of %d bytes was taken", size)
		}
	}
	key := NewKey()
	again, err := ParseKey(key.Bytes())
	if err != nil || again.Of([]byte("value")) != key.Of([]byte("value")) {
		t.Errorf("a stored key is not the same again: %v", err)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	key := testKey(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if out := fmt.Sprintf(verb, key) + fmt.Sprintf(verb, struct{ key Key }{key}); strings.Contains(out, "7 7") || strings.Contains(out, "0707") || strings.Contains(out, "0x7") {
			t.Errorf("%s prints the key: %s", verb, out)
		}
	}
}
