package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
)

// workerVariable has, in the environment of a worker, its setting.
const workerVariable = "IDEMFLIGHT_WORKER"

// linePrefix begins the lines of a worker's standard output that are for RunProcesses.
// Others are ignored.
const linePrefix = "storetest "

// setting is what a worker is told before it opens the store.
type setting struct {
	Effects string // the file to which effects are written
	Lease   time.Duration
	NoRenew bool // renewals fail
	Failing int  // of 1,000 verbs so many fail, half of them after they have acted
}

// step is a point that a worker has reached. Workers can be told to stop at some.
type step string

const (
	ready  step = "ready"              // the store is open
	failed step = "could not be open"  // open returned an error
	probed step = "said what it is"    // whether leases end with the process
	passed step = "went over its keys" // in a storm

	claimSent   step = "claim granted, answer not delivered"
	beforeBegin step = "claimed, before Begin"
	afterBegin  step = "begun, before the effect"
	afterEffect step = "after the effect, before Settle"
	afterSettle step = "settled, answer not delivered"
	reconciling step = "Reconcile running"

	answered step = "answered"
	lookedUp step = "looked up"
)

// order is what a worker is told to do, a line of JSON each.
type order struct {
	Do        action
	Key       string        `json:",omitempty"`
	Value     string        `json:",omitempty"` // that fn writes as its effect, and returns
	Mode      mode          `json:",omitzero"`
	StopAt    step          `json:",omitempty"` // until a release, or forever
	MaxWait   time.Duration `json:",omitempty"` // 0: none
	Keys      []string      `json:",omitempty"` // of a storm
	Callers   int           `json:",omitempty"`
	Unguarded bool          `json:",omitempty"` // fn leaves BeginEffect out
}

type action string

const (
	probe  action = "probe"
	call   action = "call"
	letGo  action = "release"
	lookUp action = "look up"
	storm  action = "storm"
)

// mode is which of its caches a worker asks.
type mode struct{ Announced, Reconcile bool }

// report is what a worker tells, a line of JSON each.
type report struct {
	Step  step
	Key   string           `json:",omitempty"`
	Value string           `json:",omitempty"`
	Err   string           `json:",omitempty"`
	Is    []string         `json:",omitempty"` // which of the errors of told it is
	State idemflight.State `json:",omitempty"`
	Bound bool             `json:",omitempty"` // leases end with the process alone
}

// told are the errors that reports tell apart.
var told = []struct {
	name string
	err  error
}{
	{"unknown", idemflight.ErrOutcomeUnknown},
	{"interrupted", idemflight.ErrInterrupted},
	{"lost", idemflight.ErrClaimLost},
	{"in flight", idemflight.ErrInFlight},
	{"store", idemflight.ErrStore},
	{"made up", errMadeUp},
}

var (
	errMadeUp = errors.New("storetest: an error that fn was told to return")
	errSlow   = fmt.Errorf("%w: it was too slow for its effect", errMadeUp)
)

// worker runs in a child of RunProcesses.
type worker struct {
	setting
	effects *ledger
	store   idemflight.Store
	caches  map[mode]*idemflight.Cache[string, string]

	mu    sync.Mutex
	stops map[string]*stop // by key
}

// stop is where the call of a key is to stop.
type stop struct {
	at      step
	release chan struct{}
}

// Worker is to be called by the main function of a program that [RunProcesses] starts, any number
// of times. It opens the store with open and does what it is told on its standard input, until that
// ends or it is killed. It never returns.
//
// Every process must open the same engine and name, which the program learns from its arguments, or
// from what the test puts into the environment. If open returns an error, RunProcesses fails with
// it. If RunProcesses did not start the program, Worker exits with status 2.
func Worker(open func() (idemflight.Store, error)) {
	w := &worker{stops: make(map[string]*stop), caches: make(map[mode]*idemflight.Cache[string, string])}
	if err := json.Unmarshal([]byte(os.Getenv(workerVariable)), &w.setting); err != nil {
		fmt.Fprintln(os.Stderr, "storetest.Worker: only RunProcesses starts this program")
		os.Exit(2)
	}
	if err := w.open(open); err != nil {
		w.report(report{Step: failed, Err: err.Error()})
		os.Exit(1)
	}
	w.report(report{Step: ready})
	for orders := json.NewDecoder(os.Stdin); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			os.Exit(0) // RunProcesses is gone
		}
		w.obey(o)
	}
}

