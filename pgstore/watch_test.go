package pgstore

import (
	"context"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// TestWatch_Ends: each in its way, while others go on, by one connection of the pool.
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

// TestWatch_Listens: looks are far apart here, so only a notification can wake who waits.
func TestWatch_Listens(t *testing.T) {
	f := newStore(t, func(c *pgxpool.Config) {
		c.MaxConns = 2 // of which who listens takes none
		c.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return nil }
		c.AfterConnect = func(context.Context, *pgx.Conn) error { return nil }
	})
	other := fixture{Store: open(t, newPool(t, f.schema), Options{}), t: t}
	for how, end := range map[string]func(c idemflight.Claim){
		"settled":    func(c idemflight.Claim) { other.settles(c, retain("value")) },
		"released":   func(c idemflight.Claim) { other.settles(c, idemflight.Settlement{}) },
		"given back": func(c idemflight.Claim) { require.NoError(t, other.GiveBack(f.ctx(), c)) },
		"SettleTx":   func(c idemflight.Claim) { f.settlesInTx(c) },
	} {
		c := f.claimed()
		answer := f.watch(f.ctx(), c)
		f.looksAreFarApart()
		waitUntil(t, "the claim is marked", func() bool { return f.marked(c) })
		select {
		case err := <-answer:
			t.Fatalf("%s: the watch ended before its claim: %v", how, err)
		default:
		}
		end(c)
		require.NoError(t, <-answer, how)
	}
}

// TestWatch_ANewOneIsLookedAtSoon, although the next look for the others is far away.
func TestWatch_ANewOneIsLookedAtSoon(t *testing.T) {
	f := newStore(t)
	stays := f.claimed()
	answer := f.watch(f.ctx(), stays)
	f.looksAreFarApart()
	waitUntil(t, "the claim is marked", func() bool { return f.marked(stays) })
	ended := f.claimed()
	f.settles(ended, retain("value"))
	require.NoError(t, f.Watch(f.ctx(), ended))
	require.Empty(t, answer)
}

// TestWatch_SleepsUntilTheNextLook: that of the first watch that is due, and not for longer than looks are apart.
func TestWatch_SleepsUntilTheNextLook(t *testing.T) {
	var s Store
	s.watching.later = time.Minute
	soon := &watch{next: time.Now().Add(time.Hour), pause: firstLook}
	late := &watch{next: time.Now().Add(2 * time.Hour), pause: firstLook}
	p := &poller{watches: map[*watch]struct{}{soon: {}, late: {}}}
	before := time.Now()
	due, next := s.takeDue(t.Context(), p)
	require.Empty(t, due)
	require.WithinRange(t, next, before.Add(time.Minute), time.Now().Add(time.Minute))

	soon.next = time.Now().Add(30 * time.Second)
	due, next = s.takeDue(t.Context(), p)
	require.Empty(t, due)
	require.Equal(t, soon.next, next)

	before = time.Now()
	soon.next = before
	due, next = s.takeDue(t.Context(), p)
	require.Equal(t, []*watch{soon}, due)
	require.Equal(t, firstLook+firstLook/2, soon.pause, "looks come ever further apart")
	require.WithinRange(t, soon.next, before.Add(soon.pause/2), time.Now().Add(soon.pause*3/2), "the next one, by chance apart from other processes")
	require.Equal(t, soon.next, next)
}

