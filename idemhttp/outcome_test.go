package idemhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

func TestClassifyStatus(t *testing.T) {
	for status := 100; status <= 999; status++ {
		want := idemflight.Hold
		switch {
		case slices.Contains(released, status):
			want = idemflight.Release
		case status >= 200 && status < 500 && !slices.Contains(unclear, status):
			want = idemflight.Retain
		}
		require.Equal(t, want, idemhttp.ClassifyStatus(&idemhttp.Response{Status: status}),
			"status %d", status)
	}
}

var (
	// released are the statuses that another request with the same payload may well get over.
	released = []int{307, 308, 401, 403, 404, 405, 406, 407, 409, 412, 415, 417, 421, 423, 424, 425, 426, 428, 429, 431, 501, 505}
	// unclear are statuses that a handler may answer after its effect, too.
	unclear = []int{408, 499, 500, 502, 503, 504, 506, 599}
)

// flightOf has an executing request and a duplicate that waits for it: what each of them gets, and
// what a later retry gets. end is what the handler does at last.
func flightOf(t *testing.T, opts idemhttp.Options, end handler) (executing, waiting, later answer, ran int) {
	var n counter
	release := make(chan struct{})
	b := inMemory(newMiddleware(t, opts).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		n.add()
		<-release
		end(w, r)
	})))
	defer b.stop()
	first := b.async(t.Context(), "k", "")
	synctest.Wait()
	second := b.async(t.Context(), "k", "")
	synctest.Wait()
	close(release)
	executing, waiting = <-first, <-second
	later, err := b.post(t.Context(), "k", "")
	if err != nil {
		later.Err = err.Error()
	}
	return executing, waiting, later, n.count()
}

func status(code int) handler {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); io.WriteString(w, "said") }
}

func afterBegin(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) { must(idemflight.BeginEffect(r.Context())); h(w, r) }
}

func afterNoEffect(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) { idemflight.NoEffect(r.Context()); h(w, r) }
}

func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestStoredAnswers(t *testing.T) {
	for _, code := range []int{200, 201, 299, 301, 303, 400, 402, 410, 411, 422} {
		inBubble(t, fmt.Sprint(code), func(t *testing.T) {
			executing, waiting, later, ran := flightOf(t, idemhttp.Options{}, afterBegin(status(code)))
			require.Equal(t, code, executing.Status)
			for _, a := range []answer{waiting, later} {
				require.Equal(t, code, a.Status)
				require.Equal(t, "said", a.Body)
				require.True(t, a.replayed())
			}
			require.Equal(t, 1, ran, "executions")
		})
	}
}

// Not stored: duplicates waiting at that moment share the answer, a later retry runs again.
func TestAnswersNotStored(t *testing.T) {
	for _, code := range released {
		inBubble(t, fmt.Sprint(code), func(t *testing.T) {
			executing, waiting, later, ran := flightOf(t, idemhttp.Options{}, status(code))
			require.Equal(t, code, executing.Status)
			require.False(t, executing.replayed())
			require.Equal(t, code, waiting.Status)
			require.Equal(t, "said", waiting.Body)
			require.True(t, waiting.replayed(), "joined ones are marked too")
			require.False(t, later.replayed())
			require.Equal(t, 2, ran, "the retry runs again")
		})
	}
}

// What a server error says of the effect depends on what the handler has said, and on nothing else.
func TestAServerErrorIsHeldUnlessTheHandlerSaidThatNothingHasBegun(t *testing.T) {
	for _, code := range unclear {
		inBubble(t, fmt.Sprint(code), func(t *testing.T) {
			executing, waiting, later, ran := flightOf(t, idemhttp.Options{}, status(code))
			require.Equal(t, code, executing.Status, "the executing client gets its answer")
			requireProblem(t, waiting, 409, "outcome-unknown", false)
			requireProblem(t, later, 409, "outcome-unknown", false)
			require.Equal(t, 1, ran, "executions of a held key")
		})
		inBubble(t, fmt.Sprint(code, " after NoEffect"), func(t *testing.T) {
			_, waiting, later, ran := flightOf(t, idemhttp.Options{}, afterNoEffect(status(code)))
			require.Equal(t, code, waiting.Status, "a released answer is shared")
			require.Equal(t, code, later.Status)
			require.Equal(t, 2, ran, "the retry runs again")
		})
		inBubble(t, fmt.Sprint(code, ", effects announced"), func(t *testing.T) {
			opts := idemhttp.DefaultCacheOptions()
			opts.EffectsAnnounced = true
			_, _, _, ran := flightOf(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}, status(code))
			require.Equal(t, 2, ran, "none has begun: the retry runs again")
			_, _, later, ran := flightOf(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}, afterBegin(status(code)))
			requireProblem(t, later, 409, "outcome-unknown", false)
			require.Equal(t, 1, ran, "one has begun: held")
		})
	}
}

func TestAnswerNotStoredAndTooLargeToShare(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		executing, waiting, later, ran := flightOf(t, idemhttp.Options{MaxResponseBytes: 3}, status(501))
		require.Equal(t, "said", executing.Body, "delivered whole")
		requireProblem(t, waiting, 409, "answer-unrecorded", true)
		require.Equal(t, "said", later.Body)
		require.Equal(t, 2, ran)
	})
}

