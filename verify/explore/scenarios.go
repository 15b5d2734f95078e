package explore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

type script = func(p *person)

// do returns the script of one call.
func do(k key, b *body, h ...how) script { return func(p *person) { p.does(k, b, h...) } }

func forget(k key) script { return func(p *person) { p.forgets(k) } }

func leave(who string) script { return func(p *person) { p.leaves(who) } }

func resolve(k key, err error) script { return func(p *person) { p.resolves(k, err) } }

func restore(k key, s idemflight.State) script { return func(p *person) { p.restores(k, s) } }

func reconcile(k key) script { return func(p *person) { p.reconciles(k) } }

func look() script { return func(p *person) { p.looks() } }

func closeIt() script { return func(p *person) { p.closes(context.Background()) } }

// then returns scripts one after the other.
func then(all ...script) script {
	return func(p *person) {
		for _, s := range all {
			s(p)
		}
	}
}

func entries(n int, protect time.Duration) func(*options) {
	return func(o *options) { o.MaxEntries, o.MinRetention = n, protect }
}

const ttl = time.Minute // of every scenario

// unsaid is the error of a key that was held before because fn had said nothing.
const unsaid = failure(-1)

var errHeld = idemflight.Unknown(errors.New("held before"))

func holdA(w *world)  { w.prepares(keyA, 900, errHeld) }
func spareA(w *world) { w.prepares(keyA, 900, unsaid) }
func keepA(w *world)  { w.prepares(keyA, 900, nil) }

// growsOn fills a table of so many buckets to the edge, with an outcome of A that moves when one more
// makes it grow.
func growsOn(buckets int) func(*world) {
	return func(w *world) {
		keepA(w)
		w.grows(buckets*perBucket - 1)
	}
}

// shrinksOn leaves as little as may be in a table of so many buckets, with an outcome of A that moves
// when that of B goes.
func shrinksOn(buckets int) func(*world) {
	return func(w *world) {
		growsOn(buckets - 1)(w)
		w.prepares(keyB, 900, nil)
		w.shrinks(buckets - 2)
	}
}

const perBucket = 4 // as the library has it

