// Package awssqs takes payments out of an SQS queue, each once (github.com/aws/aws-sdk-go-v2/service/sqs).
//
// The key is the payment's ID, in the message: see package payment. It is not the MessageId, of which a producer's
// retry gets another one, nor the receipt handle, of which each delivery has its own. A FIFO queue drops a second
// message with the same MessageDeduplicationId if it comes within 5 minutes, and no later one.
//
//	Done      DeleteMessage, with the receipt handle of this delivery: an old one may delete nothing
//	Later     ChangeMessageVisibility to a few seconds: the message comes again after that
//	Unknown   ChangeMessageVisibility to some minutes
//	Rejected  as Unknown
//
// What no delivery settles goes to the dead-letter queue, by the queue's own redrive policy: put an alarm on its depth,
// which calls a person. Once the key is resolved, start a redrive: the message is a duplicate like any other.
//
// How long can a message come again? For as long as it is retained: 4 days by default, 14 at most; of a FIFO queue
// as long again in its dead-letter queue, where the time starts anew. So a TTL of 15 days, or 29.
//
// Traps. The visibility timeout, 30 s by default and 12 h at most, should be longer than a payment may take: what is
// delivered again meanwhile is answered Later, which is harmless but counts as a receive. maxReceiveCount must leave
// room for such and for bad hours: a bank that is down for one hour is 120 receives of each message, at 30 s. Even a
// message that was deleted can come once more, from a server that had not heard of it.
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
	unhurried = 10 * time.Minute // until the bank is asked again what became of a payment
)

// Worker takes the payments that messages ask for.
type Worker struct {
	SQS      *sqs.Client
	Queue    string // its URL
	Payments *payment.Service
	Log      *slog.Logger
}

// Run takes payments until ctx ends, for which it returns nil, or the queue cannot be asked.
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

// poll waits for some messages, and answers them.
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

// handle answers a message. One that cannot be answered comes again after its visibility timeout.
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
		log.WarnContext(ctx, "a payment may need a person", "error", why)
		err = w.hide(ctx, m, unhurried)
	}
	if err != nil {
		log.WarnContext(ctx, "a message was not answered", "error", err)
	}
}

// hide has the message come again after d.
func (w *Worker) hide(ctx context.Context, m types.Message, d time.Duration) error {
	_, err := w.SQS.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: aws.String(w.Queue), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: int32(d / time.Second),
	})
	return err
}
