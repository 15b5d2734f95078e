package natsjs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/examples/recipes/payment"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

const (
	server = "127.0.0.1:4222"
	enough = 20 * time.Second // for what is expected to take no time at all

	rent     = `{"customer":"ann","id":"rent","cents":900}`
	moreRent = `{"customer":"ann","id":"rent","cents":1000}`
	rentKey  = "ann/rent"
)

func TestADuplicateByTheProducer(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)

	first, again := b.publish(t, rent), b.publish(t, rent)
	require.NotEqual(t, first.Sequence, again.Sequence, "what the broker numbers is no key")
	for range 2 {
		require.NoError(t, w.handle(t.Context(), b.next(t)))
	}
	b.requireAllAcknowledged(t)
	bank.RequireOnce(t, rentKey)
}

// TestARedeliveryByTheBroker: the first process took the payment, and died before it had acknowledged the message.
func TestARedeliveryByTheBroker(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	store := storetest.Mem()

	b.publish(t, rent)
	first := b.next(t)
	first.died = true
	require.NoError(t, b.worker(t, &bank, store).handle(t.Context(), first))
	redelivered := b.next(t)
	told, err := redelivered.Metadata()
	require.NoError(t, err)
	require.EqualValues(t, 2, told.NumDelivered)
	require.NoError(t, b.worker(t, &bank, store).handle(t.Context(), redelivered))
	b.requireAllAcknowledged(t)
	bank.RequireOnce(t, rentKey)
}

func TestAnotherPaymentUnderTheSameID(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)

	b.publish(t, rent)
	b.publish(t, moreRent)
	for range 2 {
		require.NoError(t, w.handle(t.Context(), b.next(t)))
	}
	b.requireAllAcknowledged(t)
	require.Equal(t, []string{moreRent}, b.aside(t))
	bank.RequireOnce(t, rentKey)
	require.Equal(t, 900, bank.Books()[rentKey][0].Amount)
}

func TestWhatFailedBeforeAnyEffectComesAgainSoon(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	bank.Script(rentKey, idemtest.Refuse)
	w := b.worker(t, &bank, nil)

	b.publish(t, rent)
	first := b.next(t)
	require.NoError(t, w.handle(t.Context(), first))
	require.Equal(t, soon, first.delay)
	require.NoError(t, w.handle(t.Context(), b.next(t)))
	b.requireAllAcknowledged(t)
	bank.RequireOnce(t, rentKey)
}

// TestAHeldPayment is asked about at each delivery, at a slow pace; after some of them it is set aside. When the bank
// can be asked again, the message is published again, as a person does it.
func TestAHeldPayment(t *testing.T) {
	b := newBroker(t)
	bank := closable{Bank: new(idemtest.Bank), closed: true}
	bank.Script(rentKey, idemtest.LoseAnswer)
	w := b.worker(t, &bank, nil)

	b.publish(t, rent)
	for range w.Patience - 1 {
		msg := b.next(t)
		require.NoError(t, w.handle(t.Context(), msg))
		require.Equal(t, unhurried, msg.delay)
	}
	require.NoError(t, w.handle(t.Context(), b.next(t)))
	b.requireAllAcknowledged(t)
	require.Equal(t, []string{rent}, b.aside(t))

	bank.closed = false
	require.NoError(t, w.Payments.Reconcile(t.Context(), idemflight.Key{Scope: "ann", ID: "rent"}))
	b.publish(t, rent)
	require.NoError(t, w.handle(t.Context(), b.next(t)))
	b.requireAllAcknowledged(t)
	bank.RequireOnce(t, rentKey)
}

// TestAMessageThatCannotBeSetAsideIsNotAcknowledged: it would be lost.
func TestAMessageThatCannotBeSetAsideIsNotAcknowledged(t *testing.T) {
	b := newBroker(t)
	w := b.worker(t, new(idemtest.Bank), nil)
	w.Aside = nats.NewInbox() // no stream has it

	b.publish(t, "rent, please")
	require.ErrorIs(t, w.handle(t.Context(), b.next(t)), jetstream.ErrNoStreamResponse)
	info, err := b.consumer.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, info.NumAckPending)
}

