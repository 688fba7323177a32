// Bench measures the operator: with a real kube-apiserver and etcd, the fake Grafana in a process of its own, and the manager as
// it is installed in another, so that its CPU and memory are its own. Calls to Kubernetes are counted in the audit log, those to Grafana
// at the fake Grafana.
//
// It ends with a table, and writes the same to a JSON file. It exits with 0 only if every target was met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options is what a run is started with.
type options struct {
	scenarios []scenario
	objects   []int
	runs      int
	latency   time.Duration
	plainHTTP bool
	manager   string // binary; empty: built from here
	profiles  string // directory; empty: none
	out       string
	plot      string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctrl.SetLogger(logr.Discard()) // what starts the API server says in an error what went wrong
	run := run
	switch {
	case len(os.Args) > 1 && os.Args[1] == fakeGrafanaCommand:
		run = runFakeGrafana
	case len(os.Args) > 1 && os.Args[1] == profiledCommand:
		run = runProfiled
	case len(os.Args) > 1 && os.Args[1] == bareInformerCommand:
		run = runBareInformer
	}
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case !errors.Is(err, errMissed): // the table says it
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
	}
	os.Exit(1) // nothing else is deferred
}

// errMissed says that a target was missed.
var errMissed = errors.New("a target was missed")

func parse(args []string) (options, error) {
	opts := options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	names := fs.String("scenario", "", "scenarios to run, with commas between them (default: all)")
	objects := fs.String("n", "1000", "objects at rest; with commas between several numbers, everything is run with each of them")
	fs.IntVar(&opts.runs, "runs", 1, "how often everything is run, each time with a new API server")
	fs.DurationVar(&opts.latency, "latency", 5*time.Millisecond, "how long each answer of Grafana takes")
	fs.BoolVar(&opts.plainHTTP, "http", false, "call Grafana over HTTP without TLS")
	fs.StringVar(&opts.manager, "manager", "", "binary of the manager (default: built from this checkout)")
	fs.StringVar(&opts.profiles, "profile", "", "directory for profiles of the manager's CPU and heap, one of each scenario")
	fs.StringVar(&opts.out, "out", filepath.Join("bin", "bench.json"), "file for the results")
	fs.StringVar(&opts.plot, "plot", "", "file for a plot (SVG) of how the results grow with the number of objects")
	usage := fs.Usage
	fs.Usage = func() {
		usage()
		for _, s := range scenarios {
			fmt.Fprintf(fs.Output(), "  %-16s %s\n", s.name, s.about)
		}
	}
	if err := fs.Parse(args); err != nil {
		return opts, err
	}
	for part := range strings.SplitSeq(*objects, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return opts, fmt.Errorf("-n: %q is not a number of objects", part)
		}
		opts.objects = append(opts.objects, n)
	}
	var err error
	opts.scenarios, err = choose(*names)
	return opts, err
}

// choose returns the named scenarios in the order in which they run; all for no name.
func choose(names string) ([]scenario, error) {
	if strings.TrimSpace(names) == "" {
		return scenarios, nil
	}
	var wanted []string
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no scenario %q; -help lists them", name)
		}
		wanted = append(wanted, name)
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !slices.Contains(wanted, s.name) }), nil
}

func run(ctx context.Context, args []string) error {
	opts, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gsv-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := buildManager(ctx, opts, dir)
	if err != nil {
		return err
	}
	results := newResults(opts)
	fmt.Println(results.Machine)
	failed := runAll(ctx, opts, binary, dir, results)
	results.finish()
	fmt.Print("\n" + results.table())
	if err := results.write(opts.out); err != nil {
		return err
	}
	if opts.plot != "" {
		if err := os.WriteFile(opts.plot, []byte(results.plot()), 0o644); err != nil { // for everybody
			return err
		}
	}
	if failed == nil && results.missed() {
		return errMissed
	}
	return failed
}

// runAll runs everything as often, and with as many objects, as is asked for. What was found before an error is in the results.
func runAll(ctx context.Context, opts options, binary, dir string, results *results) error {
	for _, n := range opts.objects {
		for run := range opts.runs {
			say("%d objects, run %d of %d", n, run+1, opts.runs)
			if err := runOnce(ctx, opts, n, binary, dir, results); err != nil {
				return err
			}
		}
	}
	return nil
}

// runOnce runs the scenarios one after the other in a world of their own.
func runOnce(ctx context.Context, opts options, n int, binary, dir string, results *results) (err error) {
	w, err := newWorld(ctx, opts, n, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, s := range opts.scenarios {
		say("== %s: %s", s.name, s.about)
		w.scenario = s.name
		if !s.fresh {
			if err := w.ensure(ctx, n); err != nil {
				return err
			}
		}
		record := func(m measurement) {
			m.Scenario, m.Objects = s.name, n
			results.add(m)
			say("   %s: %s", m.Measure, m.format(m.Values[0]))
		}
		if err := s.run(ctx, w, n, record); err != nil {
			return fmt.Errorf("%s: %w\n\nThe end of the manager's log:\n%s", s.name, err, w.managerLog())
		}
	}
	return nil
}

var begun = time.Now()

// say prints a line with the time that has passed.
func say(format string, args ...any) {
	fmt.Printf("[%4.0fs] %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
}
