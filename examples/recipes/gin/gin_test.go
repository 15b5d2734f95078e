package ginpay_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	ginpay "github.com/idemflight/idemflight/examples/recipes/gin"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	gin.DefaultErrorWriter = io.Discard // Recovery logs a stack
	m.Run()
}

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server, err := ginpay.New(bank)
		require.NoError(t, err)
		return paytest.HTTP(server)
	})
}

// post sends a request with a key through keys to handlers of an engine of their own.
func post(t *testing.T, handlers ...gin.HandlerFunc) func() paytest.Answer {
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	require.NoError(t, err)
	engine := gin.New()
	engine.POST("/payments", handlers...)
	return func() paytest.Answer {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.Header.Set("Idempotency-Key", "rent")
		return paytest.Send(keys.Handler(engine), r)
	}
}

// TestRecoveryKeepsAnEmptyAnswer: why there is no Recovery. If this fails, gin has become better.
func TestRecoveryKeepsAnEmptyAnswer(t *testing.T) {
	send := post(t, gin.Recovery(), func(c *gin.Context) {
		_ = idemflight.BeginEffect(c.Request.Context())
		panic(syscall.ECONNRESET) // of the bank's connection
	})
	require.Equal(t, paytest.Answer{Status: http.StatusOK}, send())
	require.Equal(t, paytest.Answer{Status: http.StatusOK}, send(), "replayed")
}

// TestGinsContextIsNotTheRequests: an effect that is announced on c is not guarded.
func TestGinsContextIsNotTheRequests(t *testing.T) {
	var onGins, onTheRequests error
	post(t, func(c *gin.Context) {
		onGins = idemflight.BeginEffect(c)
		onTheRequests = idemflight.BeginEffect(c.Request.Context())
	})()
	require.ErrorIs(t, onGins, idemflight.ErrNotExecuting)
	require.NoError(t, onTheRequests)
}
