package leader

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOf(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	held := func(by string, ago time.Duration) coordinationv1.LeaseSpec {
		return coordinationv1.LeaseSpec{HolderIdentity: new(by), LeaseDurationSeconds: new(int32(15)), RenewTime: new(metav1.NewMicroTime(now.Add(-ago)))}
	}
	for name, row := range map[string]struct {
		lease       coordinationv1.LeaseSpec
		want, error string
	}{
		"held":      {lease: held("pod-1", 14*time.Second), want: "pod-1"},
		"ran out":   {lease: held("pod-1", 16*time.Second), error: "of pod-1 ran out at 2026-01-01T11:59:59Z"},
		"released":  {lease: held("", time.Second), error: "nobody holds the lease"},
		"never had": {error: "nobody holds the lease"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Of(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: LeaseName}, Spec: row.lease}, now)
			if got != row.want || (err != nil) != (row.error != "") || err != nil && !strings.Contains(err.Error(), row.error) {
				t.Errorf("Of = %q, %v; want %q, an error with %q", got, err, row.want, row.error)
			}
		})
	}
}
