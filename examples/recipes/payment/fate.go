package payment

import (
	"errors"

	"github.com/idemflight/idemflight"
)

// Fate is what is to become of a message. Every broker has verbs for these four.
type Fate int

const (
	// Done: acknowledge. The outcome is retained, be it a success or a refusal, and another delivery would be told
	// the same.
	Done Fate = iota

	// Later: deliver it again after a short delay. It is being worked on elsewhere, or failed before any effect.
	Later

	// Unknown: the effect may or may not have taken place. Do not acknowledge, since then nobody would find out; and
	// do not deliver it again at once, since the bank is asked each time. Deliver it again after a long delay; after
	// some hours of that set it aside and call a person.
	Unknown

	// Rejected: no delivery can help. Set it aside and call a person.
	Rejected
)

// String returns done, later, unknown or rejected.
func (f Fate) String() string { return [...]string{"done", "later", "unknown", "rejected"}[f] }

// FateOf returns what is to become of the message for which a call of DoResult answered result and err.
func FateOf[V any](result idemflight.Result[V], err error) Fate {
	switch {
	case errors.Is(err, idemflight.ErrOutcomeUnknown): // first: it wraps fn's error
		return Unknown
	case errors.Is(err, idemflight.ErrKeyReused), errors.Is(err, idemflight.ErrInvalidKey):
		return Rejected
	case err == nil, errors.Is(err, idemflight.ErrValueShed):
		return Done
	case !result.ExpiresAt.IsZero(): // retained: fn marked its error Final
		return Done
	default: // ErrInFlight, ErrCallerLeft, ErrFull, ErrClosed, ErrStore, or what fn returned before any effect
		return Later
	}
}
