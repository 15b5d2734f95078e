package idemhttp

import (
	"math/bits"
	"net/http"
	"time"

	"github.com/idemflight/idemflight"
)

// DefaultCacheOptions returns the options of the cache that New makes if none is given: outcomes
// are kept for 24 hours, at most 1,048,576 keys and 256 MiB of answers, none is evicted in its
// first hour, and 100 duplicates may wait for one key. Change what you need, and pass the result to
// [idemflight.MustNew]. The arithmetic:
//
//   - Rate. 1,048,576 keys in 24 hours are 12 new keys a second. Above that, answers older than an
//     hour are evicted, least recently used first, and 291 new keys a second fill the cache within
//     the protected hour: from then on new keys get 503 (Full) until some of them are an hour old.
//   - Answers. The weight of an answer is the memory that it takes: about half a KiB (header map
//     and Response), its body, the text of its headers and its key. So 256 MiB hold 450,000 tiny
//     answers, or five a second over 24 hours; of 1 KiB each, 160,000, or two a second. Beyond
//     that, answers are shed, least recently used first. A request whose answer was shed gets 409
//     and still does not run. Above these rates make MaxWeight larger.
//   - Memory. 256 MiB of answers, and in addition a quarter KiB for each key: 0.5 GiB when full. On
//     top of that, each request in progress holds its body (MaxRequestBytes), and one that executes
//     also its answer (MaxResponseBytes): 1,000 of the largest size are 2 GiB. Waiting duplicates
//     are requests in progress; MaxWaiters bounds them per key, and one more gets 409 at once.
//   - One scope against another. Places and weight are shared. A client that sends 291 new
//     keys a second locks the others out in an hour, but never makes anything run twice within
//     MinRetention; one whose answers have 1 MiB sheds everybody's bodies with 256 requests.
//     So put a rate limit per scope in front of the middleware (a limit of 10 a second is
//     36,000 keys in the protected hour, 3% of the places), and use a separate cache for
//     routes with large answers.
//
// Requests in flight are never evicted.
func DefaultCacheOptions() idemflight.Options[idemflight.Key, *Response] {
	return idemflight.Options[idemflight.Key, *Response]{
		TTL:          24 * time.Hour,
		MaxEntries:   1 << 20,
		MinRetention: time.Hour,
		MaxWeight:    256 << 20,
		Weigh:        weigh,
		MaxWaiters:   100,
	}
}

// What the parts of an answer take in memory, in bytes, on a 64-bit machine.
const (
	responseBytes = 64
	mapBytes      = 48  // of a header without any
	slotsBytes    = 352 // of one with up to 8
	slotBytes     = 44  // and for each slot beyond: 16 for the name, 24 for the values, and what a size class wastes
	valueBytes    = 16  // beside its text
)

// weigh returns what an answer takes in memory, with the text of its key.
func weigh(key idemflight.Key, r *Response) int64 {
	n := len(key.Scope) + len(key.ID)
	if r != nil {
		n += responseBytes + cap(r.Body) + headerBytes(r.Header) + headerBytes(r.Trailer)
	}
	return int64(n)
}

// headerBytes returns what h takes in memory.
func headerBytes(h http.Header) int {
	if h == nil {
		return 0
	}
	text, values := 0, 0
	for name, of := range h {
		text, values = text+len(name), values+len(of)
		for _, v := range of {
			text += len(v)
		}
	}
	texts := text + text/8 + values*valueBytes // an eighth for its size class
	switch n := len(h); {
	case n == 0:
		return mapBytes
	case n <= 8:
		return mapBytes + slotsBytes + texts
	default: // a table of a power of two, at most 7/8 full
		slots := 1 << bits.Len(uint(n*8/7-1))
		return mapBytes + slots*slotBytes + 2*valueBytes + texts
	}
}
