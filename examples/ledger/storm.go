package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/pgstore"
)

const (
	processes = 2
	atOnce    = 16 // transfers that a process has under way
	accounts  = 20
)

// What a child finds in its environment: this program, started again.
const (
	childMode   = "LEDGER_MODE"
	childDSN    = "LEDGER_DSN"
	childSchema = "LEDGER_SCHEMA"
)

// The modes of a child.
const (
	together = "with SettleTx: one commit"
	apart    = "without: effect, then record"
)

// storm is what is played.
type storm struct {
	out              io.Writer
	dsn              string
	transfers, kills int
}

// result is how a mode ended.
type result struct {
	moved int // transfers in the ledger, each key counted once
	twice int // those of them that are there more than once
	kills int
}

// play plays both modes and prints the table. It is an error if a transfer was lost, or with SettleTx made twice.
func (s storm) play(ctx context.Context) error {
	fmt.Fprintf(s.out, "%d processes, each asked for the same %d transfers; kill -9 for one of them, over and over.\n\n",
		processes, s.transfers)
	fmt.Fprintf(s.out, "%-30s %9s %6s %6s\n", "", "transfers", "kills", "twice")
	for _, mode := range []string{together, apart} {
		r, err := s.run(ctx, mode)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%-30s %9d %6d %6d\n", mode, r.moved, r.kills, r.twice)
		switch {
		case r.moved != s.transfers:
			return fmt.Errorf("%d of %d transfers were made, although all were answered", r.moved, s.transfers)
		case mode == together && r.twice > 0:
			return errors.New("SOME TRANSFERS WERE MADE TWICE")
		}
	}
	return nil
}

// run plays one mode in a schema of its own.
func (s storm) run(ctx context.Context, mode string) (r result, err error) {
	schema := "idemflight_ledger_" + idemflight.NewID()[:8]
	config, err := configFor(s.dsn, schema)
	if err != nil {
		return r, err
	}
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return r, err
	}
	defer db.Close()
	if _, err := db.Exec(ctx, "create schema "+schema); err != nil {
		return r, fmt.Errorf("no PostgreSQL at %s:%d (-dsn says where): %w", config.ConnConfig.Host, config.ConnConfig.Port, err)
	}
	defer func() {
		_, dropped := db.Exec(context.WithoutCancel(ctx), "drop schema "+schema+" cascade")
		err = errors.Join(err, dropped)
	}()
	if err := pgstore.Migrate(ctx, db); err != nil {
		return r, err
	}
	_, err = db.Exec(ctx, fmt.Sprintf(`
		create table account (id int primary key, cents bigint not null);
		create table entry (id bigserial primary key, key text not null, cents bigint not null);
		insert into account select id, 1000000000 from generate_series(0, %d) as id`, accounts-1))
	if err != nil {
		return r, err
	}

	errs := make([]error, processes)
	var clients sync.WaitGroup
	for i := range processes {
		kills := s.kills / processes
		if i < s.kills%processes {
			kills++
		}
		clients.Go(func() { errs[i] = s.client(ctx, mode, schema, kills) })
	}
	clients.Wait()
	if err := cmp.Or(errs...); err != nil {
		return r, err
	}
	r.kills = s.kills
	err = db.QueryRow(ctx, `select count(*), count(*) filter (where n > 1)
		from (select count(*) as n from entry group by key) as entries`).Scan(&r.moved, &r.twice)
	return r, err
}

// client asks a process for all transfers, and again for those that it has no answer to when the process dies:
// after every so many answers it is killed.
func (s storm) client(ctx context.Context, mode, schema string, kills int) (err error) {
	var open []string
	for _, n := range rand.Perm(s.transfers) {
		open = append(open, fmt.Sprintf("transfer-%d", n))
	}
	every := s.transfers / (kills + 1)
	for ; len(open) > 0 && err == nil; kills-- {
		answers := len(open)
		if kills > 0 {
			answers = every
		}
		open, err = s.ask(ctx, mode, schema, open, answers)
		// What was under way is asked for again later: it has to wait for the lease.
		late := min(2*atOnce, len(open))
		open = slices.Concat(open[late:], open[:late])
	}
	return err
}

// ask starts a process, asks it for the open transfers, takes so many answers, and kills it. It returns those
// that are open still.
func (s storm) ask(ctx context.Context, mode, schema string, open []string, answers int) ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return open, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childMode+"="+mode, childDSN+"="+s.dsn, childSchema+"="+schema)
	cmd.Stdin = strings.NewReader(strings.Join(open, "\n") + "\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return open, err
	}
	if err := cmd.Start(); err != nil {
		return open, err
	}
	for answer := bufio.NewScanner(out); answers > 0 && answer.Scan(); answers-- {
		open = slices.DeleteFunc(open, func(key string) bool { return key == answer.Text() })
	}
	if answers > 0 {
		return open, cmp.Or(ctx.Err(), errors.Join(errors.New("a process ended by itself"), cmd.Wait()))
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	_ = cmd.Process.Kill() // kill -9, on Unix. An error: it had ended, all being answered
	_ = cmd.Wait()
	return open, nil
}

// child makes the transfers whose keys it reads, and prints those that are made.
func child(ctx context.Context) error {
	config, err := configFor(os.Getenv(childDSN), os.Getenv(childSchema))
	if err != nil {
		return err
	}
	b, err := open(ctx, config)
	if err != nil {
		return err
	}
	transfer := b.transfer
	if os.Getenv(childMode) == apart {
		transfer = b.transferApart
	}
	requests := make(chan string)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for key := range requests {
				for _, err := transfer(ctx, key, orderOf(key)); err != nil; _, err = transfer(ctx, key, orderOf(key)) {
					log.Printf("%s, which will be tried again: %v", key, err)
					time.Sleep(100 * time.Millisecond)
				}
				fmt.Println(key)
			}
		})
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		requests <- in.Text()
	}
	close(requests)
	workers.Wait()
	return nil
}

// orderOf returns the order of a key: the same in every process, as from a client that asks again.
func orderOf(key string) order {
	var n int
	_, _ = fmt.Sscanf(key, "transfer-%d", &n)
	return order{From: n % accounts, To: (n + 1 + n/accounts%(accounts-1)) % accounts, Cents: int64(1 + n%100)}
}

func configFor(dsn, schema string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.MaxConns = atOnce / 2
	return config, nil
}
