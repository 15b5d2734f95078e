// Package fiberpay is idemflight with fiber (v3): the core, Cache.Do, around the work, and not the middleware of
// idemhttp around the route.
//
// That middleware cannot be right here. Fiber is not net/http, and its adaptor.HTTPMiddleware runs the rest of the
// chain only when the middleware has returned: nothing is in flight while the handler works, and an empty 200 is
// what is kept. So the handler calls Do, and an error handler makes statuses of its errors.
//
//   - What fiber hands out is memory that the next request reuses. fn may run on after its request, as soon as c.Context()
//     has a deadline (the timeout middleware sets one). So fn gets copies: the key by strings.Clone, the body decoded
//     before. Or let fiber copy everything, with fiber.Config{Immutable: true}.
//   - Do gets c.Context(), and not c, which is reused as well. It does not end when the client hangs up, so that a duplicate
//     needs a WithMaxWait.
//   - fn never writes to c. It returns a value, and each request makes its own answer of that.
//   - ErrOutcomeUnknown is tested for first, since it wraps fn's error. The first client gets it, too.
//   - What fn returns as Final is the answer of every retry; the marker is not seen outside.
//   - Path and body are the fingerprint. Whatever else decides what is done belongs into it.
//   - Prefork is several processes: then the cache needs a Store.
//   - Fiber's own middleware idempotency runs a handler again that has returned an error, whatever it has done, and has
//     one key space for all accounts.
package fiberpay

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/basicauth"
	recoverer "github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

// maxWait is how long a duplicate waits for the payment that is under way: as long as idemhttp lets it wait.
const maxWait = 30 * time.Second

type server struct {
	bank     *idemtest.Bank // stands for your bank's client
	payments *idemflight.Cache[idemflight.Key, idemtest.Receipt]
}

var errNoSuchAmount = errors.New("no such amount")

// refusals are the errors that answerError tells apart. From a store an error comes back as text, and as these.
var refusals = map[string]error{"no such amount": errNoSuchAmount, "declined": idemtest.ErrDeclined}

// New returns a server of payments, charged at bank. Their keys are in store; nil: in memory.
func New(bank *idemtest.Bank, store idemflight.Store) (*fiber.App, error) {
	payments, err := idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		Store: store,
		Codec: idemflight.Codec[idemflight.Key, idemtest.Receipt]{Sentinels: refusals},
	})
	if err != nil {
		return nil, err
	}
	app := fiber.New(fiber.Config{ErrorHandler: answerError})
	app.Use(recoverer.New(), basicauth.New(basicauth.Config{Authorizer: authenticate}))
	app.Post("/payments", server{bank, payments}.pay)
	return app, nil
}

func authenticate(_, password string, _ fiber.Ctx) bool {
	return password == "secret" // stands for your own check
}

func (s server) pay(c fiber.Ctx) error {
	var order struct {
		Amount int `json:"amount"`
	}
	if err := c.Bind().JSON(&order); err != nil {
		return fiber.ErrBadRequest
	}
	key := idemflight.Key{
		Scope: strings.Clone(basicauth.UsernameFromContext(c)), // whose key it is
		ID:    strings.Clone(c.Get("Idempotency-Key")),
	}
	payload := idemflight.FingerprintOf([]byte(c.Path()), c.Body())

	result, err := s.payments.DoResult(c.Context(), key, func(ctx context.Context) (idemtest.Receipt, error) {
		return s.charge(ctx, key, order.Amount) // nothing of c
	}, idemflight.WithFingerprint(payload), idemflight.WithMaxWait(maxWait))
	if result.Source != idemflight.Executed && result.Source != idemflight.NoOutcome {
		c.Set("Idempotent-Replayed", "true")
	}
	if err != nil {
		return err
	}
	return c.Status(fiber.StatusCreated).JSON(result.Value)
}

// charge is what happens once.
func (s server) charge(ctx context.Context, key idemflight.Key, amount int) (idemtest.Receipt, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	if amount <= 0 {
		return idemtest.Receipt{}, idemflight.Final(errNoSuchAmount) // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return idemtest.Receipt{}, err
	}
	receipt, err := s.bank.Charge(ctx, key.String(), amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		err = idemflight.Final(err) // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
	}
	return receipt, err // any other error: charged or not, held
}

// answerError tells a client that has no receipt whether to send the payment again.
func answerError(c fiber.Ctx, err error) error {
	status := fiber.StatusInternalServerError
	var own *fiber.Error
	switch {
	case errors.Is(err, idemflight.ErrOutcomeUnknown): // first: it wraps what fn returned
		status = fiber.StatusConflict
	case errors.Is(err, idemflight.ErrKeyReused):
		status = fiber.StatusUnprocessableEntity
	case errors.Is(err, idemflight.ErrInvalidKey): // none was sent
		status = fiber.StatusBadRequest
	case errors.Is(err, idemflight.ErrInFlight), errors.Is(err, idemflight.ErrCallerLeft), errors.Is(err, idemflight.ErrFull),
		errors.Is(err, idemflight.ErrClosed), errors.Is(err, idemflight.ErrStore), errors.Is(err, idemtest.ErrRefused):
		status = fiber.StatusServiceUnavailable
	case errors.Is(err, errNoSuchAmount):
		status = fiber.StatusUnprocessableEntity
	case errors.Is(err, idemtest.ErrDeclined):
		status = fiber.StatusPaymentRequired
	case errors.As(err, &own):
		status = own.Code
	}
	if status == fiber.StatusServiceUnavailable {
		c.Set(fiber.HeaderRetryAfter, "1") // the same key again
	}
	return c.SendStatus(status)
}
