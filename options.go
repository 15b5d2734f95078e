package idemflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// Defaults of [Options].
const (
	DefaultTTL          = 24 * time.Hour     // what payment providers keep idempotency keys for
	DefaultMaxEntries   = 1_048_576          // 2^20: a day of 12 new keys a second
	DefaultHoldTTL      = 7 * 24 * time.Hour // long enough that somebody has looked, whatever the weekday
	DefaultMinRetention = time.Hour          // longer than a sane client goes on retrying
	DefaultExecTimeout  = 5 * time.Minute    // longer than any single call should take, short enough to notice
	DefaultLease        = 30 * time.Second   // longer than a pause of a healthy process
	DefaultLocalTTL     = time.Minute        // how late a Forget in another process may be noticed
)

// NoWait, given to [WithMaxWait], means not to wait for a flight at all.
const NoWait time.Duration = -1

// Options configures a [Cache]. The zero value is a good start: outcomes for a day, a million
// keys, the last hour protected. Functions must be safe for concurrent use; none is called with a
// lock held, and a panic in Classify, Weigh or Observer is contained (Stats.HookPanics).
type Options[K comparable, V any] struct {
	// TTL is how long a retained outcome is kept and replayed, from completion; replays do not
	// extend it. 0 = [DefaultTTL]; negative is an error.
	TTL time.Duration

	// HoldTTL is how long a held key (outcome unknown) stays held. 0 = [DefaultHoldTTL], but at least
	// TTL; negative = until it is resolved or forgotten. After it the key is released although nobody found out: the next call
	// runs fn again and may repeat the effect. For payments make it negative and give Reconcile, or
	// let Stats.Held call a person.
	HoldTTL time.Duration

	// MaxEntries bounds the keys in flight and kept together, exactly. Rate of new keys × TTL
	// should fit, or live outcomes are evicted and their operations can run again.
	// 0 = [DefaultMaxEntries]; negative is an error.
	MaxEntries int

	// MinRetention decides what happens when full: no outcome completed less than this ago is evicted; a
	// new key gets [ErrFull] instead. Nor is a held key, but for those that are held only because fn said
	// nothing about its effect: when no outcome may go, the oldest of them that is held for longer than
	// this does. So a flood of new keys costs availability, and never a second
	// execution within MinRetention. ErrFull can also come while an older outcome could go, if all of those
	// were replayed and so have moved behind young ones with a TTL of their own, or restored ones. 0 = [DefaultMinRetention], but at most half of
	// TTL; negative = no protection, plain LRU; TTL or more = nothing is ever evicted.
	MinRetention time.Duration

	// MaxWeight bounds the sum of Weigh over retained outcomes; over it, the values of the least
	// recently used are shed: their keys answer [ErrValueShed]. 0 = no bound; negative is an error.
	// It and Weigh need each other: one alone is an error.
	MaxWeight int64

	// Weigh returns the weight of an outcome, in the unit of MaxWeight (bytes, say); below 0 counts
	// as 0. Asked about every outcome that is to be retained, errors included, also by Resolve,
	// Restore and Load. At the end of an execution the key is still in flight: a Do or a Cache.Reconcile
	// of the same key, or a Close, from here would wait for itself forever. nil without MaxWeight.
	Weigh func(key K, value V) int64

	// EffectsAnnounced says that every fn of this cache calls [BeginEffect] before its effect, or settles in the
	// transaction of its effect (SettleTx of a Store). So if fn has done neither, nothing has begun, whatever the
	// error, panic or runtime.Goexit with which fn ends without a marker: the key is released, and Classify is
	// not asked. With a Store a process that dies before BeginEffect leaves the key free, too; without
	// EffectsAnnounced, held. An fn that forgot is told of by [EventUnannounced], unless it said NoEffect: so
	// leave that out of the fns of such a cache.
	EffectsAnnounced bool

	// Classify decides about an error without marker when fn called neither [BeginEffect] nor
	// [NoEffect], unless EffectsAnnounced; a panic comes as *[PanicError], runtime.Goexit as [ErrGoexit];
	// an error that came after ExecTimeout is [context.DeadlineExceeded] as well. Anything but the three
	// dispositions, a panic included, holds the key. The key is still in flight then: a Do of the same
	// key or a Close from here would wait for itself forever. nil = Hold, since an error tells what failed
	// last, and not what fn had done before; [ClassifyLenient] is for an fn that does one thing.
	Classify func(err error) Disposition

	// Reconcile finds out what became of a held key: it asks the bank, or looks into your table. It
	// runs in place of fn, one at a time per key, when a call meets a held key, with the entry that
	// was held (Err is what left it unknown) and the values of that call's context; never on a
	// caller's goroutine, with ExecTimeout as deadline.
	//
	//	nil error, Final(err)  the answer is known: retained, given to the callers, fn does not run
	//	Retryable(err)         it certainly had no effect: fn runs, in the same flight
	//	anything else, panic   still unknown: held for another HoldTTL, callers get ErrOutcomeUnknown
	//
	// What it finds out is retained for Options.TTL, or the [WithTTL] of the call that leads. A panic
	// in it is not raised again.
	//
	// Everybody may leave while it runs, and a call's [WithMaxWait] bounds it; fn does not start for one
	// that has left by then. For a second after a Reconcile that learned nothing, calls on that key are told its
	// error and do not ask again.
	//
	// nil = calls on a held key get [ErrOutcomeUnknown] at once.
	Reconcile func(ctx context.Context, key K, held Entry[V]) (V, error)

	// ExecTimeout is the deadline of the context that fn gets, from its start. It ends the context,
	// not fn, which stays in flight until it returns; an error that fn returns for it is like any
	// other: held, unless fn said that nothing had begun. 0 = [DefaultExecTimeout]; negative = none.
	ExecTimeout time.Duration

	// MaxWaiters bounds the joined callers per flight; one more gets [ErrInFlight]. 0 = no bound;
	// negative is an error.
	MaxWaiters int

	// Observer gets every event, on the goroutine it concerns: see [Event]. It may call the
	// cache. It must be quick: calls wait for it.
	Observer func(context.Context, Event[K])

	// Trace follows executions, of fn and of Reconcile, in a distributed trace (idemotel has one). It is called
	// on fn's goroutine, before it, with the context that fn is to get, which has the leader's values, and says
	// whether Reconcile runs. It returns
	//
	//   - a context derived from that, whose values fn then sees: its end and its deadline stay those of an
	//     execution, whatever Trace makes of them. Of nil, or of a context that is derived from another, nothing
	//     is used.
	//   - the Origin of the execution, which its events, entries and results then have; the zero one is none.
	//   - a func, or nil, that is called on the same goroutine once the flight has settled (after a Reconcile
	//     that fn follows: before that), with the event of its end: [EventExecuted] or [EventReconciled]. It comes
	//     for every execution, also if fn panics or calls runtime.Goexit.
	//
	// Both must be quick: calls wait for them. A panic in one is contained and counted in Stats.HookPanics.
	Trace func(ctx context.Context, key K, reconciles bool) (context.Context, Origin, func(Event[K]))

	// Codec is how Save, Load and a Store write keys, values and errors. The zero Codec is enough for
	// most types: see [Codec]. Without one that K or V cannot do without, Save and Load fail; with a Store,
	// New does.
	Codec Codec[K, V]

	// Store keeps the keys over a crash, and shares them among processes: see [Store]. nil = they live in
	// the memory of this process.
	//
	// With a Store the cache keeps copies of outcomes in memory, for LocalTTL: MaxEntries, MaxWeight and
	// MinRetention bound these, and evicting one loses nothing and is no event; MinRetention is ignored. A
	// first execution asks the store twice, once more with BeginEffect, and everybody may leave
	// meanwhile; fn does not start for who has left. What the store has not recorded is held:
	// [ErrOutcomeUnknown] around [ErrStore].
	//
	// A process that dies leaves its keys held from the end of the lease on, but for those for which
	// nothing had begun and that were claimed with EffectsAnnounced: these are free.
	Store Store

	// Lease is for how long after its last sign of life an execution in another process is thought alive.
	// 0 = [DefaultLease]; below 1 s, and without Store, it is an error.
	Lease time.Duration

	// LocalTTL is for how long an outcome is replayed from memory before the store is asked again: so much
	// later does another process notice a Forget. 0 = [DefaultLocalTTL]; negative = always ask; without
	// Store it is an error.
	LocalTTL time.Duration
}

