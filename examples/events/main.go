// Events is a consumer of an at-least-once stream: it gets duplicates while it is at work, events
// again because its acknowledgement was lost, and events again because it failed. Each is handled
// once, and the log shows which deliveries found an earlier one.
//
//	go run ./examples/events
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/idemflight/idemflight"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "events:", err)
		os.Exit(1)
	}
}

// consumer sends one mail for each event.
type consumer struct {
	handled *idemflight.Cache[string, struct{}] // no value to remember, only that it was done

	sent      []string
	mailDown  bool
	meanwhile func(event string) // what goes on while a mail is being sent
}

// deliver handles one delivery; nil acknowledges it, else the stream delivers the event again.
func (c *consumer) deliver(ctx context.Context, event string) error {
	_, err := c.handled.Do(ctx, event, func(ctx context.Context) (struct{}, error) {
		idemflight.NoEffect(ctx)                            // up to here it is not,
		if err := idemflight.BeginEffect(ctx); err != nil { // from here on the mail may be out
			return struct{}{}, err
		}
		err := c.mail(event)
		if errors.Is(err, errRefused) {
			idemflight.NoEffect(ctx) // it is certainly not, so the next delivery tries again
		}
		return struct{}{}, err
	})
	return err
}

type deliveryKey struct{}

// observer logs what became of each delivery. The event of a call comes with the context of that
// call, so the log can tell what the cache does not know: the number of the delivery.
func observer(log *slog.Logger) func(context.Context, idemflight.Event[string]) {
	return func(ctx context.Context, e idemflight.Event[string]) {
		numbered := log.With("delivery", ctx.Value(deliveryKey{}))
		idemflight.LogEvents[string](numbered)(ctx, e)
	}
}

func run(out io.Writer) error {
	var log bytes.Buffer
	text := slog.NewTextHandler(&log, &slog.HandlerOptions{
		Level:       slog.LevelDebug, // what goes as planned is logged at this level
		ReplaceAttr: brief,
	})
	handled, err := idemflight.New(idemflight.Options[string, struct{}]{
		TTL:      24 * time.Hour, // longer than the stream goes on delivering an event
		Observer: observer(slog.New(text)),
	})
	if err != nil {
		return err
	}
	c := &consumer{handled: handled}
	deliver := func(number int, event string) error {
		return c.deliver(context.WithValue(context.Background(), deliveryKey{}, number), event)
	}

	duplicate := make(chan error, 1) // comes while the first delivery is at work: it waits, too
	c.meanwhile = func(event string) {
		go func() { duplicate <- deliver(2, event) }()
		for e, _, _ := handled.Lookup(context.Background(), event); e.Waiters == 0; e, _, _ = handled.Lookup(context.Background(), event) {
			time.Sleep(time.Millisecond)
		}
	}
	first, second := deliver(1, "signup-1"), <-duplicate
	c.meanwhile = nil
	lostAck := deliver(3, "signup-1")
	c.mailDown = true
	failed := deliver(4, "signup-2")
	c.mailDown = false
	retried, again := deliver(5, "signup-2"), deliver(6, "signup-2")

	lines := bytes.SplitAfter(log.Bytes(), []byte("\n"))
	slices.SortFunc(lines, bytes.Compare) // 1 and 2 end together and log in either order
	fmt.Fprintf(out, "%s\nmails sent: %q\n", bytes.Join(lines, nil), c.sent)

	if err := errors.Join(first, second, lostAck, retried, again); err != nil {
		return fmt.Errorf("only the fourth delivery was to fail: %w", err)
	}
	if failed == nil {
		return errors.New("the fourth delivery was to fail")
	}
	if !slices.Equal(c.sent, []string{"signup-1", "signup-2"}) {
		return fmt.Errorf("one mail for each event was to be sent, not %q", c.sent)
	}
	return nil
}

// brief drops what differs from run to run, or is the same in every line.
func brief(_ []string, a slog.Attr) slog.Attr {
	if slices.Contains([]string{slog.TimeKey, slog.LevelKey, slog.MessageKey, "took"}, a.Key) {
		return slog.Attr{}
	}
	return a
}

var errRefused = errors.New("refused")

func (c *consumer) mail(event string) error {
	if c.mailDown {
		return errRefused
	}
	if c.meanwhile != nil {
		c.meanwhile(event)
	}
	c.sent = append(c.sent, event)
	return nil
}