func (w *worker) open(open func() (idemflight.Store, error)) (err error) {
	if w.effects, err = openLedger(w.Effects); err != nil {
		return err
	}
	if w.store, err = open(); err != nil {
		return err
	}
	if w.Failing > 0 {
		w.store = &shaky{w.store, w.Failing}
	}
	for _, announced := range []bool{false, true} {
		for _, reconcile := range []bool{false, true} {
			o := idemflight.Options[string, string]{
				Store: &tapped{w.store, w}, EffectsAnnounced: announced,
				Lease: w.Lease, LocalTTL: -1, TTL: time.Hour, HoldTTL: time.Hour,
			}
			if reconcile {
				o.Reconcile = w.reconcile
			}
			if w.caches[mode{announced, reconcile}], err = idemflight.New(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// report writes a line at once, so that what has been reported is known even if
// the process dies now.
func (w *worker) report(r report) {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = os.Stdout.WriteString(linePrefix + string(b) + "\n")
}

func (w *worker) obey(o order) {
	switch o.Do {
	case probe:
		go w.probe()
	case call:
		if o.StopAt != "" {
			w.mu.Lock()
			w.stops[o.Key] = &stop{o.StopAt, make(chan struct{})}
			w.mu.Unlock()
		}
		go func() { w.report(w.call(o)) }()
	case letGo:
		w.mu.Lock()
		close(w.stops[o.Key].release)
		w.mu.Unlock()
	case lookUp:
		go w.lookUp(o)
	case storm:
		go w.storm(o)
	}
}

// at is where the call of key has come to that step. It waits if the call is to stop there.
func (w *worker) at(key string, here step) {
	w.mu.Lock()
	s := w.stops[key]
	w.mu.Unlock()
	if s == nil || s.at != here {
		return
	}
	w.report(report{Step: here, Key: key})
	<-s.release
}

// tapped is a Store that stops where answers are to get lost.
type tapped struct {
	idemflight.Store
	w *worker
}

func (s *tapped) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	x, err := s.Store.Claim(ctx, r)
	if err == nil && x.Granted {
		s.w.at(r.Key, claimSent)
	}
	return x, err
}

func (s *tapped) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
	x, err := s.Store.Settle(ctx, c, what)
	if err == nil {
		s.w.at(c.Key, afterSettle)
	}
	return x, err
}

func (s *tapped) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
	if s.w.NoRenew {
		return nil, errMadeUp
	}
	return s.Store.Renew(ctx, cs, lease)
}

// shaky is a Store of which some verbs fail, before or after they act: as if the network were bad.
type shaky struct {
	idemflight.Store
	failing int // of 1,000
}

// shake runs a verb, and says how it failed.
func (s *shaky) shake(verb func() error) error {
	fate := mathrand.IntN(2000)
	if fate < s.failing {
		return errMadeUp
	}
	if err := verb(); err != nil {
		return err
	}
	if fate < 2*s.failing {
		return errMadeUp
	}
	return nil
}

func (s *shaky) Claim(ctx context.Context, r idemflight.ClaimRequest) (x idemflight.Standing, err error) {
	return x, s.shake(func() error { x, err = s.Store.Claim(ctx, r); return err })
}

func (s *shaky) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	return s.shake(func() error { return s.Store.Begin(ctx, c, lease) })
}

func (s *shaky) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (x idemflight.Standing, err error) {
	return x, s.shake(func() error { x, err = s.Store.Settle(ctx, c, what); return err })
}

func (s *shaky) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	return lost, s.shake(func() error { lost, err = s.Store.Renew(ctx, cs, lease); return err })
}

func (s *shaky) Watch(ctx context.Context, c idemflight.Claim) error {
	return s.shake(func() error { return s.Store.Watch(ctx, c) })
}

func (s *shaky) Read(ctx context.Context, key string) (x idemflight.Standing, err error) {
	return x, s.shake(func() error { x, err = s.Store.Read(ctx, key); return err })
}

func (s *shaky) GiveBack(ctx context.Context, c idemflight.Claim) error {
	return s.shake(func() error { return s.Store.GiveBack(ctx, c) })
}

func (s *shaky) Forget(ctx context.Context, c idemflight.Claim) (was bool, err error) {
	return was, s.shake(func() error { was, err = s.Store.Forget(ctx, c); return err })
}

func (w *worker) call(o order) report {
	var options []idemflight.CallOption
	if o.MaxWait != 0 {
		options = append(options, idemflight.WithMaxWait(o.MaxWait))
	}
	value, err := w.caches[o.Mode].Do(context.Background(), o.Key, func(ctx context.Context) (string, error) {
		w.at(o.Key, beforeBegin)
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		w.at(o.Key, afterBegin)
		w.effects.add(effect, o.Key, o.Value)
		w.at(o.Key, afterEffect)
		return o.Value, nil
	}, options...)
	return answerTo(o.Key, value, err)
}

func answerTo(key, value string, err error) report {
	r := report{Step: answered, Key: key, Value: value}
	if err != nil {
		r.Value, r.Err = "", err.Error()
		for _, e := range told {
			if errors.Is(err, e.err) {
				r.Is = append(r.Is, e.name)
			}
		}
	}
	return r
}

