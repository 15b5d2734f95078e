package storetest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// The promises 28 to 44, of a cache over a Store: two caches over one Memory are two processes.

// Promise 32: Not promised, since no library can: a process that is paused between BeginEffect and
// its effect, for longer than its lease, may still have that effect after Reconcile has found none.
// See docs/stores.md#what-no-library-can-promise.

// Promise 33: If the engine loses what it had acknowledged, keys are forgotten and fn may run
// again; see docs/stores.md#which-one for when each engine does.

type (
	cache   = idemflight.Cache[string, int]
	options = idemflight.Options[string, int]
)

var (
	bg      = context.Background()
	errBoom = errors.New("boom")
)

const theKey = "key"

// over returns a cache over m, as another process would have it.
func over(t *testing.T, m idemflight.Store, change ...func(*options)) *cache {
	t.Helper()
	o := options{Store: m, Lease: 30 * time.Second}
	for _, change := range change {
		change(&o)
	}
	return idemflight.MustNew(o)
}

func announced(o *options) { o.EffectsAnnounced = true }

func always(o *options) { o.LocalTTL = -1 }

func returns(v int, err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return v, err }
}

func mustNotRun(t *testing.T) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		t.Error("fn runs")
		return 0, nil
	}
}

// counted returns an fn that counts its runs and returns v.
func counted(n *atomic.Int64, v int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		n.Add(1)
		return v, nil
	}
}

// blocked returns an fn that tells that it runs, and then waits for release.
func blocked(v int, err error) (fn func(context.Context) (int, error), runs, release chan struct{}) {
	runs, release = make(chan struct{}), make(chan struct{})
	return func(context.Context) (int, error) {
		close(runs)
		<-release
		return v, err
	}, runs, release
}

type answer struct {
	res idemflight.Result[int]
	err error
}

// start calls DoResult on a goroutine of its own.
func start(c *cache, ctx context.Context, fn func(context.Context) (int, error), opts ...idemflight.CallOption) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		res, err := c.DoResult(ctx, theKey, fn, opts...)
		answered <- answer{res, err}
	}()
	return answered
}

func must(v int, err error) int {
	if err != nil {
		panic(err)
	}
	return v
}

// slow calls c for theKey, and ends the lease once fn, or Reconcile, waits: the owner is thought dead.
func slow(t *testing.T, m *storetest.Memory, c *cache, fn func(context.Context) (int, error)) <-chan answer {
	t.Helper()
	var last idemflight.ClaimID
	m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
		if verb == "Claim" && when == storetest.After {
			last = c.ID
		}
		return nil
	})
	answered := start(c, bg, fn)
	synctest.Wait()
	m.Hook(nil)
	require.True(t, m.Kill(last))
	return answered
}

var payload = idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("payload")))

func TestNewWithAStoreNamesBadOptions(t *testing.T) {
	_, err := idemflight.New(options{Lease: time.Minute, LocalTTL: time.Minute})
	require.ErrorContains(t, err, "Options.Lease")
	require.ErrorContains(t, err, "Options.LocalTTL")
	_, err = idemflight.New(options{Store: storetest.Mem(), Lease: time.Millisecond})
	require.ErrorContains(t, err, "Options.Lease is 1ms: must be at least 1s")
	_, err = idemflight.New(idemflight.Options[struct{ A int }, error]{Store: storetest.Mem()})
	require.ErrorContains(t, err, "Options.Codec.EncodeKey")
	require.ErrorContains(t, err, "Options.Codec.EncodeValue")
	o := over(t, storetest.Mem(), func(o *options) { o.Lease = 0 }).Options()
	require.Equal(t, []time.Duration{30 * time.Second, time.Minute}, []time.Duration{o.Lease, o.LocalTTL})
}

// firstClaim returns where the ID of the first claim will be found.
func firstClaim(m *storetest.Memory) <-chan idemflight.ClaimID {
	ids := make(chan idemflight.ClaimID, 1)
	m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
		if verb == "Claim" && when == storetest.After {
			select {
			case ids <- c.ID:
			default:
			}
		}
		return nil
	})
	return ids
}
