package main

import (
	"runtime"
)

// targets returns what is promised, from the most frequent kind of call to the rarest.
func targets() []target {
	cores := runtime.GOMAXPROCS(0)
	return []target{
		{name: "replay, hot key, 1 goroutine", peer: "otter", unit: "ns", most: 0.65, lay: func() contest { return replay(1, 1) }},
		{name: "replay, hot key, all cores", peer: "otter", unit: "ns", most: 0.75, lay: func() contest { return replay(1, cores) }},
		{name: "replay, spread over 65,536 keys, 1 goroutine", peer: "otter", unit: "ns", most: 0.90, lay: func() contest { return replay(spread, 1) }},
		{name: "replay, spread over 65,536 keys, all cores", peer: "otter", unit: "ns", most: 1.05, lay: func() contest { return replay(spread, cores) }},
		{name: "replay, allocations of Do with options", unit: "allocs", most: 0, lay: replayAllocs(false)},
		{name: "replay, allocations through Wrap", unit: "allocs", most: 0, lay: replayAllocs(true)},
		{name: "first execution, context cannot end", peer: "otter", unit: "ns", most: 0.65, lay: firstByOtter},
		{name: "first execution, context cannot end, allocations", unit: "allocs", most: 3, lay: firstAllocs},
		{name: "first execution, context can end", peer: "resenje", unit: "ns", most: 1.5, lay: firstByResenje},
		{name: "storm of 10,000 callers that can leave", peer: "resenje", unit: "ns/caller", most: 1.0, lay: func() contest { return storm(stormResenje) }},
		{name: "storm of 10,000 callers that can leave (peer's cannot)", peer: "singleflight", unit: "ns/caller", most: 1.1, lay: func() contest { return storm(stormSingleflight) }},
		{name: "insert at capacity", peer: "otter", unit: "ns", most: 0.75, lay: insertByOtter},
		{name: "insert at capacity, mixed TTLs and steady expiry", peer: "insert at capacity", unit: "ns", most: 2, lay: insertByExpiry},
		{name: "memory per retained entry of 1,000,000", peer: "otter", unit: "B", most: 1.15, lay: memory, slow: true},
		{name: "forced collection while 1,000,000 entries are kept", peer: "otter", unit: "ms", most: 2, lay: collection, slow: true},
		{name: "1,000,000 entries expire at once: longest pause of a replay", unit: "ms", most: 2, less: true, lay: func() contest { return pause(million) }, slow: true},
	}
}
