package ideminspect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
)

// The page goes onto the mux of the administrators, behind what tells who they are. Here a card was charged, or
// was not: the bank did not answer.
func Example() {
	payments := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	key := idemflight.Key{Scope: "ann", ID: "5f0c11d2-8a41"}
	_, _ = payments.Do(context.Background(), key, func(ctx context.Context) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return "", errors.New("the bank did not answer")
	})

	user := func(r *http.Request) (string, error) {
		if name, _, ok := r.BasicAuth(); ok { // checked by staffOnly, below
			return name, nil
		}
		return "", errors.New("not signed in")
	}
	staffOnly := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "secret" {
				http.Error(w, "staff only", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	page, err := ideminspect.New(ideminspect.Options{Write: true, Actor: user})
	if err != nil {
		panic(err)
	}
	ideminspect.Add(page, "payments", payments, ideminspect.View[idemflight.Key, string]{
		ParseValue: func(receipt string) (string, error) { return receipt, nil }, // for "It took place"
	})
	admin := http.NewServeMux()
	admin.Handle("/idemflight", staffOnly(page))

	server := httptest.NewServer(admin)
	defer server.Close()
	get := func(password string) {
		r, _ := http.NewRequest(http.MethodGet, server.URL+"/idemflight?format=json", nil)
		r.SetBasicAuth("eve", password)
		answer, err := server.Client().Do(r)
		if err != nil {
			panic(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		fmt.Println(answer.Status, len(text) > 500)
	}
	get("guess")
	get("secret")
	// Output:
	// 401 Unauthorized false
	// 200 OK true
}
