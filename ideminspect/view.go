package ideminspect

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
)

// View says how a cache is shown. The zero View shows no secrets. Functions must be safe for
// concurrent use. What they return is taken as text, never as markup, and is cut if it is long. If
// Key, Value or TraceURL panics, the page shows the panic instead.
type View[K comparable, V any] struct {
	// Key returns a key as it is shown. nil = masked: the scope of an [idemflight.Key] and at most
	// four characters of the rest. In any case the page also shows a tag, which tells keys apart as
	// long as the process lives.
	Key func(K) string

	// ParseKey reads what an operator typed to look a key up; its error is shown. nil = a string is
	// taken as it is; an [idemflight.Key] is read in the form that [idemflight.Key.String] writes
	// or, if the text does not have that form, as the scope up to the first slash and the ID after
	// it; keys of other types cannot be looked up.
	ParseKey func(string) (K, error)

	// Value returns the value of a retained outcome as it is shown. nil = never shown.
	Value func(V) string

	// ParseValue reads the value that an operator gives when saying that the effect took place; its
	// error is shown. nil = the action It took place is not offered.
	ParseValue func(string) (V, error)

	// TraceURL returns the URL, http or https, of an execution in a trace viewer; "" for none. nil
	// = the trace ID is shown.
	TraceURL func(idemflight.Origin) string
}

// entries are the entries of a cache, whatever its types.
type entries interface {
	look(ctx context.Context) look
	find(ctx context.Context, text string) (r entryRow, found bool, err error)
	get(ctx context.Context, id string) (r entryRow, found bool, err error)
	masked(id string) string // the key, for the log
	act(ctx context.Context, id, do, text string) error
	looksUp() string
	offers(do string) bool
}

// entryRow is an entry as it is shown.
type entryRow struct {
	ID      string           `json:"entry"` // names it in URLs and forms
	Tag     string           `json:"tag"`   // its beginning
	Key     string           `json:"key"`
	State   idemflight.State `json:"state"`
	Since   time.Time        `json:"since"` // when it began if it is in flight, otherwise when it ended
	Age     float64          `json:"age_seconds"`
	Until   time.Time        `json:"until,omitzero"` // zero: in flight, or held without end
	Left    *float64         `json:"left_seconds,omitempty"`
	Took    *float64         `json:"took_seconds,omitempty"`
	Waiters *int             `json:"waiters,omitempty"` // in flight; nil: in a list of what a Store has, it is not known
	Payload string           `json:"payload,omitempty"` // the beginning of its fingerprint
	Error   string           `json:"error,omitempty"`
	Value   *string          `json:"value,omitempty"`
	Trace   string           `json:"trace,omitempty"`
	Link    string           `json:"trace_url,omitempty"`
	Version string           `json:"version"`
}

// at returns r with its durations as they are now.
func (r entryRow) at(now time.Time) entryRow {
	r.Age = max(now.Sub(r.Since), 0).Seconds()
	if !r.Until.IsZero() {
		left := max(r.Until.Sub(now), 0).Seconds()
		r.Left = &left
	}
	return r
}

// view is how the types of one cache are read.
type view[K comparable, V any] struct {
	c    *idemflight.Cache[K, V]
	v    View[K, V]
	opts idemflight.Options[K, V]
	ids  ids[K]
}

// row returns how e is shown.
func (v *view[K, V]) row(key K, e idemflight.Entry[V]) entryRow {
	r := entryRow{
		ID: v.ids.of(key), Key: v.key(key), State: e.State, Since: e.CompletedAt, Until: e.ExpiresAt, Version: version(e),
	}
	r.Tag = tag(r.ID)
	if e.State == idemflight.InFlight {
		waiters := e.Waiters
		r.Since, r.Waiters = e.StartedAt, &waiters
	} else if !e.StartedAt.IsZero() {
		took := max(e.CompletedAt.Sub(e.StartedAt), 0).Seconds()
		r.Took = &took
	}
	if e.Fingerprint != (idemflight.Fingerprint{}) {
		r.Payload = e.Fingerprint.String()[:8]
	}
	if e.Err != nil {
		r.Error = errorText(e.Err)
	}
	if e.State == idemflight.Retained && v.v.Value != nil && e.Err == nil {
		value := clean(shielded("Value", func() string { return v.v.Value(e.Value) }), maxText)
		r.Value = &value
	}
	if e.Origin != nil && *e.Origin != (idemflight.Origin{}) {
		r.Trace = fmt.Sprintf("%x", e.Origin.TraceID)
		if v.v.TraceURL != nil {
			r.Link = webAddress(shielded("TraceURL", func() string { return v.v.TraceURL(*e.Origin) }))
		}
	}
	return r
}

