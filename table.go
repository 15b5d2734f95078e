package idemflight

import (
	"math/bits"
	"sync/atomic"

	"github.com/idemflight/idemflight/internal/yield"
)

// table finds the records of one shard by hash. Writers hold the shard's mu; readers need no lock.
// A reader may miss a record while the table changes; its call then looks again with mu held.
//
// It grows and shrinks by one bucket at a time (linear hashing, Litwin 1980), so that no call waits
// until all of it has been moved. A bucket is one cache line, found through one directory. Its tags
// alone show that a key is absent, except for one key in a hundred.
type table[K comparable, V any] struct {
	segments atomic.Pointer[[]atomic.Pointer[segment[K, V]]]
	size     atomic.Uint64 // how many buckets there are, and in the upper half the bits that number them
	len      int           // how many records; guarded by the shard's mu
}

const (
	segmentLen = 8 // buckets are allocated so many at a time
	slots      = 6 // records of a bucket, before it needs another
	perBucket  = 4 // records of a bucket on average: with more, the table grows
	sparse     = 4 // with less than a quarter of that it shrinks; other tables alike
)

type segment[K comparable, V any] [segmentLen]bucket[K, V]

// bucket is a cache line on 64-bit systems. A tag is 7 bits of a record's hash under a bit that is
// always set; 0 is a free slot. A record is stored before its tag.
type bucket[K comparable, V any] struct {
	tags    atomic.Uint64
	records [slots]atomic.Pointer[record[K, V]]
	more    atomic.Pointer[bucket[K, V]] // has the records that found no free slot here
}

const (
	lowBits  = 0x0101_0101_0101_0101 // of each byte
	highBits = lowBits << 7
	tagSlots = 1<<(8*slots) - 1 // the bytes of tags that belong to a slot
)

func tagOf(hash uint32) uint64 { return uint64(hash>>25 | 0x80) }

// get returns the record of key, expired or not, or nil.
func (t *table[K, V]) get(hash uint32, key K) *record[K, V] {
	want := tagOf(hash) * lowBits
	for b := t.bucket(hash); b != nil; b = b.more.Load() {
		differ := b.tags.Load() ^ want
		// The bytes that are 0, and now and then one above such a byte.
		for same := (differ - lowBits) &^ differ & highBits; same != 0; same &= same - 1 {
			r := b.records[bits.TrailingZeros64(same)/8].Load()
			if r != nil && r.hash == hash && r.key == key {
				return r
			}
		}
	}
	return nil
}

// bucket returns the bucket of hash; nil if there is none, or no longer.
func (t *table[K, V]) bucket(hash uint32) *bucket[K, V] {
	size := t.size.Load()
	i := hash & uint32(size>>32)
	if i >= uint32(size) { // not there yet: the one that it will come from, with a bit less
		i = hash & uint32(size>>33)
	}
	return t.at(i)
}

// at returns bucket i; nil if there is no such, or no longer.
func (t *table[K, V]) at(i uint32) *bucket[K, V] {
	if segments := *t.segments.Load(); i/segmentLen < uint32(len(segments)) {
		if s := segments[i/segmentLen].Load(); s != nil {
			return &s[i%segmentLen]
		}
	}
	return nil
}

// init lets go of all buckets.
func (t *table[K, V]) init() { t.segments.Store(new([]atomic.Pointer[segment[K, V]])) }

func (t *table[K, V]) buckets() uint32 { return uint32(t.size.Load()) }

func (t *table[K, V]) setBuckets(n uint32) {
	bits := uint64(1)<<bits.Len32(max(n, 1)-1) - 1
	t.size.Store(bits<<32 | uint64(n))
}

// add inserts r, whose key must be absent. Must be called with the shard's mu held, like all that
// follows.
func (t *table[K, V]) add(r *record[K, V]) {
	if t.len++; t.len > perBucket*int(t.buckets()) {
		t.grow()
	}
	t.bucket(r.hash).put(r)
}

// put stores r in a free slot.
func (b *bucket[K, V]) put(r *record[K, V]) {
	for {
		if free := ^b.tags.Load() & highBits & tagSlots; free != 0 {
			b.set(bits.TrailingZeros64(free)/8, r)
			return
		}
		if b.more.Load() == nil {
			b.more.Store(new(bucket[K, V]))
		}
		b = b.more.Load()
	}
}

// remove takes out r, which must be there, and marks it as gone first: a reader that has found r
// and then sees no such mark has seen it while it was in the table.
func (t *table[K, V]) remove(r *record[K, V]) {
	r.flags.Or(gone)
	yield.At(yield.Locked + "gone")
	first, at, i := t.slot(r)
	before, last := first, first
	for next := first.more.Load(); next != nil; next = last.more.Load() {
		before, last = last, next
	}
	if last != at { // its place is filled from the end of the chain, so that chains stay short
		j := bits.TrailingZeros64(last.tags.Load()&highBits) / 8
		at.set(i, last.records[j].Load())
		at, i = last, j
	}
	at.set(i, nil)
	if last != first && last.tags.Load() == 0 {
		before.more.Store(nil)
	}
	t.len--
	switch n := int(t.buckets()); {
	case t.len == 0 && n > 1:
		t.init()
		t.setBuckets(0)
	case t.len*sparse < perBucket*n && n > segmentLen:
		t.shrink()
	}
}

