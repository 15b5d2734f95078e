package pgstore

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// watchers returns how many calls of Watch there are, and whether the poller runs.
func (f fixture) watchers() (n int, polls bool) {
	f.watching.mu.Lock()
	defer f.watching.mu.Unlock()
	if f.watching.poller == nil {
		return 0, false
	}
	return len(f.watching.poller.watches), true
}

// watch starts a call of Watch, and returns once it is there.
func (f fixture) watch(ctx context.Context, c idemflight.Claim) <-chan error {
	f.t.Helper()
	before, _ := f.watchers()
	answer := make(chan error, 1)
	go func() { answer <- f.Watch(ctx, c) }()
	waitUntil(f.t, "the watch is there", func() bool { n, _ := f.watchers(); return n > before })
	return answer
}

// TestWatch_Ends: each in its way, while others go on, by one connection.
func TestWatch_Ends(t *testing.T) {
	f := newStore(t, func(c *pgxpool.Config) { c.MaxConns = 1 })
	stays := f.watch(f.ctx(), f.claimed())
	for how, end := range map[string]func(c idemflight.Claim){
		"settled":    func(c idemflight.Claim) { f.settles(c, retain("value")) },
		"released":   func(c idemflight.Claim) { f.settles(c, idemflight.Settlement{}) },
		"lease over": f.leaseOver,
		"taken over": func(c idemflight.Claim) {
			f.leaseOver(c)
			r := request(c.Key)
			r.Replaces, r.From = c.ID, idemflight.InFlight
			f.claims(r)
		},
		"deleted": func(c idemflight.Claim) { f.exec("delete from idemflight where key = $1", []byte(c.Key)) },
	} {
		c := f.claimed()
		answer := f.watch(f.ctx(), c)
		select {
		case err := <-answer:
			t.Fatalf("%s: the watch ended before its claim: %v", how, err)
		default:
		}
		end(c)
		require.NoError(t, <-answer, how)
	}
	require.NoError(t, f.Watch(f.ctx(), idemflight.Claim{Key: "absent", ID: newID()}))
	n, polls := f.watchers()
	require.Equal(t, 1, n)
	require.True(t, polls)
	require.Empty(t, stays)
}

func TestWatch_LeavesNothingBehind(t *testing.T) {
	f := newStore(t)
	ctx, cancel := context.WithCancelCause(f.ctx())
	cause := errors.New("the last caller left")
	c := f.claimed()
	var answers []<-chan error
	for range 3 {
		answers = append(answers, f.watch(ctx, c))
	}
	cancel(cause)
	for _, answer := range answers {
		require.ErrorIs(t, <-answer, context.Canceled)
	}
	_, polls := f.watchers()
	require.False(t, polls)
	f.settles(c, retain("value"))
	require.NoError(t, f.Watch(f.ctx(), c), "the next one polls again")
}

// TestWatch_Fails: all who wait hear that the server could not be asked.
func TestWatch_Fails(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	answer := f.watch(f.ctx(), c)
	f.exec("alter table idemflight rename to away")
	require.ErrorContains(t, <-answer, "42P01")
	f.exec("alter table away rename to idemflight")
	f.settles(c, retain("value"))
	require.NoError(t, f.Watch(f.ctx(), c))
}

// TestWatch_Many: one poller looks after the claims of many goroutines that come and go.
func TestWatch_Many(t *testing.T) {
	f := newStore(t, func(c *pgxpool.Config) { c.MaxConns = 2 })
	var n atomic.Int32
	require.NoError(t, together(20, func() error {
		leaves := n.Add(1)%2 == 0
		for range 5 {
			r := request(string(random(8)))
			if _, err := f.Claim(f.ctx(), r); err != nil {
				return err
			}
			if leaves {
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				_ = f.Watch(ctx, r.Claim)
				cancel()
			}
			answer := make(chan error, 1)
			go func() { answer <- f.Watch(f.ctx(), r.Claim) }()
			if _, err := f.Settle(f.ctx(), r.Claim, retain("value")); err != nil {
				return err
			}
			if err := <-answer; err != nil {
				return err
			}
		}
		return nil
	}))
	_, polls := f.watchers()
	require.False(t, polls)
}
