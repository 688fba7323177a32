package gate

import "time"

// bucket is a token bucket of requests, filled evenly, which holds those of one second. It may go into debt. The zero value has no limit.
type bucket struct {
	perSecond float64 // 0 is no limit
	tokens    float64
	at        time.Time // when tokens was right
}

// limit sets how many requests there are in a second. The first limit fills the bucket; a later one keeps what is in it, as far
// as it has room.
func (b *bucket) limit(perSecond float64, now time.Time) {
	b.fill(now)
	if b.perSecond == 0 {
		b.tokens = size(perSecond)
	}
	b.perSecond, b.tokens = perSecond, min(b.tokens, size(perSecond))
}

// size is how many requests may come at once.
func size(perSecond float64) float64 { return max(1, perSecond) }

func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.tokens+passed.Seconds()*b.perSecond, size(b.perSecond))
	}
	b.at = now
}

// take takes one, if there is one. If not, it returns when there will be.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b.perSecond == 0 {
		return 0, true
	}
	if b.fill(now); b.tokens < 1 {
		return time.Duration((1-b.tokens)/b.perSecond*float64(time.Second)) + time.Millisecond, false
	}
	b.tokens--
	return 0, true
}

// owe takes one, whether there is one or not.
func (b *bucket) owe(now time.Time) {
	b.fill(now)
	b.tokens--
}

// put gives one back that was not needed.
func (b *bucket) put() { b.tokens = min(b.tokens+1, size(b.perSecond)) }
