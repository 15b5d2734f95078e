package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"golang.org/x/sync/errgroup"
)

const (
	// maxConns is how many requests of a storm are under way at once; each costs two files.
	maxConns = 1000
	// A client of a storm tries so often, so far apart, where trying again may help.
	maxTries   = 6
	retryPause = 20 * time.Millisecond
)

// world is what one situation takes place in: a bank, a database, a shop that listens on a port of
// its own, and clients that note what they send and see.
type world struct {
	cfg    config
	bank   *bank
	db     *database
	srv    *server
	client *http.Client

	background sync.WaitGroup // requests that nobody waits for yet

	mu      sync.Mutex // guards what follows
	sent    int
	answers []string                    // in the order of the requests, or sorted after a storm
	paid    map[idemflight.Key][]string // the different payments that clients were told of
	trouble error                       // the last request that failed to get an answer
}

// worldOptions is how the world of a situation differs from the usual one.
type worldOptions struct {
	ttl       time.Duration
	failures  float64
	unguarded bool // without the cache
}

func newWorld(cfg config, opts worldOptions) (*world, error) {
	w := &world{
		cfg:  cfg,
		bank: newBank(cfg.latency, opts.failures),
		db:   &database{},
		client: &http.Client{Transport: &idemhttp.Transport{Base: &http.Transport{
			MaxConnsPerHost: maxConns,
			// net/http sends a request with an Idempotency-Key again by itself when a connection
			// that was used before breaks. Welcome elsewhere; here requests are counted.
			DisableKeepAlives: true,
		}}},
		paid: make(map[idemflight.Key][]string),
	}
	return w, w.open(opts, "")
}

// open starts a shop in this world, with the keys that were saved in a file, if there is one.
func (w *world) open(opts worldOptions, keys string) error {
	s, err := newShop(w.bank, w.db, shopOptions{ttl: opts.ttl})
	if err != nil {
		return err
	}
	if keys != "" {
		if err := s.restoreKeys(context.Background(), keys); err != nil {
			return err
		}
	}
	handler := s.handler()
	if opts.unguarded {
		handler = http.HandlerFunc(s.payUnguarded)
	}
	srv, err := listen("127.0.0.1:0", s, handler)
	if err != nil {
		return err
	}
	w.srv = srv
	return nil
}

// request is what a client asks for.
type request struct {
	key   idemflight.Key // the customer, and the key's ID; without ID no key is sent
	order order
}

// newRequest returns an order of a customer with a key of its own: made once, outside of any retry.
func newRequest(customer string) request {
	return request{
		key:   idemflight.Key{Scope: customer, ID: idemflight.NewID()},
		order: order{Cents: 1999, Card: cardGood},
	}
}

// pay sends a request and notes the answer. A client whose ctx ends hangs up.
func (w *world) pay(ctx context.Context, r request) {
	label, _ := w.send(ctx, r)
	w.note(label)
}

// payInBackground is pay without waiting for it; done is closed once the answer is noted.
func (w *world) payInBackground(ctx context.Context, r request) (done <-chan struct{}) {
	noted := make(chan struct{})
	w.background.Go(func() {
		defer close(noted)
		w.pay(ctx, r)
	})
	return noted
}

// payAgain sends a request n times, one after the other.
func (w *world) payAgain(ctx context.Context, r request, n int) {
	for range n {
		w.pay(ctx, r)
	}
}

// storm sends a request n times at once, each from a client of its own, which tries again where it
// may help. It returns an error if ctx ended meanwhile.
func (w *world) storm(ctx context.Context, r request, n int) error {
	var clients errgroup.Group
	for range n {
		clients.Go(func() error {
			for try := 1; ; try++ {
				label, retry := w.send(ctx, r)
				w.note(label)
				if !retry || try == maxTries {
					return nil
				}
				if err := sleep(ctx, retryPause); err != nil {
					return err
				}
			}
		})
	}
	err := clients.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.answers)
	return err
}

func (w *world) note(label string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, label)
}

// send sends a request and returns the answer as a few words, and whether the same request may get
// another answer later.
func (w *world) send(ctx context.Context, r request) (label string, retry bool) {
	w.mu.Lock()
	w.sent++
	w.mu.Unlock()

	status, header, body, err := post(ctx, w.client, w.srv.url, r)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.trouble = err
		if ctx.Err() != nil {
			return "hung up", false
		}
		return "cut off", false
	}
	if status == http.StatusCreated {
		w.told(r.key, string(body))
	}
	// With the same key there is no harm in asking again, also where the outcome is unknown: this
	// service asks the bank then.
	retry = status == http.StatusConflict || status >= 500
	return describe(status, header, body), retry
}

// describe returns the status of an answer, whether it is a replay, and what else it says in a word.
func describe(status int, header http.Header, body []byte) string {
	word := ""
	switch {
	case header.Get("Idempotent-Replayed") == "true":
		word = " replayed"
	case header.Get("Content-Type") == "application/problem+json": // of idemhttp; the type names it
		var p idemhttp.Problem
		_ = json.Unmarshal(body, &p) // on an error there is no word
		_, kind, _ := strings.Cut(p.Type, "#problem-")
		word = " " + kind
	case status >= 400: // of the shop
		what, _, _ := strings.Cut(string(body), ":")
		word = " " + strings.TrimSpace(what)
	}
	return fmt.Sprint(status) + word
}

func post(
	ctx context.Context, client *http.Client, url string, r request,
) (status int, header http.Header, body []byte, err error) {
	if r.key.ID != "" {
		ctx = idemhttp.WithKey(ctx, r.key.ID) // idemhttp.Transport puts it into the header
	}
	text, err := json.Marshal(r.order)
	if err != nil {
		return 0, nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/payments", bytes.NewReader(text))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Customer", r.key.Scope)
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}

// told notes a payment that a client was told of.
func (w *world) told(key idemflight.Key, payment string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.paid[key], payment) {
		w.paid[key] = append(w.paid[key], payment)
	}
}

// seen returns the answers, those that follow each other counted.
func (w *world) seen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var parts []string
	for i := 0; i < len(w.answers); {
		n := 1
		for i+n < len(w.answers) && w.answers[i+n] == w.answers[i] {
			n++
		}
		parts = append(parts, times(n, w.answers[i]))
		i += n
	}
	return strings.Join(parts, ", ")
}

// times returns "3x what", and "what" for 1; nothing for 0.
func times(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return what
	}
	return fmt.Sprintf("%dx %s", n, what)
}
