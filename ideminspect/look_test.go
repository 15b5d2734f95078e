package ideminspect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
	"github.com/idemflight/idemflight/storetest"
)

// restoreHeld makes n keys held.
func restoreHeld(t testing.TB, c *cache, n int) {
	for i := range n {
		require.NoError(t, c.Restore(t.Context(), key{Scope: "ann", ID: fmt.Sprint("order ", i)}, idemflight.Entry[string]{State: idemflight.Held}))
	}
}

// TestTheOldestAreListed: a hundred of them, and the rest is counted; in the order of time, also where the Store
// has another.
func TestTheOldestAreListed(t *testing.T) {
	withAndWithoutStore(t, func(t *testing.T, opts options) {
		opts.HoldTTL = -1
		s := newSite(t, opts, view{Key: full.Key})
		for i := range 250 { // the Store tells them in the order of the keys
			hold(t, s.cache, key{Scope: "ann", ID: fmt.Sprintf("order %06d", 250-i)}, errBank)
			time.Sleep(time.Minute)
		}
		p := s.list()
		require.Equal(t, 250, p.Held)
		require.Equal(t, 150, p.Unlisted)
		require.False(t, p.AtLeast)
		require.InDelta(t, 250*60, *p.OldestHeld, 0.001)
		require.Len(t, p.Unsettled, 100)
		for i, e := range p.Unsettled {
			require.Equal(t, fmt.Sprintf("ann/order%%20%06d", 250-i), e.Key)
		}
		body := get(s.page, "").Body
		require.Contains(t, body, "The 100 oldest keys are listed, held and in flight together; 150 more are not.")
	})
}

// TestManyUnsettled: not more than ten thousand are looked at, in whatever the page shows.
func TestManyUnsettled(t *testing.T) {
	const n = 12_000
	t.Run("memory", func(t *testing.T) {
		s := newSite(t, options{}, view{})
		restoreHeld(t, s.cache, n)
		p := s.list()
		require.True(t, p.AtLeast)
		require.Equal(t, n, p.Held, "Stats know")
		require.Equal(t, n-100, p.Unlisted)
		require.Len(t, p.Unsettled, 100)
	})
	t.Run("store", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, decoded := storetest.Mem(), 0
			s := newSite(t, options{Store: store, Codec: idemflight.Codec[key, string]{
				EncodeKey: func(k key) (string, error) { return k.String(), nil },
				DecodeKey: func(s string) (key, error) { decoded++; return idemflight.ParseKey(s) },
			}}, view{})
			restoreHeld(t, s.cache, n)
			decoded = 0
			p := s.list()
			require.Equal(t, 10_001, decoded, "keys that were read")
			require.True(t, p.AtLeast)
			require.Equal(t, 10_000, p.Held)
			require.Contains(t, get(s.page, "").Body, "10\u202f000+")
		})
	})
}

// TestStoreIsAskedSeldom: once in 10 s, however many look; an action is an exception.
func TestStoreIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.Mem()
		s := newSite(t, options{Store: store}, full)
		hold(t, s.cache, ann, errBank)
		for range 10 {
			require.Equal(t, 1, s.list().Held)
			get(s.page, "")
			time.Sleep(999 * time.Millisecond)
		}
		require.Equal(t, 1, store.Asked("Unsettled"))
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, 1, s.list().Held)
		require.Equal(t, 2, store.Asked("Unsettled"))

		require.Equal(t, http.StatusOK, s.act("did-not", s.find(ann), "").Status)
		require.Zero(t, s.list().Held, "what one did is to be seen")
		require.Equal(t, 3, store.Asked("Unsettled"))
	})
}

// TestFlightsOfAStore: whoever runs them; how many wait is known of this process alone, and of one key.
func TestFlightsOfAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.Mem()
		s, elsewhere := newSite(t, options{Store: store}, view{}), idemflight.MustNew(options{Store: store})
		end := fly(elsewhere, ann)
		time.Sleep(20 * time.Second)
		p := s.list()
		require.Equal(t, 1, p.InFlight)
		require.Zero(t, p.Used, "places of this process")
		require.Nil(t, p.Unsettled[0].Waiters)
		require.Equal(t, 20.0, p.Unsettled[0].Age)
		require.Contains(t, get(s.page, "").Body, `<span class="cell">–</span>`)
		require.Zero(t, *s.find(ann).Waiters)
		end()
		require.NoError(t, elsewhere.Close(t.Context()))
	})
}

// TestStoreFails: the page is there, and says so; so does that of the next second, without asking again.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.Mem()
		s := newSite(t, options{Store: store}, full)
		hold(t, s.cache, ann, errBank)
		e := s.find(ann)
		store.Fail("Unsettled", storetest.Before, -1)
		for range 3 {
			p := s.list()
			require.Contains(t, p.Trouble, "the store could not be asked")
			require.True(t, p.Caches[0].Trouble)
		}
		require.Equal(t, 1, store.Asked("Unsettled"))
		require.Contains(t, get(s.page, "").Body, "something may be missing below")

		store.Fail("Read", storetest.Before, -1)
		require.Equal(t, http.StatusServiceUnavailable, do(s.page, form("", "do", "find", "key", ann.String())).Status)
		require.Equal(t, http.StatusServiceUnavailable, get(s.page, "entry="+e.Entry).Status)
		require.Equal(t, http.StatusServiceUnavailable, s.act("did-not", e, "").Status)
		require.Equal(t, "ideminspect: not done", s.log.take(t)[0]["msg"])
	})
}

