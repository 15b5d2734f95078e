package idemflight

import (
	"errors"
	"fmt"
)

// LimitShards gives caches made from now on at most n shards, until restore is called.
func LimitShards(n int) (restore func()) {
	before := maxShards
	maxShards = n
	return func() { maxShards = before }
}

// Shards returns the number of shards of c.
func (c *Cache[K, V]) Shards() int { return len(c.shards) }

// CheckInvariants returns what is wrong with the books of c, while nothing is under way.
func (c *Cache[K, V]) CheckInvariants() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var places, weight int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		k := &s.kept
		places += int64(len(s.pending) + k.len())
		expiring, valued := 0, 0
		each := func(r *record[K, V]) {
			if r.deadline != forever {
				expiring++
			}
			if r.weight > 0 {
				valued++
			}
			weight += r.weight
			if s.pending[r.key] != nil {
				wrong("key %v is in flight and kept", r.key)
			}
		}
		held, ordered := 0, 0
		for key, r := range k.records {
			each(r)
			if key != r.key {
				wrong("key %v leads to the record of %v", key, r.key)
			}
			if r.state == Held {
				held++
			}
		}
		var last *record[K, V]
		if k.order != nil {
			for _, r := range k.order.Keys() {
				ordered++
				if k.records[r.key] != r {
					wrong("%v is in order, but not kept", r.key)
				}
				if last != nil && r.used < last.used && !k.unsorted {
					wrong("outcomes are out of order: %v used at %v behind %v used at %v", r.key, r.used, last.key, last.used)
				}
				last = r
			}
		}
		if k.held != held || ordered != len(k.records)-held {
			wrong("%d are held, %d by count; %d outcomes are in order, of %d records", held, k.held, ordered, len(k.records))
		}
		if k.valued != nil && k.valued.Len() != valued || k.valued == nil && valued > 0 {
			wrong("%d outcomes weigh something, valued differs", valued)
		}
		if len(k.due) != expiring {
			wrong("%d records expire, due has %d", expiring, len(k.due))
		}
		for at, r := range k.due {
			if r.index != at || k.get(r.key) != r {
				wrong("due has %v at %d, which thinks it is at %d", r.key, at, r.index)
			}
		}
		before := [4]int64{s.edge.due.Load(), s.edge.used.Load(), s.edge.done.Load(), s.edge.valued.Load()}
		s.sortLocked()
		s.publishLocked()
		after := [4]int64{s.edge.due.Load(), s.edge.used.Load(), s.edge.done.Load(), s.edge.valued.Load()}
		for j := range before {
			if before[j] > after[j] {
				wrong("edge of shard %d hides a record: %v was published, %v is there", i, before, after)
			}
		}
		s.mu.Unlock()
	}
	if c.places.Load() != places {
		wrong("%d places are taken, in flight + kept are %d", c.places.Load(), places)
	}
	if c.weight.Load() != weight {
		wrong("weight is %d, the sum of records is %d", c.weight.Load(), weight)
	}
	return errors.Join(errs...)
}
