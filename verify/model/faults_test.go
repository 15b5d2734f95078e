package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemflight/idemflight"
)

// bent is a cache with a fault: what is not nil is asked instead of the cache.
type bent struct {
	cache
	call                func(ctx context.Context, c call, way way, fn fnOf) (result, error)
	lookup              func(key string) (idemflight.Entry[int], bool)
	unsettled           func(each func(string, idemflight.Entry[int]) bool)
	forget              func(ctx context.Context, key string) bool
	resolve             func(ctx context.Context, key string, value int, err error) error
	reconcile           func(ctx context.Context, key string) (idemflight.Entry[int], error)
	restore             func(key string, e idemflight.Entry[int]) error
	save                func(w io.Writer) error
	load                func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error)
	length              func() int
	stats               func() idemflight.Stats
	close               func(ctx context.Context) error
	shown               func(e idemflight.Entry[int]) idemflight.Entry[int]
	evicted, hookPanics atomic.Uint64
}

func (b *bent) do(ctx context.Context, c *call, way way, fn fnOf) (result, error) {
	if b.call != nil && ctx != nil && fn != nil { // what wraps a nil fn would hide the misuse, and wait
		return b.call(ctx, *c, way, fn)
	}
	return b.cache.do(ctx, c, way, fn)
}

func (b *bent) Lookup(_ context.Context, key string) (idemflight.Entry[int], bool, error) {
	if b.lookup != nil {
		e, ok := b.lookup(key)
		return e, ok, nil
	}
	e, ok := b.look(key)
	if b.shown != nil && ok {
		e = b.shown(e)
	}
	return e, ok, nil
}

// look is Lookup without the fault.
func (b *bent) look(key string) (idemflight.Entry[int], bool) {
	e, ok, _ := b.cache.Lookup(context.Background(), key)
	return e, ok
}

// drop is Forget without the fault, which nobody hears of.
func (b *bent) drop(key string) { _, _ = b.cache.Forget(unheard, key) }

// unheard is the context of what a fault does behind the program's back: see untold.
var unheard = context.WithValue(context.Background(), callIDKey{}, -2)

func (b *bent) All() iter.Seq2[string, idemflight.Entry[int]] {
	return func(yield func(string, idemflight.Entry[int]) bool) {
		for key, e := range b.cache.All() {
			if b.shown != nil {
				e = b.shown(e)
			}
			if !yield(key, e) {
				return
			}
		}
	}
}

func (b *bent) Unsettled(ctx context.Context, each func(string, idemflight.Entry[int]) bool) error {
	if b.unsettled != nil {
		b.unsettled(each)
		return nil
	}
	return b.cache.Unsettled(ctx, func(key string, e idemflight.Entry[int]) bool {
		if b.shown != nil {
			e = b.shown(e)
		}
		return each(key, e)
	})
}

func (b *bent) Forget(ctx context.Context, key string) (bool, error) {
	if b.forget != nil {
		return b.forget(ctx, key), nil
	}
	return b.cache.Forget(ctx, key)
}

func (b *bent) Resolve(ctx context.Context, key string, value int, err error) error {
	if b.resolve != nil {
		return b.resolve(ctx, key, value, err)
	}
	return b.cache.Resolve(ctx, key, value, err)
}

func (b *bent) Reconcile(ctx context.Context, key string) (idemflight.Entry[int], error) {
	if b.reconcile != nil {
		return b.reconcile(ctx, key)
	}
	e, err := b.cache.Reconcile(ctx, key)
	if b.shown != nil && e.State != idemflight.Absent {
		e = b.shown(e)
	}
	return e, err
}

func (b *bent) Restore(ctx context.Context, key string, e idemflight.Entry[int]) error {
	if b.restore != nil {
		return b.restore(key, e)
	}
	return b.cache.Restore(ctx, key, e)
}

func (b *bent) Save(w io.Writer) error {
	if b.save != nil {
		return b.save(w)
	}
	return b.cache.Save(w)
}

func (b *bent) Load(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
	if b.load != nil {
		return b.load(ctx, r)
	}
	return b.cache.Load(ctx, r)
}

func (b *bent) Len() int {
	if b.length != nil {
		return b.length()
	}
	return b.cache.Len()
}

