package operator

import "github.com/go-logr/logr"

// maxVerbosity is the most detail that is logged, whatever --zap-log-level says. From 8 on the Kubernetes client, which logs to what it
// finds in its context, would log requests and answers whole: Secrets, and the fingerprint key.
const maxVerbosity = 5

// discreet returns the logger, and logs nothing beyond maxVerbosity.
func discreet(log logr.Logger) logr.Logger { return log.WithSink(discreetSink{log.GetSink()}) }

type discreetSink struct{ logr.LogSink }

func (s discreetSink) Enabled(level int) bool {
	return level <= maxVerbosity && s.LogSink.Enabled(level)
}

func (s discreetSink) WithName(name string) logr.LogSink {
	return discreetSink{s.LogSink.WithName(name)}
}

func (s discreetSink) WithValues(keysAndValues ...any) logr.LogSink {
	return discreetSink{s.LogSink.WithValues(keysAndValues...)}
}
