package operator

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

func TestLoopbackIsForManagersOutsideOfPods(t *testing.T) {
	for file, want := range map[string]bool{"": true, "/home/me/token": true, podTokenFile: false} {
		p, err := Options{}.policy(&rest.Config{BearerTokenFile: file})
		if err != nil || p.AllowLoopback != want {
			t.Errorf("token in %q: %t, %v, want %t", file, p.AllowLoopback, err, want)
		}
	}
}

func TestPolicyOfFlags(t *testing.T) {
	p, err := Options{AllowedHosts: []string{"*.grafana.net"}, AllowInsecureTLS: true}.policy(&rest.Config{})
	if err != nil || len(p.AllowedHosts) != 1 || !p.AllowInsecureTLS {
		t.Errorf("policy = %+v, %v", p, err)
	}
	if _, err := (Options{AllowedHosts: []string{"https://grafana.net"}}).policy(&rest.Config{}); err == nil || !strings.Contains(err.Error(), "--allowed-hosts") {
		t.Errorf("error = %v", err)
	}
}
