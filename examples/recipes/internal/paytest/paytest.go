// Package paytest sends payments to a payment server, sees that some of them go wrong, and asks the bank what it has
// booked. All recipes for HTTP pass the same tests.
package paytest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/idemtest"
)

// Accounts that may pay, each with the password "secret".
const (
	Ann = "ann"
	Bob = "bob"
)

// Payment is a request. One without Account is not authenticated, and one without Key has no idempotency key.
type Payment struct {
	Account, Key string
	Amount       int
}

// Answer is what the client gets. Servers that do not answer by status are given the one that means the same.
type Answer struct {
	Status int
	Body   string
}

// Pay sends a payment through the whole server.
type Pay func(context.Context, Payment) Answer

// HTTP pays with POST /payments, a JSON body, basic authentication and the header Idempotency-Key.
func HTTP(server http.Handler) Pay {
	return func(ctx context.Context, p Payment) Answer {
		body := strings.NewReader(fmt.Sprintf(`{"amount": %d}`, p.Amount))
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/payments", body)
		r.Header.Set("Content-Type", "application/json")
		if p.Account != "" {
			r.SetBasicAuth(p.Account, "secret")
		}
		if p.Key != "" {
			r.Header.Set("Idempotency-Key", p.Key)
		}
		return Send(server, r)
	}
}

// Send returns the server's answer to r. A panic that the server lets through is a 500: net/http would recover it and
// close the connection.
func Send(server http.Handler, r *http.Request) (a Answer) {
	defer func() {
		if p := recover(); p != nil {
			a = Answer{http.StatusInternalServerError, fmt.Sprint(p)}
		}
	}()
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return Answer{w.Code, w.Body.String()}
}

// Run tests what a recipe promises. open returns a new server that charges at bank; it is called in a bubble of
// testing/synctest.
func Run(t *testing.T, open func(t *testing.T, bank *idemtest.Bank) Pay) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *idemtest.Bank, Pay)
	}{
		{"duplicates share one payment", duplicates},
		{"a duplicate does not wait forever", longWait},
		{"another payload is refused", anotherPayload},
		{"a payment whose answer is lost is held", lostAnswer},
		{"one that panicked is held", panicked},
		{"one that panicked with a reset connection is held", reset},
		{"what was certainly not charged runs again", refused},
		{"a declined card stays declined", declined},
		{"an amount of nothing is refused", noAmount},
		{"a key belongs to its account", twoAccounts},
		{"without a key nothing is charged", noKey},
		{"without an account nothing is charged", noAccount},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bank idemtest.Bank
				test.run(t, &bank, open(t, &bank))
			})
		})
	}
}

// rent is a payment, and rentKey the bank's key for it.
var rent = Payment{Account: Ann, Key: "rent", Amount: 900}

const rentKey = "ann/rent"

func duplicates(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.Slow(time.Second))
	answers := idemtest.Storm(t, 50, func(ctx context.Context, _ int) (Answer, error) {
		return pay(ctx, rent), nil
	})
	idemtest.RequireSame(t, answers)
	require.Equal(t, http.StatusCreated, answers[0].Value.Status)

	time.Sleep(time.Hour)
	require.Equal(t, answers[0].Value, pay(t.Context(), rent), "a later duplicate gets the first answer")
	bank.RequireOnce(t, rentKey)
}

func longWait(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.Slow(2*time.Minute))
	answers := idemtest.Storm(t, 2, func(ctx context.Context, _ int) (int, error) {
		return pay(ctx, rent).Status, nil
	})
	one, other := answers[0].Value, answers[1].Value
	require.Equal(t, http.StatusCreated, min(one, other), "the first waits for the bank")
	comeAgain := []int{http.StatusConflict, http.StatusServiceUnavailable}
	require.Contains(t, comeAgain, max(one, other), "the other is told to come again")
	require.Equal(t, http.StatusCreated, pay(t.Context(), rent).Status)
	bank.RequireOnce(t, rentKey)
}

func anotherPayload(t *testing.T, bank *idemtest.Bank, pay Pay) {
	require.Equal(t, http.StatusCreated, pay(t.Context(), rent).Status)
	more := rent
	more.Amount++
	require.Equal(t, http.StatusUnprocessableEntity, pay(t.Context(), more).Status)
	bank.RequireOnce(t, rentKey)
	require.Equal(t, rent.Amount, bank.Books()[rentKey][0].Amount)
}

func lostAnswer(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.LoseAnswer)
	requireHeld(t, pay)
	bank.RequireOnce(t, rentKey)
}

func panicked(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.PanicAfter)
	requireHeld(t, pay)
	bank.RequireOnce(t, rentKey)
}

// reset is of the bank's connection. Recovery middleware that takes it for the client's may leave an empty 200.
func reset(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.OK.During(func(context.Context) { panic(syscall.ECONNRESET) }))
	requireHeld(t, pay)
	require.Empty(t, bank.Books())
}

// requireHeld pays, and pays again when the bank would answer: nobody knows what it did the first time.
func requireHeld(t *testing.T, pay Pay) {
	t.Helper()
	require.GreaterOrEqual(t, pay(t.Context(), rent).Status, 400, "the first client is not told that it has paid")
	time.Sleep(time.Hour)
	require.Equal(t, http.StatusConflict, pay(t.Context(), rent).Status, "the outcome is unknown")
}

func refused(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.Refuse)
	require.Equal(t, http.StatusServiceUnavailable, pay(t.Context(), rent).Status)
	require.Equal(t, http.StatusCreated, pay(t.Context(), rent).Status, "the next attempt runs")
	bank.RequireOnce(t, rentKey)
}

func declined(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bank.Script(rentKey, idemtest.Decline)
	first := pay(t.Context(), rent)
	require.Equal(t, http.StatusPaymentRequired, first.Status)
	require.Equal(t, first, pay(t.Context(), rent), "the bank would take it now, and is not asked")
	require.Empty(t, bank.Books())
}

func noAmount(t *testing.T, bank *idemtest.Bank, pay Pay) {
	nothing := rent
	nothing.Amount = 0
	first := pay(t.Context(), nothing)
	require.Equal(t, http.StatusUnprocessableEntity, first.Status)
	require.Equal(t, first, pay(t.Context(), nothing))
	require.Empty(t, bank.Books())
}

func twoAccounts(t *testing.T, bank *idemtest.Bank, pay Pay) {
	bobs := rent
	bobs.Account = Bob
	require.Equal(t, http.StatusCreated, pay(t.Context(), rent).Status)
	require.Equal(t, http.StatusCreated, pay(t.Context(), bobs).Status)
	bank.RequireOnce(t, rentKey, "bob/rent")
}

func noKey(t *testing.T, bank *idemtest.Bank, pay Pay) {
	keyless := rent
	keyless.Key = ""
	require.Equal(t, http.StatusBadRequest, pay(t.Context(), keyless).Status)
	require.Empty(t, bank.Books())
}

func noAccount(t *testing.T, bank *idemtest.Bank, pay Pay) {
	nobodys := rent
	nobodys.Account = ""
	require.Equal(t, http.StatusUnauthorized, pay(t.Context(), nobodys).Status)
	require.Empty(t, bank.Books())
}
