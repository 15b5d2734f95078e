package order

import "container/heap"

// Queue has records by turn, the first on top. Add and Remove take O(log n).
type Queue[R any] struct{ items items[R] }

// NewQueue returns an empty queue. place returns where a record remembers its place.
func NewQueue[R any](place func(*R) *uint32) Queue[R] { return Queue[R]{items: items[R]{place: place}} }

// Len returns how many records there are.
func (q *Queue[R]) Len() int { return len(q.items.list) }

// Add inserts r.
func (q *Queue[R]) Add(r *R, t Turn) {
	last := q.Len()
	q.items.list = append(q.items.list, item[R]{t, r})
	*q.items.place(r) = uint32(last)
	heap.Fix(&q.items, last) // as heap.Push does, which would allocate
}

// First returns the first record and its turn, or nil.
func (q *Queue[R]) First() (*R, Turn) {
	if q.Len() == 0 {
		return nil, Turn{}
	}
	return q.At(0)
}

// At returns the record at place, and its turn.
func (q *Queue[R]) At(place uint32) (*R, Turn) {
	it := &q.items.list[place]
	return it.record, it.Turn
}

// All yields all records, in no order.
func (q *Queue[R]) All(yield func(*R) bool) {
	for i := range q.items.list {
		if !yield(q.items.list[i].record) {
			return
		}
	}
}

// Replace puts r at place, where another record is, with the turn of that.
func (q *Queue[R]) Replace(place uint32, r *R) { q.items.list[place].record = r }

// Remove takes out the record at place.
func (q *Queue[R]) Remove(place uint32) {
	heap.Remove(&q.items, int(place))
	if n := q.Len(); n < cap(q.items.list)/sparse {
		q.items.list = append(make([]item[R], 0, 2*n), q.items.list...)
	}
}

type item[R any] struct {
	Turn
	record *R
}

// items is what container/heap works on.
type items[R any] struct {
	list  []item[R]
	place func(*R) *uint32
}

func (h *items[R]) Len() int { return len(h.list) }

func (h *items[R]) Less(i, j int) bool { return h.list[i].Before(h.list[j].Turn) }

func (h *items[R]) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	*h.place(h.list[i].record), *h.place(h.list[j].record) = uint32(i), uint32(j)
}

func (h *items[R]) Push(any) { panic("order: bug: Add does without") }

func (h *items[R]) Pop() any {
	last := len(h.list) - 1
	h.list[last] = item[R]{} // the array must not keep the record alive
	h.list = h.list[:last]
	return nil // Remove does not ask
}
