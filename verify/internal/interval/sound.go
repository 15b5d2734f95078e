package interval

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/idemflight/idemflight"
)

// History is what was recorded of a cache.
type History struct {
	TTL          int64 // of what Resolve retains
	HoldTTL      int64 // Never: without end
	MinRetention int64 // no outcome younger than this is evicted
	Slack        int64 // what two clocks may differ by, where a restart has changed from one to the other
	Ops          map[int][]Op

	// With a Store: for how long a process may replay what was forgotten in another; and the keys of
	// which a lease has ended, or may have, so that of two executions one may have been replaced.
	Stale  int64
	Lapsed map[int]bool
}

// Pause is how long calls on a held key do not ask Reconcile again that has learned nothing.
const Pause = int64(time.Second)

// Sound says what is wrong with h, or nothing. No two executions of a key overlap. None begins while
// an outcome is kept, but for Reconcile, which begins while one is held and at no other time. Whoever
// got an outcome got that of an execution of its key, with its payload, that could give it at that
// time. Whoever was told of a flight can have met one. What is evicted was not protected, and if it was held,
// fn had said nothing.
//
// Of a key in Lapsed it asks only this: no second effect follows one, unless what is known of the first
// was dropped or has expired; and whoever got an outcome got one of this key.
func (h History) Sound() string {
	for key, ops := range h.Ops {
		if wrong := h.soundKey(ops); wrong != "" {
			return fmt.Sprintf("key %d: %s", key, wrong)
		}
	}
	return ""
}

// timeline is what is known of one key.
type timeline struct {
	*History
	execs   []Op       // in order of time
	ends    []Op       // what may have dropped an outcome, by when it was over
	settled map[int]Op // by Resolve
	at      map[int]int
}