// scenarios are all there are, each with the first two, three and four of its actors.
var scenarios = expand([]scenario{
	{name: "do", apart: true, doc: "Do with Do of one key", through: yield.Locked + "put",
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), do(keyA, succeeds), do(keyA, succeeds)}},
	{name: "do-stays", apart: true, doc: "… whose callers run fn themselves",
		actors: []script{do(keyA, succeeds, how{stays: true}), do(keyA, succeeds, how{stays: true}), do(keyA, succeeds, how{inline: true}), do(keyA, succeeds)}},
	{name: "do-again", doc: "… twice each, and fn may fail",
		actors: []script{then(do(keyA, fails), do(keyA, succeeds)), then(do(keyA, succeeds), do(keyA, succeeds)), do(keyA, fails), do(keyA, succeeds)}},
	{name: "full", doc: "different keys and too few places, nothing may be evicted", options: entries(1, ttl), keys: 3, spread: true,
		actors: []script{do(keyA, succeeds), do(keyB, fails), do(keyC, succeeds), do(keyA, succeeds)}},
	{name: "full-same", doc: "… wanted by two for one new key, and then free", options: entries(1, ttl), keys: 2, prepare: keepA,
		actors: []script{then(forget(keyA), do(keyB, succeeds)), do(keyB, succeeds), do(keyA, fails)}},
	{name: "evict", doc: "one place, held by what may be evicted", options: entries(1, -1), keys: 3, prepare: keepA,
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), do(keyC, succeeds), do(keyB, fails)}},
	{name: "evict-same", doc: "… wanted by two for one new key", options: entries(1, -1), keys: 2, prepare: keepA,
		actors: []script{do(keyB, succeeds), do(keyB, succeeds), do(keyA, succeeds), forget(keyB)}},
	{name: "evict-spread", doc: "two places in two shards, plain LRU", options: entries(2, -1), keys: 3, spread: true, prepare: keepA,
		actors: []script{do(keyB, succeeds), do(keyC, succeeds), do(keyA, succeeds), do(keyC, fails)}},
	{name: "evict-forget", doc: "… while a place becomes free by Forget", options: entries(1, -1), keys: 2, prepare: keepA,
		actors: []script{do(keyB, succeeds), forget(keyA), do(keyA, succeeds), forget(keyB)}},
	{name: "evict-late", doc: "… and is taken again, while an outcome is half inserted", options: entries(2, -1), keys: 3, spread: true, prepare: keepA,
		actors: []script{then(do(keyB, forgets(keyA), how{stays: true}), do(keyA, fails, how{stays: true})), do(keyC, succeeds, how{stays: true})}},
	{name: "protect", doc: "one place, protected for a while", options: entries(1, ttl/2), keys: 2, prepare: keepA, clock: []time.Duration{ttl / 2},
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), do(keyB, fails), forget(keyA)}},
	{name: "full-expiry", doc: "one place, whose record expires", options: entries(1, ttl), keys: 2, prepare: keepA, clock: []time.Duration{ttl},
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), do(keyB, fails), look()}},

	{name: "leave-leader", apart: true, doc: "the leader leaves",
		actors: []script{do(keyA, succeeds), leave("a"), do(keyA, succeeds), do(keyA, succeeds)}, settled: true},
	{name: "leave-joined", apart: true, doc: "a caller who joined leaves",
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), leave("b"), do(keyA, succeeds)}, settled: true},
	{name: "leave-inline", doc: "leaders that run fn themselves cannot leave",
		actors: []script{do(keyA, succeeds, how{inline: true}), leave("a"), do(keyA, succeeds), leave("c")}},
	{name: "leave-all", doc: "everybody leaves, and fn fails",
		actors: []script{do(keyA, fails), then(leave("a"), leave("c")), do(keyA, isUnknown), do(keyA, succeeds)}, settled: true},
	{name: "wait", apart: true, doc: "callers who may not wait, or not for long", options: func(o *options) { o.MaxWaiters = 1 }, clock: []time.Duration{time.Second},
		actors: []script{do(keyA, succeeds), do(keyA, succeeds, how{maxWait: time.Second}), do(keyA, succeeds, how{maxWait: idemflight.NoWait}), do(keyA, succeeds)}},

	{name: "forget", apart: true, doc: "Forget at any moment of a flight",
		actors: []script{do(keyA, succeeds), forget(keyA), do(keyA, succeeds), forget(keyA)}},
	{name: "forget-unknown", apart: true, doc: "… that turns out unknown",
		actors: []script{do(keyA, isUnknown), forget(keyA), do(keyA, succeeds), do(keyA, fails)}},

	{name: "expiry", apart: true, doc: "the TTL passes at any moment", clock: []time.Duration{ttl}, timers: true,
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), forget(keyA)}},
	{name: "expiry-keys", apart: true, doc: "the timer is set, fires and stops beside records that come and go", keys: 2, spread: true, clock: []time.Duration{ttl, time.Second}, timers: true,
		actors: []script{do(keyA, succeeds), forget(keyA), do(keyB, succeeds, how{ttl: ttl / 2})}},
	{name: "disarm", doc: "the timer stops as a record comes", keys: 2, timers: true, prepare: keepA,
		actors: []script{forget(keyA), do(keyB, succeeds), forget(keyB), do(keyA, succeeds)}},
	{name: "no-ttl", apart: true, doc: "outcomes that are only shared", clock: []time.Duration{ttl / 2},
		actors: []script{do(keyA, succeeds, how{ttl: -1}), do(keyA, succeeds, how{ttl: ttl / 2}), do(keyA, succeeds), forget(keyA)}},
	{name: "hold-expiry", apart: true, doc: "a held key expires", prepare: holdA, clock: []time.Duration{ttl}, timers: true,
		actors: []script{do(keyA, succeeds), do(keyA, isUnknown), resolve(keyA, nil)}},

	{name: "resolve", doc: "operators resolve one held key", prepare: holdA,
		actors: []script{resolve(keyA, nil), resolve(keyA, idemflight.Retryable(errors.New("no effect"))), do(keyA, succeeds), forget(keyA)}},
	{name: "resolve-flight", doc: "… while it is not held yet",
		actors: []script{do(keyA, isUnknown), resolve(keyA, nil), do(keyA, succeeds), resolve(keyA, idemflight.Retryable(errors.New("no effect")))}},
	{name: "reconcile", apart: true, doc: "Reconcile finds a success", prepare: holdA, reconcile: succeeds,
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), forget(keyA), do(keyA, succeeds)}},
	{name: "reconcile-final", doc: "… a final error, and an operator resolves", prepare: holdA, reconcile: isFinal,
		actors: []script{do(keyA, succeeds, how{inline: true}), resolve(keyA, nil), do(keyA, succeeds), do(keyA, succeeds)}},
	{name: "reconcile-retryable", doc: "… that there was no effect, so fn runs", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), leave("a"), leave("b")}},
	{name: "reconcile-inline", doc: "… and the leader runs it", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, fails, how{inline: true}), do(keyA, succeeds), leave("a"), leave("b")}},
	{name: "reconcile-nothing", apart: true, doc: "… nothing, and the leader leaves", prepare: holdA, reconcile: learnsLess,
		actors: []script{do(keyA, succeeds), leave("a"), do(keyA, succeeds), forget(keyA)}},
	{name: "reconcile-panics", doc: "… nothing but a panic", prepare: holdA, reconcile: panics,
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), leave("a"), do(keyA, succeeds)}},
	{name: "reconcile-exits", doc: "… or Goexit", prepare: holdA, reconcile: exits,
		actors: []script{do(keyA, succeeds), do(keyA, succeeds, how{inline: true}), leave("a"), do(keyA, succeeds)}},
	{name: "reconcile-full", doc: "Reconcile in a full cache", prepare: holdA, reconcile: retryable, options: entries(1, -1), keys: 2,
		actors: []script{do(keyA, fails), do(keyB, succeeds), do(keyA, succeeds), forget(keyA)}},

	{name: "restore", apart: true, doc: "Restore beside Do",
		actors: []script{do(keyA, succeeds), restore(keyA, idemflight.Retained), do(keyA, fails), forget(keyA)}},
	{name: "restore-held", doc: "… of what was in flight, twice",
		actors: []script{restore(keyA, idemflight.InFlight), restore(keyA, idemflight.Retained), do(keyA, succeeds), resolve(keyA, nil)}},
	{name: "restore-full", doc: "… into a full cache", options: entries(1, -1), keys: 2, prepare: keepA,
		actors: []script{restore(keyB, idemflight.Retained), do(keyA, succeeds), do(keyB, fails)}},
	{name: "close", apart: true, doc: "Close at any moment",
		actors: []script{do(keyA, succeeds), closeIt(), do(keyA, succeeds), closeIt()}},
	{name: "close-keys", doc: "Close beside executions of two keys", keys: 2, spread: true,
		actors: []script{do(keyA, fails, how{stays: true}), closeIt(), do(keyB, succeeds), restore(keyA, idemflight.Retained)}},
	{name: "close-held", doc: "Close refuses Reconcile", prepare: holdA, reconcile: succeeds,
		actors: []script{do(keyA, succeeds), closeIt(), do(keyA, succeeds)}},
	{name: "close-timer", doc: "Close stops the timer", timers: true, prepare: keepA, clock: []time.Duration{ttl + time.Second},
		actors: []script{closeIt(), do(keyA, succeeds), forget(keyA)}},

	{name: "fails", apart: true, doc: "errors of every kind",
		actors: []script{do(keyA, fails), do(keyA, retryable), do(keyA, isFinal), do(keyA, isUnknown)}},
	{name: "panics", doc: "fn panics",
		actors: []script{do(keyA, panics), do(keyA, panics, how{stays: true}), leave("a"), do(keyA, succeeds)}},
	{name: "exits", doc: "fn calls Goexit",
		actors: []script{do(keyA, exits), do(keyA, exits, how{inline: true}), leave("a"), do(keyA, succeeds)}},
	{name: "effect", apart: true, doc: "fn fails after its effect has begun",
		actors: []script{do(keyA, begins), do(keyA, begins), leave("a"), forget(keyA)}},
	{name: "no-effect", apart: true, doc: "… after taking it back",
		actors: []script{do(keyA, takesBack), do(keyA, succeeds), leave("a"), forget(keyA)}},
	{name: "effect-elsewhere", apart: true, doc: "another goroutine begins the effect",
		actors: []script{do(keyA, delegates), do(keyA, delegates), forget(keyA)}},
	{name: "no-effect-elsewhere", apart: true, doc: "… and takes it back",
		actors: []script{do(keyA, delegatesBoth), do(keyA, succeeds), do(keyA, succeeds)}},
	{name: "fingerprints", doc: "one key with two payloads",
		actors: []script{do(keyA, succeeds, how{fp: 1}), do(keyA, succeeds, how{fp: 2}), do(keyA, fails, how{fp: 1}), forget(keyA)}},
	{name: "weight", apart: true, doc: "values are shed", keys: 3, spread: true, options: func(o *options) {
		o.MaxWeight, o.Weigh = 2, func(k key, _ int) int64 { return int64(1 + k.role()%2) }
	}, actors: []script{do(keyA, succeeds), do(keyB, succeeds), do(keyA, succeeds), do(keyC, succeeds)}},
	{name: "weight-heavy", apart: true, doc: "a value heavier than all may be", keys: 2, prepare: keepA, options: func(o *options) {
		o.MaxWeight, o.Weigh = 2, func(k key, _ int) int64 { return int64(2 + k.role()) }
	}, actors: []script{do(keyB, succeeds), do(keyA, succeeds), forget(keyA), do(keyB, succeeds)}},
	{name: "replay", doc: "Forget beside replays, which take no lock", prepare: keepA, through: yield.Locked + "gone",
		actors: []script{do(keyA, succeeds), forget(keyA), do(keyA, succeeds), do(keyA, fails)}},
	{name: "replay-expiry", doc: "… of what expires, and comes anew", prepare: keepA, through: lookValid, clock: []time.Duration{ttl},
		actors: []script{do(keyA, succeeds), do(keyA, succeeds), forget(keyA), do(keyA, fails)}},
	{name: "replay-evict", doc: "… of what is evicted", prepare: keepA, through: yield.Locked + "gone", options: entries(1, -1), keys: 2,
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), do(keyA, fails)}},
	{name: "replay-shed", doc: "… of what is shed", prepare: keepA, through: yield.Locked + "gone", keys: 2, options: func(o *options) {
		o.MaxWeight, o.Weigh = 2, func(k key, _ int) int64 { return int64(1 + k.role()%2) }
	}, actors: []script{do(keyA, succeeds), do(keyB, succeeds), forget(keyA), do(keyA, fails)}},
	{name: "replay-fingerprints", doc: "… and with another payload", prepare: keepA, through: lookValid,
		actors: []script{do(keyA, succeeds, how{fp: 1}), do(keyA, succeeds), forget(keyA), do(keyA, succeeds, how{fp: 1})}},
	{name: "grow", doc: "the table grows, and what is replayed moves", keys: 2, bucket: 1, options: entries(64, -1), prepare: growsOn(1), through: yield.Locked + "grow",
		actors: []script{do(keyA, fails), do(keyB, succeeds), forget(keyA), do(keyA, succeeds)}},
	{name: "grow-directory", doc: "… and so does its directory", keys: 2, bucket: 8, options: entries(64, -1), prepare: growsOn(8), through: yield.Locked + "grow",
		actors: []script{do(keyA, fails), do(keyB, succeeds), do(keyB, fails)}},
	{name: "shrink", doc: "the table shrinks, and what is replayed moves back", keys: 2, bucket: 9, options: entries(64, -1), prepare: shrinksOn(10), through: yield.Locked + "shrink",
		actors: []script{do(keyA, fails), forget(keyB), do(keyB, succeeds), do(keyA, succeeds)}},
	{name: "shrink-directory", doc: "… and so does its directory", keys: 2, bucket: 8, options: entries(64, -1), prepare: shrinksOn(9), through: yield.Locked + "shrink",
		actors: []script{do(keyA, fails), forget(keyB), do(keyB, succeeds)}},
	{name: "looks", doc: "Lookup, Stats, Len and All beside calls", keys: 2, spread: true, clock: []time.Duration{ttl},
		actors: []script{do(keyA, succeeds), look(), do(keyB, succeeds), forget(keyA)}},
	{name: "reentrant", doc: "fn calls Do for its own key, and for another",
		keys: 2, spread: true,
		actors: []script{do(keyA, nests(keyA)), do(keyA, succeeds), do(keyA, nests(keyB)), do(keyB, succeeds)}},
})

// nests calls Do for k from inside, and then succeeds.
func nests(k key) *body {
	return &body{"nests", func(_ *world, ctx context.Context, x *execution) (int, error) {
		c := x.call.by.doesIn(ctx, k, succeeds)
		if got := errors.Is(c.err, idemflight.ErrReentrant); got != (k == x.key) {
			return 0, fmt.Errorf("calling %v in an execution of %v answered %v", k, x.key, c.err)
		}
		x.want = idemflight.Retain
		return x.id, nil
	}}
}

// forgets drops the outcome of k from inside, and then succeeds.
func forgets(k key) *body {
	return &body{"forgets", func(_ *world, _ context.Context, x *execution) (int, error) {
		x.call.by.forgets(k)
		x.want = idemflight.Retain
		return x.id, nil
	}}
}

// expand returns each scenario with its first two, three, … actors.
func expand(all []scenario) (expanded []scenario) {
	for _, sc := range all {
		for n := 2; n <= len(sc.actors); n++ {
			one := sc
			one.name, one.actors = fmt.Sprintf("%s/%d", sc.name, n), sc.actors[:n]
			expanded = append(expanded, one)
		}
	}
	return expanded
}
