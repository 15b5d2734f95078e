// Package idemconnect gives servers of connect-go v2 idempotency keys: a unary call that is sent again with the
// same key does not do its work again, and gets the answer of the first. Clients may speak Connect, gRPC or
// gRPC-Web, in protobuf or JSON, and a retry may come by another of these.
//
//	keys, err := idemconnect.New(idemconnect.Options{
//		Scope: func(ctx context.Context, _ string) (string, error) { return accountOf(ctx) }, // whose key it is
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	server := connect.NewServer(authenticate, keys.Server())
//	bankv1connect.RegisterPaymentsHandler(server, payments)
//	connecthttp.Mount(mux, server)
//
// A client sends the key in the header idempotency-key, 1 to 255 bytes of visible ASCII, raw or as a string of
// RFC 8941: one per intent, the same with every attempt. In Go [Client] does it:
//
//	client := connect.NewClient(transport, idemconnect.Client(idemconnect.ClientOptions{}))
//	ctx = idemconnect.WithKey(ctx, idemflight.NewID()) // once; then call as often as it takes
//
// Duplicates that come while the first call is being served wait for it and get the same answer; later
// ones get it replayed, marked "idempotent-replayed: true" in the trailer; the same key with another request is
// refused; and what may or may not have taken place is not run again. It is package idemflight, in front of
// a handler: once per key, within the TTL, in one process; with a Store in the options of its cache, in all
// processes that share that, and over a crash.
//
// # The handler
//
// It tells the cache, through its context, what it knows about its effect: NoEffect at the top, BeginEffect
// before the bank. That is how a failure before the bank runs again, and one after it never does:
//
//	func (p *payments) Pay(ctx context.Context, order *bankv1.Order) (*bankv1.Receipt, error) {
//		idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again
//		if err := validate(order); err != nil {
//			return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
//		}
//		if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
//			return nil, connect.NewError(connect.CodeUnavailable, "too late")
//		}
//		receipt, err := p.bank.Charge(ctx, order)
//		if errors.Is(err, bank.ErrDeclined) {
//			return nil, idemflight.Final(connect.NewError(connect.CodeFailedPrecondition, "declined")) // a real answer: replayed
//		}
//		return receipt, err
//	}
//
// [idemflight.Final], Retryable and Unknown decide before all else; clients see the error in them alone.
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
//	CodeInvalidArgument          nothing                   gets the same answer
//	CodeNotFound,                nothing                   runs again
//	CodeAlreadyExists, CodePermissionDenied,
//	CodeFailedPrecondition, CodeAborted, CodeOutOfRange,
//	CodeUnimplemented, CodeUnauthenticated
//	CodeCanceled, CodeUnknown,   nothing                   does not run: OUTCOME_UNKNOWN
//	CodeDeadlineExceeded, CodeResourceExhausted,
//	CodeInternal, CodeUnavailable, CodeDataLoss, others
//
// The last three rows are [ClassifyCode], and Options.Classify may change them. They go by the code that clients
// see: that of an error which is no *connect.Error is CodeUnknown, and that of one which another server has sent,
// CodeInternal. With the cache option EffectsAnnounced a handler that has said nothing has said NoEffect.
//
// A panic or runtime.Goexit is no answer. It is held unless NoEffect, EffectsAnnounced or the cache's own
// Classify, which is asked about nothing else, says otherwise. The panic reaches recovery outside with its
// original value.
//
// The client of the executing call gets its handler's answer in any case. Duplicates that wait for it share an
// answer that is released, and get OUTCOME_UNKNOWN where the key is held.
//
// What is replayed is the message, or the error with its details but without its cause, and what the handler has
// set in header and trailer. What interceptors outside set, and the transport sends, is each call's own. Never
// replayed is what belongs to one exchange: set-cookie, www-authenticate, proxy-authenticate, date, age,
// server-timing, ratelimit, ratelimit-*, x-ratelimit-*, retry-after, grpc-retry-pushback-ms, x-request-id,
// x-correlation-id, traceparent, tracestate, baggage, grpc-trace-bin, via, cf-ray and access-control-*.
//
// # Problems
//
// What the interceptor answers itself has an ErrorInfo with [Domain] and a reason, and a RetryInfo exactly if the
// same call, sent again with the same key, can succeed:
//
//	MISSING_KEY         CodeInvalidArgument     Require is set and there is no key
//	MALFORMED_KEY       CodeInvalidArgument     not 1–255 bytes of visible ASCII, or more than one
//	KEY_REUSED          CodeInvalidArgument     used with another request
//	REQUEST_TOO_LARGE   CodeInvalidArgument     more than MaxRequestBytes
//	STREAMING           CodeInvalidArgument     a stream with a key
//	UNSUPPORTED         CodeUnimplemented       a method that is not described by protobuf
//	SCOPE               CodeUnauthenticated     Options.Scope failed (or the code that its error has)
//	IN_FLIGHT           CodeUnavailable, retry  the first call is still being served after MaxWait, or MaxWaiters wait
//	FULL                CodeUnavailable, retry  no room for a new key
//	CLOSED              CodeUnavailable, retry  the cache is closed
//	STORE               CodeUnavailable, retry  the cache's Store could not be asked
//	FAILED              CodeUnavailable, retry  waited for a call that ended without an answer, and runs again
//	OUTCOME_UNKNOWN     CodeFailedPrecondition  the first call may or may not have had its effect; with a
//	                                            Reconcile in the cache CodeUnavailable, retry
//	ANSWER_UNAVAILABLE  CodeFailedPrecondition  done, but there is no answer any more that could be sent
//	LEFT                as the context has      the call's own context ended while it waited
//
// # Reads
//
// A method with the option idempotency_level = NO_SIDE_EFFECTS never takes a key: it may be called by HTTP GET, and
// answered by a cache in between. The key of a call of it is not looked at.
//
// # Traps
//
// What retries above an interceptor that makes keys makes a key per attempt, which protects nothing: use WithKey
// above both. gRPC's own retryPolicy retries nothing that a Connect server answers, since net/http always sends
// headers first. The default Fingerprint is stable within one binary only: see Options.Fingerprint. More is in
// docs/connect.md in the repository.
package idemconnect
