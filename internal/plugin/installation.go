package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/leader"
)

// maxLag is how long an edit may wait before the operator is said to lag behind.
const maxLag = time.Minute

// neededKinds are the kinds without which the operator does not start.
var neededKinds = []string{"GrafanaSecureValue", "GrafanaSecureValueSet", "GrafanaConnection", "ClusterGrafanaConnection"}

// examineOperator checks the installation.
func (c *cluster) examineOperator(ctx context.Context) []check {
	return []check{c.checkKinds(), c.checkDeployment(ctx), c.checkLeader(ctx), c.checkLag(ctx)}
}

// unreadable is a check that could not be made.
func unreadable(name string, err error) check {
	return check{Name: name, Result: checkUnknown, Detail: sentence(err)}
}

func (c *cluster) checkKinds() check {
	kinds, err := c.kinds()
	if err != nil {
		return unreadable("CRDs", err)
	}
	version := v1alpha1.GroupVersion.Version
	missing := slices.DeleteFunc(slices.Clone(neededKinds), func(kind string) bool { return slices.Contains(kinds[version], kind) })
	if len(missing) > 0 {
		return check{"CRDs", checkFailed, fmt.Sprintf("%s is not served for %s. Install the CRDs of the operator's version: see docs/operations.md, Upgrade.", version, strings.Join(missing, ", "))}
	}
	return check{"CRDs", checkOK, fmt.Sprintf("%s is served for %s.", version, strings.Join(kinds[version], ", "))}
}

func (c *cluster) checkDeployment(ctx context.Context) check {
	const name = "Deployment"
	found, err := c.deployments(ctx)
	if err != nil {
		return unreadable(name, err)
	}
	if len(found) == 0 {
		return check{name, checkFailed, fmt.Sprintf("Namespace %q has no Deployment of the operator. Name its namespace with --operator-namespace.", c.tool.operatorNamespace)}
	}
	var details []string
	result := checkOK
	for _, o := range found {
		details = append(details, fmt.Sprintf("%s: version %s, %d of %d ready.", o.Name, o.Version, o.Ready, o.Replicas))
		if o.Ready == 0 {
			result = checkFailed
			details = append(details, fmt.Sprintf("Next: kubectl -n %s get pods", o.Namespace))
		}
	}
	return check{name, result, strings.Join(details, " ")}
}

func (c *cluster) checkLeader(ctx context.Context) check {
	const name = "leader"
	lease := &coordinationv1.Lease{}
	err := c.Get(ctx, client.ObjectKey{Namespace: c.tool.operatorNamespace, Name: leader.LeaseName}, lease)
	if err != nil && !apierrors.IsNotFound(err) {
		return unreadable(name, err)
	}
	holder := ""
	if err == nil {
		holder, err = leader.Of(lease, time.Now())
	}
	if err != nil {
		return check{name, checkFailed, fmt.Sprintf("No manager leads in namespace %q. See its pods and their logs.", c.tool.operatorNamespace)}
	}
	return check{name, checkOK, holder + " leads."}
}

// checkLag looks for objects whose last edit the operator has not reported on.
func (c *cluster) checkLag(ctx context.Context) check {
	const name = "lag"
	values, err := c.secureValues(ctx, "", "")
	if err != nil {
		return unreadable(name, err)
	}
	waiting, oldest, first := 0, time.Duration(0), ""
	for i := range values {
		sv := &values[i]
		if sv.Status.ObservedGeneration == sv.Generation {
			continue
		}
		waiting++
		if age := time.Since(securevalue.LastEdit(sv)); age >= oldest {
			oldest, first = age, sv.Namespace+"/"+sv.Name
		}
	}
	switch {
	case waiting == 0:
		return check{name, checkOK, fmt.Sprintf("The operator has reported on the last edit of each of %s.", plural(len(values), "GrafanaSecureValue"))}
	case oldest < maxLag:
		return check{name, checkOK, fmt.Sprintf("%s for the operator, for %s at most.", wait(waiting), duration.HumanDuration(oldest))}
	default:
		return check{name, checkFailed, fmt.Sprintf("%s for the operator. The oldest edit is of %s, %s ago. Is its namespace among --watch-namespaces?",
			wait(waiting), first, duration.HumanDuration(oldest))}
	}
}

func wait(n int) string {
	if n == 1 {
		return "1 GrafanaSecureValue waits"
	}
	return plural(n, "GrafanaSecureValue") + " wait"
}
