package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"strings"
)

const (
	lineHeight = 18
	charWidth  = 8.43 // of the widest usual monospace font, at 14 px
	padding    = 14
	lastLook   = 5.0 // seconds, before it begins again
)

// screen is the terminal after an output: how many lines it has had, from then on.
type screen struct {
	at    float64 // seconds
	lines int
}

func drawFile(path string) error {
	cast, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = cast.Close() }() // it is only read
	svg, err := draw(cast)
	if err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	_, err = fmt.Print(svg)
	return err
}

// draw makes an animated SVG of an asciicast that only adds plain lines. It has no script and no font of its own, so that a README can
// show it. Without animation it shows the first screen.
func draw(cast io.Reader) (string, error) {
	h, lines, screens, err := parse(cast)
	if err != nil {
		return "", err
	}
	duration := screens[len(screens)-1].at + lastLook
	width, height := float64(h.Width)*charWidth, h.Height*lineHeight
	var scroll, cover, text strings.Builder
	for _, s := range screens {
		percent := 100 * s.at / duration
		fmt.Fprintf(&scroll, "%.2f%%{transform:translateY(%dpx)}", percent, -lineHeight*max(0, s.lines-h.Height))
		fmt.Fprintf(&cover, "%.2f%%{transform:translateY(%dpx)}", percent, lineHeight*(min(s.lines, h.Height)-h.Height))
	}
	for i, line := range lines {
		if line != "" {
			fmt.Fprintf(&text, "<text%s y=\"%d\">%s</text>\n", class(line), lineHeight*(i+1)-5, html.EscapeString(line))
		}
	}
	return fmt.Sprintf(svgTemplate, width+2*padding, height+2*padding, html.EscapeString(h.Title), duration, &scroll, &cover,
		padding, padding, width, height, &text), nil
}

const svgTemplate = `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" role="img">
<title>%s</title>
<style>
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#c9d1d9;white-space:pre}
.title{fill:#58a6ff;font-weight:bold}.command{fill:#fff;font-weight:bold}.said{fill:#7ee787}
.scroll,.cover{animation:%.1fs step-end infinite}.scroll{animation-name:scroll}.cover{animation-name:cover}
@keyframes scroll{%s}
@keyframes cover{%s}
@media (prefers-reduced-motion:reduce){.scroll,.cover{animation:none}}
</style>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
<svg x="%d" y="%d" width="%.0f" height="%d">
<g class="scroll" xml:space="preserve">
%s</g>
<rect class="cover" y="100%%" width="100%%" height="100%%" fill="#0d1117"/>
</svg>
</svg>
`

// class tells what the demo says from what kubectl is told and answers.
func class(line string) string {
	for prefix, name := range map[string]string{"== ": "title", "$ ": "command", "# ": "said"} {
		if strings.HasPrefix(line, prefix) {
			return ` class="` + name + `"`
		}
	}
	return ""
}

// parse returns all lines, and the screens.
func parse(cast io.Reader) (h header, lines []string, screens []screen, err error) {
	decoder := json.NewDecoder(cast)
	if err := decoder.Decode(&h); err != nil {
		return h, nil, nil, err
	}
	text := ""
	for {
		var kind, output string
		var at float64
		switch err := decoder.Decode(&[]any{&at, &kind, &output}); {
		case errors.Is(err, io.EOF):
			if len(screens) == 0 {
				return h, nil, nil, errors.New("it has no output")
			}
			return h, strings.Split(text, "\n"), screens, nil
		case err != nil:
			return h, nil, nil, err
		}
		text += strings.ReplaceAll(output, "\r\n", "\n")
		screens = append(screens, screen{at, strings.Count(text, "\n")})
	}
}
