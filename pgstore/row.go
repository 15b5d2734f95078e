package pgstore

import (
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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
	damage    string // what no verb writes; then only now is set beside it
}

// scan reads before and the columns from r.
func (x *row) scan(r pgx.Row, before ...any) error {
	var id, fingerprint, value, failure []byte
	var state string
	var announced, forgotten bool
	var started, completed, leased, until pgtype.Timestamptz
	err := r.Scan(append(before, &id, &state, &announced, &forgotten, &fingerprint, &value, &failure,
		&started, &completed, &leased, &until, &x.now)...)
	if err != nil {
		return err
	}
	switch {
	case len(id) != len(x.ID):
		x.damage = fmt.Sprintf("its claim has %d bytes", len(id))
	case len(fingerprint) != len(x.Fingerprint):
		x.damage = fmt.Sprintf("its fingerprint has %d bytes", len(fingerprint))
	case len(state) != 1 || !strings.Contains("cbrhxd", state):
		x.damage = fmt.Sprintf("its state is %q", state)
	case leased.Valid && strings.Contains("rxd", state), !leased.Valid && strings.Contains("cb", state):
		x.damage = fmt.Sprintf("its state is %q, and it is open: %v", state, leased.Valid)
	case strings.Contains("xd", state) && (!until.Valid || until.Time.After(x.now)):
		x.damage = fmt.Sprintf("its state is %q, and it has not ended", state)
	}
	for _, t := range []pgtype.Timestamptz{started, completed, leased, until} {
		if t.InfinityModifier != pgtype.Finite {
			x.damage = "it has a time that is infinite"
		}
	}
	if x.damage != "" {
		return nil
	}
	x.Standing = idemflight.Standing{
		ID: idemflight.ClaimID(id), Fingerprint: idemflight.Fingerprint(fingerprint), Forgotten: forgotten,
		Value: value, Err: failure, StartedAt: started.Time, CompletedAt: completed.Time,
	}
	x.state, x.announced = state[0], announced
	if leased.Valid {
		x.leased = &leased.Time
	}
	if until.Valid {
		x.until = &until.Time
	}
	return nil
}

// whole returns the error of a row that is damaged.
func (x row) whole(key string) error {
	if x.damage == "" {
		return nil
	}
	return fmt.Errorf("pgstore: the row of key %q is damaged: %s", key, x.damage)
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
