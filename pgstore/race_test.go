package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// fast: what a crash of the server would lose does not matter to a test of races.
func fast(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["synchronous_commit"] = "off" }

// together runs f in n goroutines at once, and returns their errors.
func together(n int, f func() error) error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f()
		})
	}
	close(start)
	wg.Wait()
	return errors.Join(errs...)
}

// TestRaces: of many claims at once for one key, in every standing in which it may be had, one is granted,
// and the others see it.
func TestRaces(t *testing.T) {
	f := newStore(t, fast)
	const rounds, racers = 20, 6
	for name, prepare := range map[string]func() idemflight.ClaimRequest{
		"fresh": func() idemflight.ClaimRequest { return request(string(random(8))) },
		"closed": func() idemflight.ClaimRequest {
			c := f.claimed()
			f.settles(c, idemflight.Settlement{})
			return request(c.Key)
		},
		"expired": func() idemflight.ClaimRequest {
			c := f.claimed()
			f.settles(c, retain("value"))
			f.exec("update idemflight set expires = clock_timestamp() where key = $1", []byte(c.Key))
			return request(c.Key)
		},
		"takeover": func() idemflight.ClaimRequest {
			c := f.claimed()
			f.leaseOver(c)
			r := request(c.Key)
			r.Replaces, r.From = c.ID, idemflight.InFlight
			return r
		},
		"reconcile held": func() idemflight.ClaimRequest {
			c := f.claimed()
			f.settles(c, idemflight.Settlement{Disposition: idemflight.Hold, TTL: time.Hour})
			r := request(c.Key)
			r.Reconcile, r.Replaces, r.From = true, c.ID, idemflight.Held
			return r
		},
		"reconcile dead": func() idemflight.ClaimRequest {
			c := f.claimed()
			require.NoError(t, f.Begin(f.ctx(), c, 0))
			f.leaseOver(c)
			r := request(c.Key)
			r.Reconcile, r.Replaces, r.From = true, c.ID, idemflight.Held
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				r := prepare()
				var granted atomic.Int32
				var owner atomic.Value
				require.NoError(t, together(racers, func() error {
					mine := r
					mine.ID = newID()
					got, err := f.Claim(f.ctx(), mine)
					switch {
					case err != nil:
						return err
					case got.Granted && got.ID == mine.ID:
						granted.Add(1)
						owner.Store(mine.ID)
					case got.State != idemflight.InFlight:
						return fmt.Errorf("who was not granted sees %v, not an owner in flight", got.State)
					}
					return nil
				}))
				require.EqualValues(t, 1, granted.Load(), "claims granted")
				require.Equal(t, owner.Load(), f.read(r.Key).ID)
			}
		})
	}
}

// TestClaim_AlwaysAnswers: outcomes expire and are swept under claims, which are granted or see what is in
// their way, never nothing.
func TestClaim_AlwaysAnswers(t *testing.T) {
	f := newStore(t, fast)
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := f.Sweep(f.ctx(), 10); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	var runs atomic.Int32
	err := together(6, func() error {
		for range rounds {
			r := request("one key")
			r.Lease, r.HoldTTL = time.Microsecond, time.Millisecond // a row is swept soon
			got, err := f.Claim(f.ctx(), r)
			switch {
			case err != nil:
				return err
			case !got.Granted && got.State == idemflight.Absent:
				return errors.New("nothing was in the way of a claim that was not granted")
			case !got.Granted && got.State == idemflight.InFlight && got.ExpiresIn == 0: // its owner is slow
				continue
			case !got.Granted:
				continue
			}
			runs.Add(1)
			_, err = f.Settle(f.ctx(), r.Claim, idemflight.Settlement{Disposition: idemflight.Retain, TTL: 100 * time.Microsecond})
			if err != nil && !errors.Is(err, idemflight.ErrClaimLost) { // swept, as what is dead for long
				return err
			}
		}
		return nil
	})
	close(stop)
	sweeper.Wait()
	require.NoError(t, err)
	require.Greater(t, runs.Load(), int32(1))
}

// TestClaim_OverARowThatIsLocked: the row read as absent, and its late owner settles it meanwhile, or not.
func TestClaim_OverARowThatIsLocked(t *testing.T) {
	f := newStore(t)
	for commits, granted := range map[bool]bool{true: false, false: true} {
		c := f.claimed()
		require.NoError(t, f.Begin(f.ctx(), c, 0))
		f.exec("update idemflight set leased = clock_timestamp() - interval '2h' where key = $1", []byte(c.Key))
		require.Zero(t, f.read(c.Key), "what its owner left is over, too")
		tx := f.begin()
		require.NoError(t, f.settleIn(tx, c, retain("value")))

		answer := make(chan idemflight.Standing, 1)
		go func() {
			got, err := f.Claim(f.ctx(), request(c.Key))
			if err != nil {
				t.Error(err)
			}
			answer <- got
		}()
		f.waitsForLock(1)
		if commits {
			require.NoError(t, tx.Commit(f.ctx()))
		} else {
			require.NoError(t, tx.Rollback(f.ctx()))
		}
		got := <-answer
		require.Equal(t, granted, got.Granted, "the claim is granted exactly if the late owner rolls back")
		if commits {
			require.Equal(t, idemflight.Retained, got.State)
		}
	}
}

// TestCancel: a context that ends ends every verb, also one that waits for a locked row, and what it leaves
// behind on the server ends, too.
func TestCancel(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	f.leaseOver(c)
	tx := f.begin()
	require.NoError(t, f.settleIn(tx, c, retain("value")))
	over := request(c.Key)
	over.Replaces, over.From = c.ID, idemflight.InFlight

	for name, verb := range map[string]struct {
		waits bool
		do    func(ctx context.Context) error
	}{
		"Claim":    {true, func(ctx context.Context) error { _, err := f.Claim(ctx, over); return err }},
		"Begin":    {true, func(ctx context.Context) error { return f.Begin(ctx, c, time.Minute) }},
		"Settle":   {true, func(ctx context.Context) error { _, err := f.Settle(ctx, c, retain("")); return err }},
		"GiveBack": {true, func(ctx context.Context) error { return f.GiveBack(ctx, c) }},
		"Forget":   {true, func(ctx context.Context) error { _, err := f.Forget(ctx, c); return err }},
		"Renew": {false, func(ctx context.Context) error {
			_, err := f.Renew(ctx, []idemflight.Claim{c}, time.Minute)
			return err
		}},
		"Read":      {false, func(ctx context.Context) error { _, err := f.Read(ctx, c.Key); return err }},
		"Watch":     {false, func(ctx context.Context) error { return f.Watch(ctx, c) }},
		"Sweep":     {false, func(ctx context.Context) error { _, err := f.Sweep(ctx, 1); return err }},
		"Unsettled": {false, func(ctx context.Context) error { return f.Unsettled(ctx, nil) }},
	} {
		ctx, cancel := context.WithCancel(f.ctx())
		answer := make(chan error, 1)
		if !verb.waits {
			cancel()
		}
		go func() { answer <- verb.do(ctx) }()
		if verb.waits {
			f.waitsForLock(1)
		}
		cancel()
		require.ErrorIs(t, <-answer, context.Canceled, name)
		f.waitsForLock(0)
	}
	require.NoError(t, tx.Rollback(f.ctx()))
	require.Equal(t, idemflight.InFlight, f.read(c.Key).State)
}
