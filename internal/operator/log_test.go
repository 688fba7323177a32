package operator

import (
	"slices"
	"testing"

	"github.com/go-logr/logr/funcr"
)

func TestTheKubernetesClientLogsNoBodies(t *testing.T) {
	var lines []string
	all := funcr.New(func(prefix, args string) { lines = append(lines, prefix+" "+args) }, funcr.Options{Verbosity: 127})
	log := discreet(all)
	log.Info("default")
	log.WithName("name").WithValues("key", "value").V(5).Info("most")
	if want := []string{` "level"=0 "msg"="default"`, `name "level"=5 "msg"="most" "key"="value"`}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
	if log.V(8).Enabled() || log.WithName("name").V(8).Enabled() || log.WithValues("key", "value").V(8).Enabled() {
		t.Error("bodies are logged")
	}
	if _, ok := managerOptions(Options{}).Logger.GetSink().(discreetSink); !ok {
		t.Error("the manager logs to something else")
	}
}
