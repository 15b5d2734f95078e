package idemgrpc

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/idemflight/idemflight/internal/rpc"
)

// Domain is that of the ErrorInfo in every status that the interceptor answers itself.
const Domain = rpc.Domain

// badScope returns the problem of a call for which Scope failed, with the code of err if that is a status.
func badScope(err error) rpc.Problem {
	code := codes.OK
	if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	return rpc.BadScope(uint32(code))
}

// problem returns p as the error that an interceptor returns. It has no header, so that retryPolicy may retry.
func problem(p rpc.Problem) error {
	s := status.New(codes.Code(p.Code), p.Message())
	info := &errdetails.ErrorInfo{Reason: p.Reason, Domain: Domain}
	detailed, err := s.WithDetails(info)
	if p.Retry > 0 {
		detailed, err = s.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(p.Retry)})
	}
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}
