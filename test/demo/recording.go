package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const (
	rows = 30 // of the terminal; it has as many columns as the demo prints at most

	// Between two outputs the recording waits as long as the demo did, but at least so long for each line of the first, and at most maxIdle.
	readingTime = 300 * time.Millisecond
	maxIdle     = 3 * time.Second
)

// header is the first line of an asciicast of version 2: https://docs.asciinema.org/manual/asciicast/v2/
type header struct {
	Version int    `json:"version"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Title   string `json:"title"`
}

// recording is a writer that makes an asciicast of what is written.
type recording struct {
	now     func() time.Time
	last    time.Time
	reading time.Duration // for the last output
	at      time.Duration
	events  bytes.Buffer
}

func newRecording(now func() time.Time) *recording {
	return &recording{now: now, last: now()}
}

func (r *recording) Write(p []byte) (int, error) {
	now := r.now()
	r.at += min(max(now.Sub(r.last), r.reading), maxIdle)
	r.last, r.reading = now, time.Duration(bytes.Count(p, []byte("\n")))*readingTime
	text, err := json.Marshal(strings.ReplaceAll(string(p), "\n", "\r\n"))
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(&r.events, "[%.3f, \"o\", %s]\n", r.at.Seconds(), text)
	return len(p), nil
}

func (r *recording) cast() []byte {
	first, _ := json.Marshal(header{2, columns, rows, "grafana-secure-value-operator: make demo"}) // cannot fail
	return append(append(first, '\n'), r.events.Bytes()...)
}
