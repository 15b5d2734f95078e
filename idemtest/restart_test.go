package idemtest_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

// payInBackground begins a payment, and returns once it is as far as it gets.
func payInBackground(t *testing.T, s *shop, id string) {
	go func() { _, _ = s.pay(t.Context(), "ann", id, 900) }()
	synctest.Wait()
}

// TestRestartPlanned: what was done is replayed, what ends within the grace too, and what does not is held.
func TestRestartPlanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		old, next := newShop(&bank, nil), newShop(&bank, nil)
		bank.Script("ann/slow", idemtest.Slow(9*time.Second))
		bank.Script("ann/hangs", idemtest.Hang)
		done, err := old.pay(t.Context(), "ann", "done", 900)
		require.NoError(t, err)
		payInBackground(t, old, "slow")
		payInBackground(t, old, "hangs")

		f := try(t, func(t testing.TB) { idemtest.Restart(t, old.cache, next.cache, idemtest.Planned) })
		require.NoError(t, f.failed)
		require.Equal(t, "idemtest: Restart, planned: 2 restored, 1 interrupted, 0 expired, 0 refused\n", f.logged)
		_, err = old.pay(t.Context(), "ann", "new", 900)
		require.ErrorIs(t, err, idemflight.ErrClosed)

		again, err := next.pay(t.Context(), "ann", "done", 900)
		require.NoError(t, err)
		require.Equal(t, done, again)
		_, err = next.pay(t.Context(), "ann", "slow", 900)
		require.NoError(t, err)
		e, ok, err := next.cache.Lookup(t.Context(), idemflight.Key{Scope: "ann", ID: "hangs"})
		require.NoError(t, err)
		require.True(t, ok)
		require.ErrorIs(t, e.Err, idemflight.ErrInterrupted)
		_, err = next.pay(t.Context(), "ann", "hangs", 900)
		require.NoError(t, err, "Reconcile has found it")
		bank.RequireOnce(t, "ann/done", "ann/slow", "ann/hangs")
	})
}

// TestRestartCrash: without a Store nothing is left, and a retry charges again, as it would.
func TestRestartCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		old, next := newShop(&bank, nil), newShop(&bank, nil)
		bank.Script("ann/rent", idemtest.Hang)
		payInBackground(t, old, "rent")
		start := time.Now()
		idemtest.Restart(t, old.cache, next.cache, idemtest.Crash)
		require.Equal(t, start, time.Now(), "nobody waits for a crash")
		require.Zero(t, next.cache.Len())
		_, err := old.pay(t.Context(), "ann", "phone", 30)
		require.ErrorIs(t, err, idemflight.ErrClosed)
		_, err = next.pay(t.Context(), "ann", "rent", 900)
		require.NoError(t, err)
		require.ErrorContains(t, bank.CheckOnce("ann/rent"), "was charged 2 times")
		time.Sleep(idemflight.DefaultExecTimeout + 1) // the dead process hangs no longer
	})
}

