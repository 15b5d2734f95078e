package main

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/idemflight/idemflight"
)

// watched is how many keys are replayed in turn: enough that most are not among the hottest.
const watched = 1024

// pause lets n entries expire at one moment while others are replayed in turn all the time, and
// measures the longest that one replay took until the n are gone. A replay during which the system
// took the processor from the measuring thread is left out where that can be told; what else the
// machine does meanwhile counts, so it says as well what the longest was before they expired.
func pause(n int) contest {
	all := watchedKeys()
	list, keep := all[watched:watched+n], all[:watched]
	var before []float64
	var out leftOut
	once := func() float64 {
		c, expiry := filled(list)
		defer closeOurs(c)
		for _, key := range keep {
			_, _ = c.Do(background, key, fn)
		}
		w := watch{
			replay:    func(key string) { _, _ = c.Do(background, key, fn) },
			keys:      keep,
			preempted: preemptions,
		}
		quiet, _ := w.longest(func(now time.Time) bool {
			return now.After(expiry.Add(-50 * time.Millisecond))
		})
		longest, without := w.longest(func(now time.Time) bool {
			return now.After(expiry.Add(10*time.Second)) || c.Stats().Expired >= uint64(n)
		})
		if c.Stats().Expired < uint64(n) {
			return math.Inf(1) // they do not go: nothing was measured
		}
		before = append(before, milliseconds(quiet))
		out = out.and(without)
		return milliseconds(longest)
	}
	return contest{ours: once, aside: func() string {
		if len(before) == 0 {
			return "the entries did not expire"
		}
		return fmt.Sprintf("before expiry: %s; %v", format(median(before), "ms"), out)
	}}
}

// filled returns a cache that keeps list, and when all of it expires at once.
func filled(list []string) (*idemflight.Cache[string, int], time.Time) {
	const spare = 200 * time.Millisecond
	for perEntry := 5 * time.Microsecond; ; perEntry *= 2 { // filling takes a fraction of it
		c := newOurs(2 * len(list))
		expiry := time.Now().Add(2*spare + time.Duration(len(list))*perEntry)
		for _, key := range list {
			_, _ = c.Do(background, key, fn, idemflight.WithTTL(time.Until(expiry)))
		}
		runtime.GC() // the collection that filling has earned
		if time.Until(expiry) > spare {
			return c, expiry
		}
		closeOurs(c) // on a busy machine, even this was too little
	}
}

// leftOut is what was not counted.
type leftOut struct {
	replays int
	longest time.Duration
}

func (o leftOut) and(other leftOut) leftOut {
	return leftOut{o.replays + other.replays, max(o.longest, other.longest)}
}

func (o leftOut) String() string {
	if !preemptionsAreTold {
		return "nothing left out: this system does not tell when it preempts a thread"
	}
	if o.replays == 0 {
		return "left out: none"
	}
	return fmt.Sprintf("left out: %d replays in which the system preempted the thread, longest %s",
		o.replays, format(milliseconds(o.longest), "ms"))
}

// watch replays keys in turn.
type watch struct {
	replay    func(key string)
	keys      []string
	preempted func() int64 // how often the calling thread was
}

// suspicious is the least time of a replay for which it is asked whether the thread was preempted:
// far more than a replay takes, and far less than a pause that matters.
const suspicious = 20 * time.Microsecond

// longest replays the keys until it is over, and returns how long the longest replay took of those
// during which the thread was not preempted. Asking whether it is over takes locks, so that it is
// done rarely, and its time not counted.
func (w watch) longest(over func(now time.Time) bool) (longest time.Duration, out leftOut) {
	runtime.LockOSThread() // so that it is one thread's preemptions
	defer runtime.UnlockOSThread()
	const askEvery = 50 // rounds of the keys
	for round := 1; ; round++ {
		// Read anew in each round, so that no preemption outside of a replay is taken for one inside.
		preempted := w.preempted()
		last := time.Now()
		for _, key := range w.keys {
			w.replay(key)
			now := time.Now()
			took := now.Sub(last)
			last = now
			if took < suspicious {
				longest = max(longest, took)
				continue
			}
			if p := w.preempted(); p != preempted {
				preempted = p
				out = out.and(leftOut{1, took})
			} else {
				longest = max(longest, took)
			}
			last = time.Now()
		}
		if round%askEvery == 0 && over(last) {
			return longest, out
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
