package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idemflight/idemflight/pgstore"
)

// storm is what is played.
type storm struct {
	out   io.Writer
	dsn   string
	lasts time.Duration
	rate  int // new orders a second
}

// mode is one way to play it.
type mode struct {
	name   string
	signal syscall.Signal // stops a server
	bare   bool           // the servers do without idemhttp
}

var (
	rolling = mode{name: "rolling restart", signal: syscall.SIGTERM}
	killing = mode{name: "kill -9", signal: syscall.SIGKILL}
	control = mode{name: "rolling restart, without idemhttp", signal: syscall.SIGTERM, bare: true}
)

// play plays all modes and prints a table.
func (s storm) play(ctx context.Context) error {
	versions, err := s.versions(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s; %d orders a second for %v\n\n%s\n", versions, s.rate, s.lasts, tableHead)
	var wrong []error
	for _, m := range []mode{rolling, killing, control} {
		t, err := s.run(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Fprintln(s.out, t.row(m.name))
		if err := t.verdict(m); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(wrong...)
}

func (s storm) versions(ctx context.Context) (string, error) {
	nginx, err := exec.CommandContext(ctx, "nginx", "-v").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("asking nginx for its version: %w", err)
	}
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var postgres string
	if err := conn.QueryRow(ctx, "show server_version").Scan(&postgres); err != nil {
		return "", err
	}
	postgres, _, _ = strings.Cut(postgres, " ") // the rest says who packed it
	_, version, _ := strings.Cut(strings.TrimSpace(string(nginx)), "/")
	return fmt.Sprintf("%s, %d processors, nginx %s, PostgreSQL %s", runtime.Version(), runtime.NumCPU(), version, postgres), nil
}

// run plays one mode, in a schema of its own.
func (s storm) run(ctx context.Context, m mode) (t tally, err error) {
	schema, drop, err := newSchema(ctx, s.dsn)
	if err != nil {
		return t, err
	}
	defer drop()
	db, err := connect(ctx, s.dsn, schema)
	if err != nil {
		return t, err
	}
	defer db.Close()
	if _, err := db.Exec(ctx, books); err != nil {
		return t, err
	}
	if err := pgstore.Migrate(ctx, db); err != nil {
		return t, err
	}
	told := answers{}
	if t, err = s.sell(ctx, m, schema, told); err != nil {
		return t, err
	}
	charged, err := bank{db}.charges(ctx)
	t.count(charged, told)
	return t, err
}

// sell lets clients ask for orders while the servers are restarted, and adds to told what they are told. When it
// returns, all processes have ended.
func (s storm) sell(ctx context.Context, m mode, schema string, told answers) (t tally, err error) {
	var servers [2]*server
	var addrs []string
	for i := range servers {
		addr, err := freeAddr()
		if err != nil {
			return t, err
		}
		servers[i] = &server{config: config{Addr: addr, DSN: s.dsn, Schema: schema, Bare: m.bare}}
		if err := servers[i].start(); err != nil {
			return t, err
		}
		defer func() { err = errors.Join(err, servers[i].stop(syscall.SIGTERM)) }()
		addrs = append(addrs, addr)
	}
	proxy, err := startNginx(addrs)
	if err != nil {
		return t, err
	}
	defer func() {
		var failed error
		t.requests, t.resent, failed = proxy.stop()
		err = errors.Join(err, failed)
	}()

	stormy, end := context.WithTimeout(ctx, s.lasts)
	defer end()
	var restarting sync.WaitGroup
	var failed error
	restarting.Go(func() { t.restarts, failed = roll(stormy, servers[:], m.signal) })
	t.orders = int(s.lasts.Seconds() * float64(s.rate))
	err = told.ask(ctx, proxy.Addr, t.orders, s.rate)
	restarting.Wait()
	if err = errors.Join(err, failed); err != nil || m.bare {
		return t, err
	}
	// All of them again, when all is calm: whoever asks now must be told the same. Without idemhttp that would charge
	// every order once more, and show nothing.
	return t, told.ask(ctx, proxy.Addr, t.orders, 4*s.rate)
}
