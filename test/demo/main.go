// Demo shows the operator at work: with a real kube-apiserver and etcd, a fake Grafana, and the manager. It applies
// config/samples, rotates, edits, moves, adopts and deletes, and prints each command, its output, and what a decrypter in
// Grafana would get.
//
// It exits with 0 only if every step was seen to happen. At a terminal it then stays up until Ctrl-C, unless DEMO_ONCE is 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	// What config/samples hold.
	samplesDirectory  = "config/samples"
	sampleURL         = "https://acme.grafana.net"
	sampleToken       = "REPLACE-WITH-A-SERVICE-ACCOUNT-TOKEN"
	sampleValue       = "REPLACE-WITH-THE-VALUE"
	sampleNamespace   = "stacks-1234"
	sampleName        = "sm-api-key"
	sampleDecrypter   = "synthetic-monitoring"
	operatorNamespace = "grafana-secure-value-operator-system"

	rotatedValue = "rotated-value"
	movedName    = "sm-probe-key"

	handmadeName  = "k6-token"
	handmadeValue = "typed-by-hand"
	adoptedValue  = "kept-by-kubernetes"

	demoToken   = "glsa_demo"
	stepTimeout = 30 * time.Second // for one step
)

// handmadeObject is a GrafanaSecureValue for a name that is taken in Grafana.
const handmadeObject = `apiVersion: grafana.securevalues.io/v1alpha1
kind: GrafanaSecureValue
metadata:
  name: ` + handmadeName + `
  namespace: default
spec:
  connectionRef:
    name: prod
  decrypters:
  - ` + sampleDecrypter + `
  valueFrom:
    secretKeyRef:
      name: k6
      key: token
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nerror: "+err.Error())
		os.Exit(1) // nothing else is deferred
	}
}

// demo is what is running.
type demo struct {
	plane   *controlplane.ControlPlane
	grafana *grafanatest.Server
	dir     string // of the samples and the manager's log
	samples string
}

func run(ctx context.Context) (err error) {
	d := &demo{}
	if d.dir, err = os.MkdirTemp("", "gsv-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()

	say("Starting kube-apiserver and etcd, a fake Grafana, and the manager.")
	d.plane, err = controlplane.Start(controlplane.Options{CRDDirectories: []string{"config/crd/bases"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.plane.Stop()) }()

	d.grafana = grafanatest.New(grafanatest.WithNamespaces("default", sampleNamespace))
	d.grafana.AddToken(demoToken)
	server, err := d.grafana.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	if err := d.prepare(server.URL); err != nil {
		return err
	}
	stopManager, err := d.startManager(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopManager()) }()

	if err := d.show(ctx); err != nil {
		return fmt.Errorf("%w\n\nThe manager's log:\n%s", err, d.managerLog())
	}
	if os.Getenv("DEMO_ONCE") == "1" || !term.IsTerminal(int(os.Stdout.Fd())) {
		return nil
	}
	return d.stay(ctx)
}

// prepare writes the samples for the fake Grafana at url. A short requestTimeout allows a deletion soon after the start of the manager, which
// accepts no 404 as proof before.
func (d *demo) prepare(url string) error {
	d.samples = filepath.Join(d.dir, "samples")
	if err := os.CopyFS(d.samples, os.DirFS(samplesDirectory)); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(d.samples, "*.yaml"))
	if err != nil {
		return err
	}
	replacer := strings.NewReplacer(sampleURL, url+"\n  requestTimeout: 2s", sampleToken, demoToken)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(replacer.Replace(string(content))), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startManager starts the manager in this process, with its log in a file.
func (d *demo) startManager(ctx context.Context) (stop func() error, err error) {
	if _, err := d.kubectl(ctx, "create", "namespace", operatorNamespace); err != nil {
		return nil, err
	}
	if _, err := d.kubectl(ctx, "create", "secret", "generic", fingerprint.SecretName, "--type="+string(fingerprint.SecretType),
		"--namespace="+operatorNamespace); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "manager.log"))
	if err != nil {
		return nil, err
	}
	ctrl.SetLogger(zap.New(zap.WriteTo(log)))
	ctx = logr.NewContext(context.WithoutCancel(ctx), ctrl.Log)
	ctx, cancel := context.WithCancel(ctx)
	manager, err := operator.New(ctx, d.plane.Config(), operator.Options{
		MetricsBindAddress:      "0",
		HealthProbeBindAddress:  "0",
		MaxConcurrentReconciles: 64,
		OperatorNamespace:       operatorNamespace,
		NamespacedConnections:   true,
		Version:                 "demo",
	})
	if err != nil {
		cancel()
		return nil, errors.Join(err, log.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, log.Close())
	}, nil
}

func (d *demo) managerLog() string {
	content, err := os.ReadFile(filepath.Join(d.dir, "manager.log"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// show walks through the life of a secure value.
func (d *demo) show(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.showCreated, d.showRotated, d.showEdited, d.showMoved, d.showAdopted, d.showDeleted,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) showCreated(ctx context.Context) error {
	title("1. Created")
	say("A connection, a Secret and a GrafanaSecureValue, from %s:", samplesDirectory)
	err := d.each(ctx,
		[]string{"apply", "-k", d.samples},
		[]string{"wait", "--for=condition=Ready", "--timeout=30s", "gconn/prod", "gsv/" + sampleName},
		[]string{"get", "gconn,gsv"})
	if err != nil {
		return err
	}
	return d.decrypterGets(ctx, sampleName, sampleValue)
}

func (d *demo) showRotated(ctx context.Context) error {
	title("2. Rotated")
	before := d.plane.Mark()
	d.grafana.ResetCalls()
	if err := d.each(ctx, []string{"patch", "secret", "sm", "-p", `{"stringData":{"api-key":"` + rotatedValue + `"}}`}); err != nil {
		return err
	}
	if err := d.decrypterGets(ctx, sampleName, rotatedValue); err != nil {
		return err
	}
	took, err := d.propagation(before)
	if err != nil {
		return err
	}
	say("From the arrival of the new Secret at the API server to Grafana's answer: %.1f ms.", took.Seconds()*1000)
	if err := d.eventually(ctx, "version 2 in status", func() bool { return d.version(ctx) == "2" }); err != nil {
		return err
	}
	return d.each(ctx, []string{"get", "gsv"})
}

func (d *demo) showEdited(ctx context.Context) error {
	title("3. Edited")
	err := d.each(ctx,
		[]string{"patch", "gsv", sampleName, "--type=merge", "-p", `{"spec":{"description":"For the probes"}}`},
		[]string{"wait", "--for=condition=Ready", "--timeout=30s", "gsv/" + sampleName},
		[]string{"get", "gsv"})
	if err != nil {
		return err
	}
	stored, _ := d.grafana.Value(sampleNamespace, sampleName)
	if stored.Description != "For the probes" {
		return fmt.Errorf("the object is Ready, and Grafana describes the value as %q", stored.Description)
	}
	say("Grafana describes the value as %q now.", stored.Description)
	return nil
}

func (d *demo) showMoved(ctx context.Context) error {
	title("4. Moved")
	say("Another name in Grafana. A decrypter is asked for the value all the while, under the old name and the new one:")
	d.grafana.ResetCalls()
	watched := d.watch(sampleName, movedName, rotatedValue)
	err := d.each(ctx,
		[]string{"patch", "gsv", sampleName, "--type=merge", "-p", `{"spec":{"name":"` + movedName + `"}}`},
		[]string{"wait", "--for=condition=Ready", "--timeout=30s", "gsv/" + sampleName})
	if err == nil {
		err = d.eventually(ctx, "the old name to go", func() bool { return !d.inGrafana(sampleName) })
	}
	probes, gaps := watched()
	if err != nil {
		return err
	}
	if err := d.each(ctx, []string{"get", "gsv"}); err != nil {
		return err
	}
	if err := d.decrypterGets(ctx, movedName, rotatedValue); err != nil {
		return err
	}
	if gaps > 0 {
		return fmt.Errorf("during the move the value was missing in %d of %d probes", gaps, probes)
	}
	say("It was never missing in %d probes. The requests to Grafana, and its answers:\n", probes)
	for _, c := range d.grafana.Calls() {
		if c.Verb != grafanatest.VerbList {
			fmt.Printf("  %-6s %s: %d\n", c.Method, c.Name, c.Code)
		}
	}
	return nil
}

// watch probes for the value under either name until the returned function is called. That returns the number of probes, and how often
// the value was under neither.
func (d *demo) watch(from, to, value string) (stop func() (probes, gaps int)) {
	ended, counts := make(chan struct{}), make(chan [2]int)
	there := func(name string) bool {
		got, err := d.grafana.Decrypt(sampleNamespace, name, sampleDecrypter)
		return err == nil && string(got) == value
	}
	go func() {
		probes, gaps := 0, 0
		for {
			select {
			case <-ended:
				counts <- [2]int{probes, gaps}
				return
			case <-time.After(100 * time.Microsecond):
			}
			probes++
			// The old name first: a value that left it before this probe is under the new one by now.
			if !there(from) && !there(to) {
				gaps++
			}
		}
	}()
	return func() (probes, gaps int) {
		close(ended)
		c := <-counts
		return c[0], c[1]
	}
}

func (d *demo) showAdopted(ctx context.Context) error {
	title("5. Adopted")
	byHand := d.grafana.Put(sampleNamespace, grafanatest.Stored{
		Name: handmadeName, Description: "Made by hand", Decrypters: []string{sampleDecrypter}, Value: []byte(handmadeValue),
	})
	say("A person has made %s in Grafana by hand. An object for the same name:", handmadeName)
	file := filepath.Join(d.dir, handmadeName+".yaml")
	if err := os.WriteFile(file, []byte(handmadeObject), 0o600); err != nil {
		return err
	}
	fmt.Print("\n" + indent(handmadeObject))
	err := d.each(ctx,
		[]string{"create", "secret", "generic", "k6", "--from-literal=token=" + adoptedValue},
		[]string{"apply", "-f", file},
		[]string{
			"wait", `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=AlreadyExists`, "--timeout=30s",
			"gsv/" + handmadeName,
		},
		[]string{"get", "gsv"})
	if err != nil {
		return err
	}
	if stored, _ := d.grafana.Value(sampleNamespace, handmadeName); stored.Version != byHand.Version {
		return errors.New("the object was refused, and the value made by hand was written all the same")
	}
	if err := d.decrypterGets(ctx, handmadeName, handmadeValue); err != nil {
		return err
	}
	say("It was left alone. The object may have it, if it says so:")
	err = d.each(ctx,
		[]string{"patch", "gsv", handmadeName, "--type=merge", "-p", `{"spec":{"adoptionPolicy":"Adopt"}}`},
		[]string{"wait", "--for=condition=Ready", "--timeout=30s", "gsv/" + handmadeName},
		[]string{"get", "gsv"})
	if err != nil {
		return err
	}
	return d.decrypterGets(ctx, handmadeName, adoptedValue)
}

func (d *demo) showDeleted(ctx context.Context) error {
	title("6. Deleted")
	if err := d.each(ctx, []string{"delete", "gsv", sampleName, handmadeName}, []string{"get", "gsv"}); err != nil {
		return err
	}
	if left := len(d.grafana.Values(sampleNamespace)); left > 0 {
		return fmt.Errorf("the objects are gone, and %d values are still in Grafana", left)
	}
	say("In Grafana nothing is left: a decrypter gets nothing.")
	return nil
}

// stay keeps everything running until the user has seen enough.
func (d *demo) stay(ctx context.Context) error {
	title("Your turn")
	if err := d.each(ctx, []string{"apply", "-k", d.samples}); err != nil {
		return err
	}
	say("Everything stays up. In another terminal:\n\n  export KUBECONFIG=%s\n  %s get gconn,gsv\n\nCtrl-C ends it.",
		d.plane.KubeconfigPath(), d.plane.KubectlPath())
	<-ctx.Done()
	return nil
}

// each runs kubectl commands, and prints them and their output.
func (d *demo) each(ctx context.Context, commands ...[]string) error {
	for _, args := range commands {
		fmt.Println("\n$ kubectl " + shellWords(args))
		out, err := d.kubectl(ctx, args...)
		fmt.Print(out)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.plane.KubectlPath(), append([]string{"--kubeconfig", d.plane.KubeconfigPath()}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w", shellWords(args), err)
	}
	return string(out), nil
}

// decrypterGets waits until a decrypter in Grafana would get the value.
func (d *demo) decrypterGets(ctx context.Context, name, value string) error {
	err := d.eventually(ctx, "the value in Grafana", func() bool {
		got, err := d.grafana.Decrypt(sampleNamespace, name, sampleDecrypter)
		return err == nil && string(got) == value
	})
	if err == nil {
		say("The decrypter %s in Grafana now gets, as %s: %s", sampleDecrypter, name, value)
	}
	return err
}

func (d *demo) inGrafana(name string) bool {
	_, found := d.grafana.Value(sampleNamespace, name)
	return found
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
			if c.Verb == grafanatest.VerbUpdate && c.Name == sampleName {
				return c.End.Sub(e.Time), nil
			}
		}
	}
	return 0, errors.New("the rotation is not in the records")
}

func (d *demo) version(ctx context.Context) string {
	out, _ := d.kubectl(ctx, "get", "gsv", sampleName, "-o", "jsonpath={.status.targets[0].version}") // empty until it is there
	return out
}

func (d *demo) eventually(ctx context.Context, what string, seen func() bool) error {
	err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, stepTimeout, true, func(context.Context) (bool, error) { return seen(), nil })
	if err != nil {
		return fmt.Errorf("waited for %s: %w", what, err)
	}
	return nil
}

func title(text string) { fmt.Printf("\n== %s ==\n", text) }

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }

// indent sets a text off.
func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// shellWords quotes arguments as a shell wants them.
func shellWords(args []string) string {
	words := make([]string, 0, len(args))
	for _, arg := range args {
		if strings.ContainsAny(arg, ` "{}`) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
