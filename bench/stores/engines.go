package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	bolt "go.etcd.io/bbolt"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
	"github.com/idemflight/idemflight/pgstore"
	"github.com/idemflight/idemflight/redisstore"
)

var engines = []engine{
	{"PostgreSQL", openPostgreSQL},
	{"bbolt", openBolt},
	{"Redis", openRedis},
}

// receipt is what operations return, some 50 bytes of JSON.
type receipt struct {
	ID     string
	Amount int
}

var (
	aReceipt = receipt{"ch_1NqXXXXXXXXXXXXXXXXXXXXX", 100}
	value    = []byte(`{"ID":"ch_1NqXXXXXXXXXXXXXXXXXXXXX","Amount":100}`)
)

func fn(context.Context) (receipt, error) { return aReceipt, nil }

func begins(ctx context.Context) (receipt, error) {
	if err := idemflight.BeginEffect(ctx); err != nil {
		return receipt{}, err
	}
	return aReceipt, nil
}

// cache is a cache over store, and asks it at every call if always.
func cache(store idemflight.Store, announced, always bool) *idemflight.Cache[string, receipt] {
	o := idemflight.Options[string, receipt]{Store: store, EffectsAnnounced: announced}
	if always {
		o.LocalTTL = -1
	}
	return idemflight.MustNew(o)
}

// caches are those that every engine is measured with.
type caches struct {
	silent, announced, asking, memory *idemflight.Cache[string, receipt]
	prefix                            string // of keys, so that every run has fresh ones
}

// newCaches has a key kept, which is called "kept", in the store and in memory.
func newCaches(ctx context.Context, store idemflight.Store) (c caches, err error) {
	c = caches{cache(store, false, false), cache(store, true, false), cache(store, false, true), idemflight.MustNew(idemflight.Options[string, receipt]{}), rand.Text()}
	for _, c := range []*idemflight.Cache[string, receipt]{c.silent, c.memory} {
		if _, err = c.Do(ctx, "kept", fn); err != nil {
			break
		}
	}
	return c, err
}

func (c caches) close(ctx context.Context) {
	for _, c := range []*idemflight.Cache[string, receipt]{c.silent, c.announced, c.asking, c.memory} {
		_ = c.Close(ctx)
	}
}

// key is a fresh one.
func (c caches) key(what string, n int) string { return fmt.Sprint(c.prefix, what, n) }

func (c caches) first(ctx context.Context, n int) error {
	_, err := c.silent.Do(ctx, c.key("first", n), fn)
	return err
}

func (c caches) firstBegun(ctx context.Context, n int) error {
	_, err := c.announced.Do(ctx, c.key("begun", n), begins)
	return err
}

// replays are the rows in which nothing is executed. read asks the engine for one record.
func (c caches) replays(read func(context.Context, int) error) []contest {
	never := func(context.Context) (receipt, error) { panic("executed again") }
	return []contest{
		{name: "replay from the store", bare: read, ours: func(ctx context.Context, _ int) error {
			_, err := c.asking.Do(ctx, "kept", never)
			return err
		}},
		{name: "replay from memory; alone: without a store", ours: func(ctx context.Context, _ int) error {
			_, err := c.silent.Do(ctx, "kept", never)
			return err
		}, bare: func(ctx context.Context, _ int) error {
			_, err := c.memory.Do(ctx, "kept", never)
			return err
		}},
	}
}

