// Package rpc is what idemgrpc and idemconnect have in common: keys in metadata, the answers that are not the
// handler's, and what becomes of those that are. It knows neither gRPC nor Connect; codes, which have the same
// numbers in both, are numbers.
package rpc

import (
	"fmt"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/verdict"
)

// Judge returns the error of a handler with the verdict of classify, for one that said nothing about its
// effect. A marker in err comes before that, and so does what the handler said. If classify panics the answer
// is there all the same, and its client gets it; but whether to run again is not known.
func Judge(err error, classify func() idemflight.Disposition) error {
	d, panicked := try(classify)
	if panicked != nil {
		err = fmt.Errorf("%w (and %v)", err, panicked) // one error, whose marker still decides
	}
	return &verdict.Error{Err: err, Retain: d == idemflight.Retain, Hold: d != idemflight.Release}
}

func try(classify func() idemflight.Disposition) (d idemflight.Disposition, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = idemflight.Hold, fmt.Errorf("idemflight: Options.Classify panicked: %v", v)
		}
	}()
	return classify(), nil
}

// Unmarked returns err without the markers around it. They speak to the cache alone, and would hide the status
// that err brings, or get into its text.
func Unmarked(err error) error {
	for {
		m, ok := err.(verdict.Marker)
		if !ok {
			return err
		}
		err = m.Unwrap()
	}
}

// Repanic, deferred around a call of the cache, panics again with the value of the handler, which the cache has
// wrapped: recovery outside is to see its own. The handler's frames, which are on the stack now, stay there until
// that recovery returns. executed reports whether it was this call that ran the handler.
func Repanic(executed func() bool) {
	v := recover()
	if v == nil {
		return
	}
	if p, ok := v.(*idemflight.PanicError); ok && executed() {
		v = p.Value
	}
	panic(v)
}
