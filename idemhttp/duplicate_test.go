package idemhttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

const reusedDetail = "Idempotency key already used with a different request payload"

func TestKeyReused(t *testing.T) {
	var problem idemhttp.Problem
	m := newMiddleware(t, idemhttp.Options{KeyReusedStatus: 409, Problem: func(_ http.ResponseWriter, _ *http.Request, p idemhttp.Problem) { problem = p }})
	call(m.Handler(handler(func(http.ResponseWriter, *http.Request) {})), post("k", "one"))
	call(m.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") })), post("k", "two"))
	require.Equal(t, 409, problem.Status, "KeyReusedStatus")
	require.ErrorIs(t, problem.Err, idemflight.ErrKeyReused)

	// After: whatever the record says.
	states := map[string]handler{
		"retained": func(http.ResponseWriter, *http.Request) {},
		"omitted":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "too large") },
		"held": func(w http.ResponseWriter, r *http.Request) {
			must(idemflight.BeginEffect(r.Context()))
			w.WriteHeader(500)
		},
	}
	for name, h := range states {
		h := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 3}).Handler(h)
		call(h, post("k", "one"))
		p := requireProblem(t, call(h, post("k", "two")), 422, "key-reused", false)
		require.Equal(t, reusedDetail, p.Detail, name)
	}
}

// In flight another payload is refused at once, before any wait.
func TestKeyReusedInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release })))
		defer b.stop()
		first := b.async(t.Context(), "k", "one")
		synctest.Wait()
		before := time.Now()
		a, err := b.post(t.Context(), "k", "two")
		require.NoError(t, err)
		requireProblem(t, a, 422, "key-reused", false)
		require.Zero(t, time.Since(before), "waited for %v", time.Since(before))
		close(release)
		require.Equal(t, 200, (<-first).Status)
	})
}

func TestDuplicateWaitsUpToMaxWait(t *testing.T) {
	for _, c := range []struct{ option, waits time.Duration }{
		{0, 30 * time.Second}, {time.Minute, time.Minute}, {idemflight.NoWait, 0}, {-time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			b := inMemory(newMiddleware(t, idemhttp.Options{MaxWait: c.option}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
				<-release
				io.WriteString(w, "done")
			})))
			defer b.stop()
			first := b.async(t.Context(), "k", "")
			synctest.Wait()
			before := time.Now()
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err)
			requireProblem(t, a, 409, "in-flight", true)
			require.Equal(t, c.waits, time.Since(before), "MaxWait %v", c.option)

			var patient <-chan answer
			if c.waits > 0 {
				patient = b.async(t.Context(), "k", "")
				time.Sleep(c.waits - 1)
			}
			close(release)
			require.False(t, (<-first).replayed(), "never on the executing one")
			if patient != nil {
				a := <-patient
				require.Equal(t, "done", a.Body, "the same answer")
				require.True(t, a.replayed(), "marked")
			}
		})
	}
}

// A wait ends while the server still lets the answer through, whatever MaxWait says: the time counts from
// when the middleware saw the request.
func TestAWaitEndsBeforeTheServersWriteTimeout(t *testing.T) {
	for _, c := range []struct{ timeout, maxWait, waits time.Duration }{
		{10 * time.Second, 0, 9 * time.Second}, {10 * time.Second, time.Minute, 9 * time.Second}, {time.Second, 0, 900 * time.Millisecond},
		{10 * time.Second, 2 * time.Second, 2 * time.Second}, {time.Hour, 0, 30 * time.Second}, {10 * time.Second, idemflight.NoWait, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			h := newMiddleware(t, idemhttp.Options{MaxWait: c.maxWait}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
			b := serverInMemory(&http.Server{Handler: h, ErrorLog: quiet, WriteTimeout: c.timeout})
			defer b.stop()
			first := b.async(t.Context(), "k", "")
			synctest.Wait()
			before := time.Now()
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err, "WriteTimeout %v, MaxWait %v", c.timeout, c.maxWait)
			requireProblem(t, a, 409, "in-flight", true)
			require.Equal(t, c.waits, time.Since(before), "WriteTimeout %v, MaxWait %v", c.timeout, c.maxWait)
			close(release)
			<-first
		})
	}
}