func openPostgreSQL(ctx context.Context, _ string) (_ []contest, shut func(), err error) {
	dsn := os.Getenv("IDEMFLIGHT_POSTGRES")
	if dsn == "" {
		dsn = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
	}
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	schema := "idem_bench_" + fmt.Sprint(time.Now().UnixNano())
	if _, err = admin.Exec(ctx, "create schema "+schema); err != nil {
		return nil, nil, err
	}
	pool := func() *pgxpool.Pool {
		config, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			panic(err) // it was parsed before
		}
		config.MaxConns = callers
		config.ConnConfig.RuntimeParams["search_path"] = schema
		p, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			panic(err)
		}
		return p
	}
	own, users := pool(), pool()
	shut = func() {
		own.Close()
		users.Close()
		_, _ = admin.Exec(ctx, "drop schema "+schema+" cascade")
		_ = admin.Close(ctx)
	}
	if err = pgstore.Migrate(ctx, own); err != nil {
		return nil, shut, err
	}
	_, err = users.Exec(ctx, `create table bare (key bytea primary key, claim bytea not null, fingerprint bytea not null,
			state int not null, started timestamptz not null, value bytea) with (fillfactor = 70);
		create table charges (id text primary key, amount int not null)`)
	if err != nil {
		return nil, shut, err
	}
	store, err := pgstore.Open(ctx, own, "bench", pgstore.Options{})
	if err != nil {
		return nil, shut, err
	}
	relaxed, err := pgstore.Open(ctx, own, "relaxed", pgstore.Options{RelaxedClaims: true})
	if err != nil {
		return nil, shut, err
	}
	c, err := newCaches(ctx, store)
	if err != nil {
		return nil, shut, err
	}
	relaxing := cache(relaxed, true, false)
	// writes is as many statements, each committed: an insert, then updates.
	writes := func(what string, updates int) func(context.Context, int) error {
		return func(ctx context.Context, n int) error {
			key := []byte(c.key(what, n))
			_, err := users.Exec(ctx, "insert into bare values ($1, $2, $3, 0, clock_timestamp())", key, value[:16], value[:32])
			for i := range updates {
				if err == nil {
					_, err = users.Exec(ctx, "update bare set state = $2, value = $3 where key = $1", key, i+1, value)
				}
			}
			return err
		}
	}
	if err = writes("kept", 1)(ctx, 0); err != nil {
		return nil, shut, err
	}
	kept := []byte(c.key("kept", 0))
	charge := func(ctx context.Context, what string, n int, then func(pgx.Tx) error) (receipt, error) {
		return aReceipt, pgx.BeginFunc(ctx, users, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into charges values ($1, 100)", c.key(what, n)); err != nil {
				return err
			}
			return then(tx)
		})
	}
	nothing := func(pgx.Tx) error { return nil }
	plainCharge := func(what string) func(context.Context, int) error {
		return func(ctx context.Context, n int) error {
			_, err := charge(ctx, what, n, nothing)
			return err
		}
	}
	all := []contest{
		{name: "first", ours: c.first, bare: writes("insert, update", 1)},
		{name: "first, BeginEffect", ours: c.firstBegun, bare: writes("insert, 2 updates", 2)},
		{name: "first, BeginEffect, RelaxedClaims", bare: writes("insert, 2 updates again", 2), ours: func(ctx context.Context, n int) error {
			_, err := relaxing.Do(ctx, c.key("relaxed", n), begins)
			return err
		}},
		{name: "Do with SettleTx; alone: the user's transaction", bare: plainCharge("plain"), ours: func(ctx context.Context, n int) error {
			_, err := c.announced.Do(ctx, c.key("tx", n), func(ctx context.Context) (receipt, error) {
				return charge(ctx, "tx", n, func(tx pgx.Tx) error { return store.SettleTx(ctx, tx, aReceipt, nil) })
			})
			return err
		}},
		{name: "Do, BeginEffect, the user's transaction", bare: plainCharge("plain again"), ours: func(ctx context.Context, n int) error {
			_, err := c.announced.Do(ctx, c.key("apart", n), func(ctx context.Context) (receipt, error) {
				if err := idemflight.BeginEffect(ctx); err != nil {
					return receipt{}, err
				}
				return charge(ctx, "apart", n, nothing)
			})
			return err
		}},
	}
	all = append(all, c.replays(func(ctx context.Context, _ int) error {
		var v []byte
		return users.QueryRow(ctx, "select value from bare where key = $1", kept).Scan(&v)
	})...)
	shutServer := shut
	return all, func() { c.close(ctx); _ = relaxing.Close(ctx); shutServer() }, nil
}

