// Package storetest helps to test an [idemflight.Store], and caches with one: [Run] has the tests
// that every Store must pass; [RunProcesses] those in which processes die; [Mem] makes a Store in
// memory that fails when it is told to; and [CheckCodec] shows what comes back of your values and
// errors from a Store.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/storetable"
)

// Crasher is an [idemflight.Store] whose leases end with the process of the owner, not with time.
// [Run] calls Crash where a test needs a dead owner: then all owners of open records in the engine
// are dead, and the Store goes on as the Store of the next process. Claims with EffectsAnnounced
// that have not begun may be absent then.
//
// For a record in flight, the ExpiresIn of such a Store is negative: the lease has no end.
type Crasher interface {
	idemflight.Store
	Crash(t *testing.T)
}

// Run tests that a Store does what [idemflight.Store] promises, with a test for each row of its
// table. Within one test, each call of open returns a Store on the same engine and name: two of
// them stand for two processes. Keys are random, so it does no harm if the engine is not empty, and
// what the tests leave there is small.
//
// Leases end with time or, if the Store is a [Crasher], by Crash. No test depends on how fast the
// engine is, unless a verb takes most of a minute.
func Run(t *testing.T, open func(t *testing.T) idemflight.Store) {
	for _, state := range storetable.States {
		t.Run("Table/"+name(state.Name), func(t *testing.T) { runState(t, open, state) })
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"Data/KeysAreAnyBytes", keysAreAnyBytes},
		{"Data/ValuesAreAnyBytes", valuesAreAnyBytes},
		{"Data/StoresShareTheEngine", storesShareTheEngine},
		{"Time/LeaseEndsByItself", leaseEndsByItself},
		{"Time/BeginAndRenewMoveTheLease", beginAndRenewMoveTheLease},
		{"Time/WhatIsRetainedExpires", whatIsRetainedExpires},
		{"Time/HoldsWithAndWithoutEnd", holdsWithAndWithoutEnd},
		{"Reconcile/TellsOfTheHold", reconcileTellsOfTheHold},
		{"Reconcile/LearnedNothing", reconcileLearnedNothing},
		{"Reconcile/GivenBack", reconcileGivenBack},
		{"Reconcile/DiesAsItWas", reconcileDiesAsItWas},
		{"Reconcile/ThenBegun", reconcileThenBegun},
		{"Reconcile/AnswerIsKeptThoughForgottenBefore", reconcileClearsTheMark},
		{"Late/OwnerSettles", lateOwnerSettles},
		{"Late/DuplicatesOfClaims", lateDuplicatesOfClaims},
		{"Late/ForgetMissesWhatCameAfter", lateForget},
		{"Late/GiveBackMissesWhatCameAfter", lateGiveBack},
		{"Race/FreshKey", raceForAFreshKey},
		{"Race/TakeOver", raceForATakeover},
		{"Race/Reconcile", raceForAReconcile},
		{"Race/LateBeginAndTakeOver", raceOfBeginAndTakeOver},
		{"Race/LateSettleAndReconcile", raceOfSettleAndReconcile},
		{"Race/OneRequestManyTimes", raceOfOneRequest},
		{"Watch", watch},
		{"Renew/TellsTheLost", renewTellsTheLost},
		{"Unsettled", unsettled},
		{"Context/EndedIsAnError", endedContext},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newSuite(t, open)) })
	}
}

func name(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, ",", ""), " ", "_") }

// These leases and TTLs end in no test, and brief is waited for.
const (
	lease = time.Minute
	long  = time.Hour
	brief = 20 * time.Millisecond
)

// patience is for how long a test waits for what must happen soon.
var patience = 30 * time.Second

// suite is one test of a Store.
type suite struct {
	*testing.T
	idemflight.Store
	open func(t *testing.T) idemflight.Store
}

func newSuite(t *testing.T, open func(t *testing.T) idemflight.Store) *suite {
	return &suite{t, open(t), open}
}

func newID() (id idemflight.ClaimID) {
	_, _ = rand.Read(id[:])
	return id
}

// request returns a new request for a key of its own.
func request() idemflight.ClaimRequest {
	return requestFor("storetest " + rand.Text())
}

