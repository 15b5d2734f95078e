package clients

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/idemflight/idemflight"
)

var awsClient = client{name: "AWS", module: "github.com/aws/aws-sdk-go-v2/service/sqs", rows: []row{
	{
		what: "connection refused, at all of three attempts", effect: none, says: "connect: connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error { return sendMessage(t, within(t, enough), "http://"+refuses(t), 3) },
	}, {
		what: "the server hangs up without an answer, at all of three attempts", effect: possible, says: "EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error { return sendMessage(t, within(t, enough), hangsUp(t), 3) },
	}, {
		what: "the server hangs up at the first attempt, and refuses the others", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": the SDK retries and keeps the last error. `aws.NopRetryer` leaves retrying to the caller of Do.",
		fail:   func(t *testing.T) error { return sendMessage(t, within(t, enough), hangsUpAndIsGone(t), 3) },
	}, {
		what: "deadline of the context", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error { return sendMessage(t, within(t, hung), "http://"+silent(t), 1) },
	}, {
		what: "the context is cancelled", effect: possible, says: "canceled", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(hung, cancel)
			return sendMessage(t, ctx, "http://"+silent(t), 1)
		},
	},
	awsAnswer(http.StatusBadRequest, "InvalidParameterValue", none, ""),
	awsAnswer(http.StatusForbidden, "AccessDenied", none, ""),
	awsAnswer(http.StatusBadRequest, "ThrottlingException", none, ""),
	awsAnswer(http.StatusInternalServerError, "InternalFailure", possible, unknowable+": the answer is an error of the SDK's own, with a fault (`smithy.FaultServer`) that is no part of any interface of the standard library."),
	awsAnswer(http.StatusServiceUnavailable, "ServiceUnavailable", possible, unknowable+": as above."),
}}

// awsAnswer is the row of a request that is answered with an error code.
func awsAnswer(status int, code string, e effect, remark string) row {
	return row{
		what: "the service answers " + http.StatusText(status) + ", " + code, effect: e, says: "api error " + code, want: idemflight.Release, remark: remark,
		is: func(err error) bool {
			api, ok := errors.AsType[smithy.APIError](err)
			return ok && api.ErrorCode() == code
		},
		fail: func(t *testing.T) error {
			header := http.Header{"Content-Type": {"application/x-amz-json-1.0"}}
			return sendMessage(t, within(t, enough), answers(t, status, header, `{"__type":"com.amazonaws.sqs#`+code+`","message":"no"}`), 1)
		},
	}
}

func sendMessage(t *testing.T, ctx context.Context, url string, attempts int) error {
	c := sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		HTTPClient:   &http.Client{Transport: transport(t)},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = attempts, time.Millisecond
		}),
	})
	_, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: aws.String(url + "/1/charges"), MessageBody: aws.String("100")})
	return err
}
