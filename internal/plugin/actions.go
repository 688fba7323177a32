package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
)

// probe tries the four actions on a secure value of its own name. What cannot be deleted is not created: deletion comes first.
type probe struct {
	client  *grafana.Client
	conn    v1alpha1.Connection
	name    string
	created bool
}

// actions returns what came of the four actions, and leaves nothing behind, also if the user interrupts it.
func actions(ctx context.Context, client *grafana.Client, conn v1alpha1.Connection) []check {
	p := &probe{client: client, conn: conn, name: "gsv-doctor-" + strings.ToLower(rand.Text()[:10])}
	_, err := client.Get(ctx, p.name)
	read := p.check("read", err)
	deletion := p.check("delete", client.Delete(ctx, p.name))
	create, write := check{Name: "create", Result: checkSkipped}, check{Name: "write", Result: checkSkipped}
	if deletion.Result != checkOK {
		create.Detail = "Not tried: the probe value could not be deleted again."
		write.Detail = create.Detail
		return []check{read, create, write, deletion}
	}
	_, err = client.Create(ctx, p.value())
	p.created = err == nil || !isRefusal(err)
	create = p.check("create", err)
	write = p.check("write", p.update(ctx))
	if p.created {
		deletion = p.check("delete", p.remove(ctx))
		if deletion.Result != checkOK {
			deletion.Detail += fmt.Sprintf(" Secure value %q of this check may still be in Grafana: delete it there.", p.name)
		}
	}
	return []check{read, create, write, deletion}
}

func (p *probe) value() *grafana.SecureValue {
	return &grafana.SecureValue{Name: p.name, Description: "kubectl gsv doctor", Value: grafana.NewValue([]byte("probe"))}
}

// update writes the probe value, with the resourceVersion that it has. Without it, that none is there shows that the token may write.
func (p *probe) update(ctx context.Context) error {
	sv := p.value()
	if found, err := p.client.Get(ctx, p.name); err == nil {
		sv.ResourceVersion = found.ResourceVersion
	}
	_, err := p.client.Update(ctx, sv)
	p.created = p.created || err == nil
	return err
}

// remove deletes the probe value, and believes only that it is not found any more.
func (p *probe) remove(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // each call has a timeout of its own
	if err := p.client.Delete(ctx, p.name); err != nil && !errors.Is(err, grafana.ErrNotFound) {
		return err
	}
	_, err := p.client.Get(ctx, p.name)
	if err == nil {
		return errors.New("grafana still shows it")
	}
	return err
}

// isRefusal reports whether an error proves that nothing was written.
func isRefusal(err error) bool {
	for _, refusal := range []error{grafana.ErrForbidden, grafana.ErrUnauthorized, grafana.ErrInvalid, grafana.ErrNamespaceRejected, grafana.ErrAPINotServed} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// check says what came of an action. That the probe value is not there is no failure.
func (p *probe) check(name string, err error) check {
	switch {
	case err == nil, errors.Is(err, grafana.ErrNotFound):
		return check{Name: name, Result: checkOK}
	case errors.Is(err, grafana.ErrForbidden):
		return check{Name: name, Result: checkFailed, Detail: fmt.Sprintf(
			"The token lacks the action secret.securevalues:%s on secret.securevalues:*. Grant it to its service account in Grafana.", name)}
	default:
		_, message := connection.Explain(p.conn, err)
		return check{Name: name, Result: checkFailed, Detail: message}
	}
}
