package pgstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/idemflight/idemflight"
)

// SettleTx records the outcome of the execution that ctx belongs to in tx, a transaction of the user's in
// the store's database: the record and what else tx does are committed together, or neither is. It is the
// last statement before Commit, and ctx is fn's.
//
//	tx, err := db.Begin(ctx)
//	…
//	defer tx.Rollback(ctx)
//	… // the effect, in tx
//	if err := store.SettleTx(ctx, tx, receipt, nil); err != nil {
//		return nil, err
//	}
//	return receipt, tx.Commit(ctx)
//
// value is what fn is about to return, and outcome nil or a final error. If the answer to Commit is lost, fn
// returns the error, and callers get what the server decided.
//
// After an error tx must be rolled back: [idemflight.ErrClaimLost] if the lease ended and another process has
// taken the key over, [idemflight.ErrNotExecuting] if ctx belongs to no execution, an error if the outcome is
// not one to be retained, or has a TTL of 0: the record must be there to be found. The row of the key is
// locked until tx ends: callers wait meanwhile as they do for fn, and BeginEffect must not be called any more,
// since it would wait for tx. Cost: one round trip, in a transaction that is there anyway.
func (s *Store) SettleTx(ctx context.Context, tx pgx.Tx, value any, outcome error) error {
	c, st, err := idemflight.Settling(ctx, value, outcome)
	if err != nil {
		return err
	}
	return s.settleTx(c, st, func(args ...any) (int64, error) {
		tag, err := tx.Exec(ctx, s.sql.settle, args...)
		return tag.RowsAffected(), err
	})
}

// SettleSQLTx is [Store.SettleTx] for a transaction of database/sql, with any driver for PostgreSQL that
// numbers parameters as $1.
func (s *Store) SettleSQLTx(ctx context.Context, tx *sql.Tx, value any, outcome error) error {
	c, st, err := idemflight.Settling(ctx, value, outcome)
	if err != nil {
		return err
	}
	return s.settleTx(c, st, func(args ...any) (int64, error) {
		res, err := tx.ExecContext(ctx, s.sql.settle, args...)
		if err != nil {
			return 0, err
		}
		return res.RowsAffected()
	})
}

// settleTx settles c by exec, which runs the statement settle and returns how many rows it changed.
func (s *Store) settleTx(c idemflight.Claim, st idemflight.Settlement, exec func(args ...any) (int64, error)) error {
	switch {
	case st.Disposition != idemflight.Retain:
		return fmt.Errorf("pgstore: SettleTx settles only what is retained, a success or a final error, and not a %v: "+
			"roll the transaction back", st.Disposition)
	case st.TTL <= 0:
		return fmt.Errorf("pgstore: SettleTx needs a TTL above 0, not %v: "+
			"without a record nobody could find out about a commit whose answer is lost", st.TTL)
	}
	rows, err := exec(append([]any{s.name, []byte(c.Key)}, settleArgs(c, st)...)...)
	if err == nil && rows == 0 {
		err = idemflight.ErrClaimLost
	}
	return err
}
