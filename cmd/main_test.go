package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

func TestParseRefusesBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--bogus"},
		{"--leader-elect=perhaps"},
		{"--max-concurrent-reconciles=0"},
		{"--max-concurrent-reconciles=many"},
		{"--max-connections-per-namespace=0"},
		{"argument"},
		{"--zap-log-level=bogus"},
		{"--watch-namespaces=,"},
		{"--allowed-hosts=,"},
		{"--allow-insecure-tls=perhaps"},
	} {
		if _, _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if _, _, err := parse([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

func TestParseReadsLists(t *testing.T) {
	opts, _, err := parse([]string{"--watch-namespaces=team-a, team-b,"})
	if err != nil || !slices.Equal(opts.WatchNamespaces, []string{"team-a", "team-b"}) {
		t.Errorf("namespaces = %q, %v", opts.WatchNamespaces, err)
	}
	opts, _, err = parse([]string{"--allowed-hosts=*.grafana.net, grafana.internal:3000"})
	if err != nil || !slices.Equal(opts.AllowedHosts, []string{"*.grafana.net", "grafana.internal:3000"}) {
		t.Errorf("hosts = %q, %v", opts.AllowedHosts, err)
	}
	if opts, _, err := parse(nil); err != nil || opts.AllowedHosts != nil || opts.AllowInsecureTLS {
		t.Errorf("by default: hosts = %q, insecure TLS %t, %v", opts.AllowedHosts, opts.AllowInsecureTLS, err)
	}
	if opts, _, err := parse(nil); err != nil || opts.WatchNamespaces != nil || !opts.NamespacedConnections {
		t.Errorf("by default: namespaces = %q, namespaced connections %t, %v", opts.WatchNamespaces, opts.NamespacedConnections, err)
	}
}

func TestParseKnowsTheNamespaceOfItsPod(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "of-the-pod")
	if opts, _, err := parse(nil); err != nil || opts.OperatorNamespace != "of-the-pod" {
		t.Errorf("namespace = %q, %v", opts.OperatorNamespace, err)
	}
	if opts, _, err := parse([]string{"--operator-namespace=given"}); err != nil || opts.OperatorNamespace != "given" {
		t.Errorf("namespace = %q, %v", opts.OperatorNamespace, err)
	}
}

// TestManagerThatCannotStart runs the binary as a user does: one clear line, and exit status 1; or the version, and exit status 0.
func TestManagerThatCannotStart(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "manager")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-X main.version=v1.2.3", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"--version"}, {"--kubeconfig=none", "--max-concurrent-reconciles=0", "-version"}} {
		out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		if err != nil || string(out) != "v1.2.3\n" {
			t.Errorf("%q: said %q and ended with %v, want the version and status 0", args, out, err)
		}
	}
	kubeconfig := controlplane.StartForTest(t, controlplane.Options{}).KubeconfigPath() // without our CRDs
	dead := filepath.Join(t.TempDir(), "dead")
	content := "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x}}]\n" +
		"clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n"
	if err := os.WriteFile(dead, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"bad flag":              {[]string{"--bogus"}, "flag provided but not defined: -bogus; see manager --help"},
		"no CRDs":               {[]string{"--kubeconfig", kubeconfig, "--operator-namespace=default"}, "install the CRDs of this version first"},
		"check without CRDs":    {[]string{"--check", "--kubeconfig", kubeconfig, "--operator-namespace=default"}, "install the CRDs of this version first"},
		"no operator namespace": {[]string{"--kubeconfig", kubeconfig}, "set --operator-namespace or $POD_NAMESPACE"},
		"bad cluster id":        {[]string{"--kubeconfig", kubeconfig, "--operator-namespace=default", "--cluster-id=a/b"}, "--cluster-id"},
		"bad namespace":         {[]string{"--kubeconfig", kubeconfig, "--operator-namespace=default", "--watch-namespaces=a/b"}, "--watch-namespaces"},
		"bad host":              {[]string{"--kubeconfig", kubeconfig, "--operator-namespace=default", "--allowed-hosts=https://a/b"}, "--allowed-hosts: "},
		"no id with namespaces": {[]string{"--kubeconfig", kubeconfig, "--operator-namespace=default", "--watch-namespaces=a"}, "needs --cluster-id"},
		"no connections at all": {
			[]string{
				"--kubeconfig", kubeconfig, "--operator-namespace=default", "--watch-namespaces=a", "--cluster-id=a", "--namespaced-connections=false",
			},
			"leave one of them out",
		},
		"no kubeconfig": {[]string{"--kubeconfig", filepath.Join(t.TempDir(), "none")}, "no such file"},
		"no API server": {[]string{"--kubeconfig", dead, "--operator-namespace=default"}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), binary, row.args...)
			cmd.Env = append(os.Environ(), "POD_NAMESPACE=")
			out, err := cmd.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit status 1", err)
			}
			text := strings.TrimRight(string(out), "\n")
			if !strings.HasPrefix(text, "error: ") || !strings.Contains(text, row.want) || strings.Contains(text, "\n") {
				t.Errorf("said %q, want one line that says %q", text, row.want)
			}
		})
	}
}
