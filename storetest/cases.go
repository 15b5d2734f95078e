package storetest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/storetable"
)

func keysAreAnyBytes(s *suite) {
	prefix := request().Key
	keys := []string{prefix, prefix + "\x00", prefix + "\x00a", prefix + "\xff\xfe", prefix + "\r\n'\"\\{}:", prefix + "é", "\x00" + prefix, "\xff" + prefix, strings.ToUpper(prefix), prefix + " "}
	for _, key := range keys {
		s.settled(s.claimed(requestFor(key)), idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte(key), TTL: long})
	}
	for _, key := range keys {
		require.Equal(s, []byte(key), s.read(key).Value, "value of the key %q", key)
	}
}

func valuesAreAnyBytes(s *suite) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	parts := [][]byte{nil, {}, {0}, []byte("\x00a\x00"), all, []byte("\xff"), []byte("null"), bytes.Repeat(all, 400)}
	for i, value := range parts {
		e := parts[(i+1)%len(parts)]
		given, givenErr := bytes.Clone(value), bytes.Clone(e)
		r := s.claimed(request())
		s.settled(r, idemflight.Settlement{Disposition: idemflight.Retain, Value: given, Err: givenErr, TTL: long})
		for _, b := range [][]byte{given, givenErr} { // they are the caller's again
			clear(b)
		}
		x := s.reads(r, storetable.Retained)
		require.Equal(s, value, x.Value, "the value that comes back")
		require.Equal(s, e, x.Err, "the error that comes back")
		clear(x.Value)
		clear(x.Err)
		again := s.claim(fresh(r))
		require.Equal(s, value, again.Value, "the value that a Claim is told")
		require.Equal(s, e, again.Err, "the error that a Claim is told")

		r = s.claimed(request())
		s.settled(r, idemflight.Settlement{Disposition: idemflight.Hold, Err: e, TTL: long})
		require.Equal(s, e, s.reads(r, storetable.Held).Err, "the error of a hold that comes back")
	}
}

// storesShareTheEngine: two of open are two processes that see one engine.
func storesShareTheEngine(s *suite) {
	other := newSuite(s.T, s.open)
	r := s.claimed(request())
	require.Equal(s, r.ID, other.reads(r, storetable.InFlight).ID, "ID of what another process claimed")
	require.False(s, other.claim(fresh(r)).Granted, "a second process must not get the claim")
	s.settled(s.begun(r), retain)
	require.Equal(s, retain.Value, other.reads(r, storetable.Retained).Value, "the value that another process settled with")
	other.forgotten(r)
	s.reads(r, storetable.Absent)
}

// leaseEndsByItself: nobody has to do anything for what a dead owner leaves to be seen.
func leaseEndsByItself(s *suite) {
	if s.processBound() {
		s.Skip("leases end with processes")
	}
	r, announced := request(), request()
	r.Lease, announced.Lease = 5*brief, 5*brief
	announced.EffectsAnnounced = true
	s.claimed(r)
	s.claimed(announced)
	s.until("the lease to end", func() bool { return s.read(r.Key).State == idemflight.Held })
	s.until("the lease to end", func() bool { return readsAs(s.read(announced.Key)) == storetable.Dead })
	x := s.reads(r, storetable.Held)
	require.Nil(s, x.Err, "Err of what is held because its owner died")
	require.True(s, x.CompletedAt.After(x.StartedAt), "started at %v, and the lease ended at %v", x.StartedAt, x.CompletedAt)
	require.WithinDuration(s, x.StartedAt.Add(r.Lease), x.CompletedAt, time.Second, "the end of the lease")
	s.claimed(over(announced, idemflight.InFlight))
}

func beginAndRenewMoveTheLease(s *suite) {
	if s.processBound() {
		s.Skip("leases end with processes")
	}
	between := func(min, max time.Duration, x idemflight.Standing, why string) {
		s.Helper()
		require.Greater(s, x.ExpiresIn, min, "ExpiresIn %s", why)
		require.LessOrEqual(s, x.ExpiresIn, max, "ExpiresIn %s", why)
	}
	r := s.claimed(request())
	between(0, lease, s.reads(r, storetable.InFlight), "after Claim")
	require.NoError(s, s.Begin(s.Context(), r.Claim, long))
	between(long-lease, long, s.reads(r, storetable.InFlight), "after Begin with a longer lease")
	require.NoError(s, s.Begin(s.Context(), r.Claim, time.Millisecond))
	between(long-lease, long, s.reads(r, storetable.InFlight), "after Begin with a shorter lease")
	lost, err := s.Renew(s.Context(), []idemflight.Claim{r.Claim}, 2*long)
	require.NoError(s, err)
	require.Empty(s, lost)
	between(2*long-lease, 2*long, s.reads(r, storetable.InFlight), "after Renew")
}