// A body that took its time leaves none to wait; an answer that is there is replayed all the same.
func TestABodyThatTookItsTimeLeavesNoneToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
		b := serverInMemory(&http.Server{Handler: h, ErrorLog: quiet, WriteTimeout: 10 * time.Second})
		defer b.stop()
		first := b.async(t.Context(), "k", "bo")
		synctest.Wait()
		c, err := b.pipes.dial(t.Context(), "", "")
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "POST /payments HTTP/1.1\r\nHost: memory\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\nb")
		require.NoError(t, err)
		time.Sleep(9500 * time.Millisecond)
		before := time.Now()
		_, err = io.WriteString(c, "o")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
		require.NoError(t, err, "the 409 arrives")
		requireProblem(t, read(res), 409, "in-flight", true)
		require.Zero(t, time.Since(before), "at once")
		close(release)
		<-first
	})
}

// A flood of duplicates of one key, each with its body in memory: a hundred may wait.
func TestAHundredDuplicatesMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
		for range 1 + 100 {
			go call(h, post("k", "x"))
		}
		synctest.Wait()
		before := time.Now()
		requireProblem(t, call(h, post("k", "x")), 409, "in-flight", true)
		require.Zero(t, time.Since(before), "at once")
		close(release)
	})
}

func TestMaxWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := idemhttp.DefaultCacheOptions()
		opts.MaxWaiters = 1
		release := make(chan struct{})
		b := inMemory(newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release })))
		defer b.stop()
		first := b.async(t.Context(), "k", "")
		synctest.Wait()
		second := b.async(t.Context(), "k", "")
		synctest.Wait()
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err)
		requireProblem(t, a, 409, "in-flight", true)
		close(release)
		require.Equal(t, 200, (<-first).Status)
		require.Equal(t, 200, (<-second).Status)
	})
}

// A deadline of middleware outside ends the wait, and somebody still reads the answer.
func TestDuplicateWhoseContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var problem error
		m := newMiddleware(t, idemhttp.Options{})
		h := m.Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
		outer := handler(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
		b := inMemory(outer)
		defer b.stop()
		first := b.async(t.Context(), "k", "")
		synctest.Wait()
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err, "%v", problem)
		requireProblem(t, a, 503, "left", true)
		time.Sleep(time.Hour)
		close(release)
		require.Equal(t, 200, (<-first).Status, "the deadline is not the executing request's")
	})
}

// Once: the cause for which a client's context had ended was taken for an answer of the cache.
func TestARequestThatEndedHasLeftWhateverItsCause(t *testing.T) {
	for _, cause := range slices.Concat(answersOfACache, []error{idemflight.ErrOutcomeUnknown}) {
		t.Run(cause.Error(), func(t *testing.T) {
			h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) {
				t.Error("a request that has ended must not execute")
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			requireProblem(t, call(h, post("k", "x").WithContext(ctx)), http.StatusServiceUnavailable, "left", true)
		})
	}
}

// A duplicate that hangs up while it waits leaves no waiter behind.
func TestDuplicateThatHangsUp(t *testing.T) {
	release := make(chan struct{})
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { <-release; io.WriteString(w, "done") })))
	first, second := dial(t, s), dial(t, s)
	first.write(keyed("k", ""))
	until(t, "the first executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	second.write(keyed("k", ""))
	until(t, "the second waits", waiters(m, "k", 1))
	second.hangUp()
	until(t, "it has left", waiters(m, "k", 0))
	require.Equal(t, uint64(1), m.Cache().Stats().CallerLeft)
	close(release)
	require.Equal(t, "done", first.read().Body)
}

