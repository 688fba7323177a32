package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// checkTimeout is longer than the lease of a leader that was killed.
const checkTimeout = 30 * time.Second

// Check asks whether the installation works: whether the API server has all that a manager with these options needs, and whether one leads,
// for which it waits up to 30 s. It starts nothing. It returns the name of the leader; its errors say what is missing.
func Check(ctx context.Context, restConfig *rest.Config, opts Options) (leader string, err error) {
	opts.HealthProbeBindAddress, opts.MetricsBindAddress = "0", "0"
	mgr, err := New(ctx, restConfig, opts)
	if err != nil {
		return "", err
	}
	key := client.ObjectKey{Namespace: opts.OperatorNamespace, Name: leaderElectionID}
	var missing error
	_ = wait.PollUntilContextTimeout(ctx, time.Second, checkTimeout, true, func(ctx context.Context) (bool, error) {
		lease := &coordinationv1.Lease{}
		if missing = mgr.GetAPIReader().Get(ctx, key, lease); missing == nil {
			leader, missing = leaderOf(lease, time.Now())
		}
		return missing == nil, nil
	})
	if missing != nil {
		return "", fmt.Errorf("no manager leads in namespace %s: %w; see the pods of the Deployment and their logs", opts.OperatorNamespace, missing)
	}
	return leader, nil
}

// leaderOf returns the holder of a lease that has not run out.
func leaderOf(lease *coordinationv1.Lease, now time.Time) (string, error) {
	spec := lease.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return "", errors.New("nobody holds the lease")
	}
	if until := spec.RenewTime.Add(time.Duration(*spec.LeaseDurationSeconds) * time.Second); until.Before(now) {
		return "", fmt.Errorf("the lease of %s ran out at %s", *spec.HolderIdentity, until.UTC().Format(time.RFC3339))
	}
	return *spec.HolderIdentity, nil
}