// While an effect has begun, an answer that would not be stored holds the key.
func TestEffectBegunHoldsTheKey(t *testing.T) {
	for _, code := range []int{404, 429, 500, 503} {
		inBubble(t, fmt.Sprint(code), func(t *testing.T) {
			executing, waiting, later, ran := flightOf(t, idemhttp.Options{}, afterBegin(status(code)))
			require.Equal(t, code, executing.Status, "the executing client its answer")
			require.Equal(t, "said", executing.Body)
			for _, a := range []answer{waiting, later} {
				p := requireProblem(t, a, 409, "outcome-unknown", false)
				require.Contains(t, strings.ToLower(p.Title+p.Detail), "outcome unknown")
			}
			require.Equal(t, 1, ran)
		})
		inBubble(t, fmt.Sprint(code, " taken back"), func(t *testing.T) {
			_, waiting, _, ran := flightOf(t, idemhttp.Options{}, afterBegin(afterNoEffect(status(code))))
			require.Equal(t, code, waiting.Status)
			require.Equal(t, 2, ran, "nothing took place: the retry runs")
		})
	}
}

// Once: a held key whose cause was ErrReentrant was taken for a middleware mounted twice, and its
// handler ran again, unguarded; other causes told the client to take a new key.
func TestAnUnknownOutcomeStaysUnknownWhateverCausedIt(t *testing.T) {
	for _, cause := range answersOfACache {
		t.Run(cause.Error(), func(t *testing.T) {
			var runs counter
			h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
				runs.add()
				_ = idemflight.BeginEffect(r.Context())
				panic(fmt.Errorf("inner: %w", cause))
			}))
			require.Panics(t, func() { call(h, post("k", "x")) }, "the executing request")
			for range 2 {
				requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", false)
			}
			require.Equal(t, 1, runs.count(), "executions of a held key")
		})
	}
}

// The cache's Classify knows errors, and is asked about panics and Goexit alone: an answer has one
// judge.
func TestTheCachesClassifyIsNotAskedAboutAnswers(t *testing.T) {
	asked := 0
	cache := func(d idemflight.Disposition) *idemflight.Cache[idemflight.Key, *idemhttp.Response] {
		opts := idemhttp.DefaultCacheOptions()
		opts.Classify = func(error) idemflight.Disposition { asked++; return d }
		return idemflight.MustNew(opts)
	}
	for code, want := range map[int]int{200: 1, 404: 2, 500: 1} {
		for _, d := range []idemflight.Disposition{idemflight.Release, idemflight.Retain, idemflight.Hold} {
			inBubble(t, fmt.Sprint(code, " ", d), func(t *testing.T) {
				_, _, _, ran := flightOf(t, idemhttp.Options{Cache: cache(d)}, status(code))
				require.Equal(t, want, ran, "as ClassifyStatus says")
				require.Zero(t, asked)
			})
		}
	}
	inBubble(t, "panic", func(t *testing.T) {
		_, waiting, _, ran := flightOf(t, idemhttp.Options{Cache: cache(idemflight.Release)}, func(http.ResponseWriter, *http.Request) { panic(errBoom) })
		requireProblem(t, waiting, 500, "failed", true)
		require.Equal(t, 2, ran, "released, as the cache's Classify says")
		require.Equal(t, 2, asked)
	})
}

func TestOptionsClassify(t *testing.T) {
	for name, c := range map[string]struct {
		classify func(*idemhttp.Response) idemflight.Disposition
		end      handler
		held     bool
		ran      int
	}{
		"hold":                 {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Hold }, status(200), true, 1},
		"NoEffect beats hold":  {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Hold }, afterNoEffect(status(200)), false, 2},
		"NoEffect beats panic": {func(*idemhttp.Response) idemflight.Disposition { panic("classify") }, afterNoEffect(status(200)), false, 2},
		"retain, NoEffect":     {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Retain }, afterNoEffect(status(500)), false, 1},
		"none of the three":    {func(*idemhttp.Response) idemflight.Disposition { return 7 }, status(200), true, 1},
		"panic":                {func(*idemhttp.Response) idemflight.Disposition { panic("classify") }, status(200), true, 1},
		"retain":               {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Retain }, afterBegin(status(500)), false, 1},
		"release":              {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Release }, status(200), false, 2},
		"release after effect": {func(*idemhttp.Response) idemflight.Disposition { return idemflight.Release }, afterBegin(status(200)), true, 1},
		"grpc": {func(r *idemhttp.Response) idemflight.Disposition {
			if r.Trailer.Get("Grpc-Status") != "0" {
				return idemflight.Release
			}
			return idemhttp.ClassifyStatus(r)
		}, func(w http.ResponseWriter, r *http.Request) {
			status(200)(w, r)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "14")
		}, false, 2},
	} {
		inBubble(t, name, func(t *testing.T) {
			executing, waiting, later, ran := flightOf(t, idemhttp.Options{Classify: c.classify}, c.end)
			require.Equal(t, "said", executing.Body, "the executing client its answer")
			require.Equal(t, c.ran, ran)
			if c.held {
				requireProblem(t, waiting, 409, "outcome-unknown", false)
				requireProblem(t, later, 409, "outcome-unknown", false)
				return
			}
			require.Equal(t, "said", waiting.Body)
			require.Equal(t, "said", later.Body)
		})
	}
}

