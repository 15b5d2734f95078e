// Package franzgo takes payments out of a Kafka topic, each once (github.com/twmb/franz-go).
//
// The key is the payment's ID, inside the record's value: see package payment. The offset is no key: a producer that
// restarts before it hears the broker's answer writes the record again, at another offset. (Idempotent production
// covers only the retries of one client.) Nor is the record's key, which chooses the partition and is rightly the same
// for all payments of a customer.
//
// Kafka cannot acknowledge a single record, or redeliver it after a delay. It only knows an offset per partition, up to
// which the group has handled everything.
//
//	Done      go on to the next record
//	Later     try again here, after a pause: the partition waits, and keeps its order
//	Unknown   set aside: produce the record to the topic Aside, and go on
//	Rejected  set aside
//
// Commit after that, by hand: autocommit, the default, takes each record for handled at the next poll. Whoever consumes
// Aside, slowly, produces a record to its first topic again once the bank has answered, or somebody has resolved the key:
// it is a duplicate like any other.
//
// A record can come again for as long as the topic retains it, since somebody can reset the group's offsets: 7 days by
// default (retention.ms), so the TTL is 8 days. Set a Store: a redelivery often comes after a restart.
//
// Traps. In a rebalance another member gets the records that are being handled here, and the commit may fail. That does
// no harm, so there is no need for BlockRebalanceOnPoll, under which one slow payment can cost the membership. While a record is tried
// again, the Client's other partitions wait, too, once they have handled their share of the poll. After an error of Run
// some records are polled but not committed, and only a new Client gets them again: let the process restart.
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
	Aside    string        // topic of the records set aside
	Pause    time.Duration // between two tries of a record
	Tries    int           // of a record, before it is set aside and no longer stops its partition
	Log      *slog.Logger
}

// Run takes payments until ctx ends, and then returns nil; it returns an error if it can neither handle records nor set
// them aside.
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
	if err := w.commit(ctx, done); err != nil { // a rebalance, for example: the next owner has duplicates replayed
		w.Log.WarnContext(ctx, "not committed, so these records will come again", "error", err)
	}
	return errors.Join(errs...)
}

// inOrder handles the records of a partition, and returns those it has handled: all, or those before the error.
func (w *Worker) inOrder(ctx context.Context, records []*kgo.Record) ([]*kgo.Record, error) {
	for i, r := range records {
		if err := w.handle(ctx, r); err != nil {
			return records[:i], fmt.Errorf("partition %d, offset %d: %w", r.Partition, r.Offset, err)
		}
	}
	return records, nil
}

// commit commits the records handled, also if ctx has ended meanwhile.
func (w *Worker) commit(ctx context.Context, done []*kgo.Record) error {
	if len(done) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return w.Client.CommitRecords(ctx, done...)
}

// handle takes the payment of a record, or sets the record aside. After an error the record must not be committed.
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

// setAside produces a record to Aside.
func (w *Worker) setAside(ctx context.Context, r *kgo.Record, why error) error {
	aside := &kgo.Record{Topic: w.Aside, Key: r.Key, Value: r.Value, Headers: []kgo.RecordHeader{
		{Key: "why", Value: []byte(why.Error())},
		{Key: "from", Value: []byte(r.Topic)},
	}}
	if err := w.Client.ProduceSync(ctx, aside).FirstErr(); err != nil {
		return err
	}
	w.Log.ErrorContext(ctx, "a payment was set aside: somebody must look at it", "error", why)
	return nil
}