func requestFor(key string) idemflight.ClaimRequest {
	return idemflight.ClaimRequest{
		Claim: idemflight.Claim{Key: key, ID: newID()}, Fingerprint: idemflight.Fingerprint{1, 2, 3},
		Lease: lease, HoldTTL: long,
	}
}

// over returns a new request that replaces r, which was seen in that state; from Held,
// it is to reconcile.
func over(r idemflight.ClaimRequest, from idemflight.State) idemflight.ClaimRequest {
	replaces := r.ID
	r.ID, r.Replaces, r.From, r.Reconcile = newID(), replaces, from, from == idemflight.Held
	return r
}

// fresh returns a new request for the key of r, like one that knows nothing of r.
func fresh(r idemflight.ClaimRequest) idemflight.ClaimRequest { return requestFor(r.Key) }

func (s *suite) claim(r idemflight.ClaimRequest) idemflight.Standing {
	s.Helper()
	x, err := s.Claim(s.Context(), r)
	require.NoError(s, err, "Claim")
	return x
}

// claimed claims what nobody has.
func (s *suite) claimed(r idemflight.ClaimRequest) idemflight.ClaimRequest {
	s.Helper()
	x := s.claim(r)
	require.True(s, x.Granted, "a claim must be granted, and is answered %+v", x)
	require.Equal(s, idemflight.Absent, x.State, "State of a granted claim that reconciles nothing")
	require.Equal(s, r.ID, x.ID, "ID of a granted claim")
	return r
}

// toFindOut claims what is held by r, and returns the claim and what it was told.
func (s *suite) toFindOut(r idemflight.ClaimRequest) (idemflight.ClaimRequest, idemflight.Standing) {
	s.Helper()
	r = over(r, idemflight.Held)
	x := s.claim(r)
	require.True(s, x.Granted, "the claim of a held key must be granted, and is answered %+v", x)
	require.Equal(s, idemflight.Held, x.State, "State of a granted claim that is to reconcile")
	require.Equal(s, r.ID, x.ID, "ID of a granted claim")
	return r, x
}

func (s *suite) begun(r idemflight.ClaimRequest) idemflight.ClaimRequest {
	s.Helper()
	require.NoError(s, s.Begin(s.Context(), r.Claim, lease), "Begin")
	return r
}

func (s *suite) settled(r idemflight.ClaimRequest, what idemflight.Settlement) idemflight.ClaimRequest {
	s.Helper()
	_, err := s.Settle(s.Context(), r.Claim, what)
	require.NoError(s, err, "Settle")
	return r
}

func (s *suite) forgotten(r idemflight.ClaimRequest) idemflight.ClaimRequest {
	s.Helper()
	found, err := s.Forget(s.Context(), r.Claim)
	require.NoError(s, err, "Forget")
	require.True(s, found, "Forget: whether there was anything")
	return r
}

func (s *suite) givenBack(r idemflight.ClaimRequest) idemflight.ClaimRequest {
	s.Helper()
	require.NoError(s, s.GiveBack(s.Context(), r.Claim), "GiveBack")
	return r
}

func (s *suite) read(key string) idemflight.Standing {
	s.Helper()
	x, err := s.Read(s.Context(), key)
	require.NoError(s, err, "Read")
	return x
}

// readsAs returns x in the words of the table.
func readsAs(x idemflight.Standing) string {
	if x.State == idemflight.InFlight && x.ExpiresIn == 0 {
		return storetable.Dead
	}
	return map[idemflight.State]string{
		idemflight.Absent: storetable.Absent, idemflight.InFlight: storetable.InFlight,
		idemflight.Retained: storetable.Retained, idemflight.Held: storetable.Held,
	}[x.State]
}

// reads asserts what the key of r reads as, and returns it.
func (s *suite) reads(r idemflight.ClaimRequest, want string) idemflight.Standing {
	s.Helper()
	x := s.read(r.Key)
	require.Equal(s, want, readsAs(x), "what the key reads as: %+v", x)
	require.False(s, x.Granted, "Read grants nothing")
	return x
}

// until waits until done, which is soon.
func (s *suite) until(what string, done func() bool) {
	s.Helper()
	for start := time.Now(); !done(); time.Sleep(time.Millisecond) {
		require.Less(s, time.Since(start), patience, "waited for %s", what)
	}
}

// processBound reports whether leases end with processes alone.
func (s *suite) processBound() bool {
	_, ok := s.Store.(Crasher)
	return ok
}

