package clients

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
)

var grpcClient = client{name: "gRPC", module: "google.golang.org/grpc", rows: []row{
	{
		what: "connection refused", effect: none, says: "code = Unavailable", want: idemflight.Hold, is: grpcCode(codes.Unavailable),
		remark: "Held in vain: Unavailable is also what a call gets that was under way.",
		fail:   func(t *testing.T) error { return grpcCall(t, within(t, enough), refuses(t)) },
	}, {
		what: "the server dies while the call runs", effect: possible, says: "code = Unavailable", want: idemflight.Hold, is: grpcCode(codes.Unavailable),
		fail: func(t *testing.T) error {
			var s *grpc.Server
			ready := make(chan struct{})
			s, addr := grpcServer(t, func(context.Context) error { <-ready; go s.Stop(); select {} })
			close(ready)
			return grpcCall(t, within(t, enough), addr)
		},
	}, {
		what: "deadline of the call", effect: possible, says: "code = DeadlineExceeded", want: idemflight.Hold, is: grpcCode(codes.DeadlineExceeded),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			return grpcCall(t, within(t, hung), addr)
		},
	}, {
		what: "the caller cancels", effect: possible, says: "code = Canceled", want: idemflight.Hold, is: grpcCode(codes.Canceled),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(hung, cancel)
			return grpcCall(t, ctx, addr)
		},
	},
	grpcAnswer(codes.InvalidArgument, none, idemflight.Release, ""),
	grpcAnswer(codes.NotFound, none, idemflight.Release, ""),
	grpcAnswer(codes.AlreadyExists, none, idemflight.Release, "An earlier attempt may have made it: `Final(err)`, or look."),
	grpcAnswer(codes.PermissionDenied, none, idemflight.Release, ""),
	grpcAnswer(codes.FailedPrecondition, none, idemflight.Release, ""),
	grpcAnswer(codes.Aborted, none, idemflight.Release, "By convention: the server gave up and says to try again."),
	grpcAnswer(codes.Unauthenticated, none, idemflight.Release, ""),
	grpcAnswer(codes.Internal, possible, idemflight.Hold, ""),
	grpcAnswer(codes.DataLoss, possible, idemflight.Hold, ""),
	grpcAnswer(codes.ResourceExhausted, none, idemflight.Hold, "Held in vain after a quota; the next row has the same code."),
	{
		what: "the answer is larger than the client accepts", effect: done, says: "code = ResourceExhausted", want: idemflight.Hold, is: grpcCode(codes.ResourceExhausted),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(context.Context) error { return nil })
			return grpcCall(t, within(t, enough), addr, grpc.MaxCallRecvMsgSize(1))
		},
	}, {
		what: "the handler returns an error without a status", effect: possible, says: "code = Unknown", want: idemflight.Hold, is: grpcCode(codes.Unknown),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(context.Context) error { return errors.New("out of paper") })
			return grpcCall(t, within(t, enough), addr)
		},
	}, {
		what: "a method that the server does not have", effect: none, says: "code = Unimplemented", want: idemflight.Release, is: grpcCode(codes.Unimplemented),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(context.Context) error { return nil })
			return grpcInvoke(t, within(t, enough), addr, "/bank.Bank/Refund")
		},
	},
}}

// grpcAnswer is the row of a handler that answers with a code.
func grpcAnswer(code codes.Code, e effect, want idemflight.Disposition, remark string) row {
	return row{
		what: "the handler answers " + code.String(), effect: e, says: "code = " + code.String(), want: want, remark: remark, is: grpcCode(code),
		fail: func(t *testing.T) error {
			_, addr := grpcServer(t, func(context.Context) error { return status.Error(code, "no") })
			return grpcCall(t, within(t, enough), addr)
		},
	}
}

func grpcCode(code codes.Code) func(error) bool {
	return func(err error) bool { return status.Code(err) == code }
}

// grpcServer serves one method, which answers with a text of some size.
func grpcServer(t *testing.T, handle func(context.Context) error) (s *grpc.Server, addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s = grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bank.Bank",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Charge", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(wrapperspb.StringValue)); err != nil {
				return nil, err
			}
			return wrapperspb.String(strings.Repeat("charged ", 100)), handle(ctx)
		}}},
	}, struct{}{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { go s.Stop() }) // one whose handler never returns does not stop
	return s, l.Addr().String()
}

func grpcCall(t *testing.T, ctx context.Context, addr string, opts ...grpc.CallOption) error {
	return grpcInvoke(t, ctx, addr, "/bank.Bank/Charge", opts...)
}

func grpcInvoke(t *testing.T, ctx context.Context, addr, method string, opts ...grpc.CallOption) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	return conn.Invoke(ctx, method, wrapperspb.String("100"), new(wrapperspb.StringValue), opts...)
}
