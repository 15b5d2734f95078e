package linear

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/idemflight/idemflight"
)

// A key is absent, in flight or kept, and each op moves it from one to the other in one instant of
// its interval. An execution is two such ops: the claim, before fn begins, and what settles it,
// after fn has ended.
type state struct {
	phase     idemflight.State // 0: absent
	id        int              // of the execution
	forgotten bool             // its outcome is not to be retained

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
	s := state{phase: phase, id: id, lo: never, hi: never}
	if from < never-ttl && to < never-ttl {
		s.lo, s.hi = from+ttl, to+ttl
	}
	return s
}

// step reports whether p can happen at s, and what the key then is.
func step(s state, p part, ttl int64) (bool, state) {
	kept := s.phase == idemflight.Retained || s.phase == idemflight.Held
	// It is there if it can be that it has not expired, and gone if it can be that it has.
	there := !kept || p.call < s.hi
	gone := s.phase == 0 || kept && p.ret >= s.lo

	switch p.kind {
	case ran:
		if !p.settles {
			return gone, state{phase: idemflight.InFlight, id: p.id}
		}
		if s.phase != idemflight.InFlight || s.id != p.id {
			return false, s
		}
		switch {
		case p.becomes == idemflight.Hold:
			return true, keep(idemflight.Held, p.id, p.end, p.ret, ttl)
		case p.becomes == idemflight.Retain && !p.noTTL && !s.forgotten:
			return true, keep(idemflight.Retained, p.id, p.end, p.ret, ttl)
		}
		return true, state{}
	case joined:
		return s.phase == idemflight.InFlight && s.id == p.id, s
	case inFlight:
		return s.phase == idemflight.InFlight, s
	case replayed:
		return there && s.phase == idemflight.Retained && s.id == p.id, s
	case metHeld:
		return there && s.phase == idemflight.Held && s.id == p.id, s
	case full:
		return gone, state{}
	case evicted:
		return s.phase == idemflight.Retained, state{}
	case looked:
		if !p.ok {
			return gone, state{}
		}
		return there && s.phase == p.state && (p.state == idemflight.InFlight || s.id == p.id), s
	case forgot:
		switch {
		case !p.ok:
			return gone, state{}
		case s.phase == idemflight.InFlight:
			s.forgotten = true
			return true, s
		}
		return there && kept, state{}
	case resolved:
		switch {
		case !p.ok:
			// It is not held; what is absent, in flight or retained stays so.
			if s.phase == idemflight.Held {
				return gone, state{}
			}
			return true, s
		case s.phase != idemflight.Held || !there:
			return false, s
		case p.releases:
			return true, state{}
		}
		return true, keep(idemflight.Retained, p.id, p.call, p.ret, ttl)
	}
	panic("linear: no such kind")
}

// linearizable reports whether porcupine finds an order of the ops of each key that explains them;
// if it cannot tell in time, that counts as no.
func (h history) linearizable(timeout time.Duration) (bad []op) {
	model := porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, _ any) (bool, any) { return step(s.(state), in.(part), h.ttl) },
	}
	for _, ops := range h.ops {
		var parts []porcupine.Operation
		add := func(client int, p part) {
			parts = append(parts, porcupine.Operation{ClientId: client, Input: p, Call: p.call, Return: p.ret})
		}
		for _, o := range ops {
			if o.kind != ran {
				add(o.client, part{op: o})
				continue
			}
			claim, end := part{op: o}, part{op: o, settles: true}
			claim.ret, end.call = o.start, o.end
			add(o.client, claim)
			add(o.client, end)
		}
		if porcupine.CheckOperationsTimeout(model, parts, timeout) != porcupine.Ok {
			return ops
		}
	}
	return nil
}
