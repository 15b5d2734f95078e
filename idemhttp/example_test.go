package idemhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// bank is where the effect takes place.
type bank struct{ charges int }

var errNotConnected = errors.New("bank: not connected")

func (b *bank) charge(_ context.Context, amount int) (receipt string, err error) {
	b.charges++
	return fmt.Sprintf("receipt %d over %d", b.charges, amount), nil
}

// account authenticates a request.
func account(r *http.Request) (string, error) {
	if user, _, ok := r.BasicAuth(); ok {
		return user, nil
	}
	return "", errors.New("no credentials")
}

// A payment server: NoEffect at the top of the handler, BeginEffect before the bank. What fails before
// the bank was called runs again; a failure after which nobody knows whether the card was charged
// never does.
func Example() {
	bank := &bank{}
	pay := func(w http.ResponseWriter, r *http.Request) {
		idemflight.NoEffect(r.Context()) // nothing has begun yet: what fails before the bank runs again
		var order struct{ Amount int }
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil || order.Amount <= 0 {
			http.Error(w, "no such amount", http.StatusUnprocessableEntity) // a real answer: replayed
			return
		}
		if err := idemflight.BeginEffect(r.Context()); err != nil { // from here on, a failure is "unknown"
			http.Error(w, "too late", http.StatusServiceUnavailable)
			return
		}
		receipt, err := bank.charge(r.Context(), order.Amount)
		if errors.Is(err, errNotConnected) {
			idemflight.NoEffect(r.Context()) // certainly not charged: the next attempt may try again
		}
		if err != nil {
			http.Error(w, "the bank does not answer", http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, receipt)
	}

	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /payments", keys.Handler(http.HandlerFunc(pay)))
	server := httptest.NewServer(mux)
	defer server.Close()

	send := func(key, body string) {
		r, _ := http.NewRequest(http.MethodPost, server.URL+"/payments", strings.NewReader(body))
		r.SetBasicAuth("ann", "secret")
		r.Header.Set("Idempotency-Key", key)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			panic(err)
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		if res.Header.Get("Content-Type") == "application/problem+json" {
			var problem idemhttp.Problem
			_ = json.Unmarshal(answer, &problem)
			answer = []byte(problem.Title)
		}
		fmt.Printf("%d %-26s replayed: %q\n", res.StatusCode, strings.TrimSpace(string(answer)), res.Header.Get("Idempotent-Replayed"))
	}
	send("4f6e", `{"Amount": 100}`)
	send("4f6e", `{"Amount": 100}`) // the client has not seen the answer
	send("4f6e", `{"Amount": 900}`) // a mistake
	send("9ac1", `{"Amount": -1}`)
	send("9ac1", `{"Amount": -1}`)
	fmt.Println("charges:", bank.charges)
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 200 receipt 1 over 100         replayed: ""
	// 200 receipt 1 over 100         replayed: "true"
	// 422 Idempotency key reused     replayed: ""
	// 422 no such amount             replayed: ""
	// 422 no such amount             replayed: "true"
	// charges: 1
}

// A client that retries keeps one key per intent: it is made outside of the loop. A new key after a
// timeout would be a new payment.
func ExampleTransport() {
	bank := &bank{}
	var lost atomic.Int32
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	if err != nil {
		panic(err)
	}
	pay := keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		receipt, _ := bank.charge(r.Context(), 100)
		fmt.Fprint(w, receipt)
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pay.ServeHTTP(w, r)
		if lost.Add(1) <= 2 {
			panic(http.ErrAbortHandler) // the charge was made, and the answer is lost on its way
		}
	}))
	defer server.Close()

	client := &http.Client{Transport: &idemhttp.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	order := func(ctx context.Context, body string) (string, error) {
		ctx = idemhttp.WithKey(ctx, idemflight.NewID()) // once per intent
		for attempt := 1; ; attempt++ {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(body))
			if err != nil {
				return "", err
			}
			res, err := client.Do(r)
			if err == nil {
				answer, err := io.ReadAll(res.Body)
				res.Body.Close()
				// In a problem, Retry-After stands for "send it again"; other problems are final.
				if err == nil && (res.StatusCode < 400 || res.Header.Get("Retry-After") == "") {
					return string(answer), nil
				}
			}
			if attempt == 5 || ctx.Err() != nil {
				return "", errors.Join(err, ctx.Err())
			}
			// A real client waits here: longer from attempt to attempt, and as Retry-After says.
		}
	}
	fmt.Println(order(context.Background(), `{"amount": 100}`))
	fmt.Println("charges:", bank.charges)
	// Output:
	// receipt 1 over 100 <nil>
	// charges: 1
}

// The draft asks servers to publish for how long they know a key. Middleware outside can tell it
// with every answer, replayed ones included, from the options that decide it.
func ExampleNew_publishingTheExpiry() {
	cache := idemhttp.DefaultCacheOptions()
	cache.TTL = 48 * time.Hour
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Cache: idemflight.MustNew(cache)})
	if err != nil {
		panic(err)
	}
	published := fmt.Sprintf("max-age=%d", int(cache.TTL.Seconds()))
	publish := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Idempotency-Key-Policy", published)
			next.ServeHTTP(w, r)
		})
	}
	h := publish(keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	})))

	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.SetBasicAuth("ann", "secret")
		r.Header.Set("Idempotency-Key", "4f6e")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Idempotency-Key-Policy"))
	}
	// Output:
	// 201 max-age=172800
	// 201 max-age=172800
}

// Stripe's way: every answer is kept once the work has begun, be it a 500.
func ExampleOptions_classify() {
	attempts := 0
	keys, err := idemhttp.New(idemhttp.Options{
		Scope: idemhttp.SharedScope,
		Classify: func(r *idemhttp.Response) idemflight.Disposition {
			switch r.Status {
			case 400, 401, 403, 404, 409, 429: // refused before the work began
				return idemflight.Release
			}
			return idemflight.Retain
		},
	})
	if err != nil {
		panic(err)
	}
	h := keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		attempts++
		w.WriteHeader(http.StatusInternalServerError)
	}))
	for range 3 {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.Header.Set("Idempotency-Key", "4f6e")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("Idempotent-Replayed"))
	}
	fmt.Println("attempts:", attempts)
	// Output:
	// 500 ""
	// 500 "true"
	// 500 "true"
	// attempts: 1
}