func whatIsRetainedExpires(s *suite) {
	r := request()
	r.Fingerprint = idemflight.Fingerprint{0, 255, 1}
	s.settled(s.begun(s.claimed(r)), retain)
	x := s.reads(r, storetable.Retained)
	require.Equal(s, r.Fingerprint, x.Fingerprint, "Fingerprint")
	require.False(s, x.StartedAt.IsZero(), "StartedAt is zero")
	require.False(s, x.CompletedAt.Before(x.StartedAt), "completed at %v, started at %v", x.CompletedAt, x.StartedAt)
	require.Less(s, x.CompletedAt.Sub(x.StartedAt), lease, "from the start to the end")
	require.Greater(s, x.ExpiresIn, long-lease, "ExpiresIn")
	require.LessOrEqual(s, x.ExpiresIn, long, "ExpiresIn")

	// Not before its time: the engine's clock tells, so no pause of this process can spoil it.
	r = s.settled(s.claimed(request()), with(retain, 5*brief))
	was := s.read(r.Key)
	s.until("expiry", func() bool { return s.read(r.Key).State == idemflight.Absent })
	s.claimed(fresh(r))
	if was.State == idemflight.Retained {
		later := s.read(r.Key).StartedAt
		require.Greater(s, later.Sub(was.CompletedAt), 4*brief, "from the end of the first execution to the start of the next")
	}
}

func holdsWithAndWithoutEnd(s *suite) {
	r := s.settled(s.claimed(request()), with(hold, -1))
	x := s.reads(r, storetable.Held)
	require.Negative(s, x.ExpiresIn, "ExpiresIn of a hold without end")
	require.Equal(s, hold.Err, x.Err, "Err of a hold")

	r = request()
	r.HoldTTL = -1
	s.dead(s.begun(s.claimed(r)))
	x = s.reads(r, storetable.Held)
	require.Negative(s, x.ExpiresIn, "ExpiresIn of a dead owner's hold without end")
	require.True(s, x.Begun, "Begun, of what is held because its owner died")

	r = s.dead(s.begun(s.claimed(request())))
	x = s.reads(r, storetable.Held)
	require.Greater(s, x.ExpiresIn, long-lease, "ExpiresIn of a dead owner's hold")
	require.LessOrEqual(s, x.ExpiresIn, long, "ExpiresIn of a dead owner's hold")
	require.Equal(s, r.Fingerprint, x.Fingerprint, "Fingerprint of a dead owner's hold")

	r = request()
	r.HoldTTL = brief
	s.dead(s.begun(s.claimed(r)))
	s.until("the end of a dead owner's hold", func() bool { return s.read(r.Key).State == idemflight.Absent })
	s.claimed(fresh(r))
	s.lost(r)
}

// sameHold asserts that what is told of a hold has not changed.
func (s *suite) sameHold(before, x idemflight.Standing) {
	s.Helper()
	require.Equal(s, before.Err, x.Err, "Err of the hold")
	require.WithinDuration(s, before.StartedAt, x.StartedAt, 0, "StartedAt of the hold")
	require.WithinDuration(s, before.CompletedAt, x.CompletedAt, 0, "CompletedAt of the hold")
	require.Equal(s, before.Fingerprint, x.Fingerprint, "Fingerprint of the hold")
}

// eachHold runs test on what was settled with Hold and on what a dead owner leaves.
func eachHold(s *suite, test func(r idemflight.ClaimRequest, x idemflight.Standing)) {
	for _, make := range []func() idemflight.ClaimRequest{
		func() idemflight.ClaimRequest { return s.settled(s.claimed(request()), hold) },
		func() idemflight.ClaimRequest { return s.dead(s.claimed(request())) },
		func() idemflight.ClaimRequest { return s.dead(s.begun(s.claimed(request()))) },
	} {
		r := make()
		test(r, s.reads(r, storetable.Held))
	}
}

