// Package key has keys that are made in the call itself, and others that are not.
package key

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	gofrs "github.com/gofrs/uuid/v5"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"github.com/rs/xid"

	"github.com/idemflight/idemflight"
)

var (
	texts  = idemflight.MustNew(idemflight.Options[string, string]{})
	keys   = idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	times  = idemflight.MustNew(idemflight.Options[time.Time, string]{})
	ids    = idemflight.MustNew(idemflight.Options[uuid.UUID, string]{})
	number = idemflight.MustNew(idemflight.Options[int64, string]{})
)

func pay(context.Context) (string, error) { return "", nil }

func made(ctx context.Context, customer string) {
	texts.Do(ctx, idemflight.NewID(), pay)                                      // want `a key that is made in the call is another one at each retry, and guards nothing: take it from the client`
	texts.DoResult(ctx, customer+"/"+idemflight.NewID(), pay)                   // want `a key that is made in the call`
	texts.Do(ctx, (idemflight.NewID())[:8], pay)                                // want `a key that is made in the call`
	keys.Do(ctx, idemflight.Key{Scope: customer, ID: idemflight.NewID()}, pay)  // want `a key that is made in the call`
	keys.Do(ctx, idemflight.Key{customer, idemflight.NewID()}, pay)             // want `a key that is made in the call`
	keys.Do(ctx, idemflight.Key{Scope: customer, ID: uuid.New().String()}, pay) // want `a key that is made in the call`
	texts.Do(ctx, uuid.NewString(), pay)                                        // want `a key that is made in the call`
	ids.Do(ctx, uuid.Must(uuid.NewV7()), pay)                                   // want `a key that is made in the call`
	texts.Do(ctx, gofrs.Must(gofrs.NewV4()).String(), pay)                      // want `a key that is made in the call`
	texts.Do(ctx, ulid.Make().String(), pay)                                    // want `a key that is made in the call`
	texts.Do(ctx, fmt.Sprintf("%s-%s", customer, xid.New()), pay)               // want `a key that is made in the call`
	texts.Do(ctx, crand.Text(), pay)                                            // want `a key that is made in the call`
	texts.Do(ctx, hex.EncodeToString([]byte(crand.Text())), pay)                // want `a key that is made in the call`
	number.Do(ctx, rand.Int64(), pay)                                           // want `a key that is made in the call`
	times.Do(ctx, time.Now(), pay)                                              // want `a key that is made in the call`
	number.Do(ctx, time.Now().UTC().UnixNano(), pay)                            // want `a key that is made in the call`
	texts.Do(ctx, strconv.FormatInt(time.Now().Unix(), 10), pay)                // want `a key that is made in the call`
	texts.Do(ctx, customer+time.Now().Format(time.RFC3339), pay)                // want `a key that is made in the call`
}

// orderKey is anything: it may well prefer what the client has sent.
func orderKey(sent, made string) string { return cmp.Or(sent, made) }

func given(ctx context.Context, customer, id string) {
	texts.Do(ctx, id, pay)
	keys.Do(ctx, idemflight.Key{Scope: customer, ID: id}, pay)
	texts.Do(ctx, orderKey(id, idemflight.NewID()), pay)
	texts.Do(ctx, cmp.Or(id, uuid.NewString()), pay)
	ids.Do(ctx, uuid.NewSHA1(uuid.UUID{}, []byte(id)), pay)
	texts.Do(ctx, gofrs.NewV5(gofrs.UUID{}, id).String(), pay)

	// Once a day, once a minute.
	texts.Do(ctx, customer+time.Now().Format(time.DateOnly), pay)
	times.Do(ctx, time.Now().Truncate(24*time.Hour), pay)
	number.Do(ctx, time.Now().Unix()/60, pay)
	number.Do(ctx, int64(time.Now().YearDay()), pay)

	// One of a hundred.
	number.Do(ctx, rand.Int64N(100), pay)

	once := idemflight.NewID() // reported with -idemkey.local only
	texts.Do(ctx, once, pay)

	made := idemflight.NewID()
	for range 3 {
		if _, err := texts.Do(ctx, made, pay); err == nil {
			break
		}
	}
}

type order struct{ customer, id string }

func wrapped(fn func(context.Context, order) (string, error)) {
	idemflight.Wrap(keys, func(o order) (idemflight.Key, idemflight.Fingerprint, error) {
		if o.id == "" {
			return idemflight.Key{Scope: o.customer, ID: idemflight.NewID()}, idemflight.Fingerprint{}, nil // want `a key that is made in the call`
		}
		return idemflight.Key{Scope: o.customer, ID: o.id}, idemflight.Fingerprint{}, nil
	}, fn)
}
