package main

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"time"
)

// start measures what is started, and how long it takes until it is ready.
func start(ctx context.Context, w *world, _ int, record func(measurement)) error {
	size, packed, err := sizes(w.binary)
	if err != nil {
		return err
	}
	record(measurement{Measure: "binary", Unit: unitMiB, Values: []float64{size}})
	record(measurement{Measure: "binary, compressed as in an image", Unit: unitMiB, Target: atMost(35), Values: []float64{packed}})
	if err := w.restart(); err != nil {
		return err
	}
	var took time.Duration
	for deadline := time.Now().Add(stallTimeout); ; {
		_, err := w.manager.get(ctx, w.manager.ready)
		if took = time.Since(w.manager.started); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	record(measurement{Measure: "ready", Unit: unitSeconds, Target: atMost(0.3), Values: seconds(took)})
	return nil
}

// sizes returns the size of a file, and what gzip makes of it, in MiB.
func sizes(file string) (size, packed float64, err error) {
	content, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = content.Close() }()
	out := &counter{}
	packer := gzip.NewWriter(out)
	n, err := io.Copy(packer, content)
	if err != nil {
		return 0, 0, err
	}
	if err := packer.Close(); err != nil {
		return 0, 0, err
	}
	return float64(n) / (1 << 20), float64(out.n) / (1 << 20), nil
}

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
