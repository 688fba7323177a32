package source_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/source"
)

const (
	trim   = v1alpha1.TransformTrimTrailingNewline
	encode = v1alpha1.TransformBase64Encode
	decode = v1alpha1.TransformBase64Decode
)

func TestTransform(t *testing.T) {
	type list = []v1alpha1.ValueTransform
	for _, row := range []struct {
		content    string
		transforms list
		want       string
	}{
		{"a\n", nil, "a\n"},
		{"a\n", list{trim}, "a"},
		{"a\r\n", list{trim}, "a"},
		{"a\n\n", list{trim}, "a\n"},
		{"a\n\n", list{trim, trim}, "a"},
		{"a\r", list{trim}, "a\r"},
		{"a\n\r", list{trim}, "a\n\r"},
		{"\n", list{trim}, ""},
		{"", list{trim, encode, decode}, ""},
		{"a", list{encode}, "YQ=="},
		{"\xff\x00", list{encode}, "/wA="},
		{"a\n", list{encode, trim}, "YQo="},
		{"a\n", list{trim, encode}, "YQ=="},
		{"YQ==\n", list{decode}, "a"},
		{"Y\r\nQ=\n=\n", list{decode}, "a"},
		{"WVE9PQ==", list{decode, decode}, "a"},
		{"/wA=", list{decode}, "\xff\x00"},
		{strings.Repeat("x", 18432), list{encode}, strings.Repeat("eHh4", 6144)},
	} {
		content := []byte(row.content)
		got, err := source.Transform(content, row.transforms)
		if err != nil || string(got) != row.want {
			t.Errorf("%.20q by %v: %.20q, %v, want %.20q", row.content, row.transforms, got, err, row.want)
		}
		if string(content) != row.content {
			t.Errorf("%.20q by %v: the content was changed", row.content, row.transforms)
		}
	}
	if len(strings.Repeat("eHh4", 6144)) != grafana.MaxValueBytes {
		t.Error("18,432 bytes are not what Base64Encode leaves")
	}
}

func TestATransformThatFailsIsTold(t *testing.T) {
	for _, content := range []string{"c4n4ry", "YQ", "YQ=", "Y Q==", "YQ==YQ==", "_w==", "=", "c4n4\xff"} {
		_, err := source.Transform([]byte(content), []v1alpha1.ValueTransform{trim, decode, encode})
		failed, ok := errors.AsType[*source.TransformError](err)
		if !ok || failed.Index != 1 || failed.Transform != decode || failed.Problem != "the value is not standard Base64 with padding" {
			t.Errorf("%q: %+v", content, err)
		}
	}
	_, err := source.Transform([]byte("x"), []v1alpha1.ValueTransform{"Reverse"})
	if _, ok := errors.AsType[*source.TransformError](err); !ok {
		t.Errorf("Reverse: %v", err)
	}
	_, err = source.Transform(make([]byte, source.MaxBytes+1), []v1alpha1.ValueTransform{encode})
	if !errors.As(err, new(source.TooLargeError)) {
		t.Errorf("too large: %v", err)
	}
}