func reconcileTellsOfTheHold(s *suite) {
	eachHold(s, func(r idemflight.ClaimRequest, x idemflight.Standing) {
		r, told := s.toFindOut(r)
		s.sameHold(x, told)
		now := s.reads(r, storetable.InFlight)
		require.WithinDuration(s, x.StartedAt, now.StartedAt, 0, "StartedAt of what waits for Reconcile's answer")
		s.settled(r, retain)
		require.Equal(s, retain.Value, s.reads(r, storetable.Retained).Value, "what Reconcile found")
	})
}

func reconcileLearnedNothing(s *suite) {
	eachHold(s, func(r idemflight.ClaimRequest, x idemflight.Standing) {
		r, _ = s.toFindOut(r)
		s.settled(r, idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte("learned nothing"), TTL: 2 * long})
		now := s.reads(r, storetable.Held)
		s.sameHold(x, now)
		require.Greater(s, now.ExpiresIn, 2*long-lease, "ExpiresIn: its end is new")
	})
}

func reconcileGivenBack(s *suite) {
	eachHold(s, func(r idemflight.ClaimRequest, x idemflight.Standing) {
		late := over(r, idemflight.Held)
		late.HoldTTL = 2 * long
		require.True(s, s.claim(late).Granted)
		s.givenBack(late)
		now := s.reads(r, storetable.Held)
		s.sameHold(x, now)
		require.LessOrEqual(s, now.ExpiresIn, x.ExpiresIn, "ExpiresIn: its end is as it was")
		require.Greater(s, now.ExpiresIn, x.ExpiresIn-lease, "ExpiresIn: its end is as it was")
		require.False(s, s.claim(late).Granted, "a late duplicate of what was given back must be refused")
		late.Replaces = late.ID // the next one sees the record as it is now
		s.toFindOut(late)
	})
}

func reconcileDiesAsItWas(s *suite) {
	eachHold(s, func(r idemflight.ClaimRequest, x idemflight.Standing) {
		next := over(r, idemflight.Held)
		next.EffectsAnnounced = true // and yet it is held: the effect is that of the one before
		next.HoldTTL = 2 * long
		require.True(s, s.claim(next).Granted)
		s.dead(next)
		now := s.reads(r, storetable.Held)
		s.sameHold(x, now)
		require.LessOrEqual(s, now.ExpiresIn, x.ExpiresIn, "ExpiresIn: its end is as it was")
		require.Greater(s, now.ExpiresIn, x.ExpiresIn-lease, "ExpiresIn: its end is as it was")
		require.False(s, s.claim(over(next, idemflight.InFlight)).Granted, "what is held must not be taken over")
		last, told := s.toFindOut(next)
		s.sameHold(x, told)
		s.lost(next)
		s.settled(last, release)
		s.reads(last, storetable.Absent)
	})
}

func reconcileThenBegun(s *suite) {
	eachHold(s, func(r idemflight.ClaimRequest, x idemflight.Standing) {
		r = over(r, idemflight.Held)
		r.HoldTTL = 2 * long
		require.True(s, s.claim(r).Granted)
		time.Sleep(2 * time.Millisecond) // an engine's clock may count milliseconds
		s.begun(r)
		now := s.reads(r, storetable.InFlight)
		require.True(s, now.Begun, "Begun")
		require.True(s, now.StartedAt.After(x.StartedAt), "an execution that follows a Reconcile started at %v, the one before at %v", now.StartedAt, x.StartedAt)
		s.dead(r)
		now = s.reads(r, storetable.Held)
		require.Nil(s, now.Err, "Err of what is held because its owner died")
		require.Greater(s, now.ExpiresIn, 2*long-lease, "ExpiresIn: the HoldTTL of the owner that died")
		s.settled(r, retain)
		require.Equal(s, retain.Err, s.reads(r, storetable.Retained).Err)
	})
}

// reconcileClearsTheMark: what is found out about a held key is kept, though its first
// owner was forgotten.
func reconcileClearsTheMark(s *suite) {
	r := s.dead(s.forgotten(s.begun(s.claimed(request()))))
	r, _ = s.toFindOut(r)
	x, err := s.Settle(s.Context(), r.Claim, retain)
	require.NoError(s, err)
	require.False(s, x.Forgotten, "a new owner clears the mark of Forget")
	s.reads(r, storetable.Retained)

	announced := request()
	announced.EffectsAnnounced = true
	s.dead(s.forgotten(s.claimed(announced)))
	next := over(announced, idemflight.InFlight)
	if s.read(next.Key).State == idemflight.Absent {
		next = fresh(announced)
	}
	s.settled(s.claimed(next), retain)
	s.reads(next, storetable.Retained)

	// Whoever settles with Hold clears it, too.
	r = s.settled(s.forgotten(s.claimed(request())), hold)
	require.False(s, s.reads(r, storetable.Held).Forgotten, "Forgotten, of a hold")
	r, _ = s.toFindOut(r)
	s.settled(r, retain)
	s.reads(r, storetable.Retained)
}

