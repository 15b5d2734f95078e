package idemflight_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/idemflight/idemflight"
)

// BenchmarkBytesPerEntry fills a cache of default size with a million keys in the form of a UUID
// and small values, and reports the heap that each retained entry costs, the key's own 48 bytes
// left out: the caller has that string anyway.
func BenchmarkBytesPerEntry(b *testing.B) {
	const n = 1_000_000
	keys := make([]string, n)
	for i := range keys {
		keys[i] = idemflight.NewID()
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	fn := func(context.Context) (int, error) { return 1, nil }
	for b.Loop() {
		before := heap()
		c := idemflight.MustNew(idemflight.Options[string, int]{})
		for _, key := range keys {
			_, _ = c.Do(context.Background(), key, fn)
		}
		b.ReportMetric(float64(heap()-before)/n, "bytes/entry")
		runtime.KeepAlive(c)
	}
	runtime.KeepAlive(keys)
}
