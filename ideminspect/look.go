package ideminspect

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
)

// shown is a cache on the page.
type shown struct {
	name    string
	entries entries
	stored  bool
	limit   int           // MaxEntries
	every   time.Duration // a look is as good as new for so long

	stale atomic.Bool   // an action may have changed what the last look found
	busy  chan struct{} // held by the request that looks; guards what follows
	last  look
	past  []sample // the oldest first: at most one is older than recent
}

// sample is what Stats were.
type sample struct {
	at    time.Time
	stats idemflight.Stats
}

// look is what a look at a cache found. Its rows are only read.
type look struct {
	sample
	since   sample // what rates are counted from
	trouble string // the Store failed, or had no time for all

	held, inFlight, slow int
	more                 bool // there are more than was looked at: these are too few
	heldSince, slowSince time.Time
	rows                 []entryRow // the oldest
}

const (
	everyLook  = time.Second
	everyStore = 10 * time.Second
	lookFor    = 5 * time.Second
	actFor     = 20 * time.Second
	recent     = time.Minute // rates are of so long, while somebody looks
	slow       = time.Minute // a flight that takes longer needs somebody
)

func newShown[K comparable, V any](name string, c *idemflight.Cache[K, V], v View[K, V]) *shown {
	opts := c.Options()
	s := &shown{
		name: name, entries: &view[K, V]{c: c, v: v, opts: opts},
		stored: opts.Store != nil, limit: opts.MaxEntries, every: everyLook,
		busy: make(chan struct{}, 1),
		past: []sample{{time.Now(), c.Stats()}},
	}
	if s.stored {
		s.every = everyStore
	}
	return s
}

// look returns what there is to see, which may be a moment old. Requests wait for each other's
// looks; one whose context ends leaves.
func (c *shown) look(ctx context.Context) look {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return look{sample: sample{at: time.Now()}, trouble: ctx.Err().Error()}
	}
	defer func() { <-c.busy }()
	if !c.stale.Swap(false) && time.Since(c.last.at) < c.every {
		return c.last
	}
	within, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	l := c.entries.look(within)
	if len(c.past) > 1 && l.at.Sub(c.past[0].at) > recent {
		c.past = dropOld(c.past, l.at)
	}
	l.since = c.past[0]
	c.past = append(c.past, l.sample)
	c.last = l
	if ctx.Err() != nil { // it is not finished, for no fault of the cache
		c.stale.Store(true)
	}
	return l
}

// dropOld drops the samples that are not recent, except the last one.
func dropOld(past []sample, now time.Time) []sample {
	i := 0
	for i < len(past)-1 && now.Sub(past[i].at) > recent {
		i++
	}
	return append(past[:0], past[i:]...)
}

// count counts an entry that is unsettled.
func (l *look) count(state idemflight.State, started, ended time.Time) {
	older := func(oldest *time.Time, at time.Time) {
		if oldest.IsZero() || at.Before(*oldest) {
			*oldest = at
		}
	}
	if state == idemflight.Held {
		l.held++
		older(&l.heldSince, ended)
		return
	}
	l.inFlight++
	if l.at.Sub(started) > slow {
		l.slow++
		older(&l.slowSince, started)
	}
}

// results are how calls end, in the words that metrics have for it.
var results = []struct {
	name string
	of   func(*idemflight.Stats) uint64
}{
	{"executed", func(s *idemflight.Stats) uint64 { return s.Executed }},
	{"joined", func(s *idemflight.Stats) uint64 { return s.Joined }},
	{"replayed", func(s *idemflight.Stats) uint64 { return s.Replayed }},
	{"reconciled", func(s *idemflight.Stats) uint64 { return s.Reconciled }},
	{"key_reused", func(s *idemflight.Stats) uint64 { return s.KeyReused }},
	{"in_flight", func(s *idemflight.Stats) uint64 { return s.NotWaited }},
	{"outcome_unknown", func(s *idemflight.Stats) uint64 { return s.OutcomeUnknown }},
	{"value_shed", func(s *idemflight.Stats) uint64 { return s.ValueShed }},
	{"full", func(s *idemflight.Stats) uint64 { return s.Full }},
	{"closed", func(s *idemflight.Stats) uint64 { return s.Closed }},
	{"reentrant", func(s *idemflight.Stats) uint64 { return s.Reentrant }},
	{"invalid_key", func(s *idemflight.Stats) uint64 { return s.InvalidKey }},
	{"caller_left", func(s *idemflight.Stats) uint64 { return s.CallerLeft }},
	{"store_failed", func(s *idemflight.Stats) uint64 { return s.StoreFailed }},
}