func TestRun(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	taken := make(chan struct{}, 3)
	bank.Script(rentKey, idemtest.OK.During(func(context.Context) { taken <- struct{}{} }))
	bank.Script("bob/rent", idemtest.OK.During(func(context.Context) { taken <- struct{}{} }))
	w := b.worker(t, &bank, nil)

	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx, b.consumer) }()
	b.publish(t, rent)
	b.publish(t, rent)
	b.publish(t, `{"customer":"bob","id":"rent","cents":700}`)
	for range 2 {
		<-taken
	}
	stop()
	require.NoError(t, <-ran)
	require.NoError(t, w.Payments.Close(t.Context()))
	bank.RequireOnce(t, rentKey, "bob/rent")
}

// broker is a stream of its own for each test, and its consumer.
type broker struct {
	js       jetstream.JetStream
	consumer jetstream.Consumer
	name     string
}

func newBroker(t *testing.T) *broker {
	b := &broker{js: connect(t), name: "recipes_" + idemflight.NewID()}
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	t.Cleanup(cancel)
	for _, stream := range []string{b.name, b.name + "_aside"} {
		_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: stream, Subjects: []string{stream}, Storage: jetstream.MemoryStorage, MaxAge: 7 * 24 * time.Hour,
		})
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), enough)
			defer cancel()
			require.NoError(t, b.js.DeleteStream(ctx, stream))
		})
	}
	var err error
	b.consumer, err = b.js.CreateConsumer(ctx, b.name, jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	return b
}

// connect skips the test if there is no server with JetStream, or fails it where servers are required.
func connect(t *testing.T) jetstream.JetStream {
	nc, err := nats.Connect("nats://" + server)
	var js jetstream.JetStream
	if err == nil {
		t.Cleanup(nc.Close)
		js, err = jetstream.New(nc)
	}
	if err == nil {
		_, err = js.AccountInfo(t.Context())
	}
	switch {
	case err == nil:
	case os.Getenv("IDEMFLIGHT_SERVERS") == "required":
		t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no NATS with JetStream at %s: %v", server, err)
	default:
		t.Skipf("there is no NATS with JetStream at %s: %v", server, err)
	}
	return js
}

// worker is a process.
func (b *broker) worker(t *testing.T, bank payment.Bank, store idemflight.Store) *Worker {
	payments, err := payment.New(payment.Options{Bank: bank, Store: store, TTL: 8 * 24 * time.Hour})
	require.NoError(t, err)
	return &Worker{
		Payments: payments, JS: b.js, Aside: b.name + "_aside", Patience: 3, Log: slog.New(slog.DiscardHandler),
	}
}

func (b *broker) publish(t *testing.T, order string) *jetstream.PubAck {
	ack, err := b.js.Publish(t.Context(), b.name, []byte(order))
	require.NoError(t, err)
	return ack
}

// next returns the next delivery.
func (b *broker) next(t *testing.T) *delivery {
	msg, err := b.consumer.Next(jetstream.FetchMaxWait(enough))
	require.NoError(t, err)
	return &delivery{Msg: msg, t: t}
}

func (b *broker) requireAllAcknowledged(t *testing.T) {
	info, err := b.consumer.Info(t.Context())
	require.NoError(t, err)
	require.Zero(t, info.NumPending, "messages that were not delivered")
	require.Zero(t, info.NumAckPending, "messages that were not acknowledged")
}

// delivery is a message of which no test has to wait for an answer.
type delivery struct {
	jetstream.Msg
	t     *testing.T
	died  bool          // its consumer, before the acknowledgement was sent
	delay time.Duration // until the next delivery, as it was asked for: here it comes at once
}

func (d *delivery) Ack() error {
	if d.died {
		return d.Nak()
	}
	return d.DoubleAck(d.t.Context()) // the broker has it when this returns
}

func (d *delivery) NakWithDelay(delay time.Duration) error {
	d.delay = delay
	return d.Nak()
}

// closable is a bank that does not say what it has booked while it is closed.
type closable struct {
	*idemtest.Bank
	closed bool
}

func (c *closable) Find(ctx context.Context, key string) (idemtest.Receipt, error) {
	if c.closed {
		return idemtest.Receipt{}, errors.New("the bank is closed")
	}
	return c.Bank.Find(ctx, key)
}

// aside returns what was set aside.
func (b *broker) aside(t *testing.T) (orders []string) {
	stream, err := b.js.Stream(t.Context(), b.name+"_aside")
	require.NoError(t, err)
	for seq := uint64(1); ; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return orders
		}
		require.NoError(t, err)
		require.NotEmpty(t, msg.Header.Get("Why"))
		require.Equal(t, b.name, msg.Header.Get("From"))
		orders = append(orders, string(msg.Data))
	}
}