func (b *bent) Stats() idemflight.Stats {
	if b.stats != nil {
		return b.stats()
	}
	s := b.cache.Stats()
	s.Evicted += b.evicted.Load()
	s.HookPanics += b.hookPanics.Load()
	return s
}

func (b *bent) Close(ctx context.Context) error {
	if b.close != nil {
		return b.close(ctx)
	}
	return b.cache.Close(ctx)
}

// evict evicts key as if the cache had done so.
func (b *bent) evict(o *options, key string) {
	e := event{Kind: idemflight.EventEvicted, Key: key}
	if old, _ := b.look(key); old.State == idemflight.Held {
		e.Err = idemflight.ErrOutcomeUnknown
	}
	b.drop(key)
	b.evicted.Add(1)
	defer func() {
		if recover() != nil {
			b.hookPanics.Add(1) // of the Observer
		}
	}()
	o.Observer(context.Background(), e)
}

// holdAnew makes a function that holds a held key anew, and so ends its pause; until the cache is closed.
func (b *bent) holdAnew() func(key string) {
	var mu sync.Mutex
	closed := false
	b.close = func(ctx context.Context) error {
		mu.Lock()
		closed = true
		mu.Unlock()
		return b.cache.Close(ctx)
	}
	return func(key string) {
		mu.Lock()
		defer mu.Unlock()
		if e, _ := b.look(key); e.State == idemflight.Held && !closed {
			b.drop(key)
			_ = b.cache.Restore(unheard, key, e)
		}
	}
}

// loads makes a fault of what Load has brought back: change reports whether it has changed an entry, which is
// then put in place of that. Without a State nothing is.
func loads(change func(o *options, e *idemflight.Entry[int]) (changed bool)) func(*options, *bent) {
	return func(o *options, b *bent) {
		b.load = func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
			before := maps.Collect(b.cache.All())
			report, err := b.cache.Load(ctx, r)
			for key, e := range maps.Collect(b.cache.All()) {
				if _, was := before[key]; was || e.Value%100 == unweighed || !change(o, &e) {
					continue // what Weigh panics at would be told twice
				}
				if b.drop(key); e.State != idemflight.Absent {
					_ = b.cache.Restore(unheard, key, e)
				}
			}
			return report, err
		}
	}
}

// loadAnswers makes a fault of what Load returns.
func loadAnswers(change func(report *idemflight.LoadReport, err *error)) func(*options, *bent) {
	return func(_ *options, b *bent) {
		b.load = func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
			report, err := b.cache.Load(ctx, r)
			change(&report, &err)
			return report, err
		}
	}
}

// victim returns a key that is as wanted, if c is full.
func victim(c cache, max int, want func(idemflight.Entry[int]) bool) (found string) {
	s := c.Stats()
	if s.InFlight+s.Entries < max {
		return ""
	}
	for key, e := range c.All() {
		if want(e) {
			return key
		}
	}
	return ""
}

