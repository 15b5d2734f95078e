package idemgrpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// Options configures [New]. Only Scope is required. Functions must be safe for concurrent use.
type Options struct {
	// Scope tells whose key it is: a stable principal, such as the account that the call was
	// authenticated for; not a bearer token, which changes between attempts and is a secret. Two
	// scopes never see each other's answers. fullMethod is "/package.Service/Method". An error, and
	// an empty scope, are answered Unauthenticated and run nothing; an error with a status of gRPC's
	// is answered with the code of that. Its text is not sent. [SharedScope] opts out.
	Scope func(ctx context.Context, fullMethod string) (string, error)

	// Cache keeps the answers. nil = MustNew([DefaultCacheOptions]()). One cache may serve several
	// interceptors: a key that a client uses for two methods is reused (KEY_REUSED). A cache with a
	// Store needs [Codec].
	Cache *idemflight.Cache[idemflight.Key, *Response]

	// MetadataKey is where the key is, in whatever case. "" = "idempotency-key".
	MetadataKey string

	// Require refuses a covered call without key (MISSING_KEY). Otherwise it passes untouched.
	Require bool

	// MaxWait is how long a duplicate waits for the answer to the first call, or for the cache's
	// Reconcile, before it is answered IN_FLIGHT. 0 = 30 s; [idemflight.NoWait], or any negative: at
	// once. Its own deadline ends the wait, too.
	MaxWait time.Duration

	// MaxRequestBytes bounds the wire form of a request that has a key; over it the answer is
	// REQUEST_TOO_LARGE. 0 = 4 MiB, which is what a gRPC server accepts unless told otherwise.
	MaxRequestBytes int

	// Covered tells which unary methods take keys; calls of others pass untouched, with a key or
	// without. It is asked once per method, and not about one whose descriptor is not registered
	// (protoregistry.GlobalFiles): that is covered. nil = all but those with the option
	// idempotency_level = NO_SIDE_EFFECTS. With Require, leave out what cannot send keys: health
	// checks (grpc.health.v1) do not have that option.
	Covered func(protoreflect.MethodDescriptor) bool

	// Fingerprint tells a retry from another request with the same key. It must not change req. One
	// that is always zero switches the check off: a key sent with another payload then gets the first
	// answer. nil = a hash of the method and of the deterministic wire form of req, unknown fields
	// included. That form is stable within one binary only. Where two versions of a program share a
	// Store, or a saved file, a retry that meets the other version may be refused (KEY_REUSED); it is
	// never run again. To prevent that, hash the fields that count.
	Fingerprint func(fullMethod string, req proto.Message) idemflight.Fingerprint

	// Classify judges a status other than OK of a handler that has neither called BeginEffect or
	// NoEffect nor marked its error; with the cache option EffectsAnnounced it does not count. The
	// cache's Classify is not asked about a status at all. Anything but the three dispositions, a
	// panic included, holds the key. nil = [ClassifyStatus].
	Classify func(*status.Status) idemflight.Disposition
}

const (
	defaultMaxWait    = 30 * time.Second // below what proxies and clients usually wait for an answer
	defaultMaxRequest = 4 << 20          // grpc.MaxRecvMsgSize, if it is not set
)

// Interceptor gives the methods of a server idempotency keys. Make one with [New]. Safe for concurrent use.
type Interceptor struct {
	opts    Options // with defaults filled in
	answers rpc.Answers[*Response]
	covered sync.Map // whether a method is, by its full name
}

// New returns an interceptor, or an error that names every bad field of opts.
func New(opts Options) (*Interceptor, error) {
	var bad []error
	report := func(field string, value any, why string) {
		bad = append(bad, fmt.Errorf("idemgrpc: Options.%s is %v: %s", field, value, why))
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
		opts.Covered = hasSideEffects
	}
	if opts.Classify == nil {
		opts.Classify = ClassifyStatus
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
func (i *Interceptor) covers(fullMethod string) bool {
	if is, known := i.covered.Load(fullMethod); known {
		return is.(bool)
	}
	is := true
	if m := descriptorOf(fullMethod); m != nil {
		is = i.opts.Covered(m)
	}
	i.covered.Store(fullMethod, is)
	return is
}

// descriptorOf returns the descriptor of a method, or nil if none is registered.
func descriptorOf(fullMethod string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(fullMethod, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	m, _ := d.(protoreflect.MethodDescriptor)
	return m
}

func hasSideEffects(m protoreflect.MethodDescriptor) bool {
	o, _ := m.Options().(*descriptorpb.MethodOptions)
	return o.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}