func openBolt(ctx context.Context, dir string) (_ []contest, shut func(), err error) {
	dir, err = os.MkdirTemp(dir, "idemflight-stores-")
	if err != nil {
		return nil, nil, err
	}
	db, err := boltstore.Open(filepath.Join(dir, "store.db"), boltstore.Options{})
	if err != nil {
		return nil, nil, err
	}
	store, err := db.Store("bench")
	if err != nil {
		return nil, nil, err
	}
	bare, err := bolt.Open(filepath.Join(dir, "bare.db"), 0o600, nil)
	if err != nil {
		return nil, nil, err
	}
	bucket := []byte("bare")
	err = bare.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucket)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	c, err := newCaches(ctx, store)
	if err != nil {
		return nil, nil, err
	}
	record := append(make([]byte, 150), value...) // as long as a record of the store's
	writes := func(by func(func(*bolt.Tx) error) error, statements int) func(context.Context, int) error {
		return func(_ context.Context, n int) error {
			key := binary.BigEndian.AppendUint64([]byte(c.prefix), uint64(n))
			for range statements {
				if err := by(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, record) }); err != nil {
					return err
				}
			}
			return nil
		}
	}
	kept := binary.BigEndian.AppendUint64([]byte(c.prefix), 0)
	if err = writes(bare.Update, 1)(ctx, 0); err != nil {
		return nil, nil, err
	}
	all := []contest{
		{name: "first", ours: c.first, bare: writes(bare.Update, 2), shared: writes(bare.Batch, 2)},
		{name: "first, BeginEffect", ours: c.firstBegun, bare: writes(bare.Update, 2), shared: writes(bare.Batch, 2)},
	}
	all = append(all, c.replays(func(context.Context, int) error {
		return bare.View(func(tx *bolt.Tx) error {
			_ = append([]byte(nil), tx.Bucket(bucket).Get(kept)...)
			return nil
		})
	})...)
	return all, func() {
		c.close(ctx)
		_ = db.Close()
		_ = bare.Close()
		_ = os.RemoveAll(dir)
	}, nil
}

func openRedis(ctx context.Context, _ string) (_ []contest, shut func(), err error) {
	address := os.Getenv("IDEMFLIGHT_REDIS")
	if address == "" {
		address = "127.0.0.1:6379"
	}
	client := redis.NewClient(&redis.Options{Addr: address})
	name := "bench" + rand.Text()
	store, err := redisstore.Open(ctx, client, name, redisstore.Options{})
	if err != nil {
		return nil, nil, err
	}
	c, err := newCaches(ctx, store)
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(os.Stderr, "Redis: %v\n", store.Persistence())
	const ttl = time.Hour
	writes := func(statements int) func(context.Context, int) error {
		return func(ctx context.Context, n int) error {
			key := fmt.Sprint(name, ":bare:", statements, ":", n)
			for i := range statements {
				pipe := client.TxPipeline()
				pipe.HSet(ctx, key, "state", i, "claim", value[:16], "fingerprint", value[:32], "value", value)
				pipe.PExpire(ctx, key, ttl)
				if _, err := pipe.Exec(ctx); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if err = writes(1)(ctx, 0); err != nil {
		return nil, nil, err
	}
	all := []contest{
		{name: "first", ours: c.first, bare: writes(2)},
		{name: "first, BeginEffect", ours: c.firstBegun, bare: writes(3)},
	}
	all = append(all, c.replays(func(ctx context.Context, _ int) error {
		return client.HGetAll(ctx, fmt.Sprint(name, ":bare:1:0")).Err()
	})...)
	return all, func() {
		c.close(ctx)
		for keys := client.Scan(ctx, 0, name+":*", 1000).Iterator(); keys.Next(ctx); {
			_ = client.Unlink(ctx, keys.Val()).Err()
		}
		_ = client.Close()
	}, nil
}