// Once: a duplicate of a flight that was released after an error which wraps an answer of a cache
// was told that its outcome is unknown.
func TestADuplicateOfAReleasedFlightMayRetryWhateverTheErrorWraps(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	release := make(chan struct{})
	h := m.Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
		idemflight.NoEffect(r.Context())
		<-release
		panic(fmt.Errorf("inner: %w", idemflight.ErrOutcomeUnknown))
	}))
	led := make(chan struct{})
	go func() {
		defer close(led)
		defer func() { _ = recover() }()
		h.ServeHTTP(httptest.NewRecorder(), post("k", "x"))
	}()
	until(t, "the first is in flight", func() bool { return m.Cache().Stats().InFlight == 1 })
	joined := make(chan answer, 1)
	go func() { joined <- call(h, post("k", "x")) }()
	until(t, "the duplicate waits", waiters(m, "k", 1))
	close(release)
	requireProblem(t, <-joined, http.StatusInternalServerError, "failed", true)
	<-led
	require.Zero(t, m.Cache().Len(), "nothing is kept")
}

// The client of the executing request hangs up before the answer: the work goes on, the retry gets
// the answer.
func TestExecutingClientHangsUp(t *testing.T) {
	var ran counter
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		<-clientGone(r)
		require.NoError(t, r.Context().Err(), "the handler's context goes on")
		ran.add()
		n, err := io.WriteString(w, "done")
		require.Equal(t, 4, n)
		require.NoError(t, err)
	}))))
	c := dial(t, s)
	c.write(keyed("k", "body"))
	until(t, "it executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	c.hangUp()
	until(t, "it has ended", func() bool { return m.Cache().Stats().Executed == 1 })
	a := s.post(t, "k", "body")
	require.Equal(t, "done", a.Body)
	require.True(t, a.replayed())
	require.Equal(t, 1, ran.count())
}

// It hangs up when the answer is streaming already: Write and Flush report success, and recording
// goes on.
func TestClientGoneWhileStreaming(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		m := newMiddleware(t, idemhttp.Options{})
		chunk := strings.Repeat("c", 10_000)
		s := serve(t, protocol, watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "first,")
			w.(http.Flusher).Flush()
			<-clientGone(r)
			for range 20 { // far more than any buffer on the way
				n, err := io.WriteString(w, chunk)
				require.Equal(t, len(chunk), n)
				require.NoError(t, err)
				require.NoError(t, http.NewResponseController(w).Flush())
			}
			n, err := io.Copy(w, strings.NewReader(chunk))
			require.NoError(t, err)
			require.Equal(t, int64(len(chunk)), n)
		}))))
		ctx, cancel := context.WithCancel(t.Context())
		res, err := s.client.Do(s.request(t, ctx, "k", nil))
		require.NoError(t, err)
		_, err = io.ReadFull(res.Body, make([]byte, 6))
		require.NoError(t, err, "the first bytes come before the rest is written")
		cancel()
		res.Body.Close()
		until(t, "it has ended", func() bool { return m.Cache().Stats().Executed == 1 })
		a := s.post(t, "k", "")
		require.True(t, a.replayed())
		require.Equal(t, "first,"+strings.Repeat(chunk, 21), a.Body)
	})
}

// broken is a writer whose client has gone.
type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { return 0, errors.New("the client has gone") }
func (broken) FlushError() error         { return errors.New("the client has gone") }

// Once: no test noticed the planted fault that an answer was not recorded to its end once its
// client had gone. It is, however the handler writes it.
func TestAnAnswerThatNobodyReadsIsRecorded(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		require.NoError(t, http.NewResponseController(w).Flush(), "Flush reports success")
		n, err := w.Write([]byte("bytes,"))
		require.NoError(t, err, "Write reports success")
		require.Equal(t, 6, n)
		_, err = io.WriteString(w, "text,")
		require.NoError(t, err, "WriteString reports success")
		_, err = io.Copy(w, io.LimitReader(strings.NewReader("copied"), 6))
		require.NoError(t, err, "io.Copy reports success")
	}))
	h.ServeHTTP(broken{httptest.NewRecorder()}, post("k", ""))
	a := call(h, post("k", ""))
	require.True(t, a.replayed())
	require.Equal(t, "bytes,text,copied", a.Body)
}

