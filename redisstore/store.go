package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idemflight/idemflight"
)

// MaxKey is the longest encoded key, in bytes: the same as in idemflight's other stores, so that keys can
// move. A longer one is [idemflight.ErrInvalidKey].
const MaxKey = 1024

// suffix follows the key in the engine's: name:{key}.
const suffix = "}"

// Store is an [idemflight.Store] in Redis: see the package. Open returns one. All methods are safe for
// concurrent use. A verb ends soon after its context, also where the client goes on waiting for the engine's
// answer (that ends with the client's ReadTimeout); the engine may still do what it was asked.
type Store struct {
	client      redis.UniversalClient
	prefix      string
	persistence Persistence
	watches     watches
}

var _ idemflight.Store = (*Store)(nil)

func checkKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes encoded, the store takes %d", idemflight.ErrInvalidKey, len(key), MaxKey)
	}
	return nil
}

// Claim asks for the right to run. Cost: one round trip.
func (s *Store) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	reply, err := s.run(ctx, claim, r.Key, id(r.ID), id(r.Replaces), r.From.String(), flag(r.Reconcile),
		string(r.Fingerprint[:]), micros(r.Lease), microsOrForever(r.HoldTTL), flag(r.EffectsAnnounced))
	if err != nil {
		return idemflight.Standing{}, err
	}
	return standing(reply)
}

// Begin notes that an effect may have taken place. Cost: one round trip.
func (s *Store) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	reply, err := s.run(ctx, begin, c.Key, id(c.ID), micros(lease))
	if err == nil && reply == int64(0) {
		return idemflight.ErrClaimLost
	}
	return err
}

// Settle ends an execution. Cost: one round trip.
func (s *Store) Settle(ctx context.Context, c idemflight.Claim, end idemflight.Settlement) (idemflight.Standing, error) {
	reply, err := s.run(ctx, settle, c.Key, id(c.ID), end.Disposition.String(), microsOrForever(end.TTL),
		flag(end.Value != nil), string(end.Value), flag(end.Err != nil), string(end.Err))
	if err != nil {
		return idemflight.Standing{}, err
	}
	if reply == int64(0) {
		return idemflight.Standing{}, idemflight.ErrClaimLost
	}
	return standing(reply)
}

// Renew moves the ends of leases, and returns the claims that are lost; beside an error, those that it knows
// of. Cost: one round trip for all, in a cluster one for each engine, at the same time.
func (s *Store) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	if len(cs) == 0 {
		return nil, ctx.Err()
	}
	keys, args := make([]string, len(cs)), make([][]any, len(cs))
	for i, c := range cs {
		keys[i], args[i] = s.prefix+c.Key+suffix, []any{id(c.ID), micros(lease)}
	}
	cmds, err := s.runEach(ctx, renew, keys, args)
	for i, cmd := range cmds {
		renewed, failed := cmd.Int64()
		switch {
		case failed != nil:
			err = naming(cs[i].Key, failed) // one says as much as all
		case renewed == 0:
			lost = append(lost, cs[i].ID)
		}
	}
	return lost, err
}

// Read returns what is known of a key. Cost: one round trip. It never asks a replica.
func (s *Store) Read(ctx context.Context, key string) (idemflight.Standing, error) {
	reply, err := s.run(ctx, read, key, flag(false))
	if err != nil {
		return idemflight.Standing{}, err
	}
	return standing(reply)
}

// GiveBack undoes a claim whose answer never came. Cost: one round trip.
func (s *Store) GiveBack(ctx context.Context, c idemflight.Claim) error {
	_, err := s.run(ctx, giveBack, c.Key, id(c.ID))
	return err
}

// Forget drops the record that bears c.ID. Cost: one round trip.
func (s *Store) Forget(ctx context.Context, c idemflight.Claim) (bool, error) {
	reply, err := s.run(ctx, forget, c.Key, id(c.ID))
	return err == nil && reply == int64(1), err
}

// Unsettled calls f, on the caller's goroutine and without a lock, for every key in flight or held.
//
// It scans: SCAN goes over all keys of the engine's database, of every master in a cluster, also those of
// other stores and programs; a million keys are a thousand round trips, about a second. The keys of this
// store are read, a thousand in a round trip. A key that is claimed or settled meanwhile may be missing or be
// told as it was. The same goes for one whose slot moves to another master. Records that are damaged do not end
// it: it returns what is wrong with them at the end.
func (s *Store) Unsettled(ctx context.Context, f func(key string, x idemflight.Standing) error) error {
	engines, err := soon(ctx, func() ([]redis.Cmdable, error) { return masters(ctx, s.client) })
	if err != nil {
		return err
	}
	told := map[string]bool{} // SCAN may return a key twice
	var bad []error
	for _, engine := range engines {
		for cursor := uint64(0); ; {
			var keys []string
			keys, cursor, err = s.scan(ctx, engine, cursor)
			if err != nil {
				return err
			}
			unread, err := s.tell(ctx, keys, told, f)
			if err != nil {
				return err
			}
			bad = append(bad, unread...)
			if cursor == 0 {
				break
			}
		}
	}
	return errors.Join(bad...)
}

// scan returns the next of the store's keys that an engine has, and where to go on; 0 is the end.
func (s *Store) scan(ctx context.Context, engine redis.Cmdable, cursor uint64) ([]string, uint64, error) {
	type page struct {
		keys []string
		next uint64
	}
	pattern := globEscape.Replace(s.prefix) + "*" + suffix
	p, err := soon(ctx, func() (p page, err error) {
		p.keys, p.next, err = engine.Scan(ctx, cursor, pattern, 1000).Result()
		return p, err
	})
	return p.keys, p.next, err
}

var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// tell calls f for those of the engine's keys that are in flight or held, and were not told before. It returns
// what is wrong with those that are damaged.
func (s *Store) tell(ctx context.Context, keys []string, told map[string]bool, f func(string, idemflight.Standing) error) (bad []error, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	args := make([][]any, len(keys))
	for i := range args {
		args[i] = []any{flag(true)}
	}
	cmds, err := s.runEach(ctx, read, keys, args)
	if err != nil {
		return nil, err
	}
	for i, cmd := range cmds {
		if told[keys[i]] {
			continue
		}
		key := strings.TrimSuffix(strings.TrimPrefix(keys[i], s.prefix), suffix)
		reply, err := cmd.Result()
		switch {
		case damaged(err):
			told[keys[i]] = true
			bad = append(bad, naming(key, err))
			continue
		case err != nil:
			return nil, err
		}
		x, err := standing(reply)
		if err != nil {
			return nil, err
		}
		if x.State == idemflight.Absent {
			continue
		}
		told[keys[i]] = true
		if err := f(key, x); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// masters returns the engines that have the keys, each of them once.
func masters(ctx context.Context, client redis.UniversalClient) ([]redis.Cmdable, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{client}, nil
	}
	var mu sync.Mutex // guards all
	var all []redis.Cmdable
	err := cluster.ForEachMaster(ctx, func(_ context.Context, engine *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, engine)
		return nil
	})
	if err == nil && len(all) == 0 {
		err = errors.New("redisstore: the cluster has no masters")
	}
	return all, err
}
