package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	object    = "demo-key" // and its first name in Grafana
	movedName = "demo-probe"
	adopted   = "demo-k6"
	decrypter = "synthetic-monitoring"

	firstValue    = "first-value"
	rotatedValue  = "second-value"
	lastValue     = "third-value"
	handmadeValue = "typed-by-hand"
	adoptedValue  = "from-kubernetes"

	stepTimeout = 2 * time.Minute // for one step, on a busy machine
	timeoutFlag = "--timeout=2m"
)

// many is the name of the Secret of the set, and of the set.
const many = "demo-many"

// manyKeys are its keys, and the names that they get in Grafana.
var manyKeys = []struct{ name, value, inGrafana string }{
	{"EU_TOKEN", "value-of-eu", "demo-many-eu-token"},
	{"US_TOKEN", "value-of-us", "demo-many-us-token"},
	{"ca.crt", "a-certificate", "demo-many-ca.crt"},
}

// show walks through the life of a secure value.
func (d *demo) show(ctx context.Context) error {
	for i, step := range []struct {
		title string
		show  func(context.Context) error
	}{
		{"Create", d.showCreated},
		{"Rotate", d.showRotated},
		{"Move", d.showMoved},
		{"Adopt", d.showAdopted},
		{"Grafana is down", d.showDown},
		{"Delete", d.showDeleted},
		{"Many keys", d.showSet},
	} {
		d.title(fmt.Sprintf("%d. %s", i+1, step.title))
		if err := step.show(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) showCreated(ctx context.Context) error {
	d.say("A connection to Grafana, with a token:")
	err := d.each(ctx, secretCommand("demo-grafana", "token", token))
	if err == nil {
		err = d.apply(ctx, "connection.yaml")
	}
	if err == nil {
		err = d.each(ctx, ready("gconn/demo"), []string{"get", "gconn"})
	}
	if err == nil {
		d.say("A Secret, and the GrafanaSecureValue that names it:")
		err = d.each(ctx, secretCommand("demo", "api-key", firstValue))
	}
	if err == nil {
		err = d.apply(ctx, "secure-value.yaml")
	}
	if err == nil {
		err = d.each(ctx, ready("gsv/"+object), []string{"get", "gsv"})
	}
	if err != nil {
		return err
	}
	return d.grafanaHas(ctx, object, firstValue)
}

func (d *demo) showRotated(ctx context.Context) error {
	before := d.plane.Mark()
	d.grafana.ResetCalls()
	if err := d.each(ctx, patchSecret("api-key", rotatedValue)); err != nil {
		return err
	}
	if err := d.grafanaHas(ctx, object, rotatedValue); err != nil {
		return err
	}
	took, err := d.propagation(before)
	if err != nil {
		return err
	}
	d.say("Grafana had the new value %.1f ms after the API server received the Secret.", took.Seconds()*1000)
	if err := d.eventually(ctx, "version 2 in status", func() bool { return d.version(ctx) == "2" }); err != nil {
		return err
	}
	return d.each(ctx, []string{"get", "gsv"})
}

func (d *demo) showMoved(ctx context.Context) error {
	d.say("The value gets another name in Grafana. Meanwhile %s reads it all the time.", decrypter)
	d.grafana.ResetCalls()
	watched := d.watch(object, movedName, rotatedValue)
	err := d.each(ctx, patch("gsv", object, `{"spec":{"name":"`+movedName+`"}}`), ready("gsv/"+object))
	if err == nil {
		err = d.eventually(ctx, "the old name to go", func() bool {
			_, found := d.grafana.Value(grafanaNamespace, object)
			return !found
		})
	}
	reads, gaps := watched()
	if err != nil {
		return err
	}
	if err := d.each(ctx, []string{"get", "gsv"}); err != nil {
		return err
	}
	if err := d.grafanaHas(ctx, movedName, rotatedValue); err != nil {
		return err
	}
	if gaps > 0 {
		return fmt.Errorf("during the move the value was missing in %d of %d reads", gaps, reads)
	}
	var requests strings.Builder
	for _, c := range d.grafana.Calls() {
		if c.Verb != grafanatest.VerbList {
			fmt.Fprintf(&requests, "  %-6s %s: %d\n", c.Method, c.Name, c.Code)
		}
	}
	d.say("The value was never missing, in %d reads. The requests to Grafana, and its answers:", reads)
	d.print("\n" + requests.String())
	return nil
}

// watch reads the value under either name until stop is called. That returns the number of reads, and how often the value was under
// neither.
func (d *demo) watch(from, to, value string) (stop func() (reads, gaps int)) {
	ended, counts := make(chan struct{}), make(chan [2]int)
	there := func(name string) bool {
		got, err := d.grafana.Decrypt(grafanaNamespace, name, decrypter)
		return err == nil && string(got) == value
	}
	go func() {
		reads, gaps := 0, 0
		for {
			select {
			case <-ended:
				counts <- [2]int{reads, gaps}
				return
			case <-time.After(100 * time.Microsecond):
			}
			reads++
			// The old name first: a value that left it before this read is under the new one by now.
			if !there(from) && !there(to) {
				gaps++
			}
		}
	}()
	return func() (reads, gaps int) {
		close(ended)
		c := <-counts
		return c[0], c[1]
	}
}

func (d *demo) showAdopted(ctx context.Context) error {
	byHand := d.grafana.Put(grafanaNamespace, grafanatest.Stored{
		Name: adopted, Description: "Created by hand", Decrypters: []string{decrypter}, Value: []byte(handmadeValue),
	})
	d.say("Somebody created %s in Grafana by hand. Now a GrafanaSecureValue names it:", adopted)
	err := d.each(ctx, patchSecret("k6-token", adoptedValue))
	if err == nil {
		err = d.apply(ctx, "k6.yaml")
	}
	if err == nil {
		err = d.each(ctx, notReady("gsv/"+adopted), []string{"get", "gsv"})
	}
	if err != nil {
		return err
	}
	if stored, _ := d.grafana.Value(grafanaNamespace, adopted); stored.Version != byHand.Version {
		return errors.New("the object was refused, and the value created by hand was written all the same")
	}
	if err := d.grafanaHas(ctx, adopted, handmadeValue); err != nil {
		return err
	}
	d.say("The value was not changed. The object may take it over if its spec says so:")
	err = d.each(ctx, patch("gsv", adopted, `{"spec":{"adoptionPolicy":"Adopt"}}`), ready("gsv/"+adopted), []string{"get", "gsv"})
	if err != nil {
		return err
	}
	return d.grafanaHas(ctx, adopted, adoptedValue)
}

func (d *demo) showDown(ctx context.Context) error {
	d.say("Grafana closes every connection without an answer. Meanwhile the Secret changes:")
	up := d.grafana.Inject(grafanatest.Fault{Cut: true})
	defer up()
	err := d.each(ctx, patchSecret("api-key", lastValue), notReady("gsv/"+object), []string{"get", "gsv"},
		[]string{"get", "gsv", object, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`})
	if err != nil {
		return err
	}
	if err := d.grafanaHas(ctx, movedName, rotatedValue); err != nil {
		return err
	}
	d.say("Grafana answers again. The operator retries automatically:")
	up()
	if err := d.each(ctx, ready("gsv/"+object), []string{"get", "gsv"}); err != nil {
		return err
	}
	return d.grafanaHas(ctx, movedName, lastValue)
}

func (d *demo) showDeleted(ctx context.Context) error {
	if err := d.each(ctx, []string{"delete", "gsv", object, adopted}, []string{"get", "gsv"}); err != nil {
		return err
	}
	if left := len(d.grafana.Values(grafanaNamespace)); left > 0 {
		return fmt.Errorf("the objects are gone, and %d values are still in Grafana", left)
	}
	d.say("The values are deleted from Grafana, too.")
	return nil
}

func (d *demo) showSet(ctx context.Context) error {
	d.say("A GrafanaSecureValueSet makes a GrafanaSecureValue of each key of a Secret:")
	command := []string{"create", "secret", "generic", many}
	for _, key := range manyKeys {
		command = append(command, "--from-literal="+key.name+"="+key.value)
	}
	err := d.each(ctx, command)
	if err == nil {
		err = d.apply(ctx, "set.yaml")
	}
	if err == nil {
		err = d.each(ctx, ready("gsvset/"+many), []string{"get", "gsvset"}, []string{"get", "gsv"})
	}
	if err != nil {
		return err
	}
	for _, key := range manyKeys {
		if err := d.grafanaHas(ctx, key.inGrafana, key.value); err != nil {
			return err
		}
	}
	return nil
}

// grafanaHas waits until the decrypter would get the value.
func (d *demo) grafanaHas(ctx context.Context, name, value string) error {
	err := d.eventually(ctx, "the value in Grafana", func() bool {
		got, err := d.grafana.Decrypt(grafanaNamespace, name, decrypter)
		return err == nil && string(got) == value
	})
	if err == nil {
		d.say("In Grafana %s reads %s: %s", decrypter, name, value)
	}
	return err
}

// propagation returns the time from the arrival of the Secret's change at the API server to the end of Grafana's answer.
func (d *demo) propagation(since controlplane.Mark) (time.Duration, error) {
	events, err := d.plane.Audit(since)
	if err != nil {
		return 0, err
	}
	for _, e := range events {
		if e.Verb != "patch" || e.Resource != "secrets" {
			continue
		}
		for _, c := range d.grafana.Calls() {
			if c.Verb == grafanatest.VerbUpdate && c.Name == object {
				return c.End.Sub(e.Time), nil
			}
		}
	}
	return 0, errors.New("the rotation is not in the records")
}

func (d *demo) version(ctx context.Context) string {
	out, _ := d.kubectl(ctx, "get", "gsv", object, "-o", "jsonpath={.status.targets[0].version}") // empty until it is there
	return out
}

func (d *demo) eventually(ctx context.Context, what string, seen func() bool) error {
	err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, stepTimeout, true, func(context.Context) (bool, error) { return seen(), nil })
	if err != nil {
		return fmt.Errorf("waited for %s: %w", what, err)
	}
	return nil
}
