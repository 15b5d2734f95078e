package payment

import (
	"errors"

	"github.com/idemflight/idemflight"
)

// Fate is what to do with a message. Every broker has verbs for these four.
type Fate int

const (
	// Done: acknowledge the message. Its outcome is retained, a success or a refusal, and another delivery would get
	// the same answer.
	Done Fate = iota

	// Later: have it redelivered after a short delay. The payment is in flight elsewhere, or failed before any effect.
	Later

	// Unknown: the bank may or may not have charged. Do not acknowledge the message, or nobody finds out; and do not
	// have it redelivered at once, because each delivery asks the bank. Have it redelivered after a long delay; some
	// hours later set it aside and page somebody.
	Unknown

	// Rejected: no delivery can help. Set the message aside and page somebody.
	Rejected
)

// String returns done, later, unknown or rejected.
func (f Fate) String() string { return [...]string{"done", "later", "unknown", "rejected"}[f] }

// FateOf returns what to do with a message for which DoResult returned result and err.
func FateOf[V any](result idemflight.Result[V], err error) Fate {
	switch {
	case errors.Is(err, idemflight.ErrOutcomeUnknown): // first: it wraps fn's error
		return Unknown
	case errors.Is(err, idemflight.ErrKeyReused), errors.Is(err, idemflight.ErrInvalidKey):
		return Rejected
	case err == nil, errors.Is(err, idemflight.ErrValueShed):
		return Done
	case !result.ExpiresAt.IsZero(): // retained, so fn marked its error Final
		return Done
	default: // ErrInFlight, ErrCallerLeft, ErrFull, ErrClosed, ErrStore, or an error of fn before any effect
		return Later
	}
}