// dead ends the lease of r.
func (s *suite) dead(r idemflight.ClaimRequest) idemflight.ClaimRequest {
	s.Helper()
	if store, ok := s.Store.(Crasher); ok {
		store.Crash(s.T)
	} else {
		lost, err := s.Renew(s.Context(), []idemflight.Claim{r.Claim}, time.Millisecond)
		require.NoError(s, err, "Renew")
		require.Empty(s, lost, "Renew: those lost")
	}
	s.until("the lease, renewed for 1 ms, to end", func() bool { return readsAs(s.read(r.Key)) != storetable.InFlight })
	return r
}

var (
	retain  = idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("value"), Err: []byte("err"), TTL: long}
	hold    = idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte("unknown"), TTL: long}
	release = idemflight.Settlement{Disposition: idemflight.Release}
	unkept  = idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("value")}
)

func with(s idemflight.Settlement, ttl time.Duration) idemflight.Settlement {
	s.TTL = ttl
	return s
}

// runState runs a row of the table, a verb in each test.
func runState(t *testing.T, open func(t *testing.T) idemflight.Store, state storetable.State) {
	row := func(verb string, try func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing)) {
		t.Run(verb, func(t *testing.T) {
			s := newSuite(t, open)
			r, reads := s.inState(state)
			if reads != state.Reads {
				require.True(t, s.processBound() && state.Reads == storetable.Dead && reads == storetable.Absent,
					"what a record in this state reads as: want %s, is %s", state.Reads, reads)
				t.Skip("the claim is gone with its owner")
			}
			try(s, r, s.read(r.Key))
		})
	}
	t.Run("Strangers", func(t *testing.T) { // all refused, so one record does
		s := newSuite(t, open)
		r, _ := s.inState(state)
		s.strangersAreRefused(r)
	})
	claim := func(want string, request func(idemflight.ClaimRequest) idemflight.ClaimRequest) func(*suite, idemflight.ClaimRequest, idemflight.Standing) {
		return func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
			s.claimIs(want, request(r), before)
		}
	}
	row("Claim", claim(state.Claim, fresh))
	row("ClaimAgain", claim(state.Again, func(r idemflight.ClaimRequest) idemflight.ClaimRequest { return r }))
	row("TakeOver", claim(state.TakeOver, func(r idemflight.ClaimRequest) idemflight.ClaimRequest { return over(r, idemflight.InFlight) }))
	row("Reconcile", claim(state.Reconcile, func(r idemflight.ClaimRequest) idemflight.ClaimRequest { return over(r, idemflight.Held) }))
	row("Begin", func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
		s.beginIs(state.Begin, r, before)
	})
	for verb, what := range map[string]idemflight.Settlement{
		"SettleRetain": retain, "SettleHold": hold, "SettleRelease": release,
		"SettleRetainTTL0": unkept, "SettleRetainTTLBelow0": with(unkept, -1),
	} {
		row(verb, func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
			s.settleIs(state.Settle, r, what, before)
		})
	}
	row("Renew", func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
		s.renewIs(state.Renew, r, before)
	})
	row("GiveBack", func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
		for range 2 {
			s.givenBack(r)
			if want := state.GiveBack; want == state.Reads {
				s.unchanged(r, before)
			} else {
				s.reads(r, want)
			}
		}
	})
	row("Forget", func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
		s.forgetIs(state.Forget, r, before)
	})
	row("Watch", func(s *suite, r idemflight.ClaimRequest, before idemflight.Standing) {
		if before.State != idemflight.InFlight || before.ID != r.ID || before.ExpiresIn == 0 {
			s.watchEnds(r)
		}
	})
}

