// Package idemhttp gives net/http servers the Idempotency-Key header: a request that is sent again
// with the same key does not do its work again, but gets the answer to the first.
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
// Duplicates that arrive while the first request is being served wait for it and get the same
// answer; later ones get it replayed, marked "Idempotent-Replayed: true". The same key with
// another payload is refused. A request that may or may not have had its effect is not run again.
// It is package idemflight in front of a handler: a request runs once per key, within the TTL, in
// one process; with a Store in the options of the cache, in all processes that share the store,
// and across crashes.
//
// # The handler
//
// The handler tells the cache, through the request's context, what it knows about its
// effect: NoEffect at the top, BeginEffect before the call to the bank. Thanks to that, a
// request that failed with a 500 before that call runs again when it is retried, and one
// that failed after it does not:
//
//	func pay(w http.ResponseWriter, r *http.Request) {
//		idemflight.NoEffect(r.Context()) // nothing has begun yet: what fails before the bank runs again
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
// The cache option EffectsAnnounced says once what NoEffect says in every handler. Set it only if
// all handlers of the cache call [idemflight.BeginEffect] before their effects: a request to one
// that does not would run again after its effect.
//
// # What becomes of an answer
//
//	Options.Classify says        the handler has said                     the next request with its key
//	Retain                       (whatever it has said)                   gets the same answer
//	anything else                BeginEffect, and it was not taken back   does not run: 409, outcome unknown
//	                             NoEffect, or no BeginEffect where        runs again
//	                             effects are announced
//	Release                      nothing                                  runs again
//	Hold                         nothing                                  does not run: 409, outcome unknown
//
// Without a Classify, [ClassifyStatus] looks at the status: real answers are retained (2xx, most of
// 3xx and 4xx), refusals that another attempt may get over are released (401, 404, 429, ...), and
// answers that say nothing about the effect hold the key (408, 499 and most of 5xx). An answer with
// more than MaxResponseBytes that would be retained is remembered without its body: the next
// request with its key gets 409, answer no longer available.
//
// A panic or runtime.Goexit is no answer. It holds the key, unless NoEffect, EffectsAnnounced or
// the cache's own Classify, which is asked about nothing else, says otherwise. The panic reaches
// the server's recovery with its original value.
//
// The client of the executing request gets the handler's answer in any case. Duplicates that wait
// for it share a released answer, and get 409 if the key is held.
//
// The cache option Reconcile finds out what became of held keys, and an answer that it returns is
// replayed. With it, the 409 is retryable, since the same request, sent again, asks again.
// [idemflight.Cache.Resolve] settles a key by hand. If either retains an outcome without a
// Response, the answer is 500.
//
// A replay has the status, the headers as they stood at WriteHeader, the body and the
// trailers. Not replayed are Set-Cookie, Set-Cookie2, WWW-Authenticate, Proxy-Authenticate,
// hop-by-hop headers, Date, Age, Server-Timing, RateLimit, RateLimit-*, X-RateLimit-*,
// Retry-After (except that of a 202), X-Request-Id, X-Correlation-Id, Traceparent, Tracestate,
// Baggage, Via, Cf-Ray and Access-Control-*. A header that outer middleware set and the
// handler left alone is each request's own.
//
// # Problems
//
// The middleware's own answers are problem+json (RFC 9457), with a member "retryable",
// Cache-Control: no-store, and a Retry-After exactly if they are retryable. The types are
// https://github.com/idemflight/idemflight/blob/main/docs/http.md#problem- followed by:
//
//	missing-key         400  Require is set and there is no key
//	malformed-key       400  not 1–255 bytes of visible ASCII, raw or as an RFC 8941 string; or Options.Key
//	                         failed (or the status that its error carries; 429 and 5xx are retryable)
//	scope               401  Options.Scope failed (likewise)
//	unreadable-body     400  the body ended early, or could not be read
//	body-too-large      413  more than MaxRequestBytes
//	key-reused          422  used with another payload (KeyReusedStatus)
//	in-flight           409  retryable: the first request is still being served after MaxWait, or MaxWaiters wait
//	outcome-unknown     409  the first request may or may not have had its effect; retryable with Reconcile
//	answer-unavailable  409  done, but the answer was too large to keep, or shed
//	answer-unrecorded   409  retryable: waited for an answer that was too large, and not stored
//	full                503  retryable: no room for a new key
//	closed              503  retryable: the cache is closed
//	store               503  retryable: the cache's Store could not be asked
//	left                503  retryable: the request's own context ended while it waited
//	failed              500  no answer to replay; retryable if the next attempt runs again
//
// [Middleware.Stats] counts them, and Options.Problem may change them.
//
// # The draft, and where this goes further
//
// The package follows draft-ietf-httpapi-idempotency-key-header-07: the header and its syntax, 400
// for a missing key, 422 for a reused one, 409 for one in flight. It departs from the draft where
// that leaves the client alone:
//
//   - A duplicate of a request in flight waits for the answer, up to MaxWait, since a client
//     that timed out and retries wants just that. MaxWait: idemflight.NoWait gives the
//     draft's 409 at once.
//   - An outcome can be unknown. The draft assumes that requests complete, and replays success and
//     error alike; here the key of a request that failed half-way is held, and a 409 that is not
//     retryable says so.
//   - A raw key is accepted in addition to the string of RFC 8941, since most clients send it raw.
//     Both name the same key. Parameters are refused: the draft defines none.
//   - Replays are marked, and problems say whether they are retryable. RFC 9457
//     allows such members.
//   - Keys always have a scope. Without one, whoever guesses a key reads somebody else's answer.
//
// # Traps and recipes
//
// Redirects, login routes, streams, proxies, frameworks and their adapters, webhooks, CORS,
// timeouts and shutdown, clients that retry: docs/http.md in the repository says what to look out
// for, and what to do. For sizes see [DefaultCacheOptions].
package idemhttp
