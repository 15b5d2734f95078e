// Package awssqs takes payments out of an SQS queue, each once (github.com/aws/aws-sdk-go-v2/service/sqs).
//
// The key is the payment's ID, inside the message: see package payment. The MessageId is no key, because a producer's
// retry gets another one; nor is the receipt handle, because each delivery has its own. A FIFO queue drops a message
// that repeats a MessageDeduplicationId, but only for 5 minutes.
//
//	Done      DeleteMessage, with the receipt handle of this delivery: an older one may delete nothing
//	Later     ChangeMessageVisibility to half a minute: then the message comes again
//	Unknown   ChangeMessageVisibility to some minutes
//	Rejected  like Unknown
//
// The queue's redrive policy moves what no delivery settles to the dead-letter queue. Put an alarm on its depth, which
// pages somebody. Once the key is resolved, redrive the message: it is a duplicate like any other.
//
// A message can come again for as long as the queue retains it, 4 days by default and 14 at most; and from the
// dead-letter queue of a FIFO queue for as long again, since its retention starts anew there. So the TTL is 15 days, or
// 29. Set a Store: a redelivery often comes after a restart.
//
// Traps. Make the visibility timeout (30 s by default, 12 h at most) longer than a payment takes: a redelivery in the
// meantime is harmless, but counts as a receive. Let maxReceiveCount leave room for bad hours: while the bank is down,
// each message is received 120 times an hour. Even a deleted message can come once more, since SQS delivers at least
// once.
package awssqs

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/idemflight/idemflight/examples/recipes/payment"
)

const (
	soon      = 30 * time.Second // longer than a payment takes
	unhurried = 10 * time.Minute // between questions to the bank about one payment
)

// Worker takes the payments that messages ask for.
type Worker struct {
	SQS      *sqs.Client
	Queue    string // its URL
	Payments *payment.Service
	Log      *slog.Logger
}

// Run takes payments until ctx ends, and then returns nil; it returns an error if the queue does not answer.
func (w *Worker) Run(ctx context.Context) error {
	for {
		if err := w.poll(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// poll waits for messages and handles them, all at the same time.
func (w *Worker) poll(ctx context.Context) error {
	batch, err := w.SQS.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: aws.String(w.Queue), MaxNumberOfMessages: 10, WaitTimeSeconds: 20,
	})
	if err != nil {
		return err
	}
	var messages sync.WaitGroup
	for _, m := range batch.Messages {
		messages.Go(func() { w.handle(ctx, m) })
	}
	messages.Wait()
	return nil
}

// handle takes the payment of a message and tells the queue. If that fails, the message comes again after its
// visibility timeout.
func (w *Worker) handle(ctx context.Context, m types.Message) {
	log := w.Log.With("message", aws.ToString(m.MessageId))
	fate, why := w.Payments.Take(ctx, []byte(aws.ToString(m.Body)))
	var err error
	switch fate {
	case payment.Done:
		_, err = w.SQS.DeleteMessage(ctx, &sqs.DeleteMessageInput{
			QueueUrl: aws.String(w.Queue), ReceiptHandle: m.ReceiptHandle,
		})
	case payment.Later:
		err = w.hide(ctx, m, soon)
	default:
		log.WarnContext(ctx, "a payment is not settled, and its message may become a dead letter", "error", why)
		err = w.hide(ctx, m, unhurried)
	}
	if err != nil {
		log.WarnContext(ctx, "the queue was not told, so the message will come again", "error", err)
	}
}

// hide has the message redelivered after d.
func (w *Worker) hide(ctx context.Context, m types.Message, d time.Duration) error {
	_, err := w.SQS.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: aws.String(w.Queue), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: int32(d / time.Second),
	})
	return err
}
