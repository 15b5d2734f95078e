package idemgrpc

import (
	"encoding/json"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
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

var deterministic = proto.MarshalOptions{Deterministic: true, AllowPartial: true}

func encode(r *Response) (data []byte, err error) {
	if r == nil {
		return []byte("null"), nil
	}
	s := rpc.Record{Header: rpc.Metadata(r.Header), Trailer: rpc.Metadata(r.Trailer)}
	if r.Message != nil {
		var m anypb.Any
		if err := anypb.MarshalFrom(&m, r.Message, deterministic); err != nil {
			return nil, err
		}
		s.Type, s.Message = m.TypeUrl, m.Value
	}
	if r.Status != nil {
		if s.Status, err = deterministic.Marshal(r.Status.Proto()); err != nil {
			return nil, err
		}
	}
	return json.Marshal(s)
}

func decode(data []byte) (*Response, error) {
	var s *rpc.Record
	if err := json.Unmarshal(data, &s); err != nil || s == nil {
		return nil, err
	}
	r := &Response{Header: metadata.MD(s.Header), Trailer: metadata.MD(s.Trailer)}
	if s.Type != "" {
		m, err := anypb.UnmarshalNew(&anypb.Any{TypeUrl: s.Type, Value: s.Message}, proto.UnmarshalOptions{AllowPartial: true})
		if err != nil {
			return nil, err
		}
		r.Message = m
	}
	if len(s.Status) > 0 {
		var p spb.Status
		if err := proto.Unmarshal(s.Status, &p); err != nil {
			return nil, err
		}
		r.Status = status.FromProto(&p)
	}
	return r, nil
}
