package pgstore

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// What the verbs cost beside a bare table, in which as many statements are made durable. Run it with
//
//	go test -run '^$' -bench . -benchtime 2s
//
// and add ?default_query_exec_mode=exec to IDEMFLIGHT_POSTGRES for what it costs without prepared statements.
// "callers" are 8 goroutines per core.
func BenchmarkStore(b *testing.B) {
	ctx := b.Context()
	for _, relaxed := range []bool{false, true} {
		f := newStore(b, func(c *pgxpool.Config) { c.MaxConns = 16 })
		f.Store = open(b, f.pool, Options{RelaxedClaims: relaxed})
		suffix := ""
		if relaxed {
			suffix = ",relaxed"
		}
		kept := f.claimed()
		f.settles(kept, retain("value"))
		bench(b, "replay"+suffix, func(int64) error {
			got, err := f.Claim(ctx, request(kept.Key))
			if got.State != idemflight.Retained {
				return fmt.Errorf("%v, %w", got.State, err)
			}
			return err
		})
		first := func(n int64, begin bool) error {
			r := request(fmt.Sprint(suffix, begin, b.N, n))
			got, err := f.Claim(ctx, r)
			if err == nil && !got.Granted {
				return fmt.Errorf("not granted: %v", got.State)
			}
			if begin && err == nil {
				err = f.Begin(ctx, r.Claim, time.Minute)
			}
			if err == nil {
				_, err = f.Settle(ctx, r.Claim, retain("value"))
			}
			return err
		}
		bench(b, "first"+suffix, func(n int64) error { return first(n, false) })
		bench(b, "first+begin"+suffix, func(n int64) error { return first(n, true) })
		bench(b, "tx"+suffix, func(n int64) error {
			r := request(fmt.Sprint(suffix, "tx", b.N, n))
			if _, err := f.Claim(ctx, r); err != nil {
				return err
			}
			if err := pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
				return f.settleTx(r.Claim, retain("value"), func(args ...any) (int64, error) {
					tag, err := tx.Exec(ctx, f.sql.settle, args...)
					return tag.RowsAffected(), err
				})
			}); err != nil {
				return err
			}
			_, err := f.Settle(ctx, r.Claim, retain("value"))
			return err
		})
	}
}

// BenchmarkBare is a table of keys and values, and one statement after the other.
func BenchmarkBare(b *testing.B) {
	f := newStore(b, func(c *pgxpool.Config) { c.MaxConns = 16 })
	ctx := b.Context()
	f.exec("create table bare (key bytea primary key, state int, value bytea) with (fillfactor = 70)")
	f.exec("insert into bare values ('kept', 1, 'value')")
	bench(b, "read", func(int64) error {
		var value []byte
		return f.pool.QueryRow(ctx, "select value from bare where key = $1", []byte("kept")).Scan(&value)
	})
	writes := func(n int64, updates int) error {
		key := fmt.Append(nil, updates, b.N, n)
		_, err := f.pool.Exec(ctx, "insert into bare values ($1, 0, null)", key)
		for i := range updates {
			if err == nil {
				_, err = f.pool.Exec(ctx, "update bare set state = $2, value = $3 where key = $1", key, i+1, []byte("value"))
			}
		}
		return err
	}
	bench(b, "insert+update", func(n int64) error { return writes(n, 1) })
	bench(b, "insert+2updates", func(n int64) error { return writes(n, 2) })
}

// bench measures f, which is given a number of its own each time, alone and by 16 callers.
func bench(b *testing.B, name string, f func(n int64) error) {
	var n atomic.Int64
	b.Run(name, func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, f(n.Add(1)))
		}
	})
	b.Run(name+"/callers", func(b *testing.B) {
		b.SetParallelism(8) // times GOMAXPROCS, 2
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := f(n.Add(1)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
