package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/stretchr/testify/require"
)

var quick = config{duplicates: 20, latency: 2 * time.Millisecond}

// TestSituations plays every situation with a quick bank: each must end as it says, and so with
// nobody charged twice.
func TestSituations(t *testing.T) {
	for _, s := range situations(quick) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := s.run(t.Context(), quick)
			require.Empty(t, r.wrong, "%d sent, %d charges, answers: %s", r.sent, r.charges, r.answers)
			require.False(t, r.chargedTwice, "charged twice")
		})
	}
}

// TestFailingBank: however often the bank fails, a storm charges once at most.
func TestFailingBank(t *testing.T) {
	for _, failures := range []float64{0.1, 0.5, 0.9, 1} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			t.Parallel()
			cfg := quick
			cfg.failures = failures
			r := situations(cfg)[0].run(t.Context(), cfg)
			require.Empty(t, r.wrong, "%d sent, %d charges, answers: %s", r.sent, r.charges, r.answers)
			require.LessOrEqual(t, r.charges, 1, "charges")
		})
	}
}

// TestDoubleChargeFails plants what the program must catch: the storm without the library, told as
// if one charge were expected of it.
func TestDoubleChargeFails(t *testing.T) {
	s := situations(quick)[0]
	s.world.unguarded = true
	r := s.run(t.Context(), quick)
	require.True(t, r.chargedTwice, "the judge must see %d charges for one key", r.charges)

	var out bytes.Buffer
	tab := newTable(&out)
	tab.row(r)
	tab.summary()
	require.Equal(t, exitFailed, tab.exitCode(), "exit code after a double charge")
	require.Contains(t, out.String(), "CHARGED TWICE")
	requireNarrow(t, out.String())
}

func TestPlay(t *testing.T) {
	code, stdout, stderr := runProgram(t.Context(), "-duplicates", "20", "-latency", "1ms")
	require.Zero(t, code, "exit code; output:\n%s%s", stdout, stderr)
	require.Empty(t, stderr)
	require.Contains(t, stdout, "Nobody was charged twice")
	require.NotContains(t, stdout, "\x1b", "escape sequences where there is no terminal")
	requireNarrow(t, stdout)
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, stdout, stderr := runProgram(ctx)
	require.Equal(t, exitInterrupted, code, "exit code")
	require.Empty(t, stderr)
	require.Contains(t, stdout, "Interrupted after 0 of")
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := runProgram(t.Context(), "-h")
	require.Zero(t, code, "exit code")
	require.Empty(t, stderr)
	for _, name := range []string{"-duplicates", "-latency", "-failures", "-serve", "-data"} {
		require.Contains(t, stdout, name)
	}
	requireNarrow(t, strings.ReplaceAll(stdout, "\t", "    "))
}

// TestUsage: a wrong command line is one line that names what is wrong, and exit code 2.
func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"-duplicates", "0"}, "-duplicates 0"},
		{[]string{"-duplicates", "many"}, "-duplicates"},
		{[]string{"-latency", "-1s"}, "-latency -1s"},
		{[]string{"-failures", "1.5"}, "-failures 1.5"},
		{[]string{"-failures", "NaN"}, "-failures NaN"},
		{[]string{"-unheard"}, "-unheard"},
		{[]string{"more"}, `"more"`},
		{[]string{"-serve", "localhost:0", "-data", "keys"}, "-serve and -data"},
	} {
		code, stdout, stderr := runProgram(t.Context(), tc.args...)
		require.Equal(t, exitUsage, code, "exit code of %q", tc.args)
		require.Empty(t, stdout)
		require.Contains(t, stderr, tc.says)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "lines in %q", stderr)
	}
}

// TestServe: the service is up, shows what it holds, lets an operator settle it, and ends cleanly.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-serve", "localhost:0", "-latency", "1ms"}, w, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	page := ""
	for page == "" && lines.Scan() {
		_, page, _ = strings.Cut(lines.Text(), "for a browser: ")
	}
	printed := make(chan string)
	go func() {
		rest, _ := io.ReadAll(r)
		printed <- string(rest)
	}()
	url, ok := strings.CutSuffix(page, "/idemflight")
	require.True(t, ok, "the address of the page is printed: %q", page)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	lost := newRequest("ann")
	lost.order.Card = cardTimeout
	client.Transport = &idemhttp.Transport{Base: client.Transport}
	status, _, _, err := post(ctx, client, url, lost)
	require.NoError(t, err)
	require.Equal(t, http.StatusGatewayTimeout, status)

	send := func(req *http.Request, err error) string {
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
		return string(body)
	}
	require.Contains(t, send(http.NewRequest(http.MethodGet, page, nil)), "the oldest for")
	var held struct {
		Unsettled []struct{ Entry, Version string }
	}
	require.NoError(t, json.Unmarshal([]byte(send(http.NewRequest(http.MethodGet, page+"?format=json", nil))), &held))
	require.Len(t, held.Unsettled, 1)
	form := neturl.Values{
		"do": {"took-place"}, "entry": {held.Unsettled[0].Entry}, "version": {held.Unsettled[0].Version},
		"text": {`{"id": "pay-1", "customer": "ann", "cents": 1999}`},
	}
	req, err := http.NewRequest(http.MethodPost, page, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	require.Contains(t, send(req, nil), "Done, and logged.")
	status, header, body, err := post(ctx, client, url, lost)
	require.NoError(t, err)
	require.Equal(t, "201 replayed", describe(status, header, body))
	require.Contains(t, string(body), "pay-1")

	cancel()
	require.Zero(t, <-code, "exit code")
	text := <-printed
	require.Contains(t, text, "Stopped. Charges: 1, for one key at most 1.")
	require.Contains(t, text, `msg="ideminspect: done" by="somebody at `)
}

