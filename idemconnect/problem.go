package idemconnect

import (
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/idemflight/idemflight/internal/rpc"
)

// Domain is that of the ErrorInfo in every error that the interceptor answers itself.
const Domain = rpc.Domain

// badScope returns the problem of a call for which Scope failed, with the code of err if it has one.
func badScope(err error) rpc.Problem {
	if e := errorIn(err); e != nil {
		return rpc.BadScope(uint32(e.Code()))
	}
	return rpc.BadScope(0)
}

// problem returns p as the error that an interceptor returns.
func problem(p rpc.Problem) error {
	err := withDetail(connect.NewError(connect.Code(p.Code), p.Message()),
		&errdetails.ErrorInfo{Reason: p.Reason, Domain: Domain})
	if p.Retry > 0 {
		err = withDetail(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(p.Retry)})
	}
	return err
}

func withDetail(err *connect.Error, m proto.Message) *connect.Error {
	detail, _ := connectproto.NewErrorDetail(m) // nil, which adds none, if that fails
	return err.WithDetail(detail)
}

// reasonOf returns the reason of an error of the interceptor's own, and whether err is Connect's at all.
func reasonOf(err error) (reason string, is bool) {
	e, is := err.(*connect.Error)
	if !is || e == nil {
		return "", false
	}
	for _, d := range e.Details() {
		m, _ := connectproto.UnmarshalErrorDetail(d)
		if info, ok := m.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info.GetReason(), true
		}
	}
	return "", true
}
