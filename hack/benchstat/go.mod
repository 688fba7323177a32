// Benchstat, which compares benchmarks. It is a module of its own so that none of its requirements reaches the operator.
module github.com/securevalues-io/grafana-secure-value-operator/hack/benchstat

go 1.26.8

tool golang.org/x/perf/cmd/benchstat

require (
	github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794 // indirect
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da // indirect
)
