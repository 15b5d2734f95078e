package main

// rule of the protocol, which can be taken away.
type rule uint8

type rules uint64

const (
	ownIDs rule = iota
	replaces
	from
	sameGrant
	claimRepeats
	leaseOver
	announcedOnly
	unbegunOnly
	reconcilerHolds
	heldByReading
	claimClearsMark
	closedRefuses
	beginFenced
	beginRestarts
	beginBeforeEffect
	beginAfterRetryable
	refusalStops
	settleFenced
	closedStays
	closedRows
	forgottenGoes
	holdClearsMark
	holdKeepsTimes
	recordFirst
	standingCounts
	askedIsUnknown
	txFenced
	oneTransaction
	rowLock
	heldDurable
	renewFenced
	forgetByID
	forgetMarks
	giveBackOwn
	giveBackFenced
	givenBackIDs
	numberRules = iota
)

// Where a rule's absence shows: all are small, and have no late request but those that need one.
var (
	announcedBegin = config{callers: 2, announced: true, reconcile: true, fn: begins}
	announcedTx    = config{callers: 2, announced: true, reconcile: true, fn: settlesInTx}
	silent         = config{callers: 2, reconcile: true, fn: plain}
)

// protocolRules says what each rule is, and what its absence brings back: the invariant that breaks, in which
// configuration. A rule with breaks none is one for which the model finds no hole; hole then says what the
// rule is good for all the same, and the model explores all of the configuration without it.
var protocolRules = [numberRules]struct {
	name, says string
	breaks     invariant
	in         config
	hole       string
}{
	ownIDs: {"own-ids", "every request has an ID of its own, and only a repeat of the same request bears the same", heldStays, with(announcedBegin, late(1), asDesigned),
		"an ID that was replaced asks its question again, and takes the free key; then a late request of the one that replaced it is put over it once more"},
	replaces: {"replaces", "a Claim over a record names the ID that it replaces", oneEffect, with(announcedBegin, late(1)),
		"a late Claim of a released execution is put over another's dead one, and the repeat of the first one's Release frees the key"},
	from: {"from", "and the state in which it saw it", heldStays, with(announcedBegin, late(1), relaxed),
		"a crash brings a claim back that was taken over when it had begun nothing; it begins, and the late takeover is put over it"},
	sameGrant: {"same-grant", "and the grant: the ID may have come back to a free key since, with another StartedAt (not in the design yet)", heldStays, with(silent, late(1)),
		"a late Claim over a held key is put over the same ID, which a repeated Claim has brought back to the key when it was free; the repeat of a Release frees the key"},
	claimRepeats: {"claim-repeats", "the same Claim again is granted again", none, announcedBegin,
		"the caller takes its own claim for another's, and waits until the lease is over"},
	leaseOver: {"lease-over", "a claim is taken over only when its lease is over", leaseEnds, announcedBegin,
		"it is taken over from a live owner, which the fence then refuses"},
	announcedOnly: {"announced-only", "only an announced claim is taken over to run; another reads as held", oneEffect, with(silent, func(c *config) { c.reconcile = false }),
		"fn had its effect without Begin, and runs again"},
	unbegunOnly: {"unbegun-only", "only a claim that has not begun is taken over to run", oneEffect, announcedBegin,
		"fn had its effect, and runs again"},
	reconcilerHolds: {"reconciler-holds", "a held key whose Reconcile died is held, not a claim that has begun nothing", oneEffect, announcedBegin,
		"fn had its effect, is reconciled, and runs again"},
	heldByReading: {"held-by-reading", "what reads as held is computed, not written", lateOwner, announcedBegin,
		"a slow owner cannot settle, though nobody has replaced it"},
	claimClearsMark: {"claim-clears-mark", "a grant takes the mark of Forget away", heldStays, with(announcedBegin, forgets),
		"what Reconcile finds is dropped by a Forget that met the dead owner"},
	closedRefuses: {"closed-refuses", "a late Claim is refused by the closed row with its ID", oneAnswer, with(announcedBegin, late(1), ends(1)),
		"an outcome that was dropped is back with the repeat of its Settle"},
	beginFenced: {"begin-fenced", "Begin compares the ID", oneEffect, announcedBegin,
		"an owner that was replaced begins"},
	beginRestarts: {"begin-restarts", "Begin of a reconciling record makes StartedAt now", oneEffect, with(announcedBegin, func(c *config) { c.bank = deadline }),
		"the next Reconcile counts the bank's deadline from the first execution, and the second is still under way"},
	beginBeforeEffect: {"begin-before-effect", "fn that is announced calls BeginEffect before its effect", oneEffect, announcedBegin,
		"the claim reads as one that has begun nothing, and is taken over"},
	beginAfterRetryable: {"begin-after-retryable", "after a Reconcile that answered Retryable, Begin comes before fn", oneEffect, silent,
		"two that were granted the key one after the other both run fn"},
	refusalStops: {"refusal-stops", "no effect when Begin had no answer", oneEffect, announcedBegin,
		"the claim was not begun, and is taken over"},
	settleFenced: {"settle-fenced", "Settle compares the ID", oneEffect, announcedBegin,
		"an owner that was replaced releases the claim of another"},
	closedStays: {"closed-stays", "Settle of what is closed changes nothing", oneEffect, announcedTx,
		"fn, whose COMMIT had no answer, releases what it has committed"},
	closedRows: {"closed-rows", "what ends as absent stays as a row that keeps the ID and how it was settled", lateOwner, announcedBegin,
		"a Settle was accepted, its answer lost, and the repeat is told ErrClaimLost"},
	forgottenGoes: {"forgotten-goes", "Retain of what was forgotten in flight keeps nothing", forgetActs, with(announcedBegin, forgets),
		"the outcome is kept"},
	holdClearsMark: {"hold-clears-mark", "Hold takes the mark of Forget away", none, with(announcedBegin, forgets),
		"the grant that follows takes it away as well; only who reads the held key in between sees a mark"},
	holdKeepsTimes: {"hold-keeps-times", "Hold after Reconcile keeps the times of the hold", none, with(announcedBegin, func(c *config) { c.bank = deadline }),
		"the next Reconcile waits for longer than it must"},
	recordFirst: {"record-first", "no caller is told before the engine has recorded it", oneAnswer, with(announcedBegin, func(c *config) { c.bank = hasty }),
		"one that was written off (promise 32) tells its own outcome beside that of the record"},
	standingCounts: {"standing-counts", "callers get the outcome that the engine has for the claim, whatever fn returned", trueRetryable, announcedTx,
		"fn, whose COMMIT had no answer, says that it may be retried"},
	askedIsUnknown: {"asked-is-unknown", "a Release that is lost is unknown if SettleTx had said nil", trueRetryable, with(announcedTx, ends(1)),
		"fn, whose COMMIT had no answer and whose closed row is gone, says that it may be retried"},
	txFenced: {"tx-fenced", "SettleTx compares the ID", fence, announcedTx,
		"an owner that was replaced commits"},
	oneTransaction: {"one-transaction", "SettleTx's record commits with the effect", oneEffect, announcedTx,
		"the process dies in between"},
	rowLock: {"row-lock", "who would write to the record waits until the transaction is decided", trueRetryable, announcedTx,
		"a Release is recorded while COMMIT is with the server"},
	heldDurable: {"held-durable", "with RelaxedClaims, too, the grant of a held key is durable (the design does not say so)", heldStays, with(announcedBegin, late(1), relaxed),
		"a crash brings the late owner back, which begins; a late Claim puts the reconciler over it, who answers as of before"},
	renewFenced: {"renew-fenced", "Renew compares the ID", none, announcedBegin,
		"a dead owner's lease is kept alive by the one it replaced: the key is stuck for as long"},
	forgetByID: {"forget-by-id", "Forget names the claim that it means", heldStays, with(announcedBegin, late(1), forgets),
		"a late repeat of it drops what came after"},
	forgetMarks: {"forget-marks", "Forget of what is in flight marks it", oneEffect, with(announcedBegin, forgets),
		"it removes a flight, and fn runs beside it"},
	giveBackOwn: {"give-back-own", "a give-back is no Release: what was held is held again", oneEffect, announcedBegin,
		"it frees a held key whose Reconcile grant went unanswered"},
	giveBackFenced: {"give-back-fenced", "GiveBack compares the ID", lateOwner, announcedBegin,
		"it ends the claim of another"},
	givenBackIDs: {"given-back-ids", "an ID that was to be given back is never used again", oneEffect, with(silent, late(1), func(c *config) { c.reconcile = false }),
		"a late give-back frees the key of a claim of which fn runs"},
}

// with returns a configuration that differs from c.
func with(c config, changes ...func(*config)) config {
	for _, change := range changes {
		change(&c)
	}
	return c
}

// asDesigned is the protocol without same-grant, which closes the hole of own-ids as well.
func asDesigned(c *config) { c.without |= 1 << sameGrant }

func late(n int) func(*config)   { return func(c *config) { c.late = n } }
func ends(n uint8) func(*config) { return func(c *config) { c.drops = n } }
func forgets(c *config)          { c.drops, c.forgets = 1, true }
