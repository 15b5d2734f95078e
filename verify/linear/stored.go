package linear

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// processes are two caches over one store, as two processes would have them. Each call is made in one of them.
type processes [2]target

// newProcesses returns a maker of processes whose store fails some of 1,000 verbs, half of them after it has acted.
func newProcesses(failing int) func(options) target {
	return func(o options) target {
		m := storetest.Mem()
		var mu sync.Mutex
		chance := rand.New(rand.NewPCG(rand.Uint64(), 1))
		m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error {
			mu.Lock()
			defer mu.Unlock()
			if chance.IntN(2000) < failing {
				return errFails
			}
			return nil
		})
		// A copy in memory may be older than a Forget in the other process, by as much as LocalTTL.
		o.Store, o.LocalTTL = m, -1
		return processes{newCache(o), newCache(o)}
	}
}

var errFails = errors.New("the engine fails")

func (p processes) one() target { return p[rand.IntN(len(p))] }

func (p processes) DoResult(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
	return p.one().DoResult(ctx, key, fn, opts...)
}
func (p processes) Forget(ctx context.Context, key int) (bool, error) {
	return p.one().Forget(ctx, key)
}
func (p processes) Lookup(ctx context.Context, key int) (idemflight.Entry[int], bool, error) {
	return p.one().Lookup(ctx, key)
}
func (p processes) Resolve(ctx context.Context, key, value int, err error) error {
	return p.one().Resolve(ctx, key, value, err)
}
func (p processes) Close(ctx context.Context) error {
	return errors.Join(p[0].Close(ctx), p[1].Close(ctx))
}
