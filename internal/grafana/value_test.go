package grafana_test

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

func TestSecretsDoNotPrint(t *testing.T) {
	value, token := grafana.NewValue([]byte(testValue)), grafana.NewToken([]byte(testToken))
	// In base64 a run of three bytes is four characters wherever it begins.
	user := grafana.NewBasicAuth([]byte("ad"), []byte(canary))
	cfg := config("https://grafana.example.com")
	client := newClient(t, cfg)
	hex := fmt.Sprintf("%x", canary)
	encoded := base64.StdEncoding.EncodeToString([]byte(canary))
	decimal := strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]")
	for name, v := range map[string]any{
		"Value": value, "*Value": &value, "Token": token, "*Token": &token, "user": user, "*user": &user, "Config": cfg, "*Config": &cfg,
		"SecureValue": *secureValue(), "*SecureValue": secureValue(), "*Client": client,
	} {
		outs := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%U", "%t", "%p"} {
			outs[verb] = fmt.Sprintf(verb, v)
		}
		if out, err := json.Marshal(v); err == nil {
			outs["JSON"] = string(out)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		outs["slog"] = log.String()
		funcr.New(func(_, args string) { outs["logr"] = args }, funcr.Options{}).Info("x", "v", v)
		for how, out := range outs {
			for _, form := range []string{canary, hex, strings.ToUpper(hex), decimal, strings.TrimRight(encoded[:len(encoded)-4], "=")} {
				if strings.Contains(out, form) {
					t.Errorf("%s by %s: %s", name, how, out)
				}
			}
		}
	}
}

// What prints in place of a secret says that it is one.
func TestSecretsPrintAPlaceholder(t *testing.T) {
	for _, v := range []any{grafana.NewValue([]byte(testValue)), grafana.Value{}, grafana.NewToken([]byte(testToken)), grafana.Token{}, grafana.NewBasicAuth([]byte("admin"), []byte(canary))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if out := fmt.Sprintf(verb, v); out != "[redacted]" {
				t.Errorf("%T by %s: %s", v, verb, out)
			}
		}
		if out, err := json.Marshal(v); err != nil || string(out) != `"[redacted]"` {
			t.Errorf("%T by JSON: %s, %v", v, out, err)
		}
		if out, err := v.(encoding.TextMarshaler).MarshalText(); err != nil || string(out) != "[redacted]" {
			t.Errorf("%T by text: %s, %v", v, out, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, row := range map[string]struct {
		content string
		want    error
	}{
		"one byte":         {"x", nil},
		"24,576 bytes":     {strings.Repeat("\"", 24576), nil},
		"emoji":            {"🔑\n", nil},
		"NUL":              {"\x00", nil},
		"empty":            {"", grafana.ErrValueEmpty},
		"24,577 bytes":     {strings.Repeat("x", 24577), grafana.ErrValueTooLarge},
		"24,577 in runes":  {strings.Repeat("é", 12289), grafana.ErrValueTooLarge},
		"not UTF-8":        {"a\xffb", grafana.ErrValueNotUTF8},
		"a surrogate half": {"\xed\xa0\x80", grafana.ErrValueNotUTF8},
		"a rune cut off":   {"é"[:1], grafana.ErrValueNotUTF8},
	} {
		if err := grafana.NewValue([]byte(row.content)).Validate(); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

func TestToken(t *testing.T) {
	if !grafana.NewToken([]byte(" \n")).Empty() || grafana.NewToken([]byte("x")).Empty() {
		t.Error("Empty is wrong")
	}
	if !grafana.NewToken([]byte("\tglc_x\n")).IsCloudAccessPolicy() || grafana.NewToken([]byte("glsa_glc_")).IsCloudAccessPolicy() {
		t.Error("IsCloudAccessPolicy is wrong")
	}
	for _, bad := range []string{"a b", "a\nb", "a\x00b", "é"} {
		if grafana.NewToken([]byte(bad)).IsPrintable() {
			t.Errorf("%q is no token", bad)
		}
		cfg := config("https://h")
		cfg.Token = grafana.NewToken([]byte(bad))
		if _, err := grafana.New(cfg); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
