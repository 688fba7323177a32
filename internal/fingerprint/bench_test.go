package fingerprint_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
)

func BenchmarkOf(b *testing.B) {
	key := fingerprint.NewKey()
	for _, size := range []int{64, 24576} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			value := bytes.Repeat([]byte("x"), size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				key.Of(value, "7f2d4e0a-6c1b-4a86-9d1f-3b6a7f0c2e55", "GrafanaConnection", "prod", "stacks-1234", "api-key")
			}
		})
	}
}