// inState brings a record into a state, and returns its owner's request, and what it reads as.
func (s *suite) inState(state storetable.State) (owner idemflight.ClaimRequest, reads string) {
	s.Helper()
	owner = request()
	ttl := long
	for _, step := range strings.Fields(state.Steps) {
		switch step {
		case "claim":
			s.claimed(owner)
		case "announce":
			owner.EffectsAnnounced = true
			s.claimed(owner)
		case "begin":
			s.begun(owner)
		case "brief":
			ttl = brief
		case "retain":
			s.settled(owner, with(retain, ttl))
		case "unkept":
			s.settled(owner, unkept)
		case "hold":
			s.settled(owner, with(hold, ttl))
		case "release":
			s.settled(owner, release)
		case "giveback":
			s.givenBack(owner)
		case "forget":
			s.forgotten(owner)
		case "expire":
			s.until("expiry", func() bool { return s.read(owner.Key).State == idemflight.Absent })
		case "die":
			s.dead(owner)
		case "replace":
			next := over(owner, idemflight.InFlight)
			if s.read(owner.Key).State == idemflight.Absent { // of a Crasher
				next = fresh(owner)
			}
			s.claimed(next)
		case "again":
			s.claimed(fresh(owner))
		case "reconcile":
			owner, _ = s.toFindOut(owner)
		case "reconciled":
			s.toFindOut(owner)
		default:
			require.Fail(s, "the table has a step that is not known", step)
		}
	}
	return owner, readsAs(s.read(owner.Key))
}

// unchanged asserts that the key of r reads as before, except for the time that has passed.
func (s *suite) unchanged(r idemflight.ClaimRequest, before idemflight.Standing) {
	s.Helper()
	sameRecord(s, before, s.read(r.Key), "nothing may change")
}

// sameRecord asserts that x, which came later, tells of the same record in the same state.
func sameRecord(t *suite, before, x idemflight.Standing, why string) {
	t.Helper()
	require.Equal(t, readsAs(before), readsAs(x), "%s: what the key reads as", why)
	require.True(t, before.ExpiresIn < 0 && x.ExpiresIn < 0 || 0 <= x.ExpiresIn && x.ExpiresIn <= before.ExpiresIn,
		"%s: ExpiresIn was %v and is %v", why, before.ExpiresIn, x.ExpiresIn)
	require.Less(t, before.ExpiresIn-x.ExpiresIn, lease, "%s: ExpiresIn", why)
	require.WithinDuration(t, before.StartedAt, x.StartedAt, 0, "%s: StartedAt", why)
	require.WithinDuration(t, before.CompletedAt, x.CompletedAt, 0, "%s: CompletedAt", why)
	x.Granted, x.ExpiresIn, x.StartedAt, x.CompletedAt = before.Granted, before.ExpiresIn, before.StartedAt, before.CompletedAt
	require.Equal(t, before, x, why)
}

func (s *suite) claimIs(want string, r idemflight.ClaimRequest, before idemflight.Standing) {
	s.Helper()
	var first idemflight.Standing
	for i := range 2 {
		x := s.claim(r)
		switch want {
		case storetable.Any:
			return
		case storetable.Refused:
			require.False(s, x.Granted, "the claim must be refused: %+v", x)
			sameRecord(s, before, x, "a refused claim is told what the key reads as")
			s.unchanged(r, before)
			continue
		case storetable.Granted:
			require.True(s, x.Granted, "the claim must be granted: %+v", x)
			require.Equal(s, idemflight.Absent, x.State, "State")
		case storetable.ToFindOut:
			require.True(s, x.Granted, "the claim must be granted: %+v", x)
			require.Equal(s, idemflight.Held, x.State, "State")
		}
		require.Equal(s, r.ID, x.ID, "ID of a granted claim")
		if before.ID == r.ID { // a repeat
			s.unchanged(r, before)
		} else {
			now := s.reads(r, storetable.InFlight)
			require.Equal(s, r.ID, now.ID, "ID of the record after a grant")
			require.False(s, now.Begun, "Begun after a grant")
			require.False(s, now.Forgotten, "a grant takes the mark of Forget away")
		}
		if i > 0 {
			x.ExpiresIn = first.ExpiresIn
			require.Equal(s, first, x, "the answer to the same request again")
		}
		first = x
	}
}

func (s *suite) beginIs(want string, r idemflight.ClaimRequest, before idemflight.Standing) {
	s.Helper()
	for range 2 {
		err := s.Begin(s.Context(), r.Claim, lease)
		if want == storetable.Lost {
			require.ErrorIs(s, err, idemflight.ErrClaimLost, "Begin")
			s.unchanged(r, before)
			continue
		}
		require.NoError(s, err, "Begin")
		reads := storetable.InFlight
		if s.processBound() && readsAs(before) != reads { // whoever is dead stays so
			reads = storetable.Held
		}
		x := s.reads(r, reads)
		require.True(s, x.Begun, "Begun after Begin")
		require.Equal(s, r.ID, x.ID, "ID after Begin")
		require.Equal(s, before.Forgotten, x.Forgotten, "the mark of Forget after Begin")
	}
}

