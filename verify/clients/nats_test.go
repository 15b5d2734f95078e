package clients

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

const natsAddr = "127.0.0.1:4222"

var natsClient = client{name: "NATS", module: "github.com/nats-io/nats.go", rows: []row{
	{
		what: "connection refused", effect: none, says: "nats: no servers available for connection", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, nats.ErrNoServers) },
		fail: func(t *testing.T) error {
			_, err := nats.Connect("nats://" + refuses(t))
			return err
		},
	}, {
		what: "Request, no answer in time", effect: possible, says: "nats: timeout", want: idemflight.Release,
		remark: unknowable + ": `nats.ErrTimeout` is a text without a Timeout method. Use RequestWithContext, or map it yourself: `Unknown(err)`.",
		is:     func(err error) bool { return errors.Is(err, nats.ErrTimeout) },
		fail: func(t *testing.T) error {
			nc := natsConn(t)
			_, err := nc.Request(natsDeaf(t, nc), []byte("charge"), hung)
			return err
		},
	}, {
		what: "RequestWithContext, no answer in time", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			nc := natsConn(t)
			_, err := nc.RequestWithContext(within(t, hung), natsDeaf(t, nc), []byte("charge"))
			return err
		},
	}, {
		what: "Request, nobody listens", effect: none, says: "nats: no responders available for request", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, nats.ErrNoResponders) },
		fail: func(t *testing.T) error {
			_, err := natsConn(t).RequestWithContext(within(t, enough), nats.NewInbox(), nil)
			return err
		},
	}, {
		what: "the connection is closed while a request waits", effect: possible, says: "nats: connection closed", want: idemflight.Release,
		remark: unknowable + ": the same error as in the next row.",
		is:     func(err error) bool { return errors.Is(err, nats.ErrConnectionClosed) },
		fail: func(t *testing.T) error {
			nc := natsConn(t)
			subject := natsDeaf(t, natsConn(t))
			time.AfterFunc(hung, nc.Close)
			_, err := nc.RequestWithContext(within(t, enough), subject, []byte("charge"))
			return err
		},
	}, {
		what: "a connection that was closed before", effect: none, says: "nats: connection closed", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, nats.ErrConnectionClosed) },
		fail: func(t *testing.T) error {
			nc := natsConn(t)
			nc.Close()
			return nc.Publish("charge", nil)
		},
	}, {
		what: "JetStream, no stream for the subject", effect: none, says: "nats: no response from stream", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, jetstream.ErrNoStreamResponse) },
		fail: func(t *testing.T) error {
			_, err := natsStream(t).Publish(within(t, enough), nats.NewInbox(), nil, jetstream.WithRetryAttempts(0))
			return err
		},
	}, {
		what: "JetStream, no acknowledgement in time", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			_, err := natsStream(t).Publish(within(t, hung), natsDeaf(t, natsConn(t)), nil)
			return err
		},
	}, {
		what: "JetStream, PublishAsync, no acknowledgement in time", effect: possible, says: "nats: timeout", want: idemflight.Release,
		remark: unknowable + ": an error of its own, without a Timeout method.",
		is:     func(err error) bool { return errors.Is(err, jetstream.ErrAsyncPublishTimeout) },
		fail: func(t *testing.T) error {
			js, err := jetstream.New(natsConn(t), jetstream.WithPublishAsyncTimeout(hung))
			require.NoError(t, err)
			ack, err := js.PublishAsync(natsDeaf(t, natsConn(t)), nil)
			require.NoError(t, err)
			select {
			case err := <-ack.Err():
				return err
			case <-time.After(enough):
				return nil
			}
		},
	},
}}

func natsConn(t *testing.T) *nats.Conn {
	requireServer(t, "NATS", natsAddr)
	nc, err := nats.Connect("nats://"+natsAddr, nats.NoReconnect())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func natsStream(t *testing.T) jetstream.JetStream {
	js, err := jetstream.New(natsConn(t))
	require.NoError(t, err)
	return js
}

// natsDeaf is a subject that somebody listens to, who never answers.
func natsDeaf(t *testing.T, nc *nats.Conn) (subject string) {
	subject = nats.NewInbox()
	_, err := nc.Subscribe(subject, func(*nats.Msg) {})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return subject
}
