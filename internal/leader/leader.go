// Package leader says which manager of an installation leads.
package leader

import (
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// LeaseName is the name of the Lease in the operator's namespace.
const LeaseName = "grafana-secure-value-operator"

// Of returns the holder of a lease that has not run out.
func Of(lease *coordinationv1.Lease, now time.Time) (string, error) {
	spec := lease.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return "", errors.New("nobody holds the lease")
	}
	if until := spec.RenewTime.Add(time.Duration(*spec.LeaseDurationSeconds) * time.Second); until.Before(now) {
		return "", fmt.Errorf("the lease of %s ran out at %s", *spec.HolderIdentity, until.UTC().Format(time.RFC3339))
	}
	return *spec.HolderIdentity, nil
}
