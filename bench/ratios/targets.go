package main

import (
	"context"
	"slices"
)

// targets returns what is promised, from the most frequent kind of call to the rarest.
func targets() []target {
	return slices.Concat(
		replays(), firsts(), storms(), insertions(), millions(), overHTTP(), races())
}

func races() []target {
	return []target{{
		name: "runs per fresh key, 16 racing callers", unit: "runs", by: alone, goal: exactly(1),
		callers: single, lay: racing,
	}}
}

func replays() []target {
	return []target{{
		name: "replay, hot key, 1 goroutine", peer: "otter", unit: "ns",
		goal: atMost(0.75), beyond: atMost(0.65),
		lay: func(int) contest { return replay(1, 1) },
	}, {
		name: "replay, hot key, all cores", peer: "otter", unit: "ns",
		goal: atMost(0.85), beyond: atMost(0.75),
		callers: onePerCore, lay: func(goroutines int) contest { return replay(1, goroutines) },
	}, {
		name: "replay, spread over 65,536 keys, 1 goroutine", peer: "otter", unit: "ns",
		goal: atMost(0.95), beyond: atMost(0.90),
		lay: func(int) contest { return replay(spread, 1) },
	}, {
		name: "replay, spread over 65,536 keys, all cores", peer: "otter", unit: "ns",
		goal: atMost(1.10), beyond: atMost(1.05),
		callers: onePerCore, lay: func(goroutines int) contest { return replay(spread, goroutines) },
	}, {
		name: "replay, allocations of Do with options", unit: "allocs", by: alone, goal: atMost(0),
		lay: func(int) contest { return replayAllocs(byDo) },
	}, {
		name: "replay, allocations through Wrap", unit: "allocs", by: alone, goal: atMost(0),
		lay: func(int) contest { return replayAllocs(byWrap) },
	}}
}

func firsts() []target {
	return []target{{
		name: "first execution, context cannot end", peer: "otter", unit: "ns",
		goal: atMost(0.65), beyond: atMost(0.55),
		callers: single, lay: firstByOtter,
	}, {
		name: "first execution, context cannot end, allocations, numeric key", unit: "allocs",
		by: alone, goal: atMost(2),
		lay: func(int) contest { return firstAllocs(background, numericKeys()) },
	}, {
		// One more than with a numeric key, for a copy of the key.
		name: "first execution, context cannot end, allocations, string key", unit: "allocs",
		by: alone, goal: atMost(3),
		lay: func(int) contest { return firstAllocs(background, someKeys()) },
	}, {
		name: "first execution, context can end", peer: "resenje", unit: "ns",
		goal: atMost(2), beyond: atMost(1.6),
		callers: single, lay: firstByResenje,
	}, {
		name: "first execution, context can end, allocations, numeric key", unit: "allocs",
		by: alone, goal: atMost(4),
		lay: func(int) contest {
			ctx, cancel := context.WithCancel(background)
			c := firstAllocs(ctx, numericKeys())
			c.done = cancel
			return c
		},
	}}
}

func storms() []target {
	return []target{{
		name: "storm of 10,000 callers that can leave", peer: "resenje", unit: "ns/caller",
		goal: atMost(1), beyond: atMost(0.9),
		lay: func(int) contest { return storm(stormResenje) },
	}, {
		name: "storm of 10,000 callers that can leave (peer's cannot)", peer: "singleflight",
		unit: "ns/caller",
		lay:  func(int) contest { return storm(stormSingleflight) },
	}}
}

func insertions() []target {
	return []target{{
		name: "insert at capacity", peer: "otter", unit: "ns",
		goal: atMost(1), beyond: atMost(0.75),
		callers: single, lay: insertByOtter,
	}, {
		name: "insert at capacity, mixed TTLs and steady expiry", peer: "insert at capacity", unit: "ns",
		goal:    atMost(2),
		callers: single, lay: insertByExpiry,
	}}
}

func millions() []target {
	return []target{{
		name: "memory per retained entry of 1,000,000", peer: "otter", unit: "B",
		goal: atMost(1), beyond: atMost(0.85),
		lay: func(int) contest { return memory() }, slow: true,
	}, {
		name: "longest pause of a replay while 1,000,000 entries expire at once", unit: "ms", by: alone,
		goal: atMost(2), beyond: atMost(0.5),
		lay: func(int) contest { return pause(million) }, slow: true,
	}, {
		name: "forced collection while 1,000,000 entries are kept", peer: "otter", unit: "ms",
		goal: atMost(1.4), beyond: atMost(1.1),
		lay: func(int) contest { return collection() }, slow: true,
	}}
}

func overHTTP() []target {
	return []target{{
		name: "HTTP replay of 1 KiB, in process", peer: "bare handler", unit: "µs", by: extra,
		goal: atMost(5), beyond: atMost(1),
		callers: single, lay: httpReplay,
	}, {
		name: "HTTP replay of 1 KiB, over loopback", peer: "bare handler", unit: "µs",
		goal: atMost(1.25), beyond: atMost(1.05),
		callers: single, lay: httpLoopback,
	}, {
		name: "HTTP first execution, in process", peer: "bare handler", unit: "µs", by: extra,
		goal: atMost(6), beyond: atMost(4),
		callers: single, lay: httpFirst,
	}, {
		name: "HTTP first execution, in process, allocations", peer: "bare handler", unit: "allocs",
		by: extra, goal: atMost(12), beyond: atMost(8),
		lay: func(int) contest { return httpFirstAllocs() },
	}}
}