func TestPanicOfTheHandler(t *testing.T) {
	half := func(v any) handler {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			io.WriteString(w, "half")
			w.Header().Set("Idempotent-Replayed", "true")
			panic(v)
		}
	}
	inBubble(t, "held", func(t *testing.T) {
		executing, waiting, later, ran := flightOf(t, idemhttp.Options{}, half("boom"))
		require.NotEmpty(t, executing.Err, "the connection is closed: %+v", executing)
		requireProblem(t, waiting, 409, "outcome-unknown", false)
		requireProblem(t, later, 409, "outcome-unknown", false)
		require.Equal(t, 1, ran)
	})
	inBubble(t, "released", func(t *testing.T) {
		_, waiting, later, ran := flightOf(t, idemhttp.Options{}, afterNoEffect(half("boom")))
		requireProblem(t, waiting, 500, "failed", true)
		require.NotEmpty(t, later.Err)
		require.Equal(t, 2, ran, "the retry runs")
	})
	// The server's recovery sees the handler's own value.
	inner := &idemflight.PanicError{Value: "of another Do"}
	for _, v := range []any{"boom", errBoom, http.ErrAbortHandler, inner, 7} {
		h := newMiddleware(t, idemhttp.Options{}).Handler(half(v))
		w := httptest.NewRecorder()
		require.PanicsWithValue(t, v, func() { h.ServeHTTP(w, post("k", "")) })
		require.Empty(t, w.Body.String(), "nothing of the half answer has gone out")
	}
	// Recovery middleware outside can still answer.
	h := newMiddleware(t, idemhttp.Options{}).Handler(half("boom"))
	a := call(handler(func(w http.ResponseWriter, r *http.Request) {
		defer func() { recover(); http.Error(w, "sorry", 500) }()
		h.ServeHTTP(w, r)
	}), post("k", ""))
	require.Equal(t, 500, a.Status)
	require.Equal(t, "sorry\n", a.Body)
	require.False(t, a.replayed(), "what the handler has left behind is no replay")
	// nil panics as runtime.PanicNilError.
	h = newMiddleware(t, idemhttp.Options{}).Handler(half(nil))
	defer func() { require.IsType(t, (*runtime.PanicNilError)(nil), recover()) }()
	h.ServeHTTP(httptest.NewRecorder(), post("k", ""))
}

// Whoever recovers outside sees the handler's own value, and where it was raised.
func TestARecoveryOutsideSeesWhereTheHandlerPanicked(t *testing.T) {
	for _, v := range []any{"boom", errBoom, http.ErrAbortHandler} {
		var value any
		var stack string
		inner := newMiddleware(t, idemhttp.Options{}).Handler(panicking{v})
		s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				value, stack = recover(), string(debug.Stack())
				http.Error(w, "sorry", 500)
			}()
			inner.ServeHTTP(w, r)
		}))
		require.Equal(t, 500, s.post(t, "k", "").Status)
		require.Equal(t, v, value)
		require.Contains(t, stack, "panicking.ServeHTTP", "the handler's frames")
	}
}

// panicking is a handler with a frame of its own name.
type panicking struct{ value any }

func (p panicking) ServeHTTP(http.ResponseWriter, *http.Request) { panic(p.value) }

func TestGoexitOfTheHandler(t *testing.T) {
	inBubble(t, "held", func(t *testing.T) {
		_, waiting, later, ran := flightOf(t, idemhttp.Options{}, func(http.ResponseWriter, *http.Request) { runtime.Goexit() })
		requireProblem(t, waiting, 409, "outcome-unknown", false)
		requireProblem(t, later, 409, "outcome-unknown", false)
		require.Equal(t, 1, ran)
	})
	inBubble(t, "released", func(t *testing.T) {
		_, waiting, _, ran := flightOf(t, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
			idemflight.NoEffect(r.Context())
			runtime.Goexit()
		})
		requireProblem(t, waiting, 500, "failed", true)
		require.Equal(t, 2, ran)
	})
	for _, flushes := range []bool{false, true} {
		eachProtocol(t, func(t *testing.T, protocol string) {
			m := newMiddleware(t, idemhttp.Options{})
			s := serve(t, protocol, m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "half")
				if flushes {
					w.(http.Flusher).Flush()
				}
				runtime.Goexit()
			})))
			res, err := s.client.Do(s.request(t, t.Context(), "k", nil))
			if err == nil { // a 5xx, or broken off
				a := read(res)
				require.True(t, a.Status >= 500 || a.Err != "", "%+v", a)
			}
			e, _ := lookup(m.Cache(), sharedKey("k"))
			require.Equal(t, idemflight.Held, e.State)
		})
	}
}

func TestReconcileAnswers(t *testing.T) {
	resp := &idemhttp.Response{Status: 201, Header: http.Header{"X-A": {"1"}, "Content-Length": {"99"}}, Body: []byte("found")}
	var value *idemhttp.Response
	var found error
	var problem idemhttp.Problem
	opts := idemhttp.DefaultCacheOptions()
	opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
		return value, found
	}
	var ran counter
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts), Problem: func(w http.ResponseWriter, _ *http.Request, p idemhttp.Problem) {
		problem = p
		w.WriteHeader(p.Status)
	}})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		ran.add()
		must(idemflight.BeginEffect(r.Context()))
		w.WriteHeader(500)
	})))
	for i, c := range []struct {
		value     *idemhttp.Response
		err       error
		status    int
		kind      string
		retryable bool
		is        error
	}{
		{value: resp, status: 201},
		{value: resp, err: idemflight.Final(errBoom), status: 201},
		{status: 500, kind: "failed"},
		{err: idemflight.Final(errBoom), status: 500, kind: "failed", is: errBoom},
		{value: &idemhttp.Response{Status: 101}, status: 500, kind: "failed"},
		{value: &idemhttp.Response{Status: 12345}, status: 500, kind: "failed"},
		{value: &idemhttp.Response{Body: []byte("found")}, status: 200},
		{value: &idemhttp.Response{BodyOmitted: true}, status: 409, kind: "answer-unavailable", is: idemflight.ErrValueShed},
		{err: errBoom, status: 409, kind: "outcome-unknown", retryable: true, is: errBoom},
	} {
		key := fmt.Sprint("k", i)
		value, found, problem = c.value, c.err, idemhttp.Problem{}
		require.Equal(t, 500, s.post(t, key, "").Status, "executed")
		for range 2 { // found out, and replayed
			a := s.post(t, key, "")
			require.Equal(t, c.status, a.Status, "case %d", i)
			if c.kind == "" {
				require.True(t, a.replayed(), "case %d: not executed for this request", i)
				require.Equal(t, "found", a.Body)
				require.Equal(t, "5", a.Header.Get("Content-Length"), "recomputed")
				continue
			}
			require.True(t, strings.HasSuffix(problem.Type, "#problem-"+c.kind),
				"case %d: %s", i, problem.Type)
			require.Equal(t, c.retryable, problem.Retryable, "case %d", i)
			require.Error(t, problem.Err)
			if c.is != nil {
				require.ErrorIs(t, problem.Err, c.is)
			}
		}
	}
	before := ran.count()
	found = idemflight.Retryable(errBoom)
	s.post(t, "again", "")
	require.False(t, s.post(t, "again", "").replayed(), "no effect: it runs, for this request")
	require.Equal(t, before+2, ran.count())
}

