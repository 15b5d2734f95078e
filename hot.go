package idemflight

import (
	"sync/atomic"
	"unsafe"

	"github.com/idemflight/idemflight/internal/yield"
)

// hotTable lets the retained outcomes that are replayed most be replayed without a lock: one key per
// slot. It holds copies of what shards keep, never anything else: a slot is filled and, before its
// record leaves the shard, emptied under the mu of the shard of its key. (Measured: of one key by two
// cores, a replay takes half the time.)
//
// A reader loads the slot, compares the key, and reads the clock last: what it replays was kept when
// it loaded the slot, and had not expired.
type hotTable[K comparable, V any] struct {
	slots [hotSlots]atomic.Pointer[hotOutcome[K, V]]

	// replays counts those without a lock, in stripes, each on a cache line of its own.
	replays [hotStripes]struct {
		n atomic.Uint64
		_ [56]byte
	}
}

const (
	hotSlots   = 256
	hotStripes = 64
	hotVotes   = 8   // that a key needs for an empty slot
	hotRival   = 128 // and for one that is taken: else keys that meet in a slot would depose each other for ever
)

// hotOutcome is what a slot refers to. Only hit changes.
type hotOutcome[K comparable, V any] struct {
	found[K, V]
	hash uint64
	key  K
	hit  atomic.Bool // since the last rival for the slot had its votes
}

// get returns the retained outcome of key, expired or not, or nothing.
func (t *hotTable[K, V]) get(hash uint64, key K) found[K, V] {
	h := t.slots[hash%hotSlots].Load()
	if h == nil || h.hash != hash || h.key != key {
		return found[K, V]{}
	}
	yield.At("hot: found")
	if !h.hit.Load() {
		h.hit.Store(true)
	}
	return h.found
}

// count counts a replay. Goroutines have stacks, and so stripes, of their own.
func (t *hotTable[K, V]) count() {
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11 // 2 KiB, the least that a stack takes
	t.replays[stack*0x9E3779B97F4A7C15>>58].n.Add(1)      // golden section, the upper 6 bits
}

func (t *hotTable[K, V]) counted() (n uint64) {
	for i := range t.replays {
		n += t.replays[i].n.Load()
	}
	return n
}

// vote is called with the lock of the key's shard for each replay that needed it. A key that gets
// most of those of its kind in its shard is put into its slot, unless what is there was replayed
// meanwhile. It is the majority vote of Boyer and Moore, so that keys which are all replayed now and
// then do not take turns in the slots, which allocates.
func (t *hotTable[K, V]) vote(b *ballot, hash uint64, key K, f found[K, V]) {
	v := &b[hash>>8%uint64(len(b))]
	tag := uint32(hash>>32)&^0xFF | 1
	switch {
	case *v&^0xFF|1 != tag:
		if *v&0xFF <= 1 {
			*v = tag
		} else {
			*v -= 1
		}
		return
	case *v&0xFF < hotVotes:
		*v++
		return
	}
	slot := &t.slots[hash%hotSlots]
	old := slot.Load()
	if old != nil && *v&0xFF < hotRival {
		*v++
		return
	}
	*v = 0
	if old != nil && old.hit.Swap(false) {
		return
	}
	f.flags.Or(hot)
	slot.CompareAndSwap(old, &hotOutcome[K, V]{found: f, hash: hash, key: key})
}

// ballot counts the votes of a shard: of each kind of key, 24 bits of the hash of the one that leads,
// and by how many, in 8 bits.
type ballot [4]uint32

// drop empties the slot of f, the record of key. Must be called with the lock of the key's shard,
// before f leaves it.
func (t *hotTable[K, V]) drop(hash uint64, f found[K, V]) {
	slot := &t.slots[hash%hotSlots]
	if h := slot.Load(); h != nil && h.record == f.record {
		slot.CompareAndSwap(h, nil)
	}
}
