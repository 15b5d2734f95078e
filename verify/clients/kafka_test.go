package clients

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/idemflight/idemflight"
)

// The broker is franz-go's own fake, in this process.
var kafkaClient = client{name: "Kafka", module: "github.com/twmb/franz-go", rows: []row{
	{
		what: "Ping, connection refused", effect: none, says: "connect: connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error {
			return kafkaConn(t, refuses(t), kgo.RequestRetries(0)).Ping(within(t, enough))
		},
	}, {
		what: "ProduceSync, connection refused until the context ends", effect: none, says: "context deadline exceeded", want: idemflight.Hold,
		remark: "Held in vain: a record that was never sent and one whose answer is missing end alike.",
		fail:   func(t *testing.T) error { return produce(kafkaConn(t, refuses(t)), within(t, 5*hung)) },
	}, {
		what: "ProduceSync, the broker hangs up at each try, until the context ends", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			return produce(kafkaConn(t, kafkaBroker(t, kafkaHangUp), kgo.DisableIdempotentWrite()), within(t, 5*hung))
		},
	}, {
		what: "ProduceSync, the broker hangs up at each try, until RecordDeliveryTimeout", effect: possible, says: "records have timed out before they were able to be produced", want: idemflight.Release,
		remark: unknowable + ": `kgo.ErrRecordTimeout` has no Timeout method, and its text promises more than it can. Use the deadline of the context, or map it yourself: `Unknown(err)`.",
		is:     func(err error) bool { return errors.Is(err, kgo.ErrRecordTimeout) },
		fail: func(t *testing.T) error {
			return produce(kafkaConn(t, kafkaBroker(t, kafkaHangUp), kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(time.Second)), within(t, enough))
		},
	}, {
		what: "ProduceSync, the broker hangs up at each try, until RecordRetries", effect: possible, says: "record failed after being retried too many times", want: idemflight.Release,
		remark: unknowable + ": `kgo.ErrRecordRetries` says nothing of what went wrong.",
		is:     func(err error) bool { return errors.Is(err, kgo.ErrRecordRetries) },
		fail: func(t *testing.T) error {
			return produce(kafkaConn(t, kafkaBroker(t, kafkaHangUp), kgo.DisableIdempotentWrite(), kgo.RecordRetries(1)), within(t, enough))
		},
	},
	kafkaAnswer(kerr.RequestTimedOut, possible, kgo.ErrRecordRetries, unknowable+": the replicas were too slow and the record may be there, but `kgo.ErrRecordRetries` does not tell the broker's answer."),
	kafkaAnswer(kerr.NotEnoughReplicasAfterAppend, done, kgo.ErrRecordRetries, unknowable+": the record is in the leader's log, and the error does not tell."),
	kafkaAnswer(kerr.NotEnoughReplicas, none, kerr.NotEnoughReplicas, ""),
	kafkaAnswer(kerr.MessageTooLarge, none, kerr.MessageTooLarge, ""),
	kafkaAnswer(kerr.TopicAuthorizationFailed, none, kerr.TopicAuthorizationFailed, ""),
	{
		what: "a client that is closed", effect: none, says: "client closed", want: idemflight.Release,
		is: func(err error) bool { return errors.Is(err, kgo.ErrClientClosed) },
		fail: func(t *testing.T) error {
			c := kafkaConn(t, refuses(t))
			c.Close()
			return produce(c, within(t, enough))
		},
	},
}}

// kafkaAnswer is the row of a record that the broker answers with a code, which becomes an error.
func kafkaAnswer(code *kerr.Error, e effect, becomes error, remark string) row {
	says := becomes.Error()
	if becomes == error(code) {
		says = code.Message
	}
	return row{
		what: "ProduceSync, the broker answers " + code.Message, effect: e, says: says, want: idemflight.Release, remark: remark,
		is: func(err error) bool { return errors.Is(err, becomes) },
		fail: func(t *testing.T) error {
			addr := kafkaBroker(t, func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				req := kreq.(*kmsg.ProduceRequest)
				resp := req.ResponseKind().(*kmsg.ProduceResponse)
				for _, topic := range req.Topics {
					answer := kmsg.NewProduceResponseTopic()
					answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
					for _, partition := range topic.Partitions {
						p := kmsg.NewProduceResponseTopicPartition()
						p.Partition, p.ErrorCode = partition.Partition, code.Code
						answer.Partitions = append(answer.Partitions, p)
					}
					resp.Topics = append(resp.Topics, answer)
				}
				return resp, nil, true
			})
			return produce(kafkaConn(t, addr, kgo.RecordRetries(0), kgo.DisableIdempotentWrite()), within(t, enough))
		},
	}
}

func kafkaHangUp(kmsg.Request) (kmsg.Response, error, bool) {
	return nil, errors.New("hang up"), true
}

// kafkaBroker answers what is produced as told.
func kafkaBroker(t *testing.T, control func(kmsg.Request) (kmsg.Response, error, bool)) string {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "charges"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return control(req)
	})
	return cluster.ListenAddrs()[0]
}

func kafkaConn(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	soon := func(int) time.Duration { return time.Millisecond }
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.RetryBackoffFn(soon), kgo.MetadataMinAge(hung))...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func produce(c *kgo.Client, ctx context.Context) error {
	return c.ProduceSync(ctx, &kgo.Record{Topic: "charges", Value: []byte("100")}).FirstErr()
}
