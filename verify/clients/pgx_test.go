package clients

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

const (
	postgresAddr = "127.0.0.1:5432"
	postgresURL  = "postgres://postgres@" + postgresAddr + "/postgres?sslmode=disable"
)

var pgxClient = client{name: "PostgreSQL", module: "github.com/jackc/pgx/v5", rows: []row{
	{
		what: "connection refused", effect: none, says: "connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error {
			_, err := pgx.Connect(within(t, enough), "postgres://postgres@"+refuses(t)+"/postgres?sslmode=disable")
			return err
		},
	}, {
		what: "no such database", effect: none, says: "SQLSTATE 3D000", want: idemflight.Release,
		fail: func(t *testing.T) error {
			requireServer(t, "PostgreSQL", postgresAddr)
			_, err := pgx.Connect(within(t, enough), "postgres://postgres@"+postgresAddr+"/no_such_database?sslmode=disable")
			return err
		},
	}, {
		what: "unique violation", effect: none, says: "SQLSTATE 23505", want: idemflight.Release, is: sqlState("23505"),
		remark: "An earlier attempt may have made the row: `Final(err)`, or look.",
		fail: func(t *testing.T) error {
			conn, table := pgTable(t)
			pgExec(t, conn, "insert into "+table+" values (1)")
			_, err := conn.Exec(within(t, enough), "insert into "+table+" values (1)")
			return err
		},
	}, {
		what: "serialization failure", effect: none, says: "SQLSTATE 40001", want: idemflight.Release, is: sqlState("40001"),
		fail: func(t *testing.T) error {
			first, table := pgTable(t)
			pgExec(t, first, "insert into "+table+" values (1)")
			second := pgConn(t, postgresURL)
			pgExec(t, first, "begin isolation level serializable")
			pgExec(t, first, "select * from "+table)
			pgExec(t, second, "update "+table+" set id = 2")
			_, err := first.Exec(within(t, enough), "update "+table+" set id = 3")
			return err
		},
	}, {
		what: "statement_timeout", effect: none, says: "SQLSTATE 57014", want: idemflight.Release, is: sqlState("57014"),
		remark: "The statement was rolled back.",
		fail: func(t *testing.T) error {
			conn := pgConn(t, postgresURL)
			pgExec(t, conn, "set statement_timeout = 50")
			_, err := conn.Exec(within(t, enough), "select pg_sleep(60)")
			return err
		},
	}, {
		what: "pg_terminate_backend, or the server shuts down, in a statement", effect: possible, says: "SQLSTATE 57P01", want: idemflight.Hold, is: sqlState("57P01"),
		fail: func(t *testing.T) error {
			conn := pgConn(t, postgresURL)
			terminateSoon(t, conn)
			_, err := conn.Exec(within(t, enough), "select pg_sleep(60)")
			return err
		},
	}, {
		what: "the connection is cut in a statement with arguments", effect: possible, says: "unexpected EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			conn := pgConn(t, pgCutAfter(t, "cut here"))
			_, err := conn.Exec(within(t, enough), "select $1::text", "cut here")
			return err
		},
	}, {
		what: "the connection is cut in a statement without arguments", effect: possible, says: "conn closed", want: idemflight.Release,
		remark: unknowable + ": pgx returns the same error as for a connection that was closed before, and `pgconn.SafeToRetry` agrees with it. The cause is lost.",
		fail: func(t *testing.T) error {
			conn := pgConn(t, pgCutAfter(t, "pg_sleep"))
			_, err := conn.Exec(within(t, enough), "select pg_sleep(0)")
			return err
		},
	}, {
		what: "the connection is cut after COMMIT was sent, and the server commits", effect: done, says: "conn closed", want: idemflight.Release,
		remark: unknowable + ": COMMIT is a statement without arguments. BeginEffect before it, or `Unknown(err)` around what Commit returns, but for `*pgconn.PgError` and `pgx.ErrTxCommitRollback`.",
		fail: func(t *testing.T) error {
			check, table := pgTable(t)
			tx, err := pgConn(t, pgCutAfter(t, "commit")).Begin(within(t, enough))
			require.NoError(t, err)
			_, err = tx.Exec(within(t, enough), "insert into "+table+" values (1)")
			require.NoError(t, err)
			err = tx.Commit(within(t, enough))
			require.Eventually(t, func() bool {
				var n int
				require.NoError(t, check.QueryRow(within(t, enough), "select count(*) from "+table).Scan(&n))
				return n == 1
			}, enough, 10*time.Millisecond, "it was committed")
			return err
		},
	}, {
		what: "deadline of the context, in a statement", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			_, err := pgConn(t, postgresURL).Exec(within(t, hung), "select pg_sleep(60)")
			return err
		},
	}, {
		what: "COMMIT of a transaction in which a statement failed", effect: none, says: "commit unexpectedly resulted in rollback", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, pgx.ErrTxCommitRollback) },
		fail: func(t *testing.T) error {
			tx, err := pgConn(t, postgresURL).Begin(within(t, enough))
			require.NoError(t, err)
			_, err = tx.Exec(within(t, enough), "select 1/0")
			require.Error(t, err)
			return tx.Commit(within(t, enough))
		},
	}, {
		what: "a connection that was closed before", effect: none, says: "conn closed", want: idemflight.Release,
		fail: func(t *testing.T) error {
			conn := pgConn(t, postgresURL)
			require.NoError(t, conn.Close(within(t, enough)))
			_, err := conn.Exec(within(t, enough), "select 1")
			return err
		},
	}, {
		what: "a pool that is closed", effect: none, says: "closed pool", want: idemflight.Release,
		fail: func(t *testing.T) error {
			requireServer(t, "PostgreSQL", postgresAddr)
			pool, err := pgxpool.New(within(t, enough), postgresURL)
			require.NoError(t, err)
			pool.Close()
			_, err = pool.Exec(within(t, enough), "select 1")
			return err
		},
	}, {
		what: "by database/sql, pg_terminate_backend in a statement", effect: possible, says: "SQLSTATE 57P01", want: idemflight.Hold, is: sqlState("57P01"),
		fail: func(t *testing.T) error {
			conn := sqlConn(t)
			require.NoError(t, conn.Raw(func(c any) error { terminateSoon(t, c.(*stdlib.Conn).Conn()); return nil }))
			_, err := conn.ExecContext(within(t, enough), "select pg_sleep(60)")
			return err
		},
	}, {
		what: "by database/sql, a transaction that has ended", effect: none, says: "transaction has already been committed or rolled back", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, sql.ErrTxDone) },
		fail: func(t *testing.T) error {
			tx, err := sqlConn(t).BeginTx(within(t, enough), nil)
			require.NoError(t, err)
			require.NoError(t, tx.Rollback())
			return tx.Commit()
		},
	},
}}

