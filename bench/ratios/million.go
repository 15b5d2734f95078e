package main

import (
	"runtime"
	"sync"
	"time"

	"github.com/idemflight/idemflight/bench/internal/keys"
)

const million = 1_000_000

// watchedKeys are those that are replayed while others expire, and a million others.
var watchedKeys = sync.OnceValue(func() []string { return keys.New(watched + million) })

func millionKeys() []string { return watchedKeys()[watched:] }

// heap returns the bytes that are in use after two collections: the second frees what finalizers
// and pools still held in the first.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// collection measures how long a forced garbage collection takes while a million entries are kept,
// in ms. The keys' bytes hold no pointers.
func collection() contest {
	list := millionKeys()
	forced := func() float64 {
		runtime.GC() // what filling left
		start := time.Now()
		runtime.GC()
		return milliseconds(time.Since(start))
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
