// Ledger moves money between accounts in PostgreSQL, once per key, by two processes of which one is killed
// over and over.
//
//	go run -C examples/ledger .                         asks the PostgreSQL of this machine
//	go run -C examples/ledger . -dsn postgres://…       asks another one
//
// The part to start from is transfer: the effect and its record are one commit. open, below it, makes what
// transfer needs. storm.go is the world around it: it asks both processes for every transfer, kills them
// meanwhile, and counts in the ledger what was moved twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/pgstore"
)

// transfer moves money once per key, however often it is called, in whichever process, whatever dies meanwhile.
func (b *bank) transfer(ctx context.Context, key string, o order) (receipt, error) {
	return b.keys.Do(ctx, key, func(ctx context.Context) (r receipt, err error) {
		err = pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
			if r, err = move(ctx, tx, key, o); err != nil {
				return err // rolled back: nothing has happened, and a retry may run
			}
			return b.store.SettleTx(ctx, tx, r, nil) // the record, in the same transaction
		}) // commits. If the server's answer is lost, Do finds out what became of it
		return r, err
	}, idemflight.WithFingerprint(o.fingerprint()))
}

// order is what a client asks for, and receipt what it is told.
type order struct {
	From, To int // accounts
	Cents    int64
}

type receipt struct {
	Entry int64 // in the ledger
}

func (o order) fingerprint() idemflight.Fingerprint {
	return idemflight.FingerprintOf(fmt.Append(nil, o.From, o.To, o.Cents))
}

var errNoFunds = errors.New("there is not enough on the account")

// move is the effect, in a transaction of the user's.
func move(ctx context.Context, tx pgx.Tx, key string, o order) (r receipt, err error) {
	// In the order of the accounts, so that two transfers never wait for each other.
	if _, err := tx.Exec(ctx, `select from account where id in ($1, $2) order by id for update`, o.From, o.To); err != nil {
		return r, err
	}
	taken, err := tx.Exec(ctx, `update account set cents = cents - $2 where id = $1 and cents >= $2`, o.From, o.Cents)
	switch {
	case err != nil:
		return r, err
	case taken.RowsAffected() == 0:
		return r, idemflight.Final(errNoFunds) // an answer: who asks again is told the same
	}
	if _, err := tx.Exec(ctx, `update account set cents = cents + $2 where id = $1`, o.To, o.Cents); err != nil {
		return r, err
	}
	err = tx.QueryRow(ctx, `insert into entry (key, cents) values ($1, $2) returning id`, key, o.Cents).Scan(&r.Entry)
	return r, err
}

// bank is what a process has.
type bank struct {
	db    *pgxpool.Pool
	own   *pgxpool.Pool // the store's
	store *pgstore.Store
	keys  *idemflight.Cache[string, receipt]
}

// open connects a process to the database, of which pgstore.Migrate has made the tables.
func open(ctx context.Context, config *pgxpool.Config) (b *bank, err error) {
	b = &bank{}
	if b.db, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	if b.own, err = pgxpool.NewWithConfig(ctx, config.Copy()); err != nil {
		return nil, err
	}
	if b.store, err = pgstore.Open(ctx, b.own, "transfers", pgstore.Options{}); err != nil {
		return nil, err
	}
	b.keys, err = idemflight.New(idemflight.Options[string, receipt]{
		Store:            b.store,
		EffectsAnnounced: true,        // there is no effect but in a transaction with SettleTx
		Lease:            time.Second, // so that this demo does not wait long for the dead; the default is 30s
	})
	return b, err
}

// transferApart is transfer as one would write it first: the effect in a transaction of its own, and then
// the record. Between the two lies a gap in which a process can die, so it is not enough to say
// EffectsAnnounced: that was a promise, which this breaks.
func (b *bank) transferApart(ctx context.Context, key string, o order) (receipt, error) {
	return b.keys.Do(ctx, key, func(ctx context.Context) (r receipt, err error) {
		err = pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
			r, err = move(ctx, tx, key, o)
			return err
		})
		return r, err
	}, idemflight.WithFingerprint(o.fingerprint()))
}

func main() {
	if os.Getenv(childMode) != "" {
		exit(child(context.Background()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := storm{out: os.Stdout}
	flag.IntVar(&s.transfers, "transfers", 300, "each process is asked for `N` transfers")
	flag.IntVar(&s.kills, "kills", 20, "`N` times a process is killed, with SIGKILL")
	flag.StringVar(&s.dsn, "dsn", "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable",
		"the `URL` of a database, in which a schema is created, and dropped at the end")
	flag.Parse()
	if s.kills < 0 || s.transfers <= s.kills || flag.NArg() > 0 {
		exit(errors.New("there must be more transfers than kills, and no arguments (-h explains)"))
	}
	exit(s.play(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "ledger: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}