// Once: an answer of another call of a cache, inside the error of a Reconcile that learned nothing,
// was taken for the answer of this one.
func TestAReconcileThatLearnsNothingNeverRunsTheHandler(t *testing.T) {
	for _, cause := range answersOfACache {
		t.Run(cause.Error(), func(t *testing.T) {
			opts := idemhttp.DefaultCacheOptions()
			opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
				return nil, fmt.Errorf("inner: %w", cause)
			}
			var runs counter
			h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
				runs.add()
				_ = idemflight.BeginEffect(r.Context())
				w.WriteHeader(http.StatusBadGateway)
			}))
			require.Equal(t, http.StatusBadGateway, call(h, post("k", "x")).Status)
			for range 2 {
				requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", true)
			}
			require.Equal(t, 1, runs.count(), "executions of a held key")
		})
	}
}

// Once the cache can find out, the same request sent again makes it ask: so the problem is retryable, to
// those who waited for the flight that left the key held, too.
func TestAnUnknownOutcomeIsRetryableIfTheCacheCanFindOut(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		opts := idemhttp.DefaultCacheOptions()
		opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
			return nil, errBoom
		}
		_, waiting, later, _ := flightOf(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}, afterBegin(status(502)))
		for _, a := range []answer{waiting, later} {
			p := requireProblem(t, a, 409, "outcome-unknown", true)
			require.Contains(t, strings.ToLower(p.Title+p.Detail), "outcome unknown")
		}
	})
}

// A duplicate that meets a held key waits no longer for Reconcile than for a flight, and what that finds
// is there for the next.
func TestWaitingForReconcileObeysMaxWait(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		opts := idemhttp.DefaultCacheOptions()
		opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
			time.Sleep(20 * time.Second)
			return &idemhttp.Response{Status: 201, Body: []byte("found")}, nil
		}
		h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(status(504))
		b := serverInMemory(&http.Server{Handler: h, ErrorLog: quiet, WriteTimeout: 10 * time.Second})
		defer b.stop()
		_, err := b.post(t.Context(), "k", "")
		require.NoError(t, err)
		before := time.Now()
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err)
		requireProblem(t, a, 409, "in-flight", true)
		require.Equal(t, 9*time.Second, time.Since(before), "before the server's WriteTimeout")
		time.Sleep(time.Minute)
		a, err = b.post(t.Context(), "k", "")
		require.NoError(t, err)
		require.Equal(t, "found", a.Body)
		require.True(t, a.replayed())
	})
}

// A bank that is down is not asked by every retry.
func TestReconcileIsNotAskedByEveryRetry(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		var asked counter
		opts := idemhttp.DefaultCacheOptions()
		opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
			asked.add()
			return nil, errBoom
		}
		h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(status(504))
		call(h, post("k", ""))
		for range 3 {
			for range 50 {
				requireProblem(t, call(h, post("k", "")), 409, "outcome-unknown", true)
			}
			time.Sleep(1100 * time.Millisecond)
		}
		require.Equal(t, 3, asked.count(), "about once a second")
	})
}

// http.TimeoutHandler inside answers 503 while the work goes on, perhaps past its effect.
func TestTimeoutHandlerInside(t *testing.T) {
	late := func(charged *counter, refused *counter) handler {
		return func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Second)
			if refused != nil && idemflight.BeginEffect(r.Context()) != nil {
				refused.add()
				return
			}
			charged.add()
		}
	}
	inBubble(t, "nothing said", func(t *testing.T) {
		var charged counter
		h := newMiddleware(t, idemhttp.Options{}).Handler(http.TimeoutHandler(late(&charged, nil), time.Second, "too slow"))
		require.Equal(t, 503, call(h, post("k", "")).Status)
		time.Sleep(time.Minute)
		requireProblem(t, call(h, post("k", "")), 409, "outcome-unknown", false)
		require.Equal(t, 1, charged.count())
	})
	inBubble(t, "NoEffect at the top, BeginEffect before the charge", func(t *testing.T) {
		var charged, refused counter
		h := newMiddleware(t, idemhttp.Options{}).Handler(http.TimeoutHandler(afterNoEffect(late(&charged, &refused)), time.Second, "too slow"))
		for range 2 {
			require.Equal(t, 503, call(h, post("k", "")).Status, "runs again, since nothing had begun")
			time.Sleep(time.Minute)
		}
		require.Zero(t, charged.count(), "what comes too late may not begin")
		require.Equal(t, 2, refused.count())
	})
}

