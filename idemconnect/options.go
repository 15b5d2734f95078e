package idemconnect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// Options configures [New]. Only Scope is required. Functions must be safe for concurrent use.
type Options struct {
	// Scope tells whose key it is: a stable principal, such as the account that the call was
	// authenticated for; not a bearer token, which changes between attempts and is a secret. Two
	// scopes never see each other's answers. procedure is "/package.Service/Method". An error, and
	// an empty scope, are answered CodeUnauthenticated and run nothing; a *connect.Error is answered
	// with its code. Its text is not sent. [SharedScope] opts out.
	Scope func(ctx context.Context, procedure string) (string, error)

	// Cache keeps the answers. nil = MustNew([DefaultCacheOptions]()). One cache may serve several
	// interceptors: a key that a client uses for two methods is reused (KEY_REUSED). A cache with a
	// Store needs [Codec].
	Cache *idemflight.Cache[idemflight.Key, *Response]

	// MetadataKey is the request header that the key is in, in whatever case. "" = "idempotency-key".
	MetadataKey string

	// Require refuses a covered unary call without key (MISSING_KEY). Otherwise it passes untouched.
	Require bool

	// MaxWait is how long a duplicate waits for the answer to the first call, or for the cache's
	// Reconcile, before it is answered IN_FLIGHT. 0 = 30 s; [idemflight.NoWait], or any negative: at
	// once. Its own deadline ends the wait, too.
	MaxWait time.Duration

	// MaxRequestBytes bounds the wire form of a request that has a key, in whatever form it was sent;
	// over it the answer is REQUEST_TOO_LARGE. 0 = 4 MiB, which is what connecthttp reads unless told
	// otherwise.
	MaxRequestBytes int

	// Covered tells which methods take keys; calls of others pass untouched, with a key or without. It
	// is asked with each call that has a key, and with Require with each. nil = all. It is not asked about
	// methods with the option idempotency_level = NO_SIDE_EFFECTS: they may come by HTTP GET, from a
	// browser's cache, and never take keys.
	Covered func(connect.Spec) bool

	// Fingerprint tells a retry from another request with the same key. It must not change req. One
	// that is always zero switches the check off: a key sent with another payload then gets the first
	// answer. nil = a hash of the method and of the deterministic wire form of req, unknown fields
	// included: a retry may come by another protocol, and as JSON. That form is stable within one
	// binary only. Where two versions of a program share a Store, or a saved file, a retry that meets
	// the other version may be refused (KEY_REUSED); it is never run again. To prevent that, hash the
	// fields that count.
	Fingerprint func(procedure string, req proto.Message) idemflight.Fingerprint

	// Classify judges the error, as clients see it, of a handler that has neither called BeginEffect or
	// NoEffect nor marked its error; with the cache option EffectsAnnounced it does not count. The
	// cache's Classify is not asked about an error at all. Anything but the three dispositions, a
	// panic included, holds the key. nil = [ClassifyCode].
	Classify func(*connect.Error) idemflight.Disposition
}

const (
	defaultMaxWait    = 30 * time.Second // below what proxies and clients usually wait for an answer
	defaultMaxRequest = 4 << 20          // that of connecthttp.WithReadMaxBytes
)

// Interceptor gives the methods of a server idempotency keys. Make one with [New]. Safe for concurrent use.
type Interceptor struct {
	opts    Options // with defaults filled in
	answers rpc.Answers[*Response]
}

// New returns an interceptor, or an error that names every bad field of opts.
func New(opts Options) (*Interceptor, error) {
	var bad []error
	report := func(field string, value any, why string) {
		bad = append(bad, fmt.Errorf("idemconnect: Options.%s is %v: %s", field, value, why))
	}
	if opts.Scope == nil {
		report("Scope", "nil", "must tell whose key it is: the authenticated account, say (SharedScope, if all clients are one party)")
	}
	name, why := rpc.MetadataKey(opts.MetadataKey)
	if why != "" {
		report("MetadataKey", fmt.Sprintf("%q", opts.MetadataKey), why)
	}
	if opts.MaxRequestBytes < 0 {
		report("MaxRequestBytes", opts.MaxRequestBytes, "must not be negative (0 means the default, 4 MiB)")
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}

	opts.MetadataKey = name
	if opts.MaxWait == 0 {
		opts.MaxWait = defaultMaxWait
	}
	if opts.MaxRequestBytes == 0 {
		opts.MaxRequestBytes = defaultMaxRequest
	}
	if opts.Cache == nil {
		opts.Cache = idemflight.MustNew(DefaultCacheOptions())
	}
	if opts.Covered == nil {
		opts.Covered = func(connect.Spec) bool { return true }
	}
	if opts.Classify == nil {
		opts.Classify = ClassifyCode
	}
	reconciles := opts.Cache.Options().Reconcile != nil
	return &Interceptor{opts: opts, answers: rpc.Answers[*Response]{Reconciles: reconciles, CanSend: (*Response).complete}}, nil
}

// Cache returns the cache that keeps the answers: to settle held keys, to watch, to hand over at a
// restart.
func (i *Interceptor) Cache() *idemflight.Cache[idemflight.Key, *Response] { return i.opts.Cache }

// SharedScope is an Options.Scope for a server all of whose clients are one party: whoever knows a key
// gets its answer.
func SharedScope(context.Context, string) (string, error) { return "shared", nil }

// covers reports whether a method takes keys.
func (i *Interceptor) covers(spec connect.Spec) bool {
	return spec.IdempotencyLevel != connect.IdempotencyNoSideEffects && i.opts.Covered(spec)
}