func sqlState(state string) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == state
	}
}

func pgConn(t *testing.T, url string) *pgx.Conn {
	requireServer(t, "PostgreSQL", postgresAddr)
	conn, err := pgx.Connect(within(t, enough), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(within(t, time.Second)) })
	return conn
}

func sqlConn(t *testing.T) *sql.Conn {
	requireServer(t, "PostgreSQL", postgresAddr)
	db, err := sql.Open("pgx", postgresURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(within(t, enough))
	require.NoError(t, err)
	return conn
}

func pgExec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	_, err := conn.Exec(within(t, enough), statement)
	require.NoError(t, err, statement)
}

// pgTable makes a table with a unique id, for as long as the test runs.
func pgTable(t *testing.T) (conn *pgx.Conn, name string) {
	conn = pgConn(t, postgresURL)
	name = fmt.Sprintf("idemflight_clients_%x", rand.Uint64())
	pgExec(t, conn, "create table "+name+" (id int primary key)")
	t.Cleanup(func() {
		drop, err := pgx.Connect(context.Background(), postgresURL)
		require.NoError(t, err)
		defer drop.Close(context.Background())
		_, err = drop.Exec(context.Background(), "drop table "+name)
		require.NoError(t, err)
	})
	return conn, name
}

// terminateSoon ends the session of conn from another one, once it sleeps.
func terminateSoon(t *testing.T, conn *pgx.Conn) {
	pid := conn.PgConn().PID()
	other := pgConn(t, postgresURL)
	ended := make(chan error, 1)
	go func() {
		for {
			var ok bool
			err := other.QueryRow(context.Background(), "select coalesce((select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'), false)", pid).Scan(&ok)
			if ok || err != nil {
				ended <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { require.NoError(t, <-ended, "ending the session") })
}

// pgCutAfter is the URL of a way to the server that passes on what the client says, up to and with a
// message that has this word in it; then it hangs up on the client.
func pgCutAfter(t *testing.T, word string) string {
	requireServer(t, "PostgreSQL", postgresAddr)
	l := listens(t, func(client net.Conn) {
		server, err := net.Dial("tcp", postgresAddr)
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(client, server)
			_ = client.Close()
		}()
		buf := make([]byte, 1<<16)
		for {
			n, err := client.Read(buf)
			if err != nil {
				_ = server.Close()
				return
			}
			if containsFold(buf[:n], word) {
				_ = client.Close() // before the server can answer
				_, _ = server.Write(buf[:n])
				time.AfterFunc(time.Second, func() { _ = server.Close() })
				return
			}
			_, _ = server.Write(buf[:n])
		}
	})
	return "postgres://postgres@" + l.Addr().String() + "/postgres?sslmode=disable"
}
