// Package natsjs takes payments out of a NATS JetStream stream, each once (github.com/nats-io/nats.go/jetstream).
//
// The key is the payment's ID, inside the message: see package payment. The stream sequence is no key, because a
// producer's retry gets another one. Nor is the header Nats-Msg-Id: with it the server drops a second message, but only
// within the stream's Duplicates window, 2 minutes by default. Set the header all the same, since it saves deliveries.
//
//	Done      Ack: if it gets lost, the message comes again and is answered from the record
//	Later     NakWithDelay: the server redelivers after a plain Nak at once, and BackOff does not apply to naks
//	Unknown   NakWithDelay, longer; after Patience deliveries set aside
//	Rejected  set aside
//
// To set a message aside, the worker publishes it to the subject Aside, pages somebody and acknowledges it. Once the key
// is resolved, publish the message to its first subject again: it is a duplicate like any other.
//
// A message can come again for as long as it is in the stream, since a consumer that is created anew starts with the
// first message. MaxAge is unlimited by default: set it, and a TTL that is longer, 8 days for a MaxAge of 7. Set a
// Store, too: a redelivery often comes after a restart.
//
// Traps. AckWait, 30 s by default, runs from the delivery, and Consume fetches 500 messages ahead: those that queue
// behind a slow payment are redelivered elsewhere. That does no harm here, but costs deliveries; PullMaxMessages keeps
// it rare. A message waiting out its delay counts towards MaxAckPending, 1,000 by default: 1,000 held payments stop
// the consumer. Leave MaxDeliver unlimited: the server gives up on what exceeds it, and tells only by an advisory.
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
	unhurried = 5 * time.Minute // between questions to the bank about one payment
)

// Worker takes the payments that messages ask for.
type Worker struct {
	Payments *payment.Service
	Aside    string // subject of the messages set aside; a stream must have it
	Patience uint64 // deliveries after which a message with an unknown outcome is set aside: 100 take a working day
	JS       jetstream.Publisher
	Log      *slog.Logger
}

// Run takes payments until ctx ends, and then returns nil; it returns an error if somebody deletes the consumer.
func (w *Worker) Run(ctx context.Context, consumer jetstream.Consumer) error {
	running, err := consumer.Consume(func(msg jetstream.Msg) {
		if err := w.handle(ctx, msg); err != nil {
			w.Log.ErrorContext(ctx, "the server was not told, so the message will come again after AckWait", "error", err)
		}
	}, jetstream.PullMaxMessages(10))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		running.Stop() // the messages that it has fetched ahead come again
		<-running.Closed()
		return nil
	case <-running.Closed():
		return errors.New("natsjs: the consumer has been deleted")
	}
}

// handle takes the payment of a message and tells the server. An error means that the server was not told.
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

// setAside publishes a message to Aside, and only then acknowledges it.
func (w *Worker) setAside(ctx context.Context, msg jetstream.Msg, why error) error {
	aside := &nats.Msg{Subject: w.Aside, Data: msg.Data(), Header: nats.Header{
		"Why":  {why.Error()},
		"From": {msg.Subject()},
	}}
	if _, err := w.JS.PublishMsg(ctx, aside); err != nil {
		return err
	}
	w.Log.ErrorContext(ctx, "a payment was set aside: somebody must look at it", "error", why)
	return msg.Ack()
}
