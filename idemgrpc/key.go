package idemgrpc

import (
	"context"

	"github.com/idemflight/idemflight"
)

type handlerKey struct{}

// KeyFrom returns the key of the call that a covered handler serves, from its context, and reports
// whether there is one. Give both its parts to the bank, as one reference, so that the bank too can tell
// a retry: the ID alone may also be another customer's.
func KeyFrom(ctx context.Context) (idemflight.Key, bool) {
	key, ok := ctx.Value(handlerKey{}).(idemflight.Key)
	return key, ok
}
