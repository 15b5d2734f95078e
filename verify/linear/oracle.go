package linear

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/idemflight/idemflight"
)

// sound says what is wrong with a history of any width, or nothing. It asks less than porcupine,
// of each pair of neighbours only: no two executions of a key overlap, none begins while an outcome
// is kept, and whoever got an outcome got that of an execution that could give it at that time.
func (h history) sound() string {
	for key, ops := range h.ops {
		if wrong := h.soundKey(ops); wrong != "" {
			return fmt.Sprintf("key %d: %s", key, wrong)
		}
	}
	return ""
}

func (h history) soundKey(ops []op) string {
	var execs, ends []op // ends: what may have dropped an outcome, by when it was over
	settled := map[int]op{}
	for _, o := range ops {
		switch {
		case o.kind == ran:
			execs = append(execs, o)
		case o.kind == evicted, o.kind == forgot && o.ok:
			ends = append(ends, o)
		case o.kind == resolved && o.ok:
			ends = append(ends, o)
			settled[o.id] = o
		}
	}
	slices.SortFunc(execs, func(a, b op) int { return cmp.Compare(a.start, b.start) })
	slices.SortFunc(ends, func(a, b op) int { return cmp.Compare(a.ret, b.ret) })
	at := map[int]int{} // where in execs an execution is
	for i, e := range execs {
		at[e.id] = i
		if i+1 == len(execs) {
			break
		}
		next := execs[i+1]
		if next.start < e.end {
			return fmt.Sprintf("executions overlap:\n\t%v\n\t%v", e, next)
		}
		if why := h.live(e, next, ends); why != "" {
			return why
		}
	}
	// before returns when the execution after the i-th began: by then nothing of the i-th is left.
	before := func(i int) int64 {
		if i+1 < len(execs) {
			return execs[i+1].start
		}
		return never
	}
	for _, o := range ops {
		switch o.kind {
		case joined:
			i, ok := at[o.id]
			if !ok {
				return fmt.Sprintf("joined an execution that is not of this key:\n\t%v", o)
			}
			if e := execs[i]; o.ret < e.end || o.call > e.ret || o.call > before(i) {
				return fmt.Sprintf("joined a flight that was not there:\n\t%v\n\t%v", o, e)
			}
		case replayed, metHeld:
			want := idemflight.Retain
			if o.kind == metHeld {
				want = idemflight.Hold
			}
			from, by, expires := int64(0), int64(0), int64(never)
			if i, ok := at[o.id]; ok {
				e := execs[i]
				if e.becomes != want || e.noTTL && want == idemflight.Retain {
					return fmt.Sprintf("got an outcome that is not kept like this:\n\t%v\n\t%v", o, e)
				}
				from, by, expires = e.end, e.ret, min(before(i), e.ret+h.ttl)
			} else if s, ok := settled[o.id]; ok && want == idemflight.Retain && !s.releases {
				from, by, expires = s.call, s.ret, s.ret+h.ttl
			} else {
				return fmt.Sprintf("got an outcome that is none of this key:\n\t%v", o)
			}
			if o.ret < from || o.call >= expires {
				return fmt.Sprintf("got an outcome before it was there, or after it had gone at %d:\n\t%v", expires, o)
			}
			if d := dropped(ends, by, o); d != nil {
				return fmt.Sprintf("got an outcome that had been dropped:\n\t%v\n\t%v", o, *d)
			}
		}
	}
	return ""
}

// live says what is wrong if next, the execution after e, began while e's outcome, or one that
// Resolve put in its place, was kept.
func (h history) live(e, next op, ends []op) string {
	if e.becomes == idemflight.Release || e.becomes == idemflight.Retain && e.noTTL || next.start >= e.end+h.ttl {
		return ""
	}
	for _, d := range ends { // could it have dropped the outcome in time?
		if d.ret >= e.call && d.call <= next.start { // in flight is before fn begins
			// One that only puts a value in place of what is held is no reason to run.
			if d.kind != resolved || d.releases {
				return ""
			}
		}
	}
	return fmt.Sprintf("began while an outcome was kept:\n\t%v\n\t%v", e, next)
}

// dropped returns what certainly dropped the outcome that was there at from, before o began.
func dropped(ends []op, from int64, o op) *op {
	i, _ := slices.BinarySearchFunc(ends, o.call, func(d op, t int64) int { return cmp.Compare(d.ret, t) })
	for i--; i >= 0; i-- {
		if d := &ends[i]; d.call > from && d.id != o.id {
			return d
		} else if d.ret < from {
			return nil
		}
	}
	return nil
}
