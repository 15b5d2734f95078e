// Package pgxtable writes a row into a table of one's own, once per key, together with the record that it was written
// (github.com/jackc/pgx/v5, and pgstore of this library).
//
// SettleTx records the outcome in the transaction of the row: both are committed or neither is, whenever the process
// dies. So there is no BeginEffect, since nothing can be half done, and no Reconcile, since no outcome is unknown. If
// the answer to the commit is lost, Do finds out what became of it.
//
// EffectsAnnounced is right because no fn of this cache has an effect outside of such a transaction. One that also
// sends a mail breaks that promise: write the mail into a table, in the same transaction, and send it from there by a
// Do of its own.
//
// The key comes from the client, once per intent. The TTL is longer than the client retries.
//
// Traps. SettleTx is the last statement before the commit, and gets the transaction of the row. The store has a pool of
// its own: with one for both, executions that hold a connection each wait for another one for ever. A refusal is rolled
// back, and then recorded by Do. Under SERIALIZABLE a transaction must be shorter than a third of the Lease.
//
// Without pgstore the row can be its own record: a unique index on the key, and "on conflict do nothing". That is enough
// where one insert is all that happens, and nobody needs the first answer again.
package pgxtable

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/pgstore"
)

// Schema is the table. It has no trace of the key.
const Schema = `
create table purchase (
	id       bigserial primary key,
	customer text not null,
	cents    bigint not null
)`

// ErrNoAmount: a purchase of nothing.
var ErrNoAmount = errors.New("pgxtable: the amount must be above 0")

// Purchase is what is written once.
type Purchase struct {
	Number int64 // of its row
	Cents  int64
}

// Shop sells. It is safe for concurrent use.
type Shop struct {
	db    *pgxpool.Pool
	store *pgstore.Store
	keys  *idemflight.Cache[idemflight.Key, Purchase]
}

// New returns a Shop whose rows are in db. keys is another pool of the same database, for the store, whose tables
// pgstore.Migrate has made.
func New(ctx context.Context, db, keys *pgxpool.Pool) (*Shop, error) {
	store, err := pgstore.Open(ctx, keys, "purchases", pgstore.Options{})
	if err != nil {
		return nil, err
	}
	s := &Shop{db: db, store: store}
	s.keys, err = idemflight.New(idemflight.Options[idemflight.Key, Purchase]{
		TTL:              24 * time.Hour, // longer than any client retries
		EffectsAnnounced: true,
		Store:            store,
		Codec:            idemflight.Codec[idemflight.Key, Purchase]{Sentinels: map[string]error{"no amount": ErrNoAmount}},
	})
	return s, err
}

// Buy writes the purchase that key names, once, and returns it as often as it is asked to.
func (s *Shop) Buy(ctx context.Context, key idemflight.Key, cents int64) (Purchase, error) {
	return s.keys.Do(ctx, key, func(ctx context.Context) (p Purchase, err error) {
		err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			if p, err = insert(ctx, tx, key.Scope, cents); err != nil {
				return err // rolled back
			}
			return s.store.SettleTx(ctx, tx, p, nil) // last, and in the same transaction
		})
		return p, err
	}, idemflight.WithFingerprint(idemflight.FingerprintOf(strconv.AppendInt(nil, cents, 10))))
}

// insert is the effect.
func insert(ctx context.Context, tx pgx.Tx, customer string, cents int64) (Purchase, error) {
	if cents <= 0 {
		return Purchase{}, idemflight.Final(ErrNoAmount)
	}
	p := Purchase{Cents: cents}
	err := tx.QueryRow(ctx, `insert into purchase (customer, cents) values ($1, $2) returning id`, customer, cents).Scan(&p.Number)
	return p, err
}
