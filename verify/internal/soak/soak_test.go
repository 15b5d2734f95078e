package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

var keeping sync.Mutex

// patiently is for rounds without a fault: a busy machine is none.
const patiently = 20 * time.Second

// TestSmallRoundsAreSound drives the library as the planted faults are driven, and some rounds of all.
func TestSmallRoundsAreSound(t *testing.T) {
	mixes := map[string]mix{}
	for name, fault := range faults {
		mixes[name] = fault.mix
	}
	for name, m := range mixes {
		require.Empty(t, core(m, ints, patiently, newCache[int]).wrong, "the round of %q without the fault", name)
	}
	require.Empty(t, web(smallWeb, patiently, nil).wrong)

	r := soak{seed: 1, only: -1, lasts: 4 * time.Second, scale: 10, patience: patiently, progress: io.Discard}.run(context.Background())
	require.Empty(t, r.Violations)
	require.Greater(t, r.Rounds, 1)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"Seed":1`)
	require.Contains(t, r.text(), "0 violations")
}

// TestAClosedCacheIsGoneAlsoWhereTheRuntimeKeepsItsTimer closes a cache whose timer is far away, with others
// before and after it: then the runtime does not remove it at once.
func TestAClosedCacheIsGoneAlsoWhereTheRuntimeKeepsItsTimer(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // they are kept apart for each processor
	others := func(after time.Duration) {
		for range 16 {
			t.Cleanup(func(timer *time.Timer) func() { return func() { timer.Stop() } }(time.AfterFunc(after, func() {})))
		}
	}
	others(10 * time.Minute)
	c := newCache(options{TTL: time.Hour})
	v := &value{id: 1}
	kept := weak.Make(v)
	_, err := c.call(context.Background(), byDo, 1, func(context.Context) (*value, error) { return v, nil })
	require.NoError(t, err)
	others(2 * time.Hour)
	require.NoError(t, c.Close(context.Background()))
	c, v = nil, nil

	runtime.GC()
	require.Nil(t, kept.Value(), "what a closed cache has kept is still referred to")
}

// TestMixIsReplayed draws rounds, and the calls of a client, twice.
func TestMixIsReplayed(t *testing.T) {
	for n := range 50 {
		m := drawMix(7, n, 100)
		require.Equal(t, m, drawMix(7, n, 100))
		a, b := source(7, n, 3), source(7, n, 3)
		for range 20 {
			require.Equal(t, m.drawPlan(a, 1), m.drawPlan(b, 1))
		}
	}
	require.NotEqual(t, drawMix(7, 0, 100), drawMix(8, 0, 100))
}

// TestSoakFindsGrowth has rounds that leave memory behind, and one that hangs.
func TestSoakFindsGrowth(t *testing.T) {
	var kept [][]byte
	s := soak{seed: 1, only: -1, lasts: time.Minute, patience: 100 * time.Millisecond, progress: io.Discard}
	s.other = func(n int) (mix, outcome) {
		kept = append(kept, make([]byte, 2<<20))
		return mix{Seed: 1, Round: n}, outcome{stuck: n == 5}
	}
	r := s.run(context.Background())
	require.NotEmpty(t, r.Violations, "%d MiB left behind", len(kept)*2)
	require.Equal(t, 6, r.Rounds, "rounds up to the one that hangs")
	require.NotEmpty(t, r.NotExercised)
}

var smallWeb = mix{
	Web: true, KeyType: "Key", Clients: 8, Calls: 800, Keys: 40, Payloads: 1, Procs: []int{2, 1}, TTL: time.Hour, MaxEntries: 500,
	MinRetention: -1, Leaves: 0, Fails: 30,
}

// altered changes answers on their way out.
type altered struct {
	http.ResponseWriter
	header func(h http.Header) // of a replay, before it is written
	body   func(text []byte) []byte
}

func (w *altered) replays() bool { return w.Header().Get("Idempotent-Replayed") != "" }

func (w *altered) WriteHeader(status int) {
	if w.header != nil && w.replays() {
		w.header(w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *altered) Write(text []byte) (int, error) {
	if w.body != nil && w.replays() && len(text) > 0 {
		text = w.body(bytes.Clone(text))
	}
	return w.ResponseWriter.Write(text)
}

func (w *altered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// alter is a fault in what replays look like.
func alter(with altered) webFault {
	return func(_ *website, covered http.Handler, _ *planted) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			one := with
			one.ResponseWriter = w
			covered.ServeHTTP(&one, r)
		})
	}
}

// once runs wrong for the hundredth request.
func once(wrong func(*planted)) webFault {
	return func(_ *website, covered http.Handler, p *planted) http.Handler {
		var n atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 100 {
				wrong(p)
			}
			covered.ServeHTTP(w, r)
		})
	}
}

// webFault puts a fault around the middleware and the handler.
type webFault func(s *website, covered http.Handler, p *planted) http.Handler

// webFaults are middlewares that are wrong in one way each, and what the soak must say.
var webFaults = map[string]struct {
	says string
	webFault
}{
	"the effect takes place twice": {"kept", func(s *website, covered http.Handler, _ *planted) http.Handler {
		other, _ := idemhttp.New(idemhttp.Options{Scope: scope}) // which knows nothing of the first
		second := other.Handler(http.HandlerFunc(s.handle))
		var n atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%10 == 0 {
				second.ServeHTTP(w, r)
				return
			}
			covered.ServeHTTP(w, r)
		})
	}},
	"a replay has other bytes": {"not the answer", alter(altered{body: func(text []byte) []byte { text[len(text)-1]++; return text }})},
	"a replay has a header less": {"not the answer", alter(altered{header: func(h http.Header) {
		h["X-Many"] = h["X-Many"][:1]
	}})},
	"a replay does not say so":      {"says that it is replayed", alter(altered{header: func(h http.Header) { h.Del("Idempotent-Replayed") }})},
	"a replay has another's cookie": {"cookie", alter(altered{header: func(h http.Header) { h.Set("Set-Cookie", "session=1") }})},
	"a request is never answered":   {"not been answered", once(func(p *planted) { <-p.ends })},
	"an answer is lost": {"no execution", func(_ *website, covered http.Handler, _ *planted) http.Handler {
		var n atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) != 100 { // breaking off will not do: net/http sends the request again
				covered.ServeHTTP(w, r)
			}
		})
	}},
	"a goroutine is left behind": {"goroutines are left behind", once(func(p *planted) { go func() { <-p.ends }() })},
	"an answer is forgotten at once": {"began while an outcome was kept", func(s *website, covered http.Handler, _ *planted) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			covered.ServeHTTP(w, r)
			if a, ok := s.answers.Load(atoi(w.Header().Get("X-Execution"))); ok {
				_, _ = s.m.Cache().Forget(r.Context(), idemflight.Key{Scope: "account", ID: strconv.Itoa(a.(*answer).key)})
			}
		})
	}},
	"an unknown outcome is said to be retryable": {"Retry-After", func(s *website, _ http.Handler, _ *planted) http.Handler {
		m, _ := idemhttp.New(idemhttp.Options{Cache: s.m.Cache(), Scope: scope, Problem: func(w http.ResponseWriter, _ *http.Request, p idemhttp.Problem) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(map[string]any{"type": p.Type, "status": p.Status, "retryable": true})
		}})
		return m.Handler(http.HandlerFunc(s.handle))
	}},
}

// TestSoakFindsPlantedFaultsOverHTTP drives middlewares that are wrong in one way each.
func TestSoakFindsPlantedFaultsOverHTTP(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for name, fault := range webFaults {
		t.Run(name, func(t *testing.T) {
			for n := range attempts {
				settledGoroutines(goroutines+1, patiently)
				p := &planted{ends: make(chan struct{})}
				m := smallWeb
				m.Seed, m.Round = uint64(n), n
				out := web(m, 500*time.Millisecond, func(s *website, covered http.Handler) http.Handler { return fault.webFault(s, covered, p) })
				close(p.ends)
				if found(t, n, out, fault.says) {
					return
				}
			}
			require.Fail(t, "the soak has not found the fault")
		})
	}
}