// faults are caches that break the contract in one way each.
var faults = map[string]func(o *options, b *bent){
	"an outcome is replayed at the instant of its deadline": func(o *options, b *bent) {
		ttl := o.TTL
		o.TTL++
		back := func(completed, expires time.Time) time.Time {
			if expires.Sub(completed) == ttl+1 {
				return expires.Add(-1)
			}
			return expires
		}
		b.shown = func(e idemflight.Entry[int]) idemflight.Entry[int] {
			e.ExpiresAt = back(e.CompletedAt, e.ExpiresAt)
			return e
		}
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			res.ExpiresAt = back(res.CompletedAt, res.ExpiresAt)
			return res, err
		}
	},
	"a replay extends the TTL": func(o *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if e, ok := b.look(c.key); ok && res.Source == idemflight.Replayed {
				b.drop(c.key)
				e.ExpiresAt = time.Now().Add(o.TTL)
				_ = b.cache.Restore(unheard, c.key, e)
			}
			return res, err
		}
	},
	"WithTTL(0) retains": func(o *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if c.ttl != nil && *c.ttl == 0 {
				c.ttl = nil
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"HoldTTL is not heeded": func(o *options, _ *bent) { o.HoldTTL = o.TTL },
	"Forget drops nothing": func(_ *options, b *bent) {
		b.forget = func(_ context.Context, key string) bool { _, ok := b.look(key); return ok }
	},
	"Forget of a flight lets its outcome be retained": func(_ *options, b *bent) {
		b.forget = func(ctx context.Context, key string) bool {
			if e, _ := b.look(key); e.State == idemflight.InFlight {
				return true
			}
			ok, _ := b.cache.Forget(ctx, key)
			return ok
		}
	},
	"the fingerprint is ignored": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			c.fp = idemflight.Fingerprint{}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"NoWait waits": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if c.maxWait != nil && *c.maxWait < 0 {
				c.maxWait = nil
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"MaxWaiters is one too high": func(o *options, _ *bent) {
		if o.MaxWaiters > 0 {
			o.MaxWaiters++
		}
	},
	"an Inline leader leaves": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			c.inline = false
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"fn ends with its leader": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(inner context.Context) (int, error) {
				done := make(chan struct{})
				var v int
				var err error
				go func() {
					defer close(done)
					defer func() { _ = recover() }()
					v, err = fn(inner)
				}()
				select {
				case <-done:
					return v, err
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			})
		}
	},
	"who joins runs fn again": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if e, _ := b.look(c.key); e.State == idemflight.InFlight {
				v, err := fn(ctx)
				return result{Value: v, Source: idemflight.Joined}, err
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"a replay brings the value of another key": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if e, ok := b.look("k0"); ok && res.Source == idemflight.Replayed && c.key != "k0" {
				res.Value = e.Value
			}
			return res, err
		}
	},
	"callers see the marker": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if res.Source == idemflight.Replayed {
				err = idemflight.Final(err)
			}
			return res, err
		}
	},
	"an unknown outcome is released": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				if err != nil && idemflight.ClassifyLenient(err) == idemflight.Hold {
					err = idemflight.Retryable(err)
				}
				return v, err
			})
		}
	},
	"an effect that has begun does not count": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				for range 3 {
					idemflight.NoEffect(ctx)
				}
				return v, err
			})
		}
	},
	"NoEffect takes back all that has begun": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				if c.fn != nil && c.fn.err != nil && !c.fn.err.marks() && len(c.fn.effects) > 0 && c.fn.effects[len(c.fn.effects)-1] == noneOf {
					err = idemflight.Retryable(err)
				}
				return v, err
			})
		}
	},
	"a panic becomes an error": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (v int, err error) {
				defer func() {
					if r := recover(); r != nil {
						err = &idemflight.PanicError{Value: r}
					}
				}()
				return fn(ctx)
			})
		}
	},
	"after Goexit the others get nothing": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if errors.Is(err, idemflight.ErrGoexit) {
				err = nil
			}
			return res, err
		}
	},
	"a dead context gets no replay": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if ctx.Err() != nil {
				c.key = "no such key"
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"Resolve with an error of no meaning releases": func(_ *options, b *bent) {
		b.resolve = func(ctx context.Context, key string, value int, err error) error {
			if err != nil {
				err = idemflight.Retryable(err)
			}
			return b.cache.Resolve(ctx, key, value, err)
		}
	},
	"Resolve acts on what is retained": func(_ *options, b *bent) {
		b.resolve = func(ctx context.Context, key string, value int, err error) error {
			if e, _ := b.look(key); e.State == idemflight.Retained {
				b.drop(key)
				return nil
			}
			return b.cache.Resolve(ctx, key, value, err)
		}
	},
	"a panic in Reconcile releases": func(o *options, _ *bent) {
		ask := o.Reconcile
		if ask == nil {
			return
		}
		o.Reconcile = func(ctx context.Context, key string, held idemflight.Entry[int]) (v int, err error) {
			defer func() {
				if r := recover(); r != nil {
					err = idemflight.Retryable(errors.New("panic"))
				}
			}()
			return ask(ctx, key, held)
		}
	},
	"Reconcile is not told the error": func(o *options, _ *bent) {
		ask := o.Reconcile
		if ask == nil {
			return
		}
		o.Reconcile = func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
			held.Err = nil
			return ask(ctx, key, held)
		}
	},
	"what was in flight is restored as retained": func(o *options, b *bent) {
		b.restore = func(key string, e idemflight.Entry[int]) error {
			if e.State == idemflight.InFlight {
				e.State, e.ExpiresAt = idemflight.Retained, time.Now().Add(o.TTL)
			}
			return b.cache.Restore(unheard, key, e)
		}
	},
	"Restore overwrites": func(_ *options, b *bent) {
		b.restore = func(key string, e idemflight.Entry[int]) error {
			if old, ok := b.look(key); ok && old.State == idemflight.Retained {
				b.drop(key)
			}
			return b.cache.Restore(unheard, key, e)
		}
	},
	"what was in flight is free after a restart": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		interrupted := e.State == idemflight.Held && e.Err == idemflight.ErrInterrupted
		if interrupted {
			e.State = idemflight.Absent
		}
		return interrupted
	}),
	"what was in flight is retained after a restart": loads(func(o *options, e *idemflight.Entry[int]) bool {
		interrupted := e.State == idemflight.Held && e.Err == idemflight.ErrInterrupted
		if interrupted {
			e.State, e.ExpiresAt = idemflight.Retained, time.Now().Add(o.TTL)
		}
		return interrupted
	}),
	"what is held is free after a restart": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		held := e.State == idemflight.Held && e.Err != idemflight.ErrInterrupted
		if held {
			e.State = idemflight.Absent
		}
		return held
	}),
	"why a key is held is forgotten by a restart": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		return e.State == idemflight.Held && e.Err != idemflight.ErrInterrupted
	}),
	"a restart begins the TTL anew": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		older := e.State == idemflight.Retained && e.CompletedAt.Before(time.Now())
		e.ExpiresAt = e.ExpiresAt.Add(time.Since(e.CompletedAt))
		return older
	}),
	"a restart loses fingerprints": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		has := e.State == idemflight.Retained && e.Fingerprint != idemflight.Fingerprint{}
		e.Fingerprint = idemflight.Fingerprint{}
		return has
	}),
	"a restart loses values": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		has := e.State == idemflight.Retained && e.Value != 0
		e.Value = 0
		return has
	}),
	"a restart loses what errors.Is finds": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		has := e.State == idemflight.Retained && e.Err != nil
		if has {
			e.Err = errors.New(e.Err.Error())
		}
		return has
	}),
	"a restart loses what errors say": loads(func(_ *options, e *idemflight.Entry[int]) bool {
		stored, ok := e.Err.(*idemflight.StoredError)
		if ok = ok && e.State == idemflight.Retained; ok {
			e.Err = &idemflight.StoredError{Names: stored.Names}
		}
		return ok
	}),
	"Load overwrites what is there": func(o *options, b *bent) {
		b.load = func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
			stream, _ := io.ReadAll(r)
			other := idemflight.MustNew(options{Codec: o.Codec})
			_, _ = other.Load(ctx, bytes.NewReader(stream))
			for key := range other.All() {
				if e, _ := b.look(key); e.State == idemflight.Retained {
					b.drop(key)
				}
			}
			return b.cache.Load(ctx, bytes.NewReader(stream))
		}
	},
	"Load does not notice a cut": loadAnswers(func(_ *idemflight.LoadReport, err *error) {
		if errors.Is(*err, io.ErrUnexpectedEOF) {
			*err = nil
		}
	}),
	"Load does not notice a changed byte": loadAnswers(func(_ *idemflight.LoadReport, err *error) {
		if *err != nil && strings.Contains((*err).Error(), "was changed") {
			*err = nil
		}
	}),
	"Load says nothing of what it refuses": loadAnswers(func(report *idemflight.LoadReport, err *error) {
		if report.Refused > 0 {
			*err = nil
		}
	}),
	"Load refuses what has expired": loadAnswers(func(report *idemflight.LoadReport, _ *error) {
		report.Refused, report.Expired = report.Refused+report.Expired, 0
	}),
	"Load counts what was interrupted as restored": loadAnswers(func(report *idemflight.LoadReport, _ *error) {
		report.Restored, report.Interrupted = report.Restored+report.Interrupted, 0
	}),
	"a damaged stream is not loaded at all": func(_ *options, b *bent) {
		b.load = func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
			before := maps.Collect(b.cache.All())
			report, err := b.cache.Load(ctx, r)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				for key := range b.cache.All() {
					if _, was := before[key]; !was {
						b.drop(key)
					}
				}
				return idemflight.LoadReport{}, err
			}
			return report, err
		}
	},
	"Load is told": func(o *options, b *bent) {
		b.load = func(ctx context.Context, r io.Reader) (idemflight.LoadReport, error) {
			report, err := b.cache.Load(ctx, r)
			for range report.Restored {
				tell(ctx, o, event{Kind: idemflight.EventResolved})
			}
			return report, err
		}
	},
	"Save says nothing of what it could not write": func(_ *options, b *bent) {
		b.save = func(w io.Writer) error { _ = b.cache.Save(w); return nil }
	},
	"a closed cache saves nothing": func(o *options, b *bent) {
		closed := false
		b.close = func(ctx context.Context) error { closed = true; return b.cache.Close(ctx) }
		b.save = func(w io.Writer) error {
			if closed {
				return idemflight.MustNew(options{Codec: o.Codec}).Save(w)
			}
			return b.cache.Save(w)
		}
	},
	"Save takes away what it has written": func(_ *options, b *bent) {
		b.save = func(w io.Writer) error {
			err := b.cache.Save(w)
			for key, e := range b.cache.All() {
				if e.State == idemflight.Retained {
					b.drop(key)
				}
			}
			return err
		}
	},
	"WithTTL(0) counts for what Reconcile finds": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if res.Source == idemflight.Reconciled && c.ttl != nil && *c.ttl <= 0 {
				b.drop(c.key)
			}
			return res, err
		}
	},
	"the pause goes on for the next hold of its key": func(o *options, b *bent) {
		var mu sync.Mutex
		type pause struct{ of, begins time.Time }
		pauses := map[string]pause{}
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			e, _ := b.look(c.key)
			mu.Lock()
			p, ok := pauses[c.key]
			mu.Unlock()
			if ok && time.Since(p.begins) < time.Second && e.State == idemflight.Held && !e.StartedAt.Equal(p.of) && e.Fingerprint == c.fp {
				err := fmt.Errorf("Reconcile learned nothing: %w", idemflight.ErrOutcomeUnknown)
				tell(ctx, o, event{Kind: idemflight.EventRejected, Key: c.key, Err: err})
				return result{}, err
			}
			res, err := b.cache.do(ctx, &c, way, fn)
			if e, _ := b.look(c.key); err != nil && strings.Contains(err.Error(), "Reconcile learned nothing") {
				mu.Lock()
				pauses[c.key] = pause{e.StartedAt, time.Now()}
				mu.Unlock()
			}
			return res, err
		}
	},
	"Close refuses nothing": func(_ *options, b *bent) { b.close = func(context.Context) error { return nil } },
	"Close does not wait": func(_ *options, b *bent) {
		b.close = func(context.Context) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = b.cache.Close(ctx)
			return nil
		}
	},
	"MinRetention protects nothing": func(o *options, _ *bent) { o.MinRetention = -1 },
	"there is one place less":       func(o *options, _ *bent) { o.MaxEntries = max(1, o.MaxEntries-1) },
	"there is one place more":       func(o *options, _ *bent) { o.MaxEntries++ },
	"held keys are evicted": func(o *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if _, ok := b.look(c.key); !ok && c.key != "" && ctx.Err() == nil {
				if key := victim(b.cache, o.MaxEntries, func(e idemflight.Entry[int]) bool { return e.State == idemflight.Held }); key != "" {
					b.evict(o, key)
				}
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"what is replayed often is evicted": func(o *options, b *bent) {
		var replayed atomic.Value // the key that was last met
		replayed.Store("")
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			last := replayed.Load().(string)
			if _, ok := b.look(c.key); ok {
				replayed.Store(c.key)
			} else if s := b.cache.Stats(); strings.HasPrefix(c.key, "new") && s.InFlight+s.Entries == o.MaxEntries {
				if e, _ := b.look(last); e.State == idemflight.Retained && o.MinRetention < 0 {
					b.evict(o, last)
				}
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"what fn says nothing about is released": func(o *options, _ *bent) {
		if o.Classify == nil {
			o.Classify = func(error) idemflight.Disposition { return idemflight.Release }
		}
	},
	"EffectsAnnounced is ignored":           func(o *options, _ *bent) { o.EffectsAnnounced = false },
	"EffectsAnnounced is taken for granted": func(o *options, _ *bent) { o.EffectsAnnounced = true },
	"a second NoEffect takes back one more": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				if c.fn != nil && c.fn.err != nil && !c.fn.err.marks() && slices.Equal(c.fn.effects, []effect{begin, begin, noneOf, noneOf}) {
					err = idemflight.Retryable(err)
				}
				return v, err
			})
		}
	},
	"HoldTTL is a day if not given": func(o *options, _ *bent) {
		if o.HoldTTL == 0 {
			o.HoldTTL = 24 * time.Hour
		}
	},
	"HoldTTL, if not given, is less than TTL": func(o *options, _ *bent) {
		if o.HoldTTL == 0 {
			o.HoldTTL = 7 * 24 * time.Hour
		}
	},
	"there is no last resort": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				if err != nil && b.Options().Classify == nil && !b.Options().EffectsAnnounced && c.fn != nil && c.fn.err != nil && !c.fn.err.marks() && c.fn.effects == nil {
					err = idemflight.Unknown(err) // held as ever, but not for want of a word
				}
				return v, err
			})
		}
	},
	"what is marked Unknown is evicted as the last resort": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				v, err := fn(ctx)
				if c.fn != nil && c.fn.err != nil && c.fn.err.form == marker && c.fn.err.d == idemflight.Hold && c.fn.effects == nil &&
					b.Options().Classify == nil && !b.Options().EffectsAnnounced && !c.fn.err.kids[0].marks() {
					err = c.fn.err.kids[0].err
				}
				return v, err
			})
		}
	},
	"an evicted hold is told like an outcome": func(o *options, _ *bent) {
		tell := o.Observer
		o.Observer = func(ctx context.Context, e event) {
			if e.Kind == idemflight.EventEvicted {
				e.Err = nil
			}
			tell(ctx, e)
		}
	},
	"after a Reconcile that learned nothing there is no pause": func(_ *options, b *bent) {
		anew := b.holdAnew()
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if err != nil && strings.Contains(err.Error(), "Reconcile learned nothing") {
				anew(c.key)
			}
			return res, err
		}
	},
	"Cache.Reconcile begins no pause": func(_ *options, b *bent) {
		anew := b.holdAnew()
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			e, err := b.cache.Reconcile(ctx, key)
			if errors.Is(err, idemflight.ErrOutcomeUnknown) {
				anew(key)
			}
			return e, err
		}
	},
	"Cache.Reconcile obeys the pause": func(_ *options, b *bent) {
		var mu sync.Mutex
		learned := map[string]time.Time{}
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			mu.Lock()
			last, ok := learned[key]
			mu.Unlock()
			if e, _ := b.look(key); ok && e.State == idemflight.Held && time.Since(last) < time.Second {
				return e, idemflight.ErrOutcomeUnknown
			}
			e, err := b.cache.Reconcile(ctx, key)
			if e.State == idemflight.Held {
				mu.Lock()
				learned[key] = time.Now()
				mu.Unlock()
			}
			return e, err
		}
	},
	"Cache.Reconcile tells the entry as it was": func(_ *options, b *bent) {
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			was, _ := b.look(key)
			_, err := b.cache.Reconcile(ctx, key)
			return was, err
		}
	},
	"Cache.Reconcile does not leave": func(_ *options, b *bent) {
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			return b.cache.Reconcile(context.WithoutCancel(ctx), key)
		}
	},
	"Cache.Reconcile waits for fn": func(_ *options, b *bent) {
		var running sync.Map // a channel by key, closed when fn ends
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				ends := make(chan struct{})
				defer close(ends)
				running.Store(c.key, ends)
				return fn(ctx)
			})
		}
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			e, err := b.cache.Reconcile(ctx, key)
			if ends, ok := running.Load(key); ok && err == nil && e.State == idemflight.InFlight {
				<-ends.(chan struct{})
			}
			return e, err
		}
	},
	"Cache.Reconcile of what is not held says nothing": func(_ *options, b *bent) {
		b.reconcile = func(ctx context.Context, key string) (idemflight.Entry[int], error) {
			e, err := b.cache.Reconcile(ctx, key)
			if errors.Is(err, idemflight.ErrNotHeld) {
				err = nil
			}
			return e, err
		}
	},
	"an Inline leader cannot leave while Reconcile runs": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if e, _ := b.look(c.key); c.inline && e.State == idemflight.Held && ctx.Err() == nil {
				ctx = context.WithoutCancel(ctx)
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"MaxWait does not bound who waits for its own Reconcile": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			if e, _ := b.look(c.key); e.State == idemflight.Held {
				c.maxWait = nil
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"NoWait starts no Reconcile": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			e, _ := b.look(c.key)
			if e.State == idemflight.Held && e.Fingerprint == c.fp && c.maxWait != nil && *c.maxWait <= 0 && ctx.Err() == nil && b.Options().Reconcile != nil {
				b.Options().Observer(ctx, event{Kind: idemflight.EventRejected, Key: c.key, Err: idemflight.ErrInFlight})
				return result{}, idemflight.ErrInFlight
			}
			return b.cache.do(ctx, &c, way, fn)
		}
	},
	"a flight with nobody's fn to run is not told": func(o *options, _ *bent) {
		var asked sync.Map // contexts of Reconcile
		ask, tell := o.Reconcile, o.Observer
		if ask == nil {
			return
		}
		o.Reconcile = func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
			asked.Store(ctx, true)
			return ask(ctx, key, held)
		}
		o.Observer = func(ctx context.Context, e event) {
			_, ok := asked.Load(ctx)
			if !ok || e.Kind != idemflight.EventFinished || e.Disposition != idemflight.Release {
				tell(ctx, e)
			}
		}
	},
	"who looks again gets the error of Reconcile": func(o *options, b *bent) {
		ask := o.Reconcile
		if ask == nil {
			return
		}
		var released sync.Map // keys of which Reconcile has said so
		o.Reconcile = func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
			v, err := ask(ctx, key, held)
			if err != nil && err.Error() == "none" {
				released.Store(key, err)
			}
			return v, err
		}
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			e, _ := b.look(c.key)
			return b.cache.do(ctx, &c, way, func(ctx context.Context) (int, error) {
				if err, ok := released.LoadAndDelete(c.key); ok && e.State == idemflight.InFlight {
					return 0, err.(error)
				}
				return fn(ctx)
			})
		}
	},
	"who joins gets the leader's panic": func(_ *options, b *bent) {
		b.call = func(ctx context.Context, c call, way way, fn fnOf) (result, error) {
			res, err := b.cache.do(ctx, &c, way, fn)
			if p := (*idemflight.PanicError)(nil); res.Source == idemflight.Joined && errors.As(err, &p) && p.Stack == nil {
				p.Stack = []byte("stack")
			}
			return res, err
		}
	},
	"Resolve of what is not held succeeds": func(_ *options, b *bent) {
		b.resolve = func(ctx context.Context, key string, value int, err error) error {
			if err := b.cache.Resolve(ctx, key, value, err); !errors.Is(err, idemflight.ErrNotHeld) {
				return err
			}
			return nil
		}
	},
	"Restore of what has expired says so in words only": func(_ *options, b *bent) {
		b.restore = func(key string, e idemflight.Entry[int]) error {
			err := b.cache.Restore(unheard, key, e)
			if errors.Is(err, idemflight.ErrExpired) {
				err = errors.New(err.Error())
			}
			return err
		}
	},
	"Unsettled leaves out what is in flight": func(_ *options, b *bent) {
		b.unsettled = func(each func(string, idemflight.Entry[int]) bool) {
			_ = b.cache.Unsettled(unheard, func(key string, e idemflight.Entry[int]) bool {
				return e.State == idemflight.InFlight || each(key, e)
			})
		}
	},
	"Unsettled shows what is retained, too": func(_ *options, b *bent) {
		b.unsettled = func(each func(string, idemflight.Entry[int]) bool) {
			b.cache.All()(each)
		}
	},
	"Unsettled does not stop": func(_ *options, b *bent) {
		b.unsettled = func(each func(string, idemflight.Entry[int]) bool) {
			_ = b.cache.Unsettled(unheard, func(key string, e idemflight.Entry[int]) bool {
				each(key, e)
				return true
			})
		}
	},
	"Unsettled shows the youngest first": func(_ *options, b *bent) {
		b.unsettled = func(each func(string, idemflight.Entry[int]) bool) {
			var keys []string
			_ = b.cache.Unsettled(unheard, func(key string, _ idemflight.Entry[int]) bool {
				keys = append(keys, key)
				return true
			})
			for _, key := range slices.Backward(keys) {
				if e, _ := b.look(key); !each(key, e) {
					return
				}
			}
		}
	},
	"a Forget is not told":            without(idemflight.EventForgotten),
	"a Resolve is not told":           without(idemflight.EventResolved),
	"what is unannounced is not told": without(idemflight.EventUnannounced),
	"an eviction is not told":         without(idemflight.EventEvicted),
	"an expiry is not told":           without(idemflight.EventExpired),
	"a replay is not told":            without(idemflight.EventReplayed),
	"a finished flight is not told":   without(idemflight.EventFinished),
	"an expiry is told twice": func(o *options, _ *bent) {
		tell := o.Observer
		o.Observer = func(ctx context.Context, e event) {
			tell(ctx, e)
			if e.Kind == idemflight.EventExpired {
				tell(ctx, e)
			}
		}
	},
	"MaxWeight is one too high": func(o *options, _ *bent) {
		if o.MaxWeight > 0 {
			o.MaxWeight++
		}
	},
	"a shed is told of another key": func(o *options, _ *bent) {
		tell := o.Observer
		o.Observer = func(ctx context.Context, e event) {
			if e.Kind == idemflight.EventShed {
				e.Key = "k" + e.Key
			}
			tell(ctx, e)
		}
	},
	"a join is counted as a replay": func(_ *options, b *bent) {
		b.stats = func() idemflight.Stats {
			s := b.cache.Stats()
			s.Replayed, s.Joined = s.Replayed+s.Joined, 0
			return s
		}
	},
	"panics are counted once too often": func(_ *options, b *bent) {
		b.stats = func() idemflight.Stats {
			s := b.cache.Stats()
			if s.Panics > 0 {
				s.Panics++
			}
			return s
		}
	},
	"Len counts flights": func(_ *options, b *bent) {
		b.length = func() int { s := b.cache.Stats(); return s.Entries + s.InFlight }
	},
	"Lookup counts as a use": func(_ *options, b *bent) {
		b.lookup = func(key string) (idemflight.Entry[int], bool) {
			e, ok := b.look(key)
			if e.State == idemflight.Retained {
				_, _ = b.Do(context.Background(), key, func(context.Context) (int, error) { return 0, nil }, idemflight.WithFingerprint(e.Fingerprint))
			}
			return e, ok
		}
	},
}

