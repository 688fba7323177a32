package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // served by runProfiled alone
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

const (
	// profiledCommand makes this program a manager that serves profiles.
	profiledCommand = "profiled-manager"
	// leaderElect is the flag with which a manager takes part in the election of a leader.
	leaderElect = "--leader-elect"
)

// buildManager returns the binary of the manager, or of one that serves profiles.
func buildManager(ctx context.Context, opts options, dir string) (string, error) {
	switch {
	case opts.profiles != "":
		return os.Executable()
	case opts.manager != "":
		return opts.manager, nil
	}
	binary := filepath.Join(dir, "manager")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd") // as the image's
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the manager: %w\n%s", err, out)
	}
	return binary, nil
}

// runProfiled is the manager with the defaults of its flags, and with profiles.
func runProfiled(ctx context.Context, args []string) error {
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", strings.TrimPrefix(args[1], "--kubeconfig="))
	if err != nil {
		return err
	}
	config.QPS = -1                             // as the manager has it
	listener, err := net.Listen("tcp", args[2]) //nolint:noctx // it ends with the process
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, nil) }() // for this program alone
	return operator.Run(ctx, config, operator.Options{
		MetricsBindAddress:      args[3],
		HealthProbeBindAddress:  args[4],
		LeaderElect:             slices.Contains(args, leaderElect),
		MaxConcurrentReconciles: 64,
		OperatorNamespace:       operatorNamespace,
		NamespacedConnections:   true,
		Version:                 "bench",
	})
}

// manager is a manager in a process of its own.
type manager struct {
	process  *exec.Cmd
	log      *os.File
	metrics  string // URL
	ready    string // URL
	profiles string // URL; empty: none
	started  time.Time
	ended    chan error
}

// startManager starts the binary, with further flags. It does not wait until anything has happened.
func startManager(binary, kubeconfig, log string, profiled bool, flags ...string) (*manager, error) {
	var addresses [3]string
	for i := range addresses {
		var err error
		if addresses[i], err = controlplane.FreeAddress(); err != nil {
			return nil, err
		}
	}
	metrics, health, profiles := addresses[0], addresses[1], addresses[2]
	m := &manager{metrics: "http://" + metrics + "/metrics", ready: "http://" + health + "/readyz", ended: make(chan error, 1)}
	args := []string{
		"--kubeconfig=" + kubeconfig, "--operator-namespace=" + operatorNamespace, "--metrics-bind-address=" + metrics,
		"--metrics-secure=false", "--health-probe-bind-address=" + health,
	}
	if profiled {
		m.profiles = "http://" + profiles + "/debug/pprof/"
		args = []string{profiledCommand, "--kubeconfig=" + kubeconfig, profiles, metrics, health}
	}
	args = append(args, flags...)
	var err error
	if m.log, err = os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	m.process = exec.Command(binary, args...) //nolint:noctx // stop ends it
	m.process.Stdout, m.process.Stderr = m.log, m.log
	m.started = time.Now()
	if err := m.process.Start(); err != nil {
		return nil, errors.Join(err, m.log.Close())
	}
	go func() { m.ended <- m.process.Wait() }()
	return m, nil
}

func (m *manager) stop() error {
	_ = m.process.Process.Signal(syscall.SIGTERM)
	return errors.Join(<-m.ended, m.log.Close())
}

// kill ends it without a warning.
func (m *manager) kill() error {
	err := m.process.Process.Kill()
	<-m.ended //nolint:errcheck // it says that it was killed
	return errors.Join(err, m.log.Close())
}

// get returns an answer of the manager.
func (m *manager) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return content, err
}

// metric returns the sum of a metric over all labels that contain each of the given texts; 0 while the manager does not answer yet.
func (m *manager) metric(ctx context.Context, name string, labels ...string) int {
	body, err := m.get(ctx, m.metrics)
	if err != nil {
		return 0
	}
	return sumOf(string(body), name, labels...)
}

func sumOf(body, name string, labels ...string) int {
	sum := 0.0
	for line := range strings.Lines(body) {
		rest, found := strings.CutPrefix(line, name)
		if !found || rest[0] != '{' && rest[0] != ' ' || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " ")+1:]), 64)
		if err == nil {
			sum += value
		}
	}
	return int(sum)
}

// usage is what a process has used.
type usage struct {
	cpu  time.Duration
	rss  float64 // MiB
	peak float64 // MiB
}

func (m *manager) usage() (usage, error) { return usageOf(m.process.Process.Pid) }

// controlPlaneCPU returns what kube-apiserver and etcd, which this process has started, have used.
func controlPlaneCPU() (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid())) // a child belongs to the thread that started it
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, thread := range threads {
		pids, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(pids)) {
			name, err := os.ReadFile(filepath.Join("/proc", field, "comm"))
			if pid, _ := strconv.Atoi(field); err == nil && slices.Contains([]string{"kube-apiserver", "etcd"}, strings.TrimSpace(string(name))) {
				used, err := usageOf(pid)
				if err != nil {
					return 0, err
				}
				sum += used.cpu
			}
		}
	}
	return sum, nil
}

// usageOf reads /proc.
func usageOf(pid int) (usage, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return usage{}, fmt.Errorf("the memory and CPU of a process are known on Linux alone: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return usage{}, err
		}
		ticks += n
	}
	u := usage{cpu: time.Duration(ticks) * (time.Second / 100)} // USER_HZ is 100
	status, err := os.Open(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	defer func() { _ = status.Close() }()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch name {
		case "VmRSS":
			u.rss = kib / 1024
		case "VmHWM":
			u.peak = kib / 1024
		}
	}
	return u, nil
}
