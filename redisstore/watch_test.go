package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

// looks counts what is asked in pipelines, which is what a Store's watches are.
type looks struct {
	mu       sync.Mutex
	together int // the most commands of one pipeline
	n        int // pipelines
}

func (l *looks) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *looks) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *looks) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		l.mu.Lock()
		l.n++
		l.together = max(l.together, len(cmds))
		l.mu.Unlock()
		return next(ctx, cmds)
	}
}

func (l *looks) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// TestWatch_OnePollerForAll: a thousand who watch twenty claims ask for each claim once, are all told, and
// nothing goes on after the last.
func TestWatch_OnePollerForAll(t *testing.T) {
	c := shared(t)
	s := open(t, c)
	asked := &looks{}
	c.AddHook(asked)
	const keys, callers = 20, 50
	var claims []idemflight.Claim
	for i := range keys {
		claims = append(claims, claim(t, s, request(fmt.Sprint(i))))
	}
	before := goleak.IgnoreCurrent()

	var watching sync.WaitGroup
	told := make(chan idemflight.ClaimID, keys*callers)
	for _, c := range claims {
		for range callers {
			watching.Go(func() {
				if s.Watch(t.Context(), c) == nil {
					told <- c.ID
				}
			})
		}
	}
	await(t, "somebody has looked a few times", func() bool { return asked.count() > 3 })
	require.Empty(t, told, "watches that ended while all is in flight")
	settled(t, s, claims[0], idemflight.Settlement{Disposition: idemflight.Retain, TTL: hold})
	for range callers {
		require.Equal(t, claims[0].ID, <-told)
	}
	for _, c := range claims[1:] {
		settled(t, s, c, idemflight.Settlement{})
	}
	watching.Wait()
	require.Len(t, told, (keys-1)*callers)
	require.LessOrEqual(t, asked.together, keys, "commands of one look: one for each claim")
	goleak.VerifyNone(t, before)

	was := asked.count()
	time.Sleep(2 * short) // nothing can be shown to never happen; a poller that is left would look now
	require.Equal(t, was, asked.count(), "looks while nobody watches")
}

// TestWatch_Leaving: who leaves is not told, the others are; the last one stops the poller.
func TestWatch_Leaving(t *testing.T) {
	s := open(t, shared(t))
	c := claim(t, s, request("key"))
	before := goleak.IgnoreCurrent()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		leaving, staying := make(chan error), make(chan error)
		stay, leave := context.WithCancel(t.Context())
		go func() { leaving <- s.Watch(ctx, c) }()
		go func() { staying <- s.Watch(stay, c) }()
		cancel()
		require.ErrorIs(t, <-leaving, context.Canceled)
		select {
		case err := <-staying:
			require.Fail(t, "the other one has left, too", "%v", err)
		default:
		}
		leave()
		require.ErrorIs(t, <-staying, context.Canceled)
	}
	goleak.VerifyNone(t, before)
}

// TestWatch_LeaseEnds: also where nobody writes.
func TestWatch_LeaseEnds(t *testing.T) {
	s := open(t, shared(t))
	r := request("key")
	r.Lease = short
	claim(t, s, r)
	require.NoError(t, s.Watch(t.Context(), r.Claim))
	x := readOf(t, s, "key")
	require.Equal(t, idemflight.InFlight, x.State)
	require.Zero(t, x.ExpiresIn, "what is left of the lease")
}

// TestWatch_EngineGone: who watches is told that nobody can be asked.
func TestWatch_EngineGone(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: server(t), MaxRetries: -1, DialerRetries: 1})
	defer c.Close()
	s, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
	require.NoError(t, err)
	r := request("key")
	claim(t, s, r)
	watched := make(chan error)
	go func() { watched <- s.Watch(t.Context(), r.Claim) }()
	c.ShutdownNoSave(t.Context())
	err = <-watched
	require.Error(t, err)
	require.False(t, errors.Is(err, idemflight.ErrClaimLost) || errors.Is(err, idemflight.ErrInvalidKey), "%v is no answer", err)
}
