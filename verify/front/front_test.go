package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(serverConfig) != "" {
		main()
	}
	os.Exit(m.Run())
}

// smallStorm is a storm of some seconds. The test is skipped where there is no nginx or PostgreSQL, or fails if servers
// are required.
func smallStorm(t *testing.T) storm {
	if testing.Short() {
		t.Skip("skipped: a storm takes some seconds")
	}
	missing := t.Skipf
	if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("nginx"); err != nil {
		missing("there is no nginx: %v", err)
	}
	s := storm{out: t.Output(), dsn: defaultDSN, lasts: 3 * time.Second, rate: 40}
	if dsn := os.Getenv("IDEMFLIGHT_POSTGRES"); dsn != "" {
		s.dsn = dsn
	}
	config, err := pgx.ParseConfig(s.dsn)
	require.NoError(t, err, "IDEMFLIGHT_POSTGRES")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		missing("there is no PostgreSQL at %s: %v", net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), err)
	}
	require.NoError(t, conn.Close(ctx))
	return s
}

func TestOrdersAreChargedOnce(t *testing.T) {
	s := smallStorm(t)
	for _, m := range []mode{rolling, killing} {
		t.Run(m.name, func(t *testing.T) {
			got, err := s.run(t.Context(), m)
			require.NoError(t, err)
			t.Logf("\n%s\n%s", tableHead, got.row(m.name))
			require.NoError(t, got.verdict(m))
			require.Equal(t, got.orders, got.charges)
		})
	}
}

// TestTheStormFindsDoubles: without idemhttp it must see what it counts.
func TestTheStormFindsDoubles(t *testing.T) {
	got, err := smallStorm(t).run(t.Context(), control)
	require.NoError(t, err)
	t.Logf("\n%s\n%s", tableHead, got.row(control.name))
	require.NoError(t, got.verdict(control))
}

func TestTallyFindsWhatItCounts(t *testing.T) {
	const order = "order-0"
	one, other, refusal := answer{201, 1}, answer{201, 2}, answer{status: 409}
	for name, c := range map[string]struct {
		charges []int64
		answers []answer
		want    tally
	}{
		"charged and told":           {[]int64{1}, []answer{one}, tally{charges: 1}},
		"charged twice":              {[]int64{1, 2}, []answer{one}, tally{charges: 2, twice: 1}},
		"told, not charged":          {nil, []answer{one}, tally{uncharged: 1}},
		"told of another charge":     {[]int64{1}, []answer{other}, tally{charges: 1, uncharged: 1}},
		"told two things, both true": {[]int64{1, 2}, []answer{one, other}, tally{charges: 2, twice: 1, contradicted: 1}},
		"told two things, one true":  {[]int64{1}, []answer{one, other}, tally{charges: 1, uncharged: 1, contradicted: 1}},
		"served, and then refused":   {[]int64{1}, []answer{one, refusal}, tally{charges: 1, contradicted: 1}},
		"charged, and refused":       {[]int64{1}, []answer{refusal}, tally{charges: 1, unserved: 1}},
		"charged, not told":          {[]int64{1}, nil, tally{charges: 1, unserved: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got := tally{orders: 1, restarts: 1, resent: 1}
			got.count(map[string][]int64{order: c.charges}, answers{order: c.answers})
			c.want.orders, c.want.restarts, c.want.resent = 1, 1, 1
			require.Equal(t, c.want, got)
			require.Equal(t, name != "charged and told", got.verdict(rolling) != nil, "the verdict")
		})
	}
}

func TestAnswersThatDifferAreKept(t *testing.T) {
	told := answers{}
	require.NoError(t, told.add("order-1", 201, receipt{"order-1", 7}.body()))
	require.NoError(t, told.add("order-1", 201, receipt{"order-1", 7}.body()), "the same again")
	require.NoError(t, told.add("order-1", 201, receipt{"order-1", 8}.body()))
	require.NoError(t, told.add("order-1", 409, []byte("no")))
	require.NoError(t, told.add("order-2", 409, []byte("no")))
	require.Equal(t, answers{"order-1": {{201, 7}, {201, 8}, {409, 0}}, "order-2": {{409, 0}}}, told)
	require.Error(t, told.add("order-1", 201, receipt{"order-2", 9}.body()), "the receipt of another order")
	require.Error(t, told.add("order-1", 201, nil), "no receipt")
}

func TestStormThatDoesNotBiteIsAnError(t *testing.T) {
	require.Error(t, tally{orders: 1, resent: 1}.verdict(rolling), "without a restart")
	require.Error(t, tally{orders: 1, restarts: 1}.verdict(rolling), "without a request that nginx sends again")
	require.Error(t, tally{orders: 1, restarts: 1, resent: 1}.verdict(control), "without doubles in the control")
	require.NoError(t, tally{orders: 1, restarts: 1, resent: 1, twice: 1}.verdict(control))
}

func TestClientsSendAgainByTheRule(t *testing.T) {
	const problem = "application/problem+json"
	for name, c := range map[string]struct {
		status                  int
		contentType, retryAfter string
		want                    bool
	}{
		"a receipt":             {status: 201},
		"a refusal":             {status: 422},
		"a problem that stays":  {status: 409, contentType: problem},
		"a problem that passes": {status: 409, contentType: problem, retryAfter: "1", want: true},
		"failed for good":       {status: 500, contentType: problem},
		"a handler that fails":  {status: 500, contentType: "text/plain", want: true},
		"nginx without servers": {status: 502, contentType: "text/html", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			answer := &http.Response{StatusCode: c.status, Header: http.Header{}}
			answer.Header.Set("Content-Type", c.contentType)
			answer.Header.Set("Retry-After", c.retryAfter)
			require.Equal(t, c.want, again(answer, nil))
		})
	}
	require.True(t, again(nil, errors.New("no answer")))
}
