package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/storetest"
)

// process is a middleware over m, as another process would have it.
func process(t *testing.T, m idemflight.Store, h handler) *bubble {
	o := idemhttp.DefaultCacheOptions()
	o.Store = m
	return inMemory(newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(o)}).Handler(h))
}

func TestStore_APostIsReplayedByAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := process(t, m, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Trailer", "Checksum")
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte("bytes \x00\xff"))
			w.Header().Set("Checksum", "1")
		})
		defer a.stop()
		b := process(t, m, func(http.ResponseWriter, *http.Request) { t.Error("the handler runs") })
		defer b.stop()
		first, err := a.post(t.Context(), "k", "body")
		require.NoError(t, err)
		require.Equal(t, http.StatusCreated, first.Status)
		for range 2 { // from the store, and from memory
			again, err := b.post(t.Context(), "k", "body")
			require.NoError(t, err)
			require.True(t, again.replayed())
			require.Equal(t, first.Status, again.Status)
			require.Equal(t, first.Body, again.Body)
			require.Equal(t, first.Trailer, again.Trailer)
			require.Equal(t, first.Header["Content-Type"], again.Header["Content-Type"])
		}
		reused, err := b.post(t.Context(), "k", "another body")
		require.NoError(t, err)
		require.Equal(t, http.StatusUnprocessableEntity, reused.Status)
	})
}

func TestStore_ARequestInFlightElsewhereIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		runs, release := make(chan struct{}), make(chan struct{})
		a := process(t, m, func(w http.ResponseWriter, _ *http.Request) {
			close(runs)
			<-release
			_, _ = io.WriteString(w, "done")
		})
		defer a.stop()
		b := process(t, m, func(http.ResponseWriter, *http.Request) { t.Error("the handler runs") })
		defer b.stop()
		executing := a.async(t.Context(), "k", "body")
		<-runs
		waiting := b.async(t.Context(), "k", "body")
		synctest.Wait()
		require.Empty(t, waiting)
		close(release)
		require.Equal(t, "done", (<-executing).Body)
		got := <-waiting
		require.Equal(t, "done", got.Body)
		require.True(t, got.replayed())
	})
}

func TestStore_ThatCannotBeAskedIsAProblemOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		ran := 0
		b := process(t, m, func(w http.ResponseWriter, r *http.Request) {
			ran++
			if err := idemflight.BeginEffect(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
		defer b.stop()
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				return errors.New("connection refused")
			}
			return nil
		})
		got, err := b.post(t.Context(), "k", "body")
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, got.Status)
		p := got.problem(t)
		require.Contains(t, p.Type, "#problem-store")
		require.Equal(t, new(true), p.Retryable)
		require.NotEmpty(t, got.Header.Get("Retry-After"))
		require.Zero(t, ran)

		m.Hook(nil)
		m.Fail("Settle", storetest.Before, 1<<30)
		got, err = b.post(t.Context(), "k2", "body")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.Status, "the executing request has its answer")
		again, err := b.post(t.Context(), "k2", "body")
		require.NoError(t, err)
		require.Equal(t, http.StatusConflict, again.Status)
		require.Contains(t, again.problem(t).Type, "#problem-outcome-unknown")
		require.Equal(t, 1, ran)
	})
}

// What a handler refuses is no success that it should have announced; what it does is.
func TestEffectsAnnounced_ARefusalIsNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := idemhttp.DefaultCacheOptions()
		o.EffectsAnnounced = true
		cache := idemflight.MustNew(o)
		var status int
		s := inMemory(newMiddleware(t, idemhttp.Options{Cache: cache}).Handler(http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })))
		defer s.stop()
		for _, status = range []int{http.StatusBadRequest, http.StatusUnprocessableEntity} {
			_, err := s.post(t.Context(), fmt.Sprint("refused-", status), "body")
			require.NoError(t, err)
			require.Zero(t, cache.Stats().Unannounced)
		}
		status = http.StatusCreated
		_, err := s.post(t.Context(), "done", "body")
		require.NoError(t, err)
		require.EqualValues(t, 1, cache.Stats().Unannounced)
	})
}
