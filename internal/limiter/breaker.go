package limiter

import (
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

const (
	// failureThreshold is how many objects in a row must fail before the breaker opens.
	failureThreshold = 5
	// probeInterval is the least time for each request while the breaker is open: 4 a minute.
	probeInterval = 15 * time.Second
	// probeJitter is the share by which it may be longer, so that the connections of one Grafana do not probe in step.
	probeJitter = 0.4
)

// breaker opens when calls keep failing. While it is open, all requests of a connection share one bucket.
type breaker struct {
	failures    int  // objects in a row whose call failed
	checkFailed bool // the last check of the connection failed
	probes      *rate.Limiter
}

func (b *breaker) open() bool { return b.checkFailed || b.failures >= failureThreshold }

// reset makes the bucket of an open breaker, which begins empty.
func (b *breaker) reset() {
	interval := time.Duration(float64(probeInterval) * (1 + probeJitter*rand.Float64()))
	b.probes = rate.NewLimiter(rate.Every(interval), 1)
	b.probes.Allow()
}

// untilToken returns how long it takes until the bucket has so many requests; zero is that it has them.
func untilToken(bucket *rate.Limiter, n float64) time.Duration {
	missing := n - bucket.Tokens()
	if bucket.Limit() == rate.Inf || missing <= 0 {
		return 0
	}
	return time.Duration(missing/float64(bucket.Limit())*float64(time.Second)) + time.Millisecond
}