// TestStoreThatHangs: the page waits for 5 s, also for several such caches and for several requests.
func TestStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.Mem()
		s := newSite(t, options{Store: store}, full)
		addTo(s, "refunds", options{Store: store})
		addTo(s, "mails", options{})
		hold(t, s.cache, ann, errBank)
		store.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if when == storetest.Before && (verb == "Unsettled" || verb == "Read") {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		start := time.Now()
		for range 5 {
			go s.list()
		}
		require.NotEmpty(t, s.list().Trouble)
		require.Equal(t, 5*time.Second, time.Since(start))
		synctest.Wait()
		require.Equal(t, 2, store.Asked("Unsettled"))
		require.Equal(t, 5*time.Second, time.Since(start), "the others have got the same look")

		start = time.Now()
		require.Equal(t, http.StatusServiceUnavailable, do(s.page, form("", "do", "find", "key", ann.String())).Status)
		require.LessOrEqual(t, time.Since(start), 5*time.Second)

		// Who leaves does not leave others with what it did not wait for.
		time.Sleep(20 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		do(s.page, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
		require.Equal(t, time.Second, time.Since(start))
		store.Hook(nil)
		require.Empty(t, s.list().Trouble)
		require.Equal(t, 1, s.list().Held)
	})
}

// TestRates: calls a second by result, since the page was looked at within the last minute, or else since then.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{}, view{})
		second := func() { // 10 calls
			for i := range 5 {
				k := key{Scope: "ann", ID: fmt.Sprint(time.Now().Unix(), i)}
				settle(t, s.cache, k, "receipt")
				settle(t, s.cache, k, "receipt")
			}
			time.Sleep(time.Second)
		}
		for range 100 {
			second()
		}
		p := s.list()
		require.Equal(t, 100.0, p.Over, "since the cache was added")
		require.InDelta(t, 10, p.PerSecond, 0.001)
		require.InDelta(t, 0.5, *p.Duplicates, 0.001)
		for _, c := range p.Calls {
			switch c.Result {
			case "executed", "replayed":
				require.InDelta(t, 5, c.PerSecond, 0.001, c.Result)
				require.Equal(t, uint64(500), c.Total, c.Result)
			default:
				require.Zero(t, c.Total, c.Result)
			}
		}
		require.Len(t, p.Calls, 14, "results")
		require.Equal(t, 500, p.Used)
		require.Equal(t, idemflight.DefaultMaxEntries, p.Limit)

		time.Sleep(2 * time.Second)
		p = s.list()
		require.Equal(t, 2.0, p.Over, "since the last look")
		require.Zero(t, p.PerSecond)
		require.Nil(t, p.Duplicates)
		for range 100 {
			second()
			s.list()
		}
		p = s.list()
		require.Equal(t, 60.0, p.Over)
		require.InDelta(t, 10, p.PerSecond, 0.001)
	})
}

// TestResults: every call is under some result.
func TestResults(t *testing.T) {
	s := newSite(t, options{}, view{})
	settle(t, s.cache, ann, "receipt")
	settle(t, s.cache, ann, "receipt")
	hold(t, s.cache, ben, errBank)
	_, err := s.cache.Do(t.Context(), ben, nothing, idemflight.WithFingerprint(idemflight.FingerprintOf([]byte(ben.ID))))
	require.Error(t, err)
	_, err = s.cache.Do(t.Context(), ann, nothing, idemflight.WithFingerprint(idemflight.Fingerprint{1}))
	require.Error(t, err)
	_, err = s.cache.Do(t.Context(), key{}, nothing)
	require.Error(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gone"))
	_, err = s.cache.Do(ctx, key{Scope: "eve", ID: "1"}, nothing)
	require.Error(t, err)
	got := map[string]uint64{}
	for _, c := range s.list().Calls {
		if c.Total > 0 {
			got[c.Result] = c.Total
		}
	}
	require.Equal(t, map[string]uint64{"executed": 2, "replayed": 1, "outcome_unknown": 1, "key_reused": 1, "invalid_key": 1, "caller_left": 1}, got)
}

// TestAMillionRetainedKeys cost the page nothing.
func TestAMillionRetainedKeys(t *testing.T) {
	n := 1_000_000 // which is less than DefaultMaxEntries
	if testing.Short() || raceEnabled {
		n = 100_000
	}
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	require.NoError(t, c.Restore(t.Context(), -1, idemflight.Entry[int]{State: idemflight.Held}))
	one := func(context.Context) (int, error) { return 1, nil }
	for i := 1; i <= n; i++ {
		_, err := c.Do(context.Background(), i, one)
		require.NoError(t, err)
	}
	fastest := time.Hour
	for range 5 {
		page, err := ideminspect.New(ideminspect.Options{}) // one that has not looked yet
		require.NoError(t, err)
		ideminspect.Add(page, "numbers", c, ideminspect.View[int, int]{})
		start := time.Now()
		p := get(page, "format=json").shown(t)
		fastest = min(fastest, time.Since(start))
		require.Equal(t, 1, p.Held)
		require.Equal(t, n+1, p.Used)
	}
	require.Less(t, fastest, time.Duration(n)*20*time.Nanosecond, "a look that goes over all takes ten times as long")
}
