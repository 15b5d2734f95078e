package pgstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	sweepEvery = 1000             // claims
	sweepLimit = 1000             // rows that one statement deletes: as many as claims can have added
	sweepTime  = 10 * time.Second // for a sweep by the store itself
)

// sweeping is when the store sweeps by itself.
type sweeping struct {
	claims atomic.Int64
	last   atomic.Int64 // when it began, in ns since 1970
	busy   atomic.Bool
}

// countClaim counts a claim, and starts a sweep after every sweepEvery. Its goroutine ends with it.
func (s *Store) countClaim() {
	w := &s.sweeping
	if w.claims.Add(1)%sweepEvery != 0 || s.opts.Sweep < 0 {
		return
	}
	if time.Since(time.Unix(0, w.last.Load())) < s.opts.Sweep || !w.busy.CompareAndSwap(false, true) {
		return
	}
	w.last.Store(time.Now().UnixNano())
	go func() {
		defer w.busy.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
		defer cancel()
		for n := sweepLimit; n == sweepLimit; {
			n, _ = s.Sweep(ctx, sweepLimit) // what fails now, the next sweep does
		}
	}()
}

// Sweep deletes up to limit rows, of all names, that no execution can ask about any more: outcomes a lease
// after they expired, closed rows a lease after they closed, and what dead owners left. It waits for no lock,
// and returns how many rows it deleted. Only disk space depends on it. Cost: one round trip, in proportion to
// what it deletes.
func (s *Store) Sweep(ctx context.Context, limit int) (deleted int, err error) {
	var b pgx.Batch
	b.Queue(s.sql.sweep, limit).Exec(func(tag pgconn.CommandTag) error {
		deleted = int(tag.RowsAffected())
		return nil
	})
	b.Queue(s.sql.sweepMarks)
	err = s.pool.SendBatch(ctx, &b).Close()
	return deleted, err
}
