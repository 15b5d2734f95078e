// Package pgxtable inserts a row into a table of your own, once per key (github.com/jackc/pgx/v5, and pgstore of this
// library).
//
// SettleTx records the outcome in the transaction that inserts the row. Both are committed or neither is, whenever the
// process dies. So there is no BeginEffect, because nothing can be half done, and no Reconcile, because no outcome is
// unknown. If the answer to the commit gets lost, Do finds out whether it was committed.
//
// EffectsAnnounced is right because no fn of this cache has an effect outside such a transaction. An fn that also sends
// a mail breaks that promise: let it insert the mail into a table, in the same transaction, and send it from there, by
// a Do of its own.
//
// The key comes from the client, or from a message, once per intent. The TTL is longer than the client retries; for a
// message see the recipe of its broker.
//
// Traps. Call SettleTx last, in the transaction that inserted the row. Give the store a pool of its own: with one
// pool for both, executions that hold a connection wait for each other's second one for ever. A refusal rolls the
// transaction back, and Do records it afterwards. Under SERIALIZABLE keep the transaction shorter than a third of the
// Lease.
//
// Without pgstore the row can be its own record: put the key into it, under a unique index, and insert it with "on
// conflict do nothing". That is enough if this insert is all that happens, and nobody needs the first answer again.
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

// Schema creates the table, which knows nothing of keys.
const Schema = `
create table purchase (
	id       bigserial primary key,
	customer text not null,
	cents    bigint not null
)`

// ErrNoAmount refuses a purchase of nothing.
var ErrNoAmount = errors.New("pgxtable: the amount must be above 0")

// Purchase is a row.
type Purchase struct {
	Number int64
	Cents  int64
}

// Shop sells. It is safe for concurrent use.
type Shop struct {
	db    *pgxpool.Pool
	store *pgstore.Store
	keys  *idemflight.Cache[idemflight.Key, Purchase]
}

// New returns a Shop with its table in db. keys is another pool for the same database, where pgstore.Migrate has made
// the store's tables.
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

// Buy inserts the purchase that key names, once, and returns it to every call with that key.
func (s *Shop) Buy(ctx context.Context, key idemflight.Key, cents int64) (Purchase, error) {
	return s.keys.Do(ctx, key, func(ctx context.Context) (p Purchase, err error) {
		err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			if p, err = insert(ctx, tx, key.Scope, cents); err != nil {
				return err // rolls back: the next call runs this again
			}
			return s.store.SettleTx(ctx, tx, p, nil) // last, and in the same transaction
		})
		return p, err
	}, idemflight.WithFingerprint(idemflight.FingerprintOf(strconv.AppendInt(nil, cents, 10))))
}

// insert is the effect.
func insert(ctx context.Context, tx pgx.Tx, customer string, cents int64) (Purchase, error) {
	if cents <= 0 {
		return Purchase{}, idemflight.Final(ErrNoAmount) // a real answer
	}
	p := Purchase{Cents: cents}
	err := tx.QueryRow(ctx, `insert into purchase (customer, cents) values ($1, $2) returning id`, customer, cents).Scan(&p.Number)
	return p, err
}