// reconcile finds out by asking the ledger.
func (w *worker) reconcile(_ context.Context, key string, _ idemflight.Entry[string]) (string, error) {
	w.at(key, reconciling)
	for _, line := range w.effects.lines() {
		if line.kind == effect && line.key == key {
			return line.value, nil
		}
	}
	return "", idemflight.Retryable(errors.New("there was no effect"))
}

func (w *worker) lookUp(o order) {
	e, _, err := w.caches[o.Mode].Lookup(context.Background(), o.Key)
	r := answerTo(o.Key, e.Value, err)
	r.Step, r.State = lookedUp, e.State
	w.report(r)
}

// probe asks the store whether a lease has no end while the process lives.
func (w *worker) probe() {
	ctx := context.Background()
	r := requestFor("storetest " + rand.Text())
	r.EffectsAnnounced = true
	x, err := w.store.Claim(ctx, r)
	if err == nil && !x.Granted {
		err = errors.New("it does not grant the claim of a new key")
	}
	if err == nil {
		x, err = w.store.Read(ctx, r.Key)
	}
	if err == nil {
		_, err = w.store.Settle(ctx, r.Claim, idemflight.Settlement{Disposition: idemflight.Release})
	}
	said := report{Step: probed, Bound: x.ExpiresIn < 0}
	if err != nil {
		said.Err = err.Error()
	}
	w.report(said)
}

// storm has callers call all keys, until each has been told a value of each.
func (w *worker) storm(o order) {
	var all sync.WaitGroup
	for caller := range o.Callers {
		// Half of the callers begin where those of the other processes do, so that they meet.
		first := 0
		if caller%2 == 1 {
			first = mathrand.IntN(len(o.Keys))
		}
		all.Go(func() {
			open := append(append([]string(nil), o.Keys[first:]...), o.Keys[:first]...)
			for len(open) > 0 {
				var later []string
				for _, key := range open {
					r := w.stormCall(key, o.Unguarded)
					w.report(r)
					if r.Err != "" {
						later = append(later, key)
					}
				}
				if open = later; len(open) > 0 {
					time.Sleep(time.Millisecond) // not to be all that the processor does
				}
			}
		})
	}
	all.Wait()
	w.report(report{Step: passed})
}

// stormCall is a call of key with what comes by chance: whether it waits, how long the effect and
// its answer take, whether fn fails, and, of half of the keys, whether they are announced. If
// unguarded, all are announced, and none calls BeginEffect.
func (w *worker) stormCall(key string, unguarded bool) report {
	var options []idemflight.CallOption
	if mathrand.IntN(4) > 0 {
		options = append(options, idemflight.WithMaxWait(30*time.Millisecond))
	}
	m := mode{Announced: unguarded || key[len(key)-1]%2 == 0, Reconcile: true}
	value, err := w.caches[m].Do(context.Background(), key, func(ctx context.Context) (string, error) {
		chance := mathrand.IntN(16)
		if chance == 0 && !unguarded {
			return "", errMadeUp
		}
		start := time.Now() // before the lease begins
		if !unguarded {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
		}
		time.Sleep(mathrand.N(2 * time.Millisecond))
		if time.Since(start) > w.Lease/2 { // what no library can promise: see promise 32
			return "", idemflight.Retryable(errSlow)
		}
		value := rand.Text()
		w.effects.add(effect, key, value)
		if time.Since(start) > w.Lease*9/10 {
			w.effects.add(late, key, value)
		}
		time.Sleep(mathrand.N(2 * time.Millisecond))
		if chance == 1 && !unguarded {
			return "", idemflight.Unknown(errMadeUp)
		}
		return value, nil
	}, options...)
	return answerTo(key, value, err)
}

// ledger is the file of what workers have effected. It has lines of one size, each added by one
// write, so that neither a kill nor another process tears one: no line crosses a page.
type ledger struct {
	path string
	file *os.File
}

const lineSize = 128

const (
	effect = "effect"
	late   = "late" // of an effect: it may have come after its lease
)

type line struct{ kind, key, value string }

func openLedger(path string) (*ledger, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &ledger{path, file}, err
}

func (l *ledger) add(kind, key, value string) {
	b := fmt.Appendf(nil, "%-*s\n", lineSize-1, kind+" "+key+" "+value)
	if len(b) != lineSize {
		panic("storetest: a line of the ledger is too long")
	}
	if n, err := l.file.Write(b); n != lineSize {
		panic(fmt.Sprintf("storetest: %v, and it was written as far as %d bytes: %v", l.path, n, err))
	}
}

func (l *ledger) lines() (lines []line) {
	b, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	for text := range bytes.Lines(b) {
		fields := strings.Fields(string(text))
		if len(text) != lineSize || len(fields) != 3 {
			panic(fmt.Sprintf("storetest: %v has a line %q", l.path, text))
		}
		lines = append(lines, line{fields[0], fields[1], fields[2]})
	}
	return lines
}
