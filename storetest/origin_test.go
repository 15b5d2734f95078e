package storetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// A store keeps the origin of an execution, so that a replay elsewhere points to the run.

func originNo(n byte) idemflight.Origin {
	return idemflight.Origin{TraceID: [16]byte{15: n}, SpanID: [8]byte{7: n}, Sampled: n%2 == 1}
}

// tracedBy gives executions the origin of that number.
func tracedBy(n byte) func(*options) {
	return func(o *options) {
		o.Trace = func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
			return ctx, originNo(n), nil
		}
	}
}

func requireOrigin(t *testing.T, n byte, o *idemflight.Origin, where string) {
	t.Helper()
	require.NotNil(t, o, "%s has no origin", where)
	require.Equal(t, originNo(n), *o, "the origin of %s", where)
}

func TestOriginOfWhatIsRetained(t *testing.T) {
	for how, err := range map[string]error{
		"success": nil, "final": idemflight.Final(errBoom), "a sentinel": idemflight.Final(context.Canceled),
	} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			r, _ := over(t, m, tracedBy(1)).DoResult(bg, theKey, returns(7, err))
			requireOrigin(t, 1, r.Origin, how+", executed")
			b := over(t, m)
			for _, where := range []string{"from the store", "from memory"} {
				r, again := b.DoResult(bg, theKey, mustNotRun(t))
				requireOrigin(t, 1, r.Origin, how+", replayed "+where)
				require.Equal(t, 7, r.Value)
				if err == nil {
					require.NoError(t, again, "%s, %s", how, where)
				} else {
					require.EqualError(t, again, errors.Unwrap(err).Error(), "%s, %s", how, where)
					require.Equal(t, how == "a sentinel", errors.Is(again, context.Canceled), "%s, %s", how, where)
				}
			}
			e, _, lookErr := b.Lookup(bg, theKey)
			require.NoError(t, lookErr)
			requireOrigin(t, 1, e.Origin, how+", looked up")
		})
	}
}

// TestOriginOfWhatIsHeld: what held it, what Reconcile is told, and what comes after.
func TestOriginOfWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cause := range []error{idemflight.Unknown(errBoom), idemflight.Unknown(context.Canceled)} {
			m := storetest.Mem()
			_, err := over(t, m, tracedBy(1)).Do(bg, theKey, returns(0, cause))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			b := over(t, m)
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorContains(t, err, "marked Unknown", "why it is held is read as before")
			require.NoError(t, b.Unsettled(bg, func(_ string, e idemflight.Entry[int]) bool {
				requireOrigin(t, 1, e.Origin, "an unsettled key")
				return true
			}))
			learns := error(errBoom)
			c := over(t, m, tracedBy(2), func(o *options) {
				o.Reconcile = func(_ context.Context, _ string, held idemflight.Entry[int]) (int, error) {
					requireOrigin(t, 1, held.Origin, "what Reconcile is told")
					return 9, learns
				}
			})
			_, err = c.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			e, _, err := b.Lookup(bg, theKey)
			require.NoError(t, err)
			requireOrigin(t, 1, e.Origin, "what is held still")
			time.Sleep(2 * time.Second)
			learns = nil
			r, err := c.DoResult(bg, theKey, mustNotRun(t))
			require.NoError(t, err)
			requireOrigin(t, 2, r.Origin, "what Reconcile found")

			other := storetest.Mem()
			_, err = over(t, other, tracedBy(3)).Do(bg, theKey, returns(0, cause))
			require.Error(t, err)
			b = over(t, other)
			require.NoError(t, b.Resolve(bg, theKey, 5, nil))
			e, _, err = b.Lookup(bg, theKey)
			require.NoError(t, err)
			requireOrigin(t, 3, e.Origin, "what was resolved")
		}
	})
}

func TestOriginOfWhatJoinsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		fn, runs, release := blocked(1, nil)
		executes := start(over(t, m, tracedBy(1)), bg, fn)
		<-runs
		var told []idemflight.Event[string]
		joins := start(over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) { told = append(told, e) }
		}), bg, mustNotRun(t))
		synctest.Wait()
		close(release)
		<-executes
		requireOrigin(t, 1, (<-joins).res.Origin, "a result that was waited for")
		require.Equal(t, idemflight.EventJoined, told[0].Kind)
		require.True(t, told[0].Led)
		requireOrigin(t, 1, told[0].Origin, "EventJoined")
	})
}

func TestOriginOfWhatIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := originNo(4)
		for _, e := range []idemflight.Entry[int]{
			{State: idemflight.Retained, Value: 1, Origin: &origin, ExpiresAt: time.Now().Add(time.Hour)},
			{State: idemflight.Held, Err: errBoom, Origin: &origin},
			{State: idemflight.InFlight, Origin: &origin},
		} {
			c := over(t, storetest.Mem())
			require.NoError(t, c.Restore(bg, theKey, e))
			got, _, err := c.Lookup(bg, theKey)
			require.NoError(t, err)
			requireOrigin(t, 4, got.Origin, e.State.String())
		}
	})
}

// TestOriginThatCannotBeRead is an error of the store, as any other record is that cannot be read.
func TestOriginThatCannotBeRead(t *testing.T) {
	for _, bad := range []string{"@", "@00", "@00-000000000000000000000000000000zz-0000000000000001-01", "@" + originNo(1).String() + "!\nx"} {
		m := storetest.Mem()
		r := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: theKey, ID: idemflight.ClaimID{1}}, Lease: time.Minute}
		_, err := m.Claim(bg, r)
		require.NoError(t, err)
		_, err = m.Settle(bg, r.Claim, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("1"), Err: []byte(bad), TTL: time.Hour})
		require.NoError(t, err)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore, "%q", bad)
	}
}
