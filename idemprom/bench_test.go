package idemprom_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemprom"
	"github.com/idemflight/idemflight/storetest"
)

var raceEnabled bool

func observer() func(context.Context, idemflight.Event[string]) {
	return idemprom.Observe[string](idemprom.NewDurations("payments"))
}

// BenchmarkObserver: what an Observer costs calls of Do.
func BenchmarkObserver(b *testing.B) {
	ctx := context.Background()
	for name, o := range map[string]options{"none": {}, "idemprom": {Observer: observer()}} {
		b.Run("replay/"+name, func(b *testing.B) {
			c, fn := idemflight.MustNew(o), returns("receipt", nil)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Do(ctx, "key", fn)
			}
		})
		b.Run("execution/"+name, func(b *testing.B) {
			o := o
			o.MaxEntries, o.MinRetention = 1000, -1
			c := idemflight.MustNew(o)
			keys := make([]string, 1<<16)
			for i := range keys {
				keys[i] = fmt.Sprint("key ", i)
			}
			fn := returns("receipt", nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, _ = c.Do(ctx, keys[i%len(keys)], fn)
			}
		})
	}
}

// BenchmarkScrape: collecting alone, without the encoding, of a cache with so many held keys.
func BenchmarkScrape(b *testing.B) {
	for _, held := range []int{0, 1_000, 100_000} {
		b.Run(fmt.Sprintf("held=%d", held), func(b *testing.B) {
			c := idemflight.MustNew(options{})
			for i := range held {
				_, _ = c.Do(context.Background(), fmt.Sprint("key ", i), returns("", errLost))
			}
			ch := make(chan prometheus.Metric, 100)
			b.ReportAllocs()
			for b.Loop() {
				idemprom.NewCollector(c, "payments").Collect(ch) // a new one, whose last look did not take too long
				for len(ch) > 0 {
					<-ch
				}
			}
		})
	}
}

// BenchmarkMeasureStore: what measuring adds to a verb, here of a store that does nothing else.
func BenchmarkMeasureStore(b *testing.B) {
	s := idemprom.MeasureStore(nothing{}, idemprom.NewDurations("payments"))
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Begin(context.Background(), idemflight.Claim{Key: "key"}, time.Second)
	}
}

// nothing is a Store that is quick, if it is asked for Begin or Read.
type nothing struct{ *storetest.Memory }

func (nothing) Begin(context.Context, idemflight.Claim, time.Duration) error { return nil }
func (nothing) Read(context.Context, string) (x idemflight.Standing, err error) {
	return x, nil
}

func TestMeasureStore_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := idemprom.MeasureStore(nothing{}, idemprom.NewDurations("payments"))
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_ = s.Begin(context.Background(), idemflight.Claim{Key: "key"}, time.Second)
		_, _ = s.Read(context.Background(), "key")
	}))
}