// TestRestartCrashWithAStore: before BeginEffect the next process runs it, after it asks the bank; outcomes are kept. The
// dead one changes nothing any more, however long it goes on.
func TestRestartCrashWithAStore(t *testing.T) {
	for _, how := range []idemtest.How{idemtest.Crash, idemtest.Planned} {
		t.Run(how.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bank idemtest.Bank
				store := storetest.Mem()
				old, next := newShop(&bank, store), newShop(&bank, store)
				bank.Script("ann/charged", idemtest.Hang)
				bank.Script("ann/late", idemtest.Slow(time.Second))
				_, err := old.pay(t.Context(), "ann", "done", 900)
				require.NoError(t, err)
				payInBackground(t, old, "charged")
				payInBackground(t, old, "late")
				begin := make(chan struct{})
				before := make(chan error, 1)
				go func() {
					_, _ = old.cache.Do(t.Context(), idemflight.Key{Scope: "ann", ID: "before"}, func(ctx context.Context) (idemtest.Receipt, error) {
						<-begin
						err := idemflight.BeginEffect(ctx)
						before <- err
						return idemtest.Receipt{}, err
					})
				}()
				synctest.Wait()

				idemtest.Restart(t, old.cache, next.cache, how)
				close(begin)
				require.ErrorIs(t, <-before, idemflight.ErrClaimLost, "from a dead process")
				time.Sleep(2 * time.Second)
				late := idemflight.Held // its process was dead when it got the answer
				if how == idemtest.Planned {
					late = idemflight.Retained
				}
				for key, state := range map[string]idemflight.State{"ann/charged": idemflight.Held, "ann/late": late} {
					read, err := store.Read(t.Context(), key)
					require.NoError(t, err)
					require.Equal(t, state, read.State, "of %s", key)
				}

				for _, id := range []string{"done", "charged", "late", "before"} {
					_, err = next.pay(t.Context(), "ann", id, 900)
					require.NoError(t, err, "the payment %s", id)
					bank.RequireOnce(t, "ann/"+id)
				}

				// That of a dead process ends too, and nobody hears of it.
				time.Sleep(time.Hour)
				_, err = next.pay(t.Context(), "ann", "charged", 900)
				require.NoError(t, err)
				bank.RequireOnce(t, "ann/done", "ann/charged", "ann/late", "ann/before")
			})
		})
	}
}

// TestRestartTorn: Load says so, and what it says is in the test's log.
func TestRestartTorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		old, next := newShop(&bank, nil), newShop(&bank, nil)
		ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		for _, id := range ids {
			_, err := old.pay(t.Context(), "ann", id, 900)
			require.NoError(t, err)
		}
		f := try(t, func(t testing.TB) { idemtest.Restart(t, old.cache, next.cache, idemtest.Torn) })
		require.NoError(t, f.failed)
		require.Contains(t, f.logged, "idemtest: Restart, torn: half of the stream arrives: ")
		require.Contains(t, f.logged, "the stream ends")
		require.Greater(t, next.cache.Len(), 0, "what is whole is restored")
		require.Less(t, next.cache.Len(), len(ids))
		for _, id := range ids {
			_, _ = next.pay(t.Context(), "ann", id, 900)
		}
		require.Error(t, bank.CheckOnce(), "why a service must not listen then")

		empty, nothing := newShop(&bank, nil), newShop(&bank, nil)
		idemtest.Restart(t, empty.cache, nothing.cache, idemtest.Torn)
	})
}

// TestRestartFromMemoryIntoAStore: how a service that had none gets one.
func TestRestartFromMemoryIntoAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		store := storetest.Mem()
		old, next := newShop(&bank, nil), newShop(&bank, store)
		_, err := old.pay(t.Context(), "ann", "rent", 900)
		require.NoError(t, err)
		idemtest.Restart(t, old.cache, next.cache, idemtest.Planned)
		_, err = newShop(&bank, store).pay(t.Context(), "ann", "rent", 900)
		require.NoError(t, err)
		bank.RequireOnce(t, "ann/rent")
	})
}

// TestRestartOfOneOfTwo: a planned restart is nobody else's death; a crash is of all that share the Store.
func TestRestartOfOneOfTwo(t *testing.T) {
	for how, state := range map[idemtest.How]idemflight.State{idemtest.Planned: idemflight.InFlight, idemtest.Crash: idemflight.Held} {
		synctest.Test(t, func(t *testing.T) {
			var bank idemtest.Bank
			store := storetest.Mem()
			old, next, other := newShop(&bank, store), newShop(&bank, store), newShop(&bank, store)
			bank.Script("ann/rent", idemtest.Hang)
			payInBackground(t, other, "rent")
			idemtest.Restart(t, old.cache, next.cache, how)
			read, err := store.Read(t.Context(), "ann/rent")
			require.NoError(t, err)
			require.Equal(t, state, read.State, "after %v", how)
			bank.RequireOnce(t)
		})
	}
}

