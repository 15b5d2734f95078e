// Command stores is soak over the stores of real engines. A module of its own, for their dependencies:
//
//	go run -C verify/soak/stores . -store bbolt                 ten minutes; or PostgreSQL, Redis
//	go run -C verify/soak/stores . -store Redis -for 5m -json FILE
//
// The other flags are those of soak (-h). PostgreSQL is that of IDEMFLIGHT_POSTGRES, in which each round has
// a schema of its own, and Redis that of IDEMFLIGHT_REDIS; by default those of this machine. Where none answers,
// that is a violation.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
	"github.com/idemflight/idemflight/pgstore"
	"github.com/idemflight/idemflight/redisstore"
	"github.com/idemflight/idemflight/verify/internal/soak"
)

func main() { soak.Main("go run -C verify/soak/stores .", engines...) }

var engines = []soak.Engine{
	{Name: "bbolt", Open: openBolt},
	{Name: "PostgreSQL", Open: openPostgres},
	{Name: "Redis", Open: openRedis},
}

// enough is how long the removal of a store may take.
const enough = 20 * time.Second

// name of a store that nobody else has.
func name() string { return "idem_soak_" + strings.ToLower(rand.Text()) }

func openBolt(context.Context) (idemflight.Store, func() error, error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	db, err := boltstore.Open(filepath.Join(dir, "keys.db"), boltstore.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	s, err := db.Store("soak")
	if err != nil {
		return nil, nil, errors.Join(err, db.Close(), remove())
	}
	return s, func() error { return errors.Join(db.Close(), remove()) }, nil
}

func openPostgres(ctx context.Context) (idemflight.Store, func() error, error) {
	config, err := pgxpool.ParseConfig(cmp.Or(os.Getenv("IDEMFLIGHT_POSTGRES"), "postgres://postgres@127.0.0.1:5432/postgres"))
	if err != nil {
		return nil, nil, err
	}
	schema := name()
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	if _, err := pool.Exec(ctx, "create schema "+schema); err != nil {
		pool.Close()
		return nil, nil, err
	}
	remove := func() error {
		defer pool.Close()
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		_, err := pool.Exec(ctx, "drop schema "+schema+" cascade")
		return err
	}
	if err := pgstore.Migrate(ctx, pool); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	s, err := pgstore.Open(ctx, pool, "soak", pgstore.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return s, remove, nil
}

func openRedis(ctx context.Context) (idemflight.Store, func() error, error) {
	c := redis.NewClient(&redis.Options{Addr: cmp.Or(os.Getenv("IDEMFLIGHT_REDIS"), "127.0.0.1:6379")})
	prefix := name()
	s, err := redisstore.Open(ctx, c, prefix, redisstore.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return s, func() error { return errors.Join(removeKeys(c, prefix), c.Close()) }, nil
}

// removeKeys removes the keys of a store, those that are held without end among them.
func removeKeys(c *redis.Client, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	keys := c.Scan(ctx, 0, prefix+":*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := c.Del(ctx, keys.Val()).Err(); err != nil {
			return fmt.Errorf("removing %q: %w", keys.Val(), err)
		}
	}
	return keys.Err()
}
