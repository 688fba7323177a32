package operator

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/leader"
)

// checkTimeout is longer than the lease of a leader that was killed.
const checkTimeout = 30 * time.Second

// Check asks whether the installation works: whether the API server has all that a manager with these options needs, and whether one leads,
// for which it waits up to 30 s. It starts nothing. It returns the name of the leader; its errors say what is missing.
func Check(ctx context.Context, restConfig *rest.Config, opts Options) (name string, err error) {
	opts.HealthProbeBindAddress, opts.MetricsBindAddress = "0", "0"
	mgr, err := New(ctx, restConfig, opts)
	if err != nil {
		return "", err
	}
	key := client.ObjectKey{Namespace: opts.OperatorNamespace, Name: leader.LeaseName}
	var missing error
	_ = wait.PollUntilContextTimeout(ctx, time.Second, checkTimeout, true, func(ctx context.Context) (bool, error) {
		lease := &coordinationv1.Lease{}
		if missing = mgr.GetAPIReader().Get(ctx, key, lease); missing == nil {
			name, missing = leader.Of(lease, time.Now())
		}
		return missing == nil, nil
	})
	if missing != nil {
		return "", fmt.Errorf("no manager leads in namespace %s: %w; see the pods of the Deployment and their logs", opts.OperatorNamespace, missing)
	}
	return name, nil
}