// plainStore is a Store that cannot be told that its users are dead.
type plainStore struct{ idemflight.Store }

// TestRestartSaysWhatItCannotPlay: and ends the test.
func TestRestartSaysWhatItCannotPlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type cache = idemflight.Cache[string, io.Reader]
		made := func(s idemflight.Store) *cache {
			o := idemflight.Options[string, io.Reader]{Store: s}
			if s != nil {
				o.Codec.EncodeValue = func(io.Reader) ([]byte, error) { return nil, nil }
				o.Codec.DecodeValue = func([]byte) (io.Reader, error) { return nil, nil }
			}
			return idemflight.MustNew(o)
		}
		same := made(nil)
		busy := made(nil)
		end := make(chan struct{})
		defer close(end)
		run := func(c *cache) {
			go func() {
				_, _ = c.Do(t.Context(), "rent", func(context.Context) (io.Reader, error) {
					<-end
					return nil, errors.New("ended")
				})
			}()
			synctest.Wait()
		}
		run(busy)
		stuck := made(plainStore{storetest.Mem()})
		run(stuck)
		crashing := made(plainStore{storetest.Mem()})
		run(crashing)
		for _, tc := range []struct {
			old, new *cache
			how      idemtest.How
			says     string
		}{
			{nil, made(nil), idemtest.Planned, "planned: it takes two caches"},
			{made(nil), nil, idemtest.Planned, "planned: it takes two caches"},
			{same, same, idemtest.Crash, "crash: it takes two caches"},
			{made(nil), busy, idemtest.Crash, "crash: the new process has 1 executions in flight before it starts"},
			{made(storetest.Mem()), made(nil), idemtest.Crash, "crash: old has a Store and new has none"},
			{made(storetest.Mem()), made(storetest.Mem()), idemtest.Torn, "torn: with a Store there is no stream to tear"},
			{crashing, made(storetest.Mem()), idemtest.Crash, "crash: a idemtest_test.plainStore cannot be told"},
			{stuck, made(storetest.Mem()), idemtest.Planned, "planned: a idemtest_test.plainStore cannot be told"},
			{made(nil), made(nil), idemtest.Planned, "planned: idemflight: Options.Codec.EncodeValue is nil"},
			{made(nil), made(nil), idemtest.Torn, "torn: idemflight: Options.Codec.EncodeValue is nil"},
			{made(nil), made(nil), 7, "How(7): it is none of Planned, Crash, Torn"},
		} {
			f := try(t, func(t testing.TB) { idemtest.Restart(t, tc.old, tc.new, tc.how) })
			require.ErrorContains(t, f.failed, "idemtest: Restart, "+tc.says)
		}
		for _, how := range []idemtest.How{idemtest.Planned, idemtest.Crash} {
			require.NoError(t, try(t, func(t testing.TB) {
				idemtest.Restart(t, made(plainStore{storetest.Mem()}), made(storetest.Mem()), how)
			}).failed, "with nothing in flight nobody need die")
		}
	})
}

// TestRestartLoadRefuses: what Load says ends the test.
func TestRestartLoadRefuses(t *testing.T) {
	type cache = idemflight.Cache[string, string]
	old := idemflight.MustNew(idemflight.Options[string, string]{})
	next := idemflight.MustNew(idemflight.Options[string, string]{})
	for _, c := range []*cache{old, next} {
		_, err := c.Do(t.Context(), "rent", func(context.Context) (string, error) { return "paid", nil })
		require.NoError(t, err)
	}
	f := try(t, func(t testing.TB) { idemtest.Restart(t, old, next, idemtest.Planned) })
	require.ErrorContains(t, f.failed, "idemtest: Restart, planned: idemflight: Load: 1 of 1 entries are refused")
}