func (s *suite) settleIs(want string, r idemflight.ClaimRequest, what idemflight.Settlement, before idemflight.Standing) {
	s.Helper()
	x, err := s.Settle(s.Context(), r.Claim, what)
	again, againErr := s.Settle(s.Context(), r.Claim, what)
	switch want {
	case storetable.Any: // but no success that is nowhere: an answer that says nothing would be one
		if err == nil {
			require.False(s, before.State == idemflight.Absent && x.State == idemflight.Retained, "Settle of what was never settled: %+v", x)
		}
		s.unchanged(r, before)
		return
	case storetable.Lost:
		require.ErrorIs(s, err, idemflight.ErrClaimLost, "Settle")
		require.ErrorIs(s, againErr, idemflight.ErrClaimLost, "Settle again")
		s.unchanged(r, before)
		return
	}
	require.NoError(s, err, "Settle")
	require.NoError(s, againErr, "Settle again")
	if want != storetable.OK && want != storetable.Forgotten { // it is a repeat itself
		for _, x := range []idemflight.Standing{x, again} {
			require.False(s, x.Granted, "Granted, of Settle")
			require.Equal(s, want, counts(x), "the outcome that counts: %+v", x)
			if want == storetable.Retained {
				require.Equal(s, retain.Value, x.Value, "the value that counts")
			}
		}
		s.unchanged(r, before)
		return
	}
	forgotten := want == storetable.Forgotten && what.Disposition == idemflight.Retain
	require.Equal(s, idemflight.Standing{Forgotten: forgotten}, x, "the answer to the first Settle")
	reads, outcome := storetable.Absent, storetable.Absent
	switch {
	case what.Disposition == idemflight.Hold:
		reads, outcome = storetable.Held, storetable.Held
	case what.Disposition == idemflight.Retain:
		outcome = storetable.Retained
		if what.TTL > 0 && !forgotten {
			reads = storetable.Retained
		}
	}
	require.Equal(s, outcome, counts(again), "the answer to Settle again: %+v", again)
	now := s.reads(r, reads)
	if reads == storetable.Absent {
		return
	}
	require.Equal(s, r.ID, now.ID, "ID after Settle")
	require.Equal(s, r.Fingerprint, now.Fingerprint, "Fingerprint after Settle")
	require.False(s, now.Forgotten, "Forgotten, of what is kept")
	if reads == storetable.Retained {
		require.Equal(s, what.Value, now.Value, "Value after Settle")
		require.Equal(s, what.Err, now.Err, "Err after Settle")
		require.Equal(s, what.Value, again.Value, "Value in the answer to Settle again")
		require.Equal(s, what.Err, again.Err, "Err in the answer to Settle again")
	}
}

// counts is what an answer of Settle says that the outcome was.
func counts(x idemflight.Standing) string {
	x.ExpiresIn = -1
	return readsAs(x)
}

func (s *suite) renewIs(want string, r idemflight.ClaimRequest, before idemflight.Standing) {
	s.Helper()
	for range 2 {
		lost, err := s.Renew(s.Context(), []idemflight.Claim{r.Claim}, lease)
		require.NoError(s, err, "Renew")
		if want == storetable.Lost {
			require.Equal(s, []idemflight.ClaimID{r.ID}, lost, "Renew: those lost")
			s.unchanged(r, before)
			continue
		}
		require.Empty(s, lost, "Renew: those lost")
		if !s.processBound() { // else whoever is dead stays so
			s.reads(r, storetable.InFlight)
		}
	}
}

func (s *suite) forgetIs(want string, r idemflight.ClaimRequest, before idemflight.Standing) {
	s.Helper()
	found, err := s.Forget(s.Context(), r.Claim)
	require.NoError(s, err, "Forget")
	require.Equal(s, want != storetable.Nothing, found, "Forget: whether there was anything")
	for range 2 {
		switch want {
		case storetable.Nothing:
			s.unchanged(r, before)
		case storetable.Marked:
			require.True(s, s.reads(r, storetable.InFlight).Forgotten, "Forgotten, of what is in flight")
		case storetable.Dropped:
			s.reads(r, storetable.Absent)
		}
		_, err = s.Forget(s.Context(), r.Claim)
		require.NoError(s, err, "Forget again")
	}
}

