package grafana

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// benchLabels are labels as the operator gives each value.
var benchLabels = map[string]string{
	"grafana.securevalues.io/cluster":    "2f1f6a0e-9f43-4b0e-8d1b-8a6b1c2d3e4f",
	"grafana.securevalues.io/owner":      strings.Repeat("0123456789", 4),
	"grafana.securevalues.io/connection": strings.Repeat("9876543210", 4),
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range []int{64, MaxValueBytes} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			sv := &SecureValue{
				Name: "api-key", Labels: benchLabels, Description: "Synced from Kubernetes", Decrypters: []string{"synthetic-monitoring"},
				Annotations: map[string]string{"grafana.securevalues.io/resource": "team-a/api-key"},
				Value:       NewValue(bytes.Repeat([]byte("x"), size)),
			}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := encode(sv, "v1beta1", "default"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecodeList is the LIST of 10,000 values that each resync reads.
func BenchmarkDecodeList(b *testing.B) {
	const values = 10_000
	var body bytes.Buffer
	body.WriteString(`{"kind":"SecureValueList","apiVersion":"secret.grafana.app/v1beta1","metadata":{},"items":[`)
	for i := range values {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"kind":"SecureValue","apiVersion":"secret.grafana.app/v1beta1","metadata":{"name":"value-%06d","namespace":"default",`+
			`"uid":"9d3e4a52-0f7a-4c8e-b0b5-6f3d2a1c%04x","resourceVersion":"1700000000","creationTimestamp":"2026-01-02T03:04:05Z","labels":{`+
			`"grafana.securevalues.io/cluster":%q,"grafana.securevalues.io/owner":%q,"grafana.securevalues.io/connection":%q},`+
			`"annotations":{"grafana.app/createdBy":"service-account:x","grafana.securevalues.io/resource":"team-a/value-%06d"}},`+
			`"spec":{"description":"Synced from Kubernetes","decrypters":["synthetic-monitoring"]},"status":{"version":1,"keeper":"system"}}`,
			i, i, benchLabels["grafana.securevalues.io/cluster"], benchLabels["grafana.securevalues.io/owner"],
			benchLabels["grafana.securevalues.io/connection"], i)
	}
	body.WriteString(`]}`)
	b.ReportAllocs()
	b.SetBytes(int64(body.Len()))
	for b.Loop() {
		listed := 0
		err := decodeList(bytes.NewReader(body.Bytes()), func(*SecureValue) { listed++ })
		if err != nil || listed != values {
			b.Fatalf("%d values, %v", listed, err)
		}
	}
}
