package pgstore

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// TestStore_BehindPgbouncer: everything works behind a pgbouncer in transaction mode that knows no prepared
// statements; who waits for another process hears of its end by looking.
func TestStore_BehindPgbouncer(t *testing.T) {
	pool := newPool(t, "public", func(c *pgxpool.Config) { c.ConnConfig = behindPgbouncer(t) })
	require.NoError(t, Migrate(within(t, enough), pool))
	storetest.Run(t, func(t *testing.T) idemflight.Store { return open(t, pool, Options{}) })

	f := fixture{Store: open(t, pool, Options{}), t: t, pool: pool}
	c := f.claimed()
	answer := f.watch(f.ctx(), c)
	waitUntil(t, "the claim is marked, since LISTEN seems to work", func() bool { return f.marked(c) })
	f.settlesInTx(c)
	require.NoError(t, <-answer)
}

// behindPgbouncer returns how to connect to a new database, through a pgbouncer that ends with the test.
func behindPgbouncer(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	direct, err := pgx.ParseConfig(dsn())
	require.NoError(t, err)
	newSchema(t) // or skip the test, where there is no server
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
			t.Fatal("IDEMFLIGHT_SERVERS=required, and there is no pgbouncer")
		}
		t.Skip("skipped: there is no pgbouncer")
	}
	database := "idem_pgb_" + hex.EncodeToString(random(6))
	admin := func(sql string) {
		conn, err := pgx.ConnectConfig(within(t, enough), direct)
		require.NoError(t, err)
		_, err = conn.Exec(within(t, enough), sql)
		require.NoError(t, err, sql)
		require.NoError(t, conn.Close(within(t, enough)))
	}
	admin("create database " + database)

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	dir, err := os.MkdirTemp("", "pgbouncer") // which another user must be able to read
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	password := "" // the word is refused where there is none
	if direct.Password != "" {
		password = " password='" + direct.Password + "'"
	}
	settings := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `[databases]
%s = host=%s port=%d user=%s%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
`, database, direct.Host, direct.Port, direct.User, password, port), 0o644))
	args := []string{"-q", settings}
	if me, err := user.Current(); err == nil && me.Uid == "0" { // it refuses to be root
		args = append([]string{"-u", "nobody"}, args...)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr // it says what is wrong
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { // after the pools are closed
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		admin("drop database " + database + " with (force)")
	})
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	waitUntil(t, "pgbouncer answers", func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", direct.User, addr, database))
	require.NoError(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	return config
}
