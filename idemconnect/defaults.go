package idemconnect

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
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

// responseBytes is what a Response and an empty message take in memory, about.
const responseBytes = 128

// weigh returns what an answer takes in memory, with the text of its key.
func weigh(key idemflight.Key, r *Response) int64 {
	n := len(key.Scope) + len(key.ID)
	if r != nil {
		n += responseBytes + rpc.Metadata(r.Header).Bytes() + rpc.Metadata(r.Trailer).Bytes()
		if r.Message != nil {
			n += 2 * proto.Size(r.Message)
		}
		if r.Err != nil {
			n += 2 * proto.Size(statusOf(r.Err))
		}
	}
	return int64(n)
}
