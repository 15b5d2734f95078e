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

func unsettledKeys() script { return func(p *person) { p.looksAtUnsettled() } }

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

// spareAKeepB has a key that is held because fn said nothing, older than half the TTL, and an outcome
// that is younger.
func spareAKeepB(w *world) {
	spareA(w)
	time.Sleep(ttl / 2)
	w.prepares(keyB, 900, nil)
}

// lasting makes holds outlive the scenario.
func lasting(o func(*options)) func(*options) {
	return func(opts *options) {
		o(opts)
		opts.HoldTTL = time.Hour
	}
}
func keepA(w *world) { w.prepares(keyA, 900, nil) }

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
var scenarios = append(expand([]scenario{
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

	{name: "reconcile-leave", doc: "… that there was no effect, as the leader leaves: those that wait look again", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, succeeds), leave("a"), do(keyA, succeeds), do(keyA, fails)}},
	{name: "reconcile-leave-inline", doc: "… who would run fn himself", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, succeeds, how{inline: true}), leave("a"), do(keyA, succeeds, how{inline: true}), do(keyA, isUnknown)}},
	{name: "reconcile-wait", doc: "… or may wait no longer", prepare: holdA, reconcile: retryable, clock: []time.Duration{time.Second},
		actors: []script{do(keyA, succeeds, how{maxWait: time.Second}), do(keyA, fails), do(keyA, succeeds, how{maxWait: time.Second, inline: true}), leave("a")}},
	{name: "reconcile-wait-inline", doc: "… who would run fn himself", prepare: holdA, reconcile: retryable, clock: []time.Duration{time.Second},
		actors: []script{do(keyA, succeeds, how{maxWait: time.Second, inline: true}), do(keyA, succeeds, how{maxWait: time.Minute}), leave("a"), leave("b")}},
	{name: "reconcile-no-wait", doc: "… or may not wait at all", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, succeeds, how{maxWait: idemflight.NoWait}), do(keyA, fails), do(keyA, succeeds, how{maxWait: idemflight.NoWait, inline: true}), forget(keyA)}},
	{name: "reconcile-no-wait-found", apart: true, doc: "Reconcile finds a success, and its leader may not wait", prepare: holdA, reconcile: succeeds,
		actors: []script{do(keyA, succeeds, how{maxWait: idemflight.NoWait, ttl: -1}), do(keyA, fails), forget(keyA), closeIt()}},
	{name: "pause", apart: true, doc: "Reconcile learns nothing, and the pause after it ends", prepare: holdA, reconcile: learnsLess, clock: []time.Duration{pauseTime},
		actors: []script{then(do(keyA, succeeds), do(keyA, succeeds)), do(keyA, succeeds), reconcile(keyA), resolve(keyA, idemflight.Retryable(errors.New("no effect")))}},
	{name: "pause-anew", doc: "… with the hold, and a new one", prepare: holdA, reconcile: learnsLess, clock: []time.Duration{pauseTime / 2},
		actors: []script{then(do(keyA, isUnknown), do(keyA, isUnknown)), then(forget(keyA), do(keyA, isUnknown)), do(keyA, succeeds)}},

	{name: "look-again", doc: "an operator finds that there was no effect: those that wait for his Reconcile look again", prepare: holdA, reconcile: retryable,
		actors: []script{reconcile(keyA), do(keyA, succeeds), do(keyA, fails), leave("b")}},
	{name: "look-again-wait", doc: "… and some may not wait for long", prepare: holdA, reconcile: retryable, clock: []time.Duration{time.Second},
		actors: []script{reconcile(keyA), do(keyA, succeeds, how{maxWait: time.Second}), do(keyA, succeeds, how{inline: true, maxWait: time.Second}), forget(keyA)}},
	{name: "look-again-close", doc: "… beside Close", prepare: holdA, reconcile: retryable,
		actors: []script{reconcile(keyA), do(keyA, succeeds), closeIt(), do(keyA, succeeds)}},
	{name: "look-again-full", doc: "… and another has taken the place", prepare: holdA, reconcile: retryable, options: entries(1, ttl), keys: 2, spread: true,
		actors: []script{reconcile(keyA), do(keyA, succeeds), do(keyB, succeeds), do(keyA, fails)}},
	{name: "look-again-evict", doc: "… which may be evicted", prepare: holdA, reconcile: retryable, options: entries(1, -1), keys: 2,
		actors: []script{reconcile(keyA), do(keyA, succeeds), do(keyB, succeeds), do(keyA, fails)}},
	{name: "look-again-restore", doc: "… or has put the key back", prepare: holdA, reconcile: retryable,
		actors: []script{reconcile(keyA), do(keyA, succeeds, how{inline: true}), restore(keyA, idemflight.Held), reconcile(keyA)}},
	{name: "operator", apart: true, doc: "an operator's Reconcile finds a success, beside calls", prepare: holdA, reconcile: succeeds,
		actors: []script{reconcile(keyA), do(keyA, fails), leave("a"), reconcile(keyA)}},
	{name: "operator-joins", doc: "… that have asked already", prepare: holdA, reconcile: isFinal,
		actors: []script{do(keyA, fails, how{inline: true}), reconcile(keyA), leave("b"), leave("a")}},
	{name: "operator-joins-release", doc: "… and run fn", prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, succeeds), reconcile(keyA), leave("a"), reconcile(keyA)}},
	{name: "operator-forget", apart: true, doc: "… beside Forget", prepare: holdA, reconcile: succeeds,
		actors: []script{reconcile(keyA), forget(keyA), do(keyA, succeeds), forget(keyA)}},
	{name: "operator-resolve", doc: "… beside another, who resolves", prepare: holdA, reconcile: learnsLess,
		actors: []script{reconcile(keyA), resolve(keyA, nil), resolve(keyA, idemflight.Retryable(errors.New("no effect"))), do(keyA, succeeds)}},
	{name: "operator-close", doc: "… beside Close", prepare: holdA, reconcile: learnsLess,
		actors: []script{reconcile(keyA), closeIt(), do(keyA, succeeds), reconcile(keyA)}},
	{name: "operator-nothing", doc: "… which learns nothing, and the operator leaves", prepare: holdA, reconcile: learnsLess, clock: []time.Duration{pauseTime},
		actors: []script{reconcile(keyA), leave("a"), do(keyA, succeeds), reconcile(keyA)}},
	{name: "operator-panics", doc: "… which panics", prepare: holdA, reconcile: panics,
		actors: []script{reconcile(keyA), do(keyA, succeeds), leave("a"), reconcile(keyA)}},
	{name: "operator-flight", doc: "… while fn runs", reconcile: succeeds,
		actors: []script{do(keyA, isUnknown), reconcile(keyA), do(keyA, succeeds), resolve(keyA, nil)}},
	{name: "operator-expiry", apart: true, doc: "… as the held key expires", prepare: holdA, reconcile: learnsLess, clock: []time.Duration{ttl}, timers: true,
		actors: []script{reconcile(keyA), do(keyA, succeeds), reconcile(keyA)}},

	{name: "last-resort", doc: "a key is held because fn said nothing, and beside it what is protected for a while", options: lasting(entries(2, ttl/2)), keys: 3, spread: true, prepare: spareAKeepB, clock: []time.Duration{ttl / 2},
		actors: []script{do(keyC, succeeds), forget(keyB), do(keyA, fails), do(keyB, fails)}},
	{name: "last-resort-held", doc: "… and the other is retained, and may not be evicted before it", options: lasting(entries(2, -1)), keys: 3, prepare: spareAKeepB,
		actors: []script{do(keyC, succeeds), do(keyB, succeeds), forget(keyB), do(keyA, succeeds)}},
	{name: "last-resort-same", doc: "one place, for such a key, wanted by a call for another and by one for itself", options: lasting(entries(1, -1)), keys: 2, prepare: spareA,
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), forget(keyA), do(keyB, succeeds)}},
	{name: "last-resort-young", doc: "… which comes anew, and is protected for a while", options: lasting(entries(1, ttl/2)), keys: 2, clock: []time.Duration{ttl / 2},
		actors: []script{do(keyA, saysNothing), do(keyB, succeeds), do(keyB, saysNothing), do(keyA, saysNothing)}},
	{name: "last-resort-resolve", doc: "… which somebody resolves", options: lasting(entries(1, -1)), keys: 2, prepare: spareA,
		actors: []script{do(keyB, succeeds), resolve(keyA, nil), do(keyA, succeeds), resolve(keyA, idemflight.Retryable(errors.New("no effect")))}},
	{name: "last-resort-reconcile", doc: "… or Reconcile is asked", options: lasting(entries(1, ttl/2)), keys: 2, prepare: spareA, reconcile: learnsLess, clock: []time.Duration{ttl / 2},
		actors: []script{do(keyB, succeeds), do(keyA, succeeds), reconcile(keyA), do(keyA, fails)}},
	{name: "last-resort-restore", doc: "… and beside it a Restore wants the place", options: lasting(entries(1, -1)), keys: 2, prepare: spareA,
		actors: []script{restore(keyB, idemflight.Held), do(keyA, saysNothing), do(keyB, succeeds), forget(keyA)}},
	{name: "last-resort-own", doc: "… which is wanted by two for one key, and fn says nothing", options: lasting(entries(1, -1)), keys: 2, prepare: spareA,
		actors: []script{do(keyB, saysNothing), do(keyB, succeeds), do(keyA, saysNothing)}},
	{name: "last-resort-not", doc: "one place, for a key that is held for another reason", options: lasting(entries(1, -1)), keys: 2, prepare: holdA,
		actors: []script{do(keyB, succeeds), forget(keyA), do(keyA, begins), do(keyA, saysNothing)}},

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

	{name: "unsettled", doc: "what is in flight and held is shown beside calls", keys: 2, prepare: holdA, reconcile: retryable,
		actors: []script{do(keyA, isUnknown), unsettledKeys(), do(keyB, isUnknown), forget(keyA)}},
	{name: "says-nothing", apart: true, doc: "fn fails, and has not said whether an effect has begun",
		actors: []script{do(keyA, saysNothing), do(keyA, saysNothing), forget(keyA), leave("a")}},
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
}), storedScenarios()...)

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
