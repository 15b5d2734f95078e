package pgstore

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idemflight/idemflight"
)

// row is a row as it was at now, by the server's clock; the zero row is none.
type row struct {
	idemflight.Standing // ID, Fingerprint, Forgotten, Value, Err, StartedAt and CompletedAt as they are written

	state     byte
	announced bool
	leased    *time.Time // nil: closed
	until     *time.Time // nil: without end
	now       time.Time
}

// scan reads before and the columns from r.
func (x *row) scan(r pgx.Row, before ...any) error {
	var id, fingerprint []byte
	var state string
	var completed *time.Time
	err := r.Scan(append(before, &id, &state, &x.announced, &x.Forgotten, &fingerprint, &x.Value, &x.Err,
		&x.StartedAt, &completed, &x.leased, &x.until, &x.now)...)
	if err != nil {
		return err
	}
	copy(x.ID[:], id)
	copy(x.Fingerprint[:], fingerprint)
	x.state = state[0]
	if completed != nil {
		x.CompletedAt = *completed
	}
	return nil
}

// standing returns what x reads as.
func (x row) standing() idemflight.Standing {
	seen := x.Standing
	seen.Begun = x.state == 'b'
	alive := x.leased != nil && x.leased.After(x.now)
	unbegun := x.leased != nil && x.state == 'c' && x.announced
	switch {
	case x.state == 0:
		return idemflight.Standing{}
	case alive || unbegun:
		seen.State, seen.ExpiresIn = idemflight.InFlight, max(0, x.leased.Sub(x.now))
		return seen
	case x.left() == 0:
		return idemflight.Standing{}
	case x.state == 'r':
		seen.State = idemflight.Retained
	default:
		seen.State = idemflight.Held
		if x.state != 'h' {
			seen.CompletedAt = *x.leased
		}
	}
	seen.ExpiresIn = x.left()
	return seen
}

// left returns what is left of what is kept, or would be if the owner died; -1 if it has no end.
func (x row) left() time.Duration {
	if x.until == nil {
		return -1
	}
	return max(0, x.until.Sub(x.now))
}

// granted returns the answer to a Claim whose ID is on x, which is open.
func (x row) granted() idemflight.Standing {
	if x.state != 'h' {
		return idemflight.Standing{Granted: true, ID: x.ID}
	}
	seen := x.Standing
	seen.State, seen.Granted, seen.ExpiresIn = idemflight.Held, true, x.left()
	return seen
}

// outcome returns what x was settled with, also if it reads as absent by now.
func (x row) outcome() idemflight.Standing {
	seen := x.Standing
	switch x.state {
	case 'r':
		seen.State, seen.ExpiresIn = idemflight.Retained, x.left()
	case 'h':
		seen.State, seen.ExpiresIn = idemflight.Held, x.left()
	}
	return seen
}