// strangersAreRefused asserts that no verb with an ID that the record does not bear does anything,
// and no Claim that replaces what is not there.
func (s *suite) strangersAreRefused(r idemflight.ClaimRequest) {
	s.Helper()
	before := s.read(r.Key)
	s.lost(fresh(r))
	stale := fresh(r)
	for what, q := range map[string]idemflight.ClaimRequest{
		"TakeOver of another":               over(stale, idemflight.InFlight),
		"Reconcile of another":              over(stale, idemflight.Held),
		"TakeOver, to reconcile":            withReconcile(over(r, idemflight.InFlight), true, before),
		"from Held, but not to reconcile":   withReconcile(over(r, idemflight.Held), false, before),
		"from Held, with other fingerprint": withFingerprint(over(r, idemflight.Held)),
		"from Retained":                     over(r, idemflight.Retained),
		"from Absent":                       over(r, idemflight.Absent),
	} {
		for range 2 {
			x := s.claim(q)
			require.False(s, x.Granted, "Claim, %s, is granted", what)
			sameRecord(s, before, x, "Claim, "+what)
			s.unchanged(r, before)
		}
	}
}

// withReconcile returns q with Reconcile as given; of one that is dead and announced, which may be
// taken over in any case, a request that may not.
func withReconcile(q idemflight.ClaimRequest, reconcile bool, seen idemflight.Standing) idemflight.ClaimRequest {
	if q.Reconcile = reconcile; readsAs(seen) == storetable.Dead {
		q.From = idemflight.Held
	}
	return q
}

func withFingerprint(q idemflight.ClaimRequest) idemflight.ClaimRequest {
	q.Fingerprint[0]++
	return q
}

// lost asserts that r owns nothing: each verb is refused, and none changes anything.
func (s *suite) lost(r idemflight.ClaimRequest) {
	s.Helper()
	before := s.read(r.Key)
	for range 2 {
		require.ErrorIs(s, s.Begin(s.Context(), r.Claim, lease), idemflight.ErrClaimLost, "Begin")
		s.unchanged(r, before)
		for _, what := range []idemflight.Settlement{retain, unkept, hold, release} {
			_, err := s.Settle(s.Context(), r.Claim, what)
			require.ErrorIs(s, err, idemflight.ErrClaimLost, "Settle, %v", what.Disposition)
			s.unchanged(r, before)
		}
		lost, err := s.Renew(s.Context(), []idemflight.Claim{r.Claim}, lease)
		require.NoError(s, err, "Renew")
		require.Equal(s, []idemflight.ClaimID{r.ID}, lost, "Renew: those lost")
		s.unchanged(r, before)
		s.givenBack(r)
		s.unchanged(r, before)
		found, err := s.Forget(s.Context(), r.Claim)
		require.NoError(s, err, "Forget")
		require.False(s, found, "Forget of what the record does not bear")
		s.unchanged(r, before)
	}
}

// watchEnds asserts that Watch of what is not in flight by r returns.
func (s *suite) watchEnds(r idemflight.ClaimRequest) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	require.NoError(s, s.Watch(ctx, r.Claim), "Watch of a claim that is not in flight")
}

// endedContext: a verb ends soon after its context.
func endedContext(s *suite) {
	r := s.claimed(request())
	ctx, cancel := context.WithCancelCause(s.Context())
	watched := make(chan error, 1)
	go func() {
		for {
			if err := s.Watch(ctx, r.Claim); err != nil {
				watched <- err
				return
			}
		}
	}()
	time.Sleep(brief) // if Watch waits by now, it is interrupted; if not, it ends all the same
	cancel(errors.New("enough"))
	select {
	case <-watched:
	case <-time.After(patience):
		require.Fail(s, "Watch goes on after the end of its context")
	}
	_, err := s.Claim(ctx, fresh(r))
	require.Error(s, err, "Claim with a dead context")
	_, err = s.Read(ctx, r.Key)
	require.Error(s, err, "Read with a dead context")
	require.False(s, slices.ContainsFunc([]error{idemflight.ErrClaimLost, idemflight.ErrInvalidKey}, func(answer error) bool { return errors.Is(err, answer) }),
		"the end of a context is no answer: %v", err)
}
