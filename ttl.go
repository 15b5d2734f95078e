package idemflight

import (
	"container/heap"
	"math"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// kept is what one shard keeps. Its methods need the shard's mu; they call no user code and take no
// lock. It knows nothing of places and weight, which are counted across shards.
//
// Outcomes go in the order in which they were put in, but one that was replayed meanwhile gets a
// second chance and goes to the end once more: the algorithm known as CLOCK (Corbató 1968), which
// comes near to LRU, and lets a replay move nothing.
//
// Plain records come and go in the order in which they complete and so expire: one list, kept by
// golang-lru, does for both. What does not fit into that order, or needs more fields, is in others
// and in queues: order (outcomes, by turn), valued (those that weigh something, by worth), due
// (those that expire, by deadline). Held ones are never in order: they are not evicted.
type kept[K comparable, V any] struct {
	ttl    time.Duration              // of plain records
	unhot  func(key K, f found[K, V]) // is called before a record leaves that is, or was, in the hot table
	plain  *simplelru.LRU[K, *record[V]]
	newest time.Duration // the latest deadline of plain
	others map[K]*fullRecord[K, V]
	held   int    // how many of others are held
	peak   int    // the most records since the tables were made
	puts   uint32 // how many records were put in so far

	due, order, valued queue[K, V]
}

// smallTable is how many records a table may have had and still be left standing when it empties:
// one group of a Go map, which never shrinks by itself.
const smallTable = 8

func (k *kept[K, V]) len() int {
	n := len(k.others)
	if k.plain != nil {
		n += k.plain.Len()
	}
	return n
}

// get returns the record of key, expired or not. No use is noted.
func (k *kept[K, V]) get(key K) found[K, V] {
	if k.plain != nil {
		if r, ok := k.plain.Peek(key); ok {
			return found[K, V]{record: r}
		}
	}
	if len(k.others) > 0 {
		if r := k.others[key]; r != nil {
			return found[K, V]{&r.record, r}
		}
	}
	return found[K, V]{}
}

// fits reports whether a record that expires at deadline may be plain: none that is there expires later.
func (k *kept[K, V]) fits(deadline time.Duration) bool {
	return deadline >= k.newest && deadline != forever
}

// addPlain puts in r, of key, which must be absent; its deadline must fit. It reports whether r may
// be the first in any order.
func (k *kept[K, V]) addPlain(key K, r *record[V]) bool {
	if k.plain == nil {
		k.plain, _ = simplelru.NewLRU[K, *record[V]](math.MaxInt, nil) // fails only for a size below 1
	}
	k.plain.Add(key, r)
	k.newest = r.deadline
	k.puts++
	k.peak = max(k.peak, k.len())
	return k.plain.Len() == 1
}

// add puts in r; its key must be absent. It reports whether r may be the first in any order.
func (k *kept[K, V]) add(r *fullRecord[K, V]) bool {
	if k.others == nil {
		k.others = make(map[K]*fullRecord[K, V])
		k.due.by, k.order.by, k.valued.by = byDeadline, byTurn, byWorth
	}
	k.others[r.key] = r
	if State(r.state) == Held {
		k.held++
	} else {
		heap.Push(&k.order, r)
	}
	if r.weight > 0 {
		heap.Push(&k.valued, r)
	}
	if r.deadline != forever {
		heap.Push(&k.due, r)
	}
	k.puts++
	k.peak = max(k.peak, k.len())
	return r.index[byDeadline] == 0 || r.index[byTurn] == 0 || r.weight > 0 && r.index[byWorth] == 0
}

// remove takes out the record of key.
func (k *kept[K, V]) remove(key K, f found[K, V]) {
	if f.flags.Load()&hot != 0 {
		k.unhot(key, f)
	}
	if r := f.full; r == nil {
		if _, oldest, _ := k.plain.GetOldest(); oldest == f.record {
			k.plain.RemoveOldest() // as mostly: needs no look-up
		} else {
			k.plain.Remove(key)
		}
	} else {
		delete(k.others, key)
		if State(r.state) == Held {
			k.held--
		} else {
			heap.Remove(&k.order, int(r.index[byTurn]))
		}
		if r.weight > 0 {
			heap.Remove(&k.valued, int(r.index[byWorth]))
		}
		if r.deadline != forever {
			heap.Remove(&k.due, int(r.index[byDeadline]))
		}
	}
	if k.peak > smallTable && k.len() == 0 {
		*k = kept[K, V]{ttl: k.ttl, unhot: k.unhot, puts: k.puts}
	}
}

// firstDue returns the record that expires first, or nothing.
func (k *kept[K, V]) firstDue() (key K, f found[K, V]) {
	if len(k.due.items) > 0 {
		r := k.due.items[0]
		key, f = r.key, found[K, V]{&r.record, r}
	}
	if k.plain != nil {
		if pk, r, ok := k.plain.GetOldest(); ok && (f.record == nil || r.deadline < f.deadline) {
			key, f = pk, found[K, V]{record: r}
		}
	}
	return key, f
}

// firstTurn returns the outcome whose turn it is to be evicted, with its turn and its completion,
// or nothing and never.
func (k *kept[K, V]) firstTurn() (key K, f found[K, V], first turn, done time.Duration) {
	first, done = never, forever
	if len(k.order.items) > 0 {
		r := k.order.items[0]
		key, f, first, done = r.key, found[K, V]{&r.record, r}, r.turn, r.done
	}
	if k.plain != nil {
		if pk, r, ok := k.plain.GetOldest(); ok && k.turnOf(r).before(first) {
			key, f, first, done = pk, found[K, V]{record: r}, k.turnOf(r), k.doneOf(r)
		}
	}
	return key, f, first, done
}

// doneOf returns when the execution of r, a plain record, completed.
func (k *kept[K, V]) doneOf(r *record[V]) time.Duration { return r.deadline - k.ttl }

// turnOf returns the turn of r, a plain record: as one that was replayed leaves the plain, it is
// still the first.
func (k *kept[K, V]) turnOf(r *record[V]) turn {
	return turn{k.doneOf(r), r.flags.Load() >> seqShift}
}

// again gives the outcome of key, which was replayed, its second chance, at the turn next.
func (k *kept[K, V]) again(key K, f found[K, V], next turn) {
	r := f.full
	if r == nil { // it leaves the order in which plain records expire
		done := k.doneOf(f.record)
		r = &fullRecord[K, V]{
			record: record[V]{value: f.value, deadline: f.deadline, took: f.took},
			key:    key, state: uint8(Retained), done: done, turn: next,
		}
		k.remove(key, f)
		k.add(r)
		return
	}
	r.flags.And(^replayed)
	r.turn = next
	heap.Fix(&k.order, int(r.index[byTurn]))
}

// firstWorth returns the turn of the value that is the next to be shed, or never.
func (k *kept[K, V]) firstWorth() turn {
	if len(k.valued.items) == 0 {
		return never
	}
	return k.valued.items[0].worth
}

// valueAgain gives the value of r, which was replayed, its second chance, at the turn next.
func (k *kept[K, V]) valueAgain(r *fullRecord[K, V], next turn) {
	r.flags.And(^replayedValue)
	r.worth = next
	heap.Fix(&k.valued, int(r.index[byWorth]))
}

// shed puts a record without value and weight in the place of r.
func (k *kept[K, V]) shed(r *fullRecord[K, V]) {
	k.remove(r.key, found[K, V]{&r.record, r})
	k.add(r.shed())
}

// keys appends the keys of all records to keys.
func (k *kept[K, V]) keys(keys []K) []K {
	if k.plain != nil {
		keys = append(keys, k.plain.Keys()...)
	}
	for key := range k.others {
		keys = append(keys, key)
	}
	return keys
}

// queue is a heap of full records, the first one on top.
type queue[K comparable, V any] struct {
	items []*fullRecord[K, V]
	by    rank
}

// rank is what a queue goes by.
type rank uint8

const (
	byDeadline rank = iota
	byTurn
	byWorth
)

func (q *queue[K, V]) Len() int { return len(q.items) }

func (q *queue[K, V]) Less(i, j int) bool {
	switch a, b := q.items[i], q.items[j]; q.by {
	case byDeadline:
		return a.deadline < b.deadline
	case byTurn:
		return a.turn.before(b.turn)
	default:
		return a.worth.before(b.worth)
	}
}

func (q *queue[K, V]) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].index[q.by], q.items[j].index[q.by] = int32(i), int32(j)
}

func (q *queue[K, V]) Push(x any) {
	r := x.(*fullRecord[K, V])
	r.index[q.by] = int32(len(q.items))
	q.items = append(q.items, r)
}

func (q *queue[K, V]) Pop() any {
	last := len(q.items) - 1
	r := q.items[last]
	q.items[last] = nil // the array must not keep it alive
	q.items = q.items[:last]
	return r
}
