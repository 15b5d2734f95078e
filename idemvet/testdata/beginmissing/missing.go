// Package beginmissing has fns that send something, with and without a BeginEffect before it.
package beginmissing

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	"github.com/idemflight/idemflight"
)

var payments = idemflight.MustNew(idemflight.Options[string, string]{})

type clients struct {
	http *http.Client
	db   *sql.DB
	grpc grpc.ClientConnInterface
	tx   pgx.Tx

	order *http.Request
}

func (c clients) missing(ctx context.Context) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if _, err := c.http.Do(c.order); err != nil { // want `fn sends something without having called BeginEffect`
			return "", err
		}
		_, err := c.http.Do(c.order) // once is enough
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		_, err := c.db.ExecContext(ctx, "insert") // want `fn sends something`
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		_, err := c.tx.Exec(ctx, "insert") // want `fn sends something`
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		return "", c.grpc.Invoke(ctx, "/bank.Payments/Charge", nil, nil) // want `fn sends something`
	})
	// The inner fn announces its effect, and not that of the outer one.
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		payments.Do(ctx, "key/1", func(ctx context.Context) (string, error) {
			return "", idemflight.BeginEffect(ctx)
		})
		_, err := c.http.Post("/", "", nil) // want `fn sends something`
		return "", err
	})
}

// begin announces the effect of its caller.
func (c clients) begin(ctx context.Context) error { return c.begins(ctx) }

func (c clients) begins(ctx context.Context) error { return idemflight.BeginEffect(ctx) }

func (c clients) announced(ctx context.Context) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		_, err := c.http.Do(c.order)
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if err := c.begin(ctx); err != nil {
			return "", err
		}
		_, err := c.http.Do(c.order)
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) { // reads only
		_, err := c.http.Get("/")
		return "", err
	})
	c.http.Do(c.order) // not in an fn
}

func (c clients) ignored(ctx context.Context) {
	idemflight.BeginEffect(ctx) // want `the error of BeginEffect is ignored`
}
