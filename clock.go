package idemflight

import (
	"math"
	"sync/atomic"
	"time"
)

// forever is the deadline of what does not expire: no monotonic reading gets there.
const forever = time.Duration(math.MaxInt64)

// clock is the monotonic clock of a cache. It starts at 0 when the cache is made, and a wall clock
// that is set does not move it. Wall times are computed when they are asked for.
type clock struct {
	start time.Time
	ahead atomic.Int64 // how far the wall clock was set forward since start, in ns, as last seen
}

func (c *clock) now() time.Duration { return time.Since(c.start) }

// syncWall notes whether the wall clock was set, and returns now. It must be called before wall.
func (c *clock) syncWall() time.Duration {
	const tolerance = time.Millisecond // the two clocks are not read at the same instant
	t := time.Now()
	d := t.Sub(c.start)
	ahead := t.Round(0).Sub(c.start.Round(0)) - d
	if off := ahead - time.Duration(c.ahead.Load()); off < -tolerance || off > tolerance {
		c.ahead.Store(int64(ahead))
	}
	return d
}

// wall returns mark in wall time.
func (c *clock) wall(mark time.Duration) time.Time {
	if ahead := c.ahead.Load(); ahead != 0 {
		return c.start.Round(0).Add(mark + time.Duration(ahead))
	}
	return c.start.Add(mark)
}

// moment returns mark as a time that is right on the monotonic clock and, as the wall clock
// stands now, in wall time.
func (c *clock) moment(mark time.Duration) time.Time {
	t := time.Now()
	return t.Add(mark - t.Sub(c.start))
}

// deadlineOf returns the mark that is ttl after another; forever if ttl is negative, or too
// long for the clock.
func deadlineOf(mark, ttl time.Duration) time.Duration {
	if ttl < 0 {
		return forever
	}
	return mark + min(ttl, forever-mark)
}

// after returns the time ttl after from; the zero time if ttl is negative: there is no end.
func after(from time.Time, ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return from.Add(ttl)
}