// key shows a key.
func (v *view[K, V]) key(key K) string {
	if v.v.Key == nil {
		return masked(key)
	}
	return clean(shielded("Key", func() string { return v.v.Key(key) }), maxKey)
}

// masked shows a key as the zero View does.
func masked(key any) string {
	if k, ok := key.(idemflight.Key); ok {
		return clean(k.Scope, maxKey) + "/" + clean(mask(k.ID), maxKey)
	}
	return clean(mask(fmt.Sprint(key)), maxKey)
}

// shielded calls a function of the user's.
func shielded(name string, f func() string) (s string) {
	defer func() {
		if v := recover(); v != nil {
			s = fmt.Sprintf("(View.%s panicked: %v)", name, v)
		}
	}()
	return f()
}

// errorText returns err as it is shown. fmt contains a panic of its method.
func errorText(err error) string { return clean(fmt.Sprintf("%v", err), maxText) }

// webAddress returns s if it is an address that a link may have, otherwise "".
func webAddress(s string) string {
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return s
}

// version tells an entry from what it was and will be: by when it ended, or began if it is in
// flight, and by a digest of the rest that somebody decides upon. Not by when it expires: a
// Reconcile that learned nothing moves that, and what a Store says of it is no exact time.
func version[V any](e idemflight.Entry[V]) string {
	at := e.CompletedAt
	if e.State == idemflight.InFlight {
		at = e.StartedAt
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %v %v", e.State, e.Fingerprint, e.Err)
	return fmt.Sprintf("%x-%x", at.UnixNano(), h.Sum64())
}

// clockError is by how much the same moment may differ when it is asked for again: the cache tells
// moments in wall time, which is put right in steps of a millisecond and more.
const clockError = 50 * time.Millisecond

// sameVersion reports whether two versions are of one entry that has not changed.
func sameVersion(a, b string) bool {
	atA, restA, _ := strings.Cut(a, "-")
	atB, restB, _ := strings.Cut(b, "-")
	nsA, errA := strconv.ParseInt(atA, 16, 64)
	nsB, errB := strconv.ParseInt(atB, 16, 64)
	off := time.Duration(nsA - nsB)
	return errA == nil && errB == nil && restA == restB && -clockError <= off && off <= clockError
}

const (
	maxRows = 100    // that are listed
	maxKeys = 10_000 // that are looked at
)

// look looks at what is unsettled. Without a Store Unsettled has an order, and with one has none.
func (v *view[K, V]) look(ctx context.Context) (l look) {
	l.stats, l.at = v.c.Stats(), time.Now()
	type unsettled struct {
		key K
		e   idemflight.Entry[V]
	}
	var oldest []unsettled
	seen := 0
	err := v.c.Unsettled(ctx, func(key K, e idemflight.Entry[V]) bool {
		if seen++; seen > maxKeys {
			l.more = true
			return false
		}
		l.count(e.State, e.StartedAt, e.CompletedAt)
		at, _ := slices.BinarySearchFunc(oldest, e, func(u unsettled, e idemflight.Entry[V]) int {
			if d := u.e.StartedAt.Compare(e.StartedAt); d != 0 {
				return d
			}
			return -1 // behind those that are as old
		})
		if at == maxRows {
			return true
		}
		if len(oldest) == maxRows {
			oldest = oldest[:maxRows-1]
		}
		oldest = slices.Insert(oldest, at, unsettled{key, e})
		return true
	})
	for _, u := range oldest {
		r := v.row(u.key, u.e)
		if v.opts.Store != nil {
			r.Waiters = nil
		}
		l.rows = append(l.rows, r)
	}
	if err != nil {
		l.trouble = errorText(err)
	}
	if l.more && v.opts.Store == nil {
		l.held, l.inFlight = l.stats.Held, l.stats.InFlight
	}
	return l
}

// looksUp returns what to type to look a key up; "" if keys cannot be looked up.
func (v *view[K, V]) looksUp() string {
	if _, ok := any(*new(K)).(idemflight.Key); ok {
		return "The whole key: scope/ID"
	}
	if _, ok := any(*new(K)).(string); ok || v.v.ParseKey != nil {
		return "The whole key"
	}
	return ""
}

// parse reads a key that an operator typed.
func (v *view[K, V]) parse(text string) (key K, err error) {
	if v.v.ParseKey != nil {
		return v.v.ParseKey(text)
	}
	switch k := any(&key).(type) {
	case *string:
		*k = text
	case *idemflight.Key:
		if *k, err = idemflight.ParseKey(text); err != nil {
			k.Scope, k.ID, _ = strings.Cut(text, "/")
			if k.Scope == "" || k.ID == "" {
				return key, err
			}
		}
	default:
		return key, errors.New("keys of this type cannot be looked up without View.ParseKey")
	}
	return key, nil
}

// inputError is the operator's mistake.
type inputError struct{ error }

// find looks up a key that an operator typed.
func (v *view[K, V]) find(ctx context.Context, text string) (entryRow, bool, error) {
	key, err := v.parse(text)
	if err != nil {
		return entryRow{}, false, inputError{err}
	}
	return v.lookup(ctx, key)
}

// get looks up an entry that the page has shown before.
func (v *view[K, V]) get(ctx context.Context, id string) (entryRow, bool, error) {
	key, ok := v.ids.key(id)
	if !ok {
		return entryRow{}, false, nil
	}
	return v.lookup(ctx, key)
}

func (v *view[K, V]) lookup(ctx context.Context, key K) (entryRow, bool, error) {
	e, found, err := v.c.Lookup(ctx, key)
	if err != nil || !found {
		return entryRow{}, false, err
	}
	return v.row(key, e), true, nil
}

func (v *view[K, V]) masked(id string) string {
	if key, ok := v.ids.key(id); ok {
		return masked(key)
	}
	return ""
}

func (v *view[K, V]) offers(do string) bool {
	switch do {
	case askAgain:
		return v.opts.Reconcile != nil
	case tookPlace:
		return v.v.ParseValue != nil
	}
	return true
}

// act does what an operator wants with an entry.
func (v *view[K, V]) act(ctx context.Context, id, do, text string) error {
	key, ok := v.ids.key(id)
	if !ok {
		return errChanged
	}
	var none V
	switch do {
	case askAgain:
		_, err := v.c.Reconcile(ctx, key)
		return err
	case tookPlace:
		value, err := v.v.ParseValue(text)
		if err != nil {
			return inputError{err}
		}
		return v.c.Resolve(ctx, key, value, nil)
	case refused:
		if strings.TrimSpace(text) == "" {
			return inputError{errors.New("the error that callers get must not be empty")}
		}
		return v.c.Resolve(ctx, key, none, idemflight.Final(errors.New(text)))
	case didNot:
		return v.c.Resolve(ctx, key, none, idemflight.Retryable(errors.New("an operator found out that it certainly did not take place")))
	case forget:
		was, err := v.c.Forget(ctx, key)
		if err == nil && !was {
			err = errChanged
		}
		return err
	}
	return inputError{errors.New("no such action: " + do)}
}

// ids names keys at random, so that a name says nothing about its key. It knows the latest of them.
type ids[K comparable] struct {
	mu         sync.Mutex // guards what follows
	young, old names[K]   // the old ones go when there are maxNames young ones
}

type names[K comparable] struct {
	of    map[K]string
	named map[string]K
}

const maxNames = 10_000

// of returns the name of key.
func (t *ids[K]) of(key K) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.young.of[key]
	if ok {
		return id
	}
	if id, ok = t.old.of[key]; !ok {
		id = rand.Text()
	}
	if len(t.young.of) == maxNames || t.young.of == nil {
		t.old, t.young = t.young, names[K]{map[K]string{}, map[string]K{}}
	}
	t.young.of[key], t.young.named[id] = id, key
	return id
}

// key returns the key of that name.
func (t *ids[K]) key(id string) (key K, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key, ok = t.young.named[id]; !ok {
		key, ok = t.old.named[id]
	}
	return key, ok
}

// tag returns what of a name is shown: enough to tell a hundred keys apart.
func tag(id string) string { return strings.ToLower(id[:6]) }
