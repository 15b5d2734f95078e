// Package gqlgenpay is idemflight with gqlgen: the core, Cache.Do, in the resolver of each mutation that must happen once.
//
// The middleware of idemhttp around the endpoint is the wrong place. A document may have several mutations, of which
// one fails and another does not, and errors come with status 200: to keep that answer is to replay an error that
// might pass, and not to keep it is to run again what has succeeded. In the resolver each mutation has a key, an
// argument, and an outcome of its own, and retries may put them together differently.
//
//   - The account is in the context: authentication is net/http middleware around the server.
//   - fn may run on after its request: it takes arguments, and never calls graphql.AddError or graphql.GetFieldContext,
//     which belong to the request. The resolver may.
//   - The cache keeps a value and not a pointer: so each request has a copy, which field resolvers may change.
//   - Errors get a code and "retryable" among their extensions, in the error presenter, since there is no status to
//     tell by. ErrOutcomeUnknown is tested for first: it wraps fn's error.
//   - A panic of fn reaches gqlgen's RecoverFunc, once it has been judged. Leave omit_panic_handler off.
//   - The fingerprint is that of the arguments. The fields that a retry selects may differ: they are resolved anew.
package gqlgenpay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

//go:generate go run github.com/99designs/gqlgen@v0.17.98 generate

// New returns a GraphQL server of payments, charged at bank. Their keys are in store; nil: in memory.
func New(bank *idemtest.Bank, store idemflight.Store) (http.Handler, error) {
	payments, err := idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		Store: store,
		Codec: idemflight.Codec[idemflight.Key, idemtest.Receipt]{Sentinels: refusals},
	})
	if err != nil {
		return nil, err
	}
	server := handler.New(NewExecutableSchema(Config{Resolvers: resolver{bank, payments}}))
	server.AddTransport(transport.POST{})
	server.SetErrorPresenter(presentError)
	return authenticate(server), nil
}

// accountKey is where the context has the account.
type accountKey struct{}

func authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if password != "secret" { // stands for your own check
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accountKey{}, name)))
	})
}

func accountOf(ctx context.Context) string {
	name, _ := ctx.Value(accountKey{}).(string)
	return name
}

type resolver struct {
	bank     *idemtest.Bank // stands for your bank's client
	payments *idemflight.Cache[idemflight.Key, idemtest.Receipt]
}

func (r resolver) Mutation() MutationResolver { return r }
func (r resolver) Query() QueryResolver       { return r }

func (r resolver) Account(ctx context.Context) (string, error) { return accountOf(ctx), nil }

var (
	errBadKey       = fmt.Errorf("the key must have 1 to %d bytes", maxKey)
	errNoSuchAmount = errors.New("no such amount")
)

// refusals are the errors that presentError tells apart. From a store an error comes back as text, and as these.
var refusals = map[string]error{"no such amount": errNoSuchAmount, "declined": idemtest.ErrDeclined}

const (
	maxKey  = 255              // bytes, as in idemhttp: the cache keeps them
	maxWait = 30 * time.Second // of a duplicate for the payment that is under way, likewise
)

// Pay is the mutation pay.
func (r resolver) Pay(ctx context.Context, key string, amount int) (*idemtest.Receipt, error) {
	if key == "" || len(key) > maxKey {
		return nil, errBadKey
	}
	id := idemflight.Key{Scope: accountOf(ctx), ID: key}
	payload := idemflight.FingerprintOf([]byte("pay"), strconv.AppendInt(nil, int64(amount), 10))

	receipt, err := r.payments.Do(ctx, id, func(ctx context.Context) (idemtest.Receipt, error) {
		return r.charge(ctx, id, amount)
	}, idemflight.WithFingerprint(payload), idemflight.WithMaxWait(maxWait))
	return &receipt, err
}

// charge is what happens once.
func (r resolver) charge(ctx context.Context, id idemflight.Key, amount int) (idemtest.Receipt, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	if amount <= 0 {
		return idemtest.Receipt{}, idemflight.Final(errNoSuchAmount) // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return idemtest.Receipt{}, err
	}
	receipt, err := r.bank.Charge(ctx, id.String(), amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		err = idemflight.Final(err) // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
	}
	return receipt, err // any other error: charged or not, held
}

// presentError tells the client what an error means, and whether to send the mutation again, with the same key.
func presentError(ctx context.Context, err error) *gqlerror.Error {
	e := graphql.DefaultErrorPresenter(ctx, err)
	var code string
	switch {
	case errors.Is(err, idemflight.ErrOutcomeUnknown): // first: it wraps what fn returned
		code = "OUTCOME_UNKNOWN"      // retryable, too, where the cache has a Reconcile
		e.Message = "outcome unknown" // and not what the bank said
	case errors.Is(err, idemflight.ErrKeyReused):
		code = "KEY_REUSED"
	case errors.Is(err, errBadKey):
		code = "BAD_KEY"
	case errors.Is(err, idemtest.ErrDeclined):
		code = "DECLINED"
	case errors.Is(err, errNoSuchAmount):
		code = "NO_SUCH_AMOUNT"
	case errors.Is(err, idemflight.ErrInFlight), errors.Is(err, idemflight.ErrCallerLeft), errors.Is(err, idemflight.ErrFull),
		errors.Is(err, idemflight.ErrClosed), errors.Is(err, idemflight.ErrStore), errors.Is(err, idemtest.ErrRefused):
		code = "TRY_AGAIN"
	default:
		return e // a query that does not parse, say
	}
	e.Extensions = map[string]any{"code": code, "retryable": code == "TRY_AGAIN"}
	return e
}
