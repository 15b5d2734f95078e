// Package pgx stands for github.com/jackc/pgx: names and signatures that the tests use.
package pgx

import "context"

type CommandTag struct{}

type Tx interface {
	Exec(ctx context.Context, sql string, args ...any) (CommandTag, error)
	Commit(ctx context.Context) error
}