// lateOwnerSettles: the end of a lease takes nothing from an owner that nobody has replaced.
func lateOwnerSettles(s *suite) {
	for _, announced := range []bool{false, true} {
		r := request()
		r.EffectsAnnounced = announced
		s.dead(s.begun(s.claimed(r)))
		s.reads(r, storetable.Held)
		s.settled(r, retain)
		require.Equal(s, retain.Value, s.reads(r, storetable.Retained).Value, "what a late owner settled with")
	}
	r := s.dead(s.claimed(request()))
	require.NoError(s, s.Begin(s.Context(), r.Claim, lease), "Begin of a late owner")
	s.settled(r, hold)
	require.Equal(s, hold.Err, s.reads(r, storetable.Held).Err)
}

// lateDuplicatesOfClaims: a Claim that comes again after its execution is over is refused,
// whatever it asked for.
func lateDuplicatesOfClaims(s *suite) {
	ended := func(q idemflight.ClaimRequest, end func(idemflight.ClaimRequest)) {
		s.Helper()
		end(q)
		for range 2 {
			require.False(s, s.claim(q).Granted, "a late duplicate of a Claim must be refused")
		}
		s.reads(q, storetable.Absent)
	}
	for _, end := range []func(idemflight.ClaimRequest){
		func(q idemflight.ClaimRequest) { s.settled(q, release) },
		func(q idemflight.ClaimRequest) { s.settled(q, unkept) },
		func(q idemflight.ClaimRequest) { s.forgotten(s.settled(q, retain)) },
		func(q idemflight.ClaimRequest) { s.settled(s.forgotten(q), retain) },
	} {
		ended(s.claimed(request()), end)
		r, _ := s.toFindOut(s.settled(s.claimed(request()), hold))
		ended(r, end)
		if !s.processBound() {
			first := request()
			first.EffectsAnnounced = true
			ended(s.claimed(over(s.dead(s.claimed(first)), idemflight.InFlight)), end)
		}
	}
	ended(s.claimed(request()), func(q idemflight.ClaimRequest) { s.givenBack(q) })
}

func lateForget(s *suite) {
	r := s.forgotten(s.settled(s.claimed(request()), retain))
	next := s.claimed(fresh(r))
	s.lost(r)
	s.settled(next, retain)
	s.lost(r)
	require.Equal(s, next.ID, s.reads(next, storetable.Retained).ID)
	s.forgotten(next)
	last := s.claimed(fresh(r))
	s.lost(r)
	s.lost(next)
	s.settled(last, release)
	s.reads(last, storetable.Absent)
}

// lateGiveBack: it undoes a Claim, and nothing that came after.
func lateGiveBack(s *suite) {
	r := s.begun(s.claimed(request()))
	s.givenBack(r)
	require.True(s, s.reads(r, storetable.InFlight).Begun, "what has begun is not given back")
	s.settled(r, retain)
	s.givenBack(r)
	s.reads(r, storetable.Retained)

	r = s.givenBack(s.claimed(request()))
	next := s.claimed(fresh(r))
	s.givenBack(r)
	require.Equal(s, next.ID, s.reads(next, storetable.InFlight).ID)
	require.ErrorIs(s, s.Begin(s.Context(), r.Claim, lease), idemflight.ErrClaimLost, "Begin of what was given back")
}

// racers claim at the same time.
const racers = 8

// race has racers claim through two stores, each with the request that it is given, and
// returns those granted.
func (s *suite) race(request func() idemflight.ClaimRequest) (granted []idemflight.ClaimRequest) {
	s.Helper()
	stores := []*suite{s, newSuite(s.T, s.open)}
	start := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for i := range racers {
		q := request()
		all.Go(func() {
			<-start
			x, err := stores[i%2].Claim(s.Context(), q)
			mu.Lock()
			defer mu.Unlock()
			if failed = errors.Join(failed, err); x.Granted {
				granted = append(granted, q)
			}
		})
	}
	close(start)
	all.Wait()
	require.NoError(s, failed, "Claim")
	return granted
}

