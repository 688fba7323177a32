package main

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"
)

// watch reports the progress of a long task until stop is called: each second in one line at a terminal, and elsewhere with a line
// each 15 seconds. A task of less than a second is not reported.
func watch(state func() string) (stop func()) {
	started := time.Now()
	status := func() string {
		return fmt.Sprintf("  %s (%s)", state(), time.Since(started).Round(time.Second))
	}
	period, format, end := 15*time.Second, "%s\n", ""
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		period, format, end = time.Second, "\r%s\x1b[K", "\n"
	}

	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(os.Stderr, format, status())
			case <-done:
				if time.Since(started) >= time.Second {
					fmt.Fprintf(os.Stderr, format+end, status())
				}
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// lines is a writer that hands on each complete line.
type lines struct {
	each    func(line string)
	pending []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	for {
		line, rest, found := bytes.Cut(l.pending, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.pending = rest
		l.each(string(line))
	}
}
