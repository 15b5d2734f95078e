package idemprom_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

const age = "idemflight_unsettled_age_seconds"

// TestAge_InMemory: of the oldest, as of now, and 0 where there is none.
func TestAge_InMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newCache(t, options{})
		ages := func(inFlight, held time.Duration) {
			t.Helper()
			fs := gather(t, r)
			require.Equal(t, inFlight.Seconds(), fs.value(t, age, "in_flight"), "in flight")
			require.Equal(t, held.Seconds(), fs.value(t, age, "held"), "held")
		}
		ctx := context.Background()
		ages(0, 0)
		for _, key := range []string{"a", "b"} {
			_, _ = c.Do(ctx, key, returns("", idemflight.Unknown(errLost)))
			time.Sleep(time.Minute)
		}
		ages(0, 2*time.Minute)
		require.Zero(t, gather(t, r).value(t, "idemflight_key_usage", "done"), "what is held is not done")
		for _, key := range []string{"c", "d"} {
			go func() { _, _ = c.Do(ctx, key, after(time.Minute, "receipt", nil)) }()
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
		ages(20*time.Second, 2*time.Minute+20*time.Second)
		require.NoError(t, c.Resolve(ctx, "a", "receipt", nil))
		ages(20*time.Second, time.Minute+20*time.Second)
		time.Sleep(time.Minute)
		ages(0, 2*time.Minute+20*time.Second)
		_, err := c.Forget(ctx, "b")
		require.NoError(t, err)
		ages(0, 0)

		go func() { _, _ = c.Do(ctx, "e", after(time.Hour, "receipt", nil)) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		_, _ = c.Do(ctx, "f", returns("", idemflight.Unknown(errLost)))
		time.Sleep(time.Minute)
		ages(time.Minute+10*time.Second, time.Minute) // a hold that is younger than a flight
		time.Sleep(time.Hour)
	})
}

// known reports whether an age is told.
func (fs families) known(state string) bool { return fs.metric(age, state) != nil }

// TestAge_OfAStore is that of all processes, one that died among them.
func TestAge_OfAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		c, r := newCache(t, options{Store: m})
		ctx := context.Background()
		require.False(t, gather(t, r).known("held"), "the first scrape does not wait for the store")
		synctest.Wait()
		require.Zero(t, gather(t, r).value(t, age, "held"))
		require.Zero(t, gather(t, r).value(t, age, "in_flight"))

		dead := idemflight.Claim{Key: "dead", ID: idemflight.ClaimID{1}}
		_, err := m.Claim(ctx, idemflight.ClaimRequest{Claim: dead, Lease: time.Minute, HoldTTL: time.Hour})
		require.NoError(t, err)
		require.True(t, m.Kill(dead.ID))
		go func() { _, _ = c.Do(ctx, "alive", after(10*time.Minute, "receipt", nil)) }()
		time.Sleep(time.Minute)
		gather(t, r)
		synctest.Wait()
		time.Sleep(time.Second)
		require.Equal(t, 61.0, gather(t, r).value(t, age, "held"))
		require.Equal(t, 61.0, gather(t, r).value(t, age, "in_flight"))
		require.Zero(t, gather(t, r).value(t, "idemflight_key_usage", "held"), "of this process")
		time.Sleep(time.Hour)
	})
}

// TestAge_IsNotAskedForTooOften: once a minute, however often it is scraped, and less often where it takes long.
func TestAge_IsNotAskedForTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, r := newCache(t, options{Store: m})
		takes := time.Duration(0)
		m.Hook(func(_ context.Context, when storetest.When, _ string, _ idemflight.Claim) error {
			if when == storetest.Before {
				time.Sleep(takes)
			}
			return nil
		})
		looks := func(meanwhile time.Duration) int {
			before := m.Asked("Unsettled")
			for end := time.Now().Add(meanwhile); time.Now().Before(end); time.Sleep(time.Second) {
				gather(t, r)
			}
			synctest.Wait()
			return m.Asked("Unsettled") - before
		}
		require.Equal(t, 10, looks(10*time.Minute))
		takes = 6 * time.Second
		require.Equal(t, 5, looks(10*time.Minute), "of 6 s each, and 2 min between their starts")
		synctest.Wait()
		time.Sleep(time.Hour)
	})
}

// TestAge_AStoreThatHangsHoldsUpNoScrape, and is given up after ten seconds.
func TestAge_AStoreThatHangsHoldsUpNoScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		c, r := newCache(t, options{Store: m})
		_, _ = c.Do(context.Background(), "a", returns("", idemflight.Unknown(errLost)))
		hangs := true
		m.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if when == storetest.Before && hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		began := time.Now()
		for range 3 {
			require.False(t, gather(t, r).known("held"))
		}
		require.Zero(t, time.Since(began), "a scrape does not wait")
		synctest.Wait()
		require.Equal(t, 1, m.Asked("Unsettled"), "one look at a time")
		time.Sleep(10*time.Second - time.Nanosecond)
		synctest.Wait()
		require.Zero(t, gather(t, r).value(t, "idemflight_store_errors_total", "unsettled"))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		fs := gather(t, r)
		require.Equal(t, 1.0, fs.value(t, "idemflight_store_errors_total", "unsettled"))
		require.False(t, fs.known("held"), "nothing is known yet")

		hangs = false
		time.Sleep(200*time.Second - 10*time.Second - time.Nanosecond)
		gather(t, r)
		synctest.Wait()
		require.Equal(t, 1, m.Asked("Unsettled"), "twenty times 10 s after the look that hung")
		time.Sleep(time.Nanosecond)
		gather(t, r)
		synctest.Wait()
		require.Equal(t, 200.0, gather(t, r).value(t, age, "held"))
		require.Zero(t, gather(t, r).value(t, age, "in_flight"))
	})
}

// TestAge_ALookThatFails tells what it saw before, and of the rest nothing.
func TestAge_ALookThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &breaksOff{Memory: storetest.Mem(), err: errLost}
		c, r := newCache(t, options{Store: m})
		_, _ = c.Do(context.Background(), "a", returns("", idemflight.Unknown(errLost)))
		gather(t, r)
		synctest.Wait()
		time.Sleep(time.Second)
		fs := gather(t, r)
		require.Equal(t, 1.0, fs.value(t, age, "held"))
		require.False(t, fs.known("in_flight"), "whether there are any is not known")
		m.err = nil
		time.Sleep(time.Minute)
		gather(t, r)
		synctest.Wait()
		require.Zero(t, gather(t, r).value(t, age, "in_flight"))
	})
}

// breaksOff is a Store that fails after the last key.
type breaksOff struct {
	*storetest.Memory
	err error
}

func (b *breaksOff) Unsettled(ctx context.Context, f func(string, idemflight.Standing) error) error {
	if err := b.Memory.Unsettled(ctx, f); err != nil {
		return err
	}
	return b.err
}
