package franzgo

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/examples/recipes/payment"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

const (
	topic  = "payments"
	aside  = "payments-aside"
	enough = 20 * time.Second // for what is expected to take no time at all

	rent     = `{"customer":"ann","id":"rent","cents":900}`
	moreRent = `{"customer":"ann","id":"rent","cents":1000}`
	bobsRent = `{"customer":"bob","id":"rent","cents":700}`
	rentKey  = "ann/rent"
)

func TestADuplicateByTheProducer(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)

	require.Equal(t, []int64{0, 1}, b.produce(t, rent, rent), "what the broker numbers is no key")
	w.pollUntil(t, 2)
	bank.RequireOnce(t, rentKey)
	require.Empty(t, b.aside(t))
}

// TestARedeliveryByTheBroker: the first process took the payment, and died before it had committed the offset.
func TestARedeliveryByTheBroker(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	store := storetest.Mem()

	b.produce(t, rent)
	first := b.worker(t, &bank, store)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}})
	require.NoError(t, first.poll(within(t)))
	require.Less(t, first.committed(), int64(1))
	bank.RequireOnce(t, rentKey)
	first.Client.Close()

	b.worker(t, &bank, store).pollUntil(t, 1)
	bank.RequireOnce(t, rentKey)
}

func TestAnotherPaymentUnderTheSameID(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)

	b.produce(t, rent, moreRent)
	w.pollUntil(t, 2)
	require.Equal(t, []string{moreRent}, b.aside(t))
	bank.RequireOnce(t, rentKey)
	require.Equal(t, 900, bank.Books()[rentKey][0].Amount)
}

func TestWhatFailedBeforeAnyEffectIsTriedAgain(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	bank.Script(rentKey, idemtest.Refuse, idemtest.Refuse)
	w := b.worker(t, &bank, nil)

	b.produce(t, rent)
	w.pollUntil(t, 1)
	bank.RequireOnce(t, rentKey)
	require.Empty(t, b.aside(t))
}

func TestARecordDoesNotStopItsPartitionForEver(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	bank.Script(rentKey, idemtest.Refuse, idemtest.Refuse, idemtest.Refuse)
	w := b.worker(t, &bank, nil)

	b.produce(t, rent, bobsRent)
	w.pollUntil(t, 2)
	require.Equal(t, []string{rent}, b.aside(t))
	require.NotContains(t, bank.Books(), rentKey)
	bank.RequireOnce(t, "bob/rent")
}

// TestAHeldPayment is set aside while its partition goes on. What is produced again from there asks the bank.
func TestAHeldPayment(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	bank.Script(rentKey, idemtest.LoseAnswer)
	w := b.worker(t, &bank, nil)

	b.produce(t, rent, bobsRent)
	w.pollUntil(t, 2)
	bank.RequireOnce(t, rentKey, "bob/rent")
	require.Equal(t, []string{rent}, b.aside(t))

	b.produce(t, b.aside(t)...)
	w.pollUntil(t, 3)
	bank.RequireOnce(t, rentKey)
	require.Len(t, b.aside(t), 1, "the bank has answered")
}

// TestARecordThatCannotBeSetAsideIsNotCommitted: it would be lost. What came before it is.
func TestARecordThatCannotBeSetAsideIsNotCommitted(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)
	w.Aside = "no-such-topic"

	b.produce(t, rent, "rent, please", bobsRent)
	var err error
	for ctx := within(t); err == nil; {
		err = w.poll(ctx)
	}
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
	require.EqualValues(t, 1, w.committed())
	require.NotContains(t, bank.Books(), "bob/rent", "in order")
}

// TestRunEnds while a record waits to be tried again, which is then the next process's.
func TestRunEnds(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	ctx, stop := context.WithCancel(within(t))
	bank.Script("bob/rent", idemtest.Refuse.During(func(context.Context) { stop() }))
	w := b.worker(t, &bank, nil)
	w.Pause = time.Hour

	b.produce(t, rent, bobsRent)
	require.NoError(t, w.Run(ctx))
	require.NoError(t, w.Payments.Close(t.Context()))
	require.EqualValues(t, 1, w.committed())
	w.Client.Close()

	b.worker(t, &bank, nil).pollUntil(t, 2)
	bank.RequireOnce(t, rentKey, "bob/rent")
}

// broker is a Kafka of its own for each test, with one partition for each topic.
type broker struct{ cluster *kfake.Cluster }

func newBroker(t *testing.T) broker {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic, aside))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return broker{cluster}
}

func (b broker) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.cluster.ListenAddrs()...))...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// worker is a process.
func (b broker) worker(t *testing.T, bank payment.Bank, store idemflight.Store) worker {
	payments, err := payment.New(payment.Options{Bank: bank, Store: store, TTL: 8 * 24 * time.Hour})
	require.NoError(t, err)
	return worker{&Worker{
		Client: b.client(t, kgo.ConsumerGroup("workers"), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
			kgo.UnknownTopicRetries(0)),
		Payments: payments, Aside: aside, Pause: time.Nanosecond, Tries: 3, Log: slog.New(slog.DiscardHandler),
	}}
}

// produce returns the offsets.
func (b broker) produce(t *testing.T, orders ...string) (offsets []int64) {
	var records []*kgo.Record
	for _, order := range orders {
		records = append(records, kgo.StringRecord(order))
	}
	producer := b.client(t, kgo.DefaultProduceTopic(topic))
	require.NoError(t, producer.ProduceSync(within(t), records...).FirstErr())
	for _, r := range records {
		offsets = append(offsets, r.Offset)
	}
	return offsets
}

// aside returns what was set aside.
func (b broker) aside(t *testing.T) (orders []string) {
	reader := b.client(t, kgo.ConsumeTopics(aside))
	for end := b.cluster.PartitionInfo(aside, 0).HighWatermark; int64(len(orders)) < end; {
		fetches := reader.PollFetches(within(t))
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			require.Len(t, r.Headers, 2)
			orders = append(orders, string(r.Value))
		}
	}
	return orders
}

// worker is a Worker with an eye on what it has committed.
type worker struct{ *Worker }

// committed returns the offset up to which all has been dealt with.
func (w worker) committed() int64 { return w.Client.CommittedOffsets()[topic][0].Offset }

// pollUntil polls until so many records have been dealt with.
func (w worker) pollUntil(t *testing.T, records int64) {
	for ctx := within(t); w.committed() < records; {
		require.NoError(t, w.poll(ctx))
	}
	require.Equal(t, records, w.committed())
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	t.Cleanup(cancel)
	return ctx
}
