// Package order keeps records in the orders in which they go: a [Line] those that come in order, a
// [Queue] the others. Both know nothing of a record but the place that it has in them, which the
// record remembers. Neither is safe for concurrent use.
package order

import "time"

// Turn is a place in an order: by time and, where the clock stood still, by number. Numbers wrap:
// those of one instant must not be 2^63 apart.
type Turn struct {
	At  time.Duration
	Seq uint64
}

// Before reports whether t comes before o.
func (t Turn) Before(o Turn) bool {
	if t.At != o.At {
		return t.At < o.At
	}
	return int64(t.Seq-o.Seq) < 0
}

// sparse is how much too large a table may be, in proportion to what is in it, before it is made anew.
const sparse = 4
