package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
)

const turnTemplate = `
Everything runs until you press Ctrl-C. Open another terminal, and paste this first.
The second line adds a kubectl, if you have none:

  export KUBECONFIG="<kubeconfig>"
  export PATH="$PATH:<bin>"

The fake Grafana:

  URL         <url>
  namespace   <namespace>
  token       <token>
  log         <log>

What it holds. Grafana itself never shows a value:

  curl <url><values>

Four things to try:

1. Rotate the Secret:

  kubectl patch secret demo -p '{"stringData":{"api-key":"my-value"}}'
  curl <url><values>

2. Delete the value in Grafana. The operator checks every 5 seconds, and writes it again:

  api=<url>/apis/secret.grafana.app/v1beta1/namespaces/<namespace>
  curl -X DELETE -H 'Authorization: Bearer <token>' $api/securevalues/<object>
  sleep 6; kubectl events --for gsv/<object>

3. Add a key to the Secret of the set:

  kubectl patch secret demo-many -p '{"stringData":{"NEW":"my-value"}}'
  kubectl get gsvset,gsv

4. Follow the quickstart in README.md, with this URL, namespace and token.

This Kubernetes has no controllers of its own: a set that you delete leaves its
GrafanaSecureValues. Delete them, too.
`

// yourTurn is what a person at a terminal can do next.
func yourTurn(kubeconfig, bin string, grafana *fakeGrafana) string {
	return strings.NewReplacer("<kubeconfig>", kubeconfig, "<bin>", bin, "<url>", grafana.url, "<log>", grafana.log,
		"<values>", valuesPath, "<namespace>", grafanaNamespace, "<token>", token, "<object>", object).Replace(turnTemplate)
}

// stay keeps everything running until the user has seen enough.
func (d *demo) stay(ctx context.Context) error {
	d.title("Your turn")
	err := d.each(ctx, []string{"apply", "-f", "secure-value.yaml"},
		patch("gconn", "demo", `{"spec":{"resyncPeriod":"5s"}}`), ready("gsv/"+object))
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	// Not wrapped: what is pasted must stay as it is.
	_, _ = io.WriteString(d.out, yourTurn(d.plane.KubeconfigPath(), filepath.Dir(d.plane.KubectlPath()), d.grafana))
	<-ctx.Done()
	return nil
}