// listing is what is on the page of a cache.
type listing struct {
	Caches  []tab     `json:"caches"`
	Store   bool      `json:"store"`
	Looked  time.Time `json:"looked_at"` // what is held and in flight is as of then
	Trouble string    `json:"trouble,omitempty"`
	AtLeast bool      `json:"at_least"` // there are more than were counted

	Held       int        `json:"held"`
	OldestHeld *float64   `json:"oldest_held_seconds,omitempty"`
	InFlight   int        `json:"in_flight"`
	Slow       int        `json:"in_flight_over_a_minute"`
	OldestSlow *float64   `json:"oldest_in_flight_seconds,omitempty"` // of those over a minute
	Unsettled  []entryRow `json:"unsettled"`                          // the oldest
	Unlisted   int        `json:"unlisted"`

	Waiters    int      `json:"waiters"`
	Used       int      `json:"places_used"`
	Limit      int      `json:"places_limit"`
	Over       float64  `json:"rates_over_seconds"`
	PerSecond  float64  `json:"calls_per_second"`
	Calls      []calls  `json:"calls"`
	Duplicates *float64 `json:"duplicates_share,omitempty"` // of the outcomes that calls got; nil: none did
}

// tab is a cache that one can go to.
type tab struct {
	Name    string `json:"name"`
	Held    int    `json:"held"`
	Slow    int    `json:"in_flight_over_a_minute"`
	AtLeast bool   `json:"at_least"`
	Trouble bool   `json:"trouble"`
}

// calls are those of one result.
type calls struct {
	Result    string  `json:"result"`
	PerSecond float64 `json:"per_second"`
	Total     uint64  `json:"total"`
}

// looks returns a look at each cache. Stores are asked at the same time, so that one that does not
// answer does not make the page wait longer than two.
func looks(ctx context.Context, all []*shown) []look {
	found := make([]look, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		if c.stored {
			wg.Go(func() { found[i] = c.look(ctx) })
		} else {
			found[i] = c.look(ctx)
		}
	}
	wg.Wait()
	return found
}

// list returns what is to be listed of c, at the given time.
func list(all []*shown, found []look, c *shown, now time.Time) *listing {
	p := &listing{Unsettled: []entryRow{}}
	for i, other := range all {
		l := found[i]
		p.Caches = append(p.Caches, tab{other.name, l.held, l.slow, l.more, l.trouble != ""})
		if other == c {
			p.describe(c, l, now)
		}
	}
	return p
}

func (p *listing) describe(c *shown, l look, now time.Time) {
	ageOf := func(t time.Time) *float64 {
		if t.IsZero() {
			return nil
		}
		s := max(now.Sub(t), 0).Seconds()
		return &s
	}
	p.Store, p.Looked, p.Trouble, p.AtLeast = c.stored, l.at, l.trouble, l.more
	p.Held, p.OldestHeld = l.held, ageOf(l.heldSince)
	p.InFlight, p.Slow, p.OldestSlow = l.inFlight, l.slow, ageOf(l.slowSince)
	for _, r := range l.rows {
		p.Unsettled = append(p.Unsettled, r.at(now))
	}
	p.Unlisted = max(l.held+l.inFlight-len(l.rows), 0)

	p.Waiters, p.Used, p.Limit = l.stats.Waiters, l.stats.Entries+l.stats.InFlight, c.limit
	p.Over = l.at.Sub(l.since.at).Seconds()
	var got, again uint64
	for _, r := range results {
		total := r.of(&l.stats)
		n := total - r.of(&l.since.stats)
		line := calls{Result: r.name, Total: total}
		if p.Over > 0 {
			line.PerSecond = float64(n) / p.Over
		}
		p.PerSecond += line.PerSecond
		p.Calls = append(p.Calls, line)
		switch r.name {
		case "joined", "replayed":
			again += n
			got += n
		case "executed", "reconciled":
			got += n
		}
	}
	if got > 0 {
		share := float64(again) / float64(got)
		p.Duplicates = &share
	}
}

// HeldRows and Flights are what is listed.
func (p *listing) HeldRows() []entryRow { return p.inState(idemflight.Held) }
func (p *listing) Flights() []entryRow  { return p.inState(idemflight.InFlight) }

func (p *listing) inState(s idemflight.State) (rows []entryRow) {
	for _, r := range p.Unsettled {
		if r.State == s {
			rows = append(rows, r)
		}
	}
	return rows
}

// High is how many places are many.
func (p *listing) High() int { return p.Limit / 5 * 4 }
