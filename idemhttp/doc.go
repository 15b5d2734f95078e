// Package idemhttp gives net/http servers the Idempotency-Key header: a request that is sent again
// with the same key does not do its work again, and gets the answer of the first.
//
//	keys, err := idemhttp.New(idemhttp.Options{
//		Scope: func(r *http.Request) (string, error) { return accountOf(r) }, // whose key it is
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux := http.NewServeMux()
//	mux.Handle("POST /payments", keys.Handler(http.HandlerFunc(pay)))
//	log.Fatal(http.ListenAndServe(":8080", mux))
//
// Duplicates that come while the first request is being served wait for it and get the same answer;
// later ones get it replayed, marked "Idempotent-Replayed: true"; the same key with another payload
// is refused; and what may or may not have taken place is not run again. It is package idemflight,
// in front of a handler: once per key, within the TTL, in one process.
//
// # The handler
//
// It tells the cache, through the request's context, what it knows about its effect. The bank call
// stands between [idemflight.BeginEffect] and [idemflight.NoEffect]:
//
//	func pay(w http.ResponseWriter, r *http.Request) {
//		order, err := decode(r.Body)
//		if err != nil {
//			http.Error(w, err.Error(), http.StatusUnprocessableEntity) // a real answer: replayed
//			return
//		}
//		if err := idemflight.BeginEffect(r.Context()); err != nil { // from here on, a failure is "unknown"
//			http.Error(w, "too late", http.StatusServiceUnavailable)
//			return
//		}
//		receipt, err := bank.Charge(r.Context(), order)
//		if errors.Is(err, bank.ErrNotConnected) {
//			idemflight.NoEffect(r.Context()) // certainly not charged: the next attempt may try again
//		}
//		if err != nil {
//			http.Error(w, "the bank does not answer", http.StatusBadGateway)
//			return
//		}
//		json.NewEncoder(w).Encode(receipt)
//	}
//
// Without BeginEffect, an answer that is not stored lets the next attempt run again, whatever the
// handler had done before it failed.
//
// # What becomes of an answer
//
//	the handler                                the next request with its key
//	answers 2xx, 3xx, most of 4xx              gets the same answer
//	answers 401 403 404 405 407 408 409 421    runs again
//	  423 425 429, 1xx or 5xx
//	  … after BeginEffect                      does not run: 409, outcome unknown
//	panics or calls runtime.Goexit             does not run: 409, outcome unknown
//	  … after NoEffect: nothing has begun      runs again
//	answers with more than MaxResponseBytes,   does not run: 409, answer no longer available
//	  of the kind that is stored
//
// [ClassifyStatus] decides what is stored; Options.Classify can draw the line elsewhere. The client of
// the executing request gets its handler's answer in any case. Cache options say more: Reconcile
// finds out about unknown outcomes, and an answer it returns is replayed; [idemflight.Cache.Resolve]
// settles one by hand.
//
// With the cache's Reconcile, a 409 for an unknown outcome may change: the same request sent again
// makes Reconcile ask again. A Reconcile that calls Do for its own key gets ErrReentrant.
//
// What is replayed is status, headers as they stood at WriteHeader, body and trailers. Not replayed
// are Set-Cookie, Set-Cookie2, WWW-Authenticate, Proxy-Authenticate, hop-by-hop headers, Date, Age,
// Server-Timing, RateLimit, RateLimit-*, X-RateLimit-*, Retry-After, X-Request-Id, Traceparent and
// Access-Control-*. A header that middleware outside has set and the handler left alone is each
// request's own.
//
// # Problems
//
// What the middleware answers itself is problem+json (RFC 9457) with a member "retryable", Cache-Control:
// no-store, and Retry-After exactly if it is retryable. The types are
// https://github.com/idemflight/idemflight#problem- followed by:
//
//	missing-key         400  Require is set and there is no key
//	malformed-key       400  not 1–255 bytes of visible ASCII, raw or as an RFC 8941 string
//	scope               401  Options.Scope failed (or the status that its error carries)
//	unreadable-body     400  the body ended early, or could not be read
//	body-too-large      413  more than MaxRequestBytes
//	key-reused          422  used with another payload (KeyReusedStatus)
//	in-flight           409  retryable: the first request is still being served after MaxWait, or MaxWaiters wait
//	outcome-unknown     409  the first request may or may not have had its effect
//	answer-unavailable  409  done, but the answer was too large to keep, or shed
//	answer-unrecorded   409  retryable: waited for an answer that was too large, and not stored
//	full                503  retryable: no room for a new key
//	closed              503  retryable: the cache is closed
//	left                503  retryable: the request's own context ended while it waited
//	failed              500  no answer to replay; retryable if the next attempt runs again
//
// # The draft, and where this goes further
//
// It follows draft-ietf-httpapi-idempotency-key-header-07: the header and its syntax, 400 for a
// missing key, 422 for a reused one, 409 for one in flight. It departs from it where the draft
// leaves a client alone:
//
//   - A duplicate in flight waits for the answer, up to MaxWait, since a client that timed out and
//     retries wants nothing else. MaxWait: idemflight.NoWait is the draft's 409 at once.
//   - An outcome can be unknown. The draft knows requests that completed, and replays success and
//     error alike; here the key of a request that failed half-way is held, and a 409 that is not
//     retryable says so.
//   - A raw key is accepted beside the string of RFC 8941, since most clients send it raw. Both name
//     the same key. Parameters are refused: the draft defines none.
//   - Replays are marked, and problems say whether they are retryable. RFC 9457 allows such members.
//   - Keys are scoped, always. Without a scope, to guess a key is to read somebody's answer.
//
// # Traps
//
// Frameworks that write an error after the wrapped handler has returned (echo's WrapMiddleware)
// leave an empty 200 here, which would be kept. Mount the middleware around the whole engine:
// keys.Handler(engine).
//
// gRPC and Connect carry errors under status 200, and would have them stored. Give a Classify that
// reads what they say:
//
//	Classify: func(r *idemhttp.Response) idemflight.Disposition {
//		status := r.Trailer.Get("Grpc-Status")
//		if status == "" {
//			status = r.Header.Get("Grpc-Status") // an answer without body has it among the headers
//		}
//		switch status {
//		case "", "0", "3", "6", "9", "11": // OK, and answers that will not change
//			return idemhttp.ClassifyStatus(r)
//		}
//		return idemflight.Release // or, after BeginEffect, held
//	},
//
// Multipart bodies carry a random boundary, so that a form that is built anew for a retry is another
// payload. Send the same bytes again, or give a Fingerprint of what counts.
//
// http.TimeoutHandler, or any handler that answers before it is done, settles the key while its
// work still runs: what that does then is not guarded. Put timeouts outside, or call BeginEffect,
// which refuses once the answer is made.
//
// Middleware outside that reads the body (ParseForm, CSRF checks, method override) leaves nothing of
// it to the fingerprint, and another payload looks like a retry. Mount it inside, or give a
// Fingerprint of what it has read.
//
// CORS belongs outside: Access-Control-* is not replayed, and a browser could not read the retry's
// answer.
//
// Middleware outside sees the Pattern of an http.ServeMux inside, but not its path values.
//
// Compression belongs outside of the middleware. Inside it works, but what is remembered is the
// first client's encoding, also for a retry that does not accept it.
//
// Generate of [Transport] under a client that retries above it makes a key per attempt. Use
// [WithKey] with a key made outside of the retry loop.
//
// A handler that hijacks the connection cannot be covered: it gets http.ErrNotSupported. Neither is
// there an http.Pusher. Let such requests go without a key, or around the middleware.
//
// An answer is buffered up to MaxResponseBytes before it is sent. A handler that wants to be seen
// earlier calls Flush.
//
// A handler that waits for its request's context to be cancelled does not hear of a client that
// hangs up: the point is that the answer is made all the same. The context ends at ExecTimeout.
//
// The 401 for a failing Scope has no WWW-Authenticate, since only you know the scheme: authenticate
// outside of the middleware, or set the header in Options.Problem.
//
// # Recipes
//
// Stripe's way, where every answer is kept once the work has begun, be it a 500:
//
//	Classify: func(r *idemhttp.Response) idemflight.Disposition {
//		switch r.Status {
//		case 400, 401, 403, 404, 409, 429: // of yours, those that refuse before the work begins
//			return idemflight.Release
//		}
//		return idemflight.Retain
//	},
//
// The draft wants the expiry published. Outer middleware can tell it with every answer, from the
// options that decide it (the package has it as an example):
//
//	cache := idemhttp.DefaultCacheOptions()
//	published := fmt.Sprintf("max-age=%d", int(cache.TTL.Seconds()))
//	... w.Header().Set("Idempotency-Key-Policy", published)
//
// A planned restart hands the keys over: http.Server.Shutdown waits for the executing requests, then
// idemflight.Cache.Close, All, and Restore in the next process. Response is plain data that any
// encoding keeps.
//
// For sizes see [DefaultCacheOptions].
package idemhttp
