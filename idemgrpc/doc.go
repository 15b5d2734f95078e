// Package idemgrpc gives grpc-go servers idempotency keys: a unary call that is sent again with the same key
// does not do its work again, and gets the answer of the first.
//
//	keys, err := idemgrpc.New(idemgrpc.Options{
//		Scope: func(ctx context.Context, _ string) (string, error) { return accountOf(ctx) }, // whose key it is
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(authenticate, keys.Unary()),
//		grpc.ChainStreamInterceptor(keys.Stream()),
//	)
//
// A client sends the key as metadata, "idempotency-key", 1 to 255 bytes of visible ASCII, raw or as a string of
// RFC 8941: one per intent, the same with every attempt. In Go [UnaryClient] does it:
//
//	conn, err := grpc.NewClient(target, credentials, grpc.WithChainUnaryInterceptor(idemgrpc.UnaryClient(idemgrpc.ClientOptions{})))
//	ctx = idemgrpc.WithKey(ctx, idemflight.NewID()) // once; then call as often as it takes
//
// Duplicates that arrive while the first call is being served wait for it and get the same answer; later
// ones get it replayed, marked "idempotent-replayed: true" in the trailer. The same key with another request
// is refused. A call that may or may not have had its effect is not run again. It is package idemflight in
// front of a handler: a call runs once per key, within the TTL, in one process; with a Store in the options
// of the cache, in all processes that share the store, and across crashes.
//
// # The handler
//
// The handler tells the cache, through its context, what it knows about its effect: NoEffect at the top,
// BeginEffect before the call to the bank. Thanks to that, a call that failed before the bank runs again when
// it is retried, and one that failed after it does not:
//
//	func (s *server) Pay(ctx context.Context, order *pb.Order) (*pb.Receipt, error) {
//		idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again
//		if err := validate(order); err != nil {
//			return nil, status.Error(codes.InvalidArgument, err.Error())
//		}
//		if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
//			return nil, status.Error(codes.Unavailable, "too late")
//		}
//		receipt, err := s.bank.Charge(ctx, order)
//		if errors.Is(err, bank.ErrDeclined) {
//			return nil, idemflight.Final(status.Error(codes.FailedPrecondition, "declined")) // a real answer: replayed
//		}
//		return receipt, err
//	}
//
// [idemflight.Final], Retryable and Unknown decide before anything else; clients see only the status in them.
//
// # What becomes of an answer
//
//	the handler returns          and has said              the next call with its key
//	no error                     (whatever it has said)    gets the same answer
//	Final(err)                   (whatever it has said)    gets the same answer
//	Retryable(err)               (whatever it has said)    runs again
//	Unknown(err)                 (whatever it has said)    does not run: OUTCOME_UNKNOWN
//	any other error              BeginEffect               does not run: OUTCOME_UNKNOWN
//	any other error              NoEffect                  runs again
//	InvalidArgument              nothing                   gets the same answer
//	NotFound, AlreadyExists,     nothing                   runs again
//	PermissionDenied, FailedPrecondition, Aborted,
//	OutOfRange, Unimplemented, Unauthenticated
//	Canceled, Unknown,           nothing                   does not run: OUTCOME_UNKNOWN
//	DeadlineExceeded, ResourceExhausted, Internal,
//	Unavailable, DataLoss, others
//
// The last three rows are [ClassifyStatus], and Options.Classify may change them. With the cache option
// EffectsAnnounced, a handler that has said nothing counts as one that has said NoEffect.
//
// A panic or runtime.Goexit is no answer. It holds the key, unless NoEffect, EffectsAnnounced or the cache's
// own Classify, which is asked about nothing else, says otherwise. The panic reaches recovery outside with its
// original value.
//
// The client of the executing call gets the handler's answer in any case. Duplicates that wait for it share a
// released answer, and get OUTCOME_UNKNOWN if the key is held.
//
// A replay has the message, the status with its details, the header and the trailer, except what belongs to
// one exchange: set-cookie, www-authenticate, proxy-authenticate, date, age, server-timing, ratelimit, ratelimit-*,
// x-ratelimit-*, retry-after, grpc-retry-pushback-ms, x-request-id, x-correlation-id, traceparent, tracestate,
// baggage, grpc-trace-bin, via, cf-ray and access-control-*. Header and trailer are sent with the answer, even
// after grpc.SendHeader.
//
// # Problems
//
// The interceptor's own answers have an ErrorInfo with [Domain] and a reason, and a RetryInfo exactly if the
// same call, sent again with the same key, can succeed:
//
//	MISSING_KEY         InvalidArgument     Require is set and there is no key
//	MALFORMED_KEY       InvalidArgument     not 1–255 bytes of visible ASCII, or more than one
//	KEY_REUSED          InvalidArgument     used with another request
//	REQUEST_TOO_LARGE   InvalidArgument     more than MaxRequestBytes
//	STREAMING           InvalidArgument     a stream with a key
//	UNSUPPORTED         Unimplemented       a request that is not protobuf
//	SCOPE               Unauthenticated     Options.Scope failed (or the code that its error has)
//	IN_FLIGHT           Unavailable, retry  the first call is still being served after MaxWait, or MaxWaiters wait
//	FULL                Unavailable, retry  no room for a new key
//	CLOSED              Unavailable, retry  the cache is closed
//	STORE               Unavailable, retry  the cache's Store could not be asked
//	FAILED              Unavailable, retry  waited for a call that ended without an answer, and runs again
//	OUTCOME_UNKNOWN     FailedPrecondition  the first call may or may not have had its effect; with a
//	                                        Reconcile in the cache Unavailable, retry
//	ANSWER_UNAVAILABLE  FailedPrecondition  done, but there is no answer any more that could be sent
//	LEFT                as the context has  the call's own context ended while it waited
//
// A retryPolicy with UNAVAILABLE in a client's service config retries those that can succeed, unasked. Of a
// handler's own Unavailable it is as with any other status: it runs again, or the retry is told that the outcome is unknown.
//
// # Traps
//
// A retry interceptor above one that makes keys makes a key per attempt, which protects nothing: use WithKey
// above both. Response headers commit a call and end gRPC's own retries, so the mark of a replay is in
// the trailer. The default Fingerprint is stable within one binary only: see Options.Fingerprint. In a covered
// handler grpc.SetSendCompressor and ClientSupportedCompressors do not work: call them outside. More is in
// docs/grpc.md in the repository.
package idemgrpc
