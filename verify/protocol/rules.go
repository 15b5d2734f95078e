package main

// rule of the protocol that can be taken away.
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
	oneTransaction
	rowLock
	txFenced
	renewFenced
	forgetByID
	forgetMarks
	giveBackOwn
	giveBackFenced
	givenBackIDs
	numberRules = iota
)

var ruleNames = [numberRules]string{
	"own-ids", "replaces", "from", "same-grant", "claim-repeats", "lease-over", "announced-only", "unbegun-only", "reconciler-holds", "held-by-reading", "claim-clears-mark", "closed-refuses",
	"begin-fenced", "begin-restarts", "begin-before-effect", "begin-after-retryable", "refusal-stops", "settle-fenced", "closed-stays", "closed-rows", "forgotten-goes", "hold-clears-mark", "hold-keeps-times", "record-first", "standing-counts",
	"asked-is-unknown", "one-transaction", "row-lock", "tx-fenced", "renew-fenced", "forget-by-id", "forget-marks", "give-back-own", "give-back-fenced", "given-back-ids",
}
