package idemflight

import (
	"time"

	"github.com/idemflight/idemflight/internal/order"
)

// kept is what one shard keeps. Its methods need the shard's mu, except get; they call no user code
// and take no lock. It knows nothing of places and weight, which are counted across shards.
//
// A record stands in the table, where it is found, and in the orders in which records go:
//
//	to be evicted   by turn: its completion, or its last second chance (held records: never, or last)
//	to expire       by deadline (those without end: never)
//	to be shed      by turn of its value (those that weigh nothing: never)
//
// Outcomes go in the order in which they were inserted, except that one that was replayed meanwhile
// gets a second chance and goes to the end once more: the algorithm known as CLOCK (Corbató 1968),
// which comes near to LRU, and lets a replay move nothing.
//
// Most records have the TTL of the cache and are inserted as they complete, so that one line has
// the first two orders. The others are queued in two heaps: those with a TTL of their own,
// restored, completed before the last of the line, or given a second chance. Values have a line of
// their own, at the end of which a value goes for its second chance.
type kept[K comparable, V any] struct {
	ttl        time.Duration // Options.TTL
	table      table[K, V]
	line       order.Line[record[K, V]]
	newest     time.Duration // deadline of the record that came to the line last
	order, due order.Queue[record[K, V]]
	values     order.Line[record[K, V]]
	held       order.Queue[record[K, V]] // by completion, without
	spare      order.Queue[record[K, V]] // those that may be evicted as the last resort
	weight     int64
}

func (k *kept[K, V]) init(ttl time.Duration) {
	k.ttl = ttl
	k.table.init()
	for _, q := range []*order.Queue[record[K, V]]{&k.order, &k.held, &k.spare} {
		*q = order.NewQueue(func(r *record[K, V]) *uint32 { return &r.place })
	}
	k.due = order.NewQueue(func(r *record[K, V]) *uint32 { return &r.due })
}

func (k *kept[K, V]) len() int { return k.table.len }

// get returns the record of key, expired or not, or nil. Without mu it may miss one.
func (k *kept[K, V]) get(hash uint64, key K) *record[K, V] { return k.table.get(uint32(hash), key) }

// add inserts r, whose key must be absent. It has the number of its insertion, and its value a
// turn, if it weighs something.
func (k *kept[K, V]) add(r *record[K, V]) {
	switch done := r.done(k.ttl); {
	case r.state() != Held && r.deadline != forever && r.deadline-done == k.ttl && r.deadline >= k.newest:
		r.place = k.line.Add(r)
		k.newest = r.deadline
	default:
		r.flags.Or(queued)
		k.queueOf(r).Add(r, insertionTurn(done, r.seq))
		k.addDue(r)
	}
	if r.weight() > 0 {
		r.more.valuePlace = k.values.Add(r)
		k.weight += r.weight()
	}
	k.table.add(r) // last: from here on it is replayed
}

func (k *kept[K, V]) addDue(r *record[K, V]) {
	if r.deadline != forever {
		k.due.Add(r, order.Turn{At: r.deadline})
	}
}

// remove takes out r, which must be there.
func (k *kept[K, V]) remove(r *record[K, V]) {
	k.table.remove(r)
	k.dropValue(r)
	k.dropTurn(r)
	if r.has(queued) && r.deadline != forever {
		k.due.Remove(r.due)
	}
}

// dropTurn takes r out of the order of eviction, and with the line out of that of expiry.
func (k *kept[K, V]) dropTurn(r *record[K, V]) {
	if r.has(queued) {
		k.queueOf(r).Remove(r.place)
	} else {
		k.line.Remove(r.place)
	}
}

// queueOf returns the queue that has the turn of r, which is queued.
func (k *kept[K, V]) queueOf(r *record[K, V]) *order.Queue[record[K, V]] {
	switch {
	case r.state() != Held:
		return &k.order
	case r.more.why.spare():
		return &k.spare
	}
	return &k.held
}

// holds returns how many records are held.
func (k *kept[K, V]) holds() int { return k.held.Len() + k.spare.Len() }

func (k *kept[K, V]) dropValue(r *record[K, V]) {
	if r.weight() > 0 {
		k.values.Remove(r.more.valuePlace)
		k.weight -= r.weight()
	}
}

// firstDue returns the record that expires first, or nil.
func (k *kept[K, V]) firstDue() *record[K, V] {
	r := k.line.First()
	if q, _ := k.due.First(); q != nil && (r == nil || q.deadline < r.deadline) {
		return q
	}
	return r
}

// firstTurn returns the outcome that is the first to be evicted and its turn; or nil and never.
func (k *kept[K, V]) firstTurn() (*record[K, V], order.Turn) {
	r, first := k.line.First(), never
	if r != nil {
		first = insertionTurn(r.done(k.ttl), r.seq)
	}
	if q, turn := k.order.First(); q != nil && turn.Before(first) {
		return q, turn
	}
	return r, first
}

// firstSpare returns the record that is the first to be evicted as the last resort and its
// turn; or nil and never.
func (k *kept[K, V]) firstSpare() (*record[K, V], order.Turn) {
	if r, turn := k.spare.First(); r != nil {
		return r, turn
	}
	return nil, never
}

// firstValue returns the record whose value is the first to be shed and its turn; or nil and never.
func (k *kept[K, V]) firstValue() (*record[K, V], order.Turn) {
	if r := k.values.First(); r != nil {
		return r, r.more.valueTurn
	}
	return nil, never
}

// isHead reports whether r is the first in one of its line and queues.
func (k *kept[K, V]) isHead(r *record[K, V]) bool {
	if r.weight() > 0 && r == k.values.First() {
		return true
	}
	if !r.has(queued) {
		return r == k.line.First()
	}
	turn, _ := k.queueOf(r).First()
	due, _ := k.due.First()
	return r == turn || r == due
}

// giveSecondChance gives r, an outcome that was replayed, the turn next.
func (k *kept[K, V]) giveSecondChance(r *record[K, V], next order.Turn) {
	k.dropTurn(r)
	if !r.has(queued) { // it keeps its deadline, and so leaves the line
		r.flags.Or(queued)
		k.addDue(r)
	}
	r.flags.And(^replayed)
	k.order.Add(r, next)
}

// giveValueSecondChance does the same for the value of r.
func (k *kept[K, V]) giveValueSecondChance(r *record[K, V], next order.Turn) {
	k.values.Remove(r.more.valuePlace)
	r.flags.And(^replayedValue)
	r.more.valueTurn = next
	r.more.valuePlace = k.values.Add(r)
}

// shed puts a record without value and weight in the place of r.
func (k *kept[K, V]) shed(r *record[K, V]) {
	k.dropValue(r)
	full := &fullRecord[K, V]{details: *r.more}
	full.details.kind, full.details.weight = uint8(Shed), 0
	shed := &full.record
	shed.key, shed.hash, shed.deadline, shed.took = r.key, r.hash, r.deadline, r.took
	shed.more, shed.seq, shed.place, shed.due = &full.details, r.seq, r.place, r.due
	shed.flags.Store(r.flags.Load())
	k.table.replace(r, shed)
	if !shed.has(queued) {
		k.line.Replace(shed.place, shed)
		return
	}
	k.order.Replace(shed.place, shed)
	if shed.deadline != forever {
		k.due.Replace(shed.due, shed)
	}
}
