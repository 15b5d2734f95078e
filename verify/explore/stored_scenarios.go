package explore

import (
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight"
)

type storedScript = func(c *client)

// calls returns the script of one call of Do.
func calls(d deed, opts ...idemflight.CallOption) storedScript {
	return func(c *client) { c.does(d, opts...) }
}

func kill(c *client)            { c.kills() }
func forgetStored(c *client)    { c.forgets() }
func reconcileStored(c *client) { c.reconciles() }

func resolveStored(err error) storedScript { return func(c *client) { c.resolves(err) } }

func leaveStored(who string) storedScript { return func(c *client) { c.leaves(who) } }

// inTurn returns scripts one after the other.
func inTurn(all ...storedScript) storedScript {
	return func(c *client) {
		for _, s := range all {
			s(c)
		}
	}
}

// Before the schedule begins these leave the key retained, or held, with an effect and without.

func retained(c *client)      { c.does(charges) }
func heldCharged(c *client)   { c.does(chargesAndFails) }
func heldUncharged(c *client) { c.does(beginsAndFails) }

func unannounced(o *storedOptions) { o.EffectsAnnounced = false }

// beat is how often a cache does what it owes to the store.
const beat = idemflight.DefaultLease / 3

// storedScenarios are those of two processes that share a store.
func storedScenarios() (all []scenario) {
	for _, sc := range []scenario{
		{name: "store", doc: "two processes share a store, two verbs of which fail", through: "Watch", stored: &stored{
			failures: 2, actors: []storedScript{calls(charges), calls(charges)}}},
		{name: "store-takeover", doc: "an owner looks dead, and goes on late", stored: &stored{
			failures: 1, actors: []storedScript{calls(charges), calls(charges), kill}}},
		{name: "store-unannounced", doc: "… whose effect is not announced", stored: &stored{
			options: unannounced, failures: 1, actors: []storedScript{calls(chargesUnannounced), calls(chargesUnannounced), kill}}},
		{name: "store-reconcile", doc: "… and Reconcile asks the bank", through: "yielded", stored: &stored{
			reconcile: true, failures: 1, actors: []storedScript{calls(charges), calls(charges), kill}}},
		{name: "store-learns", doc: "the bank knows, or knows nothing yet", stored: &stored{
			reconcile: true, failures: 1, actors: []storedScript{calls(chargesAndFails), calls(charges), inTurn(kill, kill), calls(charges)}}},
		{name: "store-reconcile-late", doc: "who reconciles looks dead, and another does", stored: &stored{
			reconcile: true, prepare: heldUncharged, failures: 1, actors: []storedScript{calls(charges), calls(charges), kill}}},
		{name: "store-fails", doc: "fn fails before its effect, and those that watch look again", through: "Watch", stored: &stored{
			failures: 1, actors: []storedScript{calls(failsEarly), calls(charges), calls(charges)}}},
		{name: "store-leave", doc: "callers leave while the store is asked", stored: &stored{
			actors: []storedScript{calls(charges), calls(charges), leaveStored("a"), leaveStored("b")}}},
		{name: "store-no-wait", doc: "callers who may not wait for the other process", stored: &stored{
			failures: 1, actors: []storedScript{calls(charges), calls(charges, idemflight.WithMaxWait(idemflight.NoWait)), kill, calls(charges)}}},
		{name: "store-forget", doc: "Forget in one process, at any moment of a flight in the other", stored: &stored{
			failures: 1, actors: []storedScript{inTurn(calls(charges), calls(charges)), forgetStored, kill}}},
		{name: "store-forget-local", doc: "… in its own process, which replays from memory", stored: &stored{
			options: func(o *storedOptions) { o.LocalTTL = 0 }, prepare: retained, failures: 1,
			actors: []storedScript{calls(charges), calls(charges), inTurn(forgetStored, calls(charges))}}},
		{name: "store-resolve", doc: "two operators resolve one held key", stored: &stored{
			prepare: heldUncharged, failures: 1,
			actors: []storedScript{resolveStored(nil), resolveStored(idemflight.Retryable(errors.New("no effect"))), calls(charges)}}},
		{name: "store-operator", doc: "an operator's Reconcile beside calls in the other process", stored: &stored{
			reconcile: true, prepare: heldCharged, failures: 1,
			actors: []storedScript{reconcileStored, calls(charges), kill, reconcileStored}}},
		{name: "store-outage", doc: "a verb fails until its caller gives up; heartbeats give back and offer again", through: "GiveBack", stored: &stored{
			failures: 1, outage: true, clock: []time.Duration{beat}, actors: []storedScript{calls(charges), calls(charges)}}},
		{name: "store-outage-reconcile", doc: "… beside Reconcile", stored: &stored{
			reconcile: true, prepare: heldUncharged, failures: 1, outage: true, clock: []time.Duration{beat},
			actors: []storedScript{calls(charges), calls(charges), kill}}},
		{name: "store-renew", doc: "leases are renewed while fn runs", through: "Renew", stored: &stored{
			failures: 1, clock: []time.Duration{beat}, actors: []storedScript{calls(charges), calls(charges)}}},
	} {
		sc.name = fmt.Sprintf("%s/%d", sc.name, sc.callers())
		all = append(all, sc)
	}
	return all
}