func (s *suite) oneWins(request func() idemflight.ClaimRequest) {
	s.Helper()
	granted := s.race(request)
	require.Len(s, granted, 1, "of %d claims at once one must be granted", racers)
	require.Equal(s, granted[0].ID, s.reads(granted[0], storetable.InFlight).ID, "the record is that of who was granted it")
	s.settled(granted[0], release)
}

const rounds = 10

func raceForAFreshKey(s *suite) {
	for range rounds {
		r := request()
		s.oneWins(func() idemflight.ClaimRequest { return fresh(r) })
		s.oneWins(func() idemflight.ClaimRequest { return fresh(r) }) // over its closed row
	}
	r := s.settled(s.claimed(request()), with(retain, brief))
	s.until("expiry", func() bool { return s.read(r.Key).State == idemflight.Absent })
	s.oneWins(func() idemflight.ClaimRequest { return fresh(r) })
}

func raceForATakeover(s *suite) {
	if s.processBound() {
		s.Skip("who is dead has left no claim to take over")
	}
	for range rounds {
		r := request()
		r.EffectsAnnounced = true
		s.dead(s.claimed(r))
		s.oneWins(func() idemflight.ClaimRequest { return over(r, idemflight.InFlight) })
		s.lost(r)
	}
}

func raceForAReconcile(s *suite) {
	for range rounds {
		r := s.settled(s.claimed(request()), hold)
		s.oneWins(func() idemflight.ClaimRequest { return over(r, idemflight.Held) })
	}
	r := s.dead(s.begun(s.claimed(request())))
	s.oneWins(func() idemflight.ClaimRequest { return over(r, idemflight.Held) })
	s.lost(r)
}

// oneOf runs two verbs at once, through two stores, and asserts that one of them
// succeeds, and one alone.
func (s *suite) oneOf(what string, first, second func(s *suite) bool) {
	s.Helper()
	other := newSuite(s.T, s.open)
	start := make(chan struct{})
	var both sync.WaitGroup
	var firstDid, secondDid bool
	both.Go(func() { <-start; firstDid = first(s) })
	both.Go(func() { <-start; secondDid = second(other) })
	close(start)
	both.Wait()
	require.NotEqual(s, firstDid, secondDid, "%s: one of both must succeed", what)
}

// raceOfBeginAndTakeOver: a late owner begins, or is replaced. Both would be two effects.
func raceOfBeginAndTakeOver(s *suite) {
	if s.processBound() {
		s.Skip("whoever is dead begins nothing")
	}
	for range rounds {
		r := request()
		r.EffectsAnnounced = true
		s.dead(s.claimed(r))
		next := over(r, idemflight.InFlight)
		s.oneOf("a late Begin and a takeover",
			func(s *suite) bool { return s.Begin(s.Context(), r.Claim, lease) == nil },
			func(s *suite) bool { x, err := s.Claim(s.Context(), next); return err == nil && x.Granted })
	}
}

// raceOfSettleAndReconcile: a late owner's outcome counts, or that of who finds out. Both
// would be two answers.
func raceOfSettleAndReconcile(s *suite) {
	for range rounds {
		r := s.dead(s.begun(s.claimed(request())))
		next := over(r, idemflight.Held)
		s.oneOf("a late Settle and a Claim to reconcile",
			func(s *suite) bool { _, err := s.Settle(s.Context(), r.Claim, retain); return err == nil },
			func(s *suite) bool { x, err := s.Claim(s.Context(), next); return err == nil && x.Granted })
	}
}

// raceOfOneRequest: copies of one request at once are one request.
func raceOfOneRequest(s *suite) {
	r := request()
	require.Len(s, s.race(func() idemflight.ClaimRequest { return r }), racers, "copies of one request: those granted")
	require.Equal(s, r.ID, s.reads(r, storetable.InFlight).ID)
}

