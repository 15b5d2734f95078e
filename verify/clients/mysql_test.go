package clients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// The server is one of the test's own, that can no more than greet and fail.
var mysqlClient = client{name: "MySQL", module: "github.com/go-sql-driver/mysql", rows: []row{
	{
		what: "connection refused", effect: none, says: "connect: connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error { return mysqlExec(t, within(t, enough), refuses(t)) },
	}, {
		what: "the server hangs up before it greets", effect: none, says: "invalid connection", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, mysql.ErrInvalidConn) },
		fail: func(t *testing.T) error {
			return mysqlExec(t, within(t, enough), listens(t, func(net.Conn) {}).Addr().String())
		},
	}, {
		what: "a connection that broke before", effect: none, says: "driver: bad connection", want: idemflight.Hold,
		remark: "Held in vain: this driver says so only of what it did not send. Others may not be as careful.",
		is:     func(err error) bool { return errors.Is(err, driver.ErrBadConn) },
		fail: func(t *testing.T) error {
			conn, err := mysqlDB(t, mysqlServer(t, func(net.Conn) {})).Conn(within(t, enough))
			require.NoError(t, err)
			_, err = conn.ExecContext(within(t, enough), "insert into charges values (1)")
			require.ErrorIs(t, err, mysql.ErrInvalidConn, "now it is broken")
			_, err = conn.ExecContext(within(t, enough), "insert into charges values (2)")
			return err
		},
	}, {
		what: "the connection is cut in a statement", effect: possible, says: "invalid connection", want: idemflight.Release,
		remark: unknowable + ": `mysql.ErrInvalidConn` is a text of the driver's own, and what the connection died of is only logged. Map it yourself: `Unknown(err)`.",
		is:     func(err error) bool { return errors.Is(err, mysql.ErrInvalidConn) },
		fail: func(t *testing.T) error {
			return mysqlExec(t, within(t, enough), mysqlServer(t, func(net.Conn) {}))
		},
	}, {
		what: "readTimeout in a statement", effect: possible, says: "invalid connection", want: idemflight.Release,
		remark: unknowable + ": the timeout becomes `mysql.ErrInvalidConn`, too.",
		is:     func(err error) bool { return errors.Is(err, mysql.ErrInvalidConn) },
		fail: func(t *testing.T) error {
			return mysqlExec(t, within(t, enough), mysqlServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "readTimeout=100ms")
		},
	}, {
		what: "deadline of the context, in a statement", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			return mysqlExec(t, within(t, hung), mysqlServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
		},
	},
	mysqlAnswer("duplicate key", 1062, "23000", none, "An earlier attempt may have made the row: `Final(err)`, or look."),
	mysqlAnswer("deadlock", 1213, "40001", none, ""),
	mysqlAnswer("lock wait timeout", 1205, "HY000", none, "The statement was rolled back; of a transaction the earlier ones were not."),
	mysqlAnswer("the server is shutting down", 1053, "08S01", possible, unknowable+": the driver keeps the state in a field, not in a method, and whether the statement was done is not in it."),
	mysqlAnswer("the connection was killed", 1317, "70100", possible, unknowable+": a COMMIT that was interrupted may have been done."),
}}

// mysqlAnswer is the row of a statement that the server answers with an error.
func mysqlAnswer(what string, number uint16, state string, e effect, remark string) row {
	return row{
		what: what, effect: e, says: "(" + state + ")", want: idemflight.Release, remark: remark,
		is: func(err error) bool { e, ok := errors.AsType[*mysql.MySQLError](err); return ok && e.Number == number },
		fail: func(t *testing.T) error {
			return mysqlExec(t, within(t, enough), mysqlServer(t, func(c net.Conn) {
				body := append([]byte{0xff, byte(number), byte(number >> 8), '#'}, state+"no"...)
				_, _ = c.Write(mysqlPacket(1, body))
				_, _ = io.Copy(io.Discard, c)
			}))
		},
	}
}

func mysqlExec(t *testing.T, ctx context.Context, addr string, params ...string) error {
	_, err := mysqlDB(t, addr, params...).ExecContext(ctx, "insert into charges values (1)")
	return err
}

func mysqlDB(t *testing.T, addr string, params ...string) *sql.DB {
	cfg, err := mysql.ParseDSN("root@tcp(" + addr + ")/bank?" + strings.Join(params, "&"))
	require.NoError(t, err)
	cfg.Logger = quiet
	connector, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// mysqlServer greets, lets everybody in, reads one statement, and leaves the answer to then.
func mysqlServer(t *testing.T, then func(net.Conn)) string {
	greeting := []byte{10}                             // version of the protocol
	greeting = append(greeting, "8.0.0\x00"...)        // of the server
	greeting = append(greeting, 1, 0, 0, 0)            // connection
	greeting = append(greeting, "saltsalt\x00"...)     // first part of the challenge
	greeting = append(greeting, 0x08, 0xa2, 33, 2, 0)  // protocol 4.1, secure connection, database; utf8, autocommit
	greeting = append(greeting, 0x08, 0x00, 21)        // authentication by plugin
	greeting = append(greeting, make([]byte, 10)...)   // reserved
	greeting = append(greeting, "saltsaltsalt\x00"...) // second part of the challenge
	greeting = append(greeting, "mysql_native_password\x00"...)
	return listens(t, func(c net.Conn) {
		_, _ = c.Write(mysqlPacket(0, greeting))
		if readMySQLPacket(c) != nil {
			return
		}
		_, _ = c.Write(mysqlPacket(2, []byte{0, 0, 0, 2, 0, 0, 0})) // OK
		if readMySQLPacket(c) == nil {
			then(c)
		}
	}).Addr().String()
}

func mysqlPacket(sequence byte, body []byte) []byte {
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(body))|uint32(sequence)<<24)
	return append(head, body...)
}

func readMySQLPacket(c net.Conn) error {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint32(head[:])&0xffffff))
	return err
}
