package idemgrpc

import (
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
)

// DefaultCacheOptions returns the options of the cache that New makes if none is given: outcomes for 24
// hours, 1,048,576 keys, 256 MiB of answers, 100 duplicates that wait for one key, the last hour protected, and
// [Codec], so that a Store may be added. Change what you need and give MustNew the rest. For the arithmetic
// see DefaultCacheOptions of package idemhttp; an answer is weighed as its text and twice the wire form of its
// message, which is about what it takes in memory.
func DefaultCacheOptions() idemflight.Options[idemflight.Key, *Response] {
	return idemflight.Options[idemflight.Key, *Response]{
		TTL:          24 * time.Hour,
		MaxEntries:   1 << 20,
		MinRetention: time.Hour,
		MaxWeight:    256 << 20,
		Weigh:        weigh,
		MaxWaiters:   100,
		Codec:        Codec(),
	}
}

// What the parts of an answer take in memory, in bytes, about.
const (
	responseBytes = 128 // a Response and an empty message
	entryBytes    = 64  // a name in metadata and its values
	valueBytes    = 16  // a value, beside its text
)

// weigh returns what an answer takes in memory, with the text of its key.
func weigh(key idemflight.Key, r *Response) int64 {
	n := len(key.Scope) + len(key.ID)
	if r != nil {
		n += responseBytes + metadataBytes(r.Header) + metadataBytes(r.Trailer)
		if r.Message != nil {
			n += 2 * proto.Size(r.Message)
		}
		if r.Status != nil {
			n += 2 * proto.Size(r.Status.Proto())
		}
	}
	return int64(n)
}

func metadataBytes(md metadata.MD) (n int) {
	for name, values := range md {
		n += entryBytes + len(name)
		for _, v := range values {
			n += valueBytes + len(v)
		}
	}
	return n
}