// watch: it returns nil, at the latest, when the record is no longer in flight by the claim.
func watch(s *suite) {
	for what, end := range map[string]func(idemflight.ClaimRequest){
		"retained":   func(r idemflight.ClaimRequest) { s.settled(r, retain) },
		"held":       func(r idemflight.ClaimRequest) { s.settled(r, hold) },
		"released":   func(r idemflight.ClaimRequest) { s.settled(r, release) },
		"given back": func(r idemflight.ClaimRequest) { s.givenBack(r) },
		"over": func(r idemflight.ClaimRequest) {
			if s.processBound() {
				s.settled(r, release)
			} else {
				s.dead(r)
			}
		},
		"another's": func(r idemflight.ClaimRequest) { s.settled(r, release); s.claimed(fresh(r)) },
	} {
		r := s.claimed(request())
		watched := make(chan error, racers)
		for range racers {
			go func() {
				for {
					if err := s.Watch(s.Context(), r.Claim); err != nil {
						watched <- err
						return
					}
					x, err := s.Read(s.Context(), r.Key)
					if err != nil || x.ID != r.ID || readsAs(x) != storetable.InFlight {
						watched <- err
						return
					}
				}
			}()
		}
		time.Sleep(brief) // some watch by now; if none does, the test is weaker, and not wrong
		require.Empty(s, watched, "Watch ended although the claim is in flight")
		end(r)
		for range racers {
			select {
			case err := <-watched:
				require.NoError(s, err, "Watch")
			case <-time.After(patience):
				require.Fail(s, "Watch goes on", "the record is %s", what)
			}
		}
	}
	s.watchEnds(request())
}

func renewTellsTheLost(s *suite) {
	claimed, begun := s.claimed(request()), s.begun(s.claimed(request()))
	found, _ := s.toFindOut(s.settled(s.claimed(request()), hold))
	gone, kept, never := s.settled(s.claimed(request()), release), s.settled(s.claimed(request()), retain), request()
	again := s.settled(s.claimed(request()), release)
	s.claimed(fresh(again))
	var all []idemflight.Claim
	for _, r := range []idemflight.ClaimRequest{gone, claimed, kept, begun, never, found, again} {
		all = append(all, r.Claim)
	}
	lost, err := s.Renew(s.Context(), all, lease)
	require.NoError(s, err, "Renew")
	require.ElementsMatch(s, []idemflight.ClaimID{gone.ID, kept.ID, never.ID, again.ID}, lost, "Renew: those lost")
	lost, err = s.Renew(s.Context(), nil, lease)
	require.NoError(s, err, "Renew of nothing")
	require.Empty(s, lost, "Renew of nothing: those lost")
}

func unsettled(s *suite) {
	prefix := request().Key
	made := 0
	next := func(announced bool) idemflight.ClaimRequest {
		made++
		r := requestFor(prefix + strings.Repeat("\x00", made))
		r.EffectsAnnounced = announced
		return r
	}
	died, dead := next(false), next(true)
	s.claimed(died)
	s.begun(s.claimed(dead))
	s.dead(died)
	s.dead(dead)
	want := map[string]string{died.Key: storetable.Held, dead.Key: storetable.Held}
	want[s.claimed(next(false)).Key] = storetable.InFlight
	want[s.claimed(next(true)).Key] = storetable.InFlight
	want[s.begun(s.claimed(next(true))).Key] = storetable.InFlight
	want[s.settled(s.claimed(next(false)), hold).Key] = storetable.Held
	found, _ := s.toFindOut(s.settled(s.claimed(next(false)), hold))
	want[found.Key] = storetable.InFlight
	s.settled(s.claimed(next(false)), retain)
	s.settled(s.claimed(next(true)), release)
	s.settled(s.claimed(next(true)), unkept)
	s.forgotten(s.settled(s.claimed(next(false)), hold))
	expired := s.settled(s.claimed(next(false)), with(hold, brief))
	s.until("expiry", func() bool { return s.read(expired.Key).State == idemflight.Absent })

	told, got := make(map[string]idemflight.Standing), make(map[string]string)
	err := s.Unsettled(s.Context(), func(key string, x idemflight.Standing) error {
		if strings.HasPrefix(key, prefix) {
			require.NotContains(s, told, key, "Unsettled tells a key twice")
			told[key], got[key] = x, readsAs(x)
		}
		return nil
	})
	require.NoError(s, err, "Unsettled")
	for key, x := range told {
		sameRecord(s, x, s.read(key), "Unsettled and Read tell the same")
	}
	require.Equal(s, want, got, "the keys that Unsettled tells, of those of this test")

	enough := errors.New("enough")
	var keys []string
	err = s.Unsettled(s.Context(), func(key string, _ idemflight.Standing) error {
		keys = append(keys, key)
		return enough
	})
	require.True(s, errors.Is(err, enough), "the error of f, which Unsettled must return: %v", err)
	require.Len(s, keys, 1, "the keys told until f returns an error")
}
