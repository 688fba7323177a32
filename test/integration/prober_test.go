package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// spot is a target in one Grafana, whatever connection resolves to it.
type spot struct {
	server    *grafanatest.Server
	namespace string
	name      string
}

func (s spot) String() string { return s.namespace + "/" + s.name }

// spot returns the target of that name in the world's Grafana.
func (w *world) spot(name string) spot {
	return spot{server: w.grafana, namespace: grafanaNS, name: name}
}

// probePeriod is how often a prober probes.
const probePeriod = time.Millisecond

// prober reads groups of spots. A moment at which no spot of a group has a value is a gap of that group.
type prober struct {
	groups [][]spot
	stop   chan struct{}
	ended  sync.WaitGroup
	probes int
	gaps   map[int]int // how many probes found a gap, by group
}

func startProber(groups [][]spot) *prober {
	p := &prober{groups: groups, stop: make(chan struct{}), gaps: map[int]int{}}
	p.ended.Go(p.run)
	return p
}

func (p *prober) run() {
	ticker := time.NewTicker(probePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.probe()
		}
	}
}

func (p *prober) probe() {
	p.probes++
	for i, group := range p.groups {
		// A value may move meanwhile, from a spot that is read later to one that was read before, which is therefore read twice.
		if !slices.ContainsFunc(slices.Concat(group, group), spot.hasValue) {
			p.gaps[i]++
		}
	}
}

func (s spot) hasValue() bool {
	v, found := s.server.Value(s.namespace, s.name)
	return found && len(v.Value) > 0
}

// end stops the prober and describes the gaps that it found.
func (p *prober) end() []string {
	close(p.stop)
	p.ended.Wait()
	var gaps []string
	for i, group := range p.groups {
		if n := p.gaps[i]; n > 0 {
			var names []string
			for _, s := range group {
				names = append(names, s.String())
			}
			gaps = append(gaps, fmt.Sprintf("%d of %d probes found nothing at %s", n, p.probes, strings.Join(names, " or ")))
		}
	}
	return gaps
}

// noGap fails if from now on there is a moment at which none of the names has a value in the world's Grafana. It ends with the spec, or
// when the returned function is called.
func (w *world) noGap(names ...string) (end func()) {
	GinkgoHelper()
	var group []spot
	for _, name := range names {
		group = append(group, w.spot(name))
	}
	return noGapAt(group)
}

// noGapAt is noGap for several groups, each of which must have a value at every moment.
func noGapAt(groups ...[]spot) (end func()) {
	GinkgoHelper()
	for _, group := range groups {
		Expect(slices.ContainsFunc(group, spot.hasValue)).To(BeTrue(), "there is no value to begin with at %v", group)
	}
	p, ended := startProber(groups), false
	end = func() {
		GinkgoHelper()
		if ended {
			return
		}
		ended = true
		gaps := p.end()
		Expect(p.probes).To(BeNumerically(">", 0), "the prober never probed")
		Expect(gaps).To(BeEmpty())
	}
	DeferCleanup(end)
	return end
}

var _ = Describe("The prober", func() {
	It("sees a gap, and no gap in a move", func() {
		server := grafanatest.New()
		at := func(name string) spot { return spot{server: server, namespace: grafanaNS, name: name} }
		value := func(name string) grafanatest.Stored { return grafanatest.Stored{Name: name, Value: []byte("canary")} }
		server.Put(grafanaNS, value("stays"))
		server.Put(grafanaNS, value("goes"))
		server.Put(grafanaNS, value("moves"))
		p := &prober{
			groups: [][]spot{{at("stays")}, {at("goes")}, {at("moves"), at("moved")}},
			stop:   make(chan struct{}), gaps: map[int]int{},
		}
		p.probe()
		server.Remove(grafanaNS, "goes")
		server.Put(grafanaNS, value("moved"))
		server.Remove(grafanaNS, "moves")
		p.probe()
		Expect(p.end()).To(Equal([]string{"1 of 2 probes found nothing at default/goes"}))
	})
})