// TestWatch_ListensOnceItIsWorthItsCost: not before looks are so far apart, and then by one connection.
func TestWatch_ListensOnceItIsWorthItsCost(t *testing.T) {
	f := newStore(t)
	f.watching.later = time.Minute
	w := &watch{next: time.Now().Add(time.Hour), pause: listenAfter - 1}
	p := &poller{watches: map[*watch]struct{}{w: {}}, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(f.ctx())
	listens := func() bool {
		f.watching.mu.Lock()
		defer f.watching.mu.Unlock()
		return p.listener
	}
	f.takeDue(ctx, p)
	require.False(t, listens())
	w.pause = listenAfter
	f.takeDue(ctx, p)
	require.True(t, listens())
	cancel()
	waitUntil(t, "who listens has gone", func() bool { return !listens() })
	f.takeDue(ctx, p)
	require.False(t, listens(), "it has just failed")
}

// TestWatch_NotifiesOnlyWhatIsWatched: what nobody waits for is told to nobody, since commits that notify wait for
// each other.
func TestWatch_NotifiesOnlyWhatIsWatched(t *testing.T) {
	f := newStore(t)
	conn, err := f.pool.Acquire(f.ctx())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(f.ctx(), "listen "+channel)
	require.NoError(t, err)
	quiet, watched := f.claimed(), f.claimed()
	f.exec("insert into idemflight_watched (claim) values ($1)", watched.ID[:])
	f.settles(quiet, retain("value"))
	f.settles(watched, retain("value"))
	for { // the channel is that of all tests of the database
		n, err := conn.Conn().WaitForNotification(f.ctx())
		require.NoError(t, err)
		require.NotEqual(t, hex.EncodeToString(quiet.ID[:]), n.Payload)
		if n.Payload == hex.EncodeToString(watched.ID[:]) {
			return
		}
	}
}

// TestWatch_LosesTheConnection: whoever listens falls back to looking, and listens again later.
func TestWatch_LosesTheConnection(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	answer := f.watch(f.ctx(), c)
	waitUntil(t, "the claim is marked", func() bool { return f.marked(c) })
	before := time.Now()
	f.exec(`select pg_terminate_backend(pid) from pg_stat_activity where query = $1 and pid in
		(select pid from pg_stat_activity where application_name = $2)`, "listen "+channel, f.schema)
	var again time.Time
	waitUntil(t, "the connection is lost", func() bool {
		f.watching.mu.Lock()
		defer f.watching.mu.Unlock()
		again = f.watching.poller.again
		return !f.watching.poller.listener
	})
	require.Greater(t, again.Sub(before), 5*time.Second, "a server that ends it, or refuses it, is left alone for a while")
	require.Empty(t, answer)
	f.settles(c, retain("value"))
	require.NoError(t, <-answer)
}

// TestSweep_Marks: those of long ago, whose claims have ended by all that is likely.
func TestSweep_Marks(t *testing.T) {
	f := newStore(t)
	f.exec("insert into idemflight_watched values ($1, now() - interval '2 days'), ($2, now())", []byte("old"), []byte("new"))
	n, err := f.Sweep(f.ctx(), 10)
	require.NoError(t, err)
	require.Zero(t, n, "marks do not count")
	var marks []string
	require.NoError(t, f.pool.QueryRow(f.ctx(), "select array_agg(encode(claim, 'escape')) from idemflight_watched").Scan(&marks))
	require.Equal(t, []string{"new"}, marks)
}

func (f fixture) marked(c idemflight.Claim) (is bool) {
	f.t.Helper()
	require.NoError(f.t, f.pool.QueryRow(f.ctx(), "select exists (select from idemflight_watched where claim = $1)", c.ID[:]).Scan(&is))
	return is
}

// looksAreFarApart lets the poller look at all that it watches now, and then not for an hour.
func (f fixture) looksAreFarApart() {
	f.watching.mu.Lock()
	defer f.watching.mu.Unlock()
	f.watching.later = time.Hour
	for w := range f.watching.poller.watches {
		w.pause, w.next = time.Hour, time.Time{}
	}
	f.watching.poller.wake()
}

// settlesInTx settles c in a transaction, as SettleTx does.
func (f fixture) settlesInTx(c idemflight.Claim) {
	f.t.Helper()
	require.NoError(f.t, pgx.BeginFunc(f.ctx(), f.pool, func(tx pgx.Tx) error {
		return f.settleTx(c, retain("value"), func(args ...any) (int64, error) {
			tag, err := tx.Exec(f.ctx(), f.sql.settle, args...)
			return tag.RowsAffected(), err
		})
	}))
}
