package idemflight

import (
	"context"
)

// note is an event that waits until no lock is held.
type note[K comparable] struct {
	ctx   context.Context
	event Event[K]
}

// note adds an event of upkeep to notes, if anybody listens.
func (c *Cache[K, V]) note(notes *[]note[K], e Event[K]) {
	c.noteIn(context.Background(), notes, e)
}

// noteDropped is note for what left the memory. With a Store that was a copy, and nothing is lost.
func (c *Cache[K, V]) noteDropped(notes *[]note[K], e Event[K]) {
	if c.keeper == nil {
		c.note(notes, e)
	}
}

// noteIn is note for what an operator did; ctx is the operator's.
func (c *Cache[K, V]) noteIn(ctx context.Context, notes *[]note[K], e Event[K]) {
	if c.opts.Observer != nil {
		*notes = append(*notes, note[K]{ctx, e})
	}
}

// emit reports every note to the Observer, in order, even if it calls runtime.Goexit at one of
// them. Must be called without a lock.
func (c *Cache[K, V]) emit(notes []note[K]) {
	told := 0
	defer func() {
		if told < len(notes) {
			c.emit(notes[told:])
		}
	}()
	for told < len(notes) {
		n := notes[told]
		told++
		c.observe(n.ctx, n.event)
	}
}

// observe reports one event to the Observer. Must be called without a lock.
func (c *Cache[K, V]) observe(ctx context.Context, e Event[K]) {
	if c.opts.Observer != nil {
		c.guard(func() { c.opts.Observer(ctx, e) }, nil)
	}
}

// observeReplayed has a frame of its own, so that a replay that nobody observes does without it.
//
//go:noinline
func (c *Cache[K, V]) observeReplayed(ctx context.Context, key K, r *record[K, V]) {
	c.observe(ctx, Event[K]{Kind: EventReplayed, Key: key, Err: r.err(), Origin: r.origin()})
}

// guard calls one of the user's hooks and contains its panic. failed, which may be nil, is called
// with what stopped the hook; after runtime.Goexit, which cannot be contained, failed still runs,
// but the goroutine then exits.
func (c *Cache[K, V]) guard(hook func(), failed func(error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		err := ErrGoexit
		if v := recover(); v != nil {
			p := newPanicError(v)
			p.leader = false
			err = p
		}
		c.hookPanics.Add(1)
		if failed != nil {
			failed(err)
		}
	}()
	hook()
	returned = true
}

// notePanic returns the callback that reports a failed Classify or Weigh as EventPanicked.
func (c *Cache[K, V]) notePanic(key K, notes *[]note[K]) (failed func(error)) {
	return func(err error) { c.note(notes, Event[K]{Kind: EventPanicked, Key: key, Err: err}) }
}

// weightOf asks Weigh about an outcome.
func (c *Cache[K, V]) weightOf(key K, value V, notes *[]note[K]) (weight int64) {
	if c.opts.Weigh == nil {
		return 0
	}
	c.guard(func() { weight = max(c.opts.Weigh(key, value), 0) }, c.notePanic(key, notes))
	return weight
}
