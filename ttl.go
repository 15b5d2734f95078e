package idemflight

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// record is what is kept of a key after its flight.
type record[K comparable, V any] struct {
	key         K
	value       V // zero unless Retained
	err         error
	fingerprint Fingerprint
	state       State // Retained, Shed or Held

	started, completed, expires time.Time // wall time, for Entry and Result

	// On the cache's monotonic clock.
	done     time.Duration // completed
	deadline time.Duration // expires; forever if it does not
	used     time.Duration // stamp of the last use, see Cache.stamp

	weight int64 // counted against MaxWeight; 0 unless Retained
	index  int   // in kept.due; meaningless if the deadline is forever
}

// expired reports whether r is gone at now. The deadline itself counts as expired.
func (r *record[K, V]) expired(now time.Duration) bool { return now >= r.deadline }

func (r *record[K, V]) entry() Entry[V] {
	return Entry[V]{
		State: r.state, Value: r.value, Err: r.err, Fingerprint: r.fingerprint,
		StartedAt: r.started, CompletedAt: r.completed, ExpiresAt: r.expires,
	}
}

// kept is what one shard keeps. Its methods need the shard's mu; they call no user code and take no
// lock. It knows nothing of places and weight, which are counted across shards.
//
// A record is in exactly one of outcomes (retained and shed, by recency) and held (never evicted);
// also in valued if it weighs something, and in due if it expires.
type kept[K comparable, V any] struct {
	outcomes *simplelru.LRU[K, *record[K, V]] // nil when empty
	valued   *simplelru.LRU[K, *record[K, V]] // nil when empty, as always without MaxWeight
	held     map[K]*record[K, V]
	due      dueQueue[K, V]

	// unsorted is set by restored records, whose last use lies further back than that of records
	// that are there already: golang-lru can only put them in front. sort mends it when it matters.
	unsorted bool

	peak int // the most records since the tables were made
}

// smallTable is how many records a table may have had and still be left standing when it empties:
// one group of a Go map, which never shrinks by itself.
const smallTable = 8

func (k *kept[K, V]) len() int { return k.lenOutcomes() + len(k.held) }

func (k *kept[K, V]) lenOutcomes() int {
	if k.outcomes == nil {
		return 0
	}
	return k.outcomes.Len()
}

// get returns the record of key, expired or not, or nil. No use is counted.
func (k *kept[K, V]) get(key K) *record[K, V] {
	if k.outcomes != nil {
		if r, ok := k.outcomes.Peek(key); ok {
			return r
		}
	}
	return k.held[key]
}

// add puts r in; its key must be absent.
func (k *kept[K, V]) add(r *record[K, V]) {
	if r.state == Held {
		if k.held == nil {
			k.held = make(map[K]*record[K, V])
		}
		k.held[r.key] = r
	} else {
		front(&k.outcomes, r)
		if r.weight > 0 {
			front(&k.valued, r)
		}
	}
	if r.deadline != forever {
		heap.Push(&k.due, r)
	}
	k.peak = max(k.peak, k.len())
}

// touch counts a use of r, an outcome, at stamp.
func (k *kept[K, V]) touch(r *record[K, V], stamp time.Duration) {
	r.used = stamp
	k.outcomes.Get(r.key)
	if r.weight > 0 {
		k.valued.Get(r.key)
	}
}

// remove takes r out.
func (k *kept[K, V]) remove(r *record[K, V]) {
	if r.state == Held {
		delete(k.held, r.key)
	} else {
		k.outcomes.Remove(r.key)
		if r.weight > 0 {
			k.valued.Remove(r.key)
		}
	}
	if r.deadline != forever {
		heap.Remove(&k.due, r.index)
	}
	if k.peak > smallTable {
		k.shrink()
	}
}

// shed drops the value of r and its weight; the key stays where it is.
func (k *kept[K, V]) shed(r *record[K, V]) {
	var zero V
	k.valued.Remove(r.key)
	r.state, r.value, r.weight = Shed, zero, 0
}

// shrink drops the tables if nothing is left in them.
func (k *kept[K, V]) shrink() {
	if k.len() == 0 {
		*k = kept[K, V]{}
	}
}

// firstDue returns the record that expires first, or nil.
func (k *kept[K, V]) firstDue() *record[K, V] {
	if len(k.due) == 0 {
		return nil
	}
	return k.due[0]
}

// sort puts the outcomes into the order of their last use. It costs O(n log n) once after a burst
// of restored records, when the first of them could be evicted or shed.
func (k *kept[K, V]) sort() {
	k.unsorted = false
	for _, list := range []*simplelru.LRU[K, *record[K, V]]{k.outcomes, k.valued} {
		if list == nil {
			continue
		}
		records := list.Values()
		slices.SortStableFunc(records, func(a, b *record[K, V]) int { return cmp.Compare(a.used, b.used) })
		for _, r := range records {
			list.Get(r.key)
		}
	}
}

// oldest returns the least recently used of list, or nil; list may be nil.
func oldest[K comparable, V any](list *simplelru.LRU[K, *record[K, V]]) *record[K, V] {
	if list == nil {
		return nil
	}
	_, r, _ := list.GetOldest()
	return r
}

// front puts r in front of *list, making the list if need be. Capacity is the cache's business.
func front[K comparable, V any](list **simplelru.LRU[K, *record[K, V]], r *record[K, V]) {
	if *list == nil {
		*list, _ = simplelru.NewLRU[K, *record[K, V]](math.MaxInt, nil) // fails only for a size below 1
	}
	(*list).Add(r.key, r)
}

// dueQueue is a heap of the records that expire, the first one on top.
type dueQueue[K comparable, V any] []*record[K, V]

func (q dueQueue[K, V]) Len() int           { return len(q) }
func (q dueQueue[K, V]) Less(i, j int) bool { return q[i].deadline < q[j].deadline }

func (q dueQueue[K, V]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *dueQueue[K, V]) Push(x any) {
	r := x.(*record[K, V])
	r.index = len(*q)
	*q = append(*q, r)
}

func (q *dueQueue[K, V]) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	(*q)[last] = nil // the array must not keep it alive
	*q = (*q)[:last]
	return r
}
