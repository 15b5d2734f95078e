package idemflight

import "time"

// draft is a record that is about to be kept.
type draft[K comparable, V any] struct {
	key         K
	hash        uint32
	state       State
	value       V
	err         error
	fingerprint Fingerprint
	origin      *Origin // of the execution, if it was traced
	weight      int64   // taken from MaxWeight, unless it is more than that
	why         why     // it is held, if it is

	started, done time.Duration // the execution
	deadline      time.Duration
	expiry        time.Time // in wall time, if the clock cannot reach it, so that the deadline is forever
	times         *times    // if they do not follow from these
}

// expireAfter sets the deadline to ttl after from; a negative ttl is without end.
func (d *draft[K, V]) expireAfter(c *clock, from, ttl time.Duration) {
	d.deadline = deadlineOf(from, ttl)
	if d.deadline != forever && d.times == nil {
		return
	}
	c.syncWall()
	expiry := after(c.wall(from), ttl)
	if d.deadline == forever {
		d.expiry = expiry
	}
	if d.times != nil {
		d.times.expires = expiry
	}
}

// record returns d as a record.
func (c *Cache[K, V]) record(d *draft[K, V]) *record[K, V] {
	took, fits := tookOf(d.done - d.started)
	if d.state == Retained && d.err == nil && d.fingerprint == (Fingerprint{}) && d.weight == 0 &&
		d.origin == nil && fits && d.times == nil && d.deadline != forever && d.deadline-d.done == c.opts.TTL {
		return &record[K, V]{key: d.key, value: d.value, deadline: d.deadline, took: took, hash: d.hash}
	}
	full := &fullRecord[K, V]{details: details{
		kind: uint8(d.state), err: d.err, fingerprint: d.fingerprint, origin: d.origin, weight: d.weight,
		done: d.done, times: d.times, why: d.why,
	}}
	r := &full.record
	r.key, r.value, r.deadline, r.more, r.took, r.hash = d.key, d.value, d.deadline, &full.details, took, d.hash
	if d.times == nil && (!fits || !d.expiry.IsZero()) {
		c.syncWall()
		r.more.times = &times{
			started: c.wall(d.started), completed: c.wall(d.done), expires: d.expiry, ahead: c.ahead.Load(),
		}
		if d.deadline != forever {
			r.more.times.expires = c.wall(d.deadline)
		}
	}
	return r
}

// keepLocked inserts d, whose place and weight have been taken; if d alone is heavier than
// MaxWeight, its value is shed at once.
func (c *Cache[K, V]) keepLocked(s *shard[K, V], d *draft[K, V], notes *[]note[K]) {
	if d.weight > c.opts.MaxWeight {
		d.state, d.value, d.weight = Shed, *new(V), 0
		c.noteShed(s, d.key, d.origin, notes)
	}
	c.insertLocked(s, c.record(d))
}

// holdAgainLocked inserts r, which was held, once more. It is as it was, except that it ends when d
// does, and that for a second calls get the error of d.
func (c *Cache[K, V]) holdAgainLocked(s *shard[K, V], r *record[K, V], d *draft[K, V]) {
	if r.more.times != nil || !d.expiry.IsZero() {
		t := c.timesOf(r)
		c.syncWall()
		t.expires = after(c.wall(d.done), c.opts.HoldTTL)
		r.more.times = &t
	}
	r.more.pause = &pause{d.done + pauseTime, d.err}
	r.deadline = d.deadline
	r.flags.Store(0)
	c.insertLocked(s, r)
}

// insertLocked inserts r. Its number counts as given only when its head is published: a search for
// room that sees the number finds the record. (Insertions into other shards at the same time may
// have the same number.)
func (c *Cache[K, V]) insertLocked(s *shard[K, V], r *record[K, V]) {
	r.seq = c.seq.Load() + 1
	if r.weight() > 0 {
		r.more.valueTurn = insertionTurn(c.now(), r.seq)
	}
	s.kept.add(r)
	if s.kept.isHead(r) {
		s.publishLocked()
	}
	c.seq.Add(1)
}

// removeLocked takes out r, whose place has been given back or passes on.
func (c *Cache[K, V]) removeLocked(s *shard[K, V], r *record[K, V]) {
	isHead := s.kept.isHead(r)
	s.kept.remove(r)
	if isHead {
		s.publishLocked()
	}
	c.returnWeight(r.weight())
}

// liveLocked returns the unexpired record of key, or nil; an expired one it drops.
func (c *Cache[K, V]) liveLocked(s *shard[K, V], hash uint64, key K, notes *[]note[K]) *record[K, V] {
	r := s.kept.get(hash, key)
	if r == nil || !r.expired(c.now()) {
		return r
	}
	c.returnPlace()
	c.expireLocked(s, r, notes)
	return nil
}

// timesOf returns the times of r in wall time, as that stands now.
func (c *Cache[K, V]) timesOf(r *record[K, V]) times {
	c.syncWall()
	if r.more != nil && r.more.times != nil {
		return r.more.times.as(c.ahead.Load())
	}
	done := r.done(c.opts.TTL)
	t := times{completed: c.wall(done), started: c.wall(done - time.Duration(r.took)), ahead: c.ahead.Load()}
	if r.deadline != forever {
		t.expires = c.wall(r.deadline)
	}
	return t
}

// entry returns r as Lookup shows it.
func (c *Cache[K, V]) entry(r *record[K, V]) Entry[V] {
	t := c.timesOf(r)
	return Entry[V]{
		State: r.state(), Value: r.value, Err: r.err(), Fingerprint: r.fingerprint(), Origin: r.origin(),
		StartedAt: t.started, CompletedAt: t.completed, ExpiresAt: t.expires,
	}
}
