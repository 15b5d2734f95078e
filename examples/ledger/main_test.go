package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(childMode) != "" {
		main()
	}
	os.Exit(m.Run())
}

// dsn returns the database of the tests, which are skipped where no server answers, or fail if servers are
// required.
func dsn(t *testing.T) string {
	dsn := os.Getenv("IDEMFLIGHT_POSTGRES")
	if dsn == "" {
		dsn = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
	}
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err, "IDEMFLIGHT_POSTGRES")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		addr := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
		if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
			t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no PostgreSQL at %s: %v", addr, err)
		}
		t.Skipf("skipped: no PostgreSQL at %s: %v", addr, err)
	}
	require.NoError(t, conn.Close(ctx))
	return dsn
}

func TestTransfersAreMadeOnce(t *testing.T) {
	s := storm{out: t.Output(), dsn: dsn(t), transfers: 60, kills: 6}
	r, err := s.run(t.Context(), together)
	require.NoError(t, err)
	require.Equal(t, result{moved: 60, kills: 6}, r)
}

// TestTheStormFindsDoubles: without SettleTx it must see what it counts.
func TestTheStormFindsDoubles(t *testing.T) {
	s := storm{out: t.Output(), dsn: dsn(t), transfers: 60, kills: 6}
	for tries := range 10 { // where in a transfer a process dies is chance
		r, err := s.run(t.Context(), apart)
		require.NoError(t, err)
		require.Equal(t, 60, r.moved)
		if r.twice > 0 {
			return
		}
		t.Logf("none in try %d", tries)
	}
	t.Fatal("no process died between the effect and its record")
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	s := storm{out: t.Output(), dsn: "postgres://nobody@" + l.Addr().String() + "/none?sslmode=disable", transfers: 2}
	err = s.play(t.Context())
	require.ErrorContains(t, err, "no PostgreSQL at "+l.Addr().String())
	require.True(t, strings.Contains(err.Error(), "-dsn"), "how to say where one is: %v", err)
}
