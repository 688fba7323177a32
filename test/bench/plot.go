package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// What is plotted: one panel for each measure.
var panels = []struct{ scenario, measure, title string }{
	{"cold-start", "all Ready", "Cold start: all Ready"},
	{"cold-start", "CPU of the manager", "Cold start: CPU of the manager"},
	{"restart", "all reconciled", "Restart: all reconciled"},
	{"restart", "CPU of the manager", "Restart: CPU of the manager"},
	{"memory", "at rest", "Memory at rest"},
	{"rotation", "Secret to Grafana, p99", "Rotation: p99 to Grafana"},
	{"cold-start", "Grafana create", "Cold start: calls to Grafana"},
	{"cold-start", "patch grafanasecurevalues/status", "Cold start: writes of a status"},
	{"restart", "Grafana list", "Restart: calls to Grafana"},
}

const (
	panelWidth, panelHeight = 300, 190
	panelMargin             = 50
	panelColumns            = 3
)

// plot returns how the medians grow with the number of objects, as SVG, with the exponent b of the power a·n^b that fits best.
func (r *results) plot() string {
	var b strings.Builder
	rows := (len(panels) + panelColumns - 1) / panelColumns
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", panelColumns*panelWidth, rows*panelHeight)
	for i, p := range panels {
		points, in := map[float64]float64{}, unit("")
		for _, m := range r.Measurements {
			if m.Scenario == p.scenario && m.Measure == p.measure {
				points[float64(m.Objects)], in = quantile(m.Values, 0.5), m.Unit
			}
		}
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", i%panelColumns*panelWidth, i/panelColumns*panelHeight)
		drawPanel(&b, p.title, in, points)
		b.WriteString("</g>\n")
	}
	return b.String() + "</svg>\n"
}

// drawPanel draws points on two logarithmic axes.
func drawPanel(b *strings.Builder, title string, in unit, points map[float64]float64) {
	fmt.Fprintf(b, `<text x="%d" y="18" font-weight="bold">%s</text>`+"\n", panelMargin, title)
	objects := slices.Sorted(maps.Keys(points))
	if len(objects) == 0 {
		fmt.Fprintf(b, `<text x="%d" y="90">not measured</text>`+"\n", panelMargin)
		return
	}
	values := slices.Sorted(maps.Values(points))
	lowX, highX := math.Log10(objects[0]), math.Log10(objects[len(objects)-1])
	lowY, highY := math.Floor(math.Log10(max(values[0], 1e-3))), math.Ceil(math.Log10(max(values[len(values)-1], 1e-3)))
	if lowX == highX {
		highX++
	}
	if lowY == highY {
		highY++
	}
	x := func(n float64) float64 {
		return panelMargin + (math.Log10(n)-lowX)/(highX-lowX)*(panelWidth-2*panelMargin+20)
	}
	y := func(v float64) float64 {
		return panelHeight - 35 - (math.Log10(max(v, 1e-3))-lowY)/(highY-lowY)*(panelHeight-75)
	}
	for e := lowY; e <= highY; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g %s</text>`+"\n",
			panelMargin, panelWidth-20, y(v), y(v), panelMargin-4, y(v)+4, v, in)
	}
	var line []string
	for i, n := range objects {
		anchor := "middle"
		if i == 0 {
			anchor = "start" // beside the axis, and not over its numbers
		}
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(n), y(points[n])))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#36c"/><text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n",
			x(n), y(points[n]), x(n), y(points[n])-8, anchor, measurement{Unit: in}.format(points[n]))
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x(n), panelHeight-18, n)
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#36c"/>`+"\n", strings.Join(line, " "))
	if exponent, ok := growth(points); ok {
		fmt.Fprintf(b, `<text x="%d" y="32" fill="#666">grows as n^%.2f</text>`+"\n", panelMargin, exponent)
	}
}

// growth returns the exponent b of the power a·n^b that fits three points or more best, by least squares of the logarithms.
func growth(points map[float64]float64) (exponent float64, ok bool) {
	if len(points) < 3 {
		return 0, false
	}
	var sumX, sumY, sumXX, sumXY float64
	for n, v := range points {
		x, y := math.Log(n), math.Log(max(v, 1e-3))
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	count := float64(len(points))
	return (count*sumXY - sumX*sumY) / (count*sumXX - sumX*sumX), true
}
