package storetest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Promises 40 to 42: what the memory keeps.

// Promise 40: Deadlines are those of the engine's clock, and a copy in memory never outlives its
// record.
//
// However long the answer is under way, a copy ends before the record.
func TestPromise40_ACopyNeverOutlivesItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		brief := idemflight.WithTTL(10 * time.Second)
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil), brief)))
		b := over(t, m)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, b.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, b.Len())
		m.Hook(nil)
		require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))))
	})
}

// Promise 41: A copy is replayed for at most LocalTTL, even after a Forget in another process. A
// held key is asked about at every call.
func TestPromise41_TheLocalCopyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))), "for up to LocalTTL")
		time.Sleep(time.Minute)
		require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))))
		eager := over(t, m, always)
		require.Equal(t, 8, must(eager.Do(bg, theKey, mustNotRun(t))))
		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, 9, must(eager.Do(bg, theKey, returns(9, nil))), "it always asks")
		require.Zero(t, eager.Len())
	})
}

// Promise 42: MaxEntries and MaxWeight limit the copies in memory, so evicting one loses nothing.
func TestPromise42_MemoryHoldsCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) {
			o.MaxEntries, o.MaxWeight, o.Weigh = 4, 5, func(string, int) int64 { return 2 }
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				require.NotContains(t, []idemflight.EventKind{idemflight.EventEvicted, idemflight.EventShed, idemflight.EventExpired}, e.Kind)
			}
		})
		for i := range 100 {
			require.Equal(t, i, must(a.Do(bg, string(rune('a'+i)), returns(i, nil))))
			require.LessOrEqual(t, a.Len(), 2)
			require.LessOrEqual(t, a.Stats().Weight, int64(5))
		}
		for i := range 100 {
			require.Equal(t, i, must(a.Do(bg, string(rune('a'+i)), mustNotRun(t))))
		}
		var flying []<-chan answer
		release := make(chan struct{})
		for i := range 4 {
			answered := make(chan answer, 1)
			go func() {
				v, err := a.Do(bg, "flies "+string(rune('a'+i)), func(context.Context) (int, error) { <-release; return i, nil })
				answered <- answer{idemflight.Result[int]{Value: v}, err}
			}()
			flying = append(flying, answered)
		}
		synctest.Wait()
		_, err := a.Do(bg, "one too many", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrFull)
		close(release)
		for _, answered := range flying {
			require.NoError(t, (<-answered).err)
		}
	})
}

func TestPromise40_NorDoesTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Settle" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil), idemflight.WithTTL(10*time.Second))))
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, a.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, a.Len())
	})
}

func TestPromise40_NorDoesThatOfAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn, idemflight.WithTTL(10*time.Second))
		<-runs
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Read" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		close(release)
		require.NoError(t, (<-led).err)
		require.Equal(t, 7, (<-watches).res.Value)
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, b.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, b.Len())
	})
}

func TestPromise41_TheOwnersCopyEndsAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))), "for up to LocalTTL")
		time.Sleep(time.Minute)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))))
		was, err = a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 9, must(a.Do(bg, theKey, returns(9, nil))), "at once where it was forgotten")
	})
}

func TestPromise41_WhatIsForgottenInFlightIsNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		close(release)
		require.Equal(t, 7, (<-led).res.Value)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))), "it was forgotten elsewhere")

		told := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				<-told
			}
			return nil
		})
		replays := start(b, bg, mustNotRun(t))
		synctest.Wait()
		was, err = b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		close(told)
		require.Equal(t, 8, (<-replays).res.Value)
		require.Equal(t, 9, must(b.Do(bg, theKey, returns(9, nil))), "it was forgotten here, while the store was asked")
	})
}

func TestPromise42_WhatIsNotCopiedLeavesItsPlace(t *testing.T) {
	for name, change := range map[string]func(*options){
		"always asked": func(o *options) { o.LocalTTL, o.MaxWeight, o.Weigh = -1, 5, func(string, int) int64 { return 2 } },
		"too heavy":    func(o *options) { o.MaxWeight, o.Weigh = 1, func(string, int) int64 { return 2 } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				few := func(o *options) { o.MaxEntries = 2 }
				a, b := over(t, m, change, few), over(t, m, change, few)
				for i := range 5 {
					key, held := string(rune('a'+i)), string(rune('A'+i))
					require.Equal(t, i, must(a.Do(bg, key, returns(i, nil))))
					_, err := a.Do(bg, held, returns(0, errBoom))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					for _, c := range []*cache{a, b} {
						require.Equal(t, i, must(c.Do(bg, key, mustNotRun(t))))
						_, err := c.Do(bg, held, mustNotRun(t))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
						require.Zero(t, c.Len())
						require.Zero(t, c.Stats().Weight)
					}
				}
			})
		})
	}
}

// What is too heavy for a copy has taken no weight, and so gives none back that others could take.
func TestPromise42_WhatIsTooHeavyForACopyMakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, storetest.Mem(), func(o *options) {
			o.MaxWeight, o.Weigh = 5, func(_ string, v int) int64 { return int64(v) }
		})
		require.Equal(t, 100, must(c.Do(bg, "heavy", returns(100, nil))))
		for _, key := range []string{"a", "b", "c", "d"} {
			require.Equal(t, 2, must(c.Do(bg, key, returns(2, nil))))
			require.LessOrEqual(t, c.Stats().Weight, int64(5))
		}
		require.EqualValues(t, 4, c.Stats().Weight, "two copies fit")
	})
}