// A gateway's 502 comes after the effect too.
func TestAGatewayWhoseUpstreamIsLate(t *testing.T) {
	var charged counter
	release := make(chan struct{})
	upstream := serve(t, "HTTP/1.1", handler(func(http.ResponseWriter, *http.Request) { charged.add(); <-release }))
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	s := serve(t, "HTTP/1.1", newMiddleware(t, idemhttp.Options{}).Handler(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: quiet,
		Transport: &http.Transport{ResponseHeaderTimeout: 20 * time.Millisecond, DisableKeepAlives: true},
	}))
	defer close(release)
	require.Equal(t, 502, s.post(t, "k", "5 EUR").Status)
	require.Eventually(t, func() bool { return charged.count() == 1 }, time.Minute, time.Millisecond, "the upstream charges, if late")
	requireProblem(t, s.post(t, "k", "5 EUR"), 409, "outcome-unknown", false)
	require.Equal(t, 1, charged.count(), "the upstream is not asked again")
}

// A mux inside redirects to its canonical path: whoever follows is answered, and so is whoever begins
// again.
func TestARedirectInsideIsNoAnswerToKeep(t *testing.T) {
	for _, path := range []string{"/payments", "//payments/"} {
		var ran counter
		mux := http.NewServeMux()
		mux.HandleFunc("POST /payments/", func(w http.ResponseWriter, r *http.Request) { ran.add(); copyAll(w, r.Body) })
		s := serve(t, "HTTP/1.1", newMiddleware(t, idemhttp.Options{Require: true}).Handler(mux))
		s.client.CheckRedirect = nil
		s.client.Transport = &idemhttp.Transport{Base: s.client.Transport}
		for i := range 2 {
			r, err := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), "k"), "POST", s.URL+path, strings.NewReader("5 EUR"))
			require.NoError(t, err)
			a := s.send(t, r)
			require.Equal(t, "5 EUR", a.Body, path)
			require.Equal(t, i > 0, a.replayed(), path)
		}
		require.Equal(t, 1, ran.count(), path)
	}
}

// What a request is refused for may lie in a header that is no part of the payload.
func TestARefusalThatAHeaderGetsOver(t *testing.T) {
	for _, code := range []int{401, 406, 412, 415, 417, 424, 426, 428, 431} {
		h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-Match") != "right" {
				w.WriteHeader(code)
			}
		}))
		require.Equal(t, code, call(h, post("k", "same")).Status)
		r := post("k", "same")
		r.Header.Set("If-Match", "right")
		a := call(h, r)
		require.Equal(t, 200, a.Status, "%d, corrected", code)
		require.False(t, a.replayed())
	}
}

// GraphQL and others answer 200 with errors in the body, and forms are corrected under the same key: a
// Classify that knows lets them run again, unless an effect has begun.
func TestAClassifyThatReadsTheBody(t *testing.T) {
	for _, begun := range []bool{false, true} {
		var ran counter
		h := newMiddleware(t, idemhttp.Options{Classify: func(r *idemhttp.Response) idemflight.Disposition {
			if bytes.Contains(r.Body, []byte("errors")) {
				return idemflight.Release
			}
			return idemhttp.ClassifyStatus(r)
		}}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			if begun {
				must(idemflight.BeginEffect(r.Context()))
			}
			if ran.add() == 1 {
				io.WriteString(w, `{"errors":[]}`)
			} else {
				io.WriteString(w, `{"data":{}}`)
			}
		}))
		require.Equal(t, `{"errors":[]}`, call(h, post("k", "")).Body)
		if begun {
			requireProblem(t, call(h, post("k", "")), 409, "outcome-unknown", false)
			continue
		}
		a := call(h, post("k", ""))
		require.Equal(t, `{"data":{}}`, a.Body)
		require.False(t, a.replayed())
		require.True(t, call(h, post("k", "")).replayed())
	}
}

// A cache's Observer, its Reconcile and whoever looks a held key up learn the status of an answer that is not stored.
func TestAnAnswerThatIsNotStoredTellsItsStatus(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	call(m.Handler(status(502)), post("k", ""))
	e, _, err := m.Cache().Lookup(t.Context(), sharedKey("k"))
	require.NoError(t, err)
	require.Equal(t, idemflight.Held, e.State)
	var answer interface{ StatusCode() int }
	require.ErrorAs(t, e.Err, &answer)
	require.Equal(t, 502, answer.StatusCode())
}

func TestBodyOmitted(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		executing, waiting, later, ran := flightOf(t, idemhttp.Options{MaxResponseBytes: 3}, status(200))
		require.Equal(t, "said", executing.Body, "delivered whole")
		for _, a := range []answer{waiting, later} {
			p := requireProblem(t, a, 409, "answer-unavailable", false)
			require.Contains(t, strings.ToLower(p.Title+p.Detail), "answer no longer available")
		}
		require.Equal(t, 1, ran)
	})
	inBubble(t, "until the TTL", func(t *testing.T) {
		var ran counter
		m := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 3})
		h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) { ran.add(); status(200)(w, r) }))
		call(h, post("k", ""))
		time.Sleep(day - 1)
		requireProblem(t, call(h, post("k", "")), 409, "answer-unavailable", false)
		e, _ := lookup(m.Cache(), sharedKey("k"))
		require.True(t, e.Value.BodyOmitted)
		require.Empty(t, e.Value.Body)
		time.Sleep(time.Nanosecond)
		require.Equal(t, 200, call(h, post("k", "")).Status)
		require.Equal(t, 2, ran.count())
	})
}

