package idemflight

import "context"

// Settling returns what a store needs to settle the execution that ctx belongs to, with that value and
// error, in a transaction of the user's: its claim, and what becomes of it. The error is [ErrNotExecuting]
// if ctx belongs to no execution.
func Settling(ctx context.Context, value any, err error) (Claim, Settlement, error) {
	return Claim{}, Settlement{}, ErrNotExecuting
}
