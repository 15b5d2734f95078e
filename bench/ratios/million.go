package main

import (
	"runtime"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/bench/internal/keys"
)

const million = 1_000_000

var millionKeys = sync.OnceValue(func() []string { return keys.New(million) })

// heap returns the bytes that are in use after two collections: the second frees what finalizers
// and pools still held in the first.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// collection measures how long a forced garbage collection takes while a million entries are kept, in ms.
// The keys' bytes hold no pointers.
func collection() contest {
	list := millionKeys()
	forced := func() float64 {
		runtime.GC() // what filling left
		start := time.Now()
		runtime.GC()
		return float64(time.Since(start)) / 1e6
	}
	return contest{
		ours: func() float64 {
			c := newOurs(million)
			defer closeOurs(c)
			for _, key := range list {
				_, _ = c.Do(background, key, fn)
			}
			return forced()
		},
		theirs: func() float64 {
			c := newOtter(million)
			defer c.StopAllGoroutines()
			for _, key := range list {
				_, _ = c.Get(background, key, loader)
			}
			c.CleanUp()
			return forced()
		},
	}
}

// memory measures the heap that an entry takes with an int as value. The key's bytes are not
// counted for either: they are the caller's.
func memory() contest {
	list := millionKeys()
	return contest{
		ours: func() float64 {
			before := heap()
			c := newOurs(million)
			for _, key := range list {
				_, _ = c.Do(background, key, fn)
			}
			perEntry := (heap() - before) / float64(c.Len())
			closeOurs(c)
			return perEntry
		},
		theirs: func() float64 {
			before := heap()
			c := newOtter(million)
			for _, key := range list {
				_, _ = c.Get(background, key, loader)
			}
			c.CleanUp()
			perEntry := (heap() - before) / float64(c.EstimatedSize())
			c.StopAllGoroutines()
			return perEntry
		},
	}
}

// pause lets a million entries expire at one moment while a hot key is replayed all the time, and
// measures the longest that one replay took until the million are gone. It counts all that the
// machine does meanwhile, so it says as well what the longest was before they expired.
func pause() contest {
	list := millionKeys()
	var before []float64
	once := func() float64 {
		c := newOurs(2 * million)
		defer closeOurs(c)
		expiry := time.Now().Add(5 * time.Second) // filling takes less
		for _, key := range list {
			_, _ = c.Do(background, key, fn, idemflight.WithTTL(time.Until(expiry)))
		}
		_, _ = c.Do(background, "hot", fn)
		runtime.GC() // the collection that filling has earned
		before = append(before, longestReplay(c, func(now time.Time) bool { return now.After(expiry.Add(-50 * time.Millisecond)) }))
		return longestReplay(c, func(now time.Time) bool {
			return now.After(expiry.Add(10*time.Second)) || c.Stats().Expired >= million
		})
	}
	return contest{ours: once, aside: func() string { return "before expiry: " + format(median(before), "ms") }}
}

// longestReplay replays the hot key until it is over, and returns how long the longest replay
// took, in ms. Asking whether it is over takes locks, so it is done rarely and its time not counted.
func longestReplay(c *idemflight.Cache[string, int], over func(now time.Time) bool) float64 {
	const askEvery = 50_000
	var longest time.Duration
	last := time.Now()
	for i := 1; ; i++ {
		_, _ = c.Do(background, "hot", fn)
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		if i%askEvery == 0 {
			if over(now) {
				return float64(longest) / 1e6
			}
			last = time.Now()
		}
	}
}
