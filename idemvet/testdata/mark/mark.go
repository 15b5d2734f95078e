// Package mark has fns that return errors before BeginEffect.
package mark

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/idemflight/idemflight"
)

type (
	cache   = idemflight.Cache[string, string]
	options = idemflight.Options[string, string]
)

var payments = (idemflight.MustNew(options{TTL: 1}))

var (
	errAmount = errors.New("bad amount")
	errFinal  = idemflight.Final(errAmount)
)

type refusal struct{ why string }

func (r refusal) Error() string { return r.why }

type order struct{ amount int }

func (o order) validate() error {
	if o.amount < 0 {
		return errAmount
	}
	return nil
}

// refuse marks its error.
func (o order) refuse() error { return o.final() }

func (o order) final() error { return idemflight.Final(errAmount) }

func charge(context.Context) (string, error) { return "", nil }

func unmarked(ctx context.Context, body []byte, db *sql.DB) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			return "", err // want `this error holds the key, although nothing has begun: mark it, or call NoEffect first thing in fn`
		}
		if o.amount == 0 {
			return "", errAmount // want `this error holds the key`
		}
		if err := o.validate(); err != nil {
			log.Print(err)
			return "", fmt.Errorf("order: %w", err) // want `this error holds the key`
		}
		switch err := db.QueryRowContext(ctx, "select").Scan(&o.amount); {
		case errors.Is(err, sql.ErrNoRows):
			return "", refusal{"no such order"} // want `this error holds the key`
		case err != nil && o.amount > 0:
			return "", (err) // want `this error holds the key`
		case o.amount > 100:
			return "", &refusal{"too much"} // want `this error holds the key`
		}
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return charge(ctx)
	})
}

func saidBefore(ctx context.Context, o order) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		if err := o.validate(); err != nil {
			return "", err
		}
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return "", errAmount
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		defer idemflight.NoEffect(ctx)
		if o.amount == 0 {
			return "", errAmount
		}
		return "", idemflight.BeginEffect(ctx)
	})
}

func marked(ctx context.Context, o order) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		switch o.amount {
		case 0:
			return "", idemflight.Retryable(errAmount)
		case 1:
			return "", fmt.Errorf("order: %w", idemflight.Final(errAmount))
		case 2:
			return "", errFinal
		case 3:
			err := idemflight.Unknown(errAmount)
			return "", err
		case 4:
			return "cached", nil
		}
		if err := o.refuse(); err != nil {
			return "", err
		}
		return "", idemflight.BeginEffect(ctx)
	})
}

// bank is elsewhere: it may say a word on its own, or mark its errors.
type bank interface{ check(context.Context) error }

func unsure(ctx context.Context, b bank, do func() error) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if err := b.check(ctx); err != nil {
			return "", err
		}
		return "", idemflight.BeginEffect(ctx)
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if err := do(); err != nil {
			return "", err
		}
		return "", idemflight.BeginEffect(ctx)
	})
	payments.Do(ctx, "key", func(ctx context.Context) (result string, err error) {
		if err = new(order).validate(); err == nil {
			return "cached", err // nil
		}
		if err != nil {
			idle()
		} else {
			return "cached", err // nil
		}
		if result == "" {
			return
		}
		return "", idemflight.BeginEffect(ctx)
	})
}

func idle() {}

// An effect without BeginEffect, on a way that does not lead to one.
func unannounced(ctx context.Context, o order, c *http.Client) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if o.amount < 0 {
			if _, err := c.Post("/refund", "", nil); err != nil {
				return "", err
			}
			return "", errAmount
		}
		return "", idemflight.BeginEffect(ctx)
	})
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		if _, err := c.Post("/refund", "", nil); err != nil {
			return "", err
		}
		return "", errAmount
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if _, err := c.Post("/authorize", "", nil); err != nil {
			return "", err
		}
		return "", idemflight.BeginEffect(ctx)
	})
}

func fromOutside(ctx context.Context, plain error, errs chan error) {
	marked := idemflight.Final(plain)
	payments.Do(ctx, "key", func(ctx context.Context) (_ string, err error) {
		switch {
		case plain != nil:
			return "", plain // want `this error holds the key`
		case marked != nil:
			return "", marked
		case ctx == nil:
			return "", <-errs // or nil
		}
		if err = ctx.Err(); err != nil {
			return "", err // want `this error holds the key`
		}
		if err = idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return charge(ctx)
	})
}

// In steps, each with a key of its own, the words of the inner fn are not the outer one's.
func steps(ctx context.Context) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		receipt, err := payments.Do(ctx, "key/1", func(ctx context.Context) (string, error) {
			return "", idemflight.BeginEffect(ctx)
		})
		if err != nil {
			return "", err // want `this error holds the key`
		}
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return receipt, nil
	})
}

type shop struct {
	plain, judged *cache
	Known         *cache // to other packages
}

func open() (s shop, err error) {
	s.Known = idemflight.MustNew(options{})
	if s.plain, err = idemflight.New(options{TTL: 2}); err != nil {
		return s, err
	}
	s.judged, err = idemflight.New(options{EffectsAnnounced: true})
	return s, err
}

func caches(ctx context.Context, s shop, given *cache) {
	local := idemflight.MustNew(options{})
	local.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if ctx.Err() != nil {
			return "", errAmount // want `this error holds the key`
		}
		return "", idemflight.BeginEffect(ctx)
	})
	s.plain.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if ctx.Err() != nil {
			return "", errAmount // want `this error holds the key`
		}
		return "", idemflight.BeginEffect(ctx)
	})

	silent := func(ctx context.Context) (string, error) {
		if ctx.Err() != nil {
			return "", errAmount
		}
		return "", idemflight.BeginEffect(ctx)
	}
	s.judged.Do(ctx, "key", silent)
	s.Known.Do(ctx, "key", silent)
	given.Do(ctx, "key", silent)
	classifies := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
	classifies.Do(ctx, "key", silent)
	o := options{}
	o.EffectsAnnounced = true
	set := idemflight.MustNew(o)
	set.Do(ctx, "key", silent)
	either := idemflight.MustNew(options{})
	if s.judged != nil {
		either = s.judged
	}
	either.Do(ctx, "key", silent)
	pointed := idemflight.MustNew(options{})
	replace(&pointed)
	pointed.Do(ctx, "key", silent)
}

func replace(c **cache) { *c = nil }

// A till and a drawer are set up in ways that do not name their type, or their field.
type till struct{ keys *cache }

var tills = []*till{{keys: idemflight.MustNew(options{EffectsAnnounced: true})}, newTill()}

func newTill() *till { return &till{keys: idemflight.MustNew(options{})} }

type drawer struct{ keys *cache }

var drawers = []drawer{{keys: idemflight.MustNew(options{})}, {idemflight.MustNew(options{EffectsAnnounced: true})}}

func several(ctx context.Context) {
	silent := func(ctx context.Context) (string, error) {
		if ctx.Err() != nil {
			return "", errAmount
		}
		return "", idemflight.BeginEffect(ctx)
	}
	for _, t := range tills {
		t.keys.Do(ctx, "key", silent)
	}
	for _, d := range drawers {
		d.keys.Do(ctx, "key", silent)
	}
}