func TestShed(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	opts.MaxWeight = 2000 // one answer, and not two
	var ran counter
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)})
	h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { ran.add(); w.Write(jsonBody(600)) }))
	call(h, post("a", ""))
	call(h, post("b", ""))
	p := requireProblem(t, call(h, post("a", "")), 409, "answer-unavailable", false)
	require.Contains(t, strings.ToLower(p.Title+p.Detail), "answer no longer available")
	require.True(t, call(h, post("b", "")).replayed())
	require.Equal(t, 2, ran.count(), "never run again")
}

func TestFullAndClosed(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	opts.MaxEntries = 1
	var ran counter
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)})
	h := m.Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	call(h, post("a", ""))
	requireProblem(t, call(h, post("b", "")), 503, "full", true)
	require.NoError(t, m.Cache().Close(t.Context()))
	requireProblem(t, call(h, post("b", "")), 503, "closed", true)
	require.True(t, call(h, post("a", "")).replayed(), "replays go on")
	require.Equal(t, 1, ran.count(), "the handler does not run")
}

// The middleware mounted twice over one cache: the inner one lets the request pass, body and all.
func TestMountedTwice(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		var ran counter
		m := newMiddleware(t, idemhttp.Options{})
		twin := newMiddleware(t, idemhttp.Options{Cache: m.Cache()})
		s := serve(t, protocol, m.Handler(twin.Handler(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			ran.add()
			require.NoError(t, idemflight.BeginEffect(r.Context()))
			io.Copy(w, r.Body)
		})))))
		for i := range 2 {
			a := s.post(t, "k", "body")
			require.Equal(t, "body", a.Body)
			require.Equal(t, i == 1, a.replayed())
		}
		require.Equal(t, 1, ran.count())
	})
}

// Once: mounted twice, the inner one hid the form and the pattern from the server and from
// middleware outside.
func TestMountedTwiceNoFormFilesAreLeft(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	m := newMiddleware(t, idemhttp.Options{})
	inner := http.NewServeMux()
	inner.HandleFunc("POST /payments", func(_ http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1), "the form")
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, files, 1, "files of the form while it is read")
	})
	var pattern string
	s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
		m.Handler(m.Handler(inner)).ServeHTTP(w, r)
		pattern = r.Pattern
	}))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "name")
	require.NoError(t, err)
	_, _ = file.Write(bytes.Repeat([]byte("x"), 100_000))
	require.NoError(t, form.Close())
	r := s.request(t, t.Context(), "k", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	require.Equal(t, http.StatusOK, s.send(t, r).Status)
	s.Close() // it has cleaned up by then
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files, "files of the form that are left")
	require.Equal(t, "POST /payments", pattern, "what middleware outside sees")
}

// Exactly one call of the cache for each request that gets there, on the goroutine of ServeHTTP.
func TestOneCallOfTheCache(t *testing.T) {
	var events []idemflight.EventKind
	opts := idemhttp.DefaultCacheOptions()
	opts.Observer = func(_ context.Context, e idemflight.Event[idemflight.Key]) { events = append(events, e.Kind) }
	h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 64<<10)
		require.Contains(t, string(buf[:runtime.Stack(buf, false)]), "TestOneCallOfTheCache(",
			"ServeHTTP's own goroutine")
	}))
	for _, key := range []string{"a", "a", "b", "bad key"} {
		call(h, post(key, ""))
	}
	require.Equal(t, []idemflight.EventKind{idemflight.EventExecuted, idemflight.EventReplayed, idemflight.EventExecuted}, events)
}

// Once: no test noticed the planted fault that a refused request was not one call of the cache,
// as an answered one is.
func TestARefusedRequestIsOneCallOfTheCache(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	var events []idemflight.EventKind
	opts.Observer = func(_ context.Context, e idemflight.Event[idemflight.Key]) { events = append(events, e.Kind) }
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)})
	h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		must(idemflight.BeginEffect(r.Context()))
		w.WriteHeader(http.StatusBadGateway)
	}))
	call(h, post("k", "x"))
	events = nil
	requireProblem(t, call(h, post("k", "y")), http.StatusUnprocessableEntity, "key-reused", false)
	requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", false)
	require.NoError(t, m.Cache().Close(t.Context()))
	requireProblem(t, call(h, post("new", "x")), http.StatusServiceUnavailable, "closed", true)
	require.Equal(t, []idemflight.EventKind{idemflight.EventRejected, idemflight.EventRejected, idemflight.EventRejected}, events)
}

// http.Server.Shutdown waits for the executing request, even when its client has gone.
func TestShutdownWaits(t *testing.T) {
	release := make(chan struct{})
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) { <-clientGone(r); <-release }))))
	c := dial(t, s)
	c.write(keyed("k", ""))
	until(t, "it executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	c.hangUp()
	done, begun := make(chan error, 1), make(chan struct{})
	s.Config.RegisterOnShutdown(func() { close(begun) })
	go func() { done <- s.Config.Shutdown(context.Background()) }()
	<-begun
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a request was executing", err)
	default:
	}
	close(release)
	require.NoError(t, <-done)
	require.Equal(t, 1, m.Cache().Len(), "and its answer is kept")
}

