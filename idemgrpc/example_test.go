package idemgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

// payments is a service whose UnaryCall pays.
type payments struct {
	pb.UnimplementedTestServiceServer
	charges int
}

var errNotConnected = errors.New("bank: not connected")

func (p *payments) charge(context.Context, []byte) (receipt string, err error) {
	p.charges++
	return fmt.Sprintf("receipt %d", p.charges), nil
}

func (p *payments) UnaryCall(ctx context.Context, order *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again
	if len(order.GetPayload().GetBody()) == 0 {
		return nil, idemflight.Final(status.Error(codes.InvalidArgument, "nothing to pay")) // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return nil, status.Error(codes.Unavailable, "too late")
	}
	receipt, err := p.charge(ctx, order.Payload.Body)
	if errors.Is(err, errNotConnected) {
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the bank does not answer")
	}
	return &pb.SimpleResponse{Username: receipt}, nil
}

// A payment server, and a client that sends a payment twice.
func Example() {
	keys, err := idemgrpc.New(idemgrpc.Options{
		Scope: func(ctx context.Context, _ string) (string, error) { return "ann", nil }, // as authenticated outside
	})
	if err != nil {
		panic(err)
	}
	defer keys.Cache().Close(context.Background())
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(keys.Unary()), grpc.ChainStreamInterceptor(keys.Stream()))
	pb.RegisterTestServiceServer(server, new(payments))
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	defer server.GracefulStop()

	conn, err := grpc.NewClient("passthrough:bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(idemgrpc.UnaryClient(idemgrpc.ClientOptions{})))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	client := pb.NewTestServiceClient(conn)

	send := func(ctx context.Context, order string) {
		var trailer metadata.MD
		receipt, err := client.UnaryCall(ctx, &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte(order)}}, grpc.Trailer(&trailer))
		fmt.Println(receipt.GetUsername(), status.Code(err), trailer[idemgrpc.ReplayTrailer])
	}
	ctx := idemgrpc.WithKey(context.Background(), idemflight.NewID()) // once per intent
	send(ctx, "100 to bob")
	send(ctx, "100 to bob")
	send(ctx, "999 to bob")
	// Output:
	// receipt 1 OK []
	// receipt 1 OK [true]
	//  InvalidArgument []
}
