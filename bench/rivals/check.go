package rivals

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Contract is what a rival was seen to do with duplicates.
type Contract struct {
	Keys       int     // fresh keys, each called by Racers at once
	Executions float64 // of Load per key: 1 is the point
	Twice      int     // keys for which Load ran more than once

	// What happens when the caller that started the execution has its context cancelled while
	// others wait.
	LeaderLeaves bool   // it returns while Load still runs
	WorkGoesOn   bool   // Load is not cancelled
	Others       Others // what the other callers get

	WaiterLeaves bool // a caller that waits returns when its own context ends
}

// Others is what the other callers of a cancelled leader get.
type Others string

const (
	OthersValue Others = "the value"
	OthersAgain Others = "a second run"
	OthersError Others = "its error"
	OthersStuck Others = "nothing"
)

// Racers is how many callers race for each fresh key.
const Racers = 16

// patience is how long Check waits for what comes at once if it comes at all.
const patience = 40 * time.Millisecond

// Check tries what r does with duplicates: keys fresh ones, each called by Racers callers that
// start together, and then callers that go away. It takes about 0.2 s for 1,000 keys.
func Check(r Rival[int], keys []string) Contract {
	c := Contract{Keys: len(keys)}
	c.Executions, c.Twice = Race(r, keys, Racers)
	c.cancelLeader(r)
	c.WaiterLeaves = waiterLeaves(r)
	return c
}

// Race has racers callers call each of keys at once, which are fresh, and returns how often Load ran
// per key, and for how many keys more than once.
func Race(r Rival[int], keys []string, racers int) (perKey float64, twice int) {
	runs := make(map[string]*atomic.Int32, len(keys))
	for _, key := range keys {
		runs[key] = new(atomic.Int32)
	}
	s := r.Open(Options[int]{Capacity: 4 * len(keys), TTL: time.Hour, Load: func(_ context.Context, key string) (int, error) {
		runs[key].Add(1)
		runtime.Gosched() // lets the others come
		return 1, nil
	}})
	defer s.Close()

	gates := make([]chan struct{}, len(keys))
	for i := range gates {
		gates[i] = make(chan struct{})
	}
	var racing, all sync.WaitGroup
	for range racers {
		all.Go(func() {
			for i, gate := range gates {
				<-gate
				_, _ = s.Do(context.Background(), keys[i])
				racing.Done()
			}
		})
	}
	for _, gate := range gates {
		racing.Add(racers)
		close(gate)
		racing.Wait()
	}
	all.Wait()

	total := 0
	for _, n := range runs {
		total += int(n.Load())
		if n.Load() > 1 {
			twice++
		}
	}
	return float64(total) / float64(len(keys)), twice
}

// slow is a Load that takes until it is released or cancelled; from the second run on it is quick.
type slow struct {
	started, release, cancelled chan struct{}
	runs                        atomic.Int32
}

func newSlow() *slow {
	return &slow{started: make(chan struct{}), release: make(chan struct{}), cancelled: make(chan struct{})}
}

func (s *slow) load(ctx context.Context, _ string) (int, error) {
	if s.runs.Add(1) > 1 {
		return 1, nil
	}
	close(s.started)
	select {
	case <-s.release:
		return 1, nil
	case <-ctx.Done():
		close(s.cancelled)
		return 0, ctx.Err()
	}
}

func (c *Contract) cancelLeader(r Rival[int]) {
	work := newSlow()
	s := r.Open(Options[int]{Capacity: 1024, TTL: time.Hour, Load: work.load})
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = s.Do(ctx, "key")
	}()
	<-work.started
	const others = 4
	errs := make(chan error, others)
	for range others {
		go func() {
			v, err := s.Do(context.Background(), "key")
			if err == nil && v != 1 {
				err = errNothingLoaded
			}
			errs <- err
		}()
	}
	time.Sleep(patience / 2) // until they wait
	cancel()

	// A leader whose work was cancelled with it returns as well, but it did not leave.
	c.WorkGoesOn = !closedWithin(work.cancelled, patience/2)
	c.LeaderLeaves = closedWithin(left, patience/2)
	close(work.release)

	c.Others = OthersValue
	timeout := time.After(2 * time.Second)
	for range others {
		select {
		case err := <-errs:
			if err != nil {
				c.Others = OthersError
			}
		case <-timeout:
			c.Others = OthersStuck
			return
		}
	}
	if c.Others == OthersValue && work.runs.Load() > 1 {
		c.Others = OthersAgain
	}
	<-left
}

func waiterLeaves(r Rival[int]) bool {
	work := newSlow()
	s := r.Open(Options[int]{Capacity: 1024, TTL: time.Hour, Load: work.load})
	defer s.Close()
	var all sync.WaitGroup
	all.Go(func() { _, _ = s.Do(context.Background(), "key") })
	<-work.started
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{})
	all.Go(func() {
		defer close(left)
		_, _ = s.Do(ctx, "key")
	})
	time.Sleep(patience / 2)
	cancel()
	leaves := closedWithin(left, patience)
	close(work.release)
	all.Wait()
	return leaves
}

func closedWithin(c <-chan struct{}, d time.Duration) bool {
	select {
	case <-c:
		return true
	case <-time.After(d):
		return false
	}
}

// Leader tells what happens when the context of the caller ends that started the execution.
func (c *Contract) Leader() string {
	switch {
	case !c.WorkGoesOn:
		return "work is cancelled"
	case c.LeaderLeaves:
		return "leaves, work goes on"
	}
	return "stays, work goes on"
}