func (h History) soundKey(ops []Op) string {
	t := timeline{History: &h, settled: map[int]Op{}, at: map[int]int{}}
	for _, o := range ops {
		switch {
		case o.Kind == Ran:
			t.execs = append(t.execs, o)
		case o.Kind == Evicted, o.Kind == Forgot && o.OK:
			t.ends = append(t.ends, o)
		case o.Kind == Resolved && o.OK:
			t.ends = append(t.ends, o)
			t.settled[o.ID] = o
		}
	}
	slices.SortFunc(t.execs, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(t.ends, func(a, b Op) int { return cmp.Compare(a.Ret, b.Ret) })
	for i, e := range t.execs {
		t.at[e.ID] = i
	}
	if h.Lapsed[ops[0].Key] {
		return t.lapsed(ops)
	}
	for i, e := range t.execs {
		if i == 0 {
			if e.Reconciles {
				return fmt.Sprintf("reconciled, and nothing was held:\n\t%v", e)
			}
			continue
		}
		last := t.execs[i-1]
		if e.Start < last.End {
			return fmt.Sprintf("executions overlap:\n\t%v\n\t%v", last, e)
		}
		if why := t.live(last, e); why != "" {
			return why
		}
	}
	for _, o := range ops {
		if wrong := t.answer(o); wrong != "" {
			return wrong
		}
	}
	return ""
}

// live says what is wrong if next, the execution after e, began when it did, given what e and what
// Resolve may have put in its place left behind.
func (t *timeline) live(e, next Op) string {
	if next.Reconciles {
		if e.Becomes != idemflight.Hold || next.Call >= after(e.Ret, t.HoldTTL)+t.Slack {
			return fmt.Sprintf("reconciled, and nothing was held:\n\t%v\n\t%v", e, next)
		}
		if e.Reconciles && !next.ByHand && t.Slack == 0 && next.Start < e.End+Pause { // a restart ends the pause
			return fmt.Sprintf("asked Reconcile again, a moment after it had learned nothing:\n\t%v\n\t%v", e, next)
		}
		return ""
	}
	kept := e.Keeps
	switch e.Becomes {
	case idemflight.Release:
		return ""
	case idemflight.Hold:
		kept = t.HoldTTL
	}
	if kept == 0 || next.Start >= after(e.End, kept)-t.Slack {
		return ""
	}
	if t.mayDrop(e, next) {
		return ""
	}
	return fmt.Sprintf("began while an outcome was kept:\n\t%v\n\t%v", e, next)
}

// mayDrop reports whether something may have dropped the outcome of e before next began.
func (t *timeline) mayDrop(e, next Op) bool {
	return slices.ContainsFunc(t.ends, func(d Op) bool {
		if d.Ret < e.Call || d.Call > next.Start { // in flight is before fn begins
			return false
		}
		// One that only puts a value in place of what is held is no reason to run, until that expires.
		return d.Kind != Resolved || d.Releases || next.Start >= after(d.Call, t.TTL)-t.Slack
	})
}

// lapsed says what is wrong with a key in Lapsed.
func (t *timeline) lapsed(ops []Op) string {
	var last *Op    // that had an effect
	var known int64 // until when what is known of it is kept at least
	found := false  // by Reconcile, that it had none
	for i, e := range t.execs {
		switch {
		case e.Reconciles && e.Becomes == idemflight.Release:
			found = true
		case e.Reconciles && e.Becomes == idemflight.Retain: // for as long as its caller wants, whose call counts
			known = min(known, after(e.Call, e.Keeps))
		case e.Charged:
			if last != nil && !found && e.Start < known && !t.mayDrop(*last, e) {
				return fmt.Sprintf("two effects:\n\t%v\n\t%v\nof these:\n\t%v", *last, e, t.execs)
			}
			last, known, found = &t.execs[i], after(e.Call, min(e.Keeps, t.HoldTTL)), false
		}
	}
	for _, o := range ops {
		_, ran := t.at[o.ID]
		_, settled := t.settled[o.ID]
		switch o.Kind {
		case Joined, Replayed, MetHeld:
			if o.ID != 0 && !ran && !settled {
				return fmt.Sprintf("got an outcome that is none of this key:\n\t%v", o)
			}
		}
	}
	return ""
}

// answer says what is wrong with o, given the executions.
func (t *timeline) answer(o Op) string {
	switch o.Kind {
	case Joined, Replayed, MetHeld:
		if o.ID != 0 {
			return t.outcome(o)
		}
		if !t.some(o, t.outcome) {
			return fmt.Sprintf("got an outcome that none of this key had then:\n\t%v", o)
		}
	case MetShed:
		o.Kind = Replayed
		if !t.some(o, t.outcome) {
			return fmt.Sprintf("was told of a value that is shed, and none can have been kept:\n\t%v", o)
		}
	case InFlight:
		if !t.some(o, func(o Op) string { return t.joined(o, t.at[o.ID]) }) {
			return fmt.Sprintf("was told of a flight, and none was there:\n\t%v", o)
		}
	case Reused:
		other := func(e Op) bool { return e.Call <= o.Ret && e.Payload != o.Payload }
		if !slices.ContainsFunc(t.execs, other) {
			return fmt.Sprintf("was told of another payload, and none had been there:\n\t%v", o)
		}
	case Evicted:
		return t.evicted(o)
	}
	return ""
}

// some reports whether o, that does not say whose outcome it got, can have got that of some execution
// or of some Resolve.
func (t *timeline) some(o Op, wrong func(Op) string) bool {
	o.Payload = 0
	last, _ := slices.BinarySearchFunc(t.execs, o.Ret, func(e Op, at int64) int { return cmp.Compare(e.Call, at) })
	for i := min(last, len(t.execs)-1); i >= 0; i-- {
		if o.ID = t.execs[i].ID; wrong(o) == "" {
			return true
		}
	}
	for id := range t.settled {
		if o.ID = id; o.Kind == Replayed && wrong(o) == "" {
			return true
		}
	}
	return false
}

// outcome says what is wrong with the outcome of execution o.ID as an answer.
func (t *timeline) outcome(o Op) string {
	i, ran := t.at[o.ID]
	if ran && o.Payload != 0 && t.execs[i].Payload != 0 && o.Payload != t.execs[i].Payload {
		return fmt.Sprintf("got the outcome of another payload:\n\t%v\n\t%v", o, t.execs[i])
	}
	if o.Kind == Joined || o.Either {
		if !ran {
			if o.Kind == Joined {
				return fmt.Sprintf("joined an execution that is not of this key:\n\t%v", o)
			}
		} else if wrong := t.joined(o, i); wrong == "" && (o.Kind != MetHeld || t.execs[i].Becomes == idemflight.Hold) || o.Kind == Joined {
			return wrong
		}
	}
	if ran && o.Kind == MetHeld && t.execs[i].Reconciles { // it is told to its own flight, and during the pause
		wrong := t.joined(o, i)
		if e := t.execs[i]; wrong != "" && e.Becomes == idemflight.Hold && o.Ret >= e.End && o.Call < min(t.before(i), e.Ret+Pause) {
			return ""
		}
		return wrong
	}
	return t.kept(o)
}

// before returns when the execution after the i-th began: by then nothing of the i-th is left.
func (t *timeline) before(i int) int64 {
	if i+1 < len(t.execs) {
		return t.execs[i+1].Start
	}
	return Never
}

func (t *timeline) joined(o Op, i int) string {
	e := t.execs[i]
	early := o.Ret < e.End && o.Kind != InFlight || o.Ret < e.Call
	if early || o.Call > e.Ret || o.Call > t.before(i) {
		return fmt.Sprintf("joined a flight that was not there:\n\t%v\n\t%v", o, e)
	}
	return ""
}

// kept says what is wrong with o, which got what was kept of execution o.ID.
func (t *timeline) kept(o Op) string {
	want := idemflight.Retain
	if o.Kind == MetHeld {
		want = idemflight.Hold
	}
	from, by, expires := int64(0), int64(0), int64(Never)
	stale := t.Stale
	if want == idemflight.Hold { // of which there are no copies
		stale = 0
	}
	if i, ok := t.at[o.ID]; ok {
		e := t.execs[i]
		if e.Becomes != want || e.Keeps == 0 && want == idemflight.Retain {
			return fmt.Sprintf("got an outcome that is not kept like this:\n\t%v\n\t%v", o, e)
		}
		from, by, expires = e.End, e.Ret, after(e.Ret, e.Keeps)
		if want == idemflight.Hold {
			// A Reconcile that learns nothing holds it again.
			for i+1 < len(t.execs) && t.execs[i+1].Reconciles && t.execs[i+1].Becomes == idemflight.Hold {
				i++
				by = t.execs[i].Ret
			}
			expires = after(by, t.HoldTTL)
		}
		expires = min(after(t.before(i), stale), expires+t.Slack)
	} else if s, ok := t.settled[o.ID]; ok && want == idemflight.Retain && !s.Releases {
		from, by, expires = s.Call, s.Ret, after(s.Ret, t.TTL)+t.Slack
	} else {
		return fmt.Sprintf("got an outcome that is none of this key:\n\t%v", o)
	}
	if o.Ret < from || o.Call >= expires {
		return fmt.Sprintf("got an outcome before it was there, or after it had gone at %d:\n\t%v", expires, o)
	}
	o.Call -= stale
	if d := dropped(t.ends, by, o); d != nil {
		return fmt.Sprintf("got an outcome that had been dropped:\n\t%v\n\t%v", o, *d)
	}
	return ""
}

// evicted says what is wrong with an eviction: nothing was there, or it was protected. Of the
// executions that can be meant the oldest counts.
func (t *timeline) evicted(o Op) string {
	i, _ := slices.BinarySearchFunc(t.execs, o.Call, func(e Op, at int64) int { return cmp.Compare(e.End, at) })
	i = max(i-1, 0)
	if i == len(t.execs) || t.execs[i].End > o.Ret {
		return fmt.Sprintf("evicted what was not there:\n\t%v", o)
	}
	if o.State == idemflight.Held && !t.spare(i, o.Ret) {
		return fmt.Sprintf("evicted what was held, and not only because fn had said nothing:\n\t%v\n\t%v", o, t.execs[i])
	}
	for i > 0 && o.State == idemflight.Held && t.execs[i].Reconciles { // which left it as old as it was
		i--
	}
	if age := o.Ret - t.execs[i].End; age < t.MinRetention-t.Slack {
		return fmt.Sprintf("evicted what was protected:\n\t%v\n\t%v", o, t.execs[i])
	}
	return ""
}

// spare reports whether what was held at the given time can be what an execution left that said nothing
// at all: the i-th, one after it, or that about which Reconcile then learned nothing.
func (t *timeline) spare(i int, at int64) bool {
	for i > 0 && t.execs[i].Reconciles {
		i--
	}
	return slices.ContainsFunc(t.execs[i:], func(e Op) bool { return e.Spare && e.End <= at })
}

// dropped returns what certainly dropped the outcome that was there at from, before o began.
func dropped(ends []Op, from int64, o Op) *Op {
	i, _ := slices.BinarySearchFunc(ends, o.Call, func(d Op, t int64) int { return cmp.Compare(d.Ret, t) })
	for i--; i >= 0; i-- {
		if d := &ends[i]; d.Call > from && d.ID != o.ID {
			return d
		} else if d.Ret < from {
			return nil
		}
	}
	return nil
}

// after is d after t, or Never.
func after(t, d int64) int64 {
	if t >= Never/4 || d >= Never/4 {
		return Never / 2 // and some slack
	}
	return t + d
}
