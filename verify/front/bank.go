package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const defaultDSN = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"

// bank charges orders. It keeps its books in PostgreSQL, where they are easily counted, but nothing in them is unique,
// and no transaction of the library's has a part in them: whoever charges twice is charged twice.
type bank struct{ db *pgxpool.Pool }

const books = `
	create table charge (id bigserial primary key, order_id text not null);
	create index on charge (order_id)`

// receipt is what a client is told.
type receipt struct {
	Order  string `json:"order"`
	Charge int64  `json:"charge"`
}

func (r receipt) body() []byte {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // a string and a number
	}
	return body
}

var (
	errNotCharged = errors.New("bank: no such charge")
	errTooLate    = errors.New("bank: the request came too late")
)

// charge charges the order. The bank itself refuses it after the deadline of ctx, however long the request was under
// way: so a charge that cannot be found some time after that will never come.
func (b bank) charge(ctx context.Context, order string) (receipt, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return receipt{}, errors.New("bank: a charge needs a deadline")
	}
	r := receipt{Order: order}
	err := b.db.QueryRow(ctx, `insert into charge (order_id) select $1 where clock_timestamp() < $2 returning id`,
		order, deadline).Scan(&r.Charge)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errTooLate
	}
	return r, err
}

// find returns the receipt of an order, or errNotCharged.
func (b bank) find(ctx context.Context, order string) (receipt, error) {
	r := receipt{Order: order}
	err := b.db.QueryRow(ctx, `select id from charge where order_id = $1 order by id limit 1`, order).Scan(&r.Charge)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNotCharged
	}
	return r, err
}

// charges returns all charges, by order.
func (b bank) charges(ctx context.Context) (map[string][]int64, error) {
	rows, err := b.db.Query(ctx, `select order_id, id from charge`)
	if err != nil {
		return nil, err
	}
	all := map[string][]int64{}
	var r receipt
	_, err = pgx.ForEachRow(rows, []any{&r.Order, &r.Charge}, func() error {
		all[r.Order] = append(all[r.Order], r.Charge)
		return nil
	})
	return all, err
}

// connect returns a pool of connections whose tables are those of schema.
func connect(ctx context.Context, dsn, schema string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.MaxConns = 8
	return pgxpool.NewWithConfig(ctx, config)
}

// newSchema creates a schema and returns its name, and what drops it.
func newSchema(ctx context.Context, dsn string) (string, func(), error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", nil, err
	}
	schema := fmt.Sprintf("idem_front_%d", time.Now().UnixNano())
	if _, err := conn.Exec(ctx, "create schema "+schema); err != nil {
		return "", nil, errors.Join(err, conn.Close(ctx))
	}
	drop := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, err := conn.Exec(ctx, "drop schema "+schema+" cascade")
		if err = errors.Join(err, conn.Close(ctx)); err != nil {
			fmt.Fprintf(os.Stderr, "front: schema %s is left: %v\n", schema, err)
		}
	}
	return schema, drop, nil
}