// withDefaults returns o with its defaults filled in, or an error that names every bad field.
func (o Options[K, V]) withDefaults() (Options[K, V], error) {
	var bad []error
	report := func(field string, value any, why string) {
		bad = append(bad, fmt.Errorf("idemflight: Options.%s is %v: %s", field, value, why))
	}
	if o.TTL < 0 {
		report("TTL", o.TTL, "must not be negative (0 means DefaultTTL)")
	}
	if o.MaxEntries < 0 {
		report("MaxEntries", o.MaxEntries, "must not be negative (0 means DefaultMaxEntries)")
	}
	if o.MaxWeight < 0 {
		report("MaxWeight", o.MaxWeight, "must not be negative (0 means no bound)")
	}
	if o.MaxWaiters < 0 {
		report("MaxWaiters", o.MaxWaiters, "must not be negative (0 means no bound)")
	}
	if o.MaxWeight > 0 && o.Weigh == nil {
		report("Weigh", "nil", fmt.Sprintf("MaxWeight is %d and needs Weigh", o.MaxWeight))
	}
	if o.MaxWeight == 0 && o.Weigh != nil {
		report("MaxWeight", 0, "Weigh is given and needs MaxWeight")
	}
	if o.Store == nil {
		if o.Lease != 0 {
			report("Lease", o.Lease, "needs Store, which is nil")
		}
		if o.LocalTTL != 0 {
			report("LocalTTL", o.LocalTTL, "needs Store, which is nil")
		}
		bad = append(bad, o.Codec.validate()...)
	} else {
		if o.Lease != 0 && o.Lease < time.Second {
			report("Lease", o.Lease, "must be at least 1s (0 means DefaultLease)")
		}
		if _, err := o.Codec.withDefaults(); err != nil {
			bad = append(bad, err)
		}
	}
	if len(bad) > 0 {
		return o, errors.Join(bad...)
	}

	o.Codec.Sentinels = maps.Clone(o.Codec.Sentinels)
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.HoldTTL == 0 {
		o.HoldTTL = max(DefaultHoldTTL, o.TTL)
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.MinRetention == 0 {
		o.MinRetention = min(DefaultMinRetention, o.TTL/2)
	}
	if o.ExecTimeout == 0 {
		o.ExecTimeout = DefaultExecTimeout
	}
	if o.Store != nil {
		if o.Lease == 0 {
			o.Lease = DefaultLease
		}
		if o.LocalTTL == 0 {
			o.LocalTTL = DefaultLocalTTL
		}
	}
	return o, nil
}

// minRetention returns MinRetention as eviction reads it: 0 is none, forever that nothing is evicted.
func (o *Options[K, V]) minRetention() time.Duration {
	switch {
	case o.MinRetention < 0, o.Store != nil:
		return 0
	case o.MinRetention >= o.TTL:
		return forever
	}
	return o.MinRetention
}

// Options returns what New was given, with the defaults filled in: New(c.Options()) makes a cache that
// behaves alike. Negative values are as they were.
func (c *Cache[K, V]) Options() Options[K, V] {
	o := c.opts
	o.Codec.Sentinels = maps.Clone(o.Codec.Sentinels)
	return o
}

// CallOption changes one call of Do. Options are plain values: giving them allocates nothing.
type CallOption struct {
	kind optionKind
	d    time.Duration
	fp   Fingerprint
}

type optionKind uint8

const (
	optionFingerprint optionKind = iota + 1
	optionTTL
	optionMaxWait
	optionInline
)

// WithFingerprint identifies the payload of the call. A call whose fingerprint differs from that of
// the flight or of the kept outcome gets [ErrKeyReused] at once. Without fingerprints, a key that is
// used with another payload gets the outcome of the first. See [FingerprintOf].
func WithFingerprint(f Fingerprint) CallOption { return CallOption{kind: optionFingerprint, fp: f} }

// WithTTL sets the TTL of the outcome in place of Options.TTL; the leader's counts, also for what
// Reconcile finds out. 0 or less = share it with joined callers only and retain nothing, so that the
// next call runs fn again; what Reconcile finds out is then retained for Options.TTL. How long a key is
// held is Options.HoldTTL's alone.
func WithTTL(d time.Duration) CallOption { return CallOption{kind: optionTTL, d: max(d, 0)} }

// WithMaxWait bounds how long the call waits for a flight that it did not start, or for Reconcile; then
// it gets [ErrInFlight] and the flight goes on. [NoWait], or any d <= 0: it does not wait at all (on a
// held key it starts Reconcile all the same). A replay needs no waiting, and a leader whose fn runs is
// not bound.
func WithMaxWait(d time.Duration) CallOption { return CallOption{kind: optionMaxWait, d: d} }

// Inline makes fn run on the calling goroutine if this call leads, and the call stay until fn
// returns, whatever becomes of its context: for an fn that uses what its caller closes or reuses. It
// is about fn alone: Reconcile runs on a goroutine of its own all the same, and a caller that waits for
// it, or for a flight that it has joined, leaves like everybody.
func Inline() CallOption { return CallOption{kind: optionInline} }

// callOptions is a call's options, read.
type callOptions struct {
	fingerprint Fingerprint
	ttl         time.Duration // of the outcome if this call leads; negative if not set
	maxWait     time.Duration // forever if not set
	inline      bool
}

// read reads opts. It fills o in place: a replay would have to wait for a copy of what has just been
// written.
func (o *callOptions) read(opts []CallOption) {
	o.ttl, o.maxWait = -1, forever
	for i := range opts {
		switch opts[i].kind {
		case optionFingerprint:
			o.fingerprint = opts[i].fp
		case optionTTL:
			o.ttl = opts[i].d
		case optionMaxWait:
			o.maxWait = opts[i].d
		case optionInline:
			o.inline = true
		}
	}
}
