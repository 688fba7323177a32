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

// spot is a place in one Grafana, whatever connection leads there.
type spot struct {
	server    *grafanatest.Server
	namespace string
	name      string
}

func (s spot) String() string { return s.namespace + "/" + s.name }

// spot returns the place of that name in the world's Grafana.
func (w *world) spot(name string) spot {
	return spot{server: w.grafana, namespace: grafanaNS, name: name}
}

// probePeriod is how often a prober looks.
const probePeriod = time.Millisecond

// prober looks at groups of spots. A moment at which no spot of a group holds a value is a gap of that group.
type prober struct {
	groups [][]spot
	stop   chan struct{}
	ended  sync.WaitGroup
	looks  int
	gaps   map[int]int // how many looks found a gap, by group
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
			p.look()
		}
	}
}

func (p *prober) look() {
	p.looks++
	for i, group := range p.groups {
		// A value may move while we look, from a spot that we come to next to one that we saw empty, which is therefore looked at
		// once more at the end.
		if !slices.ContainsFunc(slices.Concat(group, group), spot.holds) {
			p.gaps[i]++
		}
	}
}

func (s spot) holds() bool {
	v, found := s.server.Value(s.namespace, s.name)
	return found && len(v.Value) > 0
}

// end stops the prober and tells the gaps that it saw, in words.
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
			gaps = append(gaps, fmt.Sprintf("%d of %d looks found nothing at %s", n, p.looks, strings.Join(names, " or ")))
		}
	}
	return gaps
}

// noGap looks at the names in the world's Grafana from now on, and fails if there is a moment at which none of them holds a
// value. It ends with the spec, or when what it returns is called.
func (w *world) noGap(names ...string) (end func()) {
	GinkgoHelper()
	var group []spot
	for _, name := range names {
		group = append(group, w.spot(name))
	}
	return noGapAt(group)
}

// noGapAt is noGap for several groups, each of which must hold a value at every moment.
func noGapAt(groups ...[]spot) (end func()) {
	GinkgoHelper()
	for _, group := range groups {
		Expect(slices.ContainsFunc(group, spot.holds)).To(BeTrue(), "there is no value to begin with at %v", group)
	}
	p, ended := startProber(groups), false
	end = func() {
		GinkgoHelper()
		if ended {
			return
		}
		ended = true
		gaps := p.end()
		Expect(p.looks).To(BeNumerically(">", 0), "the prober never looked")
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
		p.look()
		server.Remove(grafanaNS, "goes")
		server.Put(grafanaNS, value("moved"))
		server.Remove(grafanaNS, "moves")
		p.look()
		Expect(p.end()).To(Equal([]string{"1 of 2 looks found nothing at default/goes"}))
	})
})
