package plugin

import (
	"context"
	"errors"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/securevalue"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// dialed is a client of a Grafana, or why there is none.
type dialed struct {
	client *grafana.Client
	err    error
}

// asker returns what asks Grafana for secure values, by GET alone. The Secrets of a connection are read once, as the view shows them.
func (c *cluster) asker(view *securevalue.View) securevalue.Asker {
	caller := c.caller()
	caller.Reader = view
	clients := map[ownership.Connection]dialed{}
	return func(ctx context.Context, conn v1alpha1.Connection, name string) (*grafana.SecureValue, error) {
		id := connection.IDFor(conn)
		to, known := clients[id]
		if !known {
			to.client, to.err = caller.Dial(ctx, conn)
			clients[id] = to
		}
		if to.err != nil {
			return nil, explained(conn, to.err)
		}
		found, err := to.client.Get(ctx, name)
		if errors.Is(err, grafana.ErrNotFound) {
			return nil, nil
		}
		return found, explained(conn, err)
	}
}
