package idemconnect

import (
	"encoding/json"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// Codec returns the Options.Codec of a cache of answers that has a Store, or is saved: there is no other way to
// write messages. They are written in their wire form, with their full name, and a process that reads one must
// have it linked in (protoregistry.GlobalTypes): otherwise it answers the key with STORE, and does not run it
// again. Fields that the reader does not know stay as they are.
func Codec() idemflight.Codec[idemflight.Key, *Response] {
	return idemflight.Codec[idemflight.Key, *Response]{EncodeValue: encode, DecodeValue: decode}
}

// Required fields were looked at when the message was received, or will be when it is sent.
var (
	deterministic = proto.MarshalOptions{Deterministic: true, AllowPartial: true}
	partial       = proto.UnmarshalOptions{AllowPartial: true}
)

func encode(r *Response) (data []byte, err error) {
	if r == nil {
		return []byte("null"), nil
	}
	rec := rpc.Record{Header: rpc.Metadata(r.Header), Trailer: rpc.Metadata(r.Trailer)}
	if r.Message != nil {
		var m anypb.Any
		if err := anypb.MarshalFrom(&m, r.Message, deterministic); err != nil {
			return nil, err
		}
		rec.Type, rec.Message = m.TypeUrl, m.Value
	}
	if r.Err != nil {
		if rec.Status, err = deterministic.Marshal(statusOf(r.Err)); err != nil {
			return nil, err
		}
	}
	return json.Marshal(rec)
}

func decode(data []byte) (*Response, error) {
	var rec *rpc.Record
	if err := json.Unmarshal(data, &rec); err != nil || rec == nil {
		return nil, err
	}
	r := &Response{Header: http.Header(rec.Header), Trailer: http.Header(rec.Trailer)}
	if rec.Type != "" {
		m, err := anypb.UnmarshalNew(&anypb.Any{TypeUrl: rec.Type, Value: rec.Message}, partial)
		if err != nil {
			return nil, err
		}
		r.Message = m
	}
	if len(rec.Status) > 0 {
		var s spb.Status
		if err := proto.Unmarshal(rec.Status, &s); err != nil {
			return nil, err
		}
		r.Err = errorOf(&s)
	}
	return r, nil
}

func statusOf(e *connect.Error) *spb.Status {
	s := &spb.Status{Code: int32(e.Code()), Message: e.Message()}
	for _, d := range e.Details() {
		s.Details = append(s.Details, connectproto.ErrorDetailToAny(d))
	}
	return s
}

func errorOf(s *spb.Status) *connect.Error {
	e := connect.NewError(connect.Code(s.GetCode()), s.GetMessage())
	for _, d := range s.GetDetails() {
		e = withDetail(e, d)
	}
	return e
}
