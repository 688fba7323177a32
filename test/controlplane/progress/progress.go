// Package progress shows on standard error that a long task still runs. It imports the standard library alone, as assets does.
package progress

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// Show reports the state of a task until stop is called: each second in one line at a terminal, and elsewhere with a line each 15 seconds.
// A task of less than a second is not reported.
func Show(state func() string) (stop func()) {
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
