package idemtest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// TestHandlerInABubble: a handler behind idemhttp needs no network, and so no real time; its answers survive a restart.
func TestHandlerInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		open := func() (*idemhttp.Middleware, http.Handler) {
			keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
			require.NoError(t, err)
			return keys, keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				err := idemflight.BeginEffect(r.Context())
				if err == nil {
					_, err = bank.Charge(r.Context(), r.Header.Get("Idempotency-Key"), 900)
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusGatewayTimeout)
				}
			}))
		}
		post := func(h http.Handler) func(context.Context, int) (int, error) {
			return func(ctx context.Context, _ int) (int, error) {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/payments", nil)
				r.Header.Set("Idempotency-Key", "rent")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w.Code, nil
			}
		}
		bank.Script("rent", idemtest.Slow(time.Second))
		old, handler := open()
		idemtest.RequireSame(t, idemtest.Storm(t, 100, post(handler)))
		next, handler := open()
		idemtest.Restart(t, old.Cache(), next.Cache(), idemtest.Planned)
		rs := idemtest.Storm(t, 100, post(handler))
		idemtest.RequireSame(t, rs)
		require.Equal(t, http.StatusOK, rs[0].Value)
		bank.RequireOnce(t, "rent")
	})
}
