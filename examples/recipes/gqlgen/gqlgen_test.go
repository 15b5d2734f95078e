package gqlgenpay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	gqlgenpay "github.com/idemflight/idemflight/examples/recipes/gqlgen"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemtest"
)

func open(t *testing.T, bank *idemtest.Bank) http.Handler {
	server, err := gqlgenpay.New(bank, nil)
	require.NoError(t, err)
	return server
}

// send sends a document.
func send(ctx context.Context, server http.Handler, account, document string) paytest.Answer {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/query", strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/json")
	if account != "" {
		r.SetBasicAuth(account, "secret")
	}
	return paytest.Send(server, r)
}

// codes are those of presentError, as the statuses that say the same.
var codes = map[string]int{
	"OUTCOME_UNKNOWN": http.StatusConflict,
	"KEY_REUSED":      http.StatusUnprocessableEntity,
	"BAD_KEY":         http.StatusBadRequest,
	"DECLINED":        http.StatusPaymentRequired,
	"NO_SUCH_AMOUNT":  http.StatusUnprocessableEntity,
	"TRY_AGAIN":       http.StatusServiceUnavailable,
	"":                http.StatusInternalServerError,
}

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server := open(t, bank)
		return func(ctx context.Context, p paytest.Payment) paytest.Answer {
			a := send(ctx, server, p.Account, fmt.Sprintf(`mutation { pay(key: %q, amount: %d) { id amount } }`, p.Key, p.Amount))
			if a.Status != http.StatusOK {
				return a
			}
			var answer struct {
				Data   *struct{ Pay idemtest.Receipt }
				Errors []struct {
					Extensions struct{ Code string }
				}
			}
			if err := json.Unmarshal([]byte(a.Body), &answer); err != nil {
				panic(err)
			}
			a.Status = http.StatusCreated
			if len(answer.Errors) > 0 {
				a.Status = codes[answer.Errors[0].Extensions.Code]
			}
			return a
		}
	})
}

// TestEachMutationHasItsOwnOutcome: one of a document fails and is held, and the other is replayed.
func TestEachMutationHasItsOwnOutcome(t *testing.T) {
	var bank idemtest.Bank
	server := open(t, &bank)
	bank.Script("ann/rent", idemtest.LoseAnswer)
	const both = `mutation { food: pay(key: "food", amount: 30) { id } rent: pay(key: "rent", amount: 900) { id } }`

	first := send(t.Context(), server, paytest.Ann, both)
	require.Equal(t, http.StatusOK, first.Status)
	require.Contains(t, first.Body, "OUTCOME_UNKNOWN")

	alone := send(t.Context(), server, paytest.Ann, `mutation { pay(key: "food", amount: 30) { id amount } }`)
	require.JSONEq(t, `{"data": {"pay": {"id": "pay-1", "amount": 30}}}`, alone.Body, "another document, the same payment")

	again := send(t.Context(), server, paytest.Ann, both)
	require.Contains(t, again.Body, "OUTCOME_UNKNOWN")
	bank.RequireOnce(t, "ann/food", "ann/rent")
}

// TestALongKeyIsRefused: it would be kept.
func TestALongKeyIsRefused(t *testing.T) {
	var bank idemtest.Bank
	a := send(t.Context(), open(t, &bank), paytest.Ann, fmt.Sprintf(`mutation { pay(key: %q, amount: 900) { id } }`, strings.Repeat("k", 256)))
	require.Contains(t, a.Body, "BAD_KEY")
	require.Empty(t, bank.Books())
}
