package idemhttp

import (
	"net/http"
	"time"

	"github.com/idemflight/idemflight"
)

// DefaultCacheOptions returns the options of the cache that New makes if none is given: outcomes
// for 24 hours, 1,048,576 keys, 256 MiB of answers, the last hour protected. Change what you need
// and give MustNew the rest. The arithmetic:
//
//   - Rate. 1,048,576 keys in 24 hours are 12 new keys a second. Above that, answers older than an
//     hour are evicted, least recently used first, and 291 new keys a second fill the place within
//     the protected hour: from then on new keys get 503 (Full) until some of them are an hour old.
//   - Bodies. 256 MiB over 1,048,576 keys are 256 bytes each; with answers of 1 KiB bodies begin to
//     be shed, least recently used first, at 262,144 keys: three a second over 24 hours. A shed key
//     answers 409 and still does not run.
//   - Memory. A key costs about a quarter KiB beside what is weighed, and another half KiB (header
//     map and Response) as long as its answer is not shed: a full cache of 1 KiB answers has
//     262,144 of these at 1.75 KiB and 786,432 shed ones at a quarter KiB, 0.6 GiB in all; one of tiny
//     answers is at most 1 GiB. On top, each request in progress holds its body
//     (MaxRequestBytes), and one that executes its answer (MaxResponseBytes): 1,000 of the largest
//     size are 2 GiB. Waiting duplicates are requests in progress: MaxWaiters bounds them per key.
//   - One scope against another. Places and weight are shared. A client that sends 291 new keys a
//     second locks the others out in an hour, but never makes anything run twice within MinRetention; one
//     whose answers have 1 MiB sheds everybody's bodies with 256 requests. So put a rate limit per
//     scope in front of the middleware (a limit of 10 a second is 36,000 keys in the protected
//     hour, 3% of the places), and a cache of its own behind routes with large answers.
//
// Held keys and requests in flight are never evicted.
func DefaultCacheOptions() idemflight.Options[idemflight.Key, *Response] {
	return idemflight.Options[idemflight.Key, *Response]{
		TTL:          24 * time.Hour,
		MaxEntries:   1 << 20,
		MinRetention: time.Hour,
		MaxWeight:    256 << 20,
		Weigh:        weigh,
	}
}

// weigh counts the bytes of an answer and of its key.
func weigh(key idemflight.Key, r *Response) int64 {
	n := len(key.Scope) + len(key.ID)
	if r == nil {
		return int64(n)
	}
	n += len(r.Body)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			n += len(name)
			for _, v := range values {
				n += len(v)
			}
		}
	}
	return int64(n)
}