// A planned restart: the answers survive an encoding.
func TestRestart(t *testing.T) {
	page := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, html)
		w.Header().Set("X-Sum", "1")
	})
	old := newMiddleware(t, idemhttp.Options{})
	call(old.Handler(page), post("k", ""))
	require.NoError(t, old.Cache().Close(t.Context()))
	fresh := newMiddleware(t, idemhttp.Options{})
	for key, e := range old.Cache().All() {
		encoded, err := json.Marshal(e.Value)
		require.NoError(t, err)
		e.Value = nil
		require.NoError(t, json.Unmarshal(encoded, &e.Value))
		require.NoError(t, fresh.Cache().Restore(context.Background(), key, e))
	}
	s := serve(t, "HTTP/1.1", fresh.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") })))
	a := s.post(t, "k", "")
	require.Equal(t, 200, a.Status)
	require.True(t, a.replayed())
	require.Equal(t, html, a.Body)
	require.NotContains(t, a.Header, "Content-Type", "the first client saw none")
	require.Equal(t, "1", a.Trailer.Get("X-Sum"))
}

func TestDefaultCacheOptions(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	require.Equal(t, 24*time.Hour, opts.TTL)
	require.Equal(t, 1_048_576, opts.MaxEntries)
	require.Equal(t, int64(256<<20), opts.MaxWeight)
	require.Equal(t, time.Hour, opts.MinRetention)
	require.Equal(t, 100, opts.MaxWaiters)
	key := idemflight.Key{Scope: "12", ID: "345"}
	require.Equal(t, int64(5), opts.Weigh(key, nil), "the key")
	lightest := opts.Weigh(key, &idemhttp.Response{})
	require.Greater(t, lightest, int64(5), "a Response takes room, too")
	for name, heavier := range map[string]*idemhttp.Response{
		"body": {Body: make([]byte, 1000)}, "header": {Header: http.Header{"X-A": {strings.Repeat("x", 1000)}}},
		"trailer": {Trailer: http.Header{"X-A": {strings.Repeat("x", 1000)}}}, "name": {Header: http.Header{strings.Repeat("X", 1000): nil}},
	} {
		require.GreaterOrEqual(t, opts.Weigh(key, heavier), lightest+1000, name)
	}
	m := newMiddleware(t, idemhttp.Options{})
	call(m.Handler(status(200)), post("k", ""))
	require.Greater(t, m.Cache().Stats().Weight, int64(len("said")), "New's cache has them")
}

// The model of the heap that Weigh has, in bytes. That the heap is like this is measured: TestFloorAnAnswerWeighsWhatItTakes.
func TestWhatAnAnswerWeighs(t *testing.T) {
	key := idemflight.Key{Scope: "12", ID: "345"}
	names := func(n int) http.Header {
		h := http.Header{}
		for i := range n {
			h[string(rune('a'+i))] = []string{"v"}
		}
		return h
	}
	const answer = 5 + 64 // the key, and what any has
	for _, c := range []struct {
		header http.Header
		weighs int64
	}{
		{nil, 0}, {http.Header{}, 48}, {http.Header{"Name": {strings.Repeat("v", 100)}}, 48 + 352 + 104 + 13 + 16},
		{names(8), 48 + 352 + 16 + 2 + 8*16},            // the last without a table
		{names(9), 48 + 16*44 + 2*16 + 18 + 2 + 9*16},   // a table of 16
		{names(14), 48 + 16*44 + 2*16 + 28 + 3 + 14*16}, // its 7/8
		{names(15), 48 + 32*44 + 2*16 + 30 + 3 + 15*16}, // too many for it
	} {
		weigh := idemhttp.DefaultCacheOptions().Weigh
		require.Equal(t, answer+c.weighs, weigh(key, &idemhttp.Response{Header: c.header}), "%d names", len(c.header))
		require.Equal(t, answer+10+c.weighs, weigh(key, &idemhttp.Response{Body: make([]byte, 3, 10), Trailer: c.header}), "%d names in a trailer", len(c.header))
	}
}

// Files of a parsed form are the server's to remove, so it must find them on its own request.
func TestFormIsHandedBack(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(0))
	}))
	r := post("k", "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\ncontent\r\n--b--\r\n")
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	call(h, r)
	require.NotNil(t, r.MultipartForm)
	require.NoError(t, r.MultipartForm.RemoveAll())
}

// Each problem's cause, and what is set before the hook is called.
func TestProblemHook(t *testing.T) {
	var got []idemhttp.Problem
	opts := idemhttp.DefaultCacheOptions()
	opts.MaxEntries = 2
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts), MaxWait: idemflight.NoWait, Problem: func(w http.ResponseWriter, r *http.Request, p idemhttp.Problem) {
		require.NotNil(t, r)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Equal(t, p.Retryable, w.Header().Get("Retry-After") != "")
		require.Empty(t, w.Header().Get("Content-Type"), "the hook's own business")
		got = append(got, p)
		w.WriteHeader(599)
	}})
	var h http.Handler
	h = m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		if key, _ := idemhttp.KeyFrom(r.Context()); key.ID == "held" {
			panic(errBoom)
		}
		// Another request with the same key arrives meanwhile.
		require.Equal(t, 599, call(h, post("k", "").WithContext(context.Background())).Status)
	}))
	func() {
		defer func() { _ = recover() }()
		h.ServeHTTP(httptest.NewRecorder(), post("held", ""))
	}()
	call(h, post("held", ""))
	call(h, post("k", ""))
	call(h, post("k", "other"))
	call(h, post("full", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	call(h, post("left", "").WithContext(ctx))
	require.NoError(t, m.Cache().Close(t.Context()))
	call(h, post("closed", ""))
	want := []error{idemflight.ErrOutcomeUnknown, idemflight.ErrInFlight, idemflight.ErrKeyReused, idemflight.ErrFull, idemflight.ErrCallerLeft, idemflight.ErrClosed}
	require.Len(t, got, len(want))
	for i, p := range got {
		require.ErrorIs(t, p.Err, want[i], "problem %d", i)
	}
	var panicked *idemflight.PanicError
	require.True(t, errors.As(got[0].Err, &panicked), "what left it unknown")
	require.Equal(t, errBoom, panicked.Value)
}

// The 500 to a duplicate that waited for a flight that panicked tells the server why.
func TestProblemOfAReleasedPanic(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		var got idemhttp.Problem
		flightOf(t, idemhttp.Options{Problem: func(w http.ResponseWriter, _ *http.Request, p idemhttp.Problem) { got = p; w.WriteHeader(p.Status) }},
			afterNoEffect(func(http.ResponseWriter, *http.Request) { panic(errBoom) }))
		var panicked *idemflight.PanicError
		require.ErrorAs(t, got.Err, &panicked)
		require.ErrorIs(t, got.Err, errBoom)
		require.True(t, got.Retryable)
	})
}

