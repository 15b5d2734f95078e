package linear

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// A key is absent, in flight or kept, and each op moves it from one to the other in one instant of
// its interval. An execution is two such ops: the claim, before fn begins, and what settles it,
// after fn has ended.
type state struct {
	phase     idemflight.State // 0: absent
	id        int              // of the execution
	forgotten bool             // its outcome is not to be retained
	spare     bool             // held, and may be evicted as the last resort

	// What is kept expires not before lo and is not live at hi: when exactly the execution was over
	// is known to the cache alone.
	lo, hi int64
}

// part is an op, or one end of an execution.
type part struct {
	op
	settles bool
}

// keep is the state after an outcome was kept between from and to.
func keep(phase idemflight.State, id int, from, to, ttl int64) state {
	s := state{phase: phase, id: id, lo: interval.Never, hi: interval.Never}
	if from < interval.Never-ttl && to < interval.Never-ttl {
		s.lo, s.hi = from+ttl, to+ttl
	}
	return s
}

// step reports whether p can happen at s, and what the key then is.
func step(s state, p part, ttl int64) (bool, state) {
	kept := s.phase == idemflight.Retained || s.phase == idemflight.Held
	// It is there if it can be that it has not expired, and gone if it can be that it has.
	there := !kept || p.Call < s.hi
	gone := s.phase == 0 || kept && p.Ret >= s.lo

	switch p.Kind {
	case interval.Ran:
		if !p.settles {
			return gone, state{phase: idemflight.InFlight, id: p.ID}
		}
		if s.phase != idemflight.InFlight || s.id != p.ID {
			return false, s
		}
		switch {
		case p.Becomes == idemflight.Hold:
			s = keep(idemflight.Held, p.ID, p.End, p.Ret, ttl)
			s.spare = p.Spare
			return true, s
		case p.Becomes == idemflight.Retain && p.Keeps > 0 && !s.forgotten:
			return true, keep(idemflight.Retained, p.ID, p.End, p.Ret, ttl)
		}
		return true, state{}
	case interval.Joined:
		return s.phase == idemflight.InFlight && s.id == p.ID, s
	case interval.InFlight:
		return s.phase == idemflight.InFlight, s
	case interval.Replayed:
		return there && s.phase == idemflight.Retained && s.id == p.ID, s
	case interval.MetHeld:
		return there && s.phase == idemflight.Held && s.id == p.ID, s
	case interval.Full:
		return gone, state{}
	case interval.Evicted:
		if p.State == idemflight.Held {
			return s.spare, state{}
		}
		return s.phase == idemflight.Retained, state{}
	case interval.Looked:
		if !p.OK {
			return gone, state{}
		}
		return there && s.phase == p.State && (p.State == idemflight.InFlight || s.id == p.ID), s
	case interval.Forgot:
		switch {
		case !p.OK:
			return gone, state{}
		case s.phase == idemflight.InFlight:
			s.forgotten = true
			return true, s
		}
		return there && kept, state{}
	case interval.Resolved:
		switch {
		case !p.OK:
			// It is not held; what is absent, in flight or retained stays so.
			if s.phase == idemflight.Held {
				return gone, state{}
			}
			return true, s
		case s.phase != idemflight.Held || !there:
			return false, s
		case p.Releases:
			return true, state{}
		}
		return true, keep(idemflight.Retained, p.ID, p.Call, p.Ret, ttl)
	}
	panic("linear: no such kind")
}

// linearizable reports whether porcupine finds an order of the ops of each key that explains them;
// if it cannot tell in time, that counts as no.
//
// With a store, answers that a flight shares are left out: the record changes before the flight lands in each process
// that waits for it, or asks, and who comes in between shares what was true when the call came that leads.
func (h history) linearizable(timeout time.Duration) (bad []op) {
	model := porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, _ any) (bool, any) { return step(s.(state), in.(part), h.TTL) },
	}
	for _, ops := range h.Ops {
		var parts []porcupine.Operation
		add := func(client int, p part) {
			parts = append(parts, porcupine.Operation{ClientId: client, Input: p, Call: p.Call, Return: p.Ret})
		}
		for _, o := range ops {
			if h.stored && shared(o.Kind) {
				continue
			}
			if o.Kind != interval.Ran {
				add(o.Client, part{op: o})
				continue
			}
			claim, end := part{op: o}, part{op: o, settles: true}
			claim.Ret, end.Call = o.Start, o.End
			add(o.Client, claim)
			add(o.Client, end)
		}
		if porcupine.CheckOperationsTimeout(model, parts, timeout) != porcupine.Ok {
			return ops
		}
	}
	return nil
}

// shared reports whether answers of that kind may be shared by a flight.
func shared(k interval.Kind) bool {
	return k == interval.Joined || k == interval.MetHeld || k == interval.InFlight
}
