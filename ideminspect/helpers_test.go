package ideminspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
)

type (
	key     = idemflight.Key
	cache   = idemflight.Cache[key, string]
	options = idemflight.Options[key, string]
	view    = ideminspect.View[key, string]
)

var (
	errBank = errors.New("the bank did not answer")
	ann     = key{Scope: "ann", ID: "5f0c11d2-8a41-4f0e"}
	ben     = key{Scope: "ben", ID: "c41d09aa-1f6e-47d3"}
)

// full is a View that allows all.
var full = view{
	Key:   func(k key) string { return k.String() },
	Value: func(v string) string { return v },
	ParseValue: func(v string) (string, error) {
		if v == "" {
			return "", errors.New("a receipt has a number")
		}
		return v, nil
	},
}

// site is a page of one cache, and what is logged.
type site struct {
	t     testing.TB
	page  *ideminspect.Page
	cache *cache
	log   *logged
}

// actor knows people by a header.
func actor(r *http.Request) (string, error) {
	if r.Header.Get("X-User") == "" {
		return "", errors.New("nobody is signed in")
	}
	return r.Header.Get("X-User"), nil
}

// newSite returns a page on which nora may act.
func newSite(t testing.TB, opts options, v view) *site {
	log := &logged{}
	page, err := ideminspect.New(ideminspect.Options{Write: true, Logger: newLogger(log), Actor: actor})
	require.NoError(t, err)
	c := idemflight.MustNew(opts)
	ideminspect.Add(page, "payments", c, v)
	return &site{t, page, c, log}
}

// logged are lines of JSON.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was logged since the last time.
func (l *logged) take(t testing.TB) (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal(line, &m))
		lines = append(lines, m)
	}
	l.buf.Reset()
	return lines
}

// answer is what a client sees.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func do(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// get is a GET by nora.
func get(h http.Handler, query string) answer {
	r := httptest.NewRequest(http.MethodGet, "/idemflight?"+query, nil)
	r.Header.Set("X-User", "nora")
	return do(h, r)
}

// form is a POST by nora, from the page itself, with names and values.
func form(query string, pairs ...string) *http.Request {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, "/idemflight?"+query, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("X-User", "nora")
	return r
}

// shown is the JSON of a page.
type shown struct {
	Cache, Message, Trouble string
	Write, Store            bool
	Caches                  []struct {
		Name    string
		Held    int
		Slow    int `json:"in_flight_over_a_minute"`
		Trouble bool
	}
	AtLeast    bool     `json:"at_least"`
	Held       int      `json:"held"`
	OldestHeld *float64 `json:"oldest_held_seconds"`
	InFlight   int      `json:"in_flight"`
	Slow       int      `json:"in_flight_over_a_minute"`
	OldestSlow *float64 `json:"oldest_in_flight_seconds"`
	Unsettled  []entry
	Unlisted   int
	Waiters    int
	Used       int      `json:"places_used"`
	Limit      int      `json:"places_limit"`
	Over       float64  `json:"rates_over_seconds"`
	PerSecond  float64  `json:"calls_per_second"`
	Duplicates *float64 `json:"duplicates_share"`
	Calls      []struct {
		Result    string
		PerSecond float64 `json:"per_second"`
		Total     uint64
	}
	Entry   *entry
	Actions []struct{ Do, Name string }
}

type entry struct {
	Entry, Tag, Key string
	State           idemflight.State
	Since, Until    time.Time
	Age             float64  `json:"age_seconds"`
	Left            *float64 `json:"left_seconds"`
	Took            *float64 `json:"took_seconds"`
	Waiters         *int
	Payload, Error  string
	Value           *string
	Trace           string
	TraceURL        string `json:"trace_url"`
	Version         string
}

// shown reads a's JSON.
func (a answer) shown(t testing.TB) (s shown) {
	t.Helper()
	require.Equal(t, "application/json", a.Header.Get("Content-Type"), "JSON, not %d %q", a.Status, a.Body)
	require.NoError(t, json.Unmarshal([]byte(a.Body), &s), "%q", a.Body)
	return s
}

func (s *site) list() shown { return get(s.page, "format=json").shown(s.t) }

// find looks key up and returns its entry.
func (s *site) find(k key) *entry {
	s.t.Helper()
	a := do(s.page, form("format=json", "do", "find", "key", k.String()))
	require.Equal(s.t, http.StatusOK, a.Status, "%s", a.Body)
	return a.shown(s.t).Entry
}

// act acts on an entry as it was seen.
func (s *site) act(what string, e *entry, text string) answer {
	return do(s.page, form("format=json", "do", what, "entry", e.Entry, "version", e.Version, "text", text))
}

// hold makes a key held, by an execution that fails and does not say what it did.
func hold(t testing.TB, c *cache, k key, err error) {
	t.Helper()
	_, got := c.Do(t.Context(), k, func(context.Context) (string, error) { return "", err },
		idemflight.WithFingerprint(idemflight.FingerprintOf([]byte(k.ID))))
	require.ErrorIs(t, got, idemflight.ErrOutcomeUnknown, "the test's key is to be held")
}

// settle makes a key retained.
func settle(t testing.TB, c *cache, k key, value string) {
	t.Helper()
	_, err := c.Do(t.Context(), k, func(context.Context) (string, error) { return value, nil })
	require.NoError(t, err)
}

// fly starts an execution, and returns what ends it and waits until it has.
func fly(c *cache, k key) (end func()) {
	running, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.Do(context.Background(), k, func(context.Context) (string, error) {
			close(running)
			<-release
			return "", nil
		})
	}()
	<-running
	return func() { close(release); <-ended }
}

func (s *site) state(k key) idemflight.State {
	e, _, err := s.cache.Lookup(s.t.Context(), k)
	require.NoError(s.t, err)
	return e.State
}

// raceEnabled: the race detector is on, and all is slower.
var raceEnabled bool

func newLogger(w *logged) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// addTo puts another cache on the page.
func addTo(s *site, name string, opts options) {
	ideminspect.Add(s.page, name, idemflight.MustNew(opts), view{})
}
