// Package natsjs takes payments out of a NATS JetStream stream, each once (github.com/nats-io/nats.go/jetstream).
//
// The key is the payment's ID, in the message: see package payment. It is not the stream sequence, which a producer's
// retry increments. Nor is it the header Nats-Msg-Id, with which the server drops a duplicate that comes within the
// stream's Duplicates window, 2 minutes by default, and no later one. Set the header all the same: it saves deliveries.
//
//	Done      Ack: if it is lost, the message comes again and is answered from the record
//	Later     NakWithDelay: a plain Nak is delivered again at once, and BackOff is not for naks
//	Unknown   NakWithDelay, longer; after Patience deliveries it is set aside
//	Rejected  set aside: published to the subject Aside, then acknowledged
//
// Set aside means that a person is called. Once the key is resolved, publish the message again to its first subject: it
// is a duplicate like any other.
//
// How long can a message come again? For as long as it is in the stream, and MaxAge is without limit by default: a
// consumer that is deleted and made anew starts from the first message. So set MaxAge, and a TTL that is longer.
//
// Traps. AckWait, 30 s by default, runs from the delivery, and Consume fetches 500 messages ahead: what waits behind
// a slow payment is delivered again elsewhere. That is harmless here, and costs a delivery; PullMaxMessages keeps it
// rare. A message that waits out its delay counts for MaxAckPending, 1,000 by default: that many held payments stop
// the consumer. Leave MaxDeliver unlimited: the server gives up on what exceeds it, and only an advisory says so.
package natsjs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/idemflight/idemflight/examples/recipes/payment"
)

const (
	soon      = 5 * time.Second // about as long as a payment takes
	unhurried = 5 * time.Minute // until the bank is asked again what became of a payment
)

// Worker takes the payments that messages ask for.
type Worker struct {
	Payments *payment.Service
	Aside    string // the subject for messages that need a person; a stream must have it
	Patience uint64 // deliveries after which an unknown outcome is one for a person: 100 are a working day
	JS       jetstream.Publisher
	Log      *slog.Logger
}

// Run takes payments until ctx ends, for which it returns nil, or the consumer is deleted.
func (w *Worker) Run(ctx context.Context, consumer jetstream.Consumer) error {
	running, err := consumer.Consume(func(msg jetstream.Msg) {
		if err := w.handle(ctx, msg); err != nil {
			w.Log.ErrorContext(ctx, "a message was not answered, and will come again after AckWait", "error", err)
		}
	}, jetstream.PullMaxMessages(10))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		running.Stop() // what has been fetched and not begun comes again
		<-running.Closed()
		return nil
	case <-running.Closed():
		return errors.New("natsjs: the consumer does not exist any more")
	}
}

// handle answers a message. An error means that it is not answered.
func (w *Worker) handle(ctx context.Context, msg jetstream.Msg) error {
	delivery, err := msg.Metadata()
	if err != nil {
		return err
	}
	fate, why := w.Payments.Take(ctx, msg.Data())
	switch {
	case fate == payment.Done:
		return msg.Ack()
	case fate == payment.Later:
		return msg.NakWithDelay(soon)
	case fate == payment.Unknown && delivery.NumDelivered < w.Patience:
		return msg.NakWithDelay(unhurried)
	default:
		return w.setAside(ctx, msg, why)
	}
}

// setAside puts a message where a person looks. If that fails it is not acknowledged.
func (w *Worker) setAside(ctx context.Context, msg jetstream.Msg, why error) error {
	aside := &nats.Msg{Subject: w.Aside, Data: msg.Data(), Header: nats.Header{
		"Why":  {why.Error()},
		"From": {msg.Subject()},
	}}
	if _, err := w.JS.PublishMsg(ctx, aside); err != nil {
		return err
	}
	w.Log.ErrorContext(ctx, "a payment needs a person", "error", why)
	return msg.Ack()
}
