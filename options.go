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
	DefaultHoldTTL      = 7 * 24 * time.Hour // long enough for somebody to look, whatever the weekday
	DefaultMinRetention = time.Hour          // longer than a sane client goes on retrying
	DefaultExecTimeout  = 5 * time.Minute    // longer than a call should take, short enough to notice
	DefaultLease        = 30 * time.Second   // longer than a pause of a healthy process
	DefaultLocalTTL     = time.Minute        // how late a Forget in another process may take effect
)

// NoWait, given to [WithMaxWait], means not to wait for a flight at all.
const NoWait time.Duration = -1

// Options configures a [Cache]. The zero value is a good start: it keeps outcomes for a day and a
// million keys, and evicts none from the last hour. Functions must be safe for concurrent use. None
// is called with a lock held. A panic in Classify, Weigh, Observer or Trace is contained and
// counted in Stats.HookPanics.
type Options[K comparable, V any] struct {
	// TTL is how long a retained outcome is kept and replayed, from completion; replays do not
	// extend it. 0 = [DefaultTTL]; negative is an error.
	TTL time.Duration

	// HoldTTL is how long a held key (outcome unknown) stays held. 0 = [DefaultHoldTTL], but at
	// least TTL; negative = until it is resolved or forgotten. After HoldTTL the key is released
	// although nobody has found out: the next call runs fn again and may repeat the effect. For
	// payments make it negative, and set Reconcile or have a person alerted: by Stats.Held, or with
	// a Store by Unsettled, since Stats does not count what only the store holds.
	HoldTTL time.Duration

	// MaxEntries bounds the number of keys in flight and kept, together and exactly. It should
	// exceed the rate of new keys × TTL: otherwise outcomes are evicted before they expire, and
	// their operations can run again. 0 = [DefaultMaxEntries]; negative is an error.
	MaxEntries int

	// MinRetention decides what happens when the cache is full: an outcome that completed less
	// than this ago is not evicted; a new key gets [ErrFull] instead. Held keys are not evicted
	// either, with one exception: when no outcome may go, the oldest key goes that is held only
	// because fn said nothing about its effect, if it has been held for longer than this. So a
	// flood of new keys costs availability, never a second execution within MinRetention. A new
	// key can get ErrFull although an older outcome could go: if each of those was replayed, and
	// so moved behind younger ones that have a TTL of their own or were restored. 0 =
	// [DefaultMinRetention], but at most half of TTL; negative = no protection, plain LRU; TTL or
	// more = nothing is ever evicted.
	MinRetention time.Duration

	// MaxWeight bounds the sum of Weigh over retained outcomes. Beyond it, the values of the least
	// recently used are shed: calls with their keys get [ErrValueShed]. 0 = no bound; negative is
	// an error. MaxWeight and Weigh need each other: one alone is an error.
	MaxWeight int64

	// Weigh returns the weight of an outcome, in the unit of MaxWeight (bytes, say); less than 0
	// counts as 0. It is called for every outcome that is to be retained, errors included, also by
	// Resolve, Restore and Load. The key may still be in flight: a Do or a Cache.Reconcile of the
	// same key, or a Close, from inside Weigh would wait for itself forever. nil without MaxWeight.
	Weigh func(key K, value V) int64

	// EffectsAnnounced says that every fn of this cache calls [BeginEffect] before its effect, or
	// settles in the transaction of its effect (SettleTx of a Store). So if fn did neither and ends
	// without a marker, by an error, a panic or runtime.Goexit, then nothing has begun: the key is
	// released, and Classify is not asked. With a Store, a process that dies before BeginEffect
	// also leaves the key free; without EffectsAnnounced it leaves it held. [EventUnannounced]
	// reports an fn that forgot BeginEffect, unless it called [NoEffect]: so do not call that at
	// the top of an fn of such a cache.
	EffectsAnnounced bool

	// Classify decides about an error without a marker if fn called neither [BeginEffect] nor
	// [NoEffect] and the cache has no EffectsAnnounced. A panic is passed as a *[PanicError],
	// runtime.Goexit as [ErrGoexit]; an error that fn returned after ExecTimeout also matches
	// [context.DeadlineExceeded]. Any result other than the three dispositions holds the key, and
	// so does a panic in Classify. The key is still in flight: a Do of the same key, or a Close,
	// from inside Classify would wait for itself forever. nil = Hold, since an error tells what
	// failed last, not what fn had done before; [ClassifyLenient] is for an fn that does one thing.
	Classify func(err error) Disposition

	// Reconcile finds out what became of a held key: it asks the bank, or looks into your table. It
	// runs in place of fn when a call meets a held key, one at a time per key. It gets the entry
	// that is held (Err is what left it unknown) and a context with the values of that call's
	// context and with ExecTimeout as its deadline. It never runs on a caller's goroutine.
	//
	//	nil error, Final(err)  the answer is known: retained, given to the callers, fn does not run
	//	Retryable(err)         it had no effect, and none can arrive any more: fn runs, in the same flight
	//	anything else, panic   still unknown: held for another HoldTTL, callers get ErrOutcomeUnknown
	//
	// What it finds out is retained for Options.TTL, or for the [WithTTL] of the call that leads. A
	// panic in it is not raised again.
	//
	// Callers may leave while it runs, and [WithMaxWait] bounds their wait for it. If the call that
	// leads has left, fn does not start. For a second after a Reconcile that learned nothing, calls
	// with that key get its error, and Reconcile is not asked again.
	//
	// nil = calls with a held key get [ErrOutcomeUnknown] at once.
	Reconcile func(ctx context.Context, key K, held Entry[V]) (V, error)

	// ExecTimeout sets the deadline of the context that fn gets, counted from fn's start. It ends
	// the context, not fn, whose key stays in flight until fn returns. An error that fn returns
	// because of it is like any other: the key is held, unless fn said that nothing had begun. 0 =
	// [DefaultExecTimeout]; negative = no deadline.
	ExecTimeout time.Duration

	// MaxWaiters bounds the number of joined callers per flight; one more gets [ErrInFlight]. 0 =
	// no bound; negative is an error.
	MaxWaiters int

	// Observer gets every event, on the goroutine that causes it: see [Event]. It may call the
	// cache. It must be quick: calls wait for it.
	Observer func(context.Context, Event[K])

	// Trace follows executions, of fn and of Reconcile, in a distributed trace (module idemotel
	// provides one). It is called before each execution, on its goroutine, with the context that
	// fn or Reconcile is to get, which has the leader's values; reconciles tells which of the
	// two runs. It returns
	//
	//   - a context derived from the given one, whose values fn then sees. Its deadline and its end
	//     stay those of an execution, whatever Trace makes of them. A nil context, and one that is
	//     not derived from the given one, are ignored.
	//   - the Origin of the execution, which its events, entries and results then have; the zero
	//     Origin means that it is not traced.
	//   - a func, or nil, that is called on the same goroutine once the flight has settled (if fn
	//     follows Reconcile: once Reconcile has ended), with the event of the end: [EventExecuted]
	//     or [EventReconciled]. It is called for every execution, even if fn panics or calls
	//     runtime.Goexit.
	//
	// Both functions must be quick: calls wait for them. A panic in one is contained and counted in
	// Stats.HookPanics.
	Trace func(ctx context.Context, key K, reconciles bool) (context.Context, Origin, func(Event[K]))

	// Codec says how Save, Load and a Store write keys, values and errors. The zero Codec is enough
	// for most types: see [Codec]. If it lacks a function that K or V needs, Save and Load fail;
	// with a Store, New does.
	Codec Codec[K, V]

	// Store keeps the keys across crashes, and shares them among processes: see [Store]. nil = they
	// live in the memory of this process.
	//
	// With a Store, the cache keeps copies of outcomes in memory for LocalTTL. MaxEntries and
	// MaxWeight bound these copies; evicting one loses nothing and is no event; MinRetention is
	// ignored. A first execution asks the store twice, and once more with BeginEffect. Callers may
	// leave meanwhile, and if the leader has left, fn does not start. An outcome that the store did
	// not record is held: [ErrOutcomeUnknown] around [ErrStore].
	//
	// When a process dies, the keys that it had in flight are held from the end of their leases
	// on, except those that were claimed with EffectsAnnounced and for which no effect had
	// begun: they are free.
	Store Store

	// Lease is how long an execution in another process is thought to be alive after its last sign
	// of life. A sixth of it must be enough for Renew, which the store is asked once for all
	// executions of a cache. 0 = [DefaultLease]. Less than 1 s is an error, and so is a Lease
	// without a Store.
	Lease time.Duration

	// LocalTTL is how long an outcome is replayed from memory before the store is asked again, and
	// so how late a Forget in another process may take effect here. 0 = [DefaultLocalTTL]; negative
	// = always ask. Without a Store it is an error.
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

// minRetention returns MinRetention as eviction reads it: 0 means none, forever that
// nothing is evicted.
func (o *Options[K, V]) minRetention() time.Duration {
	switch {
	case o.MinRetention < 0, o.Store != nil:
		return 0
	case o.MinRetention >= o.TTL:
		return forever
	}
	return o.MinRetention
}

// Options returns what New was given, with the defaults filled in: New(c.Options()) makes a cache
// that behaves the same. Negative values are as they were given.
func (c *Cache[K, V]) Options() Options[K, V] {
	o := c.opts
	o.Codec.Sentinels = maps.Clone(o.Codec.Sentinels)
	return o
}

// CallOption changes one call of Do. It is a plain value: passing one allocates nothing.
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
// the flight or of the kept outcome gets [ErrKeyReused] at once. Without fingerprints, a call that
// uses the key with another payload gets the outcome of the first. See [FingerprintOf].
func WithFingerprint(f Fingerprint) CallOption { return CallOption{kind: optionFingerprint, fp: f} }

// WithTTL sets the TTL of the outcome in place of Options.TTL. The leader's counts, also for what
// Reconcile finds out. 0 or less = share the outcome with joined callers only and retain nothing,
// so that the next call runs fn again; what Reconcile finds out is then retained for Options.TTL.
// It does not change how long a key is held: see Options.HoldTTL.
func WithTTL(d time.Duration) CallOption { return CallOption{kind: optionTTL, d: max(d, 0)} }

// WithMaxWait bounds how long the call waits for a flight that it did not start, for Reconcile, or
// for an execution in another process; then it gets [ErrInFlight], and the flight goes on.
// [NoWait], or any d <= 0: it does not wait for these at all (with a held key, it starts Reconcile
// all the same). It bounds neither the wait for the Store's answer, which may take 5 s, nor that of
// a leader for its own fn.
func WithMaxWait(d time.Duration) CallOption { return CallOption{kind: optionMaxWait, d: d} }

// Inline makes fn run on the calling goroutine if this call leads: the call stays until fn returns,
// whatever becomes of its context. It is for an fn that uses what its caller closes or reuses, and
// it is about fn alone: Reconcile runs on a goroutine of its own all the same, and a caller that
// waits for Reconcile, or for a flight that it has joined, leaves like any other.
func Inline() CallOption { return CallOption{kind: optionInline} }

// callOptions is a call's options, read.
type callOptions struct {
	fingerprint Fingerprint
	ttl         time.Duration // of the outcome if this call leads; negative if not set
	maxWait     time.Duration // forever if not set
	inline      bool
}

// read reads opts. It fills o in place: a replay would have to wait for a copy of what
// has just been written.
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