// replace puts r in the slot of old, which has the same key.
func (t *table[K, V]) replace(old, r *record[K, V]) {
	old.flags.Or(gone)
	yield.At(yield.Locked + "gone")
	_, at, i := t.slot(old)
	at.records[i].Store(r)
}

// slot returns the bucket that the hash of r leads to, and the slot where r is: there, or in a
// bucket behind that.
func (t *table[K, V]) slot(r *record[K, V]) (first, at *bucket[K, V], i int) {
	first = t.bucket(r.hash)
	for at = first; at != nil; at = at.more.Load() {
		for i = range at.records {
			if at.records[i].Load() == r {
				return first, at, i
			}
		}
	}
	panic("idemflight: bug, please report it: a kept record is not in its table")
}

// set puts r in slot i; nil frees the slot.
func (b *bucket[K, V]) set(i int, r *record[K, V]) {
	tag := uint64(0)
	if r != nil {
		tag = tagOf(r.hash)
	}
	b.records[i].Store(r)
	yield.At(yield.Locked + "put")
	b.tags.Store(b.tags.Load()&^(0xff<<(8*i)) | tag<<(8*i))
}

// grow adds a bucket. It takes over those records of an older one whose hash has one more bit set;
// until that is done, they are in both.
func (t *table[K, V]) grow() {
	n := t.buckets()
	t.reserve(n)
	if n == 0 {
		t.setBuckets(1)
		return
	}
	bit := uint32(1) << (bits.Len32(n) - 1)
	from, to := t.at(n&^bit), t.at(n)
	var room [2 * slots]*record[K, V]
	stay := room[:0]
	for r := range from.all {
		if r.hash&bit != 0 {
			to.put(r)
		} else {
			stay = append(stay, r)
		}
	}
	t.setBuckets(n + 1)
	yield.At(yield.Locked + "grow")
	from.empty()
	for _, r := range stay {
		from.put(r)
	}
}

// shrink removes the last bucket, whose records go back to the one that they came from.
func (t *table[K, V]) shrink() {
	n := t.buckets() - 1
	from, to := t.at(n), t.at(n&^(1<<(bits.Len32(n)-1)))
	for r := range from.all {
		to.put(r)
	}
	t.setBuckets(n)
	yield.At(yield.Locked + "shrink")
	if n%segmentLen > 0 {
		from.empty()
		return
	}
	(*t.segments.Load())[n/segmentLen].Store(nil)
	t.resize(int(n / segmentLen))
}

// empty frees all slots of b, and lets go of the buckets behind it.
func (b *bucket[K, V]) empty() {
	for i := range b.records {
		b.records[i].Store(nil)
	}
	b.tags.Store(0)
	b.more.Store(nil)
}

// reserve makes room for bucket n.
func (t *table[K, V]) reserve(n uint32) {
	if n%segmentLen > 0 {
		return
	}
	t.resize(int(n/segmentLen) + 1)
	(*t.segments.Load())[n/segmentLen].Store(new(segment[K, V]))
}

// resize lets the directory have room for n segments, and not for many more.
func (t *table[K, V]) resize(n int) {
	old := *t.segments.Load()
	if n <= len(old) && n*sparse >= len(old) {
		return
	}
	segments := make([]atomic.Pointer[segment[K, V]], max(1, 2*n-1))
	for i := range min(len(old), len(segments)) {
		segments[i].Store(old[i].Load())
	}
	t.segments.Store(&segments)
}

// all visits each record of b and of the buckets behind it.
func (b *bucket[K, V]) all(visit func(*record[K, V]) bool) {
	for ; b != nil; b = b.more.Load() {
		for i := range b.records {
			if r := b.records[i].Load(); r != nil && !visit(r) {
				return
			}
		}
	}
}

// To visit a table part by part, while it grows and shrinks in between, each hash has a position:
// its bits in reverse. A bucket has the hashes that share their lowest bits, so that it has all
// positions from one to another; when it is split, each half of them goes to one of the two. So
// whatever the buckets are, the records from one position to another are the same, and they are in
// one bucket or in a few.
const positions = 1 << 32

func position(hash uint32) uint64 { return uint64(bits.Reverse32(hash)) }

// scan visits the records at position at and behind it that are in the bucket of at, and returns
// the position at which the next bucket begins: positions if there is none.
func (t *table[K, V]) scan(at uint64, visit func(*record[K, V])) (next uint64) {
	n := t.buckets()
	if n == 0 {
		return positions
	}
	hash, mask := bits.Reverse32(uint32(at)), uint32(t.size.Load()>>32)
	i := hash & mask
	if half := (mask + 1) / 2; i >= n || i < half && i+half >= n { // the bucket is not split yet
		mask >>= 1
		i = hash & mask
	}
	for r := range t.at(i).all {
		if position(r.hash) >= at {
			visit(r)
		}
	}
	width := positions / (uint64(mask) + 1)
	return at&^(width-1) + width
}
