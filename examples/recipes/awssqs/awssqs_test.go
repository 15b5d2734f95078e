package awssqs

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/examples/recipes/payment"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

const (
	rent     = `{"customer":"ann","id":"rent","cents":900}`
	moreRent = `{"customer":"ann","id":"rent","cents":1000}`
	rentKey  = "ann/rent"
)

func TestADuplicateByTheProducer(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank

	require.NotEqual(t, b.send(t, rent), b.send(t, rent), "what the broker numbers is no key")
	b.worker(t, &bank, nil).pollNow(t)
	require.Zero(t, b.queue.left())
	bank.RequireOnce(t, rentKey)
}

// TestARedeliveryByTheBroker: the first process took the payment, and could not say so before it died.
func TestARedeliveryByTheBroker(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	store := storetest.Mem()

	b.send(t, rent)
	b.queue.loseNext("DeleteMessage")
	b.worker(t, &bank, store).pollNow(t)
	require.Equal(t, 1, b.queue.left())
	b.queue.comeBack()
	b.worker(t, &bank, store).pollNow(t)
	require.Zero(t, b.queue.left())
	bank.RequireOnce(t, rentKey)
}

func TestAnotherPaymentUnderTheSameIDIsADeadLetter(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	w := b.worker(t, &bank, nil)

	b.send(t, rent)
	w.pollNow(t)
	b.send(t, moreRent)
	for range b.queue.maxReceives {
		w.pollNow(t)
		require.Equal(t, []int{int(unhurried.Seconds())}, b.queue.comeBack())
	}
	w.pollNow(t)
	require.Equal(t, []string{moreRent}, b.queue.deadLetters())
	bank.RequireOnce(t, rentKey)
	require.Equal(t, 900, bank.Books()[rentKey][0].Amount)
}

func TestWhatFailedBeforeAnyEffectComesAgainSoon(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	bank.Script(rentKey, idemtest.Refuse)
	w := b.worker(t, &bank, nil)

	b.send(t, rent)
	w.pollNow(t)
	require.Equal(t, []int{int(soon.Seconds())}, b.queue.comeBack())
	w.pollNow(t)
	require.Zero(t, b.queue.left())
	bank.RequireOnce(t, rentKey)
}

// TestAHeldPayment is asked about at each delivery, at a slow pace, and ends as a dead letter. When the bank can be asked again,
// the message is sent again, as a redrive does it.
func TestAHeldPayment(t *testing.T) {
	b := newBroker(t)
	bank := closable{Bank: new(idemtest.Bank), closed: true}
	bank.Script(rentKey, idemtest.LoseAnswer)
	w := b.worker(t, &bank, nil)

	b.send(t, rent)
	for range b.queue.maxReceives {
		w.pollNow(t)
		require.Equal(t, []int{int(unhurried.Seconds())}, b.queue.comeBack())
	}
	w.pollNow(t)
	require.Equal(t, []string{rent}, b.queue.deadLetters())

	bank.closed = false
	require.NoError(t, w.Payments.Reconcile(t.Context(), idemflight.Key{Scope: "ann", ID: "rent"}))
	b.send(t, rent)
	w.pollNow(t)
	require.Zero(t, b.queue.left())
	bank.RequireOnce(t, rentKey)
}

// TestRunEnds in the middle of a payment, which is taken all the same.
func TestRunEnds(t *testing.T) {
	b := newBroker(t)
	var bank idemtest.Bank
	ctx, stop := context.WithCancel(t.Context())
	bank.Script(rentKey, idemtest.OK.During(func(context.Context) { stop() }))
	w := b.worker(t, &bank, nil)

	b.send(t, rent)
	require.NoError(t, w.Run(ctx))
	require.NoError(t, w.Payments.Close(t.Context()))
	bank.RequireOnce(t, rentKey)
}

// TestRunFails, and does not ask again and again.
func TestRunFails(t *testing.T) {
	b := newBroker(t)
	b.queue.loseNext("ReceiveMessage")
	require.Error(t, b.worker(t, new(idemtest.Bank), nil).Run(t.Context()))
}

// broker is an SQS of its own for each test.
type broker struct {
	queue *queue
	sqs   *sqs.Client
	url   string
}

func newBroker(t *testing.T) broker {
	q := &queue{t: t, maxReceives: 3}
	server := httptest.NewServer(q)
	t.Cleanup(server.Close)
	return broker{q, sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(server.URL),
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Retryer:      aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	}), server.URL + "/1/payments"}
}

// send returns the message's ID.
func (b broker) send(t *testing.T, order string) string {
	out, err := b.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{
		QueueUrl: aws.String(b.url), MessageBody: aws.String(order),
	})
	require.NoError(t, err)
	return aws.ToString(out.MessageId)
}

// worker is a process.
func (b broker) worker(t *testing.T, bank payment.Bank, store idemflight.Store) worker {
	payments, err := payment.New(payment.Options{Bank: bank, Store: store, TTL: 15 * 24 * time.Hour})
	require.NoError(t, err)
	return worker{&Worker{SQS: b.sqs, Queue: b.url, Payments: payments, Log: slog.New(slog.DiscardHandler)}}
}

type worker struct{ *Worker }

// pollNow handles what is visible.
func (w worker) pollNow(t *testing.T) { require.NoError(t, w.poll(t.Context())) }

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
