package idemconnect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// bank is what pays.
type bank struct{ charges int }

var errNotConnected = errors.New("bank: not connected")

func (b *bank) charge(context.Context, string) (receipt string, err error) {
	b.charges++
	return fmt.Sprintf("receipt %d", b.charges), nil
}

func (b *bank) pay(ctx context.Context, order *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again
	if order.Value == "" {
		return nil, idemflight.Final(connect.NewError(connect.CodeInvalidArgument, "nothing to pay")) // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return nil, connect.NewError(connect.CodeUnavailable, "too late")
	}
	receipt, err := b.charge(ctx, order.Value)
	if errors.Is(err, errNotConnected) {
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the bank does not answer").WithCause(err)
	}
	return wrapperspb.String(receipt), nil
}

// serve is what protoc-gen-connect-go writes.
func (b *bank) serve(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var order wrapperspb.StringValue
	if err := stream.Receive(&order); err != nil {
		return err
	}
	receipt, err := b.pay(ctx, &order)
	if err != nil {
		return err
	}
	return stream.Send(receipt)
}

// A payment server, and a client that sends a payment twice.
func Example() {
	keys, err := idemconnect.New(idemconnect.Options{
		Scope: func(context.Context, string) (string, error) { return "ann", nil }, // as authenticated outside
	})
	if err != nil {
		panic(err)
	}
	defer keys.Cache().Close(context.Background())
	server := connect.NewServer(keys.Server())
	server.Register(connect.Method{Spec: specOf("Pay"), Handler: new(bank).serve})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listening := httptest.NewServer(mux)
	defer listening.Close()

	transport := connecthttp.NewTransport(listening.Client(), listening.URL)
	client := connect.NewClient(transport, idemconnect.Client(idemconnect.ClientOptions{}))
	send := func(ctx context.Context, order string) {
		ctx, info := connect.NewClientContext(ctx)
		var receipt wrapperspb.StringValue
		if err := client.CallUnary(ctx, specOf("Pay"), wrapperspb.String(order), &receipt); err != nil {
			fmt.Println(connect.CodeOf(err))
			return
		}
		fmt.Println(receipt.Value, info.ResponseTrailer().Values(idemconnect.ReplayTrailer))
	}
	ctx := idemconnect.WithKey(context.Background(), idemflight.NewID()) // once per intent
	send(ctx, "100 to bob")
	send(ctx, "100 to bob")
	send(ctx, "999 to bob")
	// Output:
	// receipt 1 []
	// receipt 1 [true]
	// invalid_argument
}
