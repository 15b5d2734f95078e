package order_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/internal/order"
)

type rec struct {
	id    int
	place uint32
}

// Records come and go at random: the line has those that are left, in the order in which they came,
// each at the place that it was told.
func TestLine_KeepsTheOrderOfAddition(t *testing.T) {
	var line order.Line[rec]
	random := rand.New(rand.NewPCG(1, 2))
	var want []*rec
	require.Nil(t, line.First())
	for id, size := range []int{1, 0, 70, 3, 9000, 1, 20_000, 100, 0, 5, 0} {
		for n := 0; len(want) != size; n++ {
			if len(want) < size {
				r := &rec{id: id*100_000 + n}
				r.place = line.Add(r)
				want = append(want, r)
				continue
			}
			i := 0 // mostly the oldest goes
			if random.IntN(4) == 0 {
				i = random.IntN(len(want))
			}
			line.Remove(want[i].place)
			want = slices.Delete(want, i, i+1)
			if len(want) > 0 {
				require.Same(t, want[0], line.First())
			}
		}
		if size > 2 {
			other := &rec{id: -id, place: want[1].place}
			line.Replace(other.place, other)
			want[1] = other
		}
		got := []*rec{}
		for place, r := range line.All {
			require.Equal(t, r.place, place)
			got = append(got, r)
		}
		require.True(t, slices.Equal(want, got), "%d records in order, want %d", len(got), len(want))
	}
	require.Nil(t, line.First())
}

// The numbers of turns wrap.
func TestTurn_Before(t *testing.T) {
	for _, tt := range []struct {
		a, b order.Turn
		want bool
	}{
		{order.Turn{At: 1, Seq: 9}, order.Turn{At: 2, Seq: 1}, true},
		{order.Turn{At: 2, Seq: 1}, order.Turn{At: 1, Seq: 9}, false},
		{order.Turn{At: 1, Seq: 1}, order.Turn{At: 1, Seq: 2}, true},
		{order.Turn{At: 1, Seq: 2}, order.Turn{At: 1, Seq: 2}, false},
		{order.Turn{At: 1, Seq: 1<<64 - 1}, order.Turn{At: 1, Seq: 3}, true},
		{order.Turn{At: 1, Seq: 3}, order.Turn{At: 1, Seq: 1<<64 - 1}, false},
	} {
		require.Equal(t, tt.want, tt.a.Before(tt.b), "%v before %v", tt.a, tt.b)
	}
}

// The queue gives records by turn, each at the place that it remembers.
func TestQueue_GivesTheFirstTurn(t *testing.T) {
	q := order.NewQueue(func(r *rec) *uint32 { return &r.place })
	random := rand.New(rand.NewPCG(3, 4))
	type entry struct {
		r    *rec
		turn order.Turn
	}
	var want []entry
	for size := range 200 {
		size = size * 37 % 101
		for n := 0; len(want) != size; n++ {
			if len(want) < size {
				e := entry{&rec{id: n}, order.Turn{At: 1, Seq: random.Uint64N(1 << 40)}}
				q.Add(e.r, e.turn)
				want = append(want, e)
				slices.SortStableFunc(want, func(a, b entry) int { return cmp.Compare(a.turn.Seq, b.turn.Seq) })
				continue
			}
			i := random.IntN(len(want))
			if n%2 == 0 {
				i = 0
			}
			q.Remove(want[i].r.place)
			want = slices.Delete(want, i, i+1)
			if len(want) > 0 {
				first, turn := q.First()
				require.Same(t, want[0].r, first)
				require.Equal(t, want[0].turn, turn)
			}
		}
		require.Equal(t, len(want), q.Len())
		for _, e := range want {
			r, turn := q.At(e.r.place)
			require.Same(t, e.r, r)
			require.Equal(t, e.turn, turn)
		}
	}
}