// tell tells the program's Observer, and contains its panic, as the library does.
func tell(ctx context.Context, o *options, e event) {
	defer func() { _ = recover() }()
	o.Observer(ctx, e)
}

// without is the fault that events of a kind are not told.
func without(kind idemflight.EventKind) func(*options, *bent) {
	return func(o *options, _ *bent) {
		tell := o.Observer
		o.Observer = func(ctx context.Context, e event) {
			if e.Kind != kind {
				tell(ctx, e)
			}
		}
	}
}

// untold is tell, but for what a fault does behind the program's back.
func untold(tell func(context.Context, event)) func(context.Context, event) {
	return func(ctx context.Context, e event) {
		if ctx != unheard {
			tell(ctx, e)
		}
	}
}

// plant returns what makes a cache with the fault.
func plant(fault func(*options, *bent)) func(options) target {
	return func(o options) target {
		b := &bent{}
		o.Observer = untold(o.Observer)
		fault(&o, b)
		b.cache = cache{idemflight.MustNew(o)}
		return b
	}
}

// TestModelFindsPlantedFaults runs the same programs against caches that are wrong in one way each.
func TestModelFindsPlantedFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			programs := 0
			var found error
			for range 5 { // some are rare: found by some hundredth program, mostly
				rapid.Check(t, func(t *rapid.T) {
					if found != nil {
						return
					}
					programs++
					rapid.SyncTest(t, func(t *rapid.T) { _, found = run(t, plant(fault)) })
				})
			}
			require.Error(t, found, "the model has not found the fault in %d programs", programs)
			t.Logf("found by program %d: %v", programs, found)
		})
	}
}