// A hook may change a problem, and leave document and headers to WriteProblem.
func TestAHookThatChangesAProblem(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{Require: true, Problem: func(w http.ResponseWriter, r *http.Request, p idemhttp.Problem) {
		p.Status, p.Retryable = 503, !p.Retryable
		w.Header().Set("Link", "</docs/keys>; rel=help")
		idemhttp.WriteProblem(w, r, p)
	}}).Handler(status(200))
	a := call(h, post("", ""))
	requireProblem(t, a, 503, "missing-key", true)
	require.NotEmpty(t, a.Header.Get("Link"))
	w := httptest.NewRecorder()
	w.Header().Set("Retry-After", "7")
	idemhttp.WriteProblem(w, post("", ""), idemhttp.Problem{Status: 400, Retryable: true})
	require.Equal(t, "7", w.Header().Get("Retry-After"), "a value that is there stays")
	w = httptest.NewRecorder()
	w.Header().Set("Retry-After", "7")
	idemhttp.WriteProblem(w, post("", ""), idemhttp.Problem{Status: 400})
	require.Empty(t, w.Header().Get("Retry-After"), "exactly if retryable")
}

// Each problem is counted under its kind, and nothing else is.
func TestStatsCountEachProblem(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	opts.MaxEntries = 2
	var scopeErr error
	m := newMiddleware(t, idemhttp.Options{
		Cache: idemflight.MustNew(opts), Require: true, MaxRequestBytes: 3, MaxResponseBytes: 3, MaxWait: idemflight.NoWait,
		Scope: func(*http.Request) (string, error) { return "me", scopeErr },
	})
	var h http.Handler
	h = m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		if key, _ := idemhttp.KeyFrom(r.Context()); key.ID == "held" {
			call(h, post("held", "").WithContext(context.Background()))
			w.WriteHeader(500)
		} else {
			status(200)(w, r)
		}
	}))
	require.Zero(t, m.Stats())
	call(h, post("", ""))
	call(h, post("bad key", ""))
	call(h, post("k", "large"))
	r := post("k", "")
	r.Body = io.NopCloser(failingReader{errBoom})
	call(h, r)
	scopeErr = errBoom
	call(h, post("k", ""))
	scopeErr = nil
	call(h, post("k", ""))
	call(h, post("k", ""))
	call(h, post("k", "x"))
	call(h, post("held", ""))
	call(h, post("held", ""))
	call(h, post("full", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	call(h, post("left", "").WithContext(ctx))
	require.NoError(t, m.Cache().Close(t.Context()))
	call(h, post("closed", ""))
	require.Equal(t, idemhttp.Stats{
		MissingKey: 1, MalformedKey: 1, Scope: 1, UnreadableBody: 1, BodyTooLarge: 1, KeyReused: 1, InFlight: 1,
		OutcomeUnknown: 1, AnswerUnavailable: 1, Full: 1, Closed: 1, Left: 1,
	}, m.Stats())
	s := m.Cache().Stats()
	require.Equal(t, s.KeyReused+s.NotWaited+s.OutcomeUnknown+s.Full+s.Closed+s.CallerLeft, uint64(6), "the cache counts its own")
}

// Headers that middleware outside has set for an answer do not spoil a problem.
func TestProblemAmongOuterHeaders(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(status(200))
	a := call(handler(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Retry-After", "Content-Length", "Cache-Control", "idempotent-replayed", "X-Outer"} {
			w.Header()[name] = []string{"7"}
		}
		h.ServeHTTP(w, r)
	}), post("bad key", ""))
	requireProblem(t, a, 400, "malformed-key", false)
	require.NotContains(t, canon(a.Header), "Idempotent-Replayed")
	require.NotContains(t, a.Header, "Content-Length")
	require.Equal(t, "7", a.Header.Get("X-Outer"))
}

// Once: a Retry-After that middleware outside had set in a case of its own was left on a final
// problem.
func TestNoRetryAfterIsLeftOnAProblemThatIsFinal(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	w := httptest.NewRecorder()
	w.Header()["retry-after"] = []string{"9"}
	w.Header()["cache-control"] = []string{"public"}
	h.ServeHTTP(w, post(strings.Repeat("x", 256), "x"))
	for name, values := range w.Header() {
		if strings.EqualFold(name, "Retry-After") {
			t.Errorf("%s: %q on a problem that is not retryable", name, values)
		}
		if strings.EqualFold(name, "Cache-Control") {
			require.Equal(t, []string{"no-store"}, values)
		}
	}
}
