// Package franzgo takes payments out of a Kafka topic, each once (github.com/twmb/franz-go).
//
// The key is the payment's ID, in the record's value: see package payment. It is not the offset: a producer that sends
// again, because it did not hear the broker's answer and was restarted, writes another record at another offset.
// (Idempotent production recognizes only what one client repeats by itself.) Nor is it the record's key, which
// chooses the partition and is rightly the same for all payments of a customer.
//
// Kafka has no acknowledgement of a single record, and no "again, later": there is only the offset up to which a
// partition has been dealt with.
//
//	Done      go on
//	Later     try again here, after a pause: the partition waits, and stays in order
//	Unknown   set aside: produced to the topic Aside, and the partition goes on
//	Rejected  set aside
//
// It is committed only after that, by hand: with autocommit, the default, a record that was polled counts as dealt
// with at the next poll. Whoever reads Aside at a slow pace produces the record again to its first topic, once the
// bank has answered or a person has resolved the key: it is a duplicate like any other.
//
// How long can a record come again? For as long as the topic retains it, 7 days by default (retention.ms), since
// offsets can be reset to the first. The TTL is longer than that.
//
// Traps. A rebalance while records are being handled gives them to another member, too: harmless here, so there is
// no need for BlockRebalanceOnPoll, with which one slow payment can cost the membership. While a record is tried
// again, the other partitions of its Client wait at the end of their batch. An error of Run means that records were polled
// and not committed: they come again only to a new Client, so let the process be restarted.
package franzgo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/idemflight/idemflight/examples/recipes/payment"
)

// Worker takes the payments that records ask for.
type Worker struct {
	Client   *kgo.Client // of a consumer group, with kgo.DisableAutoCommit
	Payments *payment.Service
	Aside    string        // the topic for records that need time, or a person
	Pause    time.Duration // before a record is tried again
	Tries    int           // after which a record is set aside, so that it does not stop its partition for ever
	Log      *slog.Logger
}

// Run takes payments until ctx ends, for which it returns nil, or until records can be neither handled nor set aside.
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

// poll waits for records, handles them, partition by partition, and commits as far as each has come.
func (w *Worker) poll(ctx context.Context) error {
	var (
		partitions sync.WaitGroup
		mu         sync.Mutex // guards what follows
		done       []*kgo.Record
		errs       []error
	)
	w.Client.PollRecords(ctx, 100).EachPartition(func(p kgo.FetchTopicPartition) {
		partitions.Go(func() {
			handled, err := w.inOrder(ctx, p.Records)
			mu.Lock()
			defer mu.Unlock()
			done = append(done, handled...)
			errs = append(errs, p.Err, err)
		})
	})
	partitions.Wait()
	return errors.Join(append(errs, w.commit(ctx, done))...)
}

// inOrder handles the records of a partition, and returns those that are dealt with: all, or those before an error.
func (w *Worker) inOrder(ctx context.Context, records []*kgo.Record) ([]*kgo.Record, error) {
	for i, r := range records {
		if err := w.handle(ctx, r); err != nil {
			return records[:i], fmt.Errorf("partition %d, offset %d: %w", r.Partition, r.Offset, err)
		}
	}
	return records, nil
}

// commit commits the last of done of each partition, also if ctx has ended meanwhile.
func (w *Worker) commit(ctx context.Context, done []*kgo.Record) error {
	if len(done) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return w.Client.CommitRecords(ctx, done...)
}

// handle deals with a record. An error means that it is not dealt with: it must not be committed.
func (w *Worker) handle(ctx context.Context, r *kgo.Record) error {
	for try := 1; ; try++ {
		fate, why := w.Payments.Take(ctx, r.Value)
		switch {
		case fate == payment.Done:
			return nil
		case fate != payment.Later || try >= w.Tries:
			return w.setAside(ctx, r, why)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(w.Pause):
		}
	}
}

// setAside puts a record where it stops nobody.
func (w *Worker) setAside(ctx context.Context, r *kgo.Record, why error) error {
	aside := &kgo.Record{Topic: w.Aside, Key: r.Key, Value: r.Value, Headers: []kgo.RecordHeader{
		{Key: "why", Value: []byte(why.Error())},
		{Key: "from", Value: []byte(r.Topic)},
	}}
	if err := w.Client.ProduceSync(ctx, aside).FirstErr(); err != nil {
		return err
	}
	w.Log.ErrorContext(ctx, "a payment was set aside", "error", why)
	return nil
}
