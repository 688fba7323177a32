package connection

import (
	"cmp"
	"context"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/status"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafanaoperator"
)

// Caller is who calls a Grafana from another machine than the manager's.
type Caller struct {
	// Reader reads the Secrets of connections, with the rights of the caller.
	Reader client.Reader
	// OperatorNamespace is where the Secrets of ClusterGrafanaConnections live.
	OperatorNamespace string
	// UserAgent is sent with each request to Grafana.
	UserAgent string
}

// Dial returns a client of the Grafana of a connection. No call is made. The operator's policy is not known to the caller: what it refuses is
// in the status of the connection.
func (c Caller) Dial(ctx context.Context, conn v1alpha1.Connection) (*grafana.Client, error) {
	to, err := c.resolve(ctx, conn)
	if err != nil {
		return nil, err
	}
	cred, err := c.reconciler(conn).credentials(ctx, conn, to)
	if err != nil {
		return nil, err
	}
	return c.reconciler(conn).connect(conn, to, cred)
}

// resolve returns where a connection calls Grafana, and with what.
func (c Caller) resolve(ctx context.Context, conn v1alpha1.Connection) (*endpoint, error) {
	ref := GrafanaRef(conn)
	if ref == nil {
		return endpointOfSpec(conn.GetSpec()), nil
	}
	found := &grafanaoperator.Grafana{}
	err := c.Reader.Get(ctx, client.ObjectKey{Namespace: conn.GetNamespace(), Name: ref.Name}, found)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, grafanaNotFound("Grafana %q of grafana-operator, which spec.grafanaRef names, does not exist in namespace %q.", ref.Name, conn.GetNamespace())
	}
	if err != nil {
		return nil, err
	}
	return endpointOfGrafana(found, &conn.(*v1alpha1.GrafanaConnection).Spec) // no other kind has a reference
}

// Address returns the address of a connection, as far as it is known: that of its spec, or where the operator last reached the Grafana that it
// references.
func Address(conn v1alpha1.Connection) string {
	return cmp.Or(conn.GetSpec().URL, conn.GetStatus().URL)
}

// lastKnown is the endpoint of a connection without Secrets.
func lastKnown(conn v1alpha1.Connection) *endpoint {
	to := &endpoint{url: Address(conn)}
	if ref := GrafanaRef(conn); ref != nil {
		to.grafana = ref.Name
	} else {
		to.tls = conn.GetSpec().TLS
	}
	return to
}

// DialWithoutSecrets returns a client that has no token, no CA and no certificate. It can ask whether a Grafana answers at all.
func (c Caller) DialWithoutSecrets(conn v1alpha1.Connection) (*grafana.Client, error) {
	return c.reconciler(conn).connect(conn, lastKnown(conn), credentials{})
}

func (c Caller) reconciler(conn v1alpha1.Connection) *Reconciler {
	return &Reconciler{live: c.Reader, Options: Options{
		OperatorNamespace: c.OperatorNamespace,
		UserAgent:         c.UserAgent,
		Policy:            Policy{AllowInsecureTLS: !refusesInsecure(conn), AllowLoopback: true},
	}}
}

// refusesInsecure reports whether the status of a connection says that the operator does not let it take any certificate.
func refusesInsecure(conn v1alpha1.Connection) bool {
	return status.Reason(conn.GetStatus().Conditions) == v1alpha1.ReasonTLSError
}

// fromHere puts the words of conditions, which are about the manager, into those of a person at another machine.
var fromHere = strings.NewReplacer(
	" The operator retries automatically.", "",
	"where the operator runs", "on this machine",
	"in the operator's environment", "in your environment",
	"it and the operator", "it and this machine",
	"the operator trusts", "this machine trusts",
	"Grafana and the operator could", "Grafana and this machine could",
	"although the operator accepts", "although kubectl gsv accepts",
	"and this installation does not allow it: the operator runs without --allow-insecure-tls.", "and the operator does not allow it.",
)

// Explain says what an error of Dial, or of a call of its client, means for the connection, and what to do, as seen from the machine of
// the caller. The reason is one of the reasons of a connection.
func Explain(conn v1alpha1.Connection, err error) (reason, message string) {
	c := lastKnown(conn).condition(err)
	return c.Reason, fromHere.Replace(c.Message)
}
