package idemflight

import (
	"container/heap"
	"math"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// kept is what one shard keeps. Its methods need the shard's mu, except get; they call no user code
// and take no lock. It knows nothing of places and weight, which are counted across shards.
//
// A record stands in the table, where it is found, and in the orders in which records go:
//
//	to be evicted   by turn: its completion, or its last second chance (held records: never)
//	to expire       by deadline (those without end: never)
//	to be shed      by turn of its value (those that weigh nothing: never)
//
// Outcomes go in the order in which they were inserted, except that one that was replayed meanwhile
// gets a second chance and goes to the end once more: the algorithm known as CLOCK (Corbató 1968),
// which comes near to LRU, and lets a replay move nothing.
//
// Most records have the TTL of the cache and are inserted as they complete, so that one line has the
// first two orders. The others are queued in two heaps: those with a TTL of their own, restored,
// completed before the last of the line, or given a second chance. Values have a line of their own,
// at the end of which a value goes for its second chance.
type kept[K comparable, V any] struct {
	ttl        time.Duration // Options.TTL
	table      table[K, V]
	line       line[K, V]
	newest     time.Duration // deadline of the record that came to the line last
	order, due queue[K, V]
	values     line[K, V]
	held       int
	weight     int64
}

func (k *kept[K, V]) init(ttl time.Duration) {
	k.ttl = ttl
	k.order.place = func(r *record[K, V]) *uint32 { return &r.place }
	k.due.place = func(r *record[K, V]) *uint32 { return &r.due }
}

func (k *kept[K, V]) len() int { return k.table.len }

// get returns the record of key, expired or not, or nil. Without mu it may miss one.
func (k *kept[K, V]) get(hash uint64, key K) *record[K, V] { return k.table.get(uint32(hash), key) }

// add inserts r, whose key must be absent, as insertion number seq. If it weighs something, its value
// has a turn.
func (k *kept[K, V]) add(r *record[K, V], seq uint32) {
	r.seq = seq
	switch done := r.done(k.ttl); {
	case r.state() == Held:
		k.held++
		r.flags.Or(queued)
		k.addDue(r)
	case r.deadline != forever && r.deadline-done == k.ttl && r.deadline >= k.newest:
		r.place = k.line.add(r)
		k.newest = r.deadline
	default:
		r.flags.Or(queued)
		k.order.add(r, turn{done, seq})
		k.addDue(r)
	}
	if r.weight() > 0 {
		r.more.valuePlace = k.values.add(r)
		k.weight += r.weight()
	}
	k.table.add(r) // last: from here on it is replayed
}

func (k *kept[K, V]) addDue(r *record[K, V]) {
	if r.deadline != forever {
		k.due.add(r, turn{at: r.deadline})
	}
}

// remove takes out r, which must be there.
func (k *kept[K, V]) remove(r *record[K, V]) {
	k.table.remove(r)
	k.dropValue(r)
	if r.state() == Held {
		k.held--
	} else {
		k.dropTurn(r)
	}
	if r.has(queued) && r.deadline != forever {
		k.due.remove(r.due)
	}
}

// dropTurn takes r out of the order of eviction, and with the line out of that of expiry.
func (k *kept[K, V]) dropTurn(r *record[K, V]) {
	if r.has(queued) {
		k.order.remove(r.place)
	} else {
		k.line.remove(r.place)
	}
}

func (k *kept[K, V]) dropValue(r *record[K, V]) {
	if r.weight() > 0 {
		k.values.remove(r.more.valuePlace)
		k.weight -= r.weight()
	}
}

// firstDue returns the record that expires first, or nil.
func (k *kept[K, V]) firstDue() *record[K, V] {
	r := k.line.first()
	if q := k.due.first(); q != nil && (r == nil || q.deadline < r.deadline) {
		return q
	}
	return r
}

// firstTurn returns the outcome that is the first to be evicted and its turn; or nil and never.
func (k *kept[K, V]) firstTurn() (*record[K, V], turn) {
	r, first := k.line.first(), never
	if r != nil {
		first = turn{r.done(k.ttl), r.seq}
	}
	if q := k.order.first(); q != nil && k.order.items[0].turn.before(first) {
		return q, k.order.items[0].turn
	}
	return r, first
}

// firstValue returns the record whose value is the first to be shed and its turn; or nil and never.
func (k *kept[K, V]) firstValue() (*record[K, V], turn) {
	if r := k.values.first(); r != nil {
		return r, r.more.valueTurn
	}
	return nil, never
}

// isHead reports whether r is the first in one of its line and queues.
func (k *kept[K, V]) isHead(r *record[K, V]) bool {
	return r == k.line.first() || r == k.order.first() || r == k.due.first() ||
		r.weight() > 0 && r == k.values.first()
}

// giveSecondChance gives r, an outcome that was replayed, the turn next.
func (k *kept[K, V]) giveSecondChance(r *record[K, V], next turn) {
	k.dropTurn(r)
	if !r.has(queued) { // it keeps its deadline, and so leaves the line
		r.flags.Or(queued)
		k.addDue(r)
	}
	r.flags.And(^replayed)
	r.seq = next.seq
	k.order.add(r, next)
}

// giveValueSecondChance does the same for the value of r.
func (k *kept[K, V]) giveValueSecondChance(r *record[K, V], next turn) {
	k.values.remove(r.more.valuePlace)
	r.flags.And(^replayedValue)
	r.more.valueTurn = next
	r.more.valuePlace = k.values.add(r)
}

// shed puts a record without value and weight in the place of r.
func (k *kept[K, V]) shed(r *record[K, V]) {
	k.dropValue(r)
	more := *r.more
	more.state, more.weight = Shed, 0
	shed := &record[K, V]{
		key: r.key, deadline: r.deadline, more: &more, took: r.took, hash: r.hash,
		seq: r.seq, place: r.place, due: r.due,
	}
	shed.flags.Store(r.flags.Load())
	k.table.replace(r, shed)
	switch {
	case !shed.has(queued):
		k.line.replace(shed.place, shed)
	default:
		k.order.items[shed.place].record = shed
		if shed.deadline != forever {
			k.due.items[shed.due].record = shed
		}
	}
}

// line has records in the order in which they were added. golang-lru keeps the order, of runs of
// records: it costs some ten bytes for each, and one pointer that a garbage collection follows.
// A run goes when all of its records have.
type line[K comparable, V any] struct {
	runs *simplelru.LRU[uint32, *run[K, V]] // by number
	last *run[K, V]
	peak int // the most runs since runs was made
}

// run is records that were added one after the other. A record's place is the number of its run and,
// in the lower bits, its index there.
type run[K comparable, V any] struct {
	number  uint32
	left    int             // how many of records are not nil
	from    int             // before this one all are nil
	records []*record[K, V] // nil where one was removed
}

const (
	runBits  = 6
	runLen   = 1 << runBits
	firstRun = 8  // the length of the first run of a line: most lines stay short
	manyRuns = 64 // as few are not worth a smaller table
)

// add appends r and returns its place.
func (l *line[K, V]) add(r *record[K, V]) (place uint32) {
	in := l.last
	switch {
	case in == nil:
		l.runs = newRuns[K, V]()
		in = l.addRun(0, firstRun)
	case len(in.records) == cap(in.records):
		in = l.addRun(in.number+1, runLen)
	}
	in.records = append(in.records, r)
	in.left++
	return in.number<<runBits | uint32(len(in.records)-1)
}

func (l *line[K, V]) addRun(number uint32, size int) *run[K, V] {
	l.last = &run[K, V]{number: number & (1<<(32-runBits) - 1), records: make([]*record[K, V], 0, size)}
	l.runs.Add(l.last.number, l.last)
	l.peak = max(l.peak, l.runs.Len())
	return l.last
}

func newRuns[K comparable, V any]() *simplelru.LRU[uint32, *run[K, V]] {
	runs, _ := simplelru.NewLRU[uint32, *run[K, V]](math.MaxInt, nil) // fails only for a size below 1
	return runs
}

// at returns the run of place; most calls are about the oldest.
func (l *line[K, V]) at(place uint32) *run[K, V] {
	number, oldest, _ := l.runs.GetOldest()
	if number == place>>runBits {
		return oldest
	}
	in, _ := l.runs.Peek(place >> runBits)
	return in
}

func (l *line[K, V]) replace(place uint32, r *record[K, V]) {
	l.at(place).records[place%runLen] = r
}

func (l *line[K, V]) remove(place uint32) {
	in := l.at(place)
	in.records[place%runLen] = nil
	if in.left--; in.left > 0 {
		return
	}
	if in == l.last {
		in.records, in.from = in.records[:0], 0
	} else {
		l.runs.Remove(in.number)
	}
	l.trim()
}

// trim lets go of tables that are far too large for the runs that are left.
func (l *line[K, V]) trim() {
	switch n := l.runs.Len(); {
	case l.last.left == 0 && n == 1 && cap(l.last.records) > firstRun:
		*l = line[K, V]{}
	case l.peak > manyRuns && n < l.peak/sparse:
		runs := newRuns[K, V]()
		for _, number := range l.runs.Keys() { // from the oldest
			in, _ := l.runs.Peek(number)
			runs.Add(number, in)
		}
		l.runs, l.peak = runs, n
	}
}

// first returns the record that was added first, or nil.
func (l *line[K, V]) first() *record[K, V] {
	if l.runs == nil {
		return nil
	}
	_, in, _ := l.runs.GetOldest()
	if in.left == 0 {
		return nil
	}
	for in.records[in.from] == nil {
		in.from++
	}
	return in.records[in.from]
}

// queue is a heap of records by a turn, or by a deadline.
type queue[K comparable, V any] struct {
	items []queueItem[K, V]
	added uint32
	place func(*record[K, V]) *uint32 // where a record has its index
}

type queueItem[K comparable, V any] struct {
	turn
	n      uint32 // tells the order of those with the same turn; it wraps
	record *record[K, V]
}

func (q *queue[K, V]) first() *record[K, V] {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[0].record
}

func (q *queue[K, V]) add(r *record[K, V], t turn) {
	q.added++
	heap.Push(q, queueItem[K, V]{t, q.added, r})
}

// remove takes out the record with the given index.
func (q *queue[K, V]) remove(i uint32) {
	heap.Remove(q, int(i))
	if n := len(q.items); n > 0 && n < cap(q.items)/sparse {
		q.items = append(make([]queueItem[K, V], 0, 2*n), q.items...)
	} else if n == 0 {
		q.items = nil
	}
}

// Len, Less, Swap, Push and Pop are for container/heap.

func (q *queue[K, V]) Len() int { return len(q.items) }

func (q *queue[K, V]) Less(i, j int) bool {
	a, b := &q.items[i], &q.items[j]
	if a.turn != b.turn {
		return a.turn.before(b.turn)
	}
	return int32(a.n-b.n) < 0
}

func (q *queue[K, V]) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	*q.place(q.items[i].record), *q.place(q.items[j].record) = uint32(i), uint32(j)
}

func (q *queue[K, V]) Push(x any) {
	item := x.(queueItem[K, V])
	*q.place(item.record) = uint32(len(q.items))
	q.items = append(q.items, item)
}

func (q *queue[K, V]) Pop() any {
	last := len(q.items) - 1
	q.items[last] = queueItem[K, V]{} // the array must not keep the record alive
	q.items = q.items[:last]
	return nil // nobody asks
}