// A client that reads slowly does not keep the others waiting: the outcome is there before the
// answer has gone out.
func TestSlowReaderKeepsNobodyWaiting(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 9 << 20})
	body := strings.Repeat("x", 8<<20) // more than a socket takes
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })))
	slow := dial(t, s)
	slow.write(keyed("k", ""))
	until(t, "the outcome is kept", func() bool { return m.Cache().Len() == 1 })
	require.Equal(t, body, s.post(t, "k", "").Body)
	require.Equal(t, body, slow.read().Body, "and it still gets all of it")
}

// One connection, several requests sent before any answer is read.
func TestPipelinedDuplicates(t *testing.T) {
	var ran counter
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, ran.add(), " "); io.Copy(w, r.Body) })))
	c := dial(t, s)
	c.write(keyed("a", "1") + keyed("b", "2") + keyed("a", "1") + keyed("a", "3") + keyed("b", "2"))
	require.Equal(t, "1 1", c.read().Body)
	require.Equal(t, "2 2", c.read().Body)
	a := c.read()
	require.Equal(t, "1 1", a.Body)
	require.True(t, a.replayed())
	requireProblem(t, c.read(), 422, "key-reused", false)
	require.Equal(t, "2 2", c.read().Body)
}

// A request that arrives in pieces is one request.
func TestClientThatPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
		defer b.stop()
		c, err := b.pipes.dial(t.Context(), "", "")
		require.NoError(t, err)
		defer c.Close()
		for _, part := range []string{"POST / HTTP/1.1\r\nHost: x\r\nIdempotency", "-Key: k\r\nContent-Length: 6\r\n\r\nab", "cd", "ef"} {
			time.Sleep(time.Hour)
			_, err := c.Write([]byte(part))
			require.NoError(t, err)
		}
		buf := make([]byte, 1000)
		n, err := c.Read(buf)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(buf[:n]), "abcdef"), "%q", buf[:n])
	})
}

// 1,000 duplicates at once: one execution, 1,000 identical answers, 999 of them marked.
func TestThousandConcurrentDuplicates(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		const n = 1000
		var ran counter
		opts := idemhttp.DefaultCacheOptions()
		opts.MaxWaiters = n
		m := newMiddleware(t, idemhttp.Options{MaxWait: time.Hour, Cache: idemflight.MustNew(opts)})
		body := string(jsonBody(1024))
		s := serve(t, protocol, m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			if _, covered := idemhttp.KeyFrom(r.Context()); !covered {
				return
			}
			ran.add()
			until(t, "all others wait", waiters(m, "k", n-1))
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-A", "1")
			w.WriteHeader(201)
			io.WriteString(w, body)
		})))
		s.post(t, "", "") // so that HTTP/2 has its connection
		answers := make([]answer, n)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = s.post(t, "k", "payload") })
		}
		all.Wait()
		require.Equal(t, 1, ran.count(), "executions")
		marked := 0
		for _, a := range answers {
			if a.replayed() {
				marked++
			}
			a.Header.Del("Idempotent-Replayed")
			require.Equal(t, answer{Status: 201, Body: body, Header: http.Header{
				"Content-Type": {"application/json"}, "X-A": {"1"}, "Content-Length": {"1024"},
			}}, a, "every answer")
		}
		require.Equal(t, n-1, marked, "all but one are marked")
		require.True(t, s.post(t, "k", "payload").replayed(), "and a later duplicate")
	})
}

func TestReplayedUntilTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran counter
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, ran.add()) })))
		defer b.stop()
		get := func() answer {
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err)
			return a
		}
		require.Equal(t, "1", get().Body)
		time.Sleep(day - 1)
		require.Equal(t, "1", get().Body, "24 hours from completion")
		time.Sleep(time.Nanosecond)
		a := get()
		require.Equal(t, "2", a.Body, "the instant itself counts as expired")
		require.False(t, a.replayed())
	})
}
