// Demo shows the operator at work: with a real kube-apiserver and etcd, a fake Grafana, and the manager. It creates, rotates,
// moves, adopts and deletes a value, makes several with a set, and prints each command, its output, and what Grafana then has.
//
// It exits with 0 only if every step was seen to happen, or after Ctrl-C, which is no failure. At a terminal it stays up until Ctrl-C,
// unless DEMO_ONCE is 1.
// With -record it writes what it prints to a file, as an asciicast. With -draw it only draws such a file, as an SVG.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/term"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/progress"
)

const operatorNamespace = "grafana-secure-value-operator-system"

func main() {
	record := flag.String("record", "", "write what the demo prints to this file, as an asciicast")
	drawn := flag.String("draw", "", "print this asciicast as an SVG, and do nothing else")
	flag.Parse()
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, stop := signal.NotifyContext(terminated, os.Interrupt)
	defer stop()
	switch err := start(ctx, *record, *drawn); {
	case err == nil, errors.Is(err, errInterrupted) && terminated.Err() == nil:
		return
	default:
		fmt.Fprintln(os.Stderr, "\nerror: "+err.Error())
		os.Exit(1) // nothing else is deferred
	}
}

// errInterrupted says that the demo was stopped before its last step.
var errInterrupted = errors.New("interrupted")

func start(ctx context.Context, record, drawn string) error {
	if drawn != "" {
		return drawFile(drawn)
	}
	d := &demo{out: os.Stdout}
	recorded := newRecording(time.Now)
	if record != "" {
		d.out = io.MultiWriter(os.Stdout, recorded)
	}
	if err := d.run(ctx); err != nil || record == "" {
		return err
	}
	return os.WriteFile(record, recorded.cast(), 0o644)
}

// demo is what is running.
type demo struct {
	out     io.Writer
	dir     string // of manifests and logs, in which kubectl runs
	plane   *controlplane.ControlPlane
	grafana *fakeGrafana
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "gsv-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	stop, err := d.startAll(ctx)
	defer func() {
		defer progress.Show(func() string { return "stopping everything" })()
		err = errors.Join(err, stop())
	}()
	if err == nil {
		err = d.show(ctx)
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, errInterrupted):
		return errInterrupted
	case err != nil:
		return fmt.Errorf("%w\n\nThe manager's log:\n%s", err, d.managerLog())
	case os.Getenv("DEMO_ONCE") == "1" || !term.IsTerminal(int(os.Stdout.Fd())):
		return nil
	}
	return d.stay(ctx)
}

// startAll starts what the demo needs. The caller must call stop, also after an error.
func (d *demo) startAll(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, end := range slices.Backward(stops) {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	d.say("Starting kube-apiserver and etcd, a fake Grafana, and the operator.")
	defer progress.Show(func() string {
		if ctx.Err() != nil {
			return "interrupted; it stops once it has started"
		}
		return "starting"
	})()
	if d.plane, err = controlplane.Start(controlplane.Options{CRDDirectories: []string{"config/crd/bases"}}); err != nil {
		return stop, err
	}
	stops = append(stops, d.plane.Stop)
	if d.grafana, err = startFakeGrafana(filepath.Join(d.dir, "grafana.log")); err != nil {
		return stop, err
	}
	stops = append(stops, d.grafana.stop)
	if err := d.writeManifests(d.grafana.url); err != nil {
		return stop, err
	}
	stopManager, err := d.startManager(ctx)
	if err != nil {
		return stop, err
	}
	stops = append(stops, stopManager)
	return stop, nil
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