func TestServeWhereNobodyMay(t *testing.T) {
	code, _, stderr := runProgram(t.Context(), "-serve", "no such address")
	require.Equal(t, exitFailed, code, "exit code")
	require.Equal(t, 1, strings.Count(stderr, "\n"), "lines in %q", stderr)
}

func TestDataWithoutTheGoCommand(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	code, _, stderr := runProgram(t.Context(), "-data", filepath.Join(t.TempDir(), "keys"))
	require.Equal(t, exitFailed, code, "exit code")
	require.Contains(t, stderr, "-data plays examples/durable, by the go command")
	require.Equal(t, 1, strings.Count(stderr, "\n"), "lines in %q", stderr)
}

func TestDataOutsideOfTheRepository(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	t.Chdir(t.TempDir())
	code, _, stderr := runProgram(t.Context(), "-data", "keys")
	require.Equal(t, exitFailed, code, "exit code")
	require.Contains(t, stderr, "start it in a clone of the repository")
	require.Equal(t, 1, strings.Count(stderr, "\n"), "lines in %q", stderr)
}

// TestCurlCommands pastes what -serve prints into a shell.
func TestCurlCommands(t *testing.T) {
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	w, err := newWorld(quick, worldOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, w.srv.stop(t.Context())) }()

	commands := strings.Join(curlCommands(w.srv.url), "\n")
	requireNarrow(t, commands)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", commands).Output()
	require.NoError(t, err)
	var statuses []string
	for line := range strings.Lines(string(out)) {
		if status, ok := strings.CutPrefix(line, "HTTP/1.1 "); ok {
			statuses = append(statuses, status[:3])
		}
	}
	require.Equal(t, []string{"201", "201", "422", "400", "402", "402", "504", "201"}, statuses, "of\n%s", commands)
	require.Equal(t, 3, strings.Count(string(out), "Idempotent-Replayed: true"), "replays in\n%s", out)
}

// TestDeclinedSurvivesRestart: a refusal is an answer too, and is the same one after a restart.
func TestDeclinedSurvivesRestart(t *testing.T) {
	w, err := newWorld(quick, worldOptions{})
	require.NoError(t, err)
	r := newRequest("ann")
	r.order.Card = cardDeclined
	w.pay(t.Context(), r)

	require.NoError(t, w.srv.stop(t.Context()))
	keys := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, w.srv.shop.saveKeys(keys))
	require.NoError(t, w.open(worldOptions{}, keys))
	defer func() { require.NoError(t, w.srv.stop(t.Context())) }()

	w.pay(t.Context(), r)
	require.Equal(t, "402 declined, 402 replayed", w.seen())
	e, ok, _ := w.srv.shop.cache.Lookup(t.Context(), r.key)
	require.True(t, ok, "the key is kept")
	require.Equal(t, idemflight.Retained, e.State)
	require.NoError(t, e.Err)
	require.Equal(t, "declined\n", string(e.Value.Body))
}

func TestRestoreRefusesWhatItCannotRead(t *testing.T) {
	for _, text := range []string{
		``,
		`{}`,
		`[{"key":{"Scope":"ann","ID":"1"},"state":"melted"}]`,
		`[{"key":{"Scope":"ann","ID":"1"},"state":"held","fingerprint":"abc"}]`,
		`[{"key":{"Scope":"ann"},"state":"held"}]`,
	} {
		s, err := newShop(newBank(0, 0), &database{}, shopOptions{})
		require.NoError(t, err)
		keys := filepath.Join(t.TempDir(), "keys")
		require.NoError(t, os.WriteFile(keys, []byte(text), 0o600))
		require.Error(t, s.restoreKeys(context.Background(), keys), "of %s", text)
		require.Zero(t, s.cache.Len(), "restored from %s", text)
	}
}

func runProgram(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func requireNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), width, "columns of %q", line)
	}
}
