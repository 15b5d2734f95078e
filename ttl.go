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
	// What a replay reads comes first, to lie together in memory. Times are durations on the
	// cache's monotonic clock.
	state       State         // Retained, Shed or Held
	deadline    time.Duration // forever if it does not expire
	used        time.Duration // stamp of the last use, see Cache.stamp
	fingerprint Fingerprint
	err         error
	value       V // zero unless Retained

	done   time.Duration // when its execution completed
	weight int64         // counted against MaxWeight; 0 unless Retained
	index  int           // in kept.due; meaningless if the deadline is forever
	key    K

	started, completed, expires time.Time // in wall time, for Entry and Result
}

// expired reports whether r is gone at now. The deadline itself counts as expired.
func (r *record[K, V]) expired(now time.Duration) bool { return now >= r.deadline }

// result returns r, retained, as a call that replays it sees it.
func (r *record[K, V]) result() Result[V] {
	return Result[V]{Value: r.value, Source: Replayed, CompletedAt: r.completed, ExpiresAt: r.expires}
}

func (r *record[K, V]) entry() Entry[V] {
	return Entry[V]{
		State: r.state, Value: r.value, Err: r.err, Fingerprint: r.fingerprint,
		StartedAt: r.started, CompletedAt: r.completed, ExpiresAt: r.expires,
	}
}

// kept is what one shard keeps. Its methods need the shard's mu; they call no user code and take no
// lock. It knows nothing of places and weight, which are counted across shards.
//
// Every record is in records. One that is retained or shed is also in order, one that weighs
// something in valued, one that expires in due. A held one is in neither order nor valued: it is
// never evicted and has no value.
type kept[K comparable, V any] struct {
	records map[K]*record[K, V]
	held    int // how many of records are held

	// order and valued are in order of use. golang-lru keeps them by the record's address: a look-up
	// in records alone finds what a replay needs, and moving a record hashes no key.
	order, valued *recency[K, V]

	due dueQueue[K, V]

	// unsorted is set by records that come in late, restored ones above all: their last use lies
	// further back than that of records that are there already, but golang-lru can only put them in
	// front. sort mends it when it matters.
	unsorted bool

	newest time.Duration // the latest completion of an outcome
	peak   int           // the most records since the tables were made
}

// recency is golang-lru's order of use; nil counts as empty.
type recency[K comparable, V any] = simplelru.LRU[*record[K, V], struct{}]

// smallTable is how many records a table may have had and still be left standing when it empties:
// one group of a Go map, which never shrinks by itself.
const smallTable = 8

func (k *kept[K, V]) len() int { return len(k.records) }

// get returns the record of key, expired or not, or nil. No use is counted.
func (k *kept[K, V]) get(key K) *record[K, V] { return k.records[key] }

// add puts r in; its key must be absent.
func (k *kept[K, V]) add(r *record[K, V]) {
	if k.records == nil {
		k.records = make(map[K]*record[K, V])
	}
	k.records[r.key] = r
	if r.state == Held {
		k.held++
	} else {
		k.order = front(k.order, r)
	}
	if r.weight > 0 {
		k.valued = front(k.valued, r)
	}
	if r.deadline != forever {
		heap.Push(&k.due, r)
	}
	k.peak = max(k.peak, len(k.records))
}

// touch counts a use of r, an outcome, at stamp.
func (k *kept[K, V]) touch(r *record[K, V], stamp time.Duration) {
	r.used = stamp
	k.order.Get(r)
	if r.weight > 0 {
		k.valued.Get(r)
	}
}

// remove takes r out.
func (k *kept[K, V]) remove(r *record[K, V]) {
	delete(k.records, r.key)
	if r.state == Held {
		k.held--
	} else {
		k.order.Remove(r)
	}
	if r.weight > 0 {
		k.valued.Remove(r)
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
	k.valued.Remove(r)
	r.state, r.value, r.weight = Shed, zero, 0
}

// shrink drops the tables if nothing is left in them.
func (k *kept[K, V]) shrink() {
	if len(k.records) == 0 {
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
	for _, list := range []*recency[K, V]{k.order, k.valued} {
		if list == nil {
			continue
		}
		records := list.Keys()
		slices.SortStableFunc(records, func(a, b *record[K, V]) int { return cmp.Compare(a.used, b.used) })
		for _, r := range records {
			list.Get(r)
		}
	}
}

// oldest returns the least recently used of list, or nil.
func oldest[K comparable, V any](list *recency[K, V]) *record[K, V] {
	if list == nil {
		return nil
	}
	r, _, _ := list.GetOldest()
	return r
}

// front puts r in front of list, which it makes if need be, and returns. Capacity is the cache's
// business.
func front[K comparable, V any](list *recency[K, V], r *record[K, V]) *recency[K, V] {
	if list == nil {
		list, _ = simplelru.NewLRU[*record[K, V], struct{}](math.MaxInt, nil) // fails only for a size below 1
	}
	list.Add(r, struct{}{})
	return list
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
