package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/ideminspect"
)

// serve keeps a shop up until ctx ends, and tells how to try it.
func serve(ctx context.Context, cfg config, out io.Writer) error {
	b := newBank(cfg.latency, cfg.failures)
	out = &lockedWriter{out: out}
	s, err := newShop(b, &database{}, shopOptions{
		log:      log.New(out, " ", log.Ltime|log.Lmsgprefix),
		observer: printEvents(out),
	})
	if err != nil {
		return err
	}
	page, err := operatorsPage(s, out)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler())
	mux.Handle(operatorsPath, page)
	srv, err := listen(cfg.serve, s, mux)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Serving on %s, until Ctrl-C.\n", srv.url)
	fmt.Fprintf(out, "What it holds, for a browser: %s%s\n", srv.url, operatorsPath)
	fmt.Fprint(out, "To try in another terminal:\n\n")
	for _, line := range curlCommands(srv.url) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintln(out, "\nWhat becomes of the requests:")

	select {
	case <-ctx.Done():
	case err := <-srv.served:
		return errors.Join(err, s.cache.Close(context.WithoutCancel(ctx)))
	}
	fmt.Fprintln(out, "\nStopping: no new requests, those under way go on to their end.")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	err = srv.stop(stopping)
	charges, most := b.Charges()
	fmt.Fprintf(out, "Stopped. Charges: %d, for one key at most %d.\n", charges, most)
	return err
}

// operatorsPath is where the page for operators is.
const operatorsPath = "/idemflight"

// operatorsPage returns the page for operators, who may act. A real service mounts it behind its own
// authentication, on a port that customers cannot reach.
func operatorsPage(s *shop, out io.Writer) (*ideminspect.Page, error) {
	page, err := ideminspect.New(ideminspect.Options{
		Write:  true,
		Actor:  func(r *http.Request) (string, error) { return "somebody at " + r.RemoteAddr, nil }, // in place of a login
		Logger: slog.New(slog.NewTextHandler(out, nil)),
	})
	if err != nil {
		return nil, err
	}
	ideminspect.Add(page, "payments", s.cache, ideminspect.View[idemflight.Key, *idemhttp.Response]{
		Value: func(r *idemhttp.Response) string { return fmt.Sprintf("%d %s", r.Status, r.Body) },
		ParseValue: func(text string) (*idemhttp.Response, error) { // what the bank's books say, as a client is to see it
			var p payment
			if err := json.Unmarshal([]byte(text), &p); err != nil || p.ID == "" {
				return nil, errors.New(`the payment, please: {"id": "pay-1", "customer": "ann", "cents": 1999}`)
			}
			return created(p)
		},
	})
	return page, nil
}

// curlCommands returns commands to paste into a shell, with comments free of what would mean
// something to a shell that knows no comments at its prompt.
func curlCommands(url string) []string {
	curl := func(about, key, cents, card string) []string {
		lines := []string{
			"# " + about,
			`curl -i -w '\n' ` + url + "/payments -H 'X-Customer: ann' \\",
		}
		if key != "" {
			lines = append(lines, "  -H 'Idempotency-Key: "+key+"' \\")
		}
		return append(lines, "  -d '{\"cents\": "+cents+", \"card\": \""+card+"\"}'")
	}
	paid, declined, lost := idemflight.NewID(), idemflight.NewID(), idemflight.NewID()
	return slices.Concat(
		curl("first charge: 201", paid, "1999", cardGood),
		curl("again: 201 replayed, see the header Idempotent-Replayed", paid, "1999", cardGood),
		curl("same key, other amount: 422", paid, "2999", cardGood),
		curl("no key: 400", "", "1999", cardGood),
		curl("declined card: 402", declined, "1999", cardDeclined),
		curl("again: 402 replayed, the bank is not asked", declined, "1999", cardDeclined),
		curl("the answer of the bank gets lost: 504", lost, "1999", cardTimeout),
		curl("again: the bank has booked it, 201", lost, "1999", cardTimeout),
	)
}

// printEvents returns an observer that prints a line of at most 80 columns for each event.
func printEvents(out io.Writer) func(context.Context, idemflight.Event[idemflight.Key]) {
	return func(_ context.Context, e idemflight.Event[idemflight.Key]) {
		// Quoted and cut: what clients send is not to play tricks on the terminal.
		key := fmt.Sprintf("%.8q/%.8q", e.Key.Scope, e.Key.ID)
		became := ""
		switch e.Kind {
		case idemflight.EventExecuted, idemflight.EventReconciled, idemflight.EventFinished:
			became = e.Disposition.String()
		}
		line := fmt.Sprintf("%s  %-11v %-7s %-16s %6v",
			time.Now().Format(time.TimeOnly), e.Kind, became, key, e.Took.Round(time.Millisecond))
		if e.Err != nil {
			first, _, _ := strings.Cut(e.Err.Error(), "\n")
			line += "  " + strings.TrimPrefix(first, "idemflight: ")
		}
		if r := []rune(line); len(r) > width {
			line = string(r[:width-3]) + "..."
		}
		fmt.Fprintln(out, line)
	}
}

// lockedWriter lets several goroutines write lines.
type lockedWriter struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}
